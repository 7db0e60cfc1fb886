local a, b = io.read("n", "n")
local hoard, page = {}, string.rep("x", 4096)
for i = 1, 100 do hoard[i] = string.rep(page, 1024) end
print(a + b)
