Thread.new { begin; sleep; ensure; puts "thread's end"; end }
Thread.pass
sleep 0.05
puts "main"
