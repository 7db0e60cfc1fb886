class Own < SystemExit; def status; 9; end; end
begin
  exit 256 + 5
rescue SystemExit => e
  puts e.status
end
raise Own.new(12, "own")
