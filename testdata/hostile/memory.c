// 400 MiB, then the right answer.
#include <stdio.h>
#include <stdlib.h>
int main(void) {
    int a, b;
    scanf("%d %d", &a, &b);
    volatile char *p = malloc(400 << 20);
    for (long at = 0; at < 400 << 20; at += 4096) p[at] = 1;
    printf("%d\n", a + b);
}
