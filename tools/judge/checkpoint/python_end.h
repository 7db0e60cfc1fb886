// The end of a Python program. When a program has ended CPython takes itself apart, object by object, which in a forked
// interpreter copies most of its memory, and costs more than everything before. Where nobody could see that, the process
// ends at once instead: in the last of its exit functions, when
// - the program came to its end: neither an exception nor SystemExit ended it (both pass through a place that can be
//   watched: the audit event sys.excepthook; fflush(stdout), which CPython calls for SystemExit);
// - no object that came to be since the checkpoint has a finalizer, or a weak reference's callback, which taking apart
//   would run: no open file, no suspended generator, nothing with __del__;
// - no class that was there before has been given one, and the collector, which knows the objects, was not imported;
// - there is no other thread, and stdout and stderr are those of the beginning and can be flushed.
// Anything else takes CPython's own way. Only for a version whose way is known: another one may lead elsewhere.
#include <stddef.h>

struct py_method { const char *name; void *(*call)(void *, void *); int flags; const char *doc; };
enum { PY_NOARGS = 4, PY_SLOT_DEL = 53, PY_SLOT_FINALIZE = 80, PY_TYPES = 4096 };
#define PY_HAS_GC (1UL << 14)
#define PY_IS_TYPE (1UL << 31)

#define PY_API(X) \
    X(void *, PyImport_ImportModule, (const char *)) \
    X(void *, PyImport_GetModuleDict, (void)) \
    X(void *, PyDict_GetItemString, (void *, const char *)) \
    X(void *, PyObject_GetAttrString, (void *, const char *)) \
    X(void *, PyObject_CallMethod, (void *, const char *, const char *, ...)) \
    X(void *, PyObject_CallNoArgs, (void *)) \
    X(void *, PyObject_Type, (void *)) \
    X(void *, PyCMethod_New, (struct py_method *, void *, void *, void *)) \
    X(long, PyList_Size, (void *)) \
    X(void *, PyList_GetItem, (void *, long)) \
    X(void *, PyTuple_GetItem, (void *, long)) \
    X(int, PyUnicode_CompareWithASCIIString, (void *, const char *)) \
    X(void *, PyType_GetSlot, (void *, int)) \
    X(unsigned long, PyType_GetFlags, (void *)) \
    X(int, PyType_IsSubtype, (void *, void *)) \
    X(void *, PySys_GetObject, (const char *)) \
    X(int, PySys_AddAuditHook, (int (*)(const char *, void *, void *), void *)) \
    X(void *, PyEval_GetFrame, (void)) \
    X(void *, PyInterpreterState_Get, (void)) \
    X(void *, PyInterpreterState_ThreadHead, (void *)) \
    X(void *, PyThreadState_Next, (void *)) \
    X(void, PyErr_Clear, (void)) \
    X(void, Py_IncRef, (void *)) \
    X(void, Py_DecRef, (void *)) \
    X(const char *, Py_GetVersion, (void))
#define PY_DECLARE(ret, name, arguments) ret (*name) arguments;
static struct { PY_API(PY_DECLARE) } py;

// What stood at the checkpoint.
static void *py_get_objects, *py_unfreeze, *py_none, *py_stdout, *py_stderr, *py_reference, *py_proxies[2];
static struct { void *type, *finalize, *del; } py_types[PY_TYPES];
static int py_count;
// Something but the end of the program has been seen.
static int py_left;
// The program has the collector, with which it can hide objects from the look at them.
static int py_has_collector;

static int py_watch(const char *event, void *arguments, void *data) {
    (void)data;
    if (strcmp(event, "sys.excepthook") == 0) py_left = 1;
    if (strcmp(event, "import") == 0 && py.PyUnicode_CompareWithASCIIString(py.PyTuple_GetItem(arguments, 0), "gc") == 0)
        py_has_collector = 1;
    return 0;
}

static int py_finalizes(void *type) {
    return py.PyType_GetSlot(type, PY_SLOT_FINALIZE) != NULL || py.PyType_GetSlot(type, PY_SLOT_DEL) != NULL;
}

// Whether taking this object apart could be seen.
static int py_is_seen(void *object) {
    void *type = py.PyObject_Type(object);
    int seen = py_finalizes(type) || type == py_proxies[0] || type == py_proxies[1];
    if (!seen && py.PyType_IsSubtype(type, py_reference)) {
        void *callback = py.PyObject_GetAttrString(object, "__callback__");
        seen = callback != py_none;
        if (callback) py.Py_DecRef(callback);
    }
    // Objects of such a type are not among the collector's.
    if (!seen && (py.PyType_GetFlags(type) & PY_IS_TYPE) && !(py.PyType_GetFlags(object) & PY_HAS_GC))
        seen = py_finalizes(object);
    py.Py_DecRef(type);
    return seen;
}

static int py_flush(void *file) {
    void *done = py.PyObject_CallMethod(file, "flush", NULL);
    if (!done) py.PyErr_Clear();
    else py.Py_DecRef(done);
    return done != NULL;
}

static int py_may_end(void) {
    if (py_left || py_has_collector || py.PyEval_GetFrame()) return 0;
    if (py.PySys_GetObject("stdout") != py_stdout || py.PySys_GetObject("stderr") != py_stderr) return 0;
    void *thread = py.PyInterpreterState_ThreadHead(py.PyInterpreterState_Get());
    if (!thread || py.PyThreadState_Next(thread)) return 0;
    for (int i = 0; i < py_count; i++)
        if (py.PyType_GetSlot(py_types[i].type, PY_SLOT_FINALIZE) != py_types[i].finalize ||
            py.PyType_GetSlot(py_types[i].type, PY_SLOT_DEL) != py_types[i].del)
            return 0;
    void *objects = py.PyObject_CallNoArgs(py_get_objects);
    if (!objects) {
        py.PyErr_Clear();
        return 0;
    }
    int seen = 0;
    for (long i = 0, n = py.PyList_Size(objects); i < n && !seen; i++) seen = py_is_seen(py.PyList_GetItem(objects, i));
    py.Py_DecRef(objects);
    return !seen && py_flush(py_stdout) && py_flush(py_stderr);
}

static void *py_at_last(void *self, void *arguments) {
    (void)self;
    (void)arguments;
    if (py_may_end()) exit(0);
    // Then as in an interpreter in which nothing was frozen, unless the program has frozen something itself.
    void *done = py_has_collector || py.PyEval_GetFrame() ? NULL : py.PyObject_CallNoArgs(py_unfreeze);
    if (done) py.Py_DecRef(done);
    else py.PyErr_Clear();
    py.Py_IncRef(py_none);
    return py_none;
}

// Of the classes that stand, those that a program could give a finalizer.
static int py_remember_types(void *objects) {
    for (long i = 0, n = py.PyList_Size(objects); i < n; i++) {
        void *object = py.PyList_GetItem(objects, i), *type = py.PyObject_Type(object);
        int is_type = (py.PyType_GetFlags(type) & PY_IS_TYPE) != 0;
        py.Py_DecRef(type);
        if (!is_type) continue;
        if (py_count == PY_TYPES) return 0;
        py_types[py_count].type = object;
        py_types[py_count].finalize = py.PyType_GetSlot(object, PY_SLOT_FINALIZE);
        py_types[py_count++].del = py.PyType_GetSlot(object, PY_SLOT_DEL);
    }
    return 1;
}

// To be called with the interpreter's lock held, before what stands is frozen.
static void py_prepare(void) {
#define PY_FIND(ret, name, arguments) \
    if (!(py.name = (ret (*) arguments)dlsym(RTLD_DEFAULT, #name))) return;
    PY_API(PY_FIND)
    static struct py_method method = {"end", py_at_last, PY_NOARGS, NULL};
    py_none = dlsym(RTLD_DEFAULT, "_Py_NoneStruct");
    py_reference = dlsym(RTLD_DEFAULT, "_PyWeakref_RefType");
    py_proxies[0] = dlsym(RTLD_DEFAULT, "_PyWeakref_ProxyType");
    py_proxies[1] = dlsym(RTLD_DEFAULT, "_PyWeakref_CallableProxyType");
    if (strncmp(py.Py_GetVersion(), "3.11.", 5) != 0 || !py_none || !py_reference || !py_proxies[0] || !py_proxies[1]) return;
    void *modules = py.PyImport_GetModuleDict(), *before = py.PyDict_GetItemString(modules, "atexit");
    void *gc = py.PyImport_ImportModule("gc"), *atexit = py.PyImport_ImportModule("atexit");
    void *objects = NULL, *function = NULL, *done = NULL;
    py_stdout = py.PySys_GetObject("stdout");
    py_stderr = py.PySys_GetObject("stderr");
    if (gc && atexit && py_stdout && py_stderr && (py_get_objects = py.PyObject_GetAttrString(gc, "get_objects")) &&
        (py_unfreeze = py.PyObject_GetAttrString(gc, "unfreeze")) &&
        (objects = py.PyObject_CallNoArgs(py_get_objects)) && py_remember_types(objects) &&
        py.PySys_AddAuditHook(py_watch, NULL) == 0 && (function = py.PyCMethod_New(&method, NULL, NULL, NULL)))
        done = py.PyObject_CallMethod(atexit, "register", "O", function);
    if (!before && atexit) py.PyObject_CallMethod(modules, "pop", "sO", "atexit", py_none);
    if (!done) py.PyErr_Clear();
    if (objects) py.Py_DecRef(objects);
}
