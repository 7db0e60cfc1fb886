import os, sys
import __main__
print(__name__, __file__, sys.argv, sys.path[0], __main__ is sys.modules["__main__"])
print(sorted(os.environ.items()), os.getcwd(), os.getuid(), os.getgid(), os.getpid())
print(sorted(sys.modules))
print(sorted(globals()), sys.flags, sys.getrecursionlimit(), hash("a"))
print(os.listdir("/tmp"), sorted(os.listdir("/dev")), sys.stdin.isatty(), sys.stdout.isatty(), sys.stdout.encoding)
print(sys.executable, sys.prefix, __builtins__, __spec__, __loader__.__class__)
