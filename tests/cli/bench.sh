#!/usr/bin/env bash
# bench step saves a result, compares itself with one, and refuses what cannot be compared; bench scaling draws its page.
# Usage: bench.sh LAMELLA
. "$(dirname "$(realpath "$0")")/common.sh" "$1"

small=(--model t32 --batch 1 --steps 1 --limit-seconds 0.01)
"$lamella" bench step "${small[@]}" --save before.json > text
grep -q '^step of t32, batch 1, f32, cpu ' text || fail "no line of the step"
grep -q '^limits: products .* GFLOP/s, fastest .*; memory .* GB/s$' text || fail "no line of the limits"
grep -q '^linear  *backward ' text || fail "no table of operations"
grep -q '^% of limit: .*above 100: ' text || fail "what is above 100 % is not explained"
grep -q '"bench": "step"' before.json || fail "nothing saved"
grep -q before text && fail "compared with nothing"

"$lamella" bench step "${small[@]}" --recompute block --save block.json > text
# Of another library, without the operation that is computed again.
tr -d '\n' < block.json | sed -E 's/"library": *"/&another /; s/\{[^{}]*"pass": *"again"[^{}]*\}, *//g' > before.block.json
"$lamella" bench step "${small[@]}" --against before.block.json --recompute block > text
grep -q '^step, ms ' text || fail "no row of the step"
grep -q '^linear  *backward  *[0-9.]*  *[0-9.]*  *[0-9.]*$' text || fail "no row of an operation"
grep -q '^linear_add  *again  *-  *[0-9.]*  *-$' text || fail "no row of what is new"
grep -q '^differs: library$' text || fail "the difference is not said"
"$lamella" bench step "${small[@]}" --against before.json --json > json
[ "$(wc -l < json)" = 1 ] && grep -q '"comparison":' json || fail "no comparison in JSON"

# ERROR: what standard error says, and that nothing is measured.
refused() {
  local text=$1; shift
  if "$lamella" bench step "$@" > out 2> err; then fail "$* was accepted"; fi
  [ "$(wc -l < err)" = 1 ] && grep -qF -- "$text" err || fail "$*: $(cat err)"
  [ ! -s out ] || fail "$* printed a result"
}
refused 'before.json is of model t32 (here t16): only the same can be compared' --model t16 --batch 1 --against before.json
refused 'of batch 1 (here 2):' --model t32 --batch 2 --against before.json
refused 'of precision f32 (here bf16):' "${small[@]}" --precision bf16 --against before.json
refused 'of recompute none (here block), drop_path 0 (here 0.5):' "${small[@]}" --recompute block --drop-path 0.5 --against before.json
refused "(here $(($(nproc) + 1))):" "${small[@]}" --threads $(($(nproc) + 1)) --against before.json
echo '[]' > other.json
refused 'other.json: no result of bench step' "${small[@]}" --against other.json
tr -d '\n' < before.json | sed -E 's/"operations": *\[[^]]*\]/"operations": []/' > other.json
refused 'other.json: no result of bench step' "${small[@]}" --against other.json
echo '{}' > other.json
refused 'other.json: no result of bench step' "${small[@]}" --against other.json
refused 'absent.json' "${small[@]}" --against absent.json
refused '--force' "${small[@]}" --save before.json
refused "there is no model 's12'" --model s12

"$lamella" bench scaling --models t32 s32 --batch 1 --steps 1 --limit-seconds 0.01 --out scaling --quiet
grep -q 't, measured' scaling/scaling.html || fail "no curve"
grep -q '^s32,64,384,' scaling/scaling_data/*steps.csv || fail "no numbers"
[ "$(grep -c '"model"' scaling/scaling.json)" = 2 ] || fail "scaling.json holds not two results"
if "$lamella" bench scaling --models t32 --out scaling --quiet 2> err; then fail "overwrote scaling"; fi
grep -q -- '--force' err || fail "no word of --force: $(cat err)"
if "$lamella" bench scaling --models s12 --out failed --quiet 2> err; then fail "there is no s12"; fi
[ ! -e failed ] || fail "a failed bench scaling leaves a folder"
if "$lamella" bench scaling --models s12 --out err/failed --quiet 2> other; then fail "wrote below a file"; fi
grep -q 'cannot be written' other || fail "measured before it knew where to write: $(cat other)"
echo ok
