#!/usr/bin/env bash
# Checkpoints that are damaged, taken back or pruned: a good one is always left, and `latest` names it.
# Usage: checkpoints.sh LAMELLA
. "$(dirname "$(realpath "$0")")/common.sh" "$1"
"$lamella" train tiny.yaml train.out=run --quiet # leaves 28, 35, 40
train() { "$lamella" train tiny.yaml train.out=r --resume "$@" 2> log; }
again() { rm -rf r; cp -r run r; }
damage() { printf X | dd of="r/checkpoints/step_000000$1/$2" bs=1 seek="$3" conv=notrunc status=none; }
left() { # expected steps, what
  local got; got=$(cd r/checkpoints && echo step_* | sed 's/step_0*//g')
  [ "$got" = "$1" ] || fail "$2: left '$got', expected '$1'"
  [ -d "r/checkpoints/$(cat r/checkpoints/latest)" ] || fail "$2: latest names $(cat r/checkpoints/latest), which is gone"
  "$lamella" embed r shards --out r/x.h5ad --force --quiet 2> warnings || fail "$2: the run cannot be embedded"
  [ ! -s warnings ] || fail "$2: $(cat warnings)"
  echo "ok: $2"
}

# The newest is damaged, and the run is not to reach it again: it neither counts as kept nor stays.
again; damage 40 model.safetensors 3000
train train.keep_last=1 train.checkpoint_every=1 train.steps=39; left 39 "a damaged newest checkpoint, one kept"
again; damage 40 model.safetensors 3000
train train.keep_last=2 train.checkpoint_every=1 train.steps=39; left "38 39" "a damaged newest checkpoint, two kept"
# Taken back by hand: what was newer does not count either, and the run comes out the same.
again; echo step_00000028 > r/checkpoints/latest
train train.keep_last=1 train.checkpoint_every=1 train.steps=30; left 30 "a run taken back to step 28, one kept"
again; echo step_00000028 > r/checkpoints/latest
train; left "28 35 40" "a run taken back to step 28"
same_run run r "the same run again from step 28"

# state.json: whatever is changed in it, the older checkpoint is taken and the run comes out the same.
damaged_state() { # expression for sed, pattern of the warning
  local file=r/checkpoints/step_00000040/state.json
  again; sed -i "$1" $file
  train --quiet; grep -qE "passed over: .*step_00000040/state.json.*$2" log || fail "state.json, $1: $(cat log)"
  same_run run r "state.json, $1"
}
damaged_state 's/"updates": 40/"updates": 0/' 'checksum'
damaged_state 's/"metrics_bytes": [0-9]*/"metrics_bytes": 5/' 'checksum'
damaged_state '/xxh64/d; s/\("optimizer.safetensors".*\),/\1/' 'checksum'
again; cp -r r/checkpoints/step_00000040 r/checkpoints/step_00000041; echo step_00000041 > r/checkpoints/latest
train --quiet; grep -q 'passed over: .*step_00000041.*folder' log || fail "a renamed checkpoint: $(cat log)"
same_run run r "a renamed checkpoint"

# One training a folder: the second is refused before it touches anything; kill -9 leaves no lock behind.
again; echo step_00000028 > r/checkpoints/latest
LAMELLA_CHECKPOINT_DELAY_MS=600000 "$lamella" train tiny.yaml train.out=r --resume --quiet 2> none & pid=$!
# From its model.safetensors on the checkpoint rests, and no file of the folder changes.
while [ -z "$(find r/checkpoints -path '*.partial/model.safetensors')" ]; do kill -0 $pid || fail "the slow training ended"; sleep 0.02; done
find r -type f ! -name lock -exec cksum {} + | sort > before
for option in --resume --force; do
  code=0; "$lamella" train tiny.yaml train.out=r $option --quiet 2> log || code=$?
  [ "$code" = 1 ] && [ "$(wc -l < log)" = 1 ] && grep -q "r/lock: held by process .*another folder" log ||
    fail "a second training with $option: $code, $(cat log)"
done
find r -type f ! -name lock -exec cksum {} + | sort | cmp - before || fail "a refused training changed files"
kill -9 $pid; wait $pid 2> none || true
train; same_run run r "refused beside another training, and resumed after kill -9"

# A stop that comes before the first step: 75, and the run folder is as it was. Before the program itself runs (its libraries are
# being loaded) a signal ends it, with as little lost; from when it holds signals on, there is no other end than 75.
holds_term() { # process
  [ "$(readlink "/proc/$1/exe")" = "$lamella" ] && [ $((0x$(sed -n 's/^SigBlk:[[:space:]]*//p' "/proc/$1/status") >> 14 & 1)) = 1 ]
}
stopped_early() { # code expected, a pattern; seconds to wait; `held`: from when signals are held on
  local code=0 pid
  "$lamella" train tiny.yaml train.out=early train.steps=1000000 --quiet 2> log & pid=$!
  if [ "${3:-}" = held ]; then while ! holds_term $pid 2> none; do kill -0 $pid || fail "TERM: the run ended by itself"; sleep 0.002; done; fi
  sleep "$2"; kill -TERM $pid; wait $pid || code=$?
  [[ "$code" =~ ^($1)$ ]] || fail "TERM after $2 s ${3:-}: $code, $(cat log)"
  begun=0; if [ -e early/checkpoints/latest ]; then begun=1; rm -r early; fi # a fast machine, or a signal that came late
  [ ! -e early ] || fail "TERM after $2 s ${3:-}: a run folder without a checkpoint is left"
}
for wait in 0.005 0.01 0.02 0.04 0.08; do stopped_early '75|143' $wait; done
early=0
for wait in 0 0.01 0.02 0.04 0.08; do
  stopped_early 75 $wait held
  [ $begun = 1 ] || early=$((early + 1))
done
for _ in $(seq 20); do # all came late, on a busy machine
  [ $early = 0 ] || break
  stopped_early 75 0 held
  [ $begun = 1 ] || early=1
done
[ $early -gt 0 ] || fail "TERM never came before the first step"
echo "ok: TERM at the start"
