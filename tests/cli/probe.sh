#!/usr/bin/env bash
# What probe --ridge says is what its table says.
# Usage: probe.sh LAMELLA
. "$(dirname "$(realpath "$0")")/common.sh" "$1"

# Three columns of which none is the middle one in every fold: there the mean of the folds' medians is no median.
awk 'BEGIN { print "plate,t1,t2,t3,d0,d1"
  for (i = 0; i < 60; i++) { a = sin(7 * i) + sin(i * i); b = cos(5 * i * i)
    printf "p%d,%.5f,%.5f,%.5f,%.5f,%.5f\n", i % 3, a + sin(3 * i * i), a + cos(11 * i), b + sin(13 * i), a, b } }' > cells.csv
"$lamella" probe cells.csv --label 't*' --ridge --alpha 0.001 --group plate --folds 3 --out r 2> log
told=$(sed -n 's/.*R^2 \(-\{0,1\}[0-9.]*\) over 3 folds.*median of 3 columns.*/\1/p' log)
median=$(awk -F, '$1 == "median" { printf "%.4f", $2 }' r/ridge.csv)
mean=$(awk -F, '$3 == "mean" { printf "%.4f", $4 }' r/scores.csv)
[ "$median" != "$mean" ] || fail "the two are the same here, $mean: nothing is tested"
[ -n "$told" ] && [ "$told" = "$median" ] || { cat log r/ridge.csv; fail "'$told' is told, '$median' in the table"; }
echo "ok: the median of the table"
