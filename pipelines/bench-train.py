#!/usr/bin/env python3
"""Training speed of this suite and of PyTorch, side by side: tokens/s of full steps (forward,
backward, clip, AdamW) in f32, by turns in one run, medians over rounds.

    bench-train.py BINARY [--rounds N] [--threads N] [--shape 10m|tiny]... [--autotune] [--json FILE]

Needs torch in the Python that runs it. Each contender is a process that waits between its turns, so
that a busy moment of the machine hits all alike; ratios are medians of the rounds' own ratios.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

SHAPES = {
    "10m": dict(hidden=256, feed_forward=688, layers=8, heads=8, key_heads=4, head_dim=32, vocabulary=8192,
                tied=False, length=512, batch=4),
    "tiny": dict(hidden=128, feed_forward=352, layers=4, heads=4, key_heads=4, head_dim=32, vocabulary=1024,
                 tied=True, length=128, batch=16),
}
TORCH = {"PyTorch eager": "eager", "torch.compile": "compile"}
AUTOTUNE = {"torch.compile, max-autotune": "compile-autotune"}


class Contender:
    def __init__(self, command, log):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        self.rounds = []

    def read(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"bench-train: {self.process.args[0]} ended with {self.process.wait()}")
        return json.loads(line)

    def take(self, steps):
        self.process.stdin.write(f"{steps}\n")
        self.process.stdin.flush()
        return self.read()


def bench(name, binary, torch_modes, rounds, threads, log):
    shape = SHAPES[name]
    tokens = shape["batch"] * shape["length"]
    text = json.dumps(shape)
    script = str(Path(__file__).with_name("bench_train_torch.py"))
    commands = {"cognate": [binary, text, str(threads)]}
    commands |= {k: [sys.executable, script, text, mode, str(threads)] for k, mode in torch_modes.items()}
    contenders = {}
    for k, command in commands.items():
        # One at a time: compiling must not disturb another's warm-up.
        contenders[k] = Contender(command, log)
        about = contenders[k].read()
        print(f"{name}: {k} is ready {about}", file=sys.stderr, flush=True)
    # As many steps a turn as give about a second and a half.
    pilot = {k: c.take(2)["wall"] / 2 for k, c in contenders.items()}
    steps = {k: max(2, round(1.5 / t)) for k, t in pilot.items()}
    order = list(contenders)
    for r in range(rounds):
        for k in order[r % len(order):] + order[: r % len(order)]:
            time.sleep(0.1)  # OpenMP's threads spin for a moment after their work
            result = contenders[k].take(steps[k])
            contenders[k].rounds.append({key: steps[k] * tokens / result[key] for key in ("wall", "cpu")})
    for c in contenders.values():
        c.process.stdin.close()
        c.process.wait()
    rows = []
    for k, c in contenders.items():
        def middle(key):
            return statistics.median(x[key] for x in c.rounds)

        def ratio(key):
            pairs = zip(contenders["cognate"].rounds, c.rounds)
            return statistics.median(ours[key] / theirs[key] for ours, theirs in pairs)

        rows.append({"shape": name, "contender": k, "tokens_per_second": middle("wall"),
                     "tokens_per_cpu_second": middle("cpu"), "cognate_is_faster_by": ratio("wall"),
                     "by_cpu_time": ratio("cpu")})
    return rows


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("binary")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--shape", action="append", choices=SHAPES)
    parser.add_argument("--autotune", action="store_true", help="torch.compile's max-autotune too; minutes to compile")
    parser.add_argument("--json")
    args = parser.parse_args()
    rows = []
    print("| shape | contender | tokens/s | tokens/CPU s | cognate, times as fast | by CPU time |")
    print("|---|---|---|---|---|---|", flush=True)
    with open(os.devnull, "w") as log:
        for name in args.shape or SHAPES:
            found = bench(name, args.binary, TORCH | (AUTOTUNE if args.autotune else {}), args.rounds, args.threads, log)
            rows += found
            for r in found:
                print(f"| {r['shape']} | {r['contender']} | {r['tokens_per_second']:,.0f} | {r['tokens_per_cpu_second']:,.0f} "
                      f"| {r['cognate_is_faster_by']:.2f} | {r['by_cpu_time']:.2f} |", flush=True)
    if args.json:
        Path(args.json).write_text(json.dumps({"threads": args.threads, "rounds": args.rounds, "rows": rows}, indent=1) + "\n")


main()
