// Each process burns a little, hands on to a child and ends, so that none is ever seen to have used much.
#include <time.h>
#include <unistd.h>
int main(void) {
    if (fork() != 0) for (;;) pause();
    for (;;) {
        for (clock_t start = clock(); clock() - start < CLOCKS_PER_SEC / 500;) {}
        if (fork() != 0) _exit(0);
    }
}
