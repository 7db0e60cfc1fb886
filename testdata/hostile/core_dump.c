// A limit of 1 on core dumps means: not even to a program of the host's that collects them. It must stay.
#include <stdio.h>
#include <sys/resource.h>
int main(void) {
    int a, b;
    struct rlimit before, after, none = {0, 0};
    scanf("%d %d", &a, &b);
    getrlimit(RLIMIT_CORE, &before);
    int changed = setrlimit(RLIMIT_CORE, &none) == 0;
    getrlimit(RLIMIT_CORE, &after);
    printf("%d\n", !changed && before.rlim_max <= 1 && after.rlim_max == before.rlim_max ? a + b : -1);
}
