<?php
var_dump(__FILE__, $argv, $argc, getcwd(), getmypid(), PHP_SAPI, get_included_files(), ini_get('memory_limit'));
var_dump(get_loaded_extensions(), php_ini_loaded_file(), scandir('/tmp'), posix_isatty(STDIN));
$e = getenv(); ksort($e); var_dump($e);
var_dump(array_diff(array_keys($_SERVER), ['REQUEST_TIME']), $GLOBALS['argv']);
