<?php
echo "x\n";
nothing_of_this_name();
