#!/usr/bin/php
text before
<?php
register_shutdown_function(function () { echo "last\n"; });
ob_start();
echo "buffered\n";
echo $undefined;
echo __LINE__, "\n";
exit(5);
