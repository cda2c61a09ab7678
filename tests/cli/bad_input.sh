#!/usr/bin/env bash
# Bad input over all commands: one clear line on standard error, the right exit code, nothing written.
# Usage: bad_input.sh LAMELLA
set -u
lamella=$(readlink -f "$1")
golden=$(readlink -f "$(dirname "$0")/../golden/embeddings")
work=$(mktemp -d)
trap 'chmod -R u+w "$work"; rm -rf "$work"' EXIT
cd "$work"
cases=0 failed=0

# expect CODE REGEX command...: the message is the last line, the only one that starts with "lamella:".
expect() {
  local code=$1 pattern=$2 got lines; shift 2
  cases=$((cases + 1))
  "$@" > out.txt 2> err.txt < /dev/null; got=$?
  lines=$(grep -c '^lamella: ' err.txt)
  if [ "$got" != "$code" ] || [ "$lines" != 1 ] || ! grep -E '^lamella: ' err.txt | grep -qE -- "$pattern"; then
    failed=$((failed + 1))
    echo "FAILED case $cases: ${*/#$lamella/lamella}"
    echo "  expected exit $code and one line like /$pattern/; got exit $got:"
    sed 's/^/  | /' err.txt | tail -5
  fi
}
absent() { for path in "$@"; do if [ -e "$path" ]; then failed=$((failed + 1)); echo "FAILED: $path was left behind"; fi; done; }
leaves_nothing() { # OUT CODE REGEX command...
  local path=$1; shift
  expect "$@"
  absent "$path"
}

# --- what the cases start from -------------------------------------------------------------------------------
"$lamella" synth screen --genes 60 --image-size 64 --plates 2 --seed 1 --quiet || exit 1
"$lamella" pack screen/images.csv --out shards --quiet || exit 1
head -1 screen/images.csv > header.csv
printf 'model: {embed_dim: 32, depth: 1, num_heads: 2, patch_size: 8, image_size: 32, decoder_embed_dim: 32, decoder_depth: 1, decoder_num_heads: 2}\ndata: {path: shards}\ntrain: {steps: 2, global_batch: 4, out: run}\noptim: {lr: 1.0e-3}\n' > good.yaml
"$lamella" train good.yaml --quiet || exit 1
"$lamella" embed run shards --out emb.h5ad --level well --quiet || exit 1
"$lamella" map emb.h5ad --out map.h5ad --by gene --quiet || exit 1
png=$(ls screen/images/*.png | head -1)
one_image() { # NAME CELLS...: a table with one row
  local name=$1; shift; printf 'file,plate,well\n%s,p1,A01\n' "$1" > "$name"
}

# --- command line --------------------------------------------------------------------------------------------
expect 2 'unknown command.*pack' "$lamella" pakc
"$lamella" > out.txt 2> err.txt; code=$?
[ $code = 2 ] && [ ! -s out.txt ] && grep -q 'Usage: lamella COMMAND' err.txt || { failed=$((failed + 1)); echo "FAILED: no command: exit $code"; }
expect 2 'empty.*EMB' "$lamella" map '' --out x.h5ad
expect 2 '--out is empty' "$lamella" map emb.h5ad --out ''
expect 2 'allowed is 0 to 9007199254740992$' "$lamella" synth x --seed -1
expect 2 'beta2 is .1., allowed is a number from 0 to 0.9999999$' "$lamella" train good.yaml optim.beta2=1 train.out=badrun
expect 2 'data.path is empty: folder of shards' "$lamella" train good.yaml data.path= train.out=badrun
expect 1 'standard output cannot be written' bash -c "'$lamella' --man > /dev/full"
if grep -q Success err.txt; then failed=$((failed + 1)); echo 'FAILED: an error named Success'; fi
leaves_nothing x.h5ad 1 'standard output is closed' bash -c "'$lamella' map emb.h5ad --out x.h5ad --by gene --json >&-"
expect 2 'shards.*is a folder' "$lamella" report map.h5ad --out shards --force
expect 2 'unknown option.*--out' "$lamella" pack screen/images.csv --oot x
expect 2 '--out.*missing' "$lamella" pack screen/images.csv
expect 2 'IMAGES' "$lamella" pack --out x
expect 2 'value' "$lamella" pack screen/images.csv --out
expect 2 'integer' "$lamella" synth x --seed 3abc
expect 2 'integer' "$lamella" synth x --seed 3.5
expect 2 '1' "$lamella" synth x --plates 0
expect 2 'none.*center' "$lamella" map emb.h5ad --out x.h5ad --align tvm
expect 2 'too many|unexpected' "$lamella" map emb.h5ad other.h5ad --out x.h5ad
expect 2 'exists already.*--force' "$lamella" pack screen/images.csv --out shards
expect 2 'exists already.*--force' "$lamella" map emb.h5ad --out map.h5ad --by gene
expect 2 'exists already.*--force' "$lamella" synth screen
mkfifo pipe.h5ad; expect 2 "'pipe.h5ad' is neither a file nor a folder" "$lamella" map emb.h5ad --out pipe.h5ad --by gene --force
[ -p pipe.h5ad ] || fail "--force replaces a pipe"; rm pipe.h5ad
expect 1 'Not a directory' "$lamella" map emb.h5ad --out screen/images.csv/map.h5ad --by gene
# Where results go is checked before anything is read: these inputs are empty or not there.
: > nothing.h5ad; expect 2 'x.txt: embeddings are written as .h5ad or .npy' "$lamella" map nothing.h5ad --out x.txt
expect 2 'x.csv: embeddings are written as .h5ad or .npy' "$lamella" embed nowhere shards --out x.csv
expect 1 'nowhere/x.h5ad: cannot be written' "$lamella" embed nowhere shards --out nowhere/x.h5ad
cp header.csv beside.csv; expect 2 'beside.csv.*--force' "$lamella" embed nowhere shards --out beside.npy
for out in header.csv/x header.csv/deep/x; do
  expect 1 'header.csv/.*cannot be written' "$lamella" relate nowhere.h5ad --relationships screen/relationships --out $out
  expect 1 'header.csv/.*cannot be written' "$lamella" retrieve nowhere.h5ad --by gene --out $out
  expect 1 'header.csv/.*cannot be written' "$lamella" consistency nowhere.h5ad --by gene --controls gene=non-targeting --out $out
  expect 1 'header.csv/.*cannot be written' "$lamella" probe nowhere.h5ad --label gene --out $out
  expect 1 'header.csv/.*cannot be written' "$lamella" sweep nowhere.yaml --out $out
  expect 1 'header.csv/.*cannot be written' "$lamella" pack nowhere.csv --out $out
done
# What is not there is told with what is taken instead; map tells it before what lies at --out.
for command in 'embed nowhere shards --out x.h5ad' 'embed nowhere/x.safetensors shards --out x.h5ad --ema' 'inspect nowhere' \
  'export nowhere --to huggingface --out x'; do
  expect 1 'nowhere.*: no such file or folder; name a run, checkpoint or weights file' "$lamella" $command
done
expect 1 'nowhere.h5ad: no such file; name embeddings' "$lamella" map nowhere.h5ad --out nothing.h5ad
leaves_nothing x.jpg 2 'x.jpg: pictures are written as PNG' "$lamella" inspect shards --image x.jpg
expect 2 'threads' "$lamella" map emb.h5ad --out x.h5ad --threads -2

# --- pack: tables --------------------------------------------------------------------------------------------
leaves_nothing bad 1 'nothing.csv.*No such file' "$lamella" pack nothing.csv --out bad
: > empty.csv; leaves_nothing bad 1 'empty.csv.*empty' "$lamella" pack empty.csv --out bad
leaves_nothing bad 1 'no rows' "$lamella" pack header.csv --out bad
printf 'plate,well\np,A01\n' > nofile.csv; leaves_nothing bad 1 'file' "$lamella" pack nofile.csv --out bad
leaves_nothing bad 1 "no column says where.*there are: plate, well" "$lamella" pack nofile.csv --out bad
printf 'file_DNA;plate\nx.png;p\n' > semicolon.csv; leaves_nothing bad 1 "is the separator ';'" "$lamella" pack semicolon.csv --out bad
printf 'file,plate,plate\nx.png,a,b\n' > twice.csv; leaves_nothing bad 1 'twice|duplicate.*plate' "$lamella" pack twice.csv --out bad
printf 'file,plate\nx.png\n' > short.csv; leaves_nothing bad 1 'short.csv:2' "$lamella" pack short.csv --out bad
printf 'file,plate\n"x.png,a\n' > quote.csv; leaves_nothing bad 1 'quote' "$lamella" pack quote.csv --out bad
(cat screen/images.csv; sed -n 2p screen/images.csv) > duplicate.csv; cp duplicate.csv screen/
leaves_nothing bad 1 'duplicate|same' "$lamella" pack screen/duplicate.csv --out bad
one_image missing.csv nowhere.png; leaves_nothing bad 1 'nowhere.png' "$lamella" pack missing.csv --out bad
leaves_nothing bad 1 'channel.*DNA' "$lamella" pack screen/images.csv --out bad --channels DNB
leaves_nothing bad 1 'group.*column|column.*fild' "$lamella" pack screen/images.csv --out bad --group fild
leaves_nothing bad 1 'bit' "$lamella" pack screen/images.csv --out bad --bit-depth 8
expect 2 'OLD=NEW' "$lamella" pack screen/images.csv --out bad --path-prefix nonsense

# --- pack: image files ---------------------------------------------------------------------------------------
head -c 300 "$png" > cut.png; one_image a.csv cut.png; leaves_nothing bad 1 'cut.png' "$lamella" pack a.csv --out bad
printf 'hello, this is no picture' > text.png; one_image a.csv text.png; leaves_nothing bad 1 'text.png' "$lamella" pack a.csv --out bad
: > none.png; one_image a.csv none.png; leaves_nothing bad 1 'none.png' "$lamella" pack a.csv --out bad
(head -c 20 "$png"; printf '\377'; tail -c +22 "$png") > lie.png; one_image a.csv lie.png; leaves_nothing bad 1 'lie.png' "$lamella" pack a.csv --out bad
printf 'II*\0\377\377\377\377' > cut.tif; one_image a.csv cut.tif; leaves_nothing bad 1 'cut.tif' "$lamella" pack a.csv --out bad
printf 'II*\0\010\0\0\0\0\0\0\0\0\0' > empty.tif; one_image a.csv empty.tif; leaves_nothing bad 1 'empty.tif' "$lamella" pack a.csv --out bad
tag() { printf "$(printf '\\x%02x\\x%02x\\x%02x\\0\\1\\0\\0\\0\\x%02x\\0\\0\\0' $(($1 % 256)) $(($1 / 256)) "$2" "$3")"; } # one number
(printf 'II*\0\010\0\0\0\010\0'; tag 256 3 8; tag 257 3 8; tag 258 3 8; tag 259 3 1; tag 262 3 1; tag 273 4 110; tag 278 3 8; tag 279 4 64
  printf '\0\0\0\0short of pixels') > strip.tif
one_image a.csv strip.tif; leaves_nothing bad 1 'strip.tif: damaged TIFF: Read error' "$lamella" pack a.csv --out bad
if grep -q 4294967295 err.txt; then failed=$((failed + 1)); echo "FAILED: a row that is none: $(cat err.txt)"; fi
printf 'no tiff' > text.tif; one_image a.csv text.tif; leaves_nothing bad 1 'text.tif' "$lamella" pack a.csv --out bad
printf '\0\0\0\014jP  \015\012\207\012' > cut.jp2; one_image a.csv cut.jp2; leaves_nothing bad 1 'cut.jp2' "$lamella" pack a.csv --out bad
printf 'no jp2' > text.jp2; one_image a.csv text.jp2; leaves_nothing bad 1 'text.jp2' "$lamella" pack a.csv --out bad
printf '\377O\377Q' > cut.j2k; one_image a.csv cut.j2k; leaves_nothing bad 1 'cut.j2k' "$lamella" pack a.csv --out bad
npy() { printf '\223NUMPY\001\000v\000%-117s\n' "$1"; }
(npy "{'descr': '<u2', 'fortran_order': False, 'shape': (2, 8, 8), }"; head -c 100 /dev/zero) > cut.npy
one_image a.csv cut.npy; leaves_nothing bad 1 'cut.npy' "$lamella" pack a.csv --out bad
(npy "{'descr': '<u2', 'fortran_order': True, 'shape': (1, 2, 2), }"; head -c 8 /dev/zero) > fortran.npy
one_image a.csv fortran.npy; leaves_nothing bad 1 'ortran' "$lamella" pack a.csv --out bad
(npy "{'descr': '>u2', 'fortran_order': False, 'shape': (1, 2, 2), }"; head -c 8 /dev/zero) > big.npy
one_image a.csv big.npy; leaves_nothing bad 1 'big.npy' "$lamella" pack a.csv --out bad
(npy "{'descr': '<u2', 'fortran_order': False, 'shape': (99999999999, 99999999999, 99999999999), }") > huge.npy
one_image a.csv huge.npy; leaves_nothing bad 1 'huge.npy' "$lamella" pack a.csv --out bad
(npy "{'descr': '<f4', 'fortran_order': False, 'shape': (1, 2, 2), }"; head -c 16 /dev/zero) > float.npy
one_image a.csv float.npy; leaves_nothing bad 1 'float.npy' "$lamella" pack a.csv --out bad
printf '\050\265\057\375garbage' > bad.npy.zst; one_image a.csv bad.npy.zst; leaves_nothing bad 1 'bad.npy.zst' "$lamella" pack a.csv --out bad
printf '\037\213\010garbage' > bad.npy.gz; one_image a.csv bad.npy.gz; leaves_nothing bad 1 'bad.npy.gz' "$lamella" pack a.csv --out bad
(npy "{'descr': '|u1', 'fortran_order': False, 'shape': (2, 1, 4, 4), }"; head -c 32 /dev/zero) > stack.npy
printf 'file,row\nstack.npy,7\n' > a.csv; leaves_nothing bad 1 'row' "$lamella" pack a.csv --out bad
(npy "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 4, 4), }"; head -c 16 /dev/zero) > small.npy
(npy "{'descr': '|u1', 'fortran_order': False, 'shape': (1, 8, 8), }"; head -c 64 /dev/zero) > large.npy
printf 'file_A,file_B\nsmall.npy,large.npy\n' > a.csv; leaves_nothing bad 1 'size|large.npy' "$lamella" pack a.csv --out bad
(npy "{'descr': '<u2', 'fortran_order': False, 'shape': (1, 4, 4), }"; head -c 32 /dev/zero) > deep.npy
cp small.npy small2.npy; cp deep.npy deep2.npy
printf 'file,plate\nsmall.npy,a\ndeep.npy,a\nsmall2.npy,b\ndeep2.npy,b\n' > a.csv
mixed_depths() { # options; warnings: how many files of another depth are named
  "$lamella" pack a.csv --out mixed --force --quiet "$@" 2> err.txt || { failed=$((failed + 1)); echo "FAILED: pack of two depths"; }
  grep -c '^warning: channel ch1: .*deep.npy has 16-bit pixels, .*small.npy has 8-bit ones' err.txt
}
if [ "$(mixed_depths)" != 1 ] || [ "$(wc -l < err.txt)" != 1 ]; then failed=$((failed + 1)); echo "FAILED: two depths in one channel: $(cat err.txt)"; fi
if [ "$(mixed_depths --bit-depth 8)" != 0 ]; then failed=$((failed + 1)); echo "FAILED: two depths, one scale: $(cat err.txt)"; fi
printf 'file,plate\nsmall.npy,a\nstack.npy,b\n' > a.csv; leaves_nothing bad 1 'stack.npy' "$lamella" pack a.csv --out bad
printf 'scan.xyz' > scan.xyz; one_image a.csv scan.xyz; leaves_nothing bad 1 'scan.xyz' "$lamella" pack a.csv --out bad

# --- a pipe that nobody writes to is no file, whatever reads it ------------------------------------------------
for pipe in pipe.png pipe.npy pipe.csv pipe.yaml pipe.safetensors pipe.h5ad; do mkfifo $pipe; done
one_image a.csv pipe.png; leaves_nothing bad 1 'pipe.png: not a regular file' timeout 20 "$lamella" pack a.csv --out bad
one_image a.csv pipe.npy; leaves_nothing bad 1 'pipe.npy: not a regular file' timeout 20 "$lamella" pack a.csv --out bad
leaves_nothing bad 1 'pipe.csv: is not a regular file' timeout 20 "$lamella" pack pipe.csv --out bad
expect 1 'pipe.yaml: is not a regular file' timeout 20 "$lamella" train pipe.yaml train.out=badrun
leaves_nothing x.h5ad 1 'pipe.safetensors: is not a regular file' timeout 20 "$lamella" embed pipe.safetensors shards --out x.h5ad
for pipe in pipe.h5ad pipe.npy pipe.csv; do
  leaves_nothing x.h5ad 1 "$pipe: is not a regular file" timeout 20 "$lamella" map $pipe --out x.h5ad --by gene
done

# --- shards --------------------------------------------------------------------------------------------------
expect 1 'nowhere' "$lamella" inspect nowhere
expect 1 'it takes a folder of shards' "$lamella" inspect "$png"
mkdir emptydir; expect 1 'emptydir.*it takes a folder of shards' "$lamella" inspect emptydir
cp -r shards cutshards; truncate -s 500 cutshards/shard_00000.lam; expect 1 'cutshards' "$lamella" inspect cutshards
cp -r shards noindex; printf 'X' | dd of=noindex/shard_00000.lam bs=1 seek=$(($(stat -c %s noindex/shard_00000.lam) - 40)) conv=notrunc status=none
expect 1 'noindex' "$lamella" inspect noindex
cp -r shards nojson; rm nojson/dataset.json; expect 1 'nojson' "$lamella" inspect nojson
cp -r shards badjson; echo '{' > badjson/dataset.json; expect 1 'dataset.json' "$lamella" inspect badjson
cp -r shards edited; sed -i '0,/"bits": [0-9]*/s//"bits": 8/' edited/dataset.json; expect 1 'dataset.json.*checksum' "$lamella" inspect edited
# A finished dataset stays: of another table, with an image that cannot be read, without --force.
head -3 screen/images.csv > screen/few.csv; expect 2 'finished dataset of another table.*--force' "$lamella" pack screen/few.csv --out shards --resume
printf 'file,plate,well\nimages.csv,p,A01\n' > screen/lies.csv; expect 1 'images.csv' "$lamella" pack screen/lies.csv --out shards --force
"$lamella" inspect shards > /dev/null 2>&1 || { failed=$((failed + 1)); echo 'FAILED: a pack that failed took the old dataset away'; }
mkdir stopped; touch stopped/shard_00000.lam.partial-1; expect 1 'not a complete shard folder.*--resume' "$lamella" inspect stopped
expect 2 'stopped.*--resume' "$lamella" pack screen/images.csv --out stopped

# --- train ---------------------------------------------------------------------------------------------------
expect 1 'none.yaml' "$lamella" train none.yaml
: > empty.yaml; expect 2 'empty.yaml' "$lamella" train empty.yaml
config() { # REGEX CONTENT
  printf '%b' "$2" > bad.yaml; leaves_nothing badrun 2 "$1" "$lamella" train bad.yaml train.out=badrun
}
config 'bad.yaml:1.*dept.*depth' 'model: {dept: 3}\n'
config 'bad.yaml:1.*depth.*integer' 'model: {depth: 3.5}\n'
config 'bad.yaml:1.*depth.*integer' 'model: {depth: 3abc}\n'
config 'bad.yaml:2.*depth' 'model:\n  depth: -3\n'
config 'bad.yaml:3.*(twice|duplicate)' 'model:\n  depth: 3\n  depth: 4\n'
config 'bad.yaml:2.*tab' 'model:\n\tdepth: 3\n'
config 'anchor' 'model: &a {depth: 3}\n'
config 'cosine' 'optim: {schedule: cosinus}\n'
config 'true|false' 'data: {flips: maybe}\n'
expect 2 'command line.*modle' "$lamella" train good.yaml modle.depth=3 train.out=badrun
expect 2 'key.path=value|=' "$lamella" train good.yaml nonsense train.out=badrun
expect 2 'num_heads' "$lamella" train good.yaml model.num_heads=5 train.out=badrun
expect 2 'patch_size' "$lamella" train good.yaml model.patch_size=7 train.out=badrun
expect 2 'holds a run already.*--force' "$lamella" train good.yaml
expect 1 'image_size|smaller' "$lamella" train good.yaml model.image_size=4096 train.out=badrun
expect 1 'nowhere' "$lamella" train good.yaml data.path=nowhere train.out=badrun
expect 1 'noindex' "$lamella" train good.yaml data.path=noindex train.out=badrun
expect 2 'channels' "$lamella" train good.yaml model.in_channels=3 train.out=badrun
absent badrun

# --- embed ---------------------------------------------------------------------------------------------------
leaves_nothing x.h5ad 1 'nowhere' "$lamella" embed nowhere shards --out x.h5ad
cp -r run cutrun; for f in cutrun/checkpoints/step_*/model.safetensors; do truncate -s 100 "$f"; done
leaves_nothing x.h5ad 1 'cutrun' "$lamella" embed cutrun shards --out x.h5ad
printf '\377\377\377\377\377\377\377\177{}' > huge.safetensors; leaves_nothing x.h5ad 1 'huge.safetensors' "$lamella" embed huge.safetensors shards --out x.h5ad
leaves_nothing x.h5ad 2 'block' "$lamella" embed run shards --out x.h5ad --block 99
mkdir badlatest; echo newest > badlatest/latest
leaves_nothing x.h5ad 1 'badlatest/latest: names no step folder' "$lamella" embed badlatest/latest shards --out x.h5ad
sed '1s/\bwell\b/position/' screen/images.csv > wellless.csv
"$lamella" pack wellless.csv --images screen --out wellless --quiet || exit 1
leaves_nothing x.h5ad 1 '^lamella: --level well: wellless has no column well' "$lamella" embed intensity wellless --level well --out x.h5ad
if grep -q '^embed: ' err.txt; then failed=$((failed + 1)); echo 'FAILED: --level well without wells computes first'; fi
leaves_nothing x.h5ad 1 'nowhere' "$lamella" embed run nowhere --out x.h5ad
expect 1 'nowhere/x.h5ad: cannot be written' "$lamella" embed run shards --out nowhere/x.h5ad
if grep -q 'embed: ' err.txt; then failed=$((failed + 1)); echo 'FAILED: embedded first, refused afterwards'; fi

# --- map -----------------------------------------------------------------------------------------------------
leaves_nothing x.h5ad 1 'nowhere' "$lamella" map nowhere.h5ad --out x.h5ad --by gene
leaves_nothing x.h5ad 1 'text.png' "$lamella" map text.png --out x.h5ad --by gene
head -c 1000 emb.h5ad > cut.h5ad; leaves_nothing x.h5ad 1 'cut.h5ad' "$lamella" map cut.h5ad --out x.h5ad --by gene
leaves_nothing x.h5ad 1 'anndata before 0.7; convert it' "$lamella" map "$golden/compound_obs.h5ad" --out x.h5ad --by gene
leaves_nothing x.h5ad 1 'blosc.*gzip' "$lamella" map "$golden/packed_0_12.h5ad" --key blosc --out x.h5ad --align center
leaves_nothing x.h5ad 1 'lzf_back; the file is damaged' "$lamella" map "$golden/packed_0_12.h5ad" --key lzf_back --out x.h5ad --align center
leaves_nothing x.h5ad 1 'obsm/words.*no column of numbers' "$lamella" map "$golden/matrices_0_12.h5ad" --key words --out x.h5ad --align center
leaves_nothing x.h5ad 1 'awkward-array' "$lamella" map "$golden/matrices_0_12.h5ad" --key awkward --out x.h5ad --align center
leaves_nothing x.h5ad 1 'gnee.*gene' "$lamella" map emb.h5ad --out x.h5ad --by gnee
leaves_nothing x.h5ad 1 'no controls|no row' "$lamella" map emb.h5ad --out x.h5ad --by gene --align tvn --controls gene=nothing
leaves_nothing x.h5ad 2 'controls' "$lamella" map emb.h5ad --out x.h5ad --by gene --align tvn
leaves_nothing x.h5ad 2 'belongs to --align tvn' "$lamella" map emb.h5ad --out x.h5ad --align center --shrinkage ledoit-wolf
leaves_nothing x.h5ad 2 'column=value' "$lamella" map emb.h5ad --out x.h5ad --by gene --align tvn --controls nonsense
leaves_nothing x.h5ad 2 'ledoit-wolf' "$lamella" map emb.h5ad --out x.h5ad --align tvn --controls all --shrinkage 1.5
leaves_nothing x.h5ad 2 'without --batch' "$lamella" map emb.h5ad --out x.h5ad --align tvn --controls all --within gene --batch plate
leaves_nothing x.h5ad 1 'no column|nothing' "$lamella" map emb.h5ad --out x.h5ad --align tvn --controls all --within nothing
leaves_nothing x.h5ad 1 'batsh.*batch' "$lamella" map emb.h5ad --out x.h5ad --by gene --align center --batch batsh
leaves_nothing x.h5ad 2 'where|position' "$lamella" map emb.h5ad --out x.h5ad --by gene --where 'gene ==='
leaves_nothing x.h5ad 1 'no row' "$lamella" map emb.h5ad --out x.h5ad --by gene --where 'gene == nothing'
printf 'gene,d0,d1\nA,nan,nan\nB,nan,1\n' > nan.csv
refuse() { leaves_nothing x.h5ad "$1" "$2" "$lamella" map emb.h5ad --out x.h5ad "${@:3}"; }
refuse 2 'needs --batch' --align tvn --controls all --batch-center
refuse 2 'needs --batch' --align center --min-controls 3
refuse 2 'min-controls' --align center --batch plate --min-controls 0
refuse 1 'no batch has 9999 rows' --align center --batch plate --min-controls 9999
refuse 2 'batch-center belongs to --align pca-cs, tvn and spherize' --align center --batch plate --batch-center
refuse 2 'components belongs to --align pca-cs and tvn' --align spherize --controls all --components 3
refuse 2 'regularization belongs to --align spherize' --align tvn --controls all --regularization 1
refuse 2 'regularization' --align spherize --controls all --regularization -1
refuse 2 'save-transform belongs to' --save-transform t.safetensors
for bad in 1.5 1.0 -1 3x nan 2000000; do refuse 2 'a count or a share' --align tvn --controls all --components "$bad"; done
refuse 2 'names .gene. twice' --by gene,gene
refuse 2 '1 to 16' --by "$(printf 'a%d,' {1..17})"
refuse 1 'guied.*guide|no column' --by guied,gene
refuse 2 'mean.*median.*robust' --by gene --aggregate trimmed
refuse 2 'choose them with --features' --align center --not-finite columns --save-transform t.safetensors
leaves_nothing x.h5ad 1 'every column.*--not-finite rows' "$lamella" map nan.csv --out x.h5ad --not-finite columns --features 'd*'
# batches without controls: named, and what to do
printf 'gene,plate,d0,d1\nnt,p1,1,2\nnt,p1,2,1\nA,p1,3,3\nA,p2,1,1\nnt,p3,0,1\nA,p3,4,4\n' > few.csv
for method in 'centerscale' 'pca-cs' 'tvn'; do
  leaves_nothing x.h5ad 1 "batch 'p2' has 0 controls, 'p3' 1: at least 2.*--min-controls 2" "$lamella" map few.csv --out x.h5ad --align $method --controls gene=nt --batch plate
done
leaves_nothing x.h5ad 1 "batch 'p2' has 0 controls: at least 1" "$lamella" map few.csv --out x.h5ad --align spherize --controls gene=nt --batch plate --batch-center
leaves_nothing x.h5ad 1 '1 controls: at least 2 are needed' "$lamella" map few.csv --out x.h5ad --align tvn --controls gene=nt --where "plate == p3"
leaves_nothing x.h5ad 1 '1 controls: at least 2 are needed' "$lamella" map few.csv --out x.h5ad --align centerscale --controls gene=nt --where 'plate == p3'
printf 'gene,d0,d1\nnt,1,2\nnt,1,2\nA,3,3\n' > same.csv
for method in pca-cs tvn spherize; do
  leaves_nothing x.h5ad 1 'controls do not vary' "$lamella" map same.csv --out x.h5ad --align $method --controls gene=nt
done
# tables of genes
printf 'gene,tpm\nA,1\n' > tpm.csv; printf 'gene,arm\nA,1p\n' > arm.csv
refuse 2 'expressed-where needs --expressed' --by gene --expressed-where 'tpm > 0'
refuse 2 'means over unexpressed genes' --by gene --arm arm.csv
refuse 2 'centromeres needs --arm' --by gene --expressed tpm.csv --centromeres arm.csv
refuse 2 'arm-genes needs --arm' --by gene --expressed tpm.csv --arm-genes 5
refuse 2 'keep-unexpressed needs --arm' --by gene --expressed tpm.csv --keep-unexpressed
refuse 2 'gene belongs to --expressed' --gene gene
refuse 1 'nowhere.csv' --by gene --expressed nowhere.csv
refuse 2 'expressed-where: .*position' --by gene --expressed tpm.csv --expressed-where 'tpm >'
refuse 1 'no row of the map is an expressed gene of tpm.csv' --by gene --expressed tpm.csv
refuse 1 'gnee.*gene' --by gene --expressed tpm.csv --gene gnee
leaves_nothing x.h5ad 1 "gene 'A' stands in several rows.*--by" "$lamella" map few.csv --out x.h5ad --expressed tpm.csv --arm arm.csv
leaves_nothing x.h5ad 1 'no gene of the map has a chromosome arm' "$lamella" map few.csv --out x.h5ad --by plate --expressed tpm.csv --arm arm.csv
leaves_nothing x.h5ad 2 'leave out --centromeres' "$lamella" map few.csv --out x.h5ad --by gene --expressed tpm.csv --arm arm.csv --centromeres arm.csv
printf 'chr1\t5\t4\tA\n' > back.bed; leaves_nothing x.h5ad 1 'back.bed:1: start' "$lamella" map few.csv --out x.h5ad --by gene --expressed tpm.csv --arm back.bed --centromeres back.bed
printf 'chr1\t5\t6\tA\n' > one.bed; leaves_nothing x.h5ad 2 'name the centromeres' "$lamella" map few.csv --out x.h5ad --by gene --expressed tpm.csv --arm one.bed
# transforms
"$lamella" map few.csv --out fit.h5ad --align centerscale --controls gene=nt --batch plate --min-controls 2 --save-transform t.safetensors --quiet || exit 1
apply() { leaves_nothing x.h5ad "$1" "$2" "$lamella" map "$3" --out x.h5ad --transform "${@:4}"; }
apply 1 "does not know 2 of 3 batches by column 'plate', 'p2' the first" few.csv t.safetensors
apply 1 'takes 2 columns, the embeddings have' emb.h5ad t.safetensors
apply 1 'fitted with --controls gene=nt, not with --controls gene=A' few.csv t.safetensors --controls gene=A
apply 1 'fitted with --batch plate, not with --batch gene' few.csv t.safetensors --batch gene
apply 1 "no column.*plate|plate.*column" same.csv t.safetensors
apply 2 'leave out --align' few.csv t.safetensors --align tvn
apply 2 'leave out --min-controls' few.csv t.safetensors --batch plate --min-controls 2
apply 2 'leave out --save-transform' few.csv t.safetensors --save-transform u.safetensors
apply 1 'nowhere.safetensors' few.csv nowhere.safetensors
head -c 200 t.safetensors > cut.safetensors; apply 1 'cut.safetensors' few.csv cut.safetensors
apply 1 "format 'pt', lamella-transform-1 is read here" few.csv "$(ls run/checkpoints/step_*/model.safetensors | head -1)"
expect 2 "'t.safetensors' exists already.*--force" "$lamella" map few.csv --out x.h5ad --align center --save-transform t.safetensors
absent x.h5ad u.safetensors
touch x.parquet; leaves_nothing x.h5ad 1 'parquet.*pandas' "$lamella" map x.parquet --out x.h5ad --by gene
leaves_nothing x.h5ad 1 'nan.csv|finite|numeric' "$lamella" map nan.csv --out x.h5ad --by gene
printf 'gene,plate\nA,x\n' > nonumbers.csv; leaves_nothing x.h5ad 1 'numeric|feature' "$lamella" map nonumbers.csv --out x.h5ad --by gene
leaves_nothing nofolder/x.h5ad 1 'nofolder' "$lamella" map emb.h5ad --out nofolder/x.h5ad --by gene

# --- relate --------------------------------------------------------------------------------------------------
leaves_nothing res 1 'nowhere' "$lamella" relate map.h5ad --relationships nowhere --out res
leaves_nothing res 1 'map --by' "$lamella" relate emb.h5ad --entity gene --relationships screen/relationships --out res
printf 'a,b\nA,B\n' > wrong.txt; leaves_nothing res 1 'do the names agree' "$lamella" relate map.h5ad --relationships wrong.txt --out res
printf 'entity1,entity2\nQQ1,QQ2\n' > none.txt; leaves_nothing res 1 'none.txt|none|pair' "$lamella" relate map.h5ad --relationships none.txt --out res
printf 'a\nA\n' > single.txt; leaves_nothing res 1 'single.txt.*two are needed' "$lamella" relate map.h5ad --relationships single.txt --out res
leaves_nothing res 1 'nowhere' "$lamella" relate map.h5ad --relationships screen/relationships --out res --clusters nowhere.gmt
printf 'one\n' > nogenes.gmt; leaves_nothing res 1 'nogenes.gmt:1' "$lamella" relate map.h5ad --relationships screen/relationships --out res --clusters nogenes.gmt
printf 'one\tx\tG001\tG002\n' > small.gmt; leaves_nothing res 1 'no cluster has 10' "$lamella" relate map.h5ad --relationships screen/relationships --out res --clusters small.gmt
printf 'a\nb\n' > onecolumn.csv; leaves_nothing res 1 'onecolumn.csv' "$lamella" relate map.h5ad --relationships screen/relationships --out res --aliases onecolumn.csv
printf 'a,b\nX,Y\nY,X\n' > circle.csv; leaves_nothing res 1 'circle.csv' "$lamella" relate map.h5ad --relationships screen/relationships --out res --aliases circle.csv
printf 'gene,chromosome,start,end\nQ,1,1,2\n' > away.csv; printf '1\t5\t6\n' > centromeres.bed
leaves_nothing res 1 'no row of the map has a chromosome arm' "$lamella" relate map.h5ad --relationships screen/relationships --out res --arm away.csv --centromeres centromeres.bed
leaves_nothing res 1 'nowhere' "$lamella" relate map.h5ad --relationships screen/relationships --out res --arm nowhere.csv
leaves_nothing res 2 'lists 0.1:0.9 twice' "$lamella" relate map.h5ad --relationships screen/relationships --out res --thresholds 0.1:0.9,0.05:0.95,0.10:0.90
leaves_nothing res 1 "a source named 'pathways' was read before" "$lamella" relate map.h5ad --relationships screen/relationships screen/relationships/pathways.csv --out res
(npy "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 0), }") > nocolumns.npy; printf 'gene\nA\nB\nC\n' > nocolumns.csv
leaves_nothing res 1 'nocolumns.npy: the matrix has no columns' "$lamella" relate nocolumns.npy --relationships screen/relationships --out res
leaves_nothing res 2 'centromeres belongs to --arm' "$lamella" relate map.h5ad --relationships screen/relationships --out res --centromeres nowhere
leaves_nothing res 2 'top belongs to --neighbours' "$lamella" relate map.h5ad --relationships screen/relationships --out res --top 5
expect 2 'is the file that is read' "$lamella" map emb.h5ad --out emb.h5ad --force
leaves_nothing x.h5ad 2 'save-transform.*choose another' "$lamella" map emb.h5ad --out x.h5ad --align center --controls all --save-transform x.h5ad
expect 2 'is one of the results that are read' "$lamella" report map.h5ad --out map.h5ad --force
printf 'gene,d0,d1\nA,1e200,2e200\nA,3e200,1e200\nB,1e200,1e200\nB,1e199,2e199\n' > huge.csv
leaves_nothing x.h5ad 1 'huge.csv: the largest value is 3e.200' "$lamella" map huge.csv --align centerscale --controls all --out x.h5ad
leaves_nothing res 1 'huge.csv: the largest value is 3e.200' "$lamella" consistency huge.csv --by gene --controls gene=A --out res
leaves_nothing res 2 'no profile could ever match' "$lamella" retrieve emb.h5ad --match gene --not-same gene --out res
leaves_nothing res 2 'folds and --leave-one-group-out both' "$lamella" probe emb.h5ad --label gene --group plate --folds 2 --leave-one-group-out --out res
leaves_nothing res 1 'NOSUCH: no row' "$lamella" relate map.h5ad --relationships screen/relationships --out res --neighbours NOSUCH
leaves_nothing res 2 'top' "$lamella" relate map.h5ad --relationships screen/relationships --out res --neighbours G1 --top 0
leaves_nothing res 2 'null genes' "$lamella" relate map.h5ad --relationships screen/relationships --out res --genes 'gene != x'
leaves_nothing res 1 '0 genes' "$lamella" relate map.h5ad --relationships screen/relationships --out res --null genes --genes 'gene == x'
leaves_nothing res 1 'nosuch|column' "$lamella" relate map.h5ad --relationships screen/relationships --out res --null genes --genes 'nosuch == x'
leaves_nothing res 2 'permutations' "$lamella" relate map.h5ad --relationships screen/relationships --out res --permutations -1
leaves_nothing res 2 'threshold' "$lamella" relate map.h5ad --relationships screen/relationships --out res --thresholds 5
leaves_nothing res 1 'emptydir' "$lamella" relate map.h5ad --relationships emptydir --out res

# --- consistency ---------------------------------------------------------------------------------------------
printf 'gene,kind,tpm,d0,d1\nA,x,0,1,2\nA,x,0,2,1\nB,x,5,1,1\nB,x,7,3,1\nC,c,9,0,1\nC,c,9,1,0\n' > rep.csv
consistency=("$lamella" consistency rep.csv --features 'd*' --by gene --out res)
leaves_nothing res 1 'nowhere' "$lamella" consistency nowhere.h5ad --by gene --controls gene=C --out res
leaves_nothing res 2 '--controls.*missing' "${consistency[@]}"
leaves_nothing res 2 'column=value' "${consistency[@]}" --controls C
leaves_nothing res 1 'gnee.*gene' "${consistency[@]}" --controls gnee=C
leaves_nothing res 1 'no controls.*gene=Q' "${consistency[@]}" --controls gene=Q
leaves_nothing res 1 'gnee.*gene' "$lamella" consistency rep.csv --by gnee --controls gene=C --out res
leaves_nothing res 1 'nothing to test' "${consistency[@]}" --controls gene=C --where 'gene == C'
leaves_nothing res 1 'no row is left' "${consistency[@]}" --controls gene=C --where 'gene == Q'
leaves_nothing res 2 'position' "${consistency[@]}" --controls gene=C --null-where 'gene ==='
leaves_nothing res 1 'rows of .B.*all rows' "${consistency[@]}" --controls gene=C --null-where 'tpm > 6'
leaves_nothing res 1 'no null perturbations.*none of the 2' "${consistency[@]}" --controls gene=C --null-where 'tpm > 99'
leaves_nothing res 1 'every perturbation' "${consistency[@]}" --controls gene=C --null-where 'tpm < 99'
leaves_nothing res 1 'nowhere.csv' "${consistency[@]}" --controls gene=C --null-genes nowhere.csv
printf 'gene\nQ\n' > nulls.csv; leaves_nothing res 1 'no null perturbations.*nulls.csv' "${consistency[@]}" --controls gene=C --null-genes nulls.csv
leaves_nothing res 2 'give one' "${consistency[@]}" --controls gene=C --null-genes nulls.csv --null-where 'tpm < 1'
leaves_nothing res 2 'magnitude-null.*--null-where' "${consistency[@]}" --controls gene=C --magnitude-null perturbations
leaves_nothing res 2 'leave out' "${consistency[@]}" --controls gene=C --null-where 'tpm < 1' --method angular --magnitude-null label-shuffle
leaves_nothing res 2 '--batch.*permutation' "${consistency[@]}" --controls gene=C --null-where 'tpm < 1' --batch kind
leaves_nothing res 1 'kimd.*kind' "${consistency[@]}" --controls gene=C --batch kimd
leaves_nothing res 2 'cosine.angular' "${consistency[@]}" --controls gene=C --method cosin
printf 'gene,d0\nA,1\nB,1\nB,2\nC,3\n' > single.csv
leaves_nothing res 1 'two replicates' "$lamella" consistency single.csv --by gene --controls gene=C --null-where 'gene == A' --out res
printf 'gene,d0\nA,nan\nC,nan\n' > allnan.csv
leaves_nothing res 1 'not finite|numeric' "$lamella" consistency allnan.csv --by gene --controls gene=C --features 'd*' --out res
mkdir held; expect 2 'held.*exists already.*--force' "$lamella" consistency rep.csv --by gene --controls gene=C --out held
# --- retrieve ------------------------------------------------------------------------------------------------
leaves_nothing res 1 'nowhere' "$lamella" retrieve nowhere.h5ad --by gene --out res
leaves_nothing res 2 'what is retrieved' "$lamella" retrieve emb.h5ad --out res
leaves_nothing res 1 'gnee.*gene' "$lamella" retrieve emb.h5ad --by gnee --out res
leaves_nothing res 1 'gnee.*gene' "$lamella" retrieve emb.h5ad --by gene --match gnee --not-same plate --out res
leaves_nothing res 2 'column=value' "$lamella" retrieve emb.h5ad --by gene --controls nonsense --out res
leaves_nothing res 1 'no row has gene=nothing' "$lamella" retrieve emb.h5ad --by gene --controls gene=nothing --out res
leaves_nothing res 2 'needs --controls' "$lamella" retrieve emb.h5ad --by gene --against controls --out res
leaves_nothing res 2 'positive and negative at once' "$lamella" retrieve emb.h5ad --by gene --negative-different plate --out res
leaves_nothing res 1 'both a positive and a negative' "$lamella" retrieve map.h5ad --by gene --out res
leaves_nothing res 2 '--match needs --not-same' "$lamella" retrieve emb.h5ad --match gene --out res
leaves_nothing res 1 'nowhere.csv' "$lamella" retrieve emb.h5ad --pairs nowhere.csv --out res
printf 'treatment,gene_symbol\nA,B\n' > novalue.csv; leaves_nothing res 1 'nM_value' "$lamella" retrieve emb.h5ad --pairs novalue.csv --compound gene --concentration plate --out res
expect 2 'exists already.*--force' "$lamella" retrieve emb.h5ad --by gene --out shards

# --- probe, report -------------------------------------------------------------------------------------------
leaves_nothing res 1 'gnee.*gene' "$lamella" probe emb.h5ad --label gnee --out res
printf 'kind,d0,d1\nA,1,2\nA,3,4\n' > oneclass.csv; leaves_nothing res 1 'single class' "$lamella" probe oneclass.csv --label kind --out res
leaves_nothing res 2 'leave-one-group-out.*--group' "$lamella" probe emb.h5ad --label gene --leave-one-group-out --out res
leaves_nothing res 1 '2 groups cannot be dealt to 50 folds.*--leave-one-group-out' "$lamella" probe emb.h5ad --label gene --group batch --folds 50 --out res
leaves_nothing res 2 'c is .0\.1;1.*separated by commas' "$lamella" probe emb.h5ad --label gene --c '0.1;1' --out res
leaves_nothing res 2 'c is .1,-1' "$lamella" probe emb.h5ad --label gene --c 1,-1 --out res
leaves_nothing res 2 'knn is 0, allowed' "$lamella" probe emb.h5ad --label gene --knn 0 --out res
leaves_nothing res 1 'rows to compare with, but 5000 neighbours' "$lamella" probe emb.h5ad --label gene --knn 5000 --out res
leaves_nothing res 2 'knn and --ridge are two models' "$lamella" probe emb.h5ad --label gene --knn 3 --ridge --out res
leaves_nothing res 2 'class-weight is of logistic' "$lamella" probe emb.h5ad --label gene --knn 3 --class-weight none --out res
leaves_nothing res 1 "'gene' names no numeric column" "$lamella" probe emb.h5ad --label gene --ridge --out res
leaves_nothing res 2 'alpha is of --ridge' "$lamella" probe emb.h5ad --label gene --alpha 1 --out res
leaves_nothing res 2 'alpha is .0.' "$lamella" probe emb.h5ad --label gene --ridge --alpha 0 --out res
leaves_nothing res 2 'learning-curve is .0.5,2.*at most 1' "$lamella" probe emb.h5ad --label gene --learning-curve 0.5,2 --out res
leaves_nothing res 2 'inner-folds chooses between several' "$lamella" probe emb.h5ad --label gene --inner-folds 2 --out res
leaves_nothing res 1 "no matrix of obsm matches 'block_\*'" "$lamella" probe emb.h5ad --label gene --blocks 'block_*' --out res
leaves_nothing res 2 'blocks and --key both' "$lamella" probe emb.h5ad --label gene --blocks '*' --key X --out res
printf 'kind,plate,d0\nA,1,1\nB,1,2\nA,2,3\nB,2,5\n' > twoplates.csv
leaves_nothing res 1 '4 rows cannot be dealt to 5 folds' "$lamella" probe twoplates.csv --label kind --folds 5 --out res
leaves_nothing res 1 'no setting can be chosen.*single value' "$lamella" probe twoplates.csv --label kind --group plate --leave-one-group-out --c 1,2 --out res
printf 'size,plate,d0\n1,1,1\n,2,2\n2,3,3\n' > gaps.csv
leaves_nothing res 1 'rows with a value to train on' "$lamella" probe gaps.csv --label size --ridge --alpha 1 --group plate --leave-one-group-out --out res
expect 1 'twoplates.csv/res: cannot be written' "$lamella" probe twoplates.csv --label kind --folds 2 --out twoplates.csv/res
leaves_nothing x.html 1 'nowhere' "$lamella" report nowhere --out x.html
leaves_nothing x.html 1 'emptydir: .*metrics.jsonl .train.*sweep.csv.*scores.csv .relate.' "$lamella" report emptydir --out x.html
leaves_nothing x.html 2 'out' "$lamella" report map.h5ad
leaves_nothing x.html 2 'perplexity.*5000|1 to' "$lamella" report map.h5ad --perplexity 5000 --out x.html
leaves_nothing x.html 2 'perplexity' "$lamella" report map.h5ad --perplexity 0 --out x.html
leaves_nothing x.html 2 'embedding.*pca' "$lamella" report map.h5ad --embedding umap --out x.html
leaves_nothing x.html 2 'seed.*t-SNE' "$lamella" report map.h5ad --embedding pca --seed 1 --out x.html
leaves_nothing x.html 2 'genes.*no map' "$lamella" report run --genes A,B --out x.html
leaves_nothing x.html 1 'genes asked for' "$lamella" report map.h5ad --genes NOBODY,NOTHING --out x.html
leaves_nothing x.html 1 'nowhere.txt' "$lamella" report map.h5ad --genes-file nowhere.txt --out x.html
leaves_nothing x.html 2 'only one' "$lamella" report map.h5ad --genes A,B --genes-file nowhere.txt --out x.html
mkdir replicates; printf 'perturbation,consistency\nA,1\n' > replicates/consistency.csv
leaves_nothing x.html 1 'consistency_p' "$lamella" report replicates --out x.html
mkdir average; printf 'profile\nr\n' > average/average_precision.csv; printf 'gene,rows,mean_average_precision\nA,2,1\nB,2,1\n' > average/scores.csv
leaves_nothing x.html 1 'average/scores.csv: .*summary' "$lamella" report average --out x.html
leaves_nothing x.html 1 'average/scores.csv: .*summary' "$lamella" report map.h5ad average --out x.html
absent x_data

# --- the system says no --------------------------------------------------------------------------------------
if [ "$(id -u)" != 0 ]; then
  mkdir readonly; chmod a-w readonly
  leaves_nothing readonly/x.h5ad 1 'readonly.*ermission' "$lamella" map emb.h5ad --out readonly/x.h5ad --by gene
fi
# A limit on the size of files, as a full disk: one line, nothing left, what was there stays.
limited() { local blocks=$1; shift; (ulimit -f "$blocks"; "$@"); }
leaves_nothing x.h5ad 1 'x.h5ad: cannot be written: .*larger' limited 8 "$lamella" embed run shards --out x.h5ad
leaves_nothing x.npy 1 'x.(npy|csv): cannot be written: .*larger' limited 8 "$lamella" embed run shards --out x.npy
leaves_nothing small 1 'images/.*cannot be written: .*larger' limited 8 "$lamella" synth small --genes 20 --image-size 192
cp map.h5ad kept.h5ad; expect 1 'kept.h5ad: cannot be written: .*larger' limited 8 "$lamella" map emb.h5ad --out kept.h5ad --by gene --force
cmp -s map.h5ad kept.h5ad || { failed=$((failed + 1)); echo 'FAILED: a map that could not be written took the old one away'; }
leaves_nothing x.html 1 'x.html: cannot be written: .*larger' limited 4 "$lamella" report map.h5ad --embedding pca --out x.html
leaves_nothing x_data 1 'x_data/01_.*cannot be written: .*larger' limited 2 "$lamella" report map.h5ad --embedding pca --out x.html
absent x_data
if ls ./*.partial* > /dev/null 2>&1; then failed=$((failed + 1)); echo "FAILED: left behind: $(ls ./*.partial*)"; fi
# USR1 asks for a checkpoint: a command that has none goes on.
"$lamella" synth usr1 --genes 20 --image-size 64 --quiet & pid=$!
sleep 0.1; kill -USR1 $pid; wait $pid || { failed=$((failed + 1)); echo 'FAILED: USR1 ended synth'; }
expect 1 'standard output' bash -c "'$lamella' relate map.h5ad --relationships screen/relationships --out ok --json > /dev/full"
for n in 1 2 3 5 8 13 21 34 55 89 144; do
  for kind in alloc read write; do
    rm -rf fault fault.h5ad
    LAMELLA_FAULT=$kind:$n "$lamella" map emb.h5ad --out fault.h5ad --by gene --threads 1 --quiet > out.txt 2> err.txt; code=$?
    cases=$((cases + 1))
    case $code in
      0) [ -s fault.h5ad ] || { echo "FAILED: map, $kind $n: exit 0 without a file"; failed=$((failed + 1)); } ;;
      1) [ "$(grep -c '^lamella: ' err.txt)" = 1 ] && [ ! -e fault.h5ad ] && ! ls ./*partial* > /dev/null 2>&1 ||
        { echo "FAILED: map, $kind $n: $(cat err.txt)"; failed=$((failed + 1)); } ;;
      *) echo "FAILED: map, $kind $n: exit $code: $(tail -1 err.txt)"; failed=$((failed + 1)) ;;
    esac
    LAMELLA_FAULT=$kind:$n "$lamella" pack screen/images.csv --out fault --threads 1 --quiet > out.txt 2> err.txt; code=$?
    cases=$((cases + 1))
    case $code in
      0) "$lamella" inspect fault > /dev/null 2>&1 || { echo "FAILED: pack, $kind $n: exit 0, but the shards do not open"; failed=$((failed + 1)); } ;;
      1) [ "$(grep -c '^lamella: ' err.txt)" = 1 ] || { echo "FAILED: pack, $kind $n: $(cat err.txt)"; failed=$((failed + 1)); } ;;
      *) echo "FAILED: pack, $kind $n: exit $code: $(tail -1 err.txt)"; failed=$((failed + 1)) ;;
    esac
  done
done
cmp -s <(cat shards/shard_00000.lam) <(cat noindex/shard_00000.lam) && { echo "FAILED: the damaged copy equals the original"; failed=$((failed + 1)); }

echo "bad input: $cases cases, $failed failed"
[ "$failed" = 0 ]
