#!/usr/bin/env bash
# A sweep gives the numbers of the commands run one by one, names what it does not know, and ends its runs when it is ended.
# Usage: sweep.sh LAMELLA
. "$(dirname "$(realpath "$0")")/common.sh" "$1"

"$lamella" synth screen --genes 60 --image-size 64 --plates 2 --seed 1 --quiet > /dev/null
"$lamella" pack screen/images.csv --out shards --quiet
"$lamella" embed handmade shards --level well --out emb.h5ad --quiet
cat > sweep.yaml <<'YAML'
embeddings: emb.h5ad
map: {align: [none, tvn], controls: gene=non-targeting, aggregate: [mean, median], by: gene}
relate:
  relationships: [[screen/relationships]]
  thresholds: ["0.05:0.95", "0.1:0.9"]
align: {align: centerscale, controls: gene=non-targeting}
probe: {label: gene, folds: [2, 3], leave-one-group-out: false}
consistency: {by: gene, controls: gene=non-targeting, permutations: 50}
retrieve: {by: gene, controls: gene=non-targeting, against: [controls, others], permutations: 50}
YAML
"$lamella" sweep sweep.yaml --out sweep --quiet
[ "$(wc -l < sweep/sweep.csv)" = 14 ] || fail "sweep.csv has $(wc -l < sweep/sweep.csv) lines, not a header and 8 + 2 + 1 + 2 rows"

for align in none tvn; do
  for aggregate in mean median; do
    "$lamella" map emb.h5ad --align $align --controls gene=non-targeting --aggregate $aggregate --by gene --out m.h5ad --force --quiet
    "$lamella" relate m.h5ad --relationships screen/relationships --thresholds 0.1:0.9 --out r --force --quiet
    expected=$(awk -F, 'NR == 1 { for (i = 1; i <= NF; i++) if ($i == "recall_0.1_0.9") at = i; next } { print $at }' r/scores.csv)
    got=$(cell sweep/sweep.csv map.align=$align map.aggregate=$aggregate relate.thresholds=0.1:0.9 recall_0.1_0.9)
    [ -n "$got" ] && [ "$got" = "$expected" ] || fail "$align $aggregate: '$got' in the sweep, '$expected' alone"
  done
done
[ -n "$(cell sweep/sweep.csv probe.folds=3 balanced_accuracy)" ] || fail "no accuracy of three folds"
"$lamella" map emb.h5ad --align centerscale --controls gene=non-targeting --out aligned.h5ad --quiet
"$lamella" retrieve aligned.h5ad --by gene --controls gene=non-targeting --against others --permutations 50 --out r --force --quiet --json > r.json
got=$(cell sweep/sweep.csv retrieve.against=others mean_average_precision)
[ -n "$got" ] && grep -qF "\"mean_average_precision\":$got," r.json || fail "'$got' in the sweep; alone: $(cat r.json)"
[ -n "$(cell sweep/sweep.csv command=consistency consistency.share_p_at_most_0.05)" ] || fail "no share of consistency"
grep -q '<svg' sweep/report.html || fail "the page has no chart"
grep -q '>folds 3</text>' sweep/report.html && grep -q '>align tvn, aggregate median, thresholds 0.1:0.9</text>' sweep/report.html ||
  fail "bars are not named by the settings that differ"
mkdir -p deep/folder && cp emb.h5ad deep/folder/other.h5ad
printf 'embeddings: [emb.h5ad, deep/folder/other.h5ad]\nprobe: {label: gene, folds: 2}\n' > two.yaml
"$lamella" sweep two.yaml --out two --quiet
grep -q '>other.h5ad</text>' two/report.html && [ "$(cut -d, -f1,2 two/report_data/02_probe__x__in_numbers.csv | sed 1d | sort | tr '\n' ' ')" = \
  "probe-1,emb.h5ad probe-2,other.h5ad " ] || { ls two/report_data; fail "rows are not named by their files"; }
[ -d sweep/report_data ] && [ ! -e report_data ] || fail "the page's data lie elsewhere"
echo "ok: the same numbers"

# Some runs fail: the others are there, the code is 1 and one line says what failed.
sed 's/gene=non-targeting, aggregate/gene=nobody, aggregate/' sweep.yaml > some.yaml
code=0; "$lamella" sweep some.yaml --out some --quiet 2> log || code=$?
[ "$code" = 1 ] && grep -q '12 of 18 runs failed.*there are no controls' log || { cat log; fail "failed runs: exit $code"; }
[ "$(wc -l < some/sweep.csv)" = 6 ] || fail "the runs that did not fail are not in the table"
echo "ok: failed runs"

# A smaller sweep over a larger one leaves nothing of it.
printf 'embeddings: emb.h5ad\nprobe: {label: gene, folds: 2}\n' > small.yaml
touch sweep/mine.txt
"$lamella" sweep small.yaml --out sweep --force --quiet
[ "$(ls sweep | tr '\n' ' ')" = "logs mine.txt probe-1 report.html report_data sweep.csv " ] || { ls sweep; fail "an older sweep stays"; }
echo "ok: over an older one"

# TERM ends the sweep and its runs.
printf 'embeddings: emb.h5ad\nconsistency: {by: gene, controls: gene=non-targeting, permutations: [900000, 900001]}\n' > long.yaml
"$lamella" sweep long.yaml --out long --threads 2 --quiet 2> log & pid=$!
for _ in $(seq 200); do [ "$(pgrep -cP $pid || true)" = 2 ] && break; sleep 0.05; done
children=$(pgrep -P $pid) || fail "no run has begun"
kill -TERM $pid; code=0; wait $pid || code=$?
[ "$code" = 143 ] || { cat log; fail "TERM: exit $code"; }
for _ in $(seq 100); do
  left=; for child in $children; do ! kill -0 "$child" 2> /dev/null || left+=" $child"; done
  [ -n "$left" ] || break
  sleep 0.05
done
[ -z "$left" ] || fail "runs go on:$left"
echo "ok: stopped"

refused() { # REGEX LINES...: exit 2 and one line
  local code=0 pattern=$1; shift
  printf '%s\n' "$@" > bad.yaml
  "$lamella" sweep bad.yaml --out bad 2> log || code=$?
  [ "$code" = "${expected_code:-2}" ] && [ "$(wc -l < log)" = 1 ] && grep -qE "$pattern" log || { cat log; fail "'$*': exit $code"; }
  [ ! -e bad ] || fail "'$*' left a folder"
}
good="embeddings: emb.h5ad"
refused 'embeddings is missing' 'map: {by: gene}' 'relate: {relationships: screen}'
refused "bad.yaml:2: unknown section 'mapp'; did you mean 'map'" "$good" 'mapp: {by: gene}'
refused 'bad.yaml:2: unknown key map.aling; did you mean align' "$good" 'map: {aling: none}'
refused "bad.yaml:2: map: --align is 'Tvn'" "$good" 'map: {align: [none, Tvn]}'
refused 'bad.yaml:2: unknown key map.out' "$good" 'map: {out: x}'
refused 'unknown key map.save-transform' "$good" 'map: {save-transform: t.safetensors}'
refused "'--help' would be read as an option" "$good" 'probe: {label: --help}'
refused 'one value, not a list in a list' "$good" 'map: {align: [[none, tvn]]}'
refused "leave-one-group-out is 'yes'" "$good" 'probe: {leave-one-group-out: yes, label: gene}'
refused 'needs a section map' "$good" 'relate: {relationships: screen}'
refused 'no section gives results' "$good" 'map: {by: gene}'
refused 'duplicate key' "$good" 'map: {by: gene}' 'map: {by: plate}'
refused 'empty list' "$good" 'probe: {label: []}'
refused 'must be plain text' "$good" 'probe: {label: {a: b}}'
expected_code=1 refused 'nowhere.h5ad: there is no such file' 'embeddings: [emb.h5ad, nowhere.h5ad]' 'probe: {label: gene}'
echo "ok: refused"
