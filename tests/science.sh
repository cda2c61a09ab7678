#!/usr/bin/env bash
# Three simulator x training seeds, strength halved, normal, doubled: is the trained network above the untrained one and
# above intensity statistics? Prints a table, writes OUT/science.csv, fails where at normal strength a paired 95 % interval
# does not lie above 0.   Usage: science.sh LAMELLA OUT
set -euo pipefail
lamella=$1 out=$2
root=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$out"
table=$out/science.csv
echo "strength,seed,trained,ceiling,untrained,intensity,handmade,over_untrained_low,over_untrained_high,over_intensity_low,over_intensity_high,over_handmade_low,over_handmade_high" > "$table"
column() { # FILE NAME: the named column of the first data row
  awk -F, -v name="$2" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == name) c = i } NR == 2 { printf "%.4f", $c }' "$1"
}
failed=0
for strength in 0.5 1 2; do
  for seed in 0 1 2; do
    run=$out/strength-$strength-seed-$seed
    [ -f "$run/report.html" ] || bash "$root/configs/demo.sh" "$lamella" "$run" "$seed" "$strength"
    row=$strength,$seed,$(column "$run/relate/scores.csv" recall_0.05_0.95)
    for name in ceiling untrained intensity handmade; do
      row=$row,$(column "$run/references/$name/scores.csv" recall_0.05_0.95)
    done
    for name in untrained intensity handmade; do
      file=$run/references/trained-against-$name/against.csv
      row=$row,$(column "$file" low),$(column "$file" high)
      if [ "$strength" = 1 ] && [ "$name" != handmade ] && awk -v x="$(column "$file" low)" 'BEGIN { exit !(x <= 0) }'; then
        failed=1; echo "seed $seed: the interval of trained over $name does not lie above 0" >&2
      fi
    done
    echo "$row" >> "$table"
    rm -rf "$run/screen/images" "$run/shards"
  done
done
column -s, -t "$table"
exit "$failed"
