<?php
[$a, $b] = explode(" ", trim(fgets(STDIN)));
$port = trim(fgets(STDIN));
echo @fsockopen("127.0.0.1", (int)$port, $code, $text, 1) ? "connected" : $a + $b, "\n";
