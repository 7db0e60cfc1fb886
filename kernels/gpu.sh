#!/usr/bin/env bash
# What a machine with a GPU is asked, each by one command; `make gpu-check` and `make gpu-bench` are these.
#   gpu.sh build   builds the binaries into target/gpu, once; they and this script are all that has to be carried
#   gpu.sh check   kernels, training steps and decode loops against the CPU; then compute-sanitizer on small shapes
#   gpu.sh bench   speed of kernels, training and decoding, PyTorch beside where it is installed; the table last.
#                  What is printed is kept in kernels/results
# NVRTC and cuBLASLt are found in a toolkit, or among the packages of the python3 at hand. Exit 3: NOT RUN, there is no
# GPU. GPU_BINARIES=DIR names the folder of the binaries, PYTHON=… the Python that has torch.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
binaries=${GPU_BINARIES:-$here/../target/gpu}
python=${PYTHON:-python3}
names=(gpu-check gpu-bench gpu_model_check gpu_model_bench)

build() {
  (cd "$here/.." && ${CARGO:-cargo} build --release --locked --workspace "${names[@]/#/--example=}")
  mkdir -p "$binaries"
  for name in "${names[@]}"; do cp "$here/../target/release/examples/$name" "$binaries/"; done
}

# NVIDIA's libraries come with torch or as packages; their folders go where the loader looks.
libraries() {
  local found
  found=$("$python" - 2>/dev/null <<'END' || true
import glob, os, site
bases = site.getsitepackages() + [site.getusersitepackages()]
print(":".join(folder for base in bases for folder in sorted(glob.glob(os.path.join(base, "nvidia", "*", "lib")))))
END
  )
  LD_LIBRARY_PATH=$found${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
  export LD_LIBRARY_PATH
}

# A tool of the sanitizer on small shapes; one that is missing or refuses is not a failure, and not a success.
sanitize() {
  local tool=$1 log status=0
  if ! command -v compute-sanitizer >/dev/null; then
    echo "compute-sanitizer $tool: NOT RUN: the tool is not installed"
    return 0
  fi
  log=$(mktemp)
  timeout 240 compute-sanitizer --tool "$tool" --error-exitcode 86 "$binaries/gpu_model_check" --small >"$log" 2>&1 || status=$?
  case $status in
    0) echo "compute-sanitizer $tool: ok" ;;
    86) cat "$log"; echo "compute-sanitizer $tool: FAILED"; failed=1 ;;
    *) tail -5 "$log"; echo "compute-sanitizer $tool: NOT RUN: it ended with status $status" ;;
  esac
  rm -f "$log"
}

check() {
  failed=0
  local status=0
  "$binaries/gpu-check" || status=$?
  [ $status -eq 3 ] && exit 3
  [ $status -eq 0 ] || failed=1
  "$binaries/gpu_model_check" || failed=1
  sanitize memcheck
  sanitize racecheck
  exit $failed
}

# Runs a part, keeps what it prints, and gives its status.
part() {
  "$@" 2>&1 | tee -a "$log"
  return "${PIPESTATUS[0]}"
}

# The table at the end repeats the rows that the parts printed.
bench() {
  local status=0 name
  log=$(mktemp)
  trap 'rm -f "$log"' EXIT
  date +%F | tee -a "$log"
  part nvidia-smi --query-gpu=name,driver_version,clocks.max.sm,power.limit --format=csv,noheader -i 0 || true
  part timeout 120 "$binaries/gpu-bench" || status=$?
  [ $status -eq 3 ] && exit 3
  part timeout 240 "$binaries/gpu_model_bench" || status=$?
  part timeout 200 "$python" "$here/gpu-bench.py" || echo "PyTorch: NOT RUN to its end: status $?" | tee -a "$log"
  {
    printf '\n| what | speed | | |\n|---|---|---|---|\n'
    grep '^| ' "$log" || echo "| nothing was measured | | | |"
  } >"$log.table"
  tee -a "$log" <"$log.table"
  rm "$log.table"
  name=$(nvidia-smi --query-gpu=name --format=csv,noheader -i 0 2>/dev/null | tr -cs 'A-Za-z0-9\n' - || echo gpu)
  mkdir -p "$here/results"
  cp "$log" "$here/results/$(date +%F)-$name.txt"
  exit $status
}

case ${1-} in
  build) build ;;
  check) libraries; check ;;
  bench) libraries; bench ;;
  *) sed -n '2,9s/^# \?//p' "$0" >&2; exit 2 ;;
esac
