import os


def gone(self, write=os.write):
    write(1, b'taken apart\n')


os._Environ.__del__ = gone
print('end', flush=True)
