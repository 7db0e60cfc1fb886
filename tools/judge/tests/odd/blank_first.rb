

puts __LINE__
