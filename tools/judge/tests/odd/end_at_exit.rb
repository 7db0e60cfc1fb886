at_exit { puts "first"; exit 7 }
at_exit { puts "second #{$!.inspect}" }
END { puts "third" }
exit 3
