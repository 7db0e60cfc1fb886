#!/usr/bin/env bash
# Judges a stream of many programs, hostile ones among them, and looks every second at what the judge holds: memory,
# descriptors, processes, mounts, control groups, and the memory that its groups are charged with. Fails when any of
# them is higher in the second half than in the first, when something is left at the end, or when a verdict is wrong.
# soak-judge.sh [PROGRAMS]; 100,000 take some minutes. The samples stay in runs/soak-judge/samples.tsv.
set -euo pipefail
cd "$(dirname "$0")/.."
count=${1:-100000}
out=runs/soak-judge
judge=${JUDGE:-cog-judge}
rm -rf $out
mkdir -p $out

cat > $out/problems.jsonl <<'E'
{"schema":"problem/1","id":"sum","statement":"","limits":{"cpu_ms":1000,"memory_mb":96,"output_kb":256,"file_mb":4},"tests":[{"input":"1 2\n","output":"3\n"},{"input":"20 22\n","output":"42\n"}]}
E

# Each source is another one. Verdicts are not remembered: up to a bound that is reached late, memory would grow by them.
programs() {
  awk -v count="$count" '
    function put(language, want, source) {
      printf "{\"schema\":\"program/1\",\"id\":\"%d\",\"problem\":\"sum\",\"want\":\"%s\",\"language\":\"%s\",\"source\":\"%s\"}\n",
        i, want, language, source
    }
    BEGIN {
      for (i = 0; i < count; i++) {
        k = i % 100
        rare = i % 1000
        if (rare == 0) put("c", "AC", "#include <stdio.h>\\nint main(void) { int a, b; scanf(\\\"%d %d\\\", &a, &b); printf(\\\"%d\\\\n\\\", a + b); } // " i)
        else if (rare == 1) put("c", "CE", "int main(void) { return " i " }")
        else if (k == 2) put("python", "AC", "import os, time\\na, b = map(int, input().split())\\nprint(a + b, flush=True)\\nif os.fork() == 0:\\n    os.setsid()\\n    time.sleep(99)\\n# " i)
        else if (rare == 3) put("python", "MLE", "x = [bytearray(b\\\"x\\\" * 2**20) for _ in range(300)] # " i)
        else if (k == 4) put("lua", "OLE", "for i = 1, 9 do io.write((\\\"x\\\"):rep(65536)) end -- " i)
        else if (k == 5) put("python", "WA", "open(\\\"/tmp/mark\\\", \\\"w\\\").write(\\\"x\\\" * 10**6) # " i)
        else if (k == 6) put("perl", "RE", "for (1..40) { defined(fork) or last } kill KILL => $$; # " i)
        else if (k < 15) put("python", "AC", "print(sum(map(int, input().split()))) # " i)
        else if (k < 25) put("perl", "AC", "my ($a, $b) = split / /, <STDIN>; print $a + $b; # " i)
        else if (k < 90) put("lua", "AC", "print(io.read(\\\"n\\\") + io.read(\\\"n\\\")) -- " i)
        else put("lua", "WA", "print(" i " + 1000) -- " i)
      }
    }'
}

# What is looked at may be gone the next moment.
groups() { find /sys/fs/cgroup -type d -name "cog-judge-$1-*" 2>/dev/null || true; }
field() { awk -v name="$2:" '$1 == name { print $2 }' "/proc/$1/status" 2>/dev/null || true; }
descriptors() { find "/proc/$1/fd" -mindepth 1 2>/dev/null | wc -l || true; }
mounts() { wc -l 2>/dev/null < "/proc/$1/mountinfo" || echo 0; }

programs | "$judge" --sandbox container --tests $out/problems.jsonl -q -j ${JOBS:-2} --no-result-cache - > $out/judged.jsonl &
sleep 0.2
pid=$(pgrep -P $$ -f -- "--tests $out/problems.jsonl" | head -n 1)
launchers=""
printf 'judged\tjudge_kb\tlaunchers_kb\tdescriptors\tprocesses\tmounts\tgroups\tcharged_kb\n' > $out/samples.tsv
while [ -e "/proc/$pid/exe" ]; do
  done_now=$(wc -l < $out/judged.jsonl)
  memory=0 open=$(descriptors "$pid") mounts=0 charged=0 processes=0
  for launcher in $(pgrep -P "$pid" || true); do
    case " $launchers " in *" $launcher "*) ;; *) launchers="$launchers $launcher" ;; esac
    kb=$(field "$launcher" VmRSS)
    memory=$((memory + ${kb:-0})) open=$((open + $(descriptors "$launcher")))
    mounts=$((mounts + $(mounts "$launcher" 2>/dev/null)))
    processes=$((processes + 1 + $(pgrep -c -P "$launcher" || true)))
  done
  for group in $(groups "$pid"); do
    # Without the page cache: files of the host are charged to whichever group reads them first.
    held=$(cat "$group/memory.kmem.usage_in_bytes" 2>/dev/null || true)
    held=$(awk -v held="${held:-0}" '
      $1 ~ /^(total_rss|total_shmem|anon|shmem|kernel)$/ { v[$1] = $2 }
      END { print int((held + ("anon" in v ? v["anon"] + v["shmem"] + v["kernel"] : v["total_rss"] + v["total_shmem"])) / 1024) }
    ' "$group/memory.stat" 2>/dev/null || true)
    charged=$((charged + ${held:-0}))
  done
  printf '%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n' "$done_now" "$(field "$pid" VmRSS)" $memory "$open" $processes $mounts \
    "$(groups "$pid" | wc -l)" $charged >> $out/samples.tsv
  sleep 1
done
wait %1 || { echo "soak-judge: the judge failed" >&2; exit 1; }

# What differs from moment to moment is compared by its median, the rest by its highest; the first tenth is warming up.
awk -v count="$count" -F '\t' '
  function middle(list, n,   i, j, t) {
    for (i = 2; i <= n; i++) { t = list[i]; for (j = i - 1; j >= 1 && list[j] > t; j--) list[j + 1] = list[j]; list[j + 1] = t }
    return list[int((n + 1) / 2)]
  }
  NR == 1 { for (i = 2; i <= NF; i++) name[i] = $i; next }
  $1 < count / 10 || $1 >= count { next }
  { half = $1 < count * 0.55 ? 1 : 2; n[half]++; for (i = 2; i <= NF; i++) if ($i != "") v[half, i, n[half]] = $i + 0 }
  END {
    if (n[1] < 3 || n[2] < 3) { print "soak-judge: too short to tell"; exit 1 }
    for (i = 2; i <= 8; i++) {
      for (half = 1; half <= 2; half++) {
        split("", list); for (k = 1; k <= n[half]; k++) list[k] = v[half, i, k]
        median[half] = middle(list, n[half])
      }
      slack = i <= 3 || i == 8 ? median[1] * 0.05 + 4096 : 12 # one run more or less at the moment of looking
      verdict = median[2] > median[1] + slack ? "GROWS" : "flat"
      if (verdict == "GROWS") failed = 1
      printf "%-14s first half %8d  second half %8d  %s\n", name[i], median[1], median[2], verdict
    }
    exit failed
  }' $out/samples.tsv

left=""
for launcher in $launchers; do [ -e "/proc/$launcher/exe" ] && left="$left $launcher"; done
[ -z "$left" ] || { echo "soak-judge: launchers are left:$left" >&2; exit 1; }
[ -z "$(groups "$pid")" ] || { echo "soak-judge: control groups are left" >&2; exit 1; }
lines=$(wc -l < $out/judged.jsonl)
[ "$lines" = "$count" ] || { echo "soak-judge: $lines verdicts for $count programs" >&2; exit 1; }
wrong=$(awk '{ match($0, /"want":"[A-Z]*"/); want = substr($0, RSTART + 8, RLENGTH - 9)
               if (index($0, "\"verdict\":{\"status\":\"" want "\"") == 0) { wrong++; if (wrong < 4) print > "/dev/stderr" } }
             END { print wrong + 0 }' $out/judged.jsonl)
[ "$wrong" = 0 ] || { echo "soak-judge: $wrong wrong verdicts" >&2; exit 1; }
echo "soak-judge: passed, $count programs, nothing grew, nothing is left"
