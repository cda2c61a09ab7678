#!/usr/bin/env python3
"""The peer of the channel-agnostic network: its training step in PyTorch, as fast as PyTorch makes it.

Same maths as `lamella bench step --model ca-s16` measures: 6 x 256 x 256 uint8 crops already in memory, per-image channel
normalisation, a token for each patch of each channel (channel by channel), random masking 75 % of all of them, an encoder of
parallel blocks (attention and MLP side by side from one projection, normalised queries and keys, LayerScale) on the visible
tokens + cls without a last norm, one decoder 512 wide, 8 deep, 16 heads for the tokens of all channels with a token that
names the channel, mean squared error on masked patches, AdamW. Prints one JSON line a setting, as mae_torch.py does.

  python ca_mae_torch.py --model s16 --batch 2 --dtype bf16 --compile default
"""
import argparse, json, statistics, time
import torch, torch.nn as nn, torch.nn.functional as F

from mae_torch import SIZES, Block, sincos


class ParallelBlock(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(dim, eps=1e-6)
        self.in_proj = nn.Linear(dim, 7 * dim)
        self.q_norm, self.k_norm = nn.LayerNorm(dim // heads, eps=1e-6), nn.LayerNorm(dim // heads, eps=1e-6)
        self.attn_out, self.mlp_out = nn.Linear(dim, dim), nn.Linear(4 * dim, dim)
        self.gamma = nn.Parameter(torch.full((dim,), 1e-4))

    def forward(self, x):
        b, n, d = x.shape
        mlp, qkv = self.in_proj(self.norm(x)).split([4 * d, 3 * d], 2)
        q, k, v = qkv.reshape(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        a = F.scaled_dot_product_attention(self.q_norm(q).to(v.dtype), self.k_norm(k).to(v.dtype), v)
        return x + self.gamma * (self.attn_out(a.transpose(1, 2).reshape(b, n, d)) + self.mlp_out(F.gelu(mlp)))


class ChannelAgnosticMAE(nn.Module):
    def __init__(self, dim, depth, heads, patch, image=256, chans=6, dec_dim=512, dec_depth=8, dec_heads=16, ratio=0.75):
        super().__init__()
        self.p, self.c, self.g = patch, chans, image // patch
        self.tokens = chans * self.g**2
        self.keep = int(self.tokens * (1 - ratio))
        self.embed = nn.Linear(patch * patch, dim)
        self.cls, self.mask_token = nn.Parameter(torch.zeros(1, 1, dim)), nn.Parameter(torch.zeros(1, 1, dec_dim))
        self.channel_tokens = nn.Parameter(torch.zeros(chans, 1, dec_dim))
        # The same table for every channel: the encoder does not know which one it sees.
        self.register_buffer("pos", sincos(dim, self.g)[:, 1:].repeat(1, chans, 1))
        self.register_buffer("dec_pos", sincos(dec_dim, self.g)[:, 1:])
        self.blocks = nn.ModuleList(ParallelBlock(dim, heads) for _ in range(depth))
        self.dec_embed = nn.Linear(dim, dec_dim)
        self.dec_blocks = nn.ModuleList(Block(dec_dim, dec_heads) for _ in range(dec_depth))
        self.dec_norm = nn.LayerNorm(dec_dim, eps=1e-6)
        self.pred = nn.Linear(dec_dim, patch * patch)

    def forward(self, crops):
        x = crops.float() / 255
        x = (x - x.mean((2, 3), keepdim=True)) * torch.rsqrt(x.var((2, 3), unbiased=False, keepdim=True) + 1e-5)
        b, p, g = x.shape[0], self.p, self.g
        target = x.view(b, self.c, g, p, g, p).permute(0, 1, 2, 4, 3, 5).reshape(b, self.tokens, p * p)
        order = torch.rand(b, self.tokens, device=x.device).argsort(1)
        restore, keep = order.argsort(1), order[:, : self.keep]
        visible = target.gather(1, keep[..., None].expand(-1, -1, p * p))
        pos = self.pos.expand(b, -1, -1).gather(1, keep[..., None].expand(-1, -1, self.pos.shape[2]))
        h = torch.cat([self.cls.expand(b, -1, -1), self.embed(visible) + pos], 1)
        for block in self.blocks: h = block(h)
        h = self.dec_embed(h)
        full = torch.cat([h[:, 1:], self.mask_token.to(h.dtype).expand(b, self.tokens - self.keep, -1)], 1)
        full = full.gather(1, restore[..., None].expand(-1, -1, full.shape[2]))
        full = full + (self.dec_pos + self.channel_tokens).reshape(1, self.tokens, -1)
        h = torch.cat([h[:, :1], full], 1)
        for block in self.dec_blocks: h = block(h)
        y = self.pred(self.dec_norm(h))[:, 1:]
        mask = (restore >= self.keep).float()
        return (((y.float() - target) ** 2).mean(2) * mask).sum() / mask.sum()


def step_flops(dim, depth, patch, image=256, chans=6, dd=512, ddepth=8, ratio=0.75):
    """Floating-point operations of one training step on one crop: 3 x forward; every token that is multiplied counts once."""
    n = chans * (image // patch) ** 2; k = int(n * (1 - ratio)) + 1; m = n + 1; px = patch * patch
    enc = depth * (24 * k * dim * dim + 4 * k * k * dim); dec = ddepth * (24 * m * dd * dd + 4 * m * m * dd)
    return 3 * (enc + dec + 2 * (k - 1) * px * dim + 2 * k * dim * dd + 2 * n * dd * px)


def main():
    a = argparse.ArgumentParser(); a.add_argument("--model", default="s16"); a.add_argument("--batch", type=int, default=2)
    a.add_argument("--dtype", choices=["f32", "bf16"], default="bf16"); a.add_argument("--steps", type=int, default=10)
    a.add_argument("--compile", default="none", help="none, default, reduce-overhead, max-autotune")
    a.add_argument("--warmup", type=int, default=3); a.add_argument("--rounds", type=int, default=3); a = a.parse_args()
    torch.manual_seed(0); dim, depth, heads = SIZES[a.model[0]]; patch = int(a.model[1:])
    net = ChannelAgnosticMAE(dim, depth, heads, patch)
    opt = torch.optim.AdamW(net.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.05, fused=True)
    run = net if a.compile == "none" else torch.compile(net, mode=a.compile)
    crops = torch.randint(0, 256, (a.batch, 6, 256, 256), dtype=torch.uint8)
    start = time.perf_counter()

    def step():
        opt.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=a.dtype == "bf16"): loss = run(crops)
        loss.backward(); opt.step(); return loss

    for _ in range(a.warmup): loss = step()
    ready = time.perf_counter() - start; rates = []
    for _ in range(a.rounds):
        t = time.perf_counter()
        for _ in range(a.steps): loss = step()
        rates.append(a.batch * a.steps / (time.perf_counter() - t))
    rate = statistics.median(rates); flops = step_flops(dim, depth, patch)
    print(json.dumps(dict(peer="pytorch " + torch.__version__, model="ca-" + a.model, batch=a.batch, dtype=a.dtype, device=f"cpu x{torch.get_num_threads()}",
        compile=a.compile, crops_per_s=round(rate, 3), spread=[round(min(rates), 3), round(max(rates), 3)], gflops_per_crop=round(flops / 1e9, 2),
        gflops_per_s=round(rate * flops / 1e9, 1), seconds_to_first_steps=round(ready, 1), loss=round(float(loss.detach()), 4))), flush=True)


if __name__ == "__main__": main()
