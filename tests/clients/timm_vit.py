"""timm's vision transformers and He et al.'s names against lamella. Usage: python timm_vit.py LAMELLA (torch, timm)."""
import argparse
import os
import sys
import tempfile

import numpy as np
import timm
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer

import common

BOUND = 5e-6
IMAGENET = [np.reshape(v, (3, 1, 1)) for v in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]


def random(model):
    torch.manual_seed(3)
    for name, p in model.named_parameters():
        scale = p[0].numel() ** -0.5 if p.dim() in (2, 4) else 0.1
        torch.nn.init.normal_(p, 1.0 if "norm" in name and "weight" in name else 0.0, scale)
    return model.eval()


def vit(**changes):
    sizes = dict(img_size=32, patch_size=8, in_chans=3, num_classes=0, embed_dim=128, depth=3, num_heads=2, mlp_ratio=2)
    return random(VisionTransformer(**{**sizes, **changes}))


@torch.no_grad()
def mean_of_tokens(model, pixels):
    return model.double().forward_features(torch.tensor(pixels))[:, 1:].mean(1).numpy()


def refuses(folder, packed, what, word):
    try:
        common.embed(folder, packed, os.path.dirname(folder) + "/e.npy")
    except RuntimeError as error:
        assert word in str(error), error
        print(f"{what:72s} refused")
    else:
        raise AssertionError(what)


def main(folder):
    pixels, packed = common.shards(folder + "/rgb", 3, 32)
    many, packed_many = common.shards(folder + "/many", 5, 32)
    out, path = folder + "/e.npy", folder + "/w.pth"
    x = (pixels / 255.0 - IMAGENET[0]) / IMAGENET[1]
    model = vit(num_classes=10)  # with a head, which is left out
    state, expected = {k: v.clone() for k, v in model.state_dict().items()}, mean_of_tokens(model, x)
    for name, value in [("state_dict", state), ("{model:, args: Namespace}, as He et al. save it",
                        {"model": state, "args": argparse.Namespace(lr=1e-3, output_dir="x"), "epoch": 800})]:
        torch.save(value, path)
        common.check(name, common.embed(path, packed, out), expected, BOUND)
    torch.save({k: v.half() for k, v in state.items()}, path)
    common.check("float16", common.embed(path, packed, out), expected, 2e-3)
    save_file(state, folder + "/w.safetensors")
    common.check("safetensors", common.embed(folder + "/w.safetensors", packed, out), expected, BOUND)
    model = vit(in_chans=5, qkv_bias=False)
    torch.save(model.state_dict(), path)
    common.check("5 channels, no bias of q, k and v", common.embed(path, packed_many, out),
                 mean_of_tokens(model, common.standardised(many)), BOUND)
    for changes, word in [(dict(init_values=0.1), "ls1.gamma"), (dict(qk_norm=True), "norm"), (dict(reg_tokens=2), "no square"),
                          (dict(class_token=False, global_pool="avg"), "cls_token")]:
        torch.save(vit(**changes).state_dict(), path)
        refuses(path, packed, str(changes), word)


if __name__ == "__main__":
    print("timm", timm.__version__, "torch", torch.__version__)
    with tempfile.TemporaryDirectory() as work:
        main(work)
