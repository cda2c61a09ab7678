#!/usr/bin/env bash
# Real cells: BBBC021 crops packed from their labels.tsv, networks trained, embedded, probed, mapped and related, beside plain
# features and untrained networks. Prints one table and writes OUT/real_cells.csv.
# Usage: real_cells.sh LAMELLA CELLS OUT [--fields FIELDS] [--views all|trained|none] [RECIPE.yaml ...]
#   CELLS: the folder of labels.tsv; FIELDS: the folder of index.tsv, fields of view of other Cell Painting data
#   --views: which networks are scored over eight views too [all]; 15 to 30 minutes a recipe
# Columns: balanced accuracy of DMSO against cycloheximide leaving a plate out, the same with cells centred and scaled on their
# plate's DMSO, of 13 mechanisms in 5 folds of whole plates; recall of same-mechanism pairs of compounds by alignment.
# Each network is scored as the mean of its tokens (NAME) and as the mean of its hidden units over eight views (NAME-views).
# A recipe fields-*.yaml trains on FIELDS, whose stains are channels, and is scored on the cells twice: with the cells' channels
# under names that it does not know, so that their own mean and deviation standardise them (NAME), and with DNA and actin named
# as in training, whose mean and deviation they get then (NAME-named). What is finished is kept.
set -euo pipefail
usage="usage: real_cells.sh LAMELLA CELLS OUT [--fields FIELDS] [--views all|trained|none] [RECIPE.yaml ...]   (CELLS/labels.tsv)"
[ $# -ge 3 ] && [ -f "$2/labels.tsv" ] || { echo "$usage" >&2; exit 2; }
lamella=$(readlink -f "$1") cells=$(readlink -f "$2") out=$3 fields='' views=all
shift 3
while [[ ${1-} == --* ]]; do
  case $1 in --fields) fields=$(readlink -f "${2-}") ;; --views) views=${2-} ;; *) echo "$usage" >&2; exit 2 ;; esac
  shift 2
done
mkdir -p "$out/scores" "$out/relationships"
out=$(readlink -f "$out")
[ -d "$out/shards" ] || "$lamella" pack "$cells/labels.tsv" --channels DNA,actin,tubulin --out "$out/shards"
awk -F'\t' '$1 ~ /^moa13/ && $10 != "DMSO" { moa[$8] = $10 }
  END { print "entity1,entity2"; for (a in moa) for (b in moa) if (a < b && moa[a] == moa[b]) print a "," b }' \
  "$cells/labels.tsv" > "$out/relationships/same_mechanism.csv"
table=$out/real_cells.csv
alignments=(none center centerscale centerscale-on-DMSO pca-cs tvn tvn-shrunk tvn-within)
echo "network,leave_plate_out,on_controls,mechanisms_13,$(IFS=,; echo "${alignments[*]/#/recall_}")" > "$table"

pack_fields() { # every stain a channel, absent where an image lacks it; no bright field
  [ -f "$fields/index.tsv" ] || { echo "real_cells: fields-*.yaml trains on the folder of --fields" >&2; exit 2; }
  awk -F'\t' -v OFS='\t' 'BEGIN { stain["nuclei"] = stain["ch5"] = "DNA"; stain["ch2"] = "AGP"; stain["ch3"] = "RNA" }
    NR == 1 { print "file", "channel", "plate", "well", "site"; next }
    $2 ~ /mask/ || $6 == "Brightfield" { next }
    { name = $6; sub(/ .*/, "", name); print $1, name in stain ? stain[name] : name, $2, $3, $4 }' \
    "$fields/index.tsv" > "$out/fields.tsv"
  "$lamella" pack "$out/fields.tsv" --images "$fields" --out "$out/fields"
}
cell() { # FILE NAME PATTERN: the named column of the first row that matches
  awk -F, -v name="$2" -v pattern="$3" 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == name) c = i; next }
    $0 ~ pattern { printf "%.4f", $c; exit }' "$1"
}
map() { "$lamella" map --quiet --force "$@"; }
probe() { "$lamella" probe --quiet --force "$@"; }
score() { # NAME EMBEDDINGS
  local s=$out/scores/$1 row=$1 a
  [ ! -f "$s/row.csv" ] || { cat "$s/row.csv" >> "$table"; return 0; }
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
  echo "$row" > "$s/row.csv"
  cat "$s/row.csv" >> "$table"
}

for features in intensity handmade; do
  [ -f "$out/$features.h5ad" ] || "$lamella" embed "$features" "$out/shards" --crop-size 64 --out "$out/$features.h5ad"
  score "$features" "$out/$features.h5ad"
done
for recipe in "$@"; do
  name=$(basename "$recipe" .yaml) start=$SECONDS trained_on=$out/shards embedded_from=$out/shards
  runs=("$name" "$name-untrained")
  [ "$views" = none ] || runs+=("$name-views")
  [ "$views" != all ] || runs+=("$name-untrained-views")
  if [[ $name == fields-* ]]; then
    trained_on=$out/fields embedded_from=$out/shards-unnamed
    [ -d "$out/fields" ] || pack_fields
    [ -d "$out/shards-unnamed" ] || "$lamella" pack "$cells/labels.tsv" --out "$out/shards-unnamed"
    runs+=("$name-named")
  fi
  [ -f "$out/$name/checkpoints/latest" ] || "$lamella" train "$recipe" "data.path=$trained_on" "train.out=$out/$name" --force
  for embedded in "${runs[@]}"; do
    options=() shards=$embedded_from
    case $embedded in *-untrained*) options+=(--untrained 0) ;; esac
    case $embedded in *-views) options+=(--pool hidden --views 8) ;; esac
    case $embedded in *-named) shards=$out/shards ;; esac
    [ -f "$out/$embedded.h5ad" ] || "$lamella" embed "$out/$name" "$shards" --out "$out/$embedded.h5ad" "${options[@]}"
    score "$embedded" "$out/$embedded.h5ad"
  done
  echo "$name: trained, embedded and scored in $((SECONDS - start)) s" >&2
done
column -s, -t "$table" 2> /dev/null || cat "$table"
