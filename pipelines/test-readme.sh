#!/usr/bin/env bash
# Runs the README's first shell block as it stands, in an empty folder, and looks at what it made.
set -euo pipefail
readme=$(cd "$(dirname "$0")/.." && pwd)/README.md
block=$(awk '/^```sh$/ {inside = 1; next} /^```$/ {if (inside) exit} inside' "$readme")
[ "$(printf '%s\n' "$block" | wc -l)" = 5 ] || { echo "test-readme: expected five lines" >&2; exit 1; }
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
bash -o pipefail -ec "$block"
groups=$(cog-check --json demo/groups.parquet)
printf '%s\n' "$groups"
printf '%s' "$groups" | grep -q 'group/1' || { echo "test-readme: no groups" >&2; exit 1; }
echo "test-readme: passed"
