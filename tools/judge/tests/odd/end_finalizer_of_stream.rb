ObjectSpace.define_finalizer($stdout, proc { $stderr.write("finalized\n") })
puts "body"
