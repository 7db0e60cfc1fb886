Ractor.new { begin; sleep; ensure; $stdout.write("ractor\n"); end }
sleep 0.05
puts "main"
