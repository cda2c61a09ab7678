#!/usr/bin/env bash
# `lamella consistency` from a table to its files: columns, nulls, summary row, JSON, threads and seeds. Usage: consistency.sh LAMELLA
set -u
lamella=$(readlink -f "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
failed=0
check() { # WHAT command...
  local what=$1; shift
  "$@" || { failed=$((failed + 1)); echo "FAILED: $what"; }
}

# Twenty genes of six rows; the first ten are unexpressed and without effect, the others lie far out, each in its own direction.
awk 'BEGIN {
  srand(1); print "gene,tpm,plate,d0,d1,d2,d3";
  for (g = 0; g < 20; g++) for (r = 0; r < 6; r++) {
    printf "%s,%d,p%d", g == 19 ? "\"odd, \"\"name\"\"\"" : sprintf("g%02d", g), g < 10 ? 0 : 9, r % 2;
    for (j = 0; j < 4; j++) printf ",%.6f", rand() - 0.5 + (g < 10 ? 0 : 8 * sin(g * (j + 1)));
    print "" }
  for (r = 0; r < 40; r++) { printf "control,9,p%d", r % 2; for (j = 0; j < 4; j++) printf ",%.6f", rand() - 0.5; print "" }
  print "g00,0,p0,nan,0,0,0"; print ",9,p0,1,1,1,1" }' > screen.csv
common=(screen.csv --features 'd*' --by gene --controls gene=control)

"$lamella" consistency "${common[@]}" --null-where 'tpm < 1' --out named 2> log.txt || exit 1
check 'a damaged row is named' grep -q '1 of 162 rows' log.txt
check 'ten null perturbations cannot give a q of .05' grep -q 'no q value of .* can reach 0.05' log.txt
printf 'gene,d0,d1\nA,0,0\nA,1,2\nB,1,1\nB,2,1\nC,1,0\nC,0,1\n' > zero.csv
"$lamella" consistency zero.csv --by gene --controls gene=C --out zero --permutations 20 2> zero.txt || exit 1
check 'rows of zeros are named' grep -q 'zero.csv: 1 rows are zero in every column' zero.txt
check 'a row without a name is named' grep -q '1 rows with an empty gene' log.txt
check 'header' [ "$(head -1 named/consistency.csv)" = "perturbation,replicates,consistency,consistency_p,consistency_q,magnitude,magnitude_p,magnitude_q" ]
check 'one row a perturbation, then the summary' [ "$(wc -l < named/consistency.csv)" = 22 ]
check 'quotes' grep -q '^"odd, ""name""",6,' named/consistency.csv
check 'null perturbations have no p' [ "$(grep -c '^"g0.*,nan,nan,.*,nan,nan$' named/consistency.csv)" = 10 ]
check 'the others have none that is as consistent' [ "$(grep -cE '^"(g1|odd).*,6,[0-9.e-]+,0,0\.0909090909090909[0-9]*,[0-9.e-]+,0,0\.0909090909090909[0-9]*$' named/consistency.csv)" = 10 ]
check 'summary row' grep -qE '^summary,120,0\.9[0-9]+,1,0,[0-9.]+,1,0$' named/consistency.csv
check 'summary.json' grep -q '"null": "null perturbations"' named/summary.json

# The same null perturbations by name, on other numbers of threads.
printf 'note,gene\n' > names.csv; for g in 0 1 2 3 4 5 6 7 8 9; do printf 'x,g0%s\n' $g >> names.csv; done
for threads in 1 2; do
  "$lamella" consistency "${common[@]}" --null-genes names.csv --out by_name --force --quiet --threads $threads || exit 1
  check "names, $threads threads" cmp -s named/consistency.csv by_name/consistency.csv
done

# Permutations: every gene gets a p, none is 0 unless the method is the one first published.
"$lamella" consistency "${common[@]}" --out drawn --json --quiet --permutations 400 > drawn.json || exit 1
check 'every perturbation is tested twice' [ "$(grep -o '"tested": *20' drawn/summary.json | wc -l)" = 2 ]
check 'smallest p' grep -qE '^"g1.",6,[0-9.e-]+,0\.0024937655860349127,' drawn/consistency.csv
check 'JSON has the rows too' grep -q '"rows": *\[.*"magnitude_q"' drawn.json
for threads in 1 2; do
  "$lamella" consistency "${common[@]}" --out angular$threads --method angular --magnitude-null label-shuffle --batch plate \
    --permutations 400 --quiet --threads $threads || exit 1
done
check 'threads' cmp -s angular1/consistency.csv angular2/consistency.csv
check 'as first published p may be 0' grep -qE '^"g11",6,[0-9.e-]+,0,0\.00[0-9]+,' angular1/consistency.csv
check 'ten replicates for the shuffle first published' grep -q '^summary,.*,nan,nan$' angular1/consistency.csv
"$lamella" consistency "${common[@]}" --out other --quiet --permutations 400 --seed 1 || exit 1
check 'another seed' bash -c '! cmp -s drawn/consistency.csv other/consistency.csv'

echo "consistency: $failed failed"
[ "$failed" = 0 ]
