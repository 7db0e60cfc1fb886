<?php
function g() { try { yield 1; yield 2; } finally { echo "finally\n"; } }
$g = g();
echo $g->current(), "\n";
