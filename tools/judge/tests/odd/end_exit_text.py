import sys

print('end')
sys.exit('a text')
