begin
  exit 3
rescue SystemExit => e
  p e.status
end
print "unflushed"
abort "message"
