#!/usr/bin/env bash
# tests/gpu/run.sh from end to end on the emulated device with stand-ins for what a GPU machine has, so that it works on the day
# when there is one: every part runs, every row of the table is filled, failures and lack of time are told.
# Usage: rehearsal.sh LAMELLA
run=$(dirname "$(realpath "$0")")/run.sh
. "$(dirname "$run")/../cli/common.sh" "$1"
build=$(dirname "$lamella")
run_in() { local to=$1; shift; mkdir -p "$to"; bash "$run" --rehearse --out "$to" "$@" > "$to/said" 2> "$to/told"; }

run_in all --build "$build" || { cat all/said all/told; fail "the rehearsal failed"; }
for line in '^REHEARSAL' '^gpu  *emulated device$' '^cuda  *emulated device, CUDA ' '^library  *cuBLASLt [0-9]' '^pytorch  *pytorch 0.0$' \
  '^tests  *passed: 2 of 2 programs ' '^training  *passed: [0-9]* checks ' \
  '^sanitizer  *passed: initcheck ops, initcheck training, memcheck ops, .*synccheck training ' \
  '^peer  *passed: 4 of 4 settings, 1 of 1 shapes of attention ' \
  '^T/32, batch 1  *crops/s  *[0-9.]*[1-9][0-9.]*  *[0-9]*  *0 %  *>= [0-9]*, 1.5 x  *no  *[0-9]*  *1.7  *[0-9.]*  *1000  *100  *default, sdpa' \
  '^T/32, 1: neither product nor attention  *% of the step  *[0-9.]*[1-9][0-9.]*  *[0-9.]*  *[0-9]* %' \
  '^T/32, 1: first step after the start  *s  *[0-9.]*[1-9]' \
  '^attention, 9 tokens x 32, forward  *TFLOP/s  *[0-9.e-]*[1-9][0-9.e-]*  *[0-9.]*  *[0-9]* %  .*cudnn$' \
  '^attention, 9 tokens x 32, both  *TFLOP/s  *[0-9.e-]*[1-9][0-9.e-]*  *[0-9.]*  *[0-9]* %  *1.6 x  *no ' \
  '^T/32: largest batch, norm_gelu  *crops  *[1-9][0-9]*  *[1-9][0-9]*  .*1.5 x  *no  *-  *6  .*MiB a crop$'; do
  grep -q "$line" all/table.txt || { cat all/table.txt all/told; fail "no line '$line'"; }
done
cmp -s <(grep -v '^$' all/said) <(grep -v '^$' all/table.txt) || fail "table.txt is not what was said"
# What is no JSON would be told so.
"$lamella" bench step --against all/results.json 2> err && fail "results.json was taken for a result"
grep -q 'no result of bench step' err || { cat err; fail "results.json"; }
tar -tzf all/logs.tar.gz > names # whole: a reader that ends early would end tar with an error
grep -q training.log names || fail "no log of the training"
bash "$run" --table all/results.tsv > again || fail "--table"
cmp -s again all/table.txt || fail "the table of a saved run differs"

run_in late --build "$build" --minutes 0 || fail "lack of time is no failure"
[ "$(grep -c 'left out: 0 s are left, [0-9]* are needed' late/table.txt)" = 7 ] || { cat late/table.txt; fail "seven parts left out"; }

# An archive of --pack, on a machine without the program that tar unpacks it with; in it a test that fails.
mkdir broken bin
for name in lamella test_model_loss liblamella_cuda_emulated.so; do ln -s "$build/$name" broken; done
printf '#!/bin/sh\nexit 3\n' > broken/test_model_pixels
chmod +x broken/test_model_pixels
code=0; bash "$run" --rehearse --build broken --pack carried.tar.zst > told 2>&1 || code=$?
[ "$code" = 2 ] && grep -q 'carried.tar.zst: an archive that every machine opens' told || { cat told; fail "an archive that wants zstd: exit $code"; }
bash "$run" --rehearse --build broken --pack carried.tar.gz > told 2>&1 || { cat told; fail "--pack"; }
if command -v python3 > /dev/null; then # which opens it where tar cannot
  printf '#!/bin/sh\n[ "$1" = -d ] && exit 1\nexec %s "$@"\n' "$(command -v gzip)" > bin/gzip
  chmod +x bin/gzip
fi
code=0; PATH=$PWD/bin:$PATH run_in carried --build carried.tar.gz --only tests,attention || code=$?
[ "$code" = 1 ] || { cat carried/said carried/told; fail "an archive with a failing test ends with $code"; }
for line in '^tests  *FAILED: 1 of 2 programs, test_model_pixels exit 3 ' \
  '^attention, 9 tokens x 32, forward  *TFLOP/s  *[0-9.e-]*[1-9]'; do
  grep -q "$line" carried/table.txt || { cat carried/table.txt carried/told; fail "no line '$line' of an archive"; }
done

# A library that is not there.
rm broken/liblamella_cuda_emulated.so
code=0; run_in lacking --build broken --only tests || code=$?
[ "$code" = 2 ] && grep -q 'there is no .*liblamella_cuda_emulated.so' lacking/told || { cat lacking/told; fail "no module: exit $code"; }
echo ok
