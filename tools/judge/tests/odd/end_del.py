class A:
    def __del__(self):
        print('taken apart')


a = A()
print('end')
