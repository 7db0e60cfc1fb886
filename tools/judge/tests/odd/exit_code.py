print("unflushed", end="")
raise SystemExit(77)
