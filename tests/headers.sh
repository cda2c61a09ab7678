#!/usr/bin/env bash
# Compiles every header alone, as C17 and as C++17: each must stand by itself. Usage: headers.sh ROOT CC CXX
set -euo pipefail
cd "$1"
failed=0
count=0
read -ra libraries <<<"$(pkg-config --cflags-only-I hdf5)"
while read -r header; do
  case "$header" in *.inc.h) continue ;; esac
  "$2" -std=c17 -D_GNU_SOURCE -Wall -Wextra -Werror -fsyntax-only -I. "${libraries[@]}" -x c "$header" || failed=1
  "$3" -std=c++17 -D_GNU_SOURCE -Wall -Wextra -Werror -fsyntax-only -I. "${libraries[@]}" -x c++ "$header" || failed=1
  count=$((count + 1))
done < <(find base data model dist train eval -name '*.h' | sort)
echo "headers: $count compiled alone as C17 and C++17"
exit "$failed"
