import builtins
import os


class A:
    def __del__(self):
        os.write(1, b'taken apart\n')


builtins.a = A()
print('end', flush=True)
