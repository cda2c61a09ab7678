#!/usr/bin/env bash
# Ranks and gradient accumulation change a run by rounding only; skipped steps end it with the tensor's name.
# Usage: parallel.sh LAMELLA
. "$(dirname "$(realpath "$0")")/common.sh" "$1"

"$lamella" train tiny.yaml train.out=one --quiet
check() { # run, bound, [run to compare with]
  local d
  d=$(largest_difference "${3:-one}" "$1") || fail "$1: no lines to compare"
  awk -v d="$d" -v b="$2" 'BEGIN { exit !(d <= b) }' || fail "$1: losses differ by $d"
  echo "ok: $1 differs by $d at most"
}
"$lamella" train tiny.yaml train.out=accumulated train.micro_batch=3 --quiet
check accumulated 2e-4
for n in 2 3; do
  mpi $n "$lamella" train tiny.yaml train.out=ranks$n --quiet
  check ranks$n 2e-4
done
mpi 2 "$lamella" train tiny.yaml train.out=ranks2again --quiet
same_run ranks2 ranks2again "2 ranks twice"

# Samples drop the same branches on any number of ranks and in any micro-batch, and none in a validation.
deep="model.depth=3 model.drop_path=0.6"
"$lamella" train tiny.yaml train.out=deep $deep --quiet
"$lamella" train tiny.yaml train.out=deep-accumulated $deep train.micro_batch=3 --quiet
check deep-accumulated 2e-4 deep
mpi 2 "$lamella" train tiny.yaml train.out=deep-ranks2 $deep --quiet
check deep-ranks2 2e-4 deep
"$lamella" train tiny.yaml train.out=deep-kept model.depth=3 --quiet
d=$(largest_difference deep deep-kept) && awk -v d="$d" 'BEGIN { exit !(d > 1e-3) }' || fail "drop_path changes nothing"
# One step of rate 0: the weights are those of the start, and so are the validation losses.
for rate in 0.6 0; do
  "$lamella" train tiny.yaml train.out=still-$rate model.depth=3 model.drop_path=$rate train.steps=1 train.validate_every=1 \
    optim.lr=0 optim.weight_decay=0 --quiet
  grep -o '"validation_loss":[^,}]*' still-$rate/metrics.jsonl > validated-$rate || fail "no validation"
done
cmp validated-0.6 validated-0 || fail "a validation drops branches"
echo "ok: dropped branches"

# A network of several buckets, whose sums run behind the backward pass, with and without accumulation.
wide="model.embed_dim=512 model.depth=3 train.steps=3 train.checkpoint_every=100 train.validate_every=100 optim.warmup=0"
"$lamella" train tiny.yaml train.out=one-wide $wide --quiet
mpi 2 "$lamella" train tiny.yaml train.out=ranks2-wide $wide train.micro_batch=2 --quiet
d=$(largest_difference one-wide ranks2-wide) || fail "wide: no lines to compare"
awk -v d="$d" 'BEGIN { exit !(d <= 2e-4) }' || fail "wide: losses differ by $d"
echo "ok: sums behind the backward pass, differ by $d"

# A learning rate that overflows: skipped, counted, ended, with one clear line and the last good weights kept.
code=0
"$lamella" train tiny.yaml train.out=wild optim.lr=1e3 optim.weight_decay=1000 optim.warmup=0 optim.schedule=constant \
  train.max_skipped_steps=3 --quiet 2> log || code=$?
[ "$code" = 1 ] && tail -1 log | grep -q 'steps in a row without a finite update' || { cat log; fail "non-finite steps did not end the run"; }
echo "ok: non-finite steps"

# One rank that fails ends all of them: nobody waits.
code=0; timeout 60 mpirun --allow-run-as-root --oversubscribe --bind-to none -n 2 "$lamella" train tiny.yaml train.out=bad \
  data.path=absent --quiet > none 2>&1 || code=$?
[ "$code" != 0 ] && [ "$code" != 124 ] || fail "a missing folder under mpirun ended with $code"
echo "ok: failure under mpirun"

# A damaged frame is named by whichever rank reads it, and the run goes on; data.strict ends it.
cp -r shards hurt
printf 'XXXXXXXX' | dd of=hurt/shard_00000.lam bs=1 seek=20000 conv=notrunc status=none
for n in 1 2 3; do
  mpi $n "$lamella" train tiny.yaml train.out=hurt$n data.path=hurt --quiet 2> log || { cat log; fail "hurt: $n ranks"; }
  grep -q 'image [0-9]*, channel .*damaged frame.*skipped' log || { cat log; fail "$n ranks do not name the damaged image"; }
done
check hurt2 2e-4 hurt1
check hurt3 2e-4 hurt1
code=0
"$lamella" train tiny.yaml train.out=strict data.path=hurt data.strict=true --quiet 2> log || code=$?
[ "$code" = 1 ] && grep -q 'damaged frame' log || { cat log; fail "data.strict did not end the run"; }
echo "ok: a damaged frame on 1, 2 and 3 ranks"
