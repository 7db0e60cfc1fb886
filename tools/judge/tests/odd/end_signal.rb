puts "x"
Process.kill("TERM", $$)
sleep 1
