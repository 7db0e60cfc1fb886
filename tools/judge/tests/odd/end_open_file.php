<?php
$f = fopen("/tmp/x", "w");
fwrite($f, "text");
register_shutdown_function(function () { echo filesize("/tmp/x"), "\n"; });
