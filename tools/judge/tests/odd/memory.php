<?php
$x = str_repeat('a', 1 << 30);
