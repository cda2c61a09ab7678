#!/usr/bin/env bash
# What is said in two places is the same number: parameters, memory, speed, loss.
# Usage: numbers.sh LAMELLA
. "$(dirname "$(realpath "$0")")/common.sh" "$1"
"$lamella" train tiny.yaml train.out=run 2> log
same() { # what, a, b, relative difference allowed
  awk -v a="$2" -v b="$3" -v e="$4" 'BEGIN { d = a - b; if (d < 0) d = -d; exit !(a > 0 && d <= e * a) }' || { cat log; fail "$1: $2 and $3"; }
  echo "ok: $1"
}
first() { sed -nE "$1" "$2" | head -n 1; }
"$lamella" inspect run > inspected
same parameters "$(first 's/.*: ([0-9]+) parameters.*/\1/p' log)" "$(first 's/.*, ([0-9]+) elements$/\1/p' inspected)" 0
same memory "$(first 's/^memory, MiB.*together ([0-9.]+)$/\1/p' log)" \
  "$(sed -nE 's/.*"memory":\{([^}]*)\}.*/\1/p' run/metrics.jsonl | tr ',' '\n' | awk -F: '{ s += $2 } END { print s / 1048576 }')" 0.05
same "sum of the owners' memory" "$(first 's/^memory, MiB: (.*); together.*/\1/p' log | grep -oE '[0-9.]+' | awk '{ s += $1 } END { print s }')" \
  "$(first 's/^memory, MiB.*together ([0-9.]+)$/\1/p' log)" 0.15 # of five numbers rounded to .1
"$lamella" train tiny.yaml train.out=budget train.steps=1 model.embed_dim=256 train.precision=bf16 train.memory_budget=1GiB 2> budget.log
! grep -q 'packed for products 0.0' budget.log || { cat budget.log; fail "bf16 packs no weights"; }
same "memory of the budget" "$(first 's/^recompute none: ([0-9.]+) of .*/\1/p' budget.log)" "$(first 's/^memory, MiB.*together ([0-9.]+)$/\1/p' budget.log)" 0
steps_per_s=$(first 's|^train: 40/40 steps, ([0-9.e+]+)/s,.*|\1|p' log)
crops_per_s=$(first 's|^train: 40/40 steps,.* ([0-9.]+) crops/s;.*|\1|p' log)
# The detail is of the last step, before the last checkpoint; the rate is of the whole time.
total() { first "s/.*\"$1\":([0-9.e+-]+)[,}].*/\\1/p" <(tail -n 1 run/metrics.jsonl); }
awk -v s="$steps_per_s" -v c="$crops_per_s" -v t="$(total step_seconds)" 'BEGIN { exit !(c >= 8 * s * 0.99 && c <= 320 / t * 1.01) }' ||
  { cat log; fail "speed: $steps_per_s steps/s, $crops_per_s crops/s, $(total step_seconds) s in steps"; }
same speed "$(awk -v t="$(total seconds)" 'BEGIN { print 40 / t }')" "$steps_per_s" 0.3
[ "$(first 's/.*"crops":([0-9]+),.*/\1/p' run/metrics.jsonl)" = 320 ] || fail "metrics.jsonl counts other crops than 40 x 8"
loss=$(sed -nE 's/^\{"step":40,"loss":([^,]+),.*/\1/p' run/metrics.jsonl)
same loss "$(first 's/^last line of metrics: step 40, loss ([^,]+),.*/\1/p' inspected)" "$loss" 1e-4
grep -qE '^last line of metrics: .*, validation loss [0-9.]+ \(step 40\); last 40 steps: [0-9.]+ crops/s$' inspected || { cat inspected; fail "inspect shows no validation or speed"; }
"$lamella" inspect run --json > inspected; grep -q '"validation_step": 40' inspected || fail "inspect --json lacks the last validation"
"$lamella" inspect run/checkpoints/step_00000040 > inspected; ! grep -q 'last line' inspected || fail "a step folder has no metrics"
# 48 pixels: 6 x 3 cells of 48 with gaps of 4 between them; every channel has a colour of its own.
"$lamella" inspect shards --image picture.png > inspected
size=$(od -An -tu1 -j16 -N8 picture.png | awk '{ print $3 * 256 + $4, $7 * 256 + $8 }')
[ "$size" = "308 152" ] || fail "a picture of small images is $size pixels"
[ "$(sed -nE 's/.* [0-9.]+ +[0-9.]+ +([a-z]+)$/\1/p' inspected | tr '\n' ' ')" = "blue green red yellow magenta " ] ||
  { cat inspected; fail "channels without a colour"; }
echo "ok: picture"
mpi 2 "$lamella" embed run shards --out x.npy --batch 4 2> log
grep -q '^embed, rank 0 of 2: 12/12 crops' log || { cat log; fail "the progress of one rank is not called so"; }
echo "ok: progress"
