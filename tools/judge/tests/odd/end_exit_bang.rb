print "lost"
at_exit { puts "never" }
exit! 6
