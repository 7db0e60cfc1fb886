<?php
fwrite(STDERR, "to stderr\n");
$p = popen("cat; exit 3", "w");
fwrite($p, "through a pipe\n");
exit(255);
