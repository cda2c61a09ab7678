"""transformers' ViTMAE against lamella, both ways. Usage: python huggingface.py LAMELLA (needs torch, transformers)."""
import json
import os
import sys
import tempfile

import numpy as np
import torch
import transformers
from transformers import ViTMAEConfig, ViTMAEForPreTraining, ViTMAEModel

import common

BOUND = 5e-6


def config(**changes):
    sizes = dict(hidden_size=48, num_hidden_layers=3, num_attention_heads=3, intermediate_size=96, image_size=32,
                 patch_size=8, num_channels=3, decoder_hidden_size=64, decoder_num_hidden_layers=2,
                 decoder_num_attention_heads=4, decoder_intermediate_size=128)
    return ViTMAEConfig(**{**sizes, **changes})


def random(model, seed=0):
    """Weights of unit gain, so that attention is far from uniform."""
    torch.manual_seed(seed)
    for name, p in model.named_parameters():
        if p.dim() > 1 and "position" not in name and "pos_embed" not in name:
            torch.nn.init.normal_(p, 0, p[0].numel() ** -0.5 if p.dim() != 3 else 0.02)
        elif "position" in name or "pos_embed" in name:
            torch.nn.init.normal_(p, 0, 0.3)
        else:
            torch.nn.init.normal_(p, 1.0 if "norm" in name and "weight" in name else 0.0, 0.1)
    return model.eval()


@torch.no_grad()
def mean_of_tokens(model, pixels):
    vit = getattr(model, "vit", model).double()
    vit.config.mask_ratio = 0.0
    x = torch.tensor(pixels)
    noise = torch.arange((x.shape[-1] // vit.config.patch_size) ** 2).expand(len(x), -1).double()
    tokens = vit(x, noise=noise).last_hidden_state
    vit.float()
    return tokens[:, 1:].mean(1).numpy()


def imports(folder):
    pixels, packed = common.shards(folder + "/rgb", 3, 32)
    many, packed_many = common.shards(folder + "/many", 6, 32)
    x, x_many = common.standardised(pixels), common.standardised(many)
    out = folder + "/e.npy"
    for name, model, data, where in [
        ("ViTMAEForPreTraining.save_pretrained", ViTMAEForPreTraining(config()), x, packed),
        ("layer_norm_eps 1e-6", ViTMAEForPreTraining(config(layer_norm_eps=1e-6)), x, packed),
        ("6 channels, other heads", ViTMAEForPreTraining(config(num_channels=6, num_attention_heads=6)), x_many, packed_many),
        ("qkv_bias false", ViTMAEForPreTraining(config(qkv_bias=False)), x, packed),
        ("ViTMAEModel.save_pretrained (encoder alone)", ViTMAEModel(config()), x, packed),
    ]:
        random(model).save_pretrained(folder + "/theirs")
        common.check(name, common.embed(folder + "/theirs", where, out), mean_of_tokens(model, data), BOUND)
    model = random(ViTMAEForPreTraining(config()))
    expected = mean_of_tokens(model, x)
    model.save_pretrained(folder + "/sharded", max_shard_size="100KB")
    common.check("sharded safetensors", common.embed(folder + "/sharded", packed, out), expected, BOUND)
    for wrapping in (lambda s: s, lambda s: {"state_dict": {"module." + k: v for k, v in s.items()}, "epoch": 3}):
        os.makedirs(folder + "/memory", exist_ok=True)
        torch.save(wrapping(model.state_dict()), folder + "/memory/pytorch_model.bin")
        model.config.save_pretrained(folder + "/memory")
        common.check("names in memory, pytorch_model.bin", common.embed(folder + "/memory", packed, out), expected, BOUND)
    with open(folder + "/memory/preprocessor_config.json", "w") as file:
        json.dump({"do_normalize": True, "image_mean": [0.4, 0.5, 0.6], "image_std": [0.2, 0.1, 0.3]}, file)
    y = (pixels / 255.0 - np.reshape([0.4, 0.5, 0.6], (3, 1, 1))) / np.reshape([0.2, 0.1, 0.3], (3, 1, 1))
    common.check("preprocessor_config.json", common.embed(folder + "/memory", packed, out), mean_of_tokens(model, y), BOUND)
    named = common.embed(folder + "/theirs", packed_many, out, "--channels", "ch6,ch1,ch2")
    common.check("--channels", named, mean_of_tokens(random(ViTMAEModel(config())), x_many[:, [5, 0, 1]]), BOUND)


def load(cls, folder):
    model, info = cls.from_pretrained(folder, output_loading_info=True)
    wrong = {k: v for k, v in info.items() if v}
    assert not wrong, wrong
    return model.eval()


@torch.no_grad()
def exports(folder):
    pixels, packed = common.shards(folder + "/own", 5, 32, 8)
    x, out = common.standardised(pixels), folder + "/e.npy"
    with open(folder + "/own.yaml", "w") as file:
        file.write("model: {embed_dim: 48, depth: 2, num_heads: 3, patch_size: 8, image_size: 32, mlp_ratio: 2,\n"
                   "  decoder_embed_dim: 32, decoder_depth: 1, decoder_num_heads: 4}\n"
                   f"data: {{path: {packed}}}\ntrain: {{out: {folder}/run, steps: 4, global_batch: 4}}\n")
    common.lamella("train", folder + "/own.yaml", "--quiet")
    common.lamella("export", folder + "/run", "--to", "huggingface", "--out", folder + "/exported")
    model = load(ViTMAEForPreTraining, folder + "/exported")
    common.check("a run of ours, ViTMAEForPreTraining.from_pretrained", common.embed(folder + "/run", packed, out),
                 mean_of_tokens(model, x), BOUND)
    common.check("the same, ViTMAEModel.from_pretrained", common.embed(folder + "/exported", packed, out),
                 mean_of_tokens(ViTMAEModel.from_pretrained(folder + "/exported").eval(), x), BOUND)
    theirs = random(ViTMAEForPreTraining(config()), 1)
    theirs.save_pretrained(folder + "/theirs")
    common.lamella("export", folder + "/theirs", "--to", "huggingface", "--out", folder + "/again")
    again = load(ViTMAEForPreTraining, folder + "/again")
    same = all(torch.equal(v, theirs.state_dict()[k]) for k, v in again.state_dict().items())
    print(f"{'there and back again: bytes of every tensor':72s} {'equal' if same else 'differ'}")
    assert same and again.config.layer_norm_eps == theirs.config.layer_norm_eps
    image, noise = torch.randn(2, 3, 32, 32), torch.rand(2, 16)
    assert torch.equal(again(image, noise=noise).logits, theirs(image, noise=noise).logits)
    random(ViTMAEModel(config()), 2).save_pretrained(folder + "/encoder")
    common.lamella("export", folder + "/encoder", "--to", "huggingface", "--out", folder + "/encoder_again")
    load(ViTMAEModel, folder + "/encoder_again")
    print("an encoder alone: ViTMAEModel takes it")


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    print("transformers", transformers.__version__, "torch", torch.__version__)
    with tempfile.TemporaryDirectory() as work:
        imports(work)
        exports(work)
