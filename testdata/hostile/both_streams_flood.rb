a, b = gets.split.map(&:to_i)
64.times { $stdout.write(" " * 65536); $stderr.write("x" * 65536) }
puts a + b
