<?php
function f($n) { if ($n == 0) throw new RuntimeException("at the bottom"); f($n - 1); }
f(3);
