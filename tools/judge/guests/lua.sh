#!/bin/sh
# lua.sh CLANG SOURCES OUTPUT: Lua's interpreter as WebAssembly.
set -eu
here=$(dirname "$0")
"$1" --target=wasm32-wasi --sysroot=/usr -O2 -w -mexec-model=reactor \
  -I"$here/include" -include setjmp.h -I"$2" \
  -D_WASI_EMULATED_PROCESS_CLOCKS -D_WASI_EMULATED_SIGNAL \
  "$here/lua.c" "$2"/l*.c -o "$3" -lwasi-emulated-process-clocks -lwasi-emulated-signal \
  -Wl,--export-table -Wl,-z,stack-size=4194304 -Wl,--stack-first -Wl,--strip-all
