#define _GNU_SOURCE
// The compiler's environment is part of this program. The test puts a secret into the judge's.
#include <stdio.h>
#include <string.h>
__asm__(".section .rodata\nenvironment: .incbin \"/proc/self/environ\"\n.byte 0\nend: .byte 0\n.text");
extern const char environment[], end[];
int main(void) {
    int a, b;
    scanf("%d %d", &a, &b);
    printf("%d\n", memmem(environment, end - environment, "COGNATE_SECRET", 14) ? -1 : a + b);
}
