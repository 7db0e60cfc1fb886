p gets, $stdin.read, gets
p File.read("/dev/stdin")
p "x".undefined_method
