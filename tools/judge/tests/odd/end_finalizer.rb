o = Object.new
ObjectSpace.define_finalizer(o, proc { $stdout.write("finalized\n") })
puts "body"
