#!/usr/bin/env bash
# Masks, losses and positions that the configuration offers: each trains, resumes to the same bits, and is refused where it
# cannot be; a network embeds crops of another size.
# Usage: options.sh LAMELLA
configs=$(realpath "$(dirname "$0")/../../configs")
. "$(dirname "$(realpath "$0")")/common.sh" "$1"

run() { # name, assignments...
  local name=$1; shift
  "$lamella" train tiny.yaml train.out="$name" --quiet "$@"
}
losses() { sed -nE 's/^\{"step":[0-9]+,"loss":([^,]+),.*/\1/p' "$1/metrics.jsonl"; }
falls() { # the mean of the last ten losses is below that of the first ten
  losses "$1" | awk '{ x[NR] = $1 } END { for (i = 1; i <= 10; i++) { a += x[i]; b += x[NR - i + 1] } exit !(b < a) }' ||
    fail "$1: the loss does not fall"
}
run plain
falls plain
run schedule model.mask_ratio_end=0.25
falls schedule
head -n 8 <(losses plain) | cmp - <(head -n 8 <(losses schedule)) || fail "a schedule differs in its first fifth"
cmp -s <(losses plain) <(losses schedule) && fail "a schedule changes nothing"
LAMELLA_CHECKPOINT_DELAY_MS=200 "$lamella" train tiny.yaml train.out=cut --quiet model.mask_ratio_end=0.25 & # no function: the signal is for the command
pid=$!
while [ ! -e cut/checkpoints/latest ] && kill -0 $pid 2> log; do sleep 0.05; done
kill -USR1 $pid 2> log || true
wait $pid || [ $? = 75 ] || fail "a stopped run did not end with 75"
[ "$(losses cut | wc -l)" -lt 40 ] || fail "the run was not stopped on the way"
run cut model.mask_ratio_end=0.25 --resume 2> log || { cat log; fail "no resume"; }
same_run schedule cut "resume within a schedule"
[ -s schedule/reconstructions/step_00000040.png ] || fail "no picture"
# The first stretch keeps 4 of 16 patches, the last 12: more in the encoder, less in the only block of the decoder.
flops() { sed -nE "s/^\\{\"step\":$2,.*\"gflops_per_s\":([^,]+),\"step_ms\":([^,]+),.*/\\1 \\2/p" "$1/metrics.jsonl" | awk '{ print $1 * $2 }'; }
awk -v a="$(flops schedule 1)" -v b="$(flops schedule 40)" 'BEGIN { exit !(b > 1.05 * a) }' || fail "the work of a step does not grow with its patches"
echo "ok: schedule"

run block model.masking=block model.decode_ratio=0.5
falls block
run fourier model.fourier=image model.fourier_alpha=0.02
falls fourier
for form in patch recursion_compat; do run $form model.fourier=$form model.fourier_norm=l2 model.fourier_alpha=0.001 train.steps=3; done
agnostic="model.name=mae_channel_agnostic model.decoder=shared"
run drawn $agnostic model.channels_per_step=2 model.masking=whole_channel model.fourier=image model.fourier_alpha=0.02
falls drawn
run learned model.positions=learned
falls learned
run half train.precision=bf16 model.masking=block model.decode_ratio=0.5 model.fourier=image model.mask_ratio_end=0.5
falls half
run whole model.masking=block model.decode_ratio=0.5 model.fourier=image model.mask_ratio_end=0.5
awk -v d="$(largest_difference half whole)" 'BEGIN { exit !(d > 0 && d < 0.03) }' || fail "bf16 differs by $(largest_difference half whole)"
mpi 2 "$lamella" train tiny.yaml train.out=two --quiet model.masking=block model.decode_ratio=0.5
awk -v d="$(largest_difference block two)" 'BEGIN { exit !(d < 1e-4) }' || fail "two ranks draw other blocks"
for name in block fourier learned half; do [ -s $name/reconstructions/step_00000040.png ] || fail "$name: no picture"; done
echo "ok: options"

columns() { "$lamella" inspect "$1" | sed -nE 's/^embeddings: ([0-9]+) rows, ([0-9]+) columns.*/\1 \2/p'; }
for name in plain learned; do
  "$lamella" embed $name shards --out $name.npy --quiet
  "$lamella" embed $name shards --crop-size 32 --out $name.32.npy --quiet
  cmp $name.npy $name.32.npy || fail "$name: its own crop size gives other vectors"
  for size in 16 48; do
    "$lamella" embed $name shards --crop-size $size --out $name.$size.npy --quiet
    [ "$(columns $name.$size.npy)" = "24 32" ] || fail "$name at $size pixels: $(columns $name.$size.npy)"
    cmp -s $name.npy $name.$size.npy && fail "$name: crops of $size pixels give the vectors of 32"
  done
done
echo "ok: crops of another size"

refused() { # word, assignments...
  local word=$1 code=0; shift
  "$lamella" train tiny.yaml train.out=refused --quiet "$@" 2> log || code=$?
  [ "$code" = 2 ] && grep -q -- "$word" log && [ "$(wc -l < log)" = 1 ] || { cat log; fail "$* ended with $code"; }
}
refused 'model.masking' model.masking=per_channel
refused 'model.masking' model.masking=whole_channel
refused 'model.masking' model.masking=blocks
refused 'model.channels_per_step is 1' $agnostic model.channels_per_step=1 model.masking=whole_channel
refused 'optim.min_lr: 0.01.*optim.lr, is 0.001' optim.min_lr=0.01
refused "optim.eps is '0'" optim.eps=0 optim.beta2=0
for size in 0 0.5 2000 0x10MiB; do refused "train.memory_budget: '$size'.*8GiB" train.memory_budget=$size; done
refused 'did you mean optim.lr' model.lr=1
refused 'model.decode_ratio' model.decode_ratio=0.5 model.fourier=recursion_compat
refused 'model.decode_ratio' model.decode_ratio=1.5
refused 'model.fourier_alpha' model.fourier_alpha=1
refused 'model.mask_ratio' model.mask_ratio_end=0.99
code=0; "$lamella" embed plain shards --crop-size 20 --out x.npy 2> log || code=$?
[ $code = 2 ] && grep -q 'patches of 8' log || { cat log; fail "crops of 20 pixels ended with $code"; }
# A key without effect is named, with what it belongs to; one that has its default is not, nor is any of the shipped configurations.
warns() { # warning or '', assignments...
  local word=$1; shift
  "$lamella" train tiny.yaml train.out=warned train.steps=1 --force --quiet "$@" 2> log || fail "$* ended with $?"
  [ "$(grep -c 'has no effect' log)" = $((${#word} > 0)) ] && grep -q -- "$word" log || { [ -z "$word" ] && [ ! -s log ]; } || { cat log; fail "$*: '$word'"; }
}
warns 'model.decoder: shared has no effect with model.name: mae_vit; it belongs to mae_channel_agnostic' model.decoder=shared
warns 'model.layer_norm_eps: 1e-5.*mae_vit_parallel' model.name=mae_vit_parallel model.layer_norm_eps=1e-5
warns 'model.fourier_alpha: 0.02.*it belongs to image|patch|recursion_compat' model.fourier_alpha=0.02
warns 'model.fourier_norm: l2' model.fourier_norm=l2
warns 'optim.momentum: 0.5' optim.momentum=0.5
warns 'optim.eps: 1e-6.*optim.name: lion' optim.name=lion optim.eps=1e-6
warns 'optim.beta1: 0.8.*optim.schedule: onecycle' optim.schedule=onecycle optim.beta1=0.8
warns 'optim.min_lr: 1e-5' optim.schedule=constant optim.min_lr=1e-5
warns '' model.fourier_alpha=0.010 model.decoder=cross optim.momentum=0.95
warns '' model.fourier=patch model.fourier_alpha=0.001 model.fourier_norm=l2 optim.name=muon optim.momentum=0.9 optim.min_lr=1e-5
for file in $(ls "$configs"/*.yaml | grep -v sweep); do
  "$lamella" train "$file" data.path=nowhere 2> log && fail "trained on nothing"
  [ "$(grep -c . log)" = 1 ] && grep -q nowhere log || { cat log; fail "$file"; }
done
echo "ok: refusals"
