#!/usr/bin/env bash
# Runs setup.sh on a machine made of nothing but an apt that cannot get Ruby: the rest is installed, and it goes on.
set -euo pipefail
setup=$(cd "$(dirname "$0")" && pwd)/setup.sh
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
for command in bash dirname env; do ln -s "$(command -v $command)" "$folder/$command"; done
printf '#!/bin/sh\necho 0\n' >"$folder/id"
cat >"$folder/apt-get" <<'EOF'
#!/bin/sh
case "$*" in
  *update* | *ruby*) echo "E: no network" >&2; exit 100 ;;
  *) echo "$*" >>"${0%/*}/installed" ;;
esac
EOF
chmod +x "$folder/id" "$folder/apt-get"
said=$(PATH=$folder "$setup" yes 2>&1)
fail() { printf 'test-setup: %s\n%s\n' "$1" "$said" >&2; exit 1; }
grep -q 'going on without ruby$' <<<"$said" || fail "does not say what is missing"
! grep -q 'without php-cli' <<<"$said" || fail "gives up more than Ruby"
grep -q php-cli "$folder/installed" || fail "does not install the rest"
rm "$folder/installed"
said=$(PATH=$folder "$setup" no 2>&1)
grep -q 'going on without:.* ruby' <<<"$said" || fail "SETUP=no does not list what is missing"
[ ! -e "$folder/installed" ] || fail "SETUP=no installs"
echo "test-setup: passed"
