#!/usr/bin/env bash
# Results of every evaluation are the same bytes on any number of threads.
# Usage: threads.sh LAMELLA
. "$(dirname "$(realpath "$0")")/common.sh" "$1"

"$lamella" synth screen --genes 60 --image-size 64 --plates 2 --seed 1 --quiet > /dev/null
"$lamella" pack screen/images.csv --out shards --quiet
"$lamella" embed handmade shards --level well --out emb.npy --quiet
"$lamella" map emb.npy --align centerscale --batch plate --by gene --where 'gene != non-targeting' --out map.npy --quiet

# OUT FILES... -- command: what the files of OUT hold on 1, 2 and 5 threads; JSON and CSV do not name the command line.
same() {
  local out=$1 files=() t file; shift
  while [ "$1" != -- ]; do files+=("$1"); shift; done
  shift
  for t in 1 2 5; do
    "$lamella" "$@" --out "$out" --threads $t --quiet --force
    mkdir -p "seen/$t"
    for file in "${files[@]}"; do cp "$file" "seen/$t/"; done
    for file in "${files[@]}"; do
      cmp "seen/1/$(basename "$file")" "seen/$t/$(basename "$file")" || fail "$t threads: $file of $*"
    done
  done
  rm -rf seen
  echo "ok: $*"
}

for how in "center" "centerscale --batch plate" "pca-cs --controls gene=non-targeting" "tvn --controls gene=non-targeting" \
  "tvn --controls all --batch plate" "tvn --controls all --shrinkage ledoit-wolf"; do
  same m.npy m.npy m.csv -- map emb.npy --align $how
done
same r r/scores.csv r/histogram.csv -- relate map.npy --relationships screen/relationships --bootstrap 50 --permutations 50
same p p/scores.csv p/confusion.csv -- probe emb.npy --label gene --folds 2
same c c/consistency.csv c/summary.json -- consistency emb.npy --by gene --controls gene=non-targeting --permutations 100
