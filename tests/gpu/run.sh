#!/usr/bin/env bash
# Everything that a machine with an NVIDIA GPU can say of this code, in under nine minutes: tests against the CPU, training,
# compute-sanitizer, then the figures of tests/bench/SPEED.md beside their paper estimate and PyTorch. Prints one table last.
#
#   run.sh [--build FOLDER|ARCHIVE] [--out FOLDER] [--minutes N] [--only PART,...] [--rehearse]      (N: 9)
#   run.sh --pack ARCHIVE [--build FOLDER]      what to carry to a machine with a driver and nothing else of ours: FILE.tar.gz, FILE.tar.xz
#   run.sh --table FILE.tsv...                  the table of several runs' results.tsv; of two figures the last counts
#
# --build    where lamella, liblamella_cuda.so and the test programs are, or an archive of --pack; default build/. What is
#            missing there is built
# --out      default $OUT, else runs/gpu: table.txt, results.tsv, results.json, logs.tar.gz
# --only     of tests, training, sanitizer, steps, attention, memory, peer
# --rehearse tiny sizes on the emulated device (LAMELLA_CUDA_MODULE, else that of the build), stand-ins for nvidia-smi,
#            compute-sanitizer and PyTorch: whether the script works, no figure
#
# PYTHON names a Python with torch and CUDA (default python3). What would not fit into the time is left out and said to be. Nothing
# of the card's settings is touched. Exit code 1 where a test, the training or the sanitizer failed.
set -uo pipefail
root=$(realpath "$(dirname "$0")/../..")
build=$root/build out=${OUT:-$root/runs/gpu} minutes=9 only= rehearse= pack= tables=()
parts="tests training sanitizer steps attention memory peer"
usage() { sed -n '5,20s/^# \{0,1\}//p' "$0"; exit "$1"; }
die() { echo "run: $*" >&2; exit 2; }
while [ $# -gt 0 ]; do
  case $1 in --build | --out | --minutes | --only | --pack | --table) [ $# -gt 1 ] || die "$1 wants a value (--help)" ;; esac
  case $1 in
    --build) build=$2; shift ;; --out) out=$2; shift ;; --minutes) minutes=$2; shift ;; --only) only=$2; shift ;;
    --pack) pack=$2; shift ;; --rehearse) rehearse=1 ;; --table) shift; tables=("$@"); break ;; --help | -h) usage 0 ;; *) usage 2 >&2 ;;
  esac
  shift
done
[[ $minutes =~ ^[0-9]+$ ]] || die "--minutes $minutes: a whole number is wanted"
for one in ${only//,/ }; do
  [[ " $parts " = *" $one "* ]] || die "--only $one: the parts are $parts"
done

# ---- the table ----

print_table() { awk -v json="$1" -f "$root/tests/gpu/table.awk" "${@:2}"; } # FILE.json results.tsv...
if [ ${#tables[@]} -gt 0 ]; then print_table /dev/null "${tables[@]}"; exit; fi

# ---- what to carry ----

# Programs of the tests that choose their device (tests/unit/device.h); of an archive all that it has.
programs() {
  if [ -f "$build/commit" ]; then
    find "$build" -name 'test_*' -printf '%f\n'
  elif [ -n "$rehearse" ]; then
    printf '%s\n' test_model_loss test_model_pixels
  else
    grep -lE '(device|[a-z]+_check)\.h"' "$root"/tests/unit/model_*.c | sed 's,.*/,test_,; s,\.c$,,'
  fi
}

# With every library that they are linked with but the C library's own.
pack_build() {
  local folder program module=liblamella_cuda.so
  [ -z "$rehearse" ] || module=liblamella_cuda_emulated.so
  folder=$(mktemp -d) || exit 1
  mkdir "$folder/lib"
  for program in lamella "$module" $(programs); do
    cp "$build/$program" "$folder" 2> /dev/null || {
      rm -r "$folder"
      die "$build has no $program: cmake --preset release -DBUILD_TESTING=ON && cmake --build --preset release --target lamella device_tests"
    }
  done
  ldd "$folder"/lamella "$folder"/test_* | awk '$3 ~ /^\// && $1 !~ /^(ld-linux|lib(c|m|dl|rt|pthread|resolv|util|nsl|anl))[-.]/ { print $3 }' |
    sort -u | xargs cp -Lt "$folder/lib"
  git -C "$root" describe --always --dirty > "$folder/commit" 2> /dev/null || echo unknown > "$folder/commit"
  strip --strip-unneeded "$folder"/lamella "$folder"/test_* "$folder"/lib/* 2> /dev/null # symbols that the module takes stay
  tar -caf "$pack" -C "$folder" . && du -h "$pack"
  rm -r "$folder"
}
if [ -n "$pack" ]; then
  case $pack in
    *.tar.gz | *.tgz | *.tar.xz) pack_build; exit ;;
    *) die "$pack: an archive that every machine opens is .tar.gz, or .tar.xz, which is smaller" ;;
  esac
fi

# ---- where things are ----

work=$(mktemp -d) || exit 1
logs=$work/logs
mkdir -p "$logs" "$out" || die "$out cannot be written"
results=$out/results.tsv
: > "$results"
begin=$SECONDS
sampler=
finish() {
  [ -n "$sampler" ] && kill "$sampler" 2> /dev/null
  rm -rf "$work"
}
trap finish EXIT
put() { printf '%s\t%s\t%s\n' "$1" "$2" "$3" >> "$results"; } # row, key, value
say() { echo "run: $* ($((SECONDS - begin)) s)" >&2; }
# The first value of a key in a file of JSON.
value() { grep -oE "\"$1\": ?(\"[^\"]*\"|-?[0-9][-0-9.e+]*)" "$2" | head -1 | sed -E 's/^"[^"]*": ?//; s/^"(.*)"$/\1/'; }
calculate() { awk "BEGIN { printf \"%.6g\", ($1) }"; }

# tar calls gzip or xz, which may be absent; Python has both within.
unpack() {
  { tar -xf "$build" -C "$work/build" ||
    "${PYTHON:-python3}" -c 'import sys, tarfile; tarfile.open(sys.argv[1]).extractall(sys.argv[2])' "$build" "$work/build"; } \
    2> "$logs/unpack.log"
}
# Of the GPU at hand, where one is seen; else those that CMakeLists.txt names.
architectures() {
  nvidia-smi --query-gpu=compute_cap --format=csv,noheader 2> /dev/null |
    sed -nE '1 { s/\.//; s/^90$/90a/; s/^[0-9]+a?$/-DLAM_CUDA_ARCHITECTURES=&-real/p }'
}

if [ -f "$build" ]; then
  mkdir "$work/build"
  unpack || die "$build is no archive of --pack: $(tail -1 "$logs/unpack.log")"
  build=$work/build
elif [ -z "$rehearse" ] && ! { cd "$build" && ls lamella liblamella_cuda.so $(programs); } > /dev/null 2>&1; then
  say "building in $build"
  { cmake -S "$root" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_C_FLAGS_RELEASE=-O3 -DLAM_CUDA=ON -DBUILD_TESTING=ON \
    $(architectures) && cmake --build "$build" -j "$(nproc)" --target lamella lamella_cuda $(programs); } \
    > "$logs/build.log" 2>&1 || { tail -20 "$logs/build.log" >&2; die "cannot be built here: carry an archive (--pack)"; }
fi
build=$(realpath "$build")
lamella=$build/lamella
python=${PYTHON:-python3}
if [ -n "$rehearse" ]; then
  export LAMELLA_CUDA_MODULE=${LAMELLA_CUDA_MODULE:-$build/liblamella_cuda_emulated.so}
  PATH=$root/tests/gpu/stand_ins:$PATH
  python=$root/tests/gpu/stand_ins/python3
  export LAMELLA_EMULATION_MEMORY=$((1000 << 20))
else
  export LAMELLA_CUDA_MODULE=${LAMELLA_CUDA_MODULE:-$build/liblamella_cuda.so}
fi
[ -z "$rehearse" ] || [ "$minutes" != 9 ] || minutes=40 # on a busy machine, too
[ -e "$LAMELLA_CUDA_MODULE" ] || die "there is no $LAMELLA_CUDA_MODULE${rehearse:+: build all, not lamella alone}"
export LAMELLA_TEST_GOLDEN=$root/tests/golden

# Libraries of ours that this machine lacks come from the archive, NVIDIA's from where a toolkit or a Python has them.
find_library() { # soname
  local site
  site=$("$python" -c 'import sysconfig; print(sysconfig.get_paths()["purelib"])' 2> /dev/null)
  find /usr/local/cuda*/lib64 /usr/local/cuda*/targets/*/lib ${CUDA_HOME:+"$CUDA_HOME/lib64"} ${site:+"$site/nvidia"} \
    -name "$1" 2> /dev/null | head -1
}
prepare_libraries() {
  local name at here
  here=$(ldconfig -p 2> /dev/null)
  mkdir "$work/lib"
  [ -d "$build/lib" ] && for at in "$build"/lib/*; do
    name=${at##*/}
    [[ $here = *"$name "* ]] || ln -s "$at" "$work/lib/$name"
  done
  export LD_LIBRARY_PATH=$work/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  for name in $(ldd "$LAMELLA_CUDA_MODULE" 2> /dev/null | awk '/not found/ { print $1 }'); do
    at=$(find_library "$name")
    [ -n "$at" ] || die "there is no $name: put its folder into LD_LIBRARY_PATH"
    ln -s "$at" "$work/lib/$name"
  done
  ldd "$lamella" | awk '/not found/ { print $1; n++ } END { exit n > 0 }' > "$work/missing" ||
    die "lamella lacks $(tr '\n' ' ' < "$work/missing"): install them, or carry an archive (--pack)"
}
prepare_libraries
# Only our programs get these libraries: a Python has its own.
peer_python() { env -u LD_LIBRARY_PATH "$python" "$@"; }

# One line where no GPU can be used, in place of a table of failures.
"$lamella" bench attention --device cuda --batch 1 --tokens 8 --heads 1 --head-dim 8 --seconds 0 --quiet > /dev/null 2> "$work/device" ||
  die "$(tail -1 "$work/device" | sed 's/; use --device cpu$//')"

# ---- the machine ----

have_smi=$(command -v nvidia-smi)
smi() { nvidia-smi "--query-gpu=$1" --format=csv,noheader,nounits 2> /dev/null | head -1; }
describe_machine() {
  put machine gpu "$(smi name)"
  put machine driver "$(smi driver_version)"
  put machine memory_MiB "$(smi memory.total)"
  put machine limits "sm $(smi clocks.max.sm) MHz, $(smi power.limit) W"
  put machine commit "$(cat "$build/commit" 2> /dev/null || git -C "$root" describe --always --dirty 2> /dev/null || echo unknown)"
  put machine date "$(date -u +%F)"
  put machine rehearsal "$([ -n "$rehearse" ] && echo "yes: no figure of this run says anything" || echo no)"
}
gpu_name=$([ -n "$have_smi" ] && smi name || true)
case $gpu_name in *H100*) limits_of=H100 ;; *) limits_of=H200 ;; esac
# Clocks and watts while something runs: medians of the samples at which the GPU was busy.
watch_clocks() {
  [ -n "$have_smi" ] || return 0
  nvidia-smi --query-gpu=clocks.sm,clocks.mem,power.draw,temperature.gpu,utilization.gpu --format=csv,noheader,nounits -lms 200 \
    > "$work/clocks" 2> /dev/null & sampler=$!
}
put_clocks() { # row
  [ -n "$sampler" ] || return 0
  kill "$sampler" 2> /dev/null; wait "$sampler" 2> /dev/null; sampler=
  awk -F', *' '$5 > 50' "$work/clocks" > "$work/busy"
  [ -s "$work/busy" ] || return 0
  local k=0 key
  for key in sm_MHz memory_MHz watts celsius; do
    k=$((k + 1))
    put "$1" "$key" "$(cut -d, -f$k "$work/busy" | sort -n | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] + 0 }')"
  done
}

# ---- time ----

left() { echo $((minutes * 60 - (SECONDS - begin))); }
deadline=0 failed=0
rest() { local l=$((deadline - SECONDS)); echo $((l > 1 ? l : 1)); } # of the part
within() { # seconds at most, command...
  local most=$1; shift
  [ "$most" -lt "$(rest)" ] || most=$(rest)
  timeout --kill-after=5 "$most" "$@"
}
part() { # name, seconds it needs at least, seconds it may take
  local name=$1 needs=$2 may=$3 start=$SECONDS now rows
  rows=$(wc -l < "$results")
  [ -z "$only" ] || [[ ",$only," = *",$name,"* ]] || return 0
  now=$(left)
  [ "$now" -gt 0 ] || now=0
  if [ "$now" -lt "$needs" ]; then
    put "part $name" state "left out: $now s are left, $needs are needed"
    return
  fi
  deadline=$((SECONDS + (may < now ? may : now)))
  say "$name, at most $((deadline - SECONDS)) s"
  "part_$name"
  case $name in steps | attention | memory)
    [ "$(awk -F'\t' -v from="$rows" 'NR > from && $2 == "measured"' "$results" | wc -l)" -gt 0 ] || verdict "$name" 1 "nothing was measured" ;;
  esac
  put "part $name" seconds $((SECONDS - start))
}
verdict() { # part, passed (0: yes), words
  put "part $1" state "$([ "$2" = 0 ] && echo passed || echo FAILED): $3"
  [ "$2" = 0 ] || failed=1
}

# ---- parts: correctness ----

part_tests() {
  local all jobs=$(($(nproc) / 2)) good
  all=$(programs)
  [ "$jobs" -le 8 ] || jobs=8
  [ "$jobs" -ge 1 ] || jobs=1
  export LAMELLA_TEST_DEVICE=cuda
  printf '%s\n' $all | OMP_NUM_THREADS=2 xargs -P "$jobs" -I{} sh -c \
    'timeout --kill-after=5 "$1" "$2/$3" > "$4/$3.log" 2>&1; echo "$3 $?"' sh "$(rest)" "$build" {} "$logs" > "$work/tests"
  unset LAMELLA_TEST_DEVICE
  good=$(grep -c ' 0$' "$work/tests")
  sed -n 's/ 0$//p' "$work/tests" > "$work/passed"
  verdict tests $((good != $(wc -w <<< "$all"))) "$good of $(wc -w <<< "$all") programs$(awk '$2 { printf ", %s %s", $1, $2 == 124 ? "had no time" : "exit " $2 }' "$work/tests")"
}

part_training() {
  local code=0
  within 300 bash "$root/tests/train/cuda.sh" "$lamella" ${rehearse:+--short} > "$logs/training.log" 2>&1 || code=$?
  verdict training "$code" "$(grep -c '^ok:' "$logs/training.log") checks$(sed -nE 's/^(FAILED.*|skipped.*)/, \1/p' "$logs/training.log" | tr -d '\n')"
}

# Each tool on op cases and on three steps of a training, side by side.
part_sanitizer() {
  local tool what code bad=0 words=
  if ! command -v compute-sanitizer > /dev/null; then
    put "part sanitizer" state "left out: there is no compute-sanitizer"
    return
  fi
  local ops=test_model_ops_attention
  [ -z "$rehearse" ] || ops=test_model_pixels
  export GOMP_SPINCOUNT=4000 # else the command starts itself once more
  for tool in memcheck racecheck synccheck initcheck; do
    local run="compute-sanitizer --tool $tool --target-processes all --error-exitcode 99"
    { code=0; LAMELLA_TEST_DEVICE=cuda within 300 $run "$build/$ops" > "$logs/$tool.ops.log" 2>&1 || code=$?
      echo "$tool ops $code" > "$work/sanitizer.$tool.ops"; } &
    { code=0; within 300 bash -c '. "$1/tests/train/common.sh" "$2"
        '"$run"' "$lamella" train tiny.yaml train.steps=3 train.precision=bf16 train.out=run --device cuda --quiet' \
        sh "$root" "$lamella" > "$logs/$tool.training.log" 2>&1 || code=$?
      echo "$tool training $code" > "$work/sanitizer.$tool.training"; } &
  done
  wait
  unset GOMP_SPINCOUNT
  while read -r tool what code; do
    case $code in
      0) words+=", $tool $what" ;;
      124 | 137) words+=", $tool $what had no time" ;;
      *) words+=", $tool $what: exit $code"; bad=1 ;;
    esac
  done < <(cat "$work"/sanitizer.*)
  verdict sanitizer "$bad" "${words:2}"
}

# ---- parts: figures ----

# Model, batch, share of the limit and ratio that are the goal (0: none), steps before and while it is timed.
steps=("l16 256 .70 1.4 20 50" "s16 256 .60 1.8 20 50" "b16 256 .65 1.6 20 50" "s16 32 0 2.5 20 100" "l16 32 0 1.6 20 100"
  "l8 256 .68 1.45 5 20")
[ -z "$rehearse" ] || steps=("t32 1 .5 1.5 1 1")

estimate_step() { # file, model, batch, more...
  "$lamella" bench step --estimate --gpu "$limits_of" --precision bf16 --json --model "$2" --batch "$3" "${@:4}" > "$1"
}
# Milliseconds of what is neither a product nor attention, and of all operations.
rest_of_step() { # file of bench step
  grep -oE '\{"op":[^}]*\}' "$1" | sed -E 's/.*"op":"([^"]*)".*"ms":([^,]*),.*"gflops_per_s":([^,]*),.*/\1 \2 \3/' |
    awk '{ all += $2; if ($1 !~ /attention/ && $3 == 0) rest += $2 } END { print rest + 0, all + 0 }'
}
step_figure() { # model, batch, share, ratio, warmup, steps, name
  local row="step $1 $2" file=$work/step.$1.$2 paper=$work/paper.$1.$2 limit rest_ms all_ms
  [ $# -lt 7 ] || row="step $1 $2 $7"
  estimate_step "$paper" "$1" "$2" 2> "$logs/estimate.log" || return
  limit=$(calculate "$(value limit_gflops_per_s "$paper") / $(value gflops_per_crop "$paper")")
  put "$row" unit "crops/s"
  put "$row" estimate "$(value crops_per_s "$paper")"
  put "$row" bound "$(calculate "$2 / $(value bound_ms "$paper") * 1e3")"
  [ "$3" = 0 ] || put "$row" goal "$(calculate "$3 * $limit")"
  [ "$4" = 0 ] || put "$row" goal_ratio "$4"
  watch_clocks
  within 90 "$lamella" bench step --device cuda --model "$1" --batch "$2" --precision bf16 --warmup "$5" --steps "$6" --json "${@:8}" \
    > "$file" 2> "$logs/${row// /.}.log" || { put "$row" note "$(tail -1 "$logs/${row// /.}.log" | cut -c 1-200)"; put_clocks "$row"; return; }
  put_clocks "$row"
  cp "$file" "$logs/${row// /.}.json"
  put "$row" measured "$(value crops_per_s "$file")"
  put "$row" low "$(grep -oE '"spread":\[[^]]*' "$file" | sed -E 's/.*\[([^,]*),.*/\1/')"
  put "$row" high "$(grep -oE '"spread":\[[^]]*' "$file" | sed -E 's/.*,//')"
  put "$row" of_limit "$(calculate "$(value crops_per_s "$file") / $limit")"
  put machine cuda "$(value gpu "$file")"
  put machine library "$(value library "$file")"
  [ $# -lt 7 ] || return 0
  read -r rest_ms all_ms <<< "$(rest_of_step "$file")"
  put "rest $1 $2" unit "% of the step"
  put "rest $1 $2" measured "$(calculate "100 * $rest_ms / $all_ms")"
  put "rest $1 $2" estimate "$(calculate "100 * $(value other_ms "$paper") / $(value step_ms "$paper")")"
  put "rest $1 $2" less_is_better 1
  case $1 in l*) put "rest $1 $2" goal 8 ;; s*) put "rest $1 $2" goal 15 ;; esac
  put "first $1 $2" unit s
  put "first $1 $2" measured "$(value first_step_s "$file")"
  put "first $1 $2" less_is_better 1
  put "first $1 $2" goal 10
}
part_steps() {
  local one
  for one in "${steps[@]}"; do
    [ "$(rest)" -gt 10 ] || { put "step ${one%% [.0]*}" note "no time was left"; continue; }
    step_figure $one
  done
  [ -z "$rehearse" ] || return 0
  set -- ${steps[0]}
  [ "$(rest)" -le 10 ] || step_figure "${@:1:6}" autotune --autotune
  [ "$(rest)" -le 10 ] || step_figure "${@:1:6}" again # whether the machine has changed meanwhile
}

attention_batch=64
shapes=(257:32:16 1025:32:16 65:64:16 65:32:16 257:64:16 1025:64:16)
[ -z "$rehearse" ] || shapes=(9:32:2) attention_batch=1
part_attention() {
  local shape tokens head_dim heads row pass file=$work/attention paper=$work/attention.paper once
  for shape in "${shapes[@]}"; do
    IFS=: read -r tokens head_dim heads <<< "$shape"
    set -- --batch "$attention_batch" --tokens "$tokens" --heads "$heads" --head-dim "$head_dim" --precision bf16 --json
    "$lamella" bench attention --estimate --gpu "$limits_of" "$@" > "$paper"
    within 30 "$lamella" bench attention --device cuda --seconds "$([ -n "$rehearse" ] && echo 0 || echo 1)" "$@" > "$file" \
      2> "$logs/attention.$shape.log" || : > "$file"
    [ ! -s "$file" ] || cp "$file" "$logs/attention.$shape.json"
    for pass in forward backward; do
      row="attention $tokens $head_dim $pass"
      grep "\"pass\":\"$pass\"" "$paper" > "$paper.$pass"
      grep "\"pass\":\"$pass\"" "$file" > "$file.$pass"
      put "$row" unit "TFLOP/s"
      put "$row" estimate "$(calculate "$(value gflops_per_s "$paper.$pass") / 1e3")"
      put "$row" bound "$(calculate "$(value limit_gflops_per_s "$paper.$pass") / 1e3")"
      [ -s "$file.$pass" ] && put "$row" measured "$(calculate "$(value gflops_per_s "$file.$pass") / 1e3")"
    done
    row="attention $tokens $head_dim both"
    once=$(value gflops_per_s "$paper.forward")
    put "$row" unit "TFLOP/s"
    put "$row" goal_ratio "$([ "$head_dim" = 32 ] && [ "$tokens" != 65 ] && echo 1.6 || echo 1.5)"
    put "$row" estimate "$(calculate "3 / (1 / $once + 2 / $(value gflops_per_s "$paper.backward")) / 1e3")"
    put "$row" bound "$(calculate "3 / (1 / $(value limit_gflops_per_s "$paper.forward") + 2 / $(value limit_gflops_per_s "$paper.backward")) / 1e3")"
    [ -s "$file.backward" ] &&
      put "$row" measured "$(calculate "3 / (1 / $(value gflops_per_s "$file.forward") + 2 / $(value gflops_per_s "$file.backward")) / 1e3")"
  done
}

# The largest batch with norm_gelu that a step was done with; where to begin is known from the plan.
part_memory() {
  local model=l16 small=256 large=512 runtime=600 room slope fixed batch try row file=$work/memory
  [ -z "$rehearse" ] || model=t32 small=1 large=3 runtime=100
  row="largest $model"
  put "$row" unit crops
  put "$row" goal_ratio 1.5
  [ -n "$have_smi" ] || { put "$row" note "without nvidia-smi the memory is not known"; return; }
  estimate_step "$file.small" "$model" "$small" --recompute norm_gelu
  estimate_step "$file.large" "$model" "$large" --recompute norm_gelu
  slope=$(calculate "($(value arena "$file.large") - $(value arena "$file.small")) / ($large - $small)")
  # Weights a second time in bfloat16; what the runtime takes.
  fixed=$(calculate "$(value arena "$file.small") - $small * $slope + 1.5 * $(value weights "$file.small") + $(value gradients "$file.small") + $(value optimizer "$file.small") + $runtime")
  room=$(smi memory.free)
  batch=$(awk "BEGIN { print int(($room - $fixed) / $slope) }")
  put "$row" estimate "$batch"
  for try in 1 2 3 4; do
    [ "$batch" -ge 1 ] && [ "$(rest)" -gt 5 ] || break
    if within 60 "$lamella" bench step --device cuda --model "$model" --batch "$batch" --precision bf16 --recompute norm_gelu --steps 1 --json \
      > "$file" 2> "$logs/memory.$try.log"; then
      put "$row" measured "$batch"
      put "$row" note "$(calculate "$(value crops_per_s "$file")") crops/s, $(calculate "$slope") MiB a crop"
      return
    fi
    batch=$((batch * 97 / 100 < batch ? batch * 97 / 100 : batch - 1))
  done
  put "$row" note "no step was done: $(cat "$logs"/memory.*.log 2> /dev/null | tail -1 | cut -c 1-160)"
}

# ---- part: PyTorch ----

# Batch where memory ends, from the most that was in use at two batches of one mode.
peer_largest() { # model, small, large
  local mode low high room best=0
  room=$(smi memory.total)
  for mode in none default; do
    low=$(grep "\"model\": \"$1\", \"batch\": $2,.*\"compile\": \"$mode\"" "$work/peer" | tail -1)
    high=$(grep "\"model\": \"$1\", \"batch\": $3,.*\"compile\": \"$mode\"" "$work/peer" | tail -1)
    [ -n "$low" ] && [ -n "$high" ] || continue
    echo "$low" > "$work/low"; echo "$high" > "$work/high"
    best=$(awk -v room="$room" -v s="$2" -v l="$3" -v a="$(value peak_MiB "$work/low")" -v b="$(value peak_MiB "$work/high")" -v best="$best" '
      BEGIN { slope = (b - a) / (l - s); n = slope > 0 ? int((room - 600 - a + s * slope) / slope) : 0; print (n > best ? n : best) }')
  done
  [ "$best" = 0 ] || { put "largest $1" peer "$best"; put "largest $1" peer_how "from its memory at $2 and $3"; }
}
put_peers() {
  local line model batch rate row
  declare -A fastest
  while read -r line; do
    echo "$line" > "$work/line"
    model=$(value model "$work/line") batch=$(value batch "$work/line") rate=$(value crops_per_s "$work/line")
    row="step $model $batch"
    put "peer $model $batch $(value compile "$work/line")" crops_per_s "$rate"
    put "peer $model $batch $(value compile "$work/line")" seconds_to_first_steps "$(value seconds_to_first_steps "$work/line")"
    put "peer $model $batch $(value compile "$work/line")" peak_MiB "$(value peak_MiB "$work/line")"
    put machine pytorch "$(value peer "$work/line")"
    if [ "$(calculate "$rate > ${fastest[$row]:-0}")" = 1 ]; then
      fastest[$row]=$rate
      put "$row" peer "$rate"
      put "$row" peer_how "$(value compile "$work/line" | sed 's/^none$/eager/'), sdpa $(value sdpa "$work/line")"
    fi
  done < "$work/peer"
}
put_attention_peers() {
  local line pass row
  while read -r line; do
    echo "$line" > "$work/line"
    for pass in forward backward both; do
      row="attention $(value tokens "$work/line") $(value head_dim "$work/line") $pass"
      [ -n "$(value ${pass}_tflops_per_s "$work/line")" ] || continue
      put "$row" peer "$(value ${pass}_tflops_per_s "$work/line")"
      put "$row" peer_how "$(value ${pass}_backend "$work/line")"
    done
  done < "$work/attention.peer"
}
part_peer() {
  local mode one all=()
  if ! peer_python -c 'import torch; assert torch.cuda.is_available()' > /dev/null 2> "$logs/torch.log"; then
    put "part peer" state "left out: $python has no torch that sees a GPU: $(tail -1 "$logs/torch.log" | cut -c 1-120)"
    return
  fi
  : > "$work/attention.peer"; : > "$work/peer"
  within $(($(rest) / 4)) env -u LD_LIBRARY_PATH "$python" "$root/tests/bench/attention_torch.py" --shapes "${shapes[@]}" \
    --batch "$attention_batch" > "$work/attention.peer" 2> "$logs/attention.peer.log"
  for mode in default none reduce-overhead; do
    for one in "${steps[@]}"; do set -- $one; all+=("$1:$2:$mode"); done
  done
  [ -z "$rehearse" ] || all+=(t32:2:none)
  watch_clocks
  within 600 env -u LD_LIBRARY_PATH "$python" "$root/tests/bench/mae_torch.py" --dtype bf16 --device cuda --sdpa best --warmup 20 --steps 50 \
    --rounds 3 --seconds 5 --settings "${all[@]}" --deadline $(($(rest) - 20)) > "$work/peer" 2> "$logs/peer.log"
  put_clocks "machine peer"
  cp "$work/peer" "$logs/peer.jsonl"; cp "$work/attention.peer" "$logs/attention.peer.jsonl"
  put_peers
  put_attention_peers
  if [ -n "$rehearse" ]; then peer_largest t32 1 2; else peer_largest l16 32 256; fi
  put "part peer" state "passed: $(wc -l < "$work/peer") of ${#all[@]} settings, $(wc -l < "$work/attention.peer") of ${#shapes[@]} shapes of attention"
}

# ---- all of it ----

describe_machine
within_all=$((minutes * 60))
part tests 20 $((within_all * 20 / 100))
part training 20 $((within_all * 12 / 100))
part sanitizer 30 $((within_all * 14 / 100))
part steps 20 $((within_all * 26 / 100))
part attention 10 $((within_all * 6 / 100))
part memory 15 $((within_all * 6 / 100))
part peer 40 "$within_all"
put machine seconds $((SECONDS - begin))
tar -czf "$out/logs.tar.gz" -C "$work" logs
print_table "$out/results.json" "$results" | tee "$out/table.txt"
exit "$failed"
