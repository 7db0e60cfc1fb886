# What one test does to its interpreter must not be there in the next.
a, b = gets.split.map(&:to_i)
puts(String.method_defined?(:poisoned) || File.exist?("/tmp/poison") ? "poisoned" : a + b)
class String
  def poisoned; end
end
module Kernel
  def puts(*) = nil
end
File.write("/tmp/poison", "x")
Process.kill(:KILL, Process.ppid) if Process.ppid > 1
