#!/usr/bin/env bash
# Real cells: BBBC021 crops packed from their labels.tsv, networks trained, embedded, probed, mapped and related, beside plain
# features and untrained networks. Prints one table and writes OUT/real_cells.csv.
# Usage: real_cells.sh LAMELLA CELLS OUT [RECIPE.yaml ...]     (CELLS: the folder of labels.tsv; 15 to 30 minutes a recipe)
# Columns: balanced accuracy of DMSO against cycloheximide leaving a plate out, the same with cells centred and scaled on their
# plate's DMSO, of 13 mechanisms in 5 folds of whole plates; recall of same-mechanism pairs of compounds by alignment.
# Each network is scored as the mean of its tokens (NAME) and as the mean of its hidden units over eight views (NAME-views).
set -euo pipefail
[ $# -ge 3 ] && [ -f "$2/labels.tsv" ] || { echo "usage: real_cells.sh LAMELLA CELLS OUT [RECIPE.yaml ...]   (CELLS/labels.tsv)" >&2; exit 2; }
lamella=$(readlink -f "$1") cells=$(readlink -f "$2") out=$3
shift 3
mkdir -p "$out/scores"
out=$(readlink -f "$out")
[ -d "$out/shards" ] || "$lamella" pack "$cells/labels.tsv" --out "$out/shards"
mkdir -p "$out/relationships"
awk -F'\t' '$1 ~ /^moa13/ && $10 != "DMSO" { moa[$8] = $10 }
  END { print "entity1,entity2"; for (a in moa) for (b in moa) if (a < b && moa[a] == moa[b]) print a "," b }' \
  "$cells/labels.tsv" > "$out/relationships/same_mechanism.csv"
table=$out/real_cells.csv
alignments=(none center centerscale centerscale-on-DMSO pca-cs tvn tvn-shrunk tvn-within)
echo "network,leave_plate_out,on_controls,mechanisms_13,$(IFS=,; echo "${alignments[*]/#/recall_}")" > "$table"

cell() { # FILE NAME PATTERN: the named column of the first row that matches
  awk -F, -v name="$2" -v pattern="$3" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == name) c = i; next }
    $0 ~ pattern { printf "%.4f", $c; exit }' "$1"
}
map() { "$lamella" map --quiet --force "$@"; }
probe() { "$lamella" probe --quiet --force "$@"; }
score() { # NAME EMBEDDINGS
  local s=$out/scores/$1 row=$1 a
  mkdir -p "$s"
  map "$2" --where 'moa in (DMSO|"Protein synthesis") and file != moa13_u16.npy.zst' --out "$s/two.h5ad"
  probe "$s/two.h5ad" --label moa --group plate --leave-one-group-out --c 0.1 --class-weight none --out "$s/leave_plate_out"
  map "$s/two.h5ad" --align centerscale --controls moa=DMSO --batch plate --out "$s/two_aligned.h5ad"
  probe "$s/two_aligned.h5ad" --label moa --group plate --leave-one-group-out --c 0.01 --class-weight none --out "$s/on_controls"
  map "$2" --where 'file == moa13_u16.npy.zst' --out "$s/moa.h5ad"
  probe "$s/moa.h5ad" --label moa --group plate --folds 5 --c 0.1 --out "$s/mechanisms"
  for a in leave_plate_out on_controls mechanisms; do row=$row,$(cell "$s/$a/scores.csv" balanced_accuracy ',mean,'); done
  for a in "${alignments[@]}"; do
    case $a in
      none | center | centerscale) map "$s/moa.h5ad" --align "$a" --out "$s/aligned.h5ad" ;;
      centerscale-on-DMSO) map "$s/moa.h5ad" --align centerscale --controls moa=DMSO --out "$s/aligned.h5ad" ;;
      tvn-shrunk) map "$s/moa.h5ad" --align tvn --shrinkage ledoit-wolf --controls moa=DMSO --out "$s/aligned.h5ad" ;;
      tvn-within) map "$s/moa.h5ad" --align tvn --within compound --shrinkage 0.3 --out "$s/aligned.h5ad" ;;
      *) map "$s/moa.h5ad" --align "$a" --controls moa=DMSO --out "$s/aligned.h5ad" ;;
    esac
    map "$s/aligned.h5ad" --where 'compound != DMSO' --by compound --out "$s/map-$a.h5ad"
    "$lamella" relate "$s/map-$a.h5ad" --relationships "$out/relationships" --out "$s/relate-$a" --quiet --force
    row=$row,$(cell "$s/relate-$a/scores.csv" recall_0.05_0.95 .)
  done
  echo "$row" >> "$table"
}

for features in intensity handmade; do
  [ -f "$out/$features.h5ad" ] || "$lamella" embed "$features" "$out/shards" --crop-size 64 --out "$out/$features.h5ad"
  score "$features" "$out/$features.h5ad"
done
for recipe in "$@"; do
  name=$(basename "$recipe" .yaml) start=$SECONDS
  [ -f "$out/$name/checkpoints/latest" ] || "$lamella" train "$recipe" "data.path=$out/shards" "train.out=$out/$name" --force
  for embedded in "$name" "$name-untrained" "$name-views" "$name-untrained-views"; do
    options=()
    case $embedded in *-untrained*) options+=(--untrained 0) ;; esac
    case $embedded in *-views) options+=(--pool hidden --views 8) ;; esac
    [ -f "$out/$embedded.h5ad" ] || "$lamella" embed "$out/$name" "$out/shards" --out "$out/$embedded.h5ad" "${options[@]}"
    score "$embedded" "$out/$embedded.h5ad"
  done
  echo "$name: trained, embedded and scored in $((SECONDS - start)) s" >&2
done
column -s, -t "$table" 2> /dev/null || cat "$table"
