<?php
register_shutdown_function(function () { echo "shutdown\n"; exit(9); });
class A { function __destruct() { echo "destroyed\n"; } }
$a = new A;
static fn() => 1;
exit(3);
