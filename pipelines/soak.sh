#!/usr/bin/env bash
# Kills one of the three processes of the RL pipe again and again, at random moments, goes on each time, and compares
# the final model with that of a run that nothing disturbed. Needs the files of a smoke run (make smoke).
# soak.sh [KILLS]
set -euo pipefail
cd "$(dirname "$0")/.."
kills=${1:-12}
r=runs/smoke
p=pipelines/presets/smoke
steps=${STEPS:-150}
out=$r/soak
rm -rf "$out"
mkdir -p "$out"

pipe() { # folder
  cog-sample -q --config $p/sample-rl.toml --follow "$1/policy" --prompts $r/prompts-rl.jsonl --steps "$steps" |
    cog-judge -q --config $p/judge-train.toml --tests $r/world/problems.jsonl - |
    cog-train rl -q --config $p/rl.toml --model $r/seed-0/sft/parallel --policy "$1/policy" --steps "$steps" -o "$1/model"
}

done_kills=0
echo "soak: undisturbed run" >&2
pipe "$out/calm"
if cmp -s "$r/seed-0/sft/parallel/model.safetensors" "$out/calm/model/model.safetensors"; then
  echo "soak: no step moved the weights, so the same bytes would prove nothing" >&2
  exit 1
fi
for ((i = 1; i <= kills; i++)); do
  [ -e "$out/killed/model/model.safetensors" ] && break
  set -m
  pipe "$out/killed" 2>/dev/null &
  job=$!
  set +m
  sleep "0.$((3 + RANDOM % 7))"
  victim=$(printf 'cog-sample\ncog-judge\ncog-train\n' | shuf -n 1)
  if pkill -KILL -g "$job" -x "$victim"; then
    echo "soak: killed $victim" >&2
    done_kills=$((done_kills + 1))
  fi
  wait "$job" || true
done
pipe "$out/killed"
cmp "$out/calm/model/model.safetensors" "$out/killed/model/model.safetensors"
[ "$done_kills" -ge 3 ] || { echo "soak: only $done_kills kills hit, which proves little; raise STEPS" >&2; exit 1; }
echo "soak: passed, $done_kills kills, same bytes"
