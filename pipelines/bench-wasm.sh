#!/usr/bin/env bash
# Judged test runs a second in the WebAssembly sandbox, through cog-judge: JSONL in, JSONL out, compilation included.
#   bench-wasm.sh [TESTS] [PROGRAMS]      of a problem, and of each language; 2000 and 4 when not given
# The programs add two numbers and differ by a constant, so that no verdict is repeated from another's.
set -euo pipefail
tests=${1:-2000}
programs=${2:-4}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 - "$work" "$tests" "$programs" <<'PY'
import json, sys
work, tests, programs = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
cases = [{"input": f"{i} {i * 7}\n", "output": f"{i * 8}\n"} for i in range(tests)]
with open(f"{work}/problems.jsonl", "w") as out:
    out.write(json.dumps({"schema": "problem/1", "id": "sum", "statement": "a sum", "tests": cases}) + "\n")
sources = {
    "c": '#include <stdio.h>\nint main(void) {{ int a, b; scanf("%d %d", &a, &b); printf("%d\\n", a + b + {0} - {0}); }}',
    "cpp": "#include <iostream>\nint main() {{ int a, b; std::cin >> a >> b; std::cout << a + b + {0} - {0} << std::endl; }}",
    "rust": "fn main() {{ let mut s = String::new(); std::io::stdin().read_line(&mut s).unwrap(); println!(\"{{}}\", s.split_whitespace().map(|x| x.parse::<i64>().unwrap()).sum::<i64>() + {0} - {0}); }}",
    "go": 'package main\nimport "fmt"\nfunc main() {{ var a, b int; fmt.Scan(&a, &b); fmt.Println(a + b + {0} - {0}) }}',
    "lua": "print(math.tointeger(io.read('n') + io.read('n') + {0} - {0}))",
    "javascript": "console.log(require('fs').readFileSync(0, 'utf8').split(' ').map(Number).reduce((a, b) => a + b) + {0} - {0})",
    "python": "print(sum(map(int, input().split())) + {0} - {0})",
}
for language, source in sources.items():
    with open(f"{work}/{language}.jsonl", "w") as out:
        for i in range(programs):
            record = {"schema": "program/1", "id": str(i), "problem": "sum", "language": language, "source": source.format(i)}
            out.write(json.dumps(record) + "\n")
PY
printf '%-12s %10s %10s\n' language runs/s 'not AC'
for language in c cpp rust go lua javascript python; do
  cog-judge languages --json | python3 -c '
import json, sys
sys.exit(not any(l["name"] == sys.argv[1] and l["wasm"] for l in json.load(sys.stdin)))' $language || {
    printf '%-12s %10s\n' $language 'not here'
    continue
  }
  # Once before, so that guests are compiled and toolchains prepared.
  head -1 "$work/$language.jsonl" | cog-judge -q --sandbox wasm --coverage 0.001 --tests "$work/problems.jsonl" - >/dev/null
  begin=$(date +%s%N)
  cog-judge -q --sandbox wasm --tests "$work/problems.jsonl" "$work/$language.jsonl" -o "$work/out.jsonl"
  end=$(date +%s%N)
  wrong=$(grep -vc '"status":"AC","reward"' "$work/out.jsonl" || true)
  printf '%-12s %10d %10d\n' $language $((tests * programs * 1000000000 / (end - begin))) "$wrong"
done
