#!/usr/bin/env bash
# What ptxas said of every kernel for every architecture: nothing is spilled, and none takes more registers
# than the header of its file says ("at most N registers"; of the parts of attention: model/cuda/attention.cuh).
# Usage: cuda_resources.sh ROOT BUILD
set -euo pipefail
root=$1 build=$2 failed=0 kernels=0
shopt -s nullglob
for source in "$root"/model/cuda/*.cu; do
  name=$(basename "$source")
  found=("$build"/CMakeFiles/lamella_cuda.dir/model/cuda/"$name".o.resources)
  [ ${#found[@]} = 1 ] || { echo "$name: there is no report of ptxas"; failed=1; continue; }
  grep -q "Compiling entry" "${found[0]}" || continue
  header=$source
  case $name in attention*) header=$root/model/cuda/attention.cuh ;; esac
  limit=$(awk '{ print } /\*\// { exit }' "$header" | tr '\n' ' ' | sed 's/ \* / /g' |
    grep -oiE "at most [0-9]+ +registers|registers:? +at most [0-9]+" | grep -oE "[0-9]+" | sort -n | tail -1 || true)
  [ -n "$limit" ] || { echo "$name: its header does not say how many registers its kernels take at most"; failed=1; limit=255; }
  out=$(awk -v file="$name" -v limit="$limit" '
    /Compiling entry function/ { match($0, /\x27[^\x27]+\x27/); kernel = substr($0, RSTART + 1, RLENGTH - 2)
                                 sub(/.*for \x27/, ""); sub(/\x27.*/, ""); architecture = $0; count++ }
    /bytes stack frame/ && !/ 0 bytes spill stores, 0 bytes spill loads/ {
      print file ": " kernel " for " architecture ": " $0; bad = 1 }
    /Used [0-9]+ registers/ { match($0, /Used [0-9]+/); n = substr($0, RSTART + 5, RLENGTH - 5) + 0
      if (n > most) most = n
      if (n > limit) { print file ": " kernel " for " architecture ": " n " registers, its header says at most " limit; bad = 1 } }
    END { print "=" count " " most + 0; exit bad }' "${found[0]}") || failed=1
  grep -v '^=' <<< "$out" || true
  read -r count most <<< "$(sed -n 's/^=//p' <<< "$out")"
  kernels=$((kernels + count))
  echo "$name: $count kernels, at most $most registers of $limit, nothing spilled"
done
[ "$kernels" -gt 0 ] || { echo "no kernel was looked at"; exit 1; }
echo "$kernels kernels"
exit $failed
