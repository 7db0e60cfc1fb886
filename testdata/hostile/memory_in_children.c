// verdict: MLE
// No process takes much; together they do.
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
int main(void) {
    for (int i = 0; i < 8; i++)
        if (fork() == 0) { char *p = malloc(60 << 20); memset(p, 1, 60 << 20); sleep(1000); }
    sleep(1000);
}
