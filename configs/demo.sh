#!/usr/bin/env bash
# The whole way on a simulated screen: images -> shards -> masked autoencoder -> embeddings -> map -> recall -> report.
# Usage: configs/demo.sh LAMELLA OUT [SEED [STRENGTH [GENES]]]
# Every reference goes through the same alignment and the same recall as the trained network.
set -euo pipefail
lamella=$1 out=$2 seed=${3:-0} strength=${4:-1} genes=${5:-96}
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$out/references"
timings=$out/timings.csv
echo "stage,seconds" > "$timings"

stage() { # label, command...: says the command as it can be pasted, runs it, notes the seconds
  local label=$1 start=$EPOCHREALTIME word said=lamella; shift
  for word in "${@:2}"; do
    case $word in *[!A-Za-z0-9_./=,:-]*) said+=" '$word'" ;; *) said+=" $word" ;; esac
  done
  echo "== $label: $said" >&2
  "$@"
  awk -v l="$label" -v a="$start" -v b="$EPOCHREALTIME" 'BEGIN { printf "%s,%.2f\n", l, b - a }' >> "$timings"
}
# Each plate centred and scaled on all of its wells, then what varies among the wells of one gene whitened away: the 64
# control wells alone are too few to estimate the covariance of hundreds of features.
map_and_relate() { # label, embeddings, aligned, map, results
  stage "align $1" "$lamella" map "$2" --out "$3" --align centerscale --controls all --batch plate --force
  stage "map $1" "$lamella" map "$3" --out "$4" --align tvn --within gene --shrinkage 0.3 \
    --where "gene != non-targeting" --by gene --force
  stage "relate $1" "$lamella" relate "$4" --relationships "$out/screen/relationships" --out "$5" --bootstrap 1000 --force
}

stage synth "$lamella" synth "$out/screen" --seed "$seed" --strength "$strength" --genes "$genes" --force
stage pack "$lamella" pack "$out/screen/images.csv" --out "$out/shards" --force
stage inspect "$lamella" inspect "$out/shards" --image "$out/images.png" --force > "$out/shards.txt"
stage train "$lamella" train "$here/demo.yaml" "data.path=$out/shards" "train.out=$out/run" "train.seed=$seed" --force
stage embed "$lamella" embed "$out/run" "$out/shards" --level well --pool hidden --out "$out/embeddings.h5ad" --force
stage "embed untrained" "$lamella" embed "$out/run" "$out/shards" --level well --pool hidden --untrained "$seed" \
  --out "$out/references/untrained.h5ad" --force
for features in intensity handmade; do
  stage "embed $features" "$lamella" embed "$features" "$out/shards" --level well \
    --crop-size 64 --out "$out/references/$features.h5ad" --force
done

map_and_relate trained "$out/embeddings.h5ad" "$out/aligned.h5ad" "$out/map.h5ad" "$out/relate"
for name in untrained intensity handmade; do
  map_and_relate "$name" "$out/references/$name.h5ad" "$out/references/$name-aligned.h5ad" \
    "$out/references/$name-map.h5ad" "$out/references/$name"
  stage "trained against $name" "$lamella" relate "$out/map.h5ad" --against "$out/references/$name-map.h5ad" \
    --relationships "$out/screen/relationships" --out "$out/references/trained-against-$name" --bootstrap 1000 --force
done
# The ceiling: the true parameters of every well, with well noise, aggregated the same way.
stage "map ceiling" "$lamella" map "$out/screen/truth.csv" --out "$out/references/ceiling-map.h5ad" --align none --by gene \
  --where 'gene != non-targeting' --force
stage "relate ceiling" "$lamella" relate "$out/references/ceiling-map.h5ad" --relationships "$out/screen/relationships" \
  --out "$out/references/ceiling" --bootstrap 1000 --force

"$lamella" report "trained=$out/relate" "ceiling=$out/references/ceiling" "untrained=$out/references/untrained" \
  "intensity=$out/references/intensity" "hand-made=$out/references/handmade" \
  "untrained=$out/references/trained-against-untrained" "intensity=$out/references/trained-against-intensity" \
  "hand-made=$out/references/trained-against-handmade" \
  "$out/run" "$out/map.h5ad" "$out/images.png" "$timings" --pathways "$out/screen/pathways.csv" \
  --title "lamella demo: a simulated screen" --out "$out/report.html" --force
echo "report: $out/report.html"
