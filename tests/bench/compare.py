#!/usr/bin/env python3
"""Speed of a training step and memory a crop: ours beside PyTorch's, eager and compiled. Started by compare.sh.

In every round each setting runs once in each way, one after the other, in processes of their own: what the machine does
meanwhile meets all of them alike. Medians and spreads are over the rounds; the peer is the faster of eager and compiled.
Memory: resident memory of the process at its most, at two batch sizes; the difference is what a crop takes.
"""
import argparse, json, os, statistics, subprocess, sys, tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
TYPES = ("f32", "bf16")
WAYS = {"eager": "none", "compiled": "default"}

# Name, ours, peer's script and model, batch, and how many times as fast as the peer f32 is to be; where `or_share` is given,
# that share of the limit of products is enough. `crops`: the two batch sizes between which memory is compared.
ROWS = {
    "S/16": dict(ours="s16", crops=(16, 32), script="mae_torch.py", peer="s16", batch=8, ratio=1.35, or_share=0.8),
    "B/16": dict(ours="b16", crops=(8, 16), script="mae_torch.py", peer="b16", batch=8, ratio=1.35, or_share=0.8),
    "S/8": dict(ours="s8", crops=(4, 8), script="mae_torch.py", peer="s8", batch=2, ratio=1.2, or_share=None),
    "CA-S/16": dict(ours="ca-s16", crops=(4, 8), script="ca_mae_torch.py", peer="s16", batch=2, ratio=1.2, or_share=None),
}
# bf16: where the machine's own products are fast, an absolute speed of the whole step; elsewhere a share of them. GFLOP/s.
BF16_FAST_LIMIT, BF16_GOAL, BF16_SHARE = 750, 600, 0.8
MEMORY_GOAL = 1.5


# ---- running ----

def run(command, threads):
    """The JSON line that a command prints, and the most memory (MiB) it had; None and why where it failed."""
    environment = dict(os.environ, OMP_NUM_THREADS=str(threads))
    with tempfile.TemporaryFile("w+") as errors:
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, env=environment, text=True)
        out = child.stdout.read(); child.stdout.close()
        _, status, usage = os.wait4(child.pid, 0) # Popen.wait would lose what it used
        child.returncode = os.waitstatus_to_exitcode(status)
        errors.seek(0); err = errors.read()
    lines = [line for line in out.splitlines() if line.startswith("{")]
    if child.returncode or not lines:
        why = (err.strip().splitlines() or ["exit code %d" % child.returncode])[-1]
        print("compare: %s: %s" % (" ".join(command), why), file=sys.stderr)
        return None, 0
    return json.loads(lines[-1]), usage.ru_maxrss / 1024


def run_ours(a, row, kind, batch, steps, recompute="none", limit_seconds=1):
    return run([a.lamella, "bench", "step", "--model", row["ours"], "--batch", str(batch), "--precision", kind, "--steps", str(steps),
                "--recompute", recompute, "--limit-seconds", str(limit_seconds), "--json", "--quiet"], a.threads)


def run_peer(a, row, kind, batch, steps, way, warmup=3):
    return run([sys.executable, os.path.join(HERE, row["script"]), "--model", row["peer"], "--batch", str(batch), "--dtype", kind,
                "--steps", str(steps), "--warmup", str(warmup), "--rounds", "1", "--compile", WAYS[way]], a.threads)


def run_rounds(a):
    """{(row, type): {"ours": [records], "eager": [records], "compiled": [records]}}"""
    results = {(name, kind): {way: [] for way in ("ours", *a.peers)} for name in a.rows for kind in a.types}
    for number in range(a.rounds):
        for (name, kind), found in results.items():
            ways = list(found) if number % 2 == 0 else list(found)[::-1]
            for way in ways:
                row = ROWS[name]
                record, _ = (run_ours(a, row, kind, row["batch"], a.steps) if way == "ours"
                             else run_peer(a, row, kind, row["batch"], a.steps, way))
                if record: found[way].append(record)
                print("round %d of %d, %s %s %s: %s" % (number + 1, a.rounds, name, kind, way,
                      "%.3f crops/s" % record["crops_per_s"] if record else "failed"), file=sys.stderr)
    return results


# ---- judging ----

def summary(records, key="crops_per_s"):
    values = [r[key] for r in records]
    return dict(median=statistics.median(values), low=min(values), high=max(values)) if values else None


def goal_of(row, kind, peer, limit, gflops_per_crop):
    """Crops a second that are asked for, and in words."""
    if kind == "bf16":
        if limit >= BF16_FAST_LIMIT: return BF16_GOAL / gflops_per_crop, "%d GFLOP/s" % BF16_GOAL
        return BF16_SHARE * limit / gflops_per_crop, "%.0f %% of limit" % (100 * BF16_SHARE)
    asked = [(row["ratio"] * peer, "%.2f x peer" % row["ratio"])] if peer else []
    if row["or_share"]: asked.append((row["or_share"] * limit / gflops_per_crop, "%.0f %% of limit" % (100 * row["or_share"])))
    return min(asked) if asked else (None, "no peer")


def judge(name, kind, found):
    """One line of the table."""
    line = dict(row=name, type=kind, batch=ROWS[name]["batch"], **{way: summary(records) for way, records in found.items()})
    peers = [(line[way]["median"], way) for way in WAYS if line.get(way)]
    line["peer"], line["faster_peer"] = max(peers) if peers else (None, None)
    if not line["ours"]: return dict(line, met=False)
    ours = found["ours"]
    gflops = ours[0]["gflops_per_crop"]
    limit = summary(ours, "limit_gflops_per_s")
    # Of the work that both programs are asked for; ours leaves out what counts in no loss ("share_of_limit" of its own record).
    shares = [dict(share=r["crops_per_s"] * gflops / r["limit_gflops_per_s"]) for r in ours]
    goal, words = goal_of(ROWS[name], kind, line["peer"], limit["median"], gflops)
    return dict(line, ratio=line["ours"]["median"] / line["peer"] if line["peer"] else None,
                gflops_per_s=line["ours"]["median"] * gflops, limit_gflops_per_s=limit,
                share_of_limit=summary(shares, "share"), limit_libraries=ours[0]["limit_libraries"],
                goal_crops_per_s=goal, goal=words, met=goal is not None and line["ours"]["median"] >= goal)


def slopes(a, name, kind):
    """MiB a crop of one row in one type: of ours with and without recomputation, of the peer both ways."""
    row = ROWS[name]
    small, large = row["crops"]

    def ours(recompute):
        records = [run_ours(a, row, kind, batch, 1, recompute, 0.001)[0] for batch in (small, large)]
        return (records[1]["peak_MiB"] - records[0]["peak_MiB"]) / (large - small) if all(records) else None

    def peer(way):
        peaks = [run_peer(a, row, kind, batch, 1, way, 1)[1] for batch in (small, large)]
        return (peaks[1] - peaks[0]) / (large - small) if all(peaks) else None

    peers = {way: peer(way) for way in a.peers}
    known = [slope for slope in peers.values() if slope]
    lines = []
    for recompute in ("none", "norm_gelu"):
        slope = ours(recompute)
        fewer = min(known) / slope if known and slope else None
        lines.append(dict(row=name, type=kind, batches=[small, large], recompute=recompute, ours_MiB=slope,
                          **{way + "_MiB": value for way, value in peers.items()}, times_less=fewer,
                          met=fewer is not None and fewer >= MEMORY_GOAL))
        print("memory, %s %s %s: %s MiB a crop, PyTorch %s" % (name, kind, recompute, cell(slope),
              ", ".join("%s %s" % (cell(value), way) for way, value in peers.items())), file=sys.stderr)
    return lines


# ---- printing ----

def cell(value, form="%.2f"):
    return "-" if value is None else form % value


def spread(found):
    return "-" if not found else "%.2f (%.2f-%.2f)" % (found["median"], found["low"], found["high"])


def table(header, rows):
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    for row in [header, *rows]: print("  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip())
    print()


def print_all(lines, memory):
    table(["row", "type", "ours, crops/s", "eager", "compiled", "ratio", "GFLOP/s", "limit", "share", "goal, crops/s", "", "met"],
          [[line["row"], line["type"], spread(line["ours"]), spread(line.get("eager")), spread(line.get("compiled")), cell(line.get("ratio")),
            cell(line.get("gflops_per_s"), "%.0f"), cell((line.get("limit_gflops_per_s") or {}).get("median"), "%.0f"),
            cell((line.get("share_of_limit") or {}).get("median")), cell(line.get("goal_crops_per_s")), line.get("goal", ""),
            "yes" if line["met"] else "no"] for line in lines])
    if memory:
        table(["row", "type", "recompute", "ours, MiB a crop", "eager", "compiled", "times less", "goal", "met"],
              [[line["row"], line["type"], line["recompute"], cell(line["ours_MiB"]), cell(line.get("eager_MiB")), cell(line.get("compiled_MiB")),
                cell(line["times_less"]), "%.1f" % MEMORY_GOAL, "yes" if line["met"] else "no"] for line in memory])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("lamella", help="the built command")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--types", nargs="+", choices=TYPES, default=list(TYPES))
    parser.add_argument("--peers", nargs="*", choices=WAYS, default=list(WAYS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="that are timed in a round")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of ours and of the peer")
    parser.add_argument("--no-memory", action="store_true", help="leave the memory a crop out")
    parser.add_argument("--out", help="the numbers as JSON")
    a = parser.parse_args()
    load = os.getloadavg()[0]
    if load > 0.5: print("compare: the machine is not idle (load %.1f): goals are for one that is" % load, file=sys.stderr)
    results = run_rounds(a)
    lines = [judge(name, kind, found) for (name, kind), found in results.items()]
    memory = [] if a.no_memory else [line for name in a.rows for kind in a.types for line in slopes(a, name, kind)]
    print_all(lines, memory)
    if a.out:
        first = next((r for found in results.values() for r in found["ours"]), {})
        machine = {key: first.get(key) for key in ("cpu", "isa", "threads", "library", "version")}
        peer = next((r["peer"] for found in results.values() for way in a.peers for r in found[way]), None)
        with open(a.out, "w") as file:
            json.dump(dict(machine=machine, peer=peer, load_before=load, load_after=os.getloadavg()[0], rounds=a.rounds, steps=a.steps, steps_table=lines, memory=memory,
                           records=[dict(row=name, type=kind, **found) for (name, kind), found in results.items()]), file, indent=1)


if __name__ == "__main__": main()
