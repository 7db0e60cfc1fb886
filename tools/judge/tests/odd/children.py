import os, subprocess
from concurrent.futures import ThreadPoolExecutor
print(subprocess.run(["/bin/echo", "child"], capture_output=True).stdout)
if os.fork() == 0:
    os._exit(9)
print(os.wait()[1] >> 8)
with ThreadPoolExecutor(4) as pool:
    print(list(pool.map(lambda x: x * x, range(5))))
