# What one test does to its interpreter must not be there in the next.
import builtins
import sys
a, b = map(int, input().split())
print("poisoned" if hasattr(builtins, "poisoned") or "poison" in sys.modules else a + b, flush=True)
builtins.poisoned = True
sys.modules["poison"] = sys
builtins.print = lambda *_: None
sys.setrecursionlimit(10**6)
