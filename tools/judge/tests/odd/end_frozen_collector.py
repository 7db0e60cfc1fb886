import gc


class A:
    def __del__(self):
        print('taken apart')


a = A()
gc.freeze()
print('end')
