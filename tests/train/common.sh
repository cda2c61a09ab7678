# Shared by the scripts of this folder: a tiny screen, a tiny network. Source it with the command's path in $1.
set -euo pipefail
lamella=$(realpath "$1")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
# Ranks that wait must not take the cores of those that work.
mpi() { local n=$1; shift; mpirun --allow-run-as-root --oversubscribe --bind-to none --mca mpi_yield_when_idle 1 -n "$n" "$@"; }
fail() { echo "FAILED: $*" >&2; exit 1; }

"$lamella" synth screen --genes 4 --guides 1 --replicates 4 --controls 4 --plates 2 --image-size 48 --seed 3 --quiet
"$lamella" pack screen/images.csv --out shards --quiet
cat > tiny.yaml <<'YAML'
model: {name: mae_vit, embed_dim: 32, depth: 1, num_heads: 2, patch_size: 8, image_size: 32, decoder_embed_dim: 32,
        decoder_depth: 1, decoder_num_heads: 2}
data:  {path: shards, crops_per_image: 2, normalize: plate, transform: sqrt, validation_fraction: 0.2, threads: 1}
train: {steps: 40, global_batch: 8, checkpoint_every: 7, validate_every: 10, keep_last: 3, seed: 5}
optim: {lr: 1.0e-3, clip_norm: 1.0}
YAML

# Fields that do not depend on the clock, one line a step or validation.
deterministic() { sed -nE 's/^(\{"step":.*"epoch":[0-9]+).*/\1/p; /"validation_loss"/p' "$1/metrics.jsonl"; }
same_run() { # expected, run, what
  local last=checkpoints/step_$(printf %08d "${steps:-40}") file
  for file in model.safetensors optimizer.safetensors; do
    cmp -s "$1/$last/$file" "$2/$last/$file" || fail "$3: $file differs"
  done
  diff <(deterministic "$1") <(deterministic "$2") > difference || { head difference; fail "$3: metrics differ"; }
  [ "$(deterministic "$2" | wc -l)" -ge 40 ] || fail "$3: metrics lack lines"
  echo "ok: $3"
}
# Largest difference of the training losses of two runs.
largest_difference() {
  paste <(deterministic "$1") <(deterministic "$2") | sed -nE 's/.*"loss":([^,]+),.*"loss":([^,]+),.*/\1 \2/p' |
    awk '{ d = $1 - $2; if (d < 0) d = -d; if (d > m) m = d; n++ } END { if (!n) exit 1; print m + 0 }'
}
