#!/usr/bin/env bash
# The examples in the help of the commands, one after the other in one folder, as they stand; those that train or simulate for long get
# smaller sizes behind. bench, export and sweep (whose example begins where the demo ends) have tests of their own.
# Usage: examples.sh LAMELLA
set -euo pipefail
lamella=$(realpath "$1")
root=$(realpath "$(dirname "$0")/../..")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
fail() { echo "FAILED: $*" >&2; exit 1; }
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1} OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 OMPI_MCA_mpi_yield_when_idle=1 \
  OMPI_MCA_rmaps_base_oversubscribe=1 OMPI_MCA_hwloc_base_binding_policy=none
mkdir bin runs
ln -s "$lamella" bin/lamella
ln -s "$root/configs" configs
ln -s screen/relationships relationships
PATH=$work/bin:$PATH

count=0
run() { # command: each of its examples
  local line extra
  "$lamella" "$1" --help | sed -n '/^Example/,$p' | sed -n 's/^  //p' > lines
  [ -s lines ] || fail "$1 has no example"
  while read -r line; do
    case $line in
      *'embed vit-mae-base '* | *'embed openphenom '*) continue ;; # published weights: tests/train/weights.sh has some of their form
      *'synth '*) extra='--genes 12 --plates 2 --image-size 96' ;;
      *demo.yaml*) extra='train.steps=2 train.global_batch=8' ;;
      *vit_s16.yaml*) extra='train.steps=1 train.global_batch=2 model.image_size=96 model.depth=1 model.decoder_depth=1' ;;
      *'pack '* | *'map '*) extra=--force ;;
      *) extra='' ;;
    esac
    eval "$line $extra" > out 2> log < /dev/null || { cat log >&2; fail "$line"; }
    count=$((count + 1))
  done < lines
}
for command in synth pack train inspect embed map relate consistency retrieve probe; do run $command; done
mv results scores
mkdir results
for name in trained untrained; do cp -r scores results/$name; done
mkdir runs/demo
ln -s ../first runs/demo/run
cp map.h5ad runs/demo/
run report
[ -s blocks.h5ad ] && [ -s map.html ] || fail "an example wrote nothing"
echo "ok: $count examples"
