#!/usr/bin/env bash
# Runs nvcc and keeps what ptxas says of each kernel (registers, spills, shared memory) in OBJECT.resources, for
# tests/cuda_resources.sh; everything else is shown. Usage: ptxas.sh NVCC OPTIONS... -o OBJECT...
object="" previous=""
for word in "$@"; do
  [ "$previous" = -o ] && object=$word
  previous=$word
done
case $object in
  *.o)
    "$@" -Xptxas -v 2> "$object.output"
    status=$?
    grep -E "^ptxas info|bytes stack frame" "$object.output" > "$object.resources"
    grep -vE "^ptxas info|bytes stack frame|^$" "$object.output" >&2
    rm -f "$object.output"
    exit $status ;;
  *) exec "$@" ;;
esac
