# frozen_string_literal: true
puts "a".frozen?, __LINE__
"a" << "b"
