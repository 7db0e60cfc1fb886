import sys
print(repr(input()), repr(sys.stdin.read()))
print(repr(open("/dev/stdin").read()))
print("to the end", file=open("/dev/stdout", "w"))
input()
