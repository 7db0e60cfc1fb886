puts gets.chomp.reverse
