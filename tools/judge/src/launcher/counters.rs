//! CPU and memory of everything that a run started: from the worker's control group, or, without one, from /proc.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::family;
use crate::sandbox::wire::CgroupFiles;

/// What the kernel itself keeps for the launcher, its interpreters and a run: page tables, stacks, namespaces, mounts.
const KERNEL_BYTES: u64 = 16 << 20;

pub enum Counters {
    Group(Group),
    /// Sums over the test's processes.
    Proc {
        tick_us: u64,
        memory_limit: u64,
    },
}

pub struct Group {
    cpu: File,
    limit: File,
    events: File,
    stat: File,
    unified: bool,
    current_limit: u64,
    /// Memory of the launcher, its waiting interpreters and /box, which share the group with the program.
    own_bytes: u64,
    cpu_start: u64,
    kills_start: u64,
}

/// One reading, since the start of the run.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reading {
    pub cpu_us: u64,
    /// Resident bytes, where they have to be watched.
    pub memory: u64,
}

fn text(file: &File) -> io::Result<String> {
    let mut buffer = [0; 8192];
    let n = file.read_at(&mut buffer, 0)?;
    Ok(String::from_utf8_lossy(&buffer[..n]).into_owned())
}

/// The number after `key ` in a file of `key value` lines.
fn field(text: &str, key: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
}

impl Counters {
    /// # Errors
    /// When a file of the group cannot be opened.
    pub fn open(files: Option<&CgroupFiles>) -> Result<Self, String> {
        let Some(files) = files else {
            // SAFETY: sysconf only reads.
            let tick = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
            return Ok(Self::Proc { tick_us: 1_000_000 / tick.max(1) as u64, memory_limit: u64::MAX });
        };
        let open = |dir: &Path, name: &str, write: bool| {
            let path = dir.join(name);
            File::options()
                .read(true)
                .write(write)
                .open(&path)
                .map_err(|e| format!("{}: {e}", path.display()))
        };
        let (limit, events) = if files.unified {
            ("memory.max", "memory.events")
        } else {
            ("memory.limit_in_bytes", "memory.oom_control")
        };
        Ok(Self::Group(Group {
            cpu: open(&files.cpu, if files.unified { "cpu.stat" } else { "cpuacct.usage" }, false)?,
            limit: open(&files.memory, limit, true)?,
            events: open(&files.memory, events, false)?,
            stat: open(&files.memory, "memory.stat", false)?,
            unified: files.unified,
            current_limit: 0,
            own_bytes: 0,
            cpu_start: 0,
            kills_start: 0,
        }))
    }

    /// True when memory has to be watched, because no group limits it.
    pub fn watches_memory(&self) -> bool {
        matches!(self, Self::Proc { .. })
    }

    /// Measures what stands beside a program; to be called while none runs, whenever that has changed: an interpreter
    /// came or went, a compiler wrote to /box. A program's limit must not depend on what was judged before it.
    ///
    /// # Errors
    /// When the group cannot be read.
    pub fn weigh(&mut self) -> io::Result<()> {
        if let Self::Group(group) = self {
            group.own_bytes = group.own()?;
        }
        Ok(())
    }

    /// Begins a run that may use `memory_bytes`, its input included.
    ///
    /// # Errors
    /// When the group cannot be read or limited.
    pub fn start(&mut self, memory_bytes: u64) -> io::Result<()> {
        let group = match self {
            Self::Group(group) => group,
            Self::Proc { memory_limit, .. } => {
                *memory_limit = memory_bytes;
                return Ok(());
            }
        };
        let wanted = memory_bytes.saturating_add(group.own_bytes + KERNEL_BYTES);
        if wanted != group.current_limit {
            group.limit.write_at(wanted.to_string().as_bytes(), 0)?;
            group.current_limit = wanted;
        }
        group.cpu_start = group.cpu_us()?;
        group.kills_start = group.kills()?;
        Ok(())
    }

    /// `ancestor` as for [`pids`].
    ///
    /// # Errors
    /// When a counter cannot be read.
    pub fn read(&self, ancestor: Option<u32>) -> io::Result<Reading> {
        match self {
            Self::Group(group) => {
                Ok(Reading { cpu_us: group.cpu_us()?.saturating_sub(group.cpu_start), memory: 0 })
            }
            Self::Proc { tick_us, memory_limit } => Ok(sum_over(&pids(ancestor), *tick_us, *memory_limit)),
        }
    }

    /// True when the kernel killed for memory since the start.
    pub fn killed_for_memory(&self) -> bool {
        match self {
            Self::Group(group) => group.kills().is_ok_and(|n| n > group.kills_start),
            Self::Proc { .. } => false,
        }
    }
}

/// Longest time that a process of the running test has waited for a processor, in microseconds. `ancestor` as for [`pids`].
pub fn waited_us(ancestor: Option<u32>) -> u64 {
    // schedstat: time on a processor, time waiting for one (ns), slices (Documentation/scheduler/sched-stats).
    let waits = pids(ancestor).into_iter().filter_map(|pid| {
        let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).ok()?;
        text.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()
    });
    waits.max().unwrap_or(0) / 1000
}

impl Group {
    fn cpu_us(&self) -> io::Result<u64> {
        let text = text(&self.cpu)?;
        Ok(if self.unified {
            field(&text, "usage_usec ").unwrap_or(0)
        } else {
            text.trim().parse::<u64>().unwrap_or(0) / 1000
        })
    }

    /// Memory that cannot be given up: without the page cache of files, which goes before the limit is met.
    fn own(&self) -> io::Result<u64> {
        let text = text(&self.stat)?;
        let anonymous = if self.unified { "anon " } else { "rss " };
        Ok([anonymous, "shmem "].iter().filter_map(|key| field(&text, key)).sum())
    }

    fn kills(&self) -> io::Result<u64> {
        Ok(field(&text(&self.events)?, "oom_kill ").unwrap_or(0))
    }
}

/// The program's processes. In a process namespace /proc shows no others, and pid 1 is the warden; where /proc shows
/// the host, they descend from `ancestor`.
fn pids(ancestor: Option<u32>) -> Vec<u32> {
    if let Some(ancestor) = ancestor {
        return family::members_below(ancestor).into_iter().map(|(pid, _)| pid).collect();
    }
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().to_str()?.parse().ok()).filter(|pid| *pid != 1).collect()
}

fn sum_over(pids: &[u32], tick_us: u64, memory_limit: u64) -> Reading {
    let mut sum = Reading::default();
    for &pid in pids {
        if let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            // Fields are counted after the command's closing bracket: utime, stime, cutime, cstime are 14 to 17.
            let rest = stat.rsplit_once(')').map_or("", |(_, rest)| rest);
            let ticks: u64 =
                rest.split_ascii_whitespace().skip(11).take(4).filter_map(|f| f.parse::<u64>().ok()).sum();
            sum.cpu_us += ticks * tick_us;
        }
        // Not RssFile: files of the host cost nobody anything. Swapped pages do.
        sum.memory += kilobytes(pid, "status", &["RssAnon:", "RssShmem:", "VmSwap:"]) << 10;
    }
    if sum.memory > memory_limit {
        // Processes that share pages were counted once each. Shares cost a walk over all pages, so only now.
        let share =
            |pid: &u32| kilobytes(*pid, "smaps_rollup", &["Pss_Anon:", "Pss_Shmem:", "SwapPss:"]) << 10;
        let shares: u64 = pids.iter().map(share).sum();
        sum.memory = if shares > 0 { shares } else { sum.memory };
    }
    sum
}

/// Sum of some lines (`name: number kB`) of a process's file.
fn kilobytes(pid: u32, file: &str, names: &[&str]) -> u64 {
    let Ok(text) = std::fs::read_to_string(format!("/proc/{pid}/{file}")) else { return 0 };
    let number = |line: &str| line.split_ascii_whitespace().nth(1)?.parse::<u64>().ok();
    text.lines().filter(|l| names.iter().any(|n| l.starts_with(n))).filter_map(number).sum()
}
