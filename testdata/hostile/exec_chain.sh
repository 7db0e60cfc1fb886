# One process, forever another program.
exec bash /box/main.sh
