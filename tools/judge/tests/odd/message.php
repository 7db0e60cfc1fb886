<?php
declare(strict_types=1);
fwrite(STDERR, "err\n");
exit("a message");
