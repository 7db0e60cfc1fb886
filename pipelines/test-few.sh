#!/usr/bin/env bash
# The smoke run as on a machine that has Python and Perl alone: it goes on, and the table says what is missing. Without
# Python, the language of RL, nothing is begun.
set -euo pipefail
cd "$(dirname "$0")/.."
r=runs/smoke-few
rm -rf $r
make --no-print-directory transfer-run PRESET=smoke SEEDS=0 R=$r USABLE="python perl" >$r.log 2>&1 || { cat $r.log >&2; exit 1; }
grep -q 'No rollouts: language ruby: all cells' $r/transfer.md || { echo "test-few: the table does not say so" >&2; exit 1; }
said=$(make -n transfer-run PRESET=smoke R=$r USABLE=perl 2>&1 || true)
grep -q 'no toolchain for python' <<<"$said" || { echo "test-few: begins without Python" >&2; exit 1; }
echo "test-few: passed"
