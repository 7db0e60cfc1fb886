#!/usr/bin/perl -w
print "$0 @ARGV $$ $< $^W\n";
print "$_=$ENV{$_}\n" for sort keys %ENV;
print "$_\n" for sort keys %INC, @INC;
my %h = map { $_ => 1 } 1 .. 20;
print join(",", keys %h), "\n";
print "uninitialized: " . undef() . "\n";
while (<DATA>) { print }
END { print "end block\n"; $? = 6 }
die "dying";
__DATA__
data
