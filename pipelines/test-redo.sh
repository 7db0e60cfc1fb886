#!/usr/bin/env bash
# Asks make what it would do again in a finished smoke run after each kind of change. Needs runs/smoke (make smoke).
set -euo pipefail
cd "$(dirname "$0")/.."
unset MAKEFLAGS MAKELEVEL MAKEOVERRIDES
p=pipelines/presets/smoke
failed=0

# The commands that `make -n` prints with these arguments, each kind once. -W FILE: as if FILE had just changed.
redone() {
  make -n transfer-run PRESET=smoke SEEDS=0 "$@" | grep -oE 'cog-(synth|sample|judge|probe|(mine|mix|train|score) [a-z]+)' | sort -u | paste -sd ,
}

expect() { # commands, arguments of make
  local want=$1 got
  shift
  got=$(redone "$@" || true)
  [ "$got" = "$want" ] || { printf 'test-redo: %s\n  wanted %s\n  got    %s\n' "$*" "$want" "$got" >&2; failed=1; }
}

rl="cog-judge,cog-probe,cog-sample,cog-score latent,cog-score transfer,cog-train rl"
sft="$rl,cog-train sft"
mining="cog-judge,cog-mine groups,cog-mix sft,${sft#cog-judge,}"
expect ""
expect "cog-score transfer" -W $p/score.toml
expect "cog-judge,cog-score transfer" -W $p/judge-eval.toml
expect "cog-judge,cog-sample,cog-score transfer" -W $p/sample-greedy.toml
expect "cog-score latent" -W $p/latent.toml
expect "cog-probe,cog-score latent" -W $p/probe.toml
expect "$rl" -W $p/rl.toml
expect "${rl/cog-probe/cog-mix prompts,cog-probe}" RL_STEPS=9
expect "$sft" -W $p/sft.toml
expect "$mining" -W $p/judge-train.toml
expect "${mining/cog-mine/cog-mine candidates,cog-mine}" MINING_COVERAGE=0.5
expect "cog-judge,cog-mix prompts,cog-probe,cog-sample,cog-score latent,cog-score transfer" TARGETS=perl
expect "cog-score latent,cog-score transfer" ARMS="source parallel"
[ $failed = 0 ] && echo "test-redo: passed"
