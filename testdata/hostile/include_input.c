#include "/dev/stdin"
#include "/proc/self/fd/0"
