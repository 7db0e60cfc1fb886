//! Which judge a thing of the machine belongs to: its name carries the judge's number, start and process namespace, so
//! that what a killed judge left can be told from what a living one uses, even when numbers of processes come again.

use std::fmt;
use std::fs;
use std::io;
use std::sync::OnceLock;

/// A judge. As text `PID-START-SPACE`, without a dot or a slash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    pid: u32,
    /// Start in clock ticks since boot (proc(5), stat, field 22).
    start: u64,
    /// Boot and process namespace in which the number means something.
    space: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Living,
    Dead,
    /// Of another boot, machine or process namespace: nobody here can tell.
    Elsewhere,
}

impl Owner {
    /// This process.
    pub fn this() -> Self {
        static THIS: OnceLock<Owner> = OnceLock::new();
        *THIS.get_or_init(|| {
            let pid = std::process::id();
            Self { pid, start: start_of(pid).unwrap_or(0), space: this_space() }
        })
    }

    /// Reads what stands at the beginning of `text`; gives what follows it.
    pub fn parse(text: &str) -> Option<(Self, &str)> {
        let mut parts = text.splitn(3, '-');
        let (pid, start, rest) = (parts.next()?, parts.next()?, parts.next()?);
        let (space, rest) = (rest.get(..8)?, rest.get(8..)?);
        let space = u32::from_str_radix(space, 16).ok()?;
        Some((Self { pid: pid.parse().ok()?, start: start.parse().ok()?, space }, rest))
    }

    pub fn state(&self) -> State {
        if self.space != this_space() {
            return State::Elsewhere;
        }
        // SAFETY: signal 0 only asks.
        let there = unsafe { libc::kill(self.pid as i32, 0) } == 0
            || io::Error::last_os_error().raw_os_error() != Some(libc::ESRCH);
        // Where /proc hides others' processes the number must do.
        let same = start_of(self.pid).is_none_or(|start| start == self.start);
        if there && same && !is_zombie(self.pid) { State::Living } else { State::Dead }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{:08x}", self.pid, self.start, self.space)
    }
}

/// The fields of a process's stat after its command, which may hold anything.
fn stat(pid: u32) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = text.rsplit_once(") ")?;
    Some(rest.split_ascii_whitespace().map(str::to_owned).collect())
}

fn start_of(pid: u32) -> Option<u64> {
    stat(pid)?.get(19)?.parse().ok()
}

/// Dead, though nobody has waited for it yet.
fn is_zombie(pid: u32) -> bool {
    stat(pid).is_some_and(|fields| fields.first().is_some_and(|state| state == "Z" || state == "X"))
}

fn this_space() -> u32 {
    static SPACE: OnceLock<u32> = OnceLock::new();
    *SPACE.get_or_init(|| {
        let boot = fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        let namespace = fs::read_link("/proc/self/ns/pid").unwrap_or_default();
        let text = [&boot[..], namespace.as_os_str().as_encoded_bytes()].concat();
        xxhash_rust::xxh3::xxh3_64(&text) as u32
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_read_back_and_tells_the_living_from_the_dead() {
        let this = Owner::this();
        assert_eq!(Owner::parse(&format!("{this}-7")), Some((this, "-7")));
        assert_eq!(this.state(), State::Living);
        // The number came again: another start.
        assert_eq!(Owner { start: this.start + 1, ..this }.state(), State::Dead);
        assert_eq!(Owner { space: !this.space, ..this }.state(), State::Elsewhere);
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let dead = Owner { pid: child.id(), start: start_of(child.id()).unwrap(), ..this };
        // Ended, and not yet waited for.
        while !is_zombie(child.id()) {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        assert_eq!(dead.state(), State::Dead);
        child.wait().unwrap();
        assert_eq!(dead.state(), State::Dead);
        for text in ["", "12", "12-3", "12-3-4", "1-2-zzzzzzzz", "-1-2-00000000", "x-2-00000000-1"] {
            assert_eq!(Owner::parse(text), None, "{text}");
        }
    }
}
