// Types into whatever terminal there is.
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>
int main(void) {
    int a, b, ways = 0;
    scanf("%d %d", &a, &b);
    ways += open("/dev/tty", O_RDWR) >= 0 || open("/dev/ptmx", O_RDWR) >= 0 || open("/dev/console", O_RDWR) >= 0;
    for (int fd = 0; fd < 3; fd++) ways += ioctl(fd, TIOCSTI, "x") == 0 || errno != ENOSYS;
    printf("%d\n", ways ? -ways : a + b);
}
