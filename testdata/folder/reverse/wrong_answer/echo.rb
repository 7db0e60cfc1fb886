puts gets.chomp
