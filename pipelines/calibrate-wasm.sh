#!/usr/bin/env bash
# How many WebAssembly instructions a millisecond of the container's CPU time is worth, by language: `fuel_per_ms` of
# shared/languages/languages.toml is the median here, rounded. Programs: a sieve, sorting, a hash table, strings,
# floating point, each some hundreds of milliseconds.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 - "$work" <<'PY'
import json, sys
work = sys.argv[1]
programs = {
    "c": [
        "#include <stdio.h>\nstatic char s[4000001];\nint main(void) { int c = 0; for (int r = 0; r < 8; r++) { for (int i = 0; i <= 4000000; i++) s[i] = 1; for (int i = 2; i <= 4000000; i++) if (s[i]) { c++; for (long long j = (long long)i * i; j <= 4000000; j += i) s[j] = 0; } } printf(\"%d\\n\", c); }",
        "#include <stdio.h>\n#include <stdlib.h>\nint cmp(const void *a, const void *b) { return *(int *)a < *(int *)b ? -1 : *(int *)a > *(int *)b; }\nstatic int v[2000000];\nint main(void) { unsigned x = 1; for (int i = 0; i < 2000000; i++) v[i] = (x = x * 1664525 + 1013904223) >> 1; qsort(v, 2000000, 4, cmp); printf(\"%d\\n\", v[1000]); }",
        "#include <stdio.h>\nint main(void) { double s = 0; for (int i = 1; i < 60000000; i++) s += 1.0 / ((double)i * i); printf(\"%.9f\\n\", s); }",
        "#include <stdio.h>\nint f(int n) { return n < 2 ? n : f(n - 1) + f(n - 2); }\nint main(void) { printf(\"%d\\n\", f(38)); }",
    ],
    "cpp": [
        "#include <bits/stdc++.h>\nint main() { std::vector<int> v; unsigned x = 1; for (int i = 0; i < 3000000; i++) v.push_back((x = x * 1664525 + 1013904223) >> 1); std::sort(v.begin(), v.end()); std::cout << v[1000] << std::endl; }",
        "#include <bits/stdc++.h>\nint main() { std::map<int, int> m; unsigned x = 1; for (int i = 0; i < 700000; i++) m[(x = x * 1664525 + 1013904223) >> 8]++; std::cout << m.size() << std::endl; }",
        "#include <bits/stdc++.h>\nint main() { std::unordered_map<int, int> m; unsigned x = 1; for (int i = 0; i < 3000000; i++) m[(x = x * 1664525 + 1013904223) >> 12]++; std::cout << m.size() << std::endl; }",
        "#include <bits/stdc++.h>\nint main() { std::string s; for (int i = 0; i < 3000000; i++) s += std::to_string(i); long long h = 0; for (char c : s) h = h * 31 + c; std::cout << h << std::endl; }",
    ],
    "go": [
        'package main\nimport ("fmt"; "sort")\nfunc main() { v := []int{}; x := uint32(1); for i := 0; i < 2000000; i++ { x = x*1664525 + 1013904223; v = append(v, int(x>>1)) }; sort.Ints(v); fmt.Println(v[1000]) }',
        'package main\nimport "fmt"\nfunc f(n int) int { if n < 2 { return n }; return f(n-1) + f(n-2) }\nfunc main() { fmt.Println(f(38)) }',
        'package main\nimport "fmt"\nfunc main() { m := map[uint32]int{}; x := uint32(1); for i := 0; i < 3000000; i++ { x = x*1664525 + 1013904223; m[x>>12]++ }; fmt.Println(len(m)) }',
    ],
    "lua": [
        "local c = 0 for r = 1, 3 do local s = {} for i = 2, 1000000 do s[i] = true end for i = 2, 1000000 do if s[i] then c = c + 1 for j = i * i, 1000000, i do s[j] = false end end end end print(c)",
        "local v, x = {}, 1 for i = 1, 400000 do x = (x * 1664525 + 1013904223) % 4294967296 v[i] = x end table.sort(v) print(v[1000])",
        "local function f(n) if n < 2 then return n end return f(n - 1) + f(n - 2) end print(f(31))",
        "local t = {} for i = 1, 600000 do local k = 'k' .. (i % 5000) t[k] = (t[k] or 0) + 1 end print(t.k7)",
    ],
    "python": [
        "c = 0\nfor r in range(3):\n    s = [True] * 1000001\n    for i in range(2, 1000001):\n        if s[i]:\n            c += 1\n            for j in range(i * i, 1000001, i): s[j] = False\nprint(c)",
        "x = 1\nv = []\nfor i in range(800000):\n    x = (x * 1664525 + 1013904223) % 4294967296\n    v.append(x)\nv.sort()\nprint(v[1000])",
        "def f(n): return n if n < 2 else f(n - 1) + f(n - 2)\nprint(f(28))",
        "t = {}\nfor i in range(900000):\n    k = 'k%d' % (i % 5000)\n    t[k] = t.get(k, 0) + 1\nprint(t['k7'])",
    ],
    "javascript": [
        "let c = 0; for (let r = 0; r < 8; r++) { const s = new Uint8Array(2000001).fill(1); for (let i = 2; i <= 2000000; i++) if (s[i]) { c++; for (let j = i * i; j <= 2000000; j += i) s[j] = 0; } } console.log(c);",
        "let x = 1; const v = []; for (let i = 0; i < 600000; i++) { x = (x * 1103515 + 12345) % 2147483648; v.push(x); } v.sort((a, b) => a - b); console.log(v[1000]);",
        "const f = (n) => (n < 2 ? n : f(n - 1) + f(n - 2)); console.log(f(32));",
        "const t = new Map(); for (let i = 0; i < 1500000; i++) { const k = 'k' + (i % 5000); t.set(k, (t.get(k) || 0) + 1); } console.log(t.get('k7'));",
    ],
}
problem = {"schema": "problem/1", "id": "p", "statement": "", "tests": [{"input": "", "output": ""}]}
open(f"{work}/problems.jsonl", "w").write(json.dumps(problem) + "\n")
for language, sources in programs.items():
    with open(f"{work}/{language}.jsonl", "w") as out:
        for i, source in enumerate(sources):
            out.write(json.dumps({"schema": "program/1", "id": str(i), "problem": "p", "language": language, "source": source}) + "\n")
PY
for language in c cpp go lua python javascript; do
  for sandbox in container wasm; do
    cog-judge -q --sandbox $sandbox -j1 --measured --cpu-ms 60000 --memory-mb 1024 --tests "$work/problems.jsonl" \
      "$work/$language.jsonl" -o "$work/$sandbox.jsonl" || continue 2
  done
  python3 - "$work" $language shared/languages/languages.toml <<'PY'
import json, re, statistics, sys
work, language, table = sys.argv[1:]
rate = int(re.search(rf"(?ms)^\[{language}\.wasm\].*?fuel_per_ms = ([\d_]+)", open(table).read())[1].replace("_", ""))
found = []
for a, b in zip(open(f"{work}/container.jsonl"), open(f"{work}/wasm.jsonl")):
    a, b = json.loads(a)["verdict"], json.loads(b)["verdict"]
    assert a["status"] == b["status"] == "WA", (a, b)
    (cpu, _, _), (virtual, real, _) = a["measured"]["tests"][0], b["measured"]["tests"][0]
    found.append(rate * virtual / cpu)
    print(f"{language} {len(found)}: container {cpu:.0f} ms CPU, wasm {real:.0f} ms wall, {found[-1]:,.0f} instructions a millisecond")
print(f"{language}: median {statistics.median(found):,.0f}, the table has {rate:,}")
PY
done
