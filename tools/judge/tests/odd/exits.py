import atexit, sys, threading
atexit.register(print, "last")
atexit.register(print, "first")
threading.Thread(target=lambda: print("thread")).start()
sys.exit("a message")
