import os
a, b = map(int, input().split())
os.closerange(0, 1024)
os.write(1, f"{a + b}\n".encode())
