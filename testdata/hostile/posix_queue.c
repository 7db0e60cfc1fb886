#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>
int main(void) {
    int a, b;
    scanf("%d %d", &a, &b);
    printf("%d\n", mq_open("/mark", O_CREAT | O_RDWR, 0600, 0) == -1 ? a + b : -1);
}
