#!/usr/bin/env bash
# Gene sets, aliases, clusters, neighbours and a null of genes alone, on a map of fourteen rows; expected numbers are scipy's.
# Usage: relate.sh LAMELLA
. "$(dirname "$(realpath "$0")")/common.sh" "$1"

cat > map.csv <<'CSV'
gene,kind,d0,d1,d2
G00,gene,0.70,-1.32,-0.25
G01,gene,1.92,1.14,0.11
G02,gene,0.95,-0.78,0.75
G03,gene,3.13,0.27,-1.23
G04,gene,-0.96,-0.40,0.20
G05,gene,-1.73,-2.08,-1.16
G06,gene,-0.63,-2.49,-0.71
G07,gene,0.55,-0.06,-0.59
G08,gene,0.41,0.83,-1.64
G09,drug,-0.26,-0.98,-0.17
G10,drug,-1.29,0.02,-0.04
G11,drug,-0.30,-1.05,-0.40
G12,drug,-1.09,-1.36,0.22
G13,drug,-1.11,1.17,0.72
CSV
printf 'first\tmade up\tG00\tG01\tOLD2\tG03\tABSENT\r\nsecond\t\tG04\tG05\tG06\tG07\tG08\tG04\r\nlone\tx\tG09\n' > sets.gmt
printf 'other,name\nOLD2,G02\nABSENT,NOWHERE\n' > aliases.csv
relate=("$lamella" relate map.csv --entity gene --quiet --force)

near() { awk -v a="$1" -v b="$2" 'BEGIN { d = a - b; if (d < 0) d = -d; m = b < 0 ? -b : b; exit !(a != "" && d <= 1e-9 * (m > 1e-3 ? m : 1e-3)) }' || fail "$3: '$1', expected $2"; }

# The pairs of sets are those of a table that lists them.
{ echo 'x,y'; for p in 'G00 G01' 'G00 G02' 'G00 G03' 'G01 G02' 'G03 G01' 'G02 G03' 'G04 G05' 'G04 G06' 'G04 G07' 'G04 G08' 'G05 G06' \
    'G05 G07' 'G05 G08' 'G06 G07' 'G06 G08' 'G07 G08' 'G08 G07' 'G01 G01' 'G01 Q'; do echo "${p/ /,}"; done; } > sets.csv
"${relate[@]}" --relationships sets.gmt --aliases aliases.csv --out a
"${relate[@]}" --relationships sets.csv --out b
[ "$(cut -d, -f1-5 a/scores.csv)" = "$(cut -d, -f1-5 b/scores.csv)" ] || fail "sets and their pairs score differently"
[ "$(cell b/scores.csv source=sets query_distribution_size)" = 16 ] || fail "not 16 pairs"
[ "$(cell b/scores.csv source=sets pairs_repeated) $(cell b/scores.csv source=sets pairs_with_itself) $(cell b/scores.csv source=sets pairs_not_in_map)" = "1 1 1" ] ||
  fail "what was dropped is counted wrongly"
"${relate[@]}" --relationships sets.gmt --out c
[ "$(cell c/scores.csv source=sets query_distribution_size)" = 13 ] || fail "without aliases there are not 13 pairs"
echo "ok: sets and aliases"

"${relate[@]}" --relationships sets.csv --clusters sets.gmt --aliases aliases.csv --min-genes 4 --neighbours G00 --top 4 --out d
while read -r cluster column value; do near "$(cell d/clusters.csv cluster="$cluster" "$column")" "$value" "$cluster $column"; done <<'E2'
first within_mean 0.4281477866533984
first between_mean -0.1891114906004369
first ks 0.625
first ks_p 0.01899022496324526
first ks_q 0.03798044992649052
first cvm 0.689311594202898
second within_mean 0.13581765684566288
second ks_p 0.9524245340513829
second cvm 0.03656565656565647
E2
[ "$(wc -l < d/clusters.csv)" = 3 ] || fail "a cluster of too few genes is tested"
[ "$(cell d/clusters.csv cluster=first genes) $(cell d/clusters.csv cluster=first genes_listed)" = "4 5" ] || fail "genes of a cluster"
[ "$(awk -F, 'NR > 1 { printf "%s ", $3 }' d/neighbours.csv)" = "G06 G09 G11 G02 " ] || fail "neighbours of G00"
near "$(cell d/enrichment.csv cluster=first p)" 0.7902097902097902 "enrichment p"
near "$(cell d/enrichment.csv cluster=second jaccard)" 0.125 "enrichment jaccard"
near "$(cell d/enrichment.csv cluster=second p_bonferroni)" 1 "enrichment p_bonferroni"
echo "ok: clusters, neighbours, enrichment"

"${relate[@]}" --relationships sets.csv --null genes --genes 'kind == gene' --out e
[ "$(cell e/scores.csv source=sets null_distribution_size)" = 36 ] || fail "the null of 9 genes has not 36 pairs"
printf 'entity1,entity2\nG00,G01\nG01,G05\nG13,Q\n' > few.csv
"${relate[@]}" --relationships few.csv --null genes --out f
[ "$(cell f/scores.csv source=few null_distribution_size)" = 6 ] || fail "the null of the 4 named genes has not 6 pairs"
echo "ok: a null of genes"

# Two arms of one chromosome and a gene on none; G00 and G02 lie on one arm, G01 on the other.
{ echo 'gene,chromosome,start,end'; echo 'G00,7,100,200'; echo 'G01,7,9000,9100'; echo 'G02,7,300,400'; echo 'G04,X,1,2'; } > genes.csv
printf '7\t4000\t5000\n' > centromeres.bed
"${relate[@]}" --relationships sets.csv --arm genes.csv --centromeres centromeres.bed --out g
[ "$(cell g/arms.csv source=sets stratum=within_arm query_distribution_size)" = 1 ] || fail "G00 and G02 are not the one pair on one arm"
[ "$(cell g/arms.csv source=sets stratum=between_arms query_distribution_size)" = 2 ] || fail "not two pairs on two arms"
[ "$(cell g/arms.csv source=sets stratum=between_arms null_distribution_size)" = 2 ] || fail "the null of two arms has not two pairs"
echo "ok: arms"
