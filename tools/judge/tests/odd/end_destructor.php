<?php
class A { function __destruct() { echo "destroyed\n"; exit(6); } }
$a = new A;
echo "body\n";
