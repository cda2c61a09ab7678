#!/usr/bin/env python3
"""The peer of `lamella bench attention`: scaled_dot_product_attention in PyTorch, forward and backward, every backend.

One JSON line a shape: TFLOP/s of the fastest of FlashAttention 2, cuDNN, the memory-efficient kernels and, where the package
flash_attn_interface is installed, FlashAttention 3; both ways that a program may hold q, k and v are tried (parts of one
projection, as a ViT has them, and tensors of their own). Calls in a row are captured in a CUDA graph and replayed, so that
neither launches nor the host count. Work is counted as `lamella bench attention` does: 4 tokens^2 head_dim a head forward, twice that backward.

  python attention_torch.py --shapes 65:64:16 257:32:16 1025:32:16 --batch 256
"""
import argparse, json, statistics, sys, time
import torch, torch.nn.functional as F

from mae_torch import attention_by


def seconds_of(call, calls, cuda):
    """Of one call, the median of seven rows of calls."""
    if not cuda:
        call(); times = []
        for _ in range(3):
            start = time.perf_counter(); call(); times.append(time.perf_counter() - start)
        return statistics.median(times)
    stream = torch.cuda.Stream(); stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3): call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(calls): call()
    times = []
    for _ in range(8):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record(); graph.replay(); end.record(); torch.cuda.synchronize()
        times.append(start.elapsed_time(end) / 1e3 / calls)
    return statistics.median(times[1:])


def tensors(a, tokens, head_dim, heads, together, dtype):
    shape = (a.batch, tokens, 3, heads, head_dim) if together else (3, a.batch, heads, tokens, head_dim)
    whole = torch.randn(shape, device=a.device, dtype=dtype)
    q, k, v = (whole.permute(2, 0, 3, 1, 4) if together else whole).unbind(0)
    return [t.detach().requires_grad_() for t in (q, k, v)]


def flash3(q, k, v):
    import flash_attn_interface
    out = flash_attn_interface.flash_attn_func(*(t.transpose(1, 2) for t in (q, k, v)))
    return (out[0] if isinstance(out, tuple) else out).transpose(1, 2)


def measure(a, tokens, head_dim, heads):
    cuda = a.device.startswith("cuda"); dtype = torch.bfloat16 if a.dtype == "bf16" else torch.float32
    flops = 4 * a.batch * heads * tokens**2 * head_dim; found = {}
    for backend in ("flash3", "flash", "cudnn", "efficient") if cuda else ("math",):
        for together in (True, False):
            try:
                attention = flash3 if backend == "flash3" else F.scaled_dot_product_attention
                with attention_by(None if backend == "flash3" else backend):
                    q, k, v = tensors(a, tokens, head_dim, heads, together, dtype)
                    dy = torch.randn_like(attention(q, k, v))
                    with torch.no_grad(): forward = seconds_of(lambda: attention(q, k, v), a.calls, cuda)
                    both = seconds_of(lambda: torch.autograd.grad(attention(q, k, v), (q, k, v), dy), a.calls, cuda)
            except Exception as error: # not for this shape, not installed
                print(f"attention_torch: {backend}, {tokens} tokens: {(str(error).splitlines() or [repr(error)])[0]}", file=sys.stderr)
                continue
            found[backend + ("" if together else ", apart")] = dict(forward=flops / forward / 1e12, backward=2 * flops / max(both - forward, 1e-9) / 1e12, both=3 * flops / both / 1e12)
    best = {what: max(found.items(), key=lambda item: item[1][what]) for what in ("forward", "backward", "both")} if found else {}
    return dict(peer="pytorch " + torch.__version__, bench="attention", tokens=tokens, head_dim=head_dim, heads=heads, batch=a.batch, dtype=a.dtype,
        **{what + "_tflops_per_s": round(one[1][what], 3) for what, one in best.items()}, **{what + "_backend": one[0] for what, one in best.items()},
        all={name: {what: round(value, 2) for what, value in rates.items()} for name, rates in found.items()})


def main():
    a = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    a.add_argument("--shapes", nargs="+", default=["65:64:16", "257:32:16"], metavar="TOKENS:HEAD_DIM:HEADS"); a.add_argument("--batch", type=int, default=256)
    a.add_argument("--dtype", choices=["f32", "bf16"], default="bf16"); a.add_argument("--device", default="cuda")
    a.add_argument("--calls", type=int, default=10, help="in a row"); a.add_argument("--deadline", type=float, default=0, help="seconds after which no shape is begun; 0: never")
    a = a.parse_args(); torch.manual_seed(0); begin = time.perf_counter()
    for shape in a.shapes:
        if a.deadline and time.perf_counter() - begin > a.deadline: print(f"attention_torch: no time for {shape}", file=sys.stderr); continue
        print(json.dumps(measure(a, *map(int, shape.split(":")))), flush=True)
        if a.device.startswith("cuda"): torch.cuda.empty_cache()


if __name__ == "__main__": main()
