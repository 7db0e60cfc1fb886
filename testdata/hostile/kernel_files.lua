-- What /proc and /sys tell of the machine.
local a, b = io.read("n", "n")
local found = {}
for _, path in ipairs { "/proc/meminfo", "/proc/cpuinfo", "/proc/kallsyms", "/proc/sys/kernel/hostname", "/proc/cmdline",
                        "/proc/mounts", "/proc/net/dev", "/sys/kernel/notes", "/proc/sysrq-trigger" } do
  local f = io.open(path)
  -- Of one's own process there may be mounts and net, of one's own namespaces.
  if f and path ~= "/proc/mounts" and path ~= "/proc/net/dev" then found[#found + 1] = path end
end
print(#found == 0 and a + b or table.concat(found, " "))
