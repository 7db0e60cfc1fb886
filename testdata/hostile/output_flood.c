// 4 MiB of empty lines, then the right answer.
#include <stdio.h>
int main(void) {
    int a, b;
    scanf("%d %d", &a, &b);
    for (int i = 0; i < 4 << 20; i++) putchar('\n');
    printf("%d\n", a + b);
}
