class A:
    __slots__ = ()

    def __del__(self):
        print('taken apart')


a = A()
b = [A(), 1]
print('end')
