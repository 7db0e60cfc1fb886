=begin
a comment that must start in the first column
=end
puts __LINE__
