#!/bin/sh
# javascript.sh CLANG SOURCES OUTPUT [MODULE=FILE…]: QuickJS as WebAssembly, with node.js and the modules that
# `require` finds inside.
set -eu
here=$(dirname "$0")
clang=$1 sources=$2 output=$3
shift 3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
{
  echo '#include <stddef.h>'
  echo 'struct text { const char *name, *bytes; size_t length; };'
  number=0
  list=""
  for pair in "node=$here/javascript/node.js" "$@"; do
    file=${pair#*=}
    printf 'static const char text%s[] = {' "$number"
    od -An -v -t d1 "$file" | sed 's/[0-9]\+/&,/g'
    echo '0};'
    list="$list {\"${pair%%=*}\", text$number, sizeof text$number - 1},"
    number=$((number + 1))
  done
  echo "const struct text texts[] = {$list {0, 0, 0}};"
} >"$work/texts.c"
"$clang" --target=wasm32-wasi --sysroot=/usr -O2 -w -mexec-model=reactor -D_GNU_SOURCE -D_WASI_EMULATED_PROCESS_CLOCKS \
  -D_WASI_EMULATED_SIGNAL -I"$sources" "$here/javascript.c" "$work/texts.c" \
  "$sources/quickjs.c" "$sources/libregexp.c" "$sources/libunicode.c" "$sources/dtoa.c" \
  -o "$output" -lwasi-emulated-process-clocks -lwasi-emulated-signal -lm \
  -Wl,-z,stack-size=67108864 -Wl,--stack-first -Wl,--strip-all
