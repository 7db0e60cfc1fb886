// Types without end.
template <class T> struct box { typedef typename box<box<T>>::type type; };
int main() { box<int>::type x; }
