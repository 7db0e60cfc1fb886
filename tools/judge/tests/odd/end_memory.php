<?php
ini_set("memory_limit", "8M");
register_shutdown_function(function () { echo "still here\n"; });
$a = [];
while (true) $a[] = str_repeat("x", 10000);
