import threading
a, b = map(int, input().split())
threads = 0
wait = threading.Event()
try:
    while threads < 200:
        threading.Thread(target=wait.wait, daemon=True).start()
        threads += 1
except RuntimeError:
    pass
print(a + b if threads < 100 else f"{threads} threads", flush=True)
import os
os._exit(0)
