my ($a, $b) = split ' ', <STDIN>;
print " " x (4 << 20), $a + $b, "\n";
