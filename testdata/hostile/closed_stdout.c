#include <stdio.h>
int main(void) { fclose(stdout); return 0; }
