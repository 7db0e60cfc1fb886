/* Included before all of Lua: WASI has no setjmp, so Lua's protected calls go through the host, which unwinds the
   WebAssembly stack (module "cognate", preview1.rs). luaD_rawrunprotected, the only place that catches, holds a
   structure whose address is taken: its epilogue sets the shadow stack pointer right after an unwinding. */
#ifndef COGNATE_UNWIND_H
#define COGNATE_UNWIND_H

__attribute__((import_module("cognate"), import_name("try"))) int cognate_try(void *function, void *a, void *b);
__attribute__((import_module("cognate"), import_name("throw"))) _Noreturn void cognate_throw(void);

#define LUAI_THROW(L, c) cognate_throw()
#define LUAI_TRY(L, c, a) cognate_try((void *)f, L, ud)
#define luai_jmpbuf int

#endif
