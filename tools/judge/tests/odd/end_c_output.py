import ctypes

ctypes.CDLL(None).printf(b'from C\n')
print('end', flush=True)
