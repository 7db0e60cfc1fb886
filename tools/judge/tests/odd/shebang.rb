#!/usr/bin/ruby
# frozen_string_literal: true
puts "a".frozen?, __LINE__
