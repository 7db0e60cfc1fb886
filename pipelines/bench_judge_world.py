"""What pipelines/bench-judge.py lets the judge and its contenders run: programs that do next to nothing, so that what is
measured is the running; and the real ones. No two sources are equal, so that no verdict is repeated from another's."""

import json
import shutil
import subprocess
from pathlib import Path

C_SUM = '#include <stdio.h>\nint main(void) {{ int a, b; scanf("%d %d", &a, &b); printf("%d\\n", a + b + {0} - {0}); return 0; }}\n'
PYTHON_SUM = "print(sum(map(int, input().split())) + {0} - {0})\n"


def lines(path, records):
    path.write_text("".join(json.dumps(r) + "\n" for r in records))
    return path


def sums(work, name, language, source, programs, tests):
    """A problem of sums with so many tests, and so many programs that solve it."""
    cases = [{"input": f"{i} {i * 7}\n", "output": f"{i * 8}\n"} for i in range(tests)]
    problem = {"schema": "problem/1", "id": "sum", "statement": "the sum of two numbers", "tests": cases}
    records = ({"schema": "program/1", "id": str(i), "problem": "sum", "language": language, "source": source.format(i)}
               for i in range(programs))
    return {"problems": lines(work / f"{name}-problems.jsonl", [problem]),
            "programs": lines(work / f"{name}.jsonl", records), "runs": programs * tests}


def corpus(work, data, name, keep):
    """Programs of a real corpus for which `keep` says yes, as cog-mine imports them."""
    source = data / name / f"{name}.jsonl"
    if not source.exists():
        return None
    at = work / name
    if not at.exists():
        run = lambda *words: subprocess.run([str(w) for w in words], check=True)
        run("cog-mine", "import", "-q", "--map", f"testdata/maps/{name}.toml", source, "-o", at)
        run("cog-mine", "candidates", "-q", "--claims", "any", "--min-languages", 1, "--per-language", 999, "--problems",
            at / "problems.jsonl", at / "programs.jsonl", "-o", at / "candidates.jsonl")
    records = [r for r in map(json.loads, (at / "candidates.jsonl").open()) if r.get("schema") == "program/1" and keep(r)]
    return {"problems": at / "problems.jsonl", "programs": records}


def static_binary(work):
    """The trivial program for those who run a process each time."""
    if not shutil.which("gcc"):
        return None
    (work / "sum.c").write_text(C_SUM.format(0))
    (work / "root/box").mkdir(parents=True)
    subprocess.run(["gcc", "-O2", "-static", "-o", work / "root/box/main", work / "sum.c"], check=True)
    return work / "root"
