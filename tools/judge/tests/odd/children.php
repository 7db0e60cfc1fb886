<?php
$pid = pcntl_fork();
if ($pid === 0) { exit(4); }
pcntl_waitpid($pid, $status);
var_dump(pcntl_wexitstatus($status), shell_exec('echo shell'));
pcntl_signal(SIGUSR1, function () { echo "usr1\n"; });
posix_kill(getmypid(), SIGUSR1);
pcntl_signal_dispatch();
var_dump(trim(fgets(STDIN)), stream_get_contents(STDIN), file_get_contents('php://stdin'), fgets(STDIN));
mt_srand(3); var_dump(mt_rand());
function deep($n) { return $n ? deep($n - 1) : 'deep'; }
var_dump(deep(20000));
?>
after the end
