#!/usr/bin/env bash
# bench step and bench attention on a device (the emulated one, where LAMELLA_CUDA_MODULE names none) and on paper (--estimate).
# Usage: bench_cuda.sh LAMELLA
. "$(dirname "$(realpath "$0")")/common.sh" "$1"
module=${LAMELLA_CUDA_MODULE:-$(dirname "$lamella")/liblamella_cuda_emulated.so}
unset LAMELLA_CUDA_MODULE
[ -e "$module" ] || fail "there is no $module"
on_device() { LAMELLA_CUDA_MODULE=$module "$lamella" "$@" --device cuda; }
number() { sed -nE "s/.*\"$1\": ?(-?[0-9][0-9.e+-]*).*/\1/p" "$2"; } # KEY FILE: of a record in one line
holds() { awk "BEGIN { exit !($1) }" || fail "$2: $1"; }

# ---- a step ----
small=(--model t32 --batch 2 --precision bf16 --steps 1)
on_device bench step "${small[@]}" --save step.json > text
grep -q '^step of t32, batch 2, bf16, .*: [0-9.]* crops/s .* GFLOP/s$' text || fail "no line of the step: $(head -1 text)"
grep -q '^limits: not known of this GPU$' text || fail "limits of a GPU that nobody knows: $(grep limits text)"
grep -qE '^attention +backward +19 .* -$' text || fail "no row of attention"
grep -qE '^optimizer +update +1 +[0-9.]*[1-9]' text || fail "no time of the update: $(grep optimizer text)"
for key in '"device": "cuda"' '"gpu": "' '"library": "cuBLASLt ' '"memory_MiB"' '"packed"' '"first_step_s"' '"operations"'; do
  grep -q "$key" step.json || fail "no $key in the record"
done
if grep -q 'share_of_limit' step.json; then fail "a share of a limit that is not known"; fi

# ---- attention ----
for precision in f32 bf16; do
  on_device bench attention --batch 1 --tokens 65 --heads 2 --head-dim 32 --seconds 0 --precision "$precision" --json > lines
  [ "$(grep -c '"bench":"attention","pass":"\(forward\|backward\)",.*"device":"cuda","gpu":"' lines)" = 2 ] ||
    fail "two records in: $(cat lines)"
  sed -n 2p lines > line
  holds "$(number seconds line) > 0 && $(number gflops_per_s line) > 0" "backward, $precision"
done
on_device bench attention --batch 1 --tokens 5 --heads 1 --head-dim 8 --seconds 0 > text
[ "$(grep -cE '^(forward|backward) .* GFLOP/s \(.*\)$' text)" = 2 ] || fail "two lines in: $(cat text)"

# ---- on paper ----
refused() { # words, command...
  local words=$1 code=0; shift
  "$lamella" "$@" > out 2> err || code=$?
  [ "$code" = 2 ] && grep -q -- "$words" err || { cat out err; fail "exit $code: $*"; }
}
refused '--gpu says whose limits' bench step --gpu H100
refused '--gpu says whose limits' bench attention --gpu H100 --seconds 0
refused 'leave out --device cpu' bench step --estimate --device cpu
refused 'nothing to --autotune by' bench step --estimate --autotune
refused '144: a GPU takes 128 at most' bench attention --head-dim 144 --estimate
code=0; on_device bench attention --batch 1 --tokens 5 --heads 1 --head-dim 144 --seconds 0 > text 2>&1 || code=$?
[ "$code" = 2 ] && grep -q '144: a GPU takes 128 at most' text || fail "head_dim 144 ends with $code: $(cat text)"
"$lamella" bench step --estimate --model l16 --batch 4096 --precision bf16 > text
grep -q 'together 3[0-9]* of 143771: it does not fit' text || fail "a step that does not fit: $(grep memory text)"
estimate() { "$lamella" bench step --device cuda --estimate --json --precision bf16 "$@" > estimate; }
for model in s16 b16 l16 l8; do
  estimate --model "$model" --batch 256
  [ "$(wc -l < estimate)" = 1 ] || fail "one line in: $(cat estimate)"
  for key in bench model batch precision recompute gpu step_ms bound_ms crops_per_s gflops_per_crop kept_share \
    gflops_per_s limit_gflops_per_s share_of_limit products_ms attention_ms other_ms memory_MiB operations; do
    grep -q "\"$key\":" estimate || fail "no $key in: $(cat estimate)"
  done
  holds "0.5 < $(number share_of_limit estimate) && $(number share_of_limit estimate) <= 1" "$model"
  holds "$(number bound_ms estimate | head -1) > 0" "$model"
  grep -o '{"op":[^}]*}' estimate > operations
  sed -E 's/.*"op":"([^"]*)","pass":"([^"]*)","calls":([^,]*),"ms":([^,]*),"bound_ms":([^,]*),"gflop":([^,]*),"gigaexponentials":([^,]*),.*/\1 \2 \3 \4 \5 \6 \7/' operations |
    awk -v step="$(sed -nE 's/.*"step_ms":([^,]*),.*/\1/p' estimate)" '
      { ms += $4; if ($5 > $4 || $4 <= 0) { print "worse than its limit: " $0; exit 1 } }
      $7 > 0 && $1 !~ /attention/ { print "exponentials of " $0; exit 1 }
      END { if (!(ms / step > .999 && ms / step < 1.001)) { print "operations take " ms " of " step; exit 1 } }' > why ||
    fail "$model: $(cat why)"
done
# L/16: 24 blocks of 65 tokens and 7 of 257, 16 heads, 256 samples; each score once.
estimate --model l16 --batch 256
cp estimate l16
exponentials=$(grep -o '{"op":"attention","pass":"forward"[^}]*}' l16 | sed -E 's/.*"gigaexponentials":([^,]*),.*/\1/')
holds "$exponentials * 1e9 == 256 * 16 * (24 * 65 * 65 + 7 * 257 * 257)" "exponentials of L/16"
of() { sed -E "s/.*\"$1\":([0-9.e+]+).*/\1/" "$2"; }
estimate --model l16 --batch 256 --recompute norm_gelu
holds "$(of arena estimate) < .7 * $(of arena l16) && $(of weights estimate) == $(of weights l16)" "memory with norm_gelu"
holds "$(of crops_per_s estimate) < $(of crops_per_s l16)" "speed with norm_gelu"
estimate --model l16 --batch 32
holds "$(of share_of_limit estimate) < $(of share_of_limit l16)" "a small batch"
estimate --model l16 --batch 256 --gpu H100
holds "$(of crops_per_s estimate) < $(of crops_per_s l16)" "less memory bandwidth"
"$lamella" bench step --model l16 --batch 256 --precision bf16 --estimate > text
grep -q '^step of l16, batch 256, bf16, on paper for one H200: [0-9]* crops/s' text || fail "no line: $(head -1 text)"
! grep -q '^prepare ' text || fail "weights are rounded twice: by the update, and before the forward pass"
gigabytes() { awk '$1 == "optimizer" { print $NF }' "$1"; }
"$lamella" bench step --model p-l16 --batch 256 --precision bf16 --estimate > scaled
grep -qE '^prepare +forward ' scaled || fail "no row of the weights that are scaled"
"$lamella" bench step --model l16 --batch 256 --precision f32 --estimate > wide
holds "$(gigabytes text) > 1.05 * $(gigabytes wide) && $(gigabytes text) < 1.1 * $(gigabytes wide)" "copies of the weights in bfloat16"

for tokens in 65 257 1025; do
  "$lamella" bench attention --batch 256 --tokens "$tokens" --precision bf16 --estimate --json > lines
  [ "$(grep -c '"bench":"attention_estimate"' lines)" = 2 ] || fail "two records in: $(cat lines)"
  while read -r line; do
    echo "$line" > line
    holds "$(of bound_ms line) < $(of ms line) && $(of gflops_per_s line) < 527e3" "attention, $tokens tokens"
    holds "$(of gigaexponentials line) * 1e9 == 256 * 16 * $tokens * $tokens" "exponentials of $tokens tokens"
  done < lines
done

# ---- errors ----
no() { # status, words, command...
  local expected=$1 words=$2 got=0; shift 2
  "$@" > out 2> err || got=$?
  [ "$got" = "$expected" ] && [ "$(wc -l < err)" = 1 ] && grep -qF -- "$words" err || fail "exit $got, $(cat err): $*"
}
no 1 'there is no /nowhere.so' env LAMELLA_CUDA_MODULE=/nowhere.so "$lamella" bench step "${small[@]}" --device cuda
no 1 'there is no /nowhere.so' env LAMELLA_CUDA_MODULE=/nowhere.so "$lamella" bench attention --device cuda
no 2 'cpu|cuda' "$lamella" bench step "${small[@]}" --device gpu
no 2 'H100|H200' "$lamella" bench step "${small[@]}" --estimate --gpu T4
no 2 '--estimate measures nothing' "$lamella" bench step "${small[@]}" --estimate --save new.json
no 2 'of device cuda (here cpu)' "$lamella" bench step "${small[@]}" --device cpu --against step.json
if [[ $module = *emulated* || $module = *checked* ]]; then
  no 1 'no GPU can be used here' env LAMELLA_EMULATION_LACKS=device LAMELLA_CUDA_MODULE="$module" "$lamella" bench step "${small[@]}" --device cuda
  no 1 'MiB are asked for' env LAMELLA_EMULATION_MEMORY=1000000 LAMELLA_CUDA_MODULE="$module" "$lamella" bench step "${small[@]}" --device cuda
fi
echo ok
