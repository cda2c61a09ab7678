#!/usr/bin/env bash
# The demo's recall with and without a setting of the training: for each seed one screen, and on it one training for each variant.
# Every run goes through the stages of configs/demo.sh, on one thread. Prints one table and writes OUT/variants.csv: recall at
# .05/.95 with its interval, the loss of the last 100 steps, the CPU seconds of the training. Finished runs are kept.
# Usage: variants.sh LAMELLA OUT SEEDS 'NAME [key.path=value ...]' ...
#   variants.sh build/lamella runs/variants '0 1 2' f32 'bf16 train.precision=bf16' 'half model.decode_ratio=0.5'
set -euo pipefail
[ $# -ge 4 ] || { echo "usage: variants.sh LAMELLA OUT SEEDS 'NAME [key.path=value ...]' ..." >&2; exit 2; }
lamella=$(readlink -f "$1") out=$2 seeds=$3
shift 3
configs=$(cd "$(dirname "$0")/../configs" && pwd)
mkdir -p "$out"
export OMP_NUM_THREADS=1
TIMEFORMAT='%U %S'
table=$out/variants.csv
echo "seed,variant,recall,low,high,loss,cpu_seconds" > "$table"

quiet() { "$lamella" "$@" --quiet --force > /dev/null; }
column_of() { # FILE NAME: the named column of the first data row
  awk -F, -v name="$2" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == name) c = i } NR == 2 { printf "%.4f", $c }' "$1"
}
for seed in $seeds; do
  s=$out/seed-$seed
  [ -f "$s/shards/dataset.json" ] || { quiet synth "$s/screen" --seed "$seed"; quiet pack "$s/screen/images.csv" --out "$s/shards"; }
  for variant in "$@"; do
    read -r -a settings <<< "$variant"
    name=${settings[0]} run=$s/${settings[0]}
    if [ ! -f "$run/relate/scores.csv" ]; then
      mkdir -p "$run"
      { time quiet train "$configs/demo.yaml" "data.path=$s/shards" "train.out=$run/run" "train.seed=$seed" \
        "${settings[@]:1}" 2>&3; } 3>&2 2> "$run/cpu.txt"
      quiet embed "$run/run" "$s/shards" --level well --pool hidden --out "$run/embeddings.h5ad"
      quiet map "$run/embeddings.h5ad" --out "$run/aligned.h5ad" --align centerscale --controls all --batch plate
      quiet map "$run/aligned.h5ad" --out "$run/map.h5ad" --align tvn --within gene --shrinkage 0.3 \
        --where 'gene != non-targeting' --by gene
      quiet relate "$run/map.h5ad" --relationships "$s/screen/relationships" --out "$run/relate" --bootstrap 1000
    fi
    loss=$(tail -n 101 "$run/run/metrics.jsonl" | sed -n 's/.*"loss":\([0-9.]*\).*/\1/p' | awk '{ s += $1 } END { printf "%.5f", s / NR }')
    row=$seed,$name
    for column in recall_0.05_0.95 recall_low_0.05_0.95 recall_high_0.05_0.95; do row=$row,$(column_of "$run/relate/scores.csv" "$column"); done
    echo "$row,$loss,$(awk '{ printf "%.1f", $1 + $2 }' "$run/cpu.txt")" >> "$table"
  done
done
column -s, -t "$table" 2> /dev/null || cat "$table"
