#!/usr/bin/env python3
"""Is a program in an interpreter forked for it the same as one in an interpreter started for it? Judges the real Python
programs through the fork server, runs each test with plain python3 beside that, and compares.

    agree-python.py DATA [WORK]     DATA holds kattis/ and mbxp/ (testdata/maps names their layout)

Compared a test: exit status, the beginning of stdout and of stderr, byte for byte, and whether the output is right by a
comparison of its own. Exit status 1 when anything differs.
"""

import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import bench_judge_world as world

# What the judge keeps of a stream, in bytes (EXCERPT of tools/judge/src/build.rs).
EXCERPT = 1000
ENVIRONMENT = {"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": "/tmp", "TMPDIR": "/tmp", "LANG": "C.UTF-8", "TZ": "UTC",
               "USER": "judge", "PYTHONHASHSEED": "0"}


def interpreter():
    """The python3 that the judge runs: it looks into these folders only."""
    return next(p for d in ENVIRONMENT["PATH"].split(":") if os.access(p := f"{d}/python3", os.X_OK))


def excerpt(data):
    return data[:EXCERPT].decode("utf-8", "replace") + ("…" if len(data) > EXCERPT else "")


def plain(source, stdin):
    """Exit status (negative: a signal), stdout, stderr; paths as the judge's sandbox has them."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "box").mkdir()
        (Path(folder) / "tmp").mkdir()
        path = f"{folder}/box/main.py"
        Path(path).write_text(source)
        end = subprocess.run([interpreter(), path], input=stdin.encode(), env=ENVIRONMENT, cwd=f"{folder}/tmp", capture_output=True)
        return end.returncode, end.stdout, end.stderr.replace(path.encode(), b"/box/main.py")


def is_right(output, expected):
    """Tokens, numbers within 1e-6, which is the checker of both corpora's maps."""
    a, b = output.decode("utf-8", "replace").split(), expected.split()

    def same(x, y):
        try:
            return x == y or abs(float(x) - float(y)) <= 1e-6 * max(1.0, abs(float(y)))
        except ValueError:
            return False

    return len(a) == len(b) and all(map(same, a, b))


def compare(program, tests, verdict):
    """Lines about what differs, and how many tests were compared."""
    found = []
    for test, judged in zip(tests, verdict["tests"], strict=True):
        code = test.get("code")
        source = program["source"] if code is None else f"{program['source']}\n{code}\n"
        status, out, err = plain(source, test.get("input") or "")
        right = status == 0 and (code is not None or is_right(out, test["output"]))
        want = "AC" if right else "WA" if status == 0 else "RE"
        ended = judged["exit"] if judged.get("signal") is None else -judged["signal"]
        pairs = {"status": (judged["status"], want), "end": (ended, status),
                 "stdout": (judged.get("stdout") or "", excerpt(out)), "stderr": (judged.get("stderr") or "", excerpt(err))}
        found += [f"{program['id']}: {name}: judge {a!r}, plain {b!r}" for name, (a, b) in pairs.items() if a != b]
    return found, len(tests)


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    data = Path(sys.argv[1]).resolve()
    os.chdir(Path(__file__).parent.parent)
    differing = 0
    with tempfile.TemporaryDirectory(prefix="agree-python-") as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        work = Path(sys.argv[2]) if len(sys.argv) > 2 else Path(folder)
        for corpus in ("kattis", "mbxp"):
            what = world.corpus(work, data, corpus, lambda r: r["language"] == "python")
            if what is None:
                sys.exit(f"agree-python: {corpus} is not in {data}")
            programs = world.lines(work / f"{corpus}-python.jsonl", what["programs"])
            out = work / f"{corpus}-judged.jsonl"
            words = ["cog-judge", "--no-result-cache", "--excerpts", "--cpu-ms", "8000", "--tests", what["problems"], programs, "-o", out]
            said = subprocess.run(words, check=True, stderr=subprocess.PIPE, text=True).stderr
            if "no fork server" in said:
                sys.exit(f"agree-python: there is no fork server to compare: {said}")
            problems = {p["id"]: p for p in map(json.loads, what["problems"].open())}
            of = lambda p: [t for t in problems[p["problem"]]["tests"] if t.get("language") in (None, "python")]
            records = list(map(json.loads, out.open()))
            ends = list(pool.map(lambda r: compare(r, of(r), r["verdict"]), records))
            lines = [line for found, _ in ends for line in found]
            differing += len(lines)
            print("\n".join([*lines, f"{corpus}: {len(records)} programs, {sum(n for _, n in ends)} tests, {len(lines)} differences"]))
    sys.exit(differing > 0)


main()
