#!/usr/bin/env bash
# A t-SNE that needs less than all of its iterations says so.
# Usage: report.sh LAMELLA
. "$(dirname "$(realpath "$0")")/common.sh" "$1"

awk 'BEGIN { print "gene,d0,d1,d2"
  for (i = 0; i < 60; i++) printf "g%d,%.5f,%.5f,%.5f\n", i, sin(i * i) + i % 3 * 4, cos(3 * i * i), sin(7 * i) }' > map.csv
"$lamella" report map.csv --out page.html 2> log
grep -qE '^t-SNE: ([0-9]+)/1000 iterations.*, converged after \1, ' log || { cat log; fail "no word of convergence"; }
echo "ok: convergence is told"
