#!/usr/bin/env bash
# Weights out and in: exported networks give the same embeddings, runs begin with weights of other files, and what an export
# cannot say is refused. Usage: weights.sh LAMELLA
here=$(realpath "$0")
. "$(dirname "$here")/common.sh" "$1"
embed() { "$lamella" embed "$1" shards --out "$2" --quiet --force "${@:3}"; }
refuse() { # code, what the message says, command
  local code=0
  "$lamella" "${@:3}" 2> message || code=$?
  [ "$code" = "$1" ] && grep -q -- "$2" message || { cat message; fail "${*:3} gives $code"; }
}
"$lamella" train tiny.yaml train.out=run train.steps=3 --quiet
embed run run.npy

"$lamella" export run --to huggingface --out hf 2> message
settings='the run has data.normalize: plate, data.transform: sqrt: .*lamella_channels in the run'
grep -q "hf: preprocessor_config.json knows .* $settings" message || { cat message; fail "no warning of what transformers cannot know"; }
for file in model.safetensors config.json preprocessor_config.json; do [ -s hf/$file ] || fail "hf lacks $file"; done
embed hf hf.npy
cmp run.npy hf.npy || fail "the exported network is another one"
# As another program would have written it: without our metadata, so without names of channels and standardisation.
cp -r hf bare
sed -i '1,1s/lamella_config/xxxxxxx_config/' bare/model.safetensors
"$lamella" inspect bare > listing
grep -q 'vit.encoder.layer.0.output.dense.weight' listing || fail "inspect does not list tensors"
"$lamella" train tiny.yaml train.out=crop train.steps=1 data.normalize=crop data.transform=none optim.lr=0 train.init=bare --quiet
embed crop crop.npy
embed bare bare.npy
cmp crop.npy bare.npy || fail "an unnamed network standardises otherwise than by crop"
embed bare bare.npy --channels "$(sed -n 1p screen/images.csv | tr , '\n' | sed -n 's/^file_//p' | paste -sd,)"
cmp crop.npy bare.npy || fail "--channels in the order of the shards gives other embeddings"
refuse 2 "names 2 channels" embed bare shards --out no.npy --channels a,b
"$lamella" train tiny.yaml train.out=narrow train.steps=1 model.mlp_dim=33 model.mlp_ratio=3.3 --quiet
"$lamella" export narrow --to huggingface --quiet --out narrow_hf
embed narrow narrow.npy
embed narrow_hf narrow_hf.npy
cmp narrow.npy narrow_hf.npy || fail "widths of hidden units that are no one ratio do not survive"
sed -i '1,1s/lamella_config/xxxxxxx_config/' narrow_hf/model.safetensors
embed narrow_hf bare_narrow.npy # by its tensors alone
# How much training hides says nothing about embedding.
"$lamella" train tiny.yaml train.out=hidden train.steps=1 model.name=mae_channel_agnostic model.masking=whole_channel --quiet
embed hidden one.npy --channels "$(sed -n 1p screen/images.csv | tr , '\n' | sed -n 's/^file_//p' | head -n 1)"
embed run patch.npy --crop-size 8
echo "ok: out and in"

# A rate of zero keeps what a run begins with, whatever state the update rule has.
for rule in adamw schedulefree; do
  "$lamella" train tiny.yaml train.out=$rule train.steps=1 optim.lr=0 optim.name=$rule optim.schedule=constant train.init=run \
    train.seed=9 --quiet
  embed $rule $rule.npy
  cmp run.npy $rule.npy || fail "$rule does not begin with the weights of train.init"
done
mv run moved
"$lamella" train tiny.yaml train.out=adamw train.steps=2 optim.lr=0 optim.name=adamw optim.schedule=constant \
  train.init=run train.seed=9 --resume --quiet
mv moved run
# A run that goes on has no use for another one, and its files say the one that it began with.
for init in nothing ''; do
  "$lamella" train tiny.yaml train.out=adamw train.steps=3 optim.lr=0 optim.name=adamw optim.schedule=constant train.init=$init \
    train.seed=9 --resume 2> message
  [ -z "$init" ] || grep -q 'train.init: nothing has no effect: .* it began with run' message || { cat message; fail "no word of train.init"; }
  ! grep -q 'differ: .*train.init' message || { cat message; fail "train.init is a difference"; }
  grep -q ' init: "\?run"\?$' adamw/config.yaml || { cat adamw/config.yaml; fail "config.yaml has a train.init that was not used"; }
done
refuse 1 "train.init" train tiny.yaml train.out=other train.init=nothing
grep -q memory message && fail "a wrong path is told after memory is planned"
for key in embed_dim=64 num_heads=4 depth=2 layer_norm_eps=1e-05 positions=learned patch_size=16 mlp_dim=64 decoder_depth=2 \
  decoder_num_heads=4 name=mae_vit_parallel; do
  refuse 2 "train.init: model.${key%=*} is ${key#*=}, in run/.* it is" train tiny.yaml train.out=other train.init=run model.$key
done
"$lamella" train tiny.yaml train.out=larger train.steps=1 train.init=run model.image_size=48 2> message
grep -q 'train.init: 44 of 46 tensors are those of run/.*; 2 tables are computed' message || { cat message; fail "what is taken"; }
"$lamella" train tiny.yaml train.out=run train.steps=1 optim.lr=0 train.init=run --force --quiet
embed run again.npy
cmp run.npy again.npy || fail "--force removes the weights that the run begins with"
echo "ok: train.init"

# Weights that no number comes out of; the last four bytes of a file are a value of its last tensor.
last_value() { # file, copy, value as bytes
  head -c -4 "$1" > "$2"
  printf "$3" >> "$2"
}
last_value run/checkpoints/step_00000001/model.safetensors nan.safetensors '\0\0\300\177'
refuse 1 'nan.safetensors: tensor .* is nan at element' train tiny.yaml train.out=other train.init=nan.safetensors
refuse 1 'nan.safetensors: tensor .* is nan at element' embed nan.safetensors shards --out no.npy
refuse 1 'nan.safetensors: tensor .* is nan at element' export nan.safetensors --to huggingface --out no
last_value run/checkpoints/step_00000001/model.safetensors huge.safetensors '\377\377\177\177'
refuse 1 'none of its 2 steps' train tiny.yaml train.out=skipped train.steps=2 train.init=huge.safetensors
refuse 1 'none of its 2 steps' train tiny.yaml train.out=skipped train.steps=2 train.init=huge.safetensors --resume
echo "ok: weights that are no numbers"

agnostic=(tiny.yaml model.name=mae_channel_agnostic data.normalize=crop data.transform=none)
"$lamella" train "${agnostic[@]}" train.out=ca train.steps=1 optim.lr=0 --quiet
"$lamella" export ca --to openphenom --out phenom 2> message
! grep -q normalize message || { cat message; fail "a warning of pixels that need none"; }
[ "$(head -c 2 phenom/model.safetensors)" = PK ] && cmp phenom/model.safetensors phenom/pytorch_model.bin || fail "no torch.save file"
embed ca ca.npy
embed phenom phenom.npy
cmp ca.npy phenom.npy || fail "OpenPhenom's names give other embeddings"
"$lamella" export phenom --to openphenom --out twice --quiet
cmp phenom/model.safetensors twice/model.safetensors || fail "the second export differs"
"$lamella" train "${agnostic[@]}" train.out=trained train.steps=2 --quiet
"$lamella" train "${agnostic[@]}" train.out=begun train.steps=1 optim.lr=0 train.init=phenom train.seed=9 --quiet
embed begun begun.npy
cmp ca.npy begun.npy || fail "a run does not begin with OpenPhenom's names"
"$lamella" train "${agnostic[@]}" train.out=begun train.steps=1 train.init=phenom train.seed=9 model.decoder=shared --force 2> message
grep -q 'of the decoder begin at random: it has blocks for each channel' message || { cat message; fail "another decoder"; }
refuse 1 "in_proj.bias.*model.bias_layout: legacy" export trained --to openphenom --out no
# Trained so that it fits: whatever the rule and the layout, out and in again it gives the same.
for rule in adamw lion lamb muon schedulefree; do
  layout=legacy && [ $rule != lion ] || layout=fixed
  "$lamella" train "${agnostic[@]}" train.out=fit train.steps=2 optim.name=$rule optim.schedule=constant \
    model.bias_layout=$layout optim.lr=0.01 --quiet --force
  "$lamella" export fit --to openphenom --out fitting --quiet --force
  grep -q "bias_layout.*$layout" fitting/config.json || fail "another layout than the run's"
  embed fit fit.npy
  embed fitting fitting.npy
  cmp fit.npy fitting.npy || fail "$rule, $layout: the exported run gives other embeddings"
  ! cmp -s fit.npy ca.npy || fail "$rule learns nothing"
done
"$lamella" train tiny.yaml model.name=mae_vit_parallel model.bias_layout=legacy train.out=parallel train.steps=2 --quiet
"$lamella" export parallel --to openphenom --out fitting2 2> message
grep -q "fitting2: readers of this form .* $settings" message || { cat message; fail "no warning of pixels that OpenPhenom's readers take otherwise"; }
refuse 1 "in_proj.bias.*take legacy" export parallel --to openphenom --out no --bias-layout fixed
refuse 2 "train.init: model.bias_layout is legacy" train "${agnostic[@]}" train.out=other train.init=trained model.bias_layout=legacy
"$lamella" train tiny.yaml train.out=other train.steps=1 model.bias_layout=legacy --force > log 2>&1
grep -q "model.bias_layout: legacy has no effect" log || fail "a layout of biases that the network has not"
refuse 2 "model.bias_layout is legacy.*the run began with" train "${agnostic[@]}" train.out=trained model.bias_layout=legacy train.steps=9 --resume
refuse 2 "channels: handmade takes all" embed handmade shards --channels DNA --out no.h5ad
refuse 1 "mae_vit" export run --to openphenom --out no
refuse 1 "transformers has no" export ca --to huggingface --out no
refuse 2 "--bias-layout" export run --to huggingface --out no --bias-layout fixed
[ ! -e no ] || fail "a refused export leaves a folder"
refuse 2 "--force" export run --to huggingface --out hf
name=$'od"d \\ \e[31m name'
"$lamella" export ca --to openphenom --out "$name" --json --quiet > json
grep -qF '{"out":"od\"d \\ \u001B[31m name","to":"openphenom","model":"mae_channel_agnostic","decoder":true}' json ||
  { cat -v json; fail "--json of an odd name"; }
"$lamella" embed "$name" shards --out "$name/e.npy" --json --quiet > json
grep -qF '"out":"od\"d \\ \u001B[31m name/e.npy"' json || { cat -v json; fail "--json of an odd name"; }
code=0
"$lamella" inspect "$name/none" 2> message || code=$?
grep -qF 'od"d \ \x1b[31m name' message && ! grep -q $'\e' message || { cat -v message; fail "a message obeys a name"; }
cp -r phenom source
for out in source source/. "$PWD/source"; do
  refuse 2 "where the network itself lies" export source --to openphenom --out $out --force
  refuse 2 "where the network itself lies" export source/pytorch_model.bin --to openphenom --out $out --force
done
ln -s source other_name
refuse 2 "where the network itself lies" export source --to openphenom --out other_name --force
refuse 2 "where the network itself lies" export run --to huggingface --out run --force
cmp phenom/model.safetensors source/model.safetensors || fail "a refused export writes"
head -c 100000 phenom/model.safetensors > cut.pt
refuse 1 "cut off or damaged" embed cut.pt shards --out no.npy
echo "ok: openphenom"

# The page about weights can be pasted: its blocks but the one that needs published files.
root=$(dirname "$(dirname "$(dirname "$here")")")
mkdir page bin
ln -s "$lamella" bin/lamella
ln -s "$root/configs" page/configs
awk '/^```sh/ { block++; inside = 1; next } /^```/ { inside = 0 } inside && block < 3' "$root/docs/weights.md" > page.sh
[ "$(wc -l < page.sh)" -ge 10 ] || fail "docs/weights.md has no blocks"
(cd page && PATH="$work/bin:$PATH" bash -e ../page.sh > ../log 2>&1) || { tail -5 log; fail "docs/weights.md"; }
echo "ok: docs/weights.md"
