// Files in memory that are mapped nowhere: 400 MiB that no process's size shows. The right answer if it cannot be had.
#define _GNU_SOURCE
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
static char block[1 << 20];
int main(void) {
    int a, b, got = 0;
    scanf("%d %d", &a, &b);
    memset(block, 1, sizeof block);
    for (int i = 0; i < 50; i++) {
        int fd = memfd_create("x", 0);
        for (int j = 0; fd >= 0 && j < 8; j++) got += write(fd, block, sizeof block) == sizeof block;
    }
    usleep(50000);
    printf("%d\n", got < 300 ? a + b : -got);
}
