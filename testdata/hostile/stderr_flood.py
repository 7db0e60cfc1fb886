import sys
a, b = map(int, input().split())
for _ in range(64):
    sys.stderr.write("x" * 65536)
print(a + b)
