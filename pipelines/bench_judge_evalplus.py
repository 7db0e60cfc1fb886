#!/usr/bin/env python3
"""evalplus' executor on programs given as JSONL {code, entry_point}: what `evalplus.evaluate` does with each, a call of
untrusted_check in a pool of processes. Waits for a line on stdin before each turn; prints seconds and how many passed.

    bench_judge_evalplus.py PROGRAMS WORKERS

Only `evalplus.eval` is imported: evaluate.py would also load its model clients, and its forks would cost more. The
test's own function is the entry point: it takes no arguments and must return True.
"""

import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor

from evalplus.eval import PASS, untrusted_check


def check(program):
    status, _ = untrusted_check("cognate", program["code"], [[]], program["entry_point"], expected=[True], atol=0,
                                ref_time=[0.1], fast_check=True)
    return status == PASS


def main():
    programs = [json.loads(line) for line in open(sys.argv[1])]
    workers = int(sys.argv[2])
    print(json.dumps({"programs": len(programs)}), flush=True)
    for _ in sys.stdin:
        start = time.monotonic()
        with ProcessPoolExecutor(max_workers=workers) as pool:
            futures = [pool.submit(check, program) for program in programs]
            passed = sum(f.result() for f in futures)
        print(json.dumps({"seconds": time.monotonic() - start, "passed": passed}), flush=True)


if __name__ == "__main__":
    main()
