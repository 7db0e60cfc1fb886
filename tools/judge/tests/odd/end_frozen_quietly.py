import gc
import sys


class A:
    def __del__(self):
        print('taken apart')


a = A()
gc.freeze()
del sys.modules['gc']
print('end')
