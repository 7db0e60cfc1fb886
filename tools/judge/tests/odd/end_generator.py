def f():
    try:
        yield 1
    finally:
        print('closed')


g = f()
print(next(g))
