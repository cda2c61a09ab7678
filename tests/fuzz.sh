#!/usr/bin/env bash
# Every fuzz target for SECONDS each (make fuzz: 600). Usage: fuzz.sh SECONDS
set -euo pipefail
cd "$(dirname "$0")/.."
cmake --preset fuzz > /dev/null
cmake --build --preset fuzz --target fuzz_targets > /dev/null
for target in build/fuzz/fuzz_*; do
  [ -x "$target" ] && [ ! -d "$target" ] || continue
  name=$(basename "$target")
  echo "== $name"
  mkdir -p "build/fuzz/corpus/$name" # what is found goes here; the seeds in the tree stay as they are
  "$target" "build/fuzz/corpus/$name" "tests/fuzz/seeds/${name#fuzz_}" -max_total_time="$1" -rss_limit_mb=4096 \
    -print_final_stats=1 2>&1 | tail -6
done
