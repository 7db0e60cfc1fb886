at_exit { raise "late" }
puts "x"
