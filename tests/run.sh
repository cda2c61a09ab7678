#!/usr/bin/env bash
# `make test`: release build with warnings as errors and every test; unit and parser tests once more under ASan + UBSan;
# the loader under TSan; each fuzz target for ten seconds. One ctest run at the end covers all of it, so that its
# closing line is the last line.
set -euo pipefail
cd "$(dirname "$0")/.."
jobs=${1:-2}
start=$SECONDS
export OMP_WAIT_POLICY=passive # programs run beside each other, each with a thread a core: who waits must not spin
build() { # preset, targets...
  local preset=$1; shift
  # Sanitizers make gcc warn of sizes that it cannot follow: warnings are errors in the release build alone.
  cmake --preset "$preset" -DLAM_WERROR=$([ "$preset" = release ] && echo ON || echo OFF) -DBUILD_TESTING=ON > "build-$preset.log" 2>&1 || { cat "build-$preset.log"; exit 1; }
  cmake --build --preset "$preset" -j "$jobs" "$@" >> "build-$preset.log" 2>&1 || { tail -40 "build-$preset.log"; exit 1; }
  rm -f "build-$preset.log"
  echo "built $preset ($((SECONDS - start)) s)"
}
build release
build debug --target sanitized_tests
build tsan --target thread_tests
build fuzz --target fuzz_targets
ctest --test-dir build --output-on-failure --no-tests=error -j "$jobs" --schedule-random 2>&1 | grep -v '^ *Start '
exit "${PIPESTATUS[0]}"
