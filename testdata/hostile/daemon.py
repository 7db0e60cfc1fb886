# Outlives its parent by all known means, and holds the streams open.
import os
import signal
import time
a, b = map(int, input().split())
print(a + b, flush=True)
if os.fork() == 0:
    os.setsid()
    for s in range(1, 65):
        try:
            signal.signal(s, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
    if os.fork() == 0:
        os.execv("/bin/sleep", ["sleep", "86399"])
    time.sleep(1000)
time.sleep(0.05)
