# Shared by scripts of this folder: a folder to work in, what ends a script. Source it with the command's path in $1.
set -euo pipefail
lamella=$(readlink -f "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
fail() { echo "FAILED: $*" >&2; exit 1; }

# cell FILE KEY=VALUE... COLUMN: that cell of every row of a table with these values.
cell() {
  awk -F, -v keys="${*:2:$#-2}" -v column="${*: -1}" '
    NR == 1 { for (i = 1; i <= NF; i++) at[$i] = i; n = split(keys, wanted, " "); next }
    { good = 1; for (k = 1; k <= n; k++) { split(wanted[k], pair, "="); good = good && $at[pair[1]] == pair[2] } if (good) print $at[column] }' "$1"
}
