print(arg[0], #arg, arg[-1], _VERSION, os.getenv("HOME"), os.getenv("LD_PRELOAD"), os.getenv("COGNATE_CHECKPOINT"))
for line in io.lines() do print(line) end
print(io.read("a"), debug.traceback())
io.stdout:write("unflushed")
os.exit(7)
