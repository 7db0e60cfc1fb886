#!/usr/bin/env bash
# A data-parallel run on this machine: the same command as N processes, each with its --rank and its share of the
# processors.
#   ranks.sh N COMMAND...        e.g. ranks.sh 2 cog-train lm --data base.parquet ... -o base
# With --device cuda each takes the GPU of its rank's number.
# The first that fails decides the exit status; the others stop by themselves. Signals go to all.
set -uo pipefail
size=${1:?"how many processes"}
shift
threads=$(($(nproc) / size))
pids=()
for ((rank = 0; rank < size; rank++)); do
  "$@" --world-size "$size" --rank "$rank" -j "$((threads > 0 ? threads : 1))" &
  pids+=($!)
done
trap 'kill -TERM "${pids[@]}" 2>/dev/null' TERM INT
status=0
for _ in "${pids[@]}"; do
  wait -n || { code=$?; ((status)) || status=$code; }
done
# A signal interrupts the first wait of each process.
for pid in "${pids[@]}"; do wait "$pid" 2>/dev/null; done
exit "$status"
