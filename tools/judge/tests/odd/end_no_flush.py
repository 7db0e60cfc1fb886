import sys


class W:
    def __repr__(self):
        return 'W'

    def write(self, text):
        sys.__stdout__.write(text.upper())


sys.stdout = W()
print('end')
