# Links out of the sandbox, and onto what is not one's own.
import os
a, b = map(int, input().split())
found = []
for n, target in enumerate(("/etc/shadow", "/proc/1/root/etc/shadow", "/proc/self/root/../../etc/shadow", "/old/etc/shadow",
                            "../" * 40 + "etc/shadow")):
    os.symlink(target, f"/tmp/{n}")
    try:
        found.append(open(f"/tmp/{n}").read(1))
    except OSError:
        pass
for target in ("/box/main.py", "/usr/bin/env", "/dev/null", "/etc/passwd"):
    try:
        os.link(target, "/tmp/hard")
        found.append(target)
    except OSError:
        pass
print(a + b if not found else found)
