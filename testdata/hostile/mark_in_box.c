// Leaves a mark beside its own program, and puts another in its place.
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
int main(void) {
    int a, b, ways = 0;
    scanf("%d %d", &a, &b);
    ways += open("/box/mark", O_CREAT | O_WRONLY, 0600) >= 0;
    ways += rename("/box/main", "/box/other") == 0;
    printf("%d\n", ways ? -ways : a + b);
}
