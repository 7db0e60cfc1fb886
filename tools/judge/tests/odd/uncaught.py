class Odd(Exception):
    pass
def g():
    raise Odd("so") from ValueError("because")
g()
