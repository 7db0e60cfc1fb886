# Dead children that nobody buries take a place each.
use strict;
use POSIX ();
my ($a, $b) = split ' ', <STDIN>;
my $dead = 0;
while ($dead < 200) {
    my $pid = fork;
    last unless defined $pid;
    POSIX::_exit(0) if $pid == 0;
    $dead++;
}
print $dead < 100 ? $a + $b : "$dead zombies", "\n";
