// The end of a Ruby program. When the last of its exit handlers has run, Ruby visits every object of the heap and frees
// what they hold, which in a forked interpreter copies most of its memory, and costs more than everything before. Where
// nobody could see that, the process ends at once instead: in an exit handler that stands before the program's own, so
// that it runs after them, when
// - the program came to its end, or left by SystemExit;
// - there is no other thread, whose `ensure` would have to run, and no other ractor;
// - no object has a finalizer, and no file is open but the three streams, which can be flushed.
// Anything else takes Ruby's own way. The flags of objects are read, so only for versions whose flags are known.
typedef unsigned long rb_value;
enum { RB_TYPE = 0x1f, RB_FILE = 0x0b, RB_DATA = 0x0c, RB_ZOMBIE = 0x1e, RB_FINALIZE = 1 << 7, RB_FILES = 64 };

#define RB_API(X) \
    X(void, rb_set_end_proc, (void (*)(rb_value), rb_value)) \
    X(rb_value, rb_errinfo, (void)) \
    X(void, rb_set_errinfo, (rb_value)) \
    X(int, rb_thread_alone, (void)) \
    X(void, rb_objspace_each_objects, (int (*)(void *, void *, size_t, void *), void *)) \
    X(rb_value, rb_io_flush, (rb_value)) \
    X(int, rb_io_descriptor, (rb_value)) \
    X(rb_value, rb_protect, (rb_value (*)(rb_value), rb_value, int *)) \
    X(rb_value, rb_attr_get, (rb_value, rb_value)) \
    X(rb_value, rb_intern, (const char *)) \
    X(rb_value, rb_obj_is_kind_of, (rb_value, rb_value))
#define RB_DECLARE(ret, name, arguments) ret (*name) arguments;
static struct { RB_API(RB_DECLARE) } rb;
static rb_value *rb_exit, *rb_ractor, rb_streams[3], rb_nothing;

static struct { int ractors, seen, files; rb_value file[RB_FILES]; } rb_heap;

static int rb_visit(void *start, void *end, size_t stride, void *data) {
    (void)data;
    for (char *at = start; at < (char *)end; at += stride) {
        rb_value flags = ((rb_value *)at)[0], class = ((rb_value *)at)[1], type = flags & RB_TYPE;
        if (type == RB_ZOMBIE || (type != 0 && (flags & RB_FINALIZE))) rb_heap.seen = 1;
        if (type == RB_DATA && class == *rb_ractor) rb_heap.ractors++;
        if (type != RB_FILE) continue;
        rb_value file = (rb_value)at;
        if (file == rb_streams[0] || file == rb_streams[1] || file == rb_streams[2]) continue;
        if (rb_heap.files == RB_FILES) rb_heap.seen = 1;
        else rb_heap.file[rb_heap.files++] = file;
    }
    return 0;
}

static rb_value rb_flush_both(rb_value unused) {
    (void)unused;
    rb.rb_io_flush(rb_streams[1]);
    rb.rb_io_flush(rb_streams[2]);
    return rb_nothing;
}

// Raises when the file is closed.
static rb_value rb_is_open(rb_value file) {
    rb.rb_io_descriptor(file);
    return rb_nothing;
}

// False when `call` raises.
static int rb_does(rb_value (*call)(rb_value), rb_value argument) {
    int state = 0;
    rb_value error = rb.rb_errinfo();
    rb.rb_protect(call, argument, &state);
    if (state) rb.rb_set_errinfo(error);
    return !state;
}

static int rb_look(void) {
    memset(&rb_heap, 0, sizeof rb_heap);
    rb.rb_objspace_each_objects(rb_visit, NULL);
    return !rb_heap.seen;
}

static void rb_at_last(rb_value ractors) {
    rb_value error = rb.rb_errinfo();
    long status = 0;
    if (error != rb_nothing) {
        if (rb.rb_obj_is_kind_of(error, *rb_exit) == 0) return;
        rb_value number = rb.rb_attr_get(error, rb.rb_intern("status"));
        // One that an exit handler raised stands in place of another error, which Ruby has yet to print.
        if (!(number & 1) || rb.rb_attr_get(error, rb.rb_intern("cause")) != rb_nothing) return;
        status = (long)number >> 1;
    }
    if (!rb.rb_thread_alone() || !rb_look() || rb_heap.ractors > (int)ractors) return;
    for (int i = 0; i < rb_heap.files; i++)
        if (rb_does(rb_is_open, rb_heap.file[i])) return;
    if (rb_does(rb_flush_both, rb_nothing)) _exit((int)status);
}

static void settle_ruby(void) {
#define RB_FIND(ret, name, arguments) \
    if (!(rb.name = (ret (*) arguments)dlsym(RTLD_DEFAULT, #name))) return;
    RB_API(RB_FIND)
    const char *version = (const char *)dlsym(RTLD_DEFAULT, "ruby_version"), *streams[] = {"rb_stdin", "rb_stdout", "rb_stderr"};
    if (!version || version[0] != '3' || version[1] != '.' || version[2] < '1' || version[2] > '4' || version[3] != '.') return;
    for (int i = 0; i < 3; i++) {
        rb_value *stream = (rb_value *)dlsym(RTLD_DEFAULT, streams[i]);
        if (!stream) return;
        rb_streams[i] = *stream;
    }
    rb_exit = (rb_value *)dlsym(RTLD_DEFAULT, "rb_eSystemExit");
    rb_ractor = (rb_value *)dlsym(RTLD_DEFAULT, "rb_cRactor");
    if (!rb_exit || !rb_ractor) return;
    // Nothing has been raised here.
    rb_nothing = rb.rb_errinfo();
    if (rb_look()) rb.rb_set_end_proc(rb_at_last, (rb_value)rb_heap.ractors);
}
