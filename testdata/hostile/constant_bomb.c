// Two gigabytes of program.
char huge[1L << 31] = {1};
int main(void) { return huge[12345]; }
