// A terabyte that is asked for and never touched is no offence: runtimes do so.
#include <stdio.h>
#include <sys/mman.h>
int main(void) {
    int a, b;
    scanf("%d %d", &a, &b);
    void *p = mmap(0, 1L << 40, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    printf("%d\n", p == MAP_FAILED ? -1 : a + b);
}
