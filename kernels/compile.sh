#!/usr/bin/env bash
# Compiles every kernel for sm_80, sm_90a and sm_100a with NVIDIA's compiler from PyPI (pinned, in a
# private environment under the target folder, about 450 MB once) and holds registers and spilled
# bytes of each to registers.tsv: a kernel may not use more than it says, nor be missing from it.
#   compile.sh           checks
#   compile.sh --update  writes registers.tsv anew
#   compile.sh --only DIR  keeps the cubins in DIR, checks nothing
set -euo pipefail
cd "$(dirname "$0")"
target=$(realpath -m "${CARGO_TARGET_DIR:-../target}")
venv=$target/nvcc
# Unpinned, crt and nvvm resolve to a later minor version, and nothing compiles.
pins="nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-runtime==13.0.96
nvidia-cuda-cccl==13.0.85 nvidia-cuda-cuobjdump==13.2.78 nvidia-cuda-nvdisasm==13.2.78"
if [ "$(cat "$venv/pins" 2>/dev/null)" != "$pins" ]; then
  echo "kernels: installing NVIDIA's compiler into $venv" >&2
  python3 -m venv --clear "$venv"
  # shellcheck disable=SC2086
  "$venv/bin/pip" install --quiet --disable-pip-version-check --no-deps $pins
  printf '%s' "$pins" >"$venv/pins"
fi
cuda=$(echo "$venv"/lib/python3*/site-packages/nvidia/cu13)
out=$target/cubin
[ "${1-}" = --only ] && out=$2
mkdir -p "$out"
export cuda out

one() { # one ARCHITECTURE FILE: the cubin, and a line a kernel: name, architecture, registers, spilled bytes
  local base=$out/${2%.cu}.$1
  "$cuda/bin/nvcc" -O3 -std=c++17 -I. -arch="$1" -cubin -Xptxas -v "$2" -o "$base.cubin" 2>"$base.log" ||
    { cat "$base.log" >&2; return 1; }
  awk -v arch="$1" -v OFS='\t' '
    /Compiling entry function/ { split($0, quoted, "\047"); name = quoted[2] }
    /bytes spill stores/ { spilled = $5 + $9 }
    /Used [0-9]+ registers/ { for (i = 1; i < NF; ++i) if ($i == "Used") print name, arch, $(i + 1), spilled }
  ' "$base.log" >"$base.tsv"
}
export -f one
for arch in sm_80 sm_90a sm_100a; do
  for file in *.cu; do
    # NAME_sm90a.cu is for that architecture alone.
    case $file in *_sm90a.cu) [ $arch = sm_90a ] || continue ;; esac
    printf '%s\0%s\0' "$arch" "$file"
  done
done | xargs -0 -n 2 -P "$(nproc)" bash -ec 'one "$@"' one
[ "${1-}" = --only ] && exit 0

# What is written for Hopper's warp-group products must come out as such.
PATH=$cuda/bin:$PATH cuobjdump --dump-sass "$out/attention_sm90a.sm_90a.cubin" | grep -q HGMMA ||
  { echo "kernels: attention_sm90a has no HGMMA" >&2; exit 1; }

{
  printf 'kernel\tarchitecture\tregisters\tspilled_bytes\n'
  for file in *.cu; do cat "$out/${file%.cu}".sm_*.tsv; done | LC_ALL=C sort
} >"$out/registers.tsv"
if [ "${1-}" = --update ]; then
  cp "$out/registers.tsv" registers.tsv
  exit 0
fi
awk -F'\t' '
  FNR == 1 { next }
  FNR == NR { registers[$1, $2] = $3; spilled[$1, $2] = $4; next }
  !(($1, $2) in registers) { print "kernels: " $1 " for " $2 " is not in registers.tsv"; bad = 1; next }
  $3 > registers[$1, $2] { print "kernels: " $1 " for " $2 " uses " $3 " registers, not " registers[$1, $2]; bad = 1 }
  $4 > spilled[$1, $2] { print "kernels: " $1 " for " $2 " spills " $4 " bytes, not " spilled[$1, $2]; bad = 1 }
  { seen[$1, $2] = 1; n++ }
  END {
    for (key in registers) if (!(key in seen)) { split(key, k, SUBSEP); print "kernels: " k[1] " for " k[2] " is gone"; bad = 1 }
    if (!bad) print "kernels: " n " compiled, registers and spills as in registers.tsv"
    exit bad
  }
' registers.tsv "$out/registers.tsv"
