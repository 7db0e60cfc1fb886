local a, b = io.read("n", "n")
print(poisoned or getmetatable("").poisoned and "poisoned" or a + b)
poisoned = "poisoned"
getmetatable("").poisoned = true
print = nil
