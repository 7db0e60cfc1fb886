abort "said at the end"
