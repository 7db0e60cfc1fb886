// What outlives its maker: shared memory, semaphores and queues under a number.
#include <stdio.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
int main(void) {
    int a, b, made = 0;
    scanf("%d %d", &a, &b);
    made += shmget(77, 4096, IPC_CREAT | 0666) >= 0;
    made += semget(77, 1, IPC_CREAT | 0666) >= 0;
    made += msgget(77, IPC_CREAT | 0666) >= 0;
    printf("%d\n", made ? -made : a + b);
}
