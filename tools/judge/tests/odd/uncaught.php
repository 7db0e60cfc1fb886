<?php
function f(int $x) { throw new LogicException("no $x"); }
f(3);
