require "timeout"
require "set"
require "json"
begin
  Timeout.timeout(0.05) { sleep }
rescue Timeout::Error => e
  p e.class
end
q = Queue.new
t = Thread.new { 3.times { |i| q << i; sleep 0.01 } }
p 3.times.map { q.pop }
t.join
counts = 4.times.map { |i| Thread.new { x = 0; 200_000.times { x += 1 }; x } }.map(&:value)
p counts, Set.new([1, 1]).size, JSON.parse("[1]")
trap("USR1") { puts "usr1" }
Process.kill(:USR1, Process.pid)
sleep 0.01
m = Mutex.new
p m.synchronize { 7 }
