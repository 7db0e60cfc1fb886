// A program that names a loader which is not there: the kernel will not start it.
__asm__(".section .interp,\"a\"\n.string \"/box/nothing\"\n.text");
int main(void) { return 0; }
