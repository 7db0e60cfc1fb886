#!/usr/bin/env bash
# Do the container and the WebAssembly sandbox agree? Judges the real corpora in both, in every language that both have,
# and prints one line a program whose verdicts differ, then a table.
#   agree-wasm.sh DATA [WORK]     DATA holds kattis/ and mbxp/ (testdata/maps names their layout)
# Exit status 0 whatever differs: the differences are explained in LOG.md.
set -euo pipefail
cd "$(dirname "$0")/.."
data=${1:?usage: agree-wasm.sh DATA [WORK]}
work=${2:-$(mktemp -d)}
mkdir -p "$work"
languages=$(cog-judge languages --json | python3 -c '
import json, sys
print(" ".join(l["name"] for l in json.load(sys.stdin) if l["usable"] and l["wasm"]))')
echo "languages that both have: $languages"
for corpus in kattis mbxp; do
  at="$work/$corpus"
  [ -d "$at" ] || cog-mine import -q --map "testdata/maps/$corpus.toml" "$data/$corpus/$corpus.jsonl" -o "$at"
  cog-mine candidates -q --claims any --min-languages 1 --per-language 999 --problems "$at/problems.jsonl" \
    "$at/programs.jsonl" -o "$at/candidates.jsonl"
  python3 - "$at/candidates.jsonl" "$at/both.jsonl" $languages <<'PY'
import json, sys
source, target, *languages = sys.argv[1:]
with open(target, "w") as out:
    for line in open(source):
        if json.loads(line).get("language") in languages:
            out.write(line)
PY
  for sandbox in container wasm; do
    cog-judge -q --sandbox $sandbox --tests "$at/problems.jsonl" --cpu-ms 8000 --excerpts --measured "$at/both.jsonl" \
      -o "$at/$sandbox.jsonl"
  done
done
python3 - "$work" <<'PY'
import collections, json, sys
work = sys.argv[1]
table = collections.defaultdict(collections.Counter)
for corpus in ("kattis", "mbxp"):
    pair = [map(json.loads, open(f"{work}/{corpus}/{s}.jsonl")) for s in ("container", "wasm")]
    for a, b in zip(*pair):
        x, y = a["verdict"]["status"], b["verdict"]["status"]
        row = table[corpus, a["language"]]
        row["programs"] += 1
        row["equal"] += x == y
        if x != y:
            tests = [t for t in b["verdict"].get("tests", []) if t["status"] != "AC"] or [{}]
            said = b["verdict"].get("message") or tests[0].get("stderr") or tests[0].get("stdout") or ""
            print(f"{corpus} {a['id']} {a['language']}: container {x}, wasm {y}: {said.strip()[-160:]!r}")
print("\n| corpus | language | programs | same verdict |\n|---|---|---|---|")
for (corpus, language), row in sorted(table.items()):
    print(f"| {corpus} | {language} | {row['programs']} | {row['equal']} |")
PY
