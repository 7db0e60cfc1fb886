# A byte order mark, and lines that end in CR LF.
a, b = map(int, input().split())
print(a + b)
