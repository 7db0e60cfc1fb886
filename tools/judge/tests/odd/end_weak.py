import weakref


class A:
    pass


a = A()
w = weakref.ref(a, lambda _: print('gone'))
finalizer = weakref.finalize(A, print, 'finalize')
print('end')
