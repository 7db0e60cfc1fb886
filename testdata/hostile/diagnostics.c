// Megabytes of complaints.
#define A x x x x x x x x x x x x x x x x x x x x x x x x x x x x x x x x
#define W _Pragma("GCC error \"all work and no play makes a dull compiler\"")
#define B W W W W W W W W W W W W W W W W W W W W W W W W W W W W W W W W
#define C B B B B B B B B B B B B B B B B B B B B B B B B B B B B B B B B
#define D C C C C C C C C C C C C C C C C C C C C C C C C C C C C C C C C
D
int main(void) { return 0; }
