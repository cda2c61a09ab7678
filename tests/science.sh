#!/usr/bin/env bash
# Three simulator x training seeds, strength halved, normal, doubled: is the trained network above the untrained one and
# above intensity statistics? Prints a table, writes OUT/science.csv, fails where at normal strength a paired 95 % interval
# does not lie above 0. The demo's 96 genes have some 100 related pairs, whose intervals are too wide to tell methods apart:
# here the screen has more genes. A run gets one core (more, where there are more than runs); finished ones are kept.
# Usage: science.sh LAMELLA OUT [GENES [STRENGTHS [SEEDS]]]
set -euo pipefail
lamella=$1 out=$2 genes=${3:-384} strengths=${4:-1 0.5 2} seeds=${5:-0 1 2}
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$out"
runs=() cores=$(nproc)
for strength in $strengths; do
  for seed in $seeds; do runs+=("$strength $seed"); done
done
one_run() { # STRENGTH SEED
  local run=$out/strength-$1-seed-$2 start=$SECONDS
  [ ! -f "$run/report.html" ] || return 0
  mkdir -p "$run"
  bash "$root/configs/demo.sh" "$lamella" "$run" "$2" "$1" "$genes" > "$run/log.txt" 2>&1 ||
    { echo "science: strength $1, seed $2 failed: $(tail -n 1 "$run/log.txt")" >&2; return 1; }
  rm -rf "$run/screen/images" "$run/shards"
  echo "science: strength $1, seed $2: $((SECONDS - start)) s" >&2
}
export -f one_run
export lamella out genes root OMP_NUM_THREADS=$((cores > ${#runs[@]} ? cores / ${#runs[@]} : 1))
echo "science: ${#runs[@]} runs of $genes genes, $cores at a time" >&2
printf '%s\n' "${runs[@]}" | xargs -P "$cores" -L 1 bash -c 'one_run "$0" "$1"'

column_of() { # FILE NAME: the named column of the first data row
  awk -F, -v name="$2" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == name) c = i } NR == 2 { printf "%.4f", $c }' "$1"
}
table=$out/science.csv failed=0
echo "strength,seed,trained,ceiling,untrained,intensity,handmade,over_untrained_low,over_untrained_high,over_intensity_low,over_intensity_high,over_handmade_low,over_handmade_high" > "$table"
for each in "${runs[@]}"; do
  read -r strength seed <<< "$each"
  run=$out/strength-$strength-seed-$seed
  row=$strength,$seed,$(column_of "$run/relate/scores.csv" recall_0.05_0.95)
  for name in ceiling untrained intensity handmade; do
    row=$row,$(column_of "$run/references/$name/scores.csv" recall_0.05_0.95)
  done
  for name in untrained intensity handmade; do
    file=$run/references/trained-against-$name/against.csv
    low=$(column_of "$file" low)
    row=$row,$low,$(column_of "$file" high)
    if [ "$strength" = 1 ] && [ "$name" != handmade ] && awk -v x="$low" 'BEGIN { exit !(x <= 0) }'; then
      failed=1; echo "seed $seed: the interval of trained over $name does not lie above 0" >&2
    fi
  done
  echo "$row" >> "$table"
done
column -s, -t "$table" 2> /dev/null || cat "$table"
exit "$failed"
