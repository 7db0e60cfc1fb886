def f(n) = f(n + 1)
begin
  f(0)
rescue SystemStackError => e
  puts e.class
end
f(0)
