local a, b = io.read("n", "n")
print(a + b)
io.stdout:flush()
while true do end
