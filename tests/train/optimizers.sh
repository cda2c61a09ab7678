#!/usr/bin/env bash
# Every update rule: a run resumed from its middle ends with the same bytes, on one rank and on two; what files it leaves;
# the average of weights; refusals.
# Usage: optimizers.sh LAMELLA
. "$(dirname "$(realpath "$0")")/common.sh" "$1"
short="train.steps=10 train.checkpoint_every=5 train.validate_every=5"
last=checkpoints/step_00000010

# Takes a run back to its checkpoint of step 5.
cp_back() { cp -r "$1" "$2"; rm -r "$2/$last"; echo step_00000005 > "$2/checkpoints/latest"; }
tensors() { "$lamella" inspect "$1" --json | grep -o "\"$2\.[a-z_.0-9]*\"" | sort -u | wc -l; }

for name in adamw lion lamb muon schedulefree; do
  keys="$short optim.name=$name optim.schedule=constant optim.layer_decay=0.8"
  [ $name = schedulefree ] || keys="$keys optim.ema=0.9"
  "$lamella" train tiny.yaml train.out=$name $keys --quiet
  cp_back $name resumed
  "$lamella" train tiny.yaml train.out=resumed $keys --strict-resume --quiet
  for file in $(cd $name/$last && ls ./*.safetensors); do cmp {$name,resumed}/$last/$file || fail "$name: $file differs after a resume"; done
  diff <(deterministic $name) <(deterministic resumed) || fail "$name: metrics differ after a resume"
  rm -r resumed
done
cmp -s {adamw,lamb}/$last/model.safetensors && fail "lamb is adamw"
echo "ok: resume of every rule"

keys="$short optim.name=schedulefree optim.schedule=constant"
mpi 2 "$lamella" train tiny.yaml train.out=two $keys --quiet
cp_back two resumed
mpi 2 "$lamella" train tiny.yaml train.out=resumed $keys --resume --quiet
for file in model optimizer; do cmp {two,resumed}/$last/$file.safetensors || fail "2 ranks: $file differs after a resume"; done
echo "ok: resume on 2 ranks"

# Only what a rule keeps is stored; matrices have no second moment in muon.
all=$(tensors adamw/$last/optimizer.safetensors exp_avg)
[ "$all" -gt 20 ] && [ "$(tensors adamw/$last/optimizer.safetensors exp_avg_sq)" = "$all" ] || fail "adamw stores $all"
[ "$(tensors lion/$last/optimizer.safetensors exp_avg_sq)" = 0 ] || fail "lion stores a second moment"
[ "$(tensors muon/$last/optimizer.safetensors exp_avg_sq)" = $((all - 13)) ] || fail "muon stores second moments of matrices"
[ "$(tensors schedulefree/$last/optimizer.safetensors y)" = "$all" ] || fail "schedulefree does not store where it trains"
# The last tensor of both files is the same parameter: where schedulefree trains is not what inference uses.
cmp -s <(tail -c 512 schedulefree/$last/model.safetensors) <(tail -c 512 schedulefree/$last/optimizer.safetensors) &&
  fail "schedulefree: the model is not the average"
echo "ok: what is stored"

# Validations and pictures are made with the average, and training goes on as if they had not been made.
"$lamella" train tiny.yaml train.out=looked $keys optim.layer_decay=0.8 train.validate_every=1 train.pictures_every=3 --quiet
cmp <(tail -c 50000 schedulefree/$last/optimizer.safetensors) <(tail -c 50000 looked/$last/optimizer.safetensors) ||
  fail "schedulefree: a validation changes the run"
echo "ok: validations"

# The average: a file of weights like the model's, taken by embed --ema; damage to it is found.
"$lamella" embed adamw shards --ema --out ema.npy --quiet
"$lamella" embed adamw/$last shards --ema --out step.npy --quiet
"$lamella" embed adamw/checkpoints/latest shards --ema --out latest.npy --quiet
"$lamella" embed adamw/$last/ema.safetensors shards --out file.npy --quiet
"$lamella" embed adamw shards --out model.npy --quiet
for file in step latest file; do cmp ema.npy $file.npy || fail "embed --ema: $file is another network"; done
cmp -s ema.npy model.npy && fail "embed --ema takes the last weights"
"$lamella" embed adamw shards --ema --out ema.h5ad --quiet; "$lamella" inspect ema.h5ad > inspected
grep -q '"weights": *"ema"' inspected || fail "the provenance does not name the average"
"$lamella" train tiny.yaml train.out=plain $short --quiet
[ ! -e plain/$last/ema.safetensors ] || fail "an average that nobody asked for"
"$lamella" train tiny.yaml train.out=plain train.steps=15 optim.ema=0.9 --resume --quiet 2> log
grep -q 'holds no average' log && [ -e plain/checkpoints/step_00000015/ema.safetensors ] || { cat log; fail "an average that begins late"; }
cp -r adamw hurt
printf 'x' | dd of=hurt/$last/ema.safetensors bs=1 seek=9000 conv=notrunc status=none
"$lamella" embed hurt shards --ema --out hurt.npy 2> log
grep -q 'passed over: .*ema.safetensors' log || { cat log; fail "no warning about a damaged average"; }
echo "ok: average of weights"

refused() { # code, word, command...
  local expected=$1 word=$2 code=0; shift 2
  "$lamella" "$@" 2> log || code=$?
  [ "$code" = "$expected" ] && grep -q -- "$word" log && [ "$(grep -c . log)" = 1 ] || { cat log; fail "$* ended with $code"; }
}
refused 2 'optim.schedule: cosine.*take constant' train tiny.yaml train.out=x optim.name=schedulefree
refused 2 'optim.beta1: 0' train tiny.yaml train.out=x optim.name=schedulefree optim.schedule=constant optim.beta1=0
refused 2 'optim.ema: 0.9' train tiny.yaml train.out=x optim.name=schedulefree optim.schedule=constant optim.ema=0.9
refused 2 'optim.name' train tiny.yaml train.out=x optim.name=sgd
refused 2 'the state of lion, but optim.name is lamb' train tiny.yaml train.out=lion optim.name=lamb --resume --quiet
refused 1 'optim.ema' embed schedulefree shards --ema --out x.npy
refused 2 'taken as it is' embed adamw/$last/model.safetensors shards --ema --out x.npy
refused 2 '--ema' embed handmade shards --ema --out x.npy
refused 2 '--ema' embed adamw shards --untrained 1 --ema --out x.npy
[ ! -e x ] || fail "a refused run left a folder"
echo "ok: refusals"
