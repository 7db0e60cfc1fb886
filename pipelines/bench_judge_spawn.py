"""A process per run, as a harness around runc or bubblewrap does it: stdin from a file, stdout read from a pipe, the
answer compared. Isolation as the judge's: all namespaces, read-only files, a private /tmp, no capabilities. Neither is
asked for a seccomp filter, limits of memory or accounting, which cost the judge and would cost them."""

import json
import os
import shutil
import subprocess
import threading
import time


def bubblewrap(root):
    if not shutil.which("bwrap"):
        return "bubblewrap is not installed (apt install bubblewrap)"
    words = ["bwrap", "--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--clearenv", "--ro-bind",
             "/usr", "/usr", "--ro-bind", str(root / "box"), "/box", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp",
             "--chdir", "/tmp", "/box/main"]
    return lambda worker, number: words


def runc(root):
    if not shutil.which("runc"):
        return "runc is not installed (apt install runc)"
    if os.geteuid() != 0:
        return "runc is measured as root only"
    bundle = root.parent / "bundle"
    bundle.mkdir(exist_ok=True)
    if not (bundle / "config.json").exists():
        subprocess.run(["runc", "spec"], cwd=bundle, check=True)
        config = json.loads((bundle / "config.json").read_text())
        config["root"] = {"path": str(root), "readonly": True}
        process = config["process"]
        process.update(terminal=False, args=["/box/main"], cwd="/", noNewPrivileges=True)
        process["capabilities"] = {kind: [] for kind in process["capabilities"]}
        config["mounts"].append({"destination": "/tmp", "type": "tmpfs", "source": "tmpfs",
                                 "options": ["nosuid", "nodev", "size=64m"]})
        for place in ("tmp", "proc", "dev", "sys"):
            (root / place).mkdir(exist_ok=True)
        (bundle / "config.json").write_text(json.dumps(config))
    state = root.parent / "state"
    return lambda worker, number: ["runc", "--root", str(state), "run", "--bundle", str(bundle),
                                   f"bench-{os.getpid()}-{worker}-{number}"]


def bare(root):
    return lambda worker, number: [str(root / "box/main")]


def spawn(words, stdin):
    out, theirs = os.pipe()
    pid = os.posix_spawn(words[0], words, os.environ, file_actions=[
        (os.POSIX_SPAWN_DUP2, stdin, 0), (os.POSIX_SPAWN_DUP2, theirs, 1)])
    os.close(theirs)
    with os.fdopen(out, "rb") as pipe:
        text = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), text


def run(command, workers, runs, work):
    """Seconds that so many runs take, shared by so many threads. Raises when one answers wrongly."""
    wrong = []

    def some(worker):
        for number in range(worker, runs, workers):
            path = work / f"input-{worker}"
            path.write_text(f"{number} {number * 7}\n")
            words = command(worker, number)
            stdin = os.open(path, os.O_RDONLY)
            end = spawn([shutil.which(words[0]) or words[0], *words[1:]], stdin)
            os.close(stdin)
            if end != (0, f"{number * 8}\n".encode()):
                wrong.append((words[0], end))

    threads = [threading.Thread(target=some, args=(w,)) for w in range(workers)]
    start = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    seconds = time.monotonic() - start
    if wrong:
        raise SystemExit(f"bench-judge: {wrong[0][0]} answered {wrong[0][1]!r}")
    return seconds
