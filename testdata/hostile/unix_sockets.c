// Abstract names and datagrams to an address, without socket(): a pair's end may be used for both.
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>
int main(void) {
    int a, b, ends[2], ways = 0;
    scanf("%d %d", &a, &b);
    struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "\0mark"};
    if (socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) == 0) {
        ways += bind(ends[0], (struct sockaddr *)&name, sizeof name) == 0;
        ways += sendto(ends[1], "x", 1, 0, (struct sockaddr *)&name, sizeof name) == 1;
        ways += connect(ends[1], (struct sockaddr *)&name, sizeof name) == 0;
    }
    printf("%d\n", ways ? -ways : a + b);
}
