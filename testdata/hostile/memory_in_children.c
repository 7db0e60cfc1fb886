// No process takes much; together they take 480 MiB.
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
int main(void) {
    int a, b, ends[2];
    char byte;
    scanf("%d %d", &a, &b);
    pipe(ends);
    for (int i = 0; i < 8; i++)
        if (fork() == 0) {
            volatile char *p = malloc(60 << 20);
            for (long at = 0; at < 60 << 20; at += 4096) p[at] = 1;
            write(ends[1], "x", 1);
            for (;;) pause();
        }
    for (int i = 0; i < 8; i++) read(ends[0], &byte, 1);
    usleep(50000);
    printf("%d\n", a + b);
}
