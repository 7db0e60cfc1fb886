trap("EXIT") { puts "trapped #{$!.inspect}" }
print "x"
