/* JavaScript as a guest: QuickJS (the C sources of crate rquickjs-sys) and, in JavaScript, the part of Node that
   programs which read stdin and write stdout use (javascript/node.js). The script is the first argument. Runtime, context
   and node.js are made once, in `start`, of which the judge keeps a snapshot (guest.h). */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "guest.h"
#include "quickjs.h"

/* Made by build.sh: node.js and the modules that `require` finds, each with its length. */
struct text {
  const char *name;
  const char *bytes;
  size_t length;
};
extern const struct text texts[];

static char *whole(FILE *file, size_t *length) {
  size_t room = 1 << 16, used = 0, n;
  char *bytes = malloc(room + 1);
  while (bytes && (n = fread(bytes + used, 1, room - used, file)) > 0) {
    used += n;
    if (used == room) bytes = realloc(bytes, (room *= 2) + 1);
  }
  if (bytes) bytes[used] = 0;
  *length = used;
  return bytes;
}

static JSValue read_file(JSContext *ctx, JSValueConst self, int argc, JSValueConst *argv) {
  const char *name = JS_ToCString(ctx, argv[0]);
  if (!name) return JS_EXCEPTION;
  int is_stdin = strcmp(name, "0") == 0 || strcmp(name, "/dev/stdin") == 0;
  FILE *file = is_stdin ? stdin : fopen(name, "rb");
  JS_FreeCString(ctx, name);
  if (!file) return JS_NULL;
  size_t length;
  char *bytes = whole(file, &length);
  if (!is_stdin) fclose(file);
  if (!bytes) return JS_ThrowOutOfMemory(ctx);
  JSValue text = JS_NewStringLen(ctx, bytes, length);
  free(bytes);
  return text;
}

static JSValue write_text(JSContext *ctx, JSValueConst self, int argc, JSValueConst *argv) {
  int fd;
  size_t length;
  if (JS_ToInt32(ctx, &fd, argv[0])) return JS_EXCEPTION;
  const char *text = JS_ToCStringLen(ctx, &length, argv[1]);
  if (!text) return JS_EXCEPTION;
  fwrite(text, 1, length, fd == 2 ? stderr : stdout);
  JS_FreeCString(ctx, text);
  return JS_UNDEFINED;
}

static JSValue quit(JSContext *ctx, JSValueConst self, int argc, JSValueConst *argv) {
  int code = 0;
  if (JS_ToInt32(ctx, &code, argv[0])) return JS_EXCEPTION;
  fflush(stdout);
  _Exit(code & 255);
}

/* Nanoseconds of a clock: 0 the day's, 1 the run's. */
static JSValue clock_of(JSContext *ctx, JSValueConst self, int argc, JSValueConst *argv) {
  int id = 0;
  struct timespec now;
  JS_ToInt32(ctx, &id, argv[0]);
  clock_gettime(id ? CLOCK_MONOTONIC : CLOCK_REALTIME, &now);
  return JS_NewFloat64(ctx, now.tv_sec * 1e9 + now.tv_nsec);
}

static JSValue pause_for(JSContext *ctx, JSValueConst self, int argc, JSValueConst *argv) {
  double ms = 0;
  JS_ToFloat64(ctx, &ms, argv[0]);
  struct timespec wait = {ms / 1e3, (long)((ms - 1e3 * (long)(ms / 1e3)) * 1e6)};
  nanosleep(&wait, NULL);
  return JS_UNDEFINED;
}

/* The text of a module that is built in, or null. */
static JSValue built_in(JSContext *ctx, JSValueConst self, int argc, JSValueConst *argv) {
  const char *name = JS_ToCString(ctx, argv[0]);
  JSValue found = JS_NULL;
  for (const struct text *t = texts; name && t->name; t++)
    if (strcmp(t->name, name) == 0) found = JS_NewStringLen(ctx, t->bytes, t->length);
  JS_FreeCString(ctx, name);
  return found;
}

/* Compiles a text as a script: evaluate(text, name). */
static JSValue evaluate(JSContext *ctx, JSValueConst self, int argc, JSValueConst *argv) {
  size_t length;
  const char *text = JS_ToCStringLen(ctx, &length, argv[0]), *name = JS_ToCString(ctx, argv[1]);
  JSValue value = text && name ? JS_Eval(ctx, text, length, name, JS_EVAL_TYPE_GLOBAL) : JS_EXCEPTION;
  JS_FreeCString(ctx, text);
  JS_FreeCString(ctx, name);
  return value;
}

static JSValue run_jobs(JSContext *ctx, JSValueConst self, int argc, JSValueConst *argv) {
  JSContext *where;
  int state;
  while ((state = JS_ExecutePendingJob(JS_GetRuntime(ctx), &where)) > 0) {
  }
  return state < 0 ? JS_EXCEPTION : JS_UNDEFINED;
}

/* A rejection that nobody handles ends the program, once all jobs are done. */
static void tracker(JSContext *ctx, JSValueConst promise, JSValueConst reason, bool handled, void *opaque) {
  JSValue global = JS_GetGlobalObject(ctx);
  JSValue tell = JS_GetPropertyStr(ctx, global, "__rejected");
  if (JS_IsFunction(ctx, tell)) {
    JSValueConst arguments[3] = {promise, reason, handled ? JS_TRUE : JS_FALSE};
    JS_FreeValue(ctx, JS_Call(ctx, tell, JS_UNDEFINED, 3, arguments));
  }
  JS_FreeValue(ctx, tell);
  JS_FreeValue(ctx, global);
}

static const JSCFunctionListEntry host[] = {
    JS_CFUNC_DEF("readFile", 1, read_file), JS_CFUNC_DEF("write", 2, write_text), JS_CFUNC_DEF("quit", 1, quit),
    JS_CFUNC_DEF("clock", 1, clock_of),     JS_CFUNC_DEF("pause", 1, pause_for),  JS_CFUNC_DEF("builtIn", 1, built_in),
    JS_CFUNC_DEF("evaluate", 2, evaluate),  JS_CFUNC_DEF("runJobs", 0, run_jobs),
};

static JSRuntime *rt;
static JSContext *ctx;
/* What node.js made: a function of the program's path. */
static JSValue node;

void start(void) {
  rt = JS_NewRuntime();
  ctx = rt ? JS_NewContext(rt) : NULL;
  if (!ctx) return;
  JS_SetMaxStackSize(rt, 48 << 20);
  JS_SetHostPromiseRejectionTracker(rt, tracker, NULL);
  JSValue global = JS_GetGlobalObject(ctx), object = JS_NewObject(ctx);
  JS_SetPropertyFunctionList(ctx, object, host, sizeof host / sizeof *host);
  JSValue make = JS_Eval(ctx, texts[0].bytes, texts[0].length, "node.js", JS_EVAL_TYPE_GLOBAL);
  node = JS_IsException(make) ? make : JS_Call(ctx, make, global, 1, (JSValueConst *)&object);
}

int run(int argc, char **argv) {
  if (argc < 2) return 2;
  if (!ctx) return 1;
  JS_UpdateStackTop(rt);
  JSValue global = JS_GetGlobalObject(ctx), script = JS_NewString(ctx, argv[1]);
  JSValue code = JS_IsException(node) ? node : JS_Call(ctx, node, global, 1, (JSValueConst *)&script);
  int status = 1;
  if (JS_IsException(code)) {
    JSValue error = JS_GetException(ctx);
    const char *text = JS_ToCString(ctx, error);
    fprintf(stderr, "%s\n", text ? text : "error");
  } else {
    JS_ToInt32(ctx, &status, code);
  }
  fflush(stdout);
  _Exit(status & 255);
}
