#!/usr/bin/env bash
# Training and embedding on a device equal those on the CPU to rounding; runs, resumes and repeats there have the same bits. On the
# emulated device, where LAMELLA_CUDA_MODULE names none; on a GPU without the errors that only the emulator can make, and without
# two ranks where there is one GPU or no mpirun.
# Usage: cuda.sh LAMELLA [--short]     (--short: float32, repeat, resume, errors)
. "$(dirname "$0")/common.sh" "$1"
export LAMELLA_CUDA_MODULE=${LAMELLA_CUDA_MODULE:-$(dirname "$lamella")/liblamella_cuda_emulated.so}
[ -e "$LAMELLA_CUDA_MODULE" ] || fail "there is no $LAMELLA_CUDA_MODULE"
LAMELLA_CUDA_MODULE=$(realpath "$LAMELLA_CUDA_MODULE")
short=${2:-}
case ${LAMELLA_CUDA_MODULE##*/} in *emulated* | *checked*) emulated=1 ;; *) emulated= ;; esac

steps=14
train() { # name, device, more...
  local name=$1 device=$2; shift 2
  "$lamella" train tiny.yaml train.steps=$steps train.validate_every=7 "train.out=$name" --device "$device" --quiet "$@"
}
close() { # one, other, bound, what
  local off
  off=$(largest_difference "$1" "$2") || fail "$4: no losses"
  awk -v d="$off" -v b="$3" 'BEGIN { exit !(d <= b) }' || fail "$4: losses differ by $off, allowed are $3"
  echo "ok: $4 (losses differ by $off)"
}

train cpu cpu
train cuda cuda
close cpu cuda 2e-5 "float32 on both"
grep -q '"device":"cuda"' cuda/metrics.jsonl || fail "metrics.jsonl does not say cuda"
grep -q '"device":"cpu"' cpu/metrics.jsonl || fail "metrics.jsonl does not say cpu"

# A repeat, and the same in two runs of the command, stopped at a checkpoint.
same_bits() { # one, other, what
  local last=checkpoints/step_$(printf %08d $steps) file
  for file in model.safetensors optimizer.safetensors; do
    cmp -s "$1/$last/$file" "$2/$last/$file" || fail "$3: $file differs"
  done
  diff <(deterministic "$1") <(deterministic "$2") > difference || { head difference; fail "$3: metrics differ"; }
  echo "ok: $3"
}
train again cuda
same_bits cuda again "a repeat has the same bits"
status=0
for k in 1 2 3 4 5 6 7 8 9; do # killed at some step, resumed until it is done
  status=0
  timeout -s KILL 1.5 "$lamella" train tiny.yaml train.steps=$steps train.validate_every=7 train.out=killed --device cuda \
    --quiet --resume train.checkpoint_every=2 || status=$?
  [ $status = 0 ] && break
done
[ $status = 0 ] || train killed cuda --resume train.checkpoint_every=2
train whole cuda train.checkpoint_every=2
same_bits whole killed "killed and resumed has the same bits"

# Stopped by USR1 while a checkpoint is written, which takes its time.
for k in 1 2 3 4 5 6 7 8 9; do
  rm -rf stopped; status=0
  LAMELLA_CHECKPOINT_DELAY_MS=300 "$lamella" train tiny.yaml train.steps=$steps train.validate_every=7 train.out=stopped \
    --device cuda --quiet train.checkpoint_every=2 & pid=$!
  while kill -0 $pid 2> none && ! grep -q '"loss"' stopped/metrics.jsonl 2> none; do sleep 0.02; done
  kill -USR1 $pid 2> none || true
  wait $pid || status=$?
  [ $status = 75 ] && break
done
[ $status = 75 ] || fail "USR1 was never met: exit $status"
[ "$(cat stopped/checkpoints/latest)" != step_00000014 ] || fail "USR1 was met at the end"
train stopped cuda --resume train.checkpoint_every=2
same_bits whole stopped "stopped by USR1 and resumed has the same bits"

everything() {
  # The algorithms of products are kept, and a resumed run takes those that it began with: of the network and of an update.
  from_half() { # name, what, options...
    local name=$1 what=$2; shift 2
    train "$name" cuda --autotune train.checkpoint_every=7 "$@"
    grep -q '"product_plans"' "$name/checkpoints/step_00000007/state.json" || fail "state.json holds no plans of products"
    cp -r "$name" "$name.half"
    rm -r "$name.half/checkpoints/step_00000014"
    printf step_00000007 > "$name.half/checkpoints/latest"
    train "$name.half" cuda --resume train.checkpoint_every=7 "$@"
    same_bits "$name" "$name.half" "$what"
  }
  from_half tuned "resumed with the algorithms of its checkpoint"
  close cuda tuned 2e-5 "algorithms chosen by time"
  from_half muon "resumed with Muon in bfloat16" optim.name=muon train.precision=bf16
  grep -qE '([0-9]+ ){6}6 6 0 2 0 ' muon/checkpoints/step_00000007/state.json || fail "no product of Muon is in bfloat16"

  # Everything that varies: kept samples of stochastic depth in buckets of rows, micro-batches, levels of the mask ratio,
  # recomputation, types, rules, averages.
  vary() { # bound, what, options...
    local bound=$1 what=$2; shift 2
    train a cpu --force "$@"
    train b cuda --force "$@"
    close a b "$bound" "$what"
  }
  vary 2e-5 "stochastic depth, micro-batches" model.drop_path=0.4 model.depth=3 train.micro_batch=3 # and one of 2 crops
  vary 2e-3 "bfloat16, stochastic rounding" train.precision=bf16 train.stochastic_rounding=true
  vary 2e-5 "mask ratios, whole blocks recomputed" model.mask_ratio_end=0.5 train.recompute=block model.depth=2
  vary 1e-4 "parallel blocks, Lion" model.name=mae_vit_parallel optim.name=lion optim.lr=1e-4
  vary 2e-5 "a token for each channel, LAMB, Fourier loss" model.name=mae_channel_agnostic optim.name=lamb model.fourier=image
  vary 1e-3 "Muon, moving average" optim.name=muon optim.ema=0.9
  # The CPU makes Muon's directions in float32: those of the device are off by some roundings of 2^-9 of their norm, as activations are.
  kept() { sed -nE 's/.*"optimizer":([0-9]+).*/\1/p' b/metrics.jsonl; }
  wide=$(kept)
  vary 2e-3 "Muon in bfloat16" optim.name=muon optim.ema=0.9 train.precision=bf16
  [ "$(kept)" -lt "$wide" ] || fail "Muon's matrices take as much in bfloat16: $(kept) bytes of $wide"
  vary 2e-5 "schedule-free" optim.name=schedulefree optim.schedule=constant
  # Validation is at other weights, whose copies in bfloat16 lie where those of the training do; several graphs share them.
  vary 2e-3 "schedule-free, mask ratios and micro-batches in bfloat16" optim.name=schedulefree optim.schedule=constant \
    train.precision=bf16 model.mask_ratio_end=0.5 train.micro_batch=4
  cp -r shards hurt
  printf 'XXXXXXXX' | dd of=hurt/shard_00000.lam bs=1 seek=20000 conv=notrunc status=none
  vary 2e-5 "a damaged image" data.path=hurt

  # Two ranks, sums by NCCL, which takes a GPU for each.
  gpus=$(nvidia-smi -L 2> none | wc -l) || gpus=0
  if [ -z "$emulated" ] && { [ "$gpus" -lt 2 ] || ! command -v mpirun > none; }; then
    echo "skipped: two ranks ($gpus GPU, mpirun: $(command -v mpirun || echo none))"
    return
  fi
  mpi 2 "$lamella" train tiny.yaml train.steps=$steps train.validate_every=7 train.out=ranks --device cuda --quiet
  close cuda ranks 2e-5 "two ranks"

  # A rank that fails ends both, with its words: nobody waits.
  status=0
  timeout 120 mpirun --allow-run-as-root --oversubscribe --bind-to none -n 2 "$lamella" train tiny.yaml train.out=strict \
    data.path=hurt data.strict=true --device cuda --quiet > log 2>&1 || status=$?
  [ $status != 0 ] && [ $status != 124 ] && grep -q "damaged frame" log || { cat log; fail "a failing rank of two ended with $status"; }
  echo "ok: a failing rank ends both"
}
[ "$short" = --short ] || everything

# A step that is not finite is skipped on the device: the weights stay.
train nan cuda optim.lr=1e3 optim.weight_decay=1000 optim.warmup=0 optim.schedule=constant train.max_skipped_steps=3 2> nan.err && fail "steps without a finite loss ended well"
grep -q "steps in a row without a finite update" nan.err || { cat nan.err; fail "no line about skipped steps"; }
echo "ok: steps that are not finite are skipped"

"$lamella" embed cpu shards --level well --out cpu.npy --device cpu --quiet
"$lamella" embed cpu shards --level well --out cuda.npy --device cuda --quiet
[ "$(stat -c %s cpu.npy)" = "$(stat -c %s cuda.npy)" ] || fail "embeddings differ in size"
od -An -v -t f4 -w4 -j 128 cpu.npy > a.txt; od -An -v -t f4 -w4 -j 128 cuda.npy > b.txt
paste a.txt b.txt | awk '{ d = $1 - $2; if (d < 0) d = -d; if (d > m) m = d; n++ } END { exit !(n > 100 && m < 1e-4) }' ||
  fail "embeddings differ"
echo "ok: embeddings on both"

# Errors: one line that says what to do.
no() { # status, words, command...
  local expected=$1 words=$2 got=0; shift 2
  "$@" > out 2> err || got=$?
  [ "$got" = "$expected" ] || { cat err; fail "exit $got in place of $expected: $*"; }
  grep -q "$words" err || { cat err; fail "no word of '$words': $*"; }
}
no 1 "there is no /nowhere.so" env LAMELLA_CUDA_MODULE=/nowhere.so "$lamella" train tiny.yaml train.out=x --device cuda
no 2 "autotune is for a GPU" "$lamella" train tiny.yaml train.out=x --device cpu --autotune
no 2 "heads of 144 elements" "$lamella" train tiny.yaml train.out=x --device cuda model.embed_dim=288 model.num_heads=2
no 2 "intensity is computed on the CPU" "$lamella" embed intensity shards --crop-size 32 --out x.npy --device cuda
no 2 "cpu or cuda\|cpu|cuda" "$lamella" train tiny.yaml train.out=x --device gpu
if [ -z "$emulated" ]; then
  echo "ok: errors say what to do (those that a GPU does not make: skipped)"
  exit 0
fi
no 1 "no GPU can be used here" env LAMELLA_EMULATION_LACKS=device "$lamella" train tiny.yaml train.out=x --device cuda
no 1 "no NVIDIA driver" env LAMELLA_EMULATION_LACKS=any_driver "$lamella" train tiny.yaml train.out=x --device cuda
no 1 "the driver knows CUDA 11.4, this build needs" env LAMELLA_EMULATION_LACKS=driver "$lamella" train tiny.yaml train.out=x --device cuda
no 1 "has no kernels for" env LAMELLA_EMULATION_LACKS=kernels "$lamella" train tiny.yaml train.out=x --device cuda
no 1 "MiB are asked for" env LAMELLA_EMULATION_MEMORY=1000000 "$lamella" train tiny.yaml train.out=x --device cuda
no 1 "batches of .* MiB: a smaller batch (train.global_batch.*pinned" env LAMELLA_EMULATION_PINNED=100000 "$lamella" train tiny.yaml \
  train.out=x --device cuda
no 1 "train.micro_batch.*needs less.*pinned" env LAMELLA_EMULATION_PINNED=300000 "$lamella" train tiny.yaml train.out=x \
  --device cuda
no 1 "train.micro_batch=[1-9][0-9]* fits" env LAMELLA_EMULATION_MEMORY=37000000 "$lamella" train tiny.yaml train.out=x \
  --device cuda train.global_batch=64
LAMELLA_EMULATION_MEMORY=37000000 train fits cuda train.global_batch=64 train.steps=1 \
  "$(sed -nE 's/.*(train.micro_batch=[0-9]+) fits.*/\1/p' err)" || fail "the batch that is said to fit does not"
env LAMELLA_EMULATION_LACKS=device "$lamella" train tiny.yaml train.steps=1 train.out=fell 2> err
grep -q "computing on the CPU" err || { cat err; fail "the choice of the CPU is not said"; }
echo "ok: errors say what to do"
