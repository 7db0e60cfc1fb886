f = IO.popen(["cat"], "r+")
f.write("not flushed")
puts "x"
