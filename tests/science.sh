#!/usr/bin/env bash
# Three simulator x training seeds, strength halved, normal, doubled: is the trained network above the untrained one and
# above intensity statistics? Prints a table, writes OUT/science.csv, fails where at normal strength a paired 95 % interval
# does not lie above 0. The demo's 96 genes have some 100 related pairs, whose intervals are too wide to tell methods apart:
# here the screen has more genes, half of them where no interval is judged. A run gets one core (more, where there are more
# than runs); finished ones are kept.
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
  local run=$out/strength-$1-seed-$2 start=$SECONDS size=$genes
  [ ! -f "$run/report.html" ] || return 0
  mkdir -p "$run"
  [ "$1" = 1 ] || size=$((genes / 2))
  bash "$root/configs/demo.sh" "$lamella" "$run" "$2" "$1" "$size" > "$run/log.txt" 2>&1 ||
    { echo "science: strength $1, seed $2 failed: $(tail -n 1 "$run/log.txt")" >&2; return 1; }
  rm -rf "$run/screen/images" "$run/shards"
  echo "science: strength $1, seed $2: $((SECONDS - start)) s" >&2
}
export -f one_run
export lamella out genes root OMP_NUM_THREADS=$((cores > ${#runs[@]} ? cores / ${#runs[@]} : 1))
echo "science: ${#runs[@]} runs, $cores at a time" >&2
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
# The curve: recall against strength, a line through the mean of the seeds, a dot a seed; told apart by shape and by words.
awk -F, 'BEGIN {
    at["trained"] = 3; at["ceiling"] = 4; at["untrained"] = 5; at["intensity"] = 6; at["handmade"] = 7
    colour["trained"] = "#0072b2"; colour["ceiling"] = "#555555"; colour["untrained"] = "#56b4e9"; colour["intensity"] = "#d55e00"; colour["handmade"] = "#009e73"
    dash["trained"] = "none"; dash["ceiling"] = "2 3"; dash["untrained"] = "8 4"; dash["intensity"] = "4 3"; dash["handmade"] = "12 3 3 3" }
  function x(strength) { return 70 + 190 * (log(strength) / log(2) + 1) }
  function y(recall) { return 330 - 300 * recall }
  NR > 1 { strengths[$1] = 1; count[$1]++; for (n in at) { sum[n, $1] += $at[n]; dots[n] = dots[n] sprintf("<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>", x($1), y($at[n]), colour[n]) } }
  END {
    print "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 600 390\" font-family=\"sans-serif\" font-size=\"13\"><rect width=\"600\" height=\"390\" fill=\"white\"/>"
    for (r = 0; r <= 10; r += 2) printf "<line x1=\"50\" x2=\"470\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#dddddd\"/><text x=\"44\" y=\"%.1f\" text-anchor=\"end\">%.1f</text>\n", y(r / 10), y(r / 10), y(r / 10) + 4, r / 10
    printf "<line x1=\"50\" x2=\"470\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"#999999\" stroke-dasharray=\"1 3\"/><text x=\"474\" y=\"%.1f\">chance</text>\n", y(0.1), y(0.1), y(0.1) + 4
    print "<text x=\"50\" y=\"20\">recall at .05/.95</text><text x=\"260\" y=\"378\" text-anchor=\"middle\">strength of the effects</text>"
    for (s in strengths) printf "<text x=\"%.1f\" y=\"352\" text-anchor=\"middle\">%s</text>\n", x(s), s
    for (n in at) { line[n] = ""
      for (k = -1; k <= 1; k++) for (s in strengths) if (s + 0 == 2 ^ k) { mean = sum[n, s] / count[s]; line[n] = line[n] sprintf("%.1f,%.1f ", x(s), y(mean)); last[n] = y(mean) } }
    for (i = 1; i <= 5; i++) { n = ""; # labels from the line that ends highest down, each below the one before
      for (m in last) if (n == "" || last[m] < last[n]) n = m
      label = last[n] + 4; if (i > 1 && label < before + 15) label = before + 15
      before = label; delete last[n]
      printf "<polyline points=\"%s\" fill=\"none\" stroke=\"%s\" stroke-width=\"%s\" stroke-dasharray=\"%s\"/>%s<text x=\"474\" y=\"%.1f\" fill=\"%s\">%s</text>\n", line[n], colour[n], n == "trained" ? 3 : 2, dash[n], dots[n], label, colour[n], n == "handmade" ? "hand-made" : n }
    print "</svg>" }' "$table" > "$out/science.svg"
column -s, -t "$table" 2> /dev/null || cat "$table"
exit "$failed"
