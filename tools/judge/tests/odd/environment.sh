#!/bin/bash
trap 'echo leaving' EXIT
echo "$0 $# $$ $BASH_SOURCE $PWD $- $SHLVL"
env | sort | grep -v '^_='
read -r a b
echo "$((a + b))"
cat
f() { local x=(1 2 3); echo "${x[@]:1}"; return 3; }
f
echo $?
cat <(echo process substitution) <<< unused
(exit 4) || false
exit 9
