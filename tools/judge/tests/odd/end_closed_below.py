import os

print('never comes')
os.close(1)
