<?php
[$a, $b] = explode(" ", trim(fgets(STDIN)));
echo getenv("POISON") || defined("POISON") ? "poisoned" : $a + $b, "\n";
putenv("POISON=1");
define("POISON", 1);
