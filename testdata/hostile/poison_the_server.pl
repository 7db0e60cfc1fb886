my ($a, $b) = split ' ', <STDIN>;
print $main::poisoned || $ENV{POISON} ? "poisoned" : $a + $b, "\n";
$main::poisoned = 1;
$ENV{POISON} = 1;
*CORE::GLOBAL::print = sub { };
