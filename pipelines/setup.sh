#!/usr/bin/env bash
# Installs the language toolchains that programs are judged with, and an OCI runtime for the tests of --sandbox oci, where
# they are missing and it may.
# setup.sh yes   apt-get as root or through sudo; without either, or without apt, lists what is missing and goes on, as it
#                does where a package cannot be had.
# setup.sh no    only lists.
set -eu
cd "$(dirname "$0")/.."
mode=${1:-yes}

# command that must answer : Debian package
wanted="
cc:gcc
g++:g++
python3:python3
perl:perl
lua5.4:lua5.4
ruby:ruby
php:php-cli
node:nodejs
go:golang-go
runc:runc
"
# Where runc is; an ordinary user's PATH may lack it.
PATH=$PATH:/usr/sbin
missing=""
for pair in $wanted; do
  command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair##*:}"
done
# NVIDIA's compiler is installed into an environment of its own.
python3 -c 'import ensurepip' 2>/dev/null || missing="$missing python3-venv"
# C and C++ as WebAssembly, and what builds the Lua guest into cog-judge; names differ between releases.
wasm=""
[ -e /usr/lib/wasm32-wasi/libc++.a ] || wasm="clang lld wasi-libc libclang-rt-dev-wasm32 libc++-dev-wasm32"
# TypeScript's compiler, types and libraries, pinned, where npm is at hand; npm writes the list last.
packages=shared/languages/npm
if [ "$mode" = yes ] && command -v npm >/dev/null 2>&1 && [ ! -e $packages/node_modules/.package-lock.json ]; then
  npm ci --prefix $packages --no-audit --no-fund --ignore-scripts --loglevel=error >&2 ||
    echo "setup: npm could not install what $packages names; going on without TypeScript" >&2
fi
if [ -z "$missing$wasm" ]; then
  exit 0
fi
if [ "$mode" = yes ] && command -v apt-get >/dev/null 2>&1; then
  become=""
  if [ "$(id -u)" != 0 ]; then
    if command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then become="sudo"; else become="none"; fi
  fi
  if [ "$become" != none ]; then
    echo "setup: installing$missing $wasm" >&2
    apt() { $become env DEBIAN_FRONTEND=noninteractive apt-get -qq "$@" </dev/null >/dev/null; }
    install() { apt install -y --no-install-recommends "$@"; }
    apt update || true
    # All at once; where one of them cannot be had, each by itself.
    # shellcheck disable=SC2086
    [ -z "$missing" ] || install $missing || for package in $missing; do
      install "$package" || echo "setup: going on without $package" >&2
    done
    # shellcheck disable=SC2086
    [ -z "$wasm" ] || install $wasm || echo "setup: going on without compilers to WebAssembly" >&2
    exit 0
  fi
fi
echo "setup: missing, going on without:$missing $wasm" >&2
echo "setup: to add them: apt-get install --no-install-recommends$missing $wasm" >&2
