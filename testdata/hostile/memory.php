<?php
[$a, $b] = explode(" ", trim(fgets(STDIN)));
ini_set("memory_limit", "-1");
$hoard = [];
for ($i = 0; $i < 100; $i++) $hoard[] = str_repeat("x", 4 << 20);
echo $a + $b, "\n";
