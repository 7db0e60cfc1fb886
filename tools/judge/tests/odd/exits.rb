at_exit { puts "last" }
at_exit { puts "first"; exit 5 }
Thread.new { puts "thread" }.join
raise "no"
