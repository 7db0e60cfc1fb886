#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>
int main(void) {
    int a, b, open_files = 0;
    scanf("%d %d", &a, &b);
    while (open_files < 3000 && open("/dev/null", O_RDONLY) >= 0) open_files++;
    printf("%d\n", open_files < 3000 ? a + b : -open_files);
}
