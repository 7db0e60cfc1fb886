# The same from a forked interpreter, whose parent is its server: a dead child there, that nobody waits for, would keep
# the whole process namespace from ending.
import ctypes
import os
import signal
a, b = map(int, input().split())
CLONE_PARENT, SYS_CLONE = 0x8000, {"x86_64": 56, "aarch64": 220}[os.uname().machine]
pid = ctypes.CDLL(None).syscall(SYS_CLONE, CLONE_PARENT | signal.SIGCHLD, 0, 0, 0, 0)
if pid == 0:
    os._exit(0)
print(a + b if pid < 0 else "a sibling", flush=True)
