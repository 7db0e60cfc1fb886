// The main process sleeps; its children burn the time.
#include <unistd.h>
int main(void) { for (int i = 0; i < 4; i++) if (fork() == 0) for (;;) {} sleep(1000); }
