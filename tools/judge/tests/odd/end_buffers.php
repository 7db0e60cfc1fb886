<?php
ob_start(fn($text) => strtoupper($text));
echo "shouted\n";
ob_start();
echo "inner\n";
