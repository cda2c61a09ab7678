#!/usr/bin/env bash
# Same seed twice, stop by signal and resume, a signal into a checkpoint, kill -9 at random moments: the same bytes.
# Usage: resume.sh LAMELLA [KILLS [MILLISECONDS a slow checkpoint takes]]
. "$(dirname "$(realpath "$0")")/common.sh" "$1"
kills=${2:-5} slow=${3:-300}

"$lamella" train tiny.yaml train.out=whole --quiet
"$lamella" train tiny.yaml train.out=again --quiet
same_run whole again "the same seed twice"

steps_logged() { local lines; lines=$(grep -c '"loss"' "$1/metrics.jsonl" 2> none) || true; echo "${lines:-0}"; }

# USR1 once some steps are done; resumed as often as needed. A checkpoint that takes long gets a signal too.
# A fast machine may end the run before the signal comes: then the whole is begun again.
interrupted() { # run, delay of a checkpoint, launcher...
  for _ in $(seq 20); do
    rm -rf "$1"
    if stopped_by_signal "$@"; then return; fi
  done
  fail "$1 was never stopped"
}
stopped_by_signal() { # run, delay of a checkpoint, launcher...
  local run=$1 delay=$2 code=75 stops=0 logged; shift 2
  while [ "$code" = 75 ]; do
    code=0
    logged=$(steps_logged "$run") # a signal before the first new step could meet a process that has not begun
    LAMELLA_CHECKPOINT_DELAY_MS=$delay "$@" "$lamella" train tiny.yaml "train.out=$run" --resume --quiet & local pid=$!
    for _ in $(seq 12000); do kill -0 $pid 2> none || break
      sleep "0.00$((RANDOM % 9 + 1))"
      if [ "$(steps_logged "$run")" -gt $((logged + RANDOM % 8)) ]; then break; fi
    done
    [ $stops -lt 3 ] && kill -USR1 $pid 2> none || true
    wait $pid || code=$?
    [ "$code" = 75 ] && stops=$((stops + 1))
  done
  [ "$code" = 0 ] || fail "$run ended with $code"
  [ $stops -gt 0 ]
}
interrupted stopped 0 env
same_run whole stopped "USR1 and resume"
interrupted slow "$slow" env
same_run whole slow "USR1 into a slow checkpoint"

mpi 2 "$lamella" train tiny.yaml train.out=two --quiet
interrupted two_stopped "$slow" mpirun --allow-run-as-root --oversubscribe --bind-to none -n 2
same_run two two_stopped "USR1 and resume with 2 ranks"

# A step of many micro-batches that takes a second or more is given up within, on all ranks, and done anew on resume. A signal
# that met no such step (it came between two of them, while a checkpoint was written, or after the end) counts for nothing: the
# run is put back as it was, and another one comes at another moment.
long="model.embed_dim=128 model.depth=6 train.steps=4 data.crops_per_image=75 train.global_batch=1500 train.micro_batch=10 train.checkpoint_every=2"
given_up() { # ranks, step after which it is given up, launcher...
  local n=$1 after=$2 run=given_up$1 code pid try; shift 2
  rm -rf before; if [ -d "$run" ]; then cp -r "$run" before; fi
  for try in $(seq 20); do
    code=0; "$@" "$lamella" train tiny.yaml $long train.out="$run" --resume 2> log & pid=$!
    while [ "$(steps_logged "$run")" -lt "$after" ] && kill -0 $pid 2> none; do sleep 0.02; done
    sleep "0.$((try == 1 ? 15 : RANDOM % 90 + 10))"
    kill -USR1 $pid 2> none || true
    wait $pid || code=$?
    if [ "$code" = 75 ] && grep -q "stopped after step $after of 4, within the next one" log; then return; fi
    [ "$code" = 0 ] || { [ "$code" = 75 ] && grep -q "stopped after step" log; } || { cat log; fail "USR1 within a step, $n ranks: $code"; }
    rm -rf "$run"; if [ -d before ]; then cp -r before "$run"; fi
  done
  cat log; fail "USR1 within a step, $n ranks: no signal met step $((after + 1))"
}
for n in 1 2; do
  launcher=env; [ $n = 1 ] || launcher="mpirun --allow-run-as-root --oversubscribe --bind-to none -n $n"
  $launcher "$lamella" train tiny.yaml $long train.out=long$n --quiet
  for after in 1 2; do # a step without a checkpoint, and one that has it
    given_up $n $after $launcher
    [ "$(cat given_up$n/checkpoints/latest)" = step_0000000$after ] || fail "USR1 within a step: no checkpoint of step $after"
  done
  $launcher "$lamella" train tiny.yaml $long train.out=given_up$n --resume --quiet
  for file in model optimizer; do
    cmp {long,given_up}$n/checkpoints/step_00000004/$file.safetensors || fail "USR1 within a step, $n ranks: $file differs"
  done
  diff <(deterministic long$n) <(deterministic given_up$n) || fail "USR1 within a step, $n ranks: metrics differ"
done
echo "ok: USR1 within a step"

# Crashes: the run goes on from the last whole checkpoint. The first kill may come before the run has a folder, on a
# busy machine; the others wait for it, so that they meet the steps and the checkpoints.
for k in $(seq "$kills"); do
  LAMELLA_CHECKPOINT_DELAY_MS=50 "$lamella" train tiny.yaml train.out=killed --resume --quiet & pid=$!
  while [ "$k" -gt 1 ] && [ ! -d killed/checkpoints ] && kill -0 $pid 2> none; do sleep 0.01; done
  sleep "0.$((RANDOM % 5))$((RANDOM % 10))"
  kill -9 $pid 2> none || true
  wait $pid 2> none || true
done
[ -d killed/checkpoints ] || fail "no kill met a run that had begun"
touch killed/config.yaml.partial-1 killed/checkpoints/latest.partial-1 # as a kill at the worst moments leaves them
"$lamella" train tiny.yaml train.out=killed --resume --quiet
same_run whole killed "$kills x kill -9"
[ -z "$(find killed -name '*.partial*')" ] || fail "partial checkpoints are left"

# A damaged newest checkpoint is passed over, with a warning, and the run ends the same.
printf 'x' | dd of=killed/checkpoints/step_00000040/model.safetensors bs=1 seek=9000 conv=notrunc status=none
"$lamella" train tiny.yaml train.out=killed --resume 2> log
grep -q 'passed over' log || fail "no warning about a damaged checkpoint"
same_run whole killed "a damaged newest checkpoint"

# What differs is named; --strict-resume refuses.
cp -r whole other; rm -r other/checkpoints/step_00000040; echo step_00000035 > other/checkpoints/latest
code=0; "$lamella" train tiny.yaml train.out=other --strict-resume --threads 2 2> log || code=$?
[ "$code" = 2 ] && grep -q 'threads: was 1, now 2' log || fail "--strict-resume took another thread count"
code=0; LAMELLA_ISA=baseline "$lamella" train tiny.yaml train.out=other --strict-resume 2> log || code=$?
[ "$code" = 2 ] && grep -q 'instruction set: was .*, now baseline' log || { cat log; fail "--strict-resume took another instruction set"; }
code=0; "$lamella" train tiny.yaml train.out=other model.embed_dim=48 --resume 2> log || code=$?
[ "$code" = 2 ] && grep -q 'another shape.*model.embed_dim: was 32, now 48' log || { cat log; fail "another model.embed_dim was not named"; }
cp whole/config.yaml before.yaml
"$lamella" train tiny.yaml train.out=whole optim.lr=2e-3 --resume --quiet 2> log || { cat log; fail "a complete run does not resume"; }
cmp before.yaml whole/config.yaml || fail "a complete run took other settings into its config.yaml"
grep -q '"gemm": "oneDNN [0-9]' other/checkpoints/step_00000035/state.json || fail "state.json does not name oneDNN's version"
code=0; "$lamella" train tiny.yaml train.out=whole 2> log || code=$?
[ "$code" = 2 ] && grep -q -- '--resume' log && ! grep -q memory log || fail "an existing run was not refused"
echo "ok: refusals"

# Keys that change no weight are no difference, and change none; the others are named as they are given.
cp -r shards elsewhere; mv other moved
"$lamella" train tiny.yaml train.out=moved data.path=elsewhere data.threads=2 train.checkpoint_every=2 train.keep_last=1 \
  train.keep_every=9 train.validate_every=3 train.pictures_every=2 --strict-resume --quiet 2> log || { cat log; fail "--strict-resume refused"; }
[ ! -s log ] || fail "keys that change no weight: $(cat log)"
for file in model optimizer; do
  cmp <(tail -c 100000 whole/checkpoints/step_00000040/$file.safetensors) \
    <(tail -c 100000 moved/checkpoints/step_00000040/$file.safetensors) || fail "keys that change no weight: $file differs"
done
code=0; "$lamella" train tiny.yaml train.out=moved train.steps=50 --strict-resume 2> log || code=$?
[ "$code" = 2 ] && grep -q '(train.steps: was 40, now 50)' log || { cat log; fail "train.steps is not named"; }
# A run that is complete does no step that could differ.
"$lamella" train tiny.yaml train.out=moved optim.lr=0.1 --resume 2> log
grep -q 'the run is complete at step 40' log && ! grep -q bit-exact log || { cat log; fail "a difference of a complete run"; }
echo "ok: what is a difference"
