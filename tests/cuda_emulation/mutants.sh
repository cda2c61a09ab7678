#!/usr/bin/env bash
# Puts the bugs of mutants.txt into the sources one at a time, on a copy, and requires the test that is named there to fail on a
# module in which the one changed file was compiled anew. First that test must pass without the bug.
# Usage: mutants.sh BUILD [JOBS [--of-day | NAME...]]; --of-day: three, others each day. BUILD was made by Ninja, with its tests.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
build=$(cd "$1" && pwd)
jobs=${2:-2}
shift; shift || true
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
ulimit -c 0
export LC_ALL=C OMP_WAIT_POLICY=passive LAMELLA_TEST_DEVICE=cuda
start=$SECONDS

# ---- the table ----

names=()
declare -A file=() module=() test=() with=() settings=()
hunk_of=() hunk_in=() hunk_old=() hunk_new=()
parse() {
  local line name="" in="" last="" n=-1
  while IFS= read -r line; do
    case $line in
      '#'* | '') last="" ;;
      mutant\ *) name=${line#* }; names+=("$name"); in=""; with[$name]=""; settings[$name]="" ;;
      change\ *) name=${line#* }; in="" ;;
      file\ *) file[$name]=${line#* }; in=${line#* } ;;
      in\ *) in=${line#* } ;;
      with\ *) with[$name]=${line#* } ;;
      test\ *) read -r _ "module[$name]" "test[$name]" <<<"$line" ;;
      filter\ *) settings[$name]+="LAMELLA_TEST_FILTER=${line#* }"$'\n' ;;
      set\ *) settings[$name]+="${line#* }"$'\n' ;;
      case\ *) settings[$name]+="LAMELLA_TEST_CASE=${line#* }"$'\n' ;;
      '- '*)
        if [ "$last" = - ]; then
          hunk_old[n]+=$'\n'${line:2}
        else
          n=$((n + 1))
          hunk_of[n]=$name hunk_in[n]=$in hunk_old[n]=${line:2} hunk_new[n]=""
        fi
        last=- ;;
      '+ '*)
        [ "$last" = + ] && hunk_new[n]+=$'\n'
        hunk_new[n]+=${line:2}
        last=+ ;;
      *) echo "mutants.txt: $line?" >&2; exit 1 ;;
    esac
  done < "$here/mutants.txt"
}

# Copies of what `name` changes, under `to`; each text must be there once.
apply() { # name, to
  local n target
  for n in "${!hunk_of[@]}"; do
    [ "${hunk_of[n]}" = "$1" ] || continue
    target=$2/${hunk_in[n]}
    mkdir -p "${target%/*}"
    [ -e "$target" ] || cp "$root/${hunk_in[n]}" "$target"
    old=${hunk_old[n]} new=${hunk_new[n]} awk 'BEGIN { RS = "\001"; ORS = "" } {
      old = ENVIRON["old"]; at = index($0, old); rest = substr($0, at + length(old))
      if (!at || index(rest, old)) exit 1
      print substr($0, 1, at - 1) ENVIRON["new"] rest }' "$target" > "$target.new" || {
      echo "${hunk_in[n]} does not have this text once: ${hunk_old[n]}"
      return 1
    }
    mv "$target.new" "$target"
  done
}

# ---- modules ----

# Build's own commands, with the file of the copy in place of the tree's. The new object comes first, so that its versions of inline
# functions are those of the module.
compile_and_link() { # file, module, folder of the copies, output without .so
  local name=liblamella_cuda_$2.so compile link object source=$root/$1
  [ -e "$3/$1" ] && source=$3/$1
  compile=$(grep -F -- " -c $root/$1" "$work/$2.commands") || { echo "$name has no $1"; return 1; }
  link=$(grep -F -- " -o $name " "$work/$2.commands")
  object=${compile##* -o }
  object=${object%% *}
  compile=${compile/ -MD -MT * -MF *.d / }
  compile=${compile/ -I/ -I$3 -I}
  compile=${compile/ -o $object -c $root\/$1/ -w -g0 -o $4.o -c $source}
  link=${link/ $object/}
  link=${link/ -o $name / -o $4.so $4.o }
  (cd "$build" && eval "$compile" && eval "$link") > "$4.log" 2>&1 || { tail -5 "$4.log"; return 1; }
  rm -f "$4.o"
}

# Output and time go to files; the status is the test's.
run_test() { # name, module file, seconds allowed, output
  local status=0 begin=$SECONDS lines=()
  mapfile -t lines <<<"${settings[$1]%$'\n'}"
  [ -n "${lines[0]}" ] || lines=()
  (cd "$build" && exec env "${lines[@]}" LAMELLA_CUDA_MODULE="$2" timeout -k 5 "$3" "./test_${test[$1]}") > "$4" 2>&1 || status=$?
  echo $((SECONDS - begin)) > "$4.seconds"
  return $status
}

# ---- one after the other ----

# Tests that several mutants share are run once, on the build's module or, where mutants change more to be compiled quickly, on one
# with that change alone.
key_of() { echo "${module[$1]} ${test[$1]} ${with[$1]} ${with[$1]:+${file[$1]}} ${settings[$1]//$'\n'/ }" | tr -c 'a-zA-Z0-9\n' _; }
check_without() { # name
  local key without at=$build/liblamella_cuda_${module[$1]}.so
  key=$(key_of "$1")
  if [ -n "${with[$1]}" ]; then
    without=$work/with_${with[$1]}_${module[$1]}_${file[$1]//\//_}
    (
      flock 9
      [ -e "$without.so" ] && exit
      mkdir -p "$without.copy"
      apply "${with[$1]}" "$without.copy" && compile_and_link "${file[$1]}" "${module[$1]}" "$without.copy" "$without"
    ) 9> "$without.lock" || return 1
    at=$without.so
  fi
  (
    flock 9
    [ -e "$work/$key.passed" ] && exit
    run_test "$1" "$at" 600 "$work/$key.output" || { echo "the test fails without it"; tail -3 "$work/$key.output"; exit 1; }
    grep -q 'PASSED  \] 0 test' "$work/$key.output" && { echo "no test has this name"; exit 1; }
    touch "$work/$key.passed"
  ) 9> "$work/$key.lock"
}

# Prints `caught`, `survived` or `error`, and by what.
try() { # name
  local name=$1 at=$work/$1 status=0 limit seconds
  mkdir -p "$at.copy"
  if ! check_without "$name" > "$at.said" || { [ -n "${with[$name]}" ] && ! apply "${with[$name]}" "$at.copy" > "$at.said"; } ||
    ! apply "$name" "$at.copy" > "$at.said" || ! compile_and_link "${file[$name]}" "${module[$name]}" "$at.copy" "$at" > "$at.said"; then
    echo "error $(tr '\n' ' ' < "$at.said")"
    return
  fi
  seconds=$(cat "$work/$(key_of "$name").output.seconds")
  limit=$((60 + 10 * seconds))
  run_test "$name" "$at.so" "$limit" "$at.output" || status=$?
  rm -f "$at.so"
  if grep -q -- '--device cuda:' "$at.output"; then echo "error $(grep -m 1 -- '--device cuda:' "$at.output")"
  elif [ $status = 0 ]; then echo survived
  elif grep -q 'cuda emulation: ' "$at.output"; then echo "caught $(grep -m 1 'cuda emulation: ' "$at.output")"
  elif [ $status = 124 ]; then echo "caught it has not ended after $limit seconds"
  elif grep -q '^ERROR: ' "$at.output"; then echo "caught $(grep -m 1 '^ERROR: ' "$at.output")"
  elif grep -q 'ERROR.*--- ' "$at.output"; then echo "caught $(sed -n 's/.*ERROR.*--- //p' "$at.output" | head -1)"
  elif [ $status -gt 128 ]; then echo "caught signal $((status - 128))"
  else echo "error status $status: $(tail -1 "$at.output")"; fi
}

one() { # name
  local begin=$SECONDS said
  said=$(try "$1")
  echo "$said" > "$work/$1.result"
  said="${said%% *} $1 ($((SECONDS - begin)) s)$([ "${said%% *}" = "$said" ] || echo ": ${said#* }")"
  echo "${said:0:${COLUMNS:-180}}"
}

parse
chosen=("${names[@]}")
if [ "${1:-}" = --of-day ]; then
  day=$((10#$(date +%j))) third=$(((${#names[@]} + 2) / 3)) chosen=()
  for k in 0 1 2; do chosen+=("${names[(day % third + k * third) % ${#names[@]}]}"); done
elif [ $# -gt 0 ]; then
  chosen=("$@")
fi
for name in "${chosen[@]}"; do [ -n "${file[$name]:-}" ] || { echo "there is no mutant $name" >&2; exit 1; }; done
# All, whatever is chosen: who changes a text should hear of it at once.
for name in "${names[@]}"; do
  rm -rf "$work/all"
  { [ -z "${with[$name]}" ] || apply "${with[$name]}" "$work/all"; } && apply "$name" "$work/all" && continue
  echo "mutants.txt: $name no longer applies: say there how the same bug looks now" >&2
  exit 1
done
for name in emulated checked; do ninja -C "$build" -t commands "liblamella_cuda_$name.so" > "$work/$name.commands"; done
for name in "${chosen[@]}"; do
  while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n || true; done
  one "$name" &
done
wait
caught=$(grep -l '^caught' "$work"/*.result | wc -l)
echo "$caught of ${#chosen[@]} mutants caught ($((SECONDS - start)) s)"
[ "$caught" = "${#chosen[@]}" ]
