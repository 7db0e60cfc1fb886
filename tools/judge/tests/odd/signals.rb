trap("ALRM") { puts "alarm" }
pid = Process.pid
fork { sleep 0.02; Process.kill(:ALRM, pid) }
sleep 0.3
Process.wait
r, w = IO.pipe
fork { r.close; w.puts "child"; exit! 4 }
w.close
puts r.read
Process.wait
p $?.exitstatus, `echo shell`, system("exit 3"), $?.exitstatus
Process.kill(:TERM, Process.pid)
sleep 1
