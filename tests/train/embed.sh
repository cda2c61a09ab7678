#!/usr/bin/env bash
# Embeddings do not depend on ranks, threads or the batch; every level, pool and reference gives the rows it should.
# Usage: embed.sh LAMELLA
. "$(dirname "$(realpath "$0")")/common.sh" "$1"
"$lamella" train tiny.yaml train.out=run train.steps=5 --quiet
channels=$(sed -n 1p screen/images.csv | tr , '\n' | sed -n 's/^file_//p' | paste -sd,)

mkdir a b c d
"$lamella" embed run shards --level well --out a/e.h5ad --quiet
(cd a && "$lamella" embed ../run ../shards --out e.h5ad --level well --quiet --force)
for n in 2 3; do
  (cd b && mpi $n "$lamella" embed ../run ../shards --out e.h5ad --level well --quiet --force)
  cmp a/e.h5ad b/e.h5ad || fail "$n ranks give another file"
done
echo "ok: ranks"
mkdir e
(cd e && "$lamella" embed ../run/checkpoints/latest ../shards --out e.npy --quiet)
(cd run/checkpoints && "$lamella" embed latest ../../shards --out ../../e/here.npy --quiet)
"$lamella" embed run shards --out e/run.npy --quiet
cmp e/e.npy e/run.npy && cmp e/here.npy e/run.npy || fail "checkpoints/latest is another model"
"$lamella" embed run shards --level image --out c/one.npy --quiet
"$lamella" embed run shards --level image --out c/batch.npy --batch 3 --threads 2 --quiet
cmp c/one.npy c/batch.npy || fail "the batch or the threads change embeddings"
echo "ok: batch and threads"

columns() { "$lamella" inspect "$1" | sed -nE 's/^embeddings: ([0-9]+) rows, ([0-9]+) columns.*/\1 \2/p'; }
expect() { [ "$(columns "$1")" = "$2" ] || fail "$1 holds $(columns "$1"), not $2"; }
expect a/e.h5ad "24 32"
"$lamella" embed run shards --level crop --crops 2 --pool cls --block 1 --out d/crop.h5ad --quiet
expect d/crop.h5ad "48 32"
"$lamella" embed tiny.yaml shards --untrained 1 --pool channel --out d/channel.h5ad --quiet
expect d/channel.h5ad "24 160"
"$lamella" embed run shards --pool hidden --block 1 --out d/hidden.h5ad --quiet
expect d/hidden.h5ad "24 128"
"$lamella" embed run shards --level crop --views 3 --out d/views.h5ad --quiet
expect d/views.h5ad "24 32"
"$lamella" embed intensity shards --crop-size 32 --level well --out d/intensity.h5ad --quiet
expect d/intensity.h5ad "24 35"
"$lamella" embed handmade shards --crop-size 32 --level well --out d/handmade.h5ad --quiet
expect d/handmade.h5ad "24 50"
# Every block in one file: each as if it had been asked for alone, the last one as X.
"$lamella" train tiny.yaml train.out=two train.steps=2 model.depth=2 --quiet
for pool in mean hidden channel; do
  "$lamella" embed two shards --pool $pool --block all --out d/all-$pool.h5ad --quiet
  for block in 1 2; do
    "$lamella" embed two shards --pool $pool --block $block --out d/one.h5ad --quiet --force
    "$lamella" map d/all-$pool.h5ad --key block_$block --align none --by well --out d/part.npy --quiet --force
    "$lamella" map d/one.h5ad --align none --by well --out d/alone.npy --quiet --force
    cmp d/part.npy d/alone.npy || fail "--block all --pool $pool: block $block differs"
  done
  "$lamella" map d/all-$pool.h5ad --align none --by well --out d/x.npy --quiet --force
  cmp d/x.npy d/alone.npy || fail "--block all --pool $pool: X is not the last block"
done
"$lamella" inspect d/all-mean.h5ad > inspected
grep -q '^obsm: block_1 block_2$' inspected && grep -q '^uns: lamella$' inspected || fail "inspect does not name the blocks"
"$lamella" inspect d/all-mean.h5ad --json | tr -d ' \n' | grep -q '"obsm":\["block_1","block_2"\]' || fail "inspect --json does not name the blocks"
for file in a/e.h5ad d/channel.h5ad; do
  "$lamella" inspect $file > inspected; grep -q 'embed_dim: 32' inspected || fail "$file: no configuration in the provenance"
  ! grep -q '\bout: ' inspected || fail "$file: the provenance names a run folder that it cannot know"
done
echo "ok: levels, pools, references"
# What --json prints is JSON whatever the names are.
"$lamella" train tiny.yaml 'train.out=a "run"' train.steps=1 --quiet --json > json
[ "$(cat json)" = '{"run":"a \"run\"","step":1,"skipped":0}' ] || fail "train --json: $(cat json)"
"$lamella" embed 'a "run"' shards --out 'an "e".npy' --quiet --json > json
[ "$(cat json)" = '{"out":"an \"e\".npy","level":"image","rows":24,"columns":32,"crops":24}' ] || fail "embed --json: $(cat json)"

refused() { # code, word, arguments...
  local expected=$1 word=$2 code=0; shift 2
  "$lamella" embed "$@" 2> log || code=$?
  [ "$code" = "$expected" ] && grep -q -- "$word" log && [ "$(wc -l < log)" = 1 ] || { cat log; fail "embed $* ended with $code"; }
}
refused 2 force run shards --out a/e.h5ad
refused 2 untrained tiny.yaml shards --out x.h5ad
refused 2 block run shards --block 9 --out x.h5ad
refused 2 "from 1 on" run shards --block 2x --out x.h5ad
refused 2 "one matrix" run shards --block all --out x.npy
refused 1 absent absent shards --out x.h5ad
# Each channel by its name, once, and known.
refused 2 "'ER' is there twice" run shards --channels DNA,ER,RNA,AGP,ER --out x.h5ad
refused 2 "channel 3 has no name" run shards --channels DNA,ER,,AGP,Mito --out x.h5ad
refused 2 "has a channel 'Mitto'; there are: .*DNA.*Mito" run shards --channels DNA,ER,RNA,AGP,Mitto --out x.h5ad
"$lamella" embed run shards --channels "$channels" --out d/named.npy --quiet
"$lamella" embed run shards --out d/unnamed.npy --quiet
cmp d/named.npy d/unnamed.npy || fail "--channels in the network's order gives other vectors"
# A network for any channels takes those that are named, in any order, each standardised by its own statistics.
agnostic="model.name=mae_channel_agnostic model.decoder=shared data.normalize=dataset"
"$lamella" train tiny.yaml train.out=any train.steps=2 $agnostic --quiet
"$lamella" embed any shards --out d/any.npy --quiet
"$lamella" embed any shards --channels "$(tr , '\n' <<< "$channels" | tac | paste -sd,)" --out d/turned.npy --quiet
numbers() { od -An -v -tf4 -w4 -j128 "$1"; }
paste <(numbers d/any.npy) <(numbers d/turned.npy) |
  awk '{ d = $1 - $2; if (d < 0) d = -d; if (d > m) m = d } END { exit !(NR == 24 * 32 && m < 1e-4) }' ||
  fail "the order of the channels changes what a network for any channels sees"
refused 2 "has a channel 'DAN'" any shards --channels DAN --out x.h5ad
refused 2 "'DNA' is there twice" any shards --channels DNA,DNA --out x.h5ad
"$lamella" embed any shards --channels DNA --out d/dna.npy --quiet
for wrong in DNA,DNA,ER,RNA,AGP,Mito '[DNA,ER,RNA,AGP,Mito]' DNA,,ER; do
  code=0; "$lamella" train tiny.yaml train.out=x $agnostic "model.channel_tokens=$wrong" --quiet 2> log || code=$?
  [ $code = 2 ] && grep -q 'model.channel_tokens.*each once, as A,B' log && [ "$(wc -l < log)" = 1 ] || { cat log; fail "channel_tokens $wrong ended with $code"; }
done
refused 1 pixels intensity shards --crop-size 512 --out x.h5ad
echo "ok: refusals"

# A damaged frame: its image is left out and named, the others have the same vectors, on any number of ranks; --strict ends.
cp -r shards hurt
printf 'XXXXXXXX' | dd of=hurt/shard_00000.lam bs=1 seek=20000 conv=notrunc status=none
"$lamella" embed run hurt --out d/hurt.npy --quiet 2> log
grep -q 'image [0-9]*, channel .*damaged frame.*left out' log || fail "no warning names the damaged image"
expect d/hurt.npy "23 32"
mpi 2 "$lamella" embed run hurt --out d/hurt2.npy --quiet 2> log2
grep -q "damaged frame" log2 || fail "two ranks do not name the damaged image"
cmp d/hurt.npy d/hurt2.npy && cmp d/hurt.csv d/hurt2.csv || fail "two ranks leave out something else"
"$lamella" embed run shards --out d/whole.npy --quiet
image=$(sed -nE 's/.*image ([0-9]+), channel.*/\1/p' log | head -n 1)
row=$((32 * 4)) start=$((128 + row * image)) # float32 rows behind a header of 128 bytes
cmp <(head -c $((start)) d/whole.npy | tail -c +129; tail -c +$((start + row + 1)) d/whole.npy) \
  <(tail -c +129 d/hurt.npy) || fail "the other images have other vectors"
"$lamella" embed run hurt --level well --out d/hurtwell.h5ad --quiet 2> log
expect d/hurtwell.h5ad "23 32"
refused 1 'damaged frame' run hurt --strict --quiet --out x.h5ad
echo "ok: a damaged frame"
