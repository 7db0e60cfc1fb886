#!/usr/bin/env bash
# Compiles every kernel for sm_80, sm_90a and sm_100a with NVIDIA's compiler from PyPI (pinned, in a
# private environment under the target folder, about 520 MB once) and holds registers, spilled bytes
# and stores to global memory of less than 16 bytes of each to registers.tsv: a kernel may not have
# more than it says, nor be missing from it. What the assembler reports as lost (products of a warp
# group one after another, registers that cannot be passed on) is an error. Then the way of a program
# without prebuilt cubins: the crate's own tests with NVRTC, from PyPI too, which needs no GPU.
#   compile.sh           checks, and runs those tests
#   compile.sh --update  writes registers.tsv anew
#   compile.sh --only DIR  keeps the cubins in DIR, checks nothing
set -euo pipefail
cd "$(dirname "$0")"
target=$(realpath -m "${CARGO_TARGET_DIR:-../target}")
venv=$target/nvcc
# Unpinned, crt and nvvm resolve to a later minor version, and nothing compiles.
pins="nvidia-cuda-nvcc==13.0.88 nvidia-cuda-crt==13.0.88 nvidia-nvvm==13.0.88 nvidia-cuda-runtime==13.0.96
nvidia-cuda-cccl==13.0.85 nvidia-cuda-cuobjdump==13.2.78 nvidia-cuda-nvdisasm==13.2.78 nvidia-cuda-nvrtc==13.0.88"
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

one() { # one ARCHITECTURE FILE: the cubin, and a line a kernel: name, architecture, registers, spills, stores
  local base
  base=$out/$(basename "$2" .cu).$1
  "$cuda/bin/nvcc" -O3 -std=c++17 -I. -arch="$1" -cubin -Xptxas -v "$2" -o "$base.cubin" 2>"$base.log" ||
    { cat "$base.log" >&2; return 1; }
  if grep 'Potential Performance Loss' "$base.log" >&2; then return 1; fi
  PATH=$cuda/bin:$PATH cuobjdump --dump-sass "$base.cubin" >"$base.sass"
  # What is written for Hopper must come out as such: warp-group products, copies of boxes.
  case $2 in
  lab/*) ;;
  *_sm90a.cu)
    for instruction in HGMMA UTMALDG USETMAXREG; do
      grep -q $instruction "$base.sass" || { echo "kernels: $2 has no $instruction" >&2; return 1; }
    done
    ;;
  esac
  awk -v arch="$1" -v OFS='\t' '
    FNR == NR { if (/Function :/) name = $3; if (/ STG/ && !/ STG[.A-Z0-9]*\.128/) ++narrow[name]; next }
    /Compiling entry function/ { split($0, quoted, "\047"); name = quoted[2] }
    /bytes spill stores/ { spilled = $5 + $9 }
    /Used [0-9]+ registers/ {
      for (i = 1; i < NF; ++i) if ($i == "Used") print name, arch, $(i + 1), spilled, narrow[name] + 0
    }
  ' "$base.sass" "$base.log" >"$base.tsv"
}
export -f one
files=$(echo *.cu)
[ "${1-}" = --only ] || files="$files $(echo lab/*/*.cu)"
for arch in sm_80 sm_90a sm_100a; do
  for file in $files; do
    # NAME_sm90a.cu is for that architecture alone.
    case $file in *_sm90a.cu) [ $arch = sm_90a ] || continue ;; esac
    printf '%s\0%s\0' "$arch" "$file"
  done
done | xargs -0 -n 2 -P "$(nproc)" bash -ec 'one "$@"' one
[ "${1-}" = --only ] && exit 0

{
  printf 'kernel\tarchitecture\tregisters\tspilled_bytes\tnarrow_stores\n'
  for file in $files; do cat "$out/$(basename "$file" .cu)".sm_*.tsv; done | LC_ALL=C sort
} >"$out/registers.tsv"
if [ "${1-}" = --update ]; then
  cp "$out/registers.tsv" registers.tsv
  exit 0
fi
awk -F'\t' '
  FNR == 1 { next }
  FNR == NR { registers[$1, $2] = $3; spilled[$1, $2] = $4; narrow[$1, $2] = $5; next }
  !(($1, $2) in registers) { print "kernels: " $1 " for " $2 " is not in registers.tsv"; bad = 1; next }
  $3 > registers[$1, $2] { print "kernels: " $1 " for " $2 " uses " $3 " registers, not " registers[$1, $2]; bad = 1 }
  $4 > spilled[$1, $2] { print "kernels: " $1 " for " $2 " spills " $4 " bytes, not " spilled[$1, $2]; bad = 1 }
  $5 > narrow[$1, $2] { print "kernels: " $1 " for " $2 " has " $5 " narrow stores, not " narrow[$1, $2]; bad = 1 }
  { seen[$1, $2] = 1; n++ }
  END {
    for (key in registers) if (!(key in seen)) { split(key, k, SUBSEP); print "kernels: " k[1] " for " k[2] " is gone"; bad = 1 }
    if (!bad) print "kernels: " n " compiled, registers, spills and stores as in registers.tsv"
    exit bad
  }
' registers.tsv "$out/registers.tsv"

log=$out/nvrtc.log
LD_LIBRARY_PATH=$cuda/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} ${CARGO:-cargo} test --release --locked --workspace --lib \
  -- --nocapture cuda::compile:: >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
# Where the library is not found the tests say so and pass; here it must be.
if grep 'NOT RUN' "$log" >&2 || ! grep -q 'nvrtc_compiles_every_source_and_the_cache_spares_it \.\.\. ok' "$log"; then
  echo "kernels: NVRTC was not run: see $log" >&2
  exit 1
fi
echo "kernels: NVRTC compiles every source, each for its architectures"
