#!/usr/bin/env bash
# `bench attention` prints two measurements with figure, limit and ratio, in text and as JSON lines, for both precisions.
# Usage: bench_attention.sh LAMELLA
source "$(dirname "$0")/common.sh"

for precision in f32 bf16; do
  small=(bench attention --batch 1 --tokens 9 --heads 2 --head-dim 8 --precision "$precision" --seconds 0 --threads 2)
  "$lamella" "${small[@]}" > text
  [ "$(grep -cE '^(forward|backward) .* GFLOP/s' text)" = 2 ] || fail "two measurements in: $(cat text)"
  grep -q "9 tokens, 2 heads of 8, $precision.* 2 threads" text || fail "what was measured is not named: $(cat text)"
  "$lamella" "${small[@]}" --json > lines
  [ "$(wc -l < lines)" = 2 ] || fail "two lines in: $(cat lines)"
  for key in bench pass batch tokens heads head_dim precision device isa threads seconds gflops_per_s spread \
    limit_gflops_per_s share_of_limit peak_MiB; do
    [ "$(grep -c "\"$key\":" lines)" = 2 ] || fail "no $key in: $(cat lines)"
  done
done
code=0
"$lamella" bench attention --precision f16 2> errors || code=$?
[ "$code" = 2 ] || fail "an unknown precision ends with $code"
echo "bench attention: ok"
