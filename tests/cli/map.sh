#!/usr/bin/env bash
# lamella map: what it says and does where data are awkward, transforms from one experiment to the next, tables of genes.
# Usage: map.sh LAMELLA
set -u
lamella=$(readlink -f "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
cases=0 failed=0
check() { # NAME command...
  local name=$1; shift
  cases=$((cases + 1))
  "$@" || { failed=$((failed + 1)); echo "FAILED: $name"; sed 's/^/  | /' err.txt | tail -5; }
}
map() { "$lamella" map "$@" --force --json > out.json 2> err.txt; }
says() { grep -qE -- "$1" err.txt; }
json() { grep -qE -- "$1" out.json; }

# Wells of 4 plates with a shift each, 6 in 18 of them controls; three guides a gene; column 3 does not vary.
awk 'function u() { s = (s * 1103515245 + 12345) % 2147483648; return s / 2147483648 }
BEGIN { s = 5; print "plate,well,gene,guide,d0,d1,d2,d3,d4"
  for (p = 1; p <= 4; p++) for (w = 0; w < 72; w++) {
    g = w % 3 == 0 ? "nt" : "G" (w % 12)
    printf "p%d,W%02d,%s,%s_%d", p, w, g, g, int(w / 12) % 3
    for (j = 0; j < 5; j++) printf ",%.6f", j == 3 ? 0.1 : u() + u() - 1 + p * (j + 1) / 3 + (g == "nt" ? 0 : (w % 12) * (j - 1) / 9)
    print "" } }' > wells.csv
grep -v '^p4' wells.csv > three.csv
tvn=(--align tvn --controls gene=nt --batch plate)

# --- transforms ------------------------------------------------------------------------------------------------
for align in center centerscale pca-cs tvn spherize; do
  map wells.csv --out a.npy --align $align --controls gene=nt --batch plate --save-transform t.safetensors --by gene --threads 1
  check "$align: fitted" [ -s t.safetensors ]
  map wells.csv --out b.npy --transform t.safetensors --controls gene=nt --by gene --threads 2
  check "$align: applied later, bit for bit" cmp a.npy b.npy
  check "$align: the same table" cmp a.csv b.csv
  map three.csv --out b.npy --transform t.safetensors
  check "$align: fewer batches" json '"rows": ?216'
done
map wells.csv --out a.npy --align spherize --controls gene=nt --save-transform t.safetensors
sed 's/^p4/p9/' wells.csv > renamed.csv
map renamed.csv --out b.npy --transform t.safetensors
check 'a transform without batches takes any' cmp a.npy b.npy

# --- how much batch is left ------------------------------------------------------------------------------------
map wells.csv --out a.h5ad "${tvn[@]}"
check 'TVN leaves the means of batches' says 'batch left: plate is told from 96 controls with balanced accuracy 1.000 before aligning and (0.9|1.0).* after \(chance 0.250, 4 batches\)'
check 'it is in the file' grep -aq '"batch_left"' a.h5ad
map wells.csv --out a.h5ad "${tvn[@]}" --batch-center
check 'centred on controls' says 'and 0\.[0-2].* after'
check 'in the JSON' json '"batch_left": ?\{"column": ?"plate", ?"batches": ?4, ?"rows": ?96, ?"chance": ?0.25, ?"before": ?1.0'
map wells.csv --out a.h5ad
check 'not aligned: one number, all rows' says 'plate is told from 288 rows with balanced accuracy (0.9|1.0)[0-9]* \(chance'
map wells.csv --out a.h5ad --where 'plate == p1'
check 'a single batch' says "a single plate, 'p1'"
cut -d, -f3- wells.csv > nobatch.csv; map nobatch.csv --out a.h5ad
check 'no column of batches' says 'no column plate or batch; name one with --batch'

# --- awkward data: one line each -------------------------------------------------------------------------------
check 'constant columns' map wells.csv --out a.h5ad --align centerscale --controls gene=nt --batch plate
check 'constant columns are named' says "in 4 of 4 batches, 'p1' the first, up to 1 of 5 columns do not vary among the controls: centred, not scaled"
map wells.csv --out a.h5ad "${tvn[@]}"
check 'directions without variance' says 'align: 96 controls span 4 of 5 dimensions; the others are dropped'
awk -F, -v OFS=, '$3 == "nt" && n++ > 2 { next } 1' wells.csv > few.csv
map few.csv --out a.h5ad --align tvn --controls gene=nt
check 'fewer controls than dimensions' says '3 controls span 2 of 5 dimensions'
map few.csv --out a.h5ad --align spherize --controls gene=nt
check 'spherize keeps them' json '"columns": ?5'
check 'and says how' says '3 controls span 2 of 5 dimensions; the others are scaled like the weakest of these'
awk -F, -v OFS=, 'NR == 5 { $5 = "nan" } NR == 9 { $6 = "inf" } 1' wells.csv > holes.csv
map holes.csv --out a.h5ad --features 'd*'
check 'rows that are not finite' says '2 of 288 rows hold values that are not finite; they are left out'
check 'are left out' json '"rows": ?286'
map holes.csv --out a.h5ad --features 'd*' --not-finite columns
check 'or columns are' says '2 of 5 columns hold values that are not finite; they are left out'
check 'every row stays' json '"rows": ?288.*"columns": ?3'
awk -F, '!($1 == "p2" && $3 == "nt") && !($1 == "p3" && $3 == "nt" && n++)' wells.csv > poor.csv
check 'batches without controls are refused' bash -c '! "$1" map poor.csv --out b.h5ad --align tvn --controls gene=nt --batch plate 2> err.txt' _ "$lamella"
map poor.csv --out a.h5ad "${tvn[@]}" --min-controls 2
check 'or left out, by name' says "2 of 4 batches have fewer than 2 controls and are left out with their 97 rows: 'p2' \(0\), 'p3' \(1\)"
check 'in the JSON too' json '"batches_left_out": ?\["p2", ?"p3"\]'
map wells.csv --out a.h5ad "${tvn[@]}" --components 0.9
check 'components by variance' says 'components hold (0.9|1)[0-9]* of the variance'
awk -F, -v OFS=, 'NR > 1 && NR % 9 == 0 { $3 = "" } 1' wells.csv > unlabelled.csv
map unlabelled.csv --out a.h5ad --by gene
check 'rows without a label' says "column 'gene' is empty in 32 of 288 rows; they are left out"

# --- genes -----------------------------------------------------------------------------------------------------
for by in gene guide,gene plate,guide,gene; do
  for how in mean median robust; do
    map wells.csv --out a.npy "${tvn[@]}" --by $by --aggregate $how
    check "--by $by --aggregate $how" json '"rows": ?8'
    check 'metadata' grep -qE '(^|,)gene,count' a.csv
  done
done
printf 'gene,zfpkm\nG1,2\nG2,-4\nG4,-5\nG5,0\nG7,-9\nG8,-3\n' > expression.csv
printf 'chr1\t0\t10\tG1\nchr1\t0\t10\tG2\nchr1\t0\t10\tG4\nchr1\t90\t99\tG5\nchr1\t90\t99\tG7\n' > genes.bed
printf 'chr1\t40\t60\n' > centromeres.bed
expressed=(--by gene --expressed expression.csv --expressed-where 'zfpkm >= -3')
map wells.csv --out a.npy --controls gene=nt "${expressed[@]}"
check 'expressed genes stay' json '"rows": ?3'
check 'and it says so' says '3 rows are expressed genes, 3 unexpressed, 2 not in the table: the expressed stay'
arm=(--arm genes.bed --centromeres centromeres.bed --arm-genes 1)
map wells.csv --out a.npy --controls gene=nt "${expressed[@]}" "${arm[@]}"
check 'arms' says '5 of 8 rows have an arm; 1 of 2 arms have more than 1 unexpressed genes and were corrected \(3 rows\)'
check 'arms: expressed genes stay' json '"rows": ?3'
check 'the arm is in the table' grep -q 'G1,24,1p' a.csv
map wells.csv --out a.npy --controls gene=nt "${expressed[@]}" "${arm[@]}" --keep-unexpressed
check 'or all' json '"rows": ?8'
map wells.csv --out a.npy --controls gene=nt "${expressed[@]}" --arm genes.bed --centromeres centromeres.bed
check 'too few genes on every arm' says 'warning: map: --arm changed nothing: no arm has more than 20 unexpressed genes'

echo "map: $cases cases, $failed failed"
[ "$failed" = 0 ]
