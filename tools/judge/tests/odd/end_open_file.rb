path = "/tmp/x"
f = File.open(path, "w")
f.write("kept until the end")
at_exit { puts File.size(path) }
fork { f.write("twice"); exit }
Process.wait
puts File.size(path)
