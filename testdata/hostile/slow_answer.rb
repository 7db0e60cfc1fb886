# The right answer, after more CPU time than there is.
a, b = gets.split.map(&:to_i)
start = Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID)
nil while Process.clock_gettime(Process::CLOCK_PROCESS_CPUTIME_ID) - start < 1.6
puts a + b
