p __FILE__ == $0, $0, __dir__, ARGV, Dir.pwd, Process.pid, Process.uid
p ENV.to_a.sort, $stdin.tty?, __ENCODING__, Encoding.default_external, $VERBOSE, $DEBUG
p caller, self, local_variables, $LOAD_PATH
p $LOADED_FEATURES.reject { |f| f == "/run/checkpoint.rb" }.sort
p defined?(Gem), defined?(DidYouMean), Dir.children("/tmp")
puts DATA.read
__END__
data
