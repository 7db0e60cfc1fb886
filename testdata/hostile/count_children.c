// As many sleeping children as can be had; under a hundred, or the answer is wrong.
#include <stdio.h>
#include <sys/types.h>
#include <unistd.h>
int main(void) {
    int a, b, children = 0;
    scanf("%d %d", &a, &b);
    for (pid_t pid; children < 200 && (pid = fork()) >= 0; children++)
        if (pid == 0) for (;;) pause();
    printf("%d\n", children < 100 ? a + b : -children);
}
