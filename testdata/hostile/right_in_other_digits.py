# The right number, in Arabic digits.
a, b = map(int, input().split())
print("".join(chr(0x660 + int(d)) for d in str(a + b)))
