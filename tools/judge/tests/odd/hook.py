import sys
sys.excepthook = lambda *a: print("hooked", a[0].__name__)
1 / 0
