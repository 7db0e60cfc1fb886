// 80,000 empty files; the right answer if they cannot be had.
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
int main(void) {
    int a, b, made = 0, fd;
    char name[32];
    scanf("%d %d", &a, &b);
    for (; made < 80000; made++, close(fd)) {
        sprintf(name, "/tmp/%d", made);
        if ((fd = open(name, O_CREAT | O_EXCL | O_WRONLY, 0600)) < 0) break;
    }
    printf("%d\n", made < 80000 ? a + b : -made);
}
