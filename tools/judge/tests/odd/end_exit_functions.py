import atexit

atexit.register(print, 'second')
atexit.register(print, 'first')
atexit._run_exitfuncs()
print('end')
