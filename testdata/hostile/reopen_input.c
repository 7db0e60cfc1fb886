// Input is a file of the run's own: writing to it must reach nobody else.
#include <stdio.h>
#include <unistd.h>
int main(void) {
    int a, b;
    scanf("%d %d", &a, &b);
    lseek(0, 0, SEEK_SET);
    write(0, "9 9\n", 4);
    ftruncate(0, 4);
    printf("%d\n", a + b);
}
