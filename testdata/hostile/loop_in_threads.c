// The main thread sleeps; the others burn the time.
#include <pthread.h>
#include <unistd.h>
static void *burn(void *unused) { for (volatile long i = 0;; i++) {} return unused; }
int main(void) {
    pthread_t t;
    for (int i = 0; i < 4; i++) pthread_create(&t, 0, burn, 0);
    for (;;) pause();
}
