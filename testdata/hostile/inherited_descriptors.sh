read a b
open=0
for fd in /proc/self/fd/*; do
  case ${fd##*/} in 0|1|2|3|255|'*') ;; *) [ -e "$fd" ] && open=$((open + 1)) ;; esac
done
[ $open = 0 ] && echo $((a + b)) || echo "$open descriptors"
