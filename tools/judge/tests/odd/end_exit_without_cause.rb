at_exit { raise SystemExit.new(4, "no", cause: nil) rescue raise }
raise "first"
