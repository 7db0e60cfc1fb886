#!/usr/bin/env python3
"""The judge's speed beside other ways to run foreign code: by turns in one run, medians over rounds, a table last.

    bench-judge.py [--evalplus PYTHON] [--data DIR] [--rounds N] [--workers N] [--only WORD]... [--json FILE]

cog-judge and cog-mine are taken from PATH. What this machine lacks is said on stderr and left out of the table. Ratios
are medians of the rounds' own ratios, so that a busy moment hits both sides.
"""

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import bench_judge_spawn as spawn
import bench_judge_world as world

HERE = Path(__file__).parent.resolve()
MBXP, EVALPLUS = "MBXP Python", "evalplus' executor"
LONG_MS = 100


def say(text):
    print(f"bench-judge: {text}", file=sys.stderr, flush=True)


class Meter:
    """CPU seconds of everything started within, by a control group of ours; None where there is none."""

    def __init__(self):
        self.group = Path(f"/sys/fs/cgroup/cpuacct/bench-judge-{os.getpid()}")
        try:
            self.group.mkdir()
            (self.group / "cgroup.procs").write_text(str(os.getpid()))
        except OSError as e:
            say(f"SKIPPED: CPU times, as there is no control group cpuacct (version 1) to read them from: {e}")
            self.group = None

    def seconds(self):
        return int((self.group / "cpuacct.usage").read_text()) / 1e9 if self.group else None

    def close(self):
        if self.group:
            # evalplus is still there; others may be about to end.
            for pid in (self.group / "cgroup.procs").read_text().split():
                with contextlib.suppress(OSError):
                    (self.group.parent / "cgroup.procs").write_text(pid)
            try:
                self.group.rmdir()
            except OSError as e:
                say(f"{self.group} stays: {e}")


def judge(work, what, workers, *flags, wrong=0):
    """Seconds that the judge takes, with everything that it does: starting, building, comparing, writing; and the
    verdicts, of which all but `wrong` (None: any number) must be AC."""
    out = work / "judged.jsonl"
    words = ["cog-judge", "-q", "-j", str(workers), "--no-result-cache", "--tests", str(what["problems"]),
             str(what["programs"]), "-o", str(out), *flags]
    start = time.monotonic()
    subprocess.run(words, check=True)
    seconds = time.monotonic() - start
    verdicts = [json.loads(line)["verdict"] for line in out.open()]
    found = sum(v["status"] != "AC" for v in verdicts)
    if wrong not in (None, found):
        raise SystemExit(f"bench-judge: {found} of {len(verdicts)} not accepted: {' '.join(words)}")
    return seconds, verdicts


class Bench:
    def __init__(self, args, work):
        self.args, self.work, self.meter = args, work, Meter()
        # name → one figure a round
        self.rounds, self.cpu = {}, {}

    def take(self, name, runs, act):
        """One turn: keeps seconds a run, and CPU seconds a run."""
        before = self.meter.seconds()
        seconds = act()
        self.rounds.setdefault(name, []).append(seconds / runs)
        if before is not None:
            self.cpu.setdefault(name, []).append((self.meter.seconds() - before) / runs)

    def ratio(self, slow, fast):
        return statistics.median(a / b for a, b in zip(self.rounds[slow], self.rounds[fast]))


def turns(bench):
    """The contenders: name → (runs a turn, what to do)."""
    args, work = bench.args, bench.work
    workers, found = args.workers, {}
    run_judge = lambda what, *flags, **more: lambda: judge(work, what, workers, *flags, **more)[0]
    c = world.sums(work, "c", "c", world.C_SUM, 20, 250)
    found["C, 20 programs of 250 tests"] = (c["runs"], run_judge(c))
    for tests in (1, 20):
        few = world.sums(work, f"c{tests}", "c", world.C_SUM, 60, tests)
        found[f"C, 60 programs of {tests} test{'s' * (tests > 1)}"] = (60, run_judge(few))
    python = world.sums(work, "python", "python", world.PYTHON_SUM, 200, 15)
    found["Python, 200 programs of 15 tests"] = (python["runs"], run_judge(python))
    root = world.static_binary(work)
    for name, kind, runs in (("runc", spawn.runc, 120), ("bubblewrap", spawn.bubblewrap, 400), ("bare spawn", spawn.bare, 2000)):
        command = kind(root) if root else "gcc is not installed"
        if isinstance(command, str):
            say(f"SKIPPED: {name}: {command}")
            continue
        found[name] = (runs, lambda command=command, runs=runs: spawn.run(command, workers, runs, work))
    mbxp = world.corpus(work, args.data, "mbxp", lambda r: r["language"] == "python")
    if mbxp is None:
        say(f"SKIPPED: mbxp is not in {args.data}")
    else:
        found |= against_evalplus(bench, mbxp)
    return {k: v for k, v in found.items() if not args.only or any(w in k for w in args.only)}


def against_evalplus(bench, mbxp):
    args, work = bench.args, bench.work
    repeat = 5
    once = {"problems": mbxp["problems"], "programs": world.lines(work / "mbxp-once.jsonl", mbxp["programs"])}
    verdicts = judge(work, once, args.workers, "--measured", wrong=None)[1]
    # One that computes for long would measure Python, of which both sides have the same.
    brief = [v["status"] != "TLE" and v["measured"]["cpu_ms"] < LONG_MS for v in verdicts]
    programs = [r for r, is_brief in zip(mbxp["programs"], brief, strict=True) if is_brief]
    if len(programs) < len(verdicts):
        say(f"{len(verdicts) - len(programs)} of {len(verdicts)} MBXP programs left out: they compute for {LONG_MS} ms or more")
    right = repeat * sum(v["status"] == "AC" for v, is_brief in zip(verdicts, brief) if is_brief)
    # A comment makes each repetition a program of its own.
    repeated = [r | {"id": f"{r['id']}-{i}", "source": r["source"] + f"\n# {i}\n"} for i in range(repeat) for r in programs]
    what = {"problems": mbxp["problems"], "programs": world.lines(work / "mbxp-python.jsonl", repeated)}
    found = {MBXP: (len(repeated), lambda: judge(work, what, args.workers, wrong=len(repeated) - right)[0])}
    if not args.evalplus:
        say("SKIPPED: evalplus: no Python with it was named (--evalplus)")
        return found
    tests = {p["id"]: next(t["code"] for t in p["tests"] if t["language"] == "python")
             for p in map(json.loads, mbxp["problems"].open())}
    theirs = [{"code": f"{r['source']}\ndef cognate_check():\n    exec({tests[r['problem']]!r}, globals())\n    return True\n",
               "entry_point": "cognate_check"} for r in repeated]
    programs = world.lines(work / "evalplus.jsonl", theirs)
    process = subprocess.Popen([args.evalplus, HERE / "bench_judge_evalplus.py", programs, str(args.workers)],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    if not process.stdout.readline():
        raise SystemExit("bench-judge: evalplus did not start")

    def turn():
        process.stdin.write("\n")
        process.stdin.flush()
        end = json.loads(process.stdout.readline())
        # It keeps several modules from its programs, so a few that the judge accepts may fail there.
        if end["passed"] < 0.95 * right:
            raise SystemExit(f"bench-judge: evalplus passed only {end['passed']} of {right}")
        return end["seconds"]

    return found | {EVALPLUS: (len(repeated), turn)}


def compile_cpu(bench):
    """CPU milliseconds of compiling the C++ programs of kattis, by whether they include <bits/stdc++.h>."""
    kattis = world.corpus(bench.work, bench.args.data, "kattis", lambda r: r["language"] == "cpp")
    if kattis is None:
        say(f"SKIPPED: kattis is not in {bench.args.data}")
        return {}
    with_all = [r for r in kattis["programs"] if "bits/stdc++.h" in r["source"]]
    others = [r for r in kattis["programs"] if "bits/stdc++.h" not in r["source"]][::4]
    found = {}
    for name, records in (("<bits/stdc++.h>", with_all), ("other headers", others)):
        what = {"problems": kattis["problems"], "programs": world.lines(bench.work / "cpp.jsonl", records)}
        words = ["cog-judge", "-q", "-j", str(bench.args.workers), "--no-result-cache", "--measured", "--coverage", "0.01",
                 "--tests", str(what["problems"]), str(what["programs"]), "-o", str(bench.work / "cpp-out.jsonl")]
        subprocess.run(words, check=True)
        verdicts = [json.loads(line)["verdict"] for line in (bench.work / "cpp-out.jsonl").open()]
        found[name] = sorted(v["measured"]["compile_cpu_ms"] for v in verdicts if v["status"] != "CE")
    return found


def measure(bench):
    """All turns of all rounds; the names in order, and the compilers' CPU."""
    args, contenders = bench.args, turns(bench)
    order = list(contenders)
    for r in range(args.rounds if order else 0):
        for name in order[r % len(order):] + order[: r % len(order)]:
            runs, act = contenders[name]
            bench.take(name, runs, act)
            say(f"round {r + 1}: {name}: {1 / bench.rounds[name][-1]:,.0f}/s")
    asked = not args.only or any(w in "compile" for w in args.only)
    return order, compile_cpu(bench) if asked else {}


def table(bench, order):
    print("\n| what | runs/s | CPU ms a run |\n|---|---|---|")
    for name in order:
        rate = 1 / statistics.median(bench.rounds[name])
        cpu = f"{statistics.median(bench.cpu[name]) * 1000:.2f}" if name in bench.cpu else ""
        print(f"| {name} | {rate:,.0f} | {cpu} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--evalplus", help="a Python that can import evalplus")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--only", action="append", help="only what has this word in its name")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    os.chdir(HERE.parent)
    with tempfile.TemporaryDirectory(prefix="bench-judge-") as folder:
        bench = Bench(args, Path(folder))
        try:
            order, compiled = measure(bench)
        finally:
            bench.meter.close()
    if not args.only or any(w in "wasm" for w in args.only):
        subprocess.run([HERE / "bench-wasm.sh", "2000", "4"], check=False)
    table(bench, order)
    report(bench, order, compiled)
    if args.json:
        args.json.write_text(json.dumps({"workers": args.workers, "seconds_a_run": bench.rounds, "cpu_seconds_a_run": bench.cpu,
                                         "compile_cpu_ms": compiled}, indent=1) + "\n")


def report(bench, order, compiled):
    print("\n| target | wanted | measured |\n|---|---|---|")
    many, one, twenty = (next((n for n in order if n.startswith("C,") and w in n), None) for w in ("250", "1 test", "20 tests"))
    python = next((n for n in order if n.startswith("Python,")), None)
    if many:
        print(f"| trivial compiled runs a second | ≥ 1,500 | {1 / statistics.median(bench.rounds[many]):,.0f} |")
    if python:
        print(f"| Python runs a second | ≥ 900 | {1 / statistics.median(bench.rounds[python]):,.0f} |")
    if one and twenty:
        print(f"| 20 tests of a compiled program against 1 | < 3 | {bench.ratio(twenty, one):.2f} |")
    for name, cpu in compiled.items():
        wanted = "≤ 400" if "bits" in name else "—"
        print(f"| CPU ms to compile C++ with {name}, median of {len(cpu)} | {wanted} | {statistics.median(cpu):.0f} |")
    for name, wanted in (("runc", 15), ("bubblewrap", 4)):
        if many and name in order:
            print(f"| against {name}, a process per run | ≥ {wanted} | {bench.ratio(name, many):.1f} |")
    if EVALPLUS in order and MBXP in order:
        print(f"| against evalplus' executor on MBXP Python | ≥ 2 | {bench.ratio(EVALPLUS, MBXP):.2f} |")


main()
