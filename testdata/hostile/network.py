import socket
a, b = map(int, input().split())
open_doors = 0
for family in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX, getattr(socket, "AF_VSOCK", 40), socket.AF_NETLINK):
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW):
        try:
            socket.socket(family, kind)
            open_doors += 1
        except OSError:
            pass
print(a + b if open_doors == 0 else "a socket!")
