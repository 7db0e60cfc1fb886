/* A guest in C: `start` makes what is the same for every program, `run` runs one. The judge calls the export "start" when
   it builds the guest and keeps the memory that it leaves (sandbox/wasm/snapshot.rs); each run begins there, with
   "_start". Included once, by the guest's main file, which is linked as a reactor: "_initialize" runs constructors. */
#ifndef COGNATE_GUEST_H
#define COGNATE_GUEST_H

#include <stdlib.h>
#include <wasi/api.h>

void start(void);
int run(int argc, char **argv);
void _initialize(void);

static int started;

__attribute__((export_name("start"))) void cognate_start(void) {
  _initialize();
  start();
  started = 1;
}

__attribute__((export_name("_start"))) void cognate_run(void) {
  size_t count = 0, bytes = 0;
  if (!started) cognate_start();
  if (__wasi_args_sizes_get(&count, &bytes)) exit(71);
  char **argv = calloc(count + 1, sizeof *argv), *text = malloc(bytes + 1);
  if (!argv || !text || __wasi_args_get((uint8_t **)argv, (uint8_t *)text)) exit(71);
  exit(run((int)count, argv));
}

#endif
