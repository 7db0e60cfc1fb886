// A byte in every second megabyte of 100 GiB: half of the cost are the tables.
#include <stdio.h>
#include <sys/mman.h>
int main(void) {
    int a, b;
    scanf("%d %d", &a, &b);
    long size = 100L << 30;
    volatile char *p = mmap(0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (p == MAP_FAILED) return 1;
    madvise((void *)p, size, MADV_NOHUGEPAGE);
    for (long i = 0; i < size; i += 2 << 20) p[i] = 1;
    printf("%d\n", a + b);
}
