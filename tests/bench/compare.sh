#!/usr/bin/env bash
# A training step of ours beside the same step in PyTorch, eager and compiled, in turn in one run; medians, spreads, goals.
# Usage: PYTHON=/path/to/python compare.sh LAMELLA [options of compare.py]    (compare.sh LAMELLA --help lists them)
set -euo pipefail
[ $# -ge 1 ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
python=${PYTHON:-python3}
if ! "$python" -c 'import torch' 2> /dev/null; then
  echo "compare: $python has no PyTorch (name one that has: PYTHON=/path/to/python); nothing is compared"
  exit 0
fi
exec "$python" "$(dirname "$(realpath "$0")")/compare.py" "$@"
