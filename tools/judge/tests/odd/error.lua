#!/usr/bin/lua
local function f() error({}) end
print(pcall(f), debug.getinfo(1, "l").currentline)
error("no")
