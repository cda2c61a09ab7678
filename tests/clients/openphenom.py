"""OpenPhenom's file, with all its names and shapes, against lamella; timm's two layouts of the bias of its blocks (before
1.0.25 and since). Usage: python openphenom.py LAMELLA [BLOCK.safetensors] (needs torch, timm, safetensors)."""
import json
import os
import sys
import tempfile

import numpy as np
import timm
import torch
from timm.models.vision_transformer import ParallelScalingBlock

import common

BOUND = 5e-6
LEGACY = tuple(int(x) for x in timm.__version__.split(".")[:3] if x.isdigit()) <= (1, 0, 24)


def sincos(width, grid, times):
    """[sin(h) cos(h) sin(w) cos(w)], row by row, cls first, repeated for each channel."""
    omega = 10000 ** (-torch.arange(width // 4, dtype=torch.float64) / (width / 4))
    y, x = torch.meshgrid(torch.arange(grid), torch.arange(grid), indexing="ij")
    y, x = y.reshape(-1, 1) * omega, x.reshape(-1, 1) * omega
    table = torch.cat([y.sin(), y.cos(), x.sin(), x.cos()], 1)
    return torch.cat([torch.zeros(1, width), table.repeat(times, 1)])[None].float()


def published(dim=384, depth=12, heads=6, patch=16, grid=16, modalities=6, table=11, wide=512, deep=8, seed=0):
    """Names and shapes of the published file; the frozen tensors have their values, the others are random."""
    g = torch.Generator().manual_seed(seed)
    state, hidden, wide_hidden = {}, 4 * dim, 4 * wide

    def tensor(name, *shape, mean=0.0, scale=None):
        scale = shape[-1] ** -0.5 if scale is None else scale
        state[name] = mean + scale * torch.randn(*shape, generator=g)

    def linear(name, out, fan_in, bias=True):
        tensor(name + ".weight", out, fan_in)
        if bias:
            tensor(name + ".bias", out, scale=0.1)

    def norm(name, width):
        tensor(name + ".weight", width, mean=1.0, scale=0.1)
        tensor(name + ".bias", width, scale=0.1)

    e = "encoder.vit_backbone."
    tensor(e + "cls_token", 1, 1, dim, scale=0.02)
    state[e + "pos_embed"] = sincos(dim, grid, table)
    tensor(e + "patch_embed.proj.weight", dim, 1, patch, patch, scale=1 / patch)
    tensor(e + "patch_embed.proj.bias", dim, scale=0.1)
    for i in range(depth):
        b = f"{e}blocks.{i}."
        norm(b + "in_norm", dim)
        linear(b + "in_proj", hidden + 3 * dim, dim, bias=False)
        tensor(b + "mlp_bias", hidden, scale=0.1)
        norm(b + "q_norm", dim // heads)
        norm(b + "k_norm", dim // heads)
        linear(b + "attn_out_proj", dim, dim)
        linear(b + "mlp_out_proj", dim, hidden)
        tensor(b + "ls.gamma", dim, mean=0.5, scale=0.1)
    state[e + "fc_norm.weight"], state[e + "fc_norm.bias"] = torch.ones(dim), torch.zeros(dim)
    linear("encoder_decoder_proj", wide, dim)
    d = "decoder."
    tensor(d + "mask_token", 1, 1, wide, scale=0.02)
    state[d + "placeholder"] = torch.zeros(1, 1, wide)
    state[d + "pos_embeddings"] = sincos(wide, grid, modalities)
    for m in range(modalities):
        tensor(f"{d}modality_tokens.{m}", 1, 1, wide, scale=0.02)
    linear(d + "cross_attention.q", wide, wide, bias=False)
    linear(d + "cross_attention.kv", 2 * wide, wide, bias=False)
    linear(d + "cross_attention.proj", wide, wide)
    linear(d + "mlp.fc1", wide_hidden, wide)
    linear(d + "mlp.fc2", wide, wide_hidden)
    for name in ("context_norm", "query_norm", "out_norm"):
        norm(d + name, wide)
    for m in range(modalities):
        for i in range(deep):
            b = f"{d}decoders.{m}.{i}."
            norm(b + "norm1", wide)
            norm(b + "norm2", wide)
            linear(b + "attn.qkv", 3 * wide, wide)
            linear(b + "attn.proj", wide, wide)
            linear(b + "mlp.fc1", wide_hidden, wide)
            linear(b + "mlp.fc2", wide, wide_hidden)
    linear("decoder_pred", patch * patch, wide)
    return state


@torch.no_grad()
def embedding(state, pixels, heads):
    """Mean of the patch tokens, and a mean for each channel, by the blocks of the timm that is installed."""
    e, count = "encoder.vit_backbone.", len(pixels)
    state = {k[len(e):]: v.double() for k, v in state.items() if k.startswith(e)}
    x = torch.tensor(common.standardised(pixels))
    patch, dim = state["patch_embed.proj.weight"].shape[-1], state["cls_token"].shape[-1]
    x = torch.nn.functional.conv2d(x.flatten(0, 1)[:, None], state["patch_embed.proj.weight"],
                                   state["patch_embed.proj.bias"], stride=patch)
    x = x.flatten(2).transpose(1, 2).reshape(count, -1, dim)
    x = torch.cat([state["cls_token"].expand(count, -1, -1), x], 1) + state["pos_embed"][:, : 1 + x.shape[1]]
    i = 0
    while f"blocks.{i}.ls.gamma" in state:
        block = ParallelScalingBlock(dim, heads, qk_norm=True, qkv_bias=False, init_values=1e-4,
                                     norm_layer=lambda width, **_: torch.nn.LayerNorm(width, eps=1e-6)).double().eval()
        own = {k[len(f"blocks.{i}."):]: v for k, v in state.items() if k.startswith(f"blocks.{i}.")}
        missing, unexpected = block.load_state_dict(own, strict=False)
        assert not unexpected and all("bias" in k for k in missing), (missing, unexpected)
        x = block(x)
        i += 1
    x = x[:, 1:]
    return x.mean(1).numpy(), x.reshape(count, pixels.shape[1], -1, dim).mean(2).flatten(1).numpy()


def equal(a, b):
    assert set(a) == set(b), set(a) ^ set(b)
    return all(torch.equal(v, b[k]) and v.dtype == b[k].dtype for k, v in a.items())


def round_trip(folder):
    """The whole published set: in, out again, the same bytes."""
    state = published()
    elements = sum(v.numel() for v in state.values())
    assert len(state) == 765 and elements == 178045568, (len(state), elements)
    os.makedirs(folder + "/hub")
    torch.save({"state_dict": state}, folder + "/hub/model.safetensors")
    size = os.path.getsize(folder + "/hub/model.safetensors")
    common.lamella("export", folder + "/hub", "--to", "openphenom", "--out", folder + "/again")
    again = torch.load(folder + "/again/pytorch_model.bin", weights_only=True)
    assert list(again) == ["state_dict"]
    same = equal(state, again["state_dict"])
    print(f"{len(state)} tensors, {elements} elements, {size} bytes: out again through torch.load(weights_only=True): "
          f"{'equal' if same else 'differ'}")
    assert same
    pixels, packed = common.shards(folder + "/s16", 6, 256, 1)
    whole, by_channel = embedding(state, pixels, 6)
    if LEGACY:
        common.check("CA-MAE-S/16, mean of tokens", common.embed(folder + "/hub", packed, folder + "/e.npy"), whole, BOUND)
        common.check("CA-MAE-S/16, by channel", common.embed(folder + "/hub", packed, folder + "/e.npy", "--pool", "channel"),
                     by_channel, BOUND)


def small(folder):
    """Both layouts, other numbers of channels, an encoder alone."""
    sizes = dict(dim=64, depth=3, heads=2, patch=8, grid=4, modalities=3, wide=32, deep=1)
    state, out = published(**sizes), folder + "/e.npy"
    os.makedirs(folder + "/small")
    torch.save({"state_dict": state}, folder + "/small/model.safetensors")
    with open(folder + "/small/config.json", "w") as file:
        json.dump({"bias_layout": "timm_legacy" if LEGACY else "fixed", "decoder_num_attention_heads": 4}, file)
    for channels in (1, 3, 5, 12):
        pixels, packed = common.shards(f"{folder}/c{channels}", channels, 32, 2)
        tall = dict(state)
        tall["encoder.vit_backbone.pos_embed"] = sincos(64, 4, max(channels, 11))
        whole, by_channel = embedding(tall, pixels, 2)
        common.check(f"{channels} channels", common.embed(folder + "/small", packed, out), whole, BOUND)
        common.check(f"{channels} channels, by channel", common.embed(folder + "/small", packed, out, "--pool", "channel"),
                     by_channel, BOUND)
    chosen = common.embed(folder + "/small", packed, out, "--channels", "ch7,ch2")
    common.check("--channels", chosen, embedding(tall, pixels[:, [6, 1]], 2)[0], BOUND)
    torch.save({k: v for k, v in state.items() if k.startswith("encoder.")}, folder + "/encoder.pt")
    with open(folder + "/config.json", "w") as file:
        json.dump({"bias_layout": "timm_legacy" if LEGACY else "fixed"}, file)
    common.check("the encoder alone", common.embed(folder + "/encoder.pt", packed, out), whole, BOUND)
    layout = "legacy" if LEGACY else "fixed"
    common.lamella("export", folder + "/small", "--to", "openphenom", "--bias-layout", layout, "--out", folder + "/again2")
    again = torch.load(folder + "/again2/pytorch_model.bin", weights_only=True)["state_dict"]
    assert equal(state, again)
    common.check("exported, and read again", common.embed(folder + "/again2", packed, out), whole, BOUND)
    try:
        common.lamella("export", folder + "/small", "--to", "openphenom", "--bias-layout", "fixed" if LEGACY else "legacy",
                       "--out", folder + "/never")
    except RuntimeError as error:
        assert "--bias-layout" in str(error)
        print("the other layout is refused:", error)
    else:
        raise AssertionError("a bias was lost")


def golden(folder, path):
    """Outputs of an independent implementation, both layouts."""
    from safetensors.torch import load_file

    tensors = load_file(path)
    state = {k[len("param."):]: v for k, v in tensors.items() if k.startswith("param.")}
    os.makedirs(folder + "/golden/images")
    np.save(folder + "/golden/images/pixels.npy", tensors["input.pixels"].numpy())
    with open(folder + "/golden/images.csv", "w") as file:
        file.write("file,row,plate,well,site\npixels.npy,0,p,A1,1\npixels.npy,1,p,A2,1\n")
    common.lamella("pack", folder + "/golden/images.csv", "--images", folder + "/golden/images", "--out", folder + "/golden/shards")
    for layout, key in (("timm_legacy", "output.tokens"), ("fixed", "output.tokens_fixed_bias")):
        os.makedirs(f"{folder}/golden/{layout}")
        torch.save({"state_dict": state}, f"{folder}/golden/{layout}/model.safetensors")
        with open(f"{folder}/golden/{layout}/config.json", "w") as file:
            json.dump({"bias_layout": layout}, file)
        ours = common.embed(f"{folder}/golden/{layout}", folder + "/golden/shards", folder + "/e.npy")
        common.check(f"{os.path.basename(path)}, {layout}", ours, tensors[key][:, 1:].double().mean(1).numpy(), BOUND)


if __name__ == "__main__":
    print("timm", timm.__version__, "torch", torch.__version__, "- bias layout", "legacy" if LEGACY else "fixed")
    with tempfile.TemporaryDirectory() as work:
        small(work)
        if len(sys.argv) > 2:
            golden(work, sys.argv[2])
        round_trip(work)
