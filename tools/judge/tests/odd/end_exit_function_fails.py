import atexit
import sys

atexit.register(int, 'no number')
atexit.register(sys.exit, 3)
print('end')
