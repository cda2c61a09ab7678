#!/usr/bin/env bash
# Compares every #include of ours with the arrows of the house: a directory may use only what stands to its right.
# Usage: arrows.sh ROOT
set -euo pipefail
cd "$1"
declare -A allowed=(
  [base]="base" [data]="base data" [model]="base model" [model/nets]="base model model/nets" [dist]="base dist"
  [train]="base data model model/nets dist train" [eval]="base eval")
# A library may be named only in these files.
declare -A owner=(
  [hdf5.h]='base/h5ad.*' [yaml.h]='base/yaml.*' [jansson.h]='base/json\.c' [mpi.h]='dist/mpi.*'
  [tiffio.h]='data/.*' [openjpeg.h]='data/.*' [png.h]='(data/.*|base/picture\.c)' [zstd.h]='(data/.*|base/unpack\.c|base/h5ad_filter\.c)'
  [dnnl.h]='(base/gemm[a-z_]*\.[ch]|model/cpu/.*)' [oneapi/dnnl/dnnl.h]='(base/gemm[a-z_]*\.c|model/cpu/.*)'
  [lapacke.h]='(eval/linalg\.c|base/gemm[a-z_]*\.[ch])' [cblas.h]='(eval/linalg\.c|base/gemm[a-z_]*\.c)' [lbfgs.h]='eval/.*'
  [cuda_runtime.h]='(model/cuda/.*|dist/nccl\.cu)' [cuda_bf16.h]='model/cuda/.*' [cublasLt.h]='model/cuda/.*' [nccl.h]='dist/nccl\.cu'
  [zip.h]='base/torch_.*')
failed=0
while IFS=: read -r file line text; do
  target=$(sed -E 's/.*#[[:space:]]*include[[:space:]]*[<"]([^>"]+)[>"].*/\1/' <<<"$text")
  case "$file" in model/nets/*) room=model/nets ;; *) room=${file%%/*} ;; esac
  case "$target" in model/nets/*) to=model/nets ;; */*) to=${target%%/*} ;; *) to="" ;; esac
  if [ -n "${owner[$target]:-}" ] && ! grep -qE "^${owner[$target]}$" <<<"$file"; then
    echo "$file:$line: <$target> may be used only in ${owner[$target]}"; failed=1
  fi
  case "$to" in base|data|model|model/nets|dist|train|eval) ;; *) continue ;; esac
  case " ${allowed[$room]} " in *" $to "*) ;; *) echo "$file:$line: $room/ may not include $target"; failed=1 ;; esac
done < <(grep -nE '^[[:space:]]*#[[:space:]]*include' -r --include='*.c' --include='*.h' --include='*.cu' --include='*.cuh' base data model dist train eval)
[ "$failed" = 0 ] && echo "arrows: every include follows the house"
exit "$failed"
