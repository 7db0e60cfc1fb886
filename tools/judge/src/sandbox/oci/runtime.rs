//! The OCI runtime: which one, and the two commands that are asked of it.

use std::fs::{self, File};
use std::os::fd::RawFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::init;
use super::place::Place;
use crate::launcher::sys;
use crate::sandbox::Fault;

/// In this order, where the command line names none.
const KNOWN: [&str; 3] = ["runc", "crun", "youki"];
/// Where systems put them that an ordinary user's PATH may lack.
const SYSTEM_FOLDERS: [&str; 3] = ["/usr/local/sbin", "/usr/sbin", "/sbin"];
/// How the fault of a machine that has none begins.
pub const NO_RUNTIME: &str = "no OCI runtime";
/// How long one may take to start or remove a container, on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone)]
pub struct Runtime {
    path: PathBuf,
    /// Whether it is asked for control groups.
    groups: bool,
}

impl Runtime {
    /// The one at `given`, or the first that this machine has.
    ///
    /// # Errors
    /// When there is none, with the cure.
    pub fn find(given: Option<&Path>) -> Result<Self, Fault> {
        if let Some(path) = given {
            let found = std::path::absolute(path).ok().filter(|path| is_program(path));
            let path = found.ok_or_else(|| {
                Fault(format!("--oci-runtime {}: no program that can be run", path.display()))
            })?;
            return Ok(Self { path, groups: true });
        }
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::env::split_paths(&path).chain(SYSTEM_FOLDERS.map(PathBuf::from));
        find_in(&folders.collect::<Vec<_>>()).map(|path| Self { path, groups: true })
    }

    /// The same, asked for no control groups.
    #[must_use]
    pub fn without_groups(&self) -> Self {
        Self { groups: false, ..self.clone() }
    }

    pub fn has_groups(&self) -> bool {
        self.groups
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// As it prints it, first line.
    pub fn version(&self) -> Option<String> {
        let output = Command::new(&self.path).arg("--version").stdin(Stdio::null()).output().ok()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.lines().next().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty())
    }

    fn command(&self, place: &Place) -> Command {
        let mut command = Command::new(&self.path);
        command.arg("--root").arg(place.at("state")).env_clear().current_dir("/").stdin(Stdio::null());
        if !self.groups && self.path.file_name().is_some_and(|name| name == "crun") {
            // It looks at them even if no group is asked for, and refuses to work with some.
            command.arg("--cgroup-manager=disabled");
        }
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        command
    }

    /// Starts the container of the bundle at `place`, with `handed` as its descriptors from 3 on; gives the number of its
    /// first process.
    ///
    /// # Errors
    /// In the runtime's own words.
    pub fn start(&self, place: &Place, id: &str, handed: [RawFd; 4]) -> Result<u32, Fault> {
        let (said, number) = (place.at("said"), place.at("pid"));
        let _ = fs::remove_file(&number);
        let log = File::create(&said).map_err(|e| Fault(format!("{}: {e}", said.display())))?;
        let mut command = self.command(place);
        command.args(["run", "--detach", "--bundle"]).arg(place.at("")).arg("--pid-file").arg(&number);
        command.args(["--preserve-fds", &handed.len().to_string(), id]);
        command.stdout(Stdio::null()).stderr(log);
        // SAFETY: the closure makes system calls on numbers only.
        unsafe { command.pre_exec(move || hand_on(handed)) };
        let status = self.wait(&mut command)?;
        if !status {
            return Err(Fault(format!("{}: {}", self.path.display(), words(place))));
        }
        let text = fs::read_to_string(&number).unwrap_or_default();
        text.trim().parse().map_err(|_| Fault(format!("{} told no process number", self.path.display())))
    }

    /// Removes a container with whatever runs in it. One that is not there is no failure.
    pub fn remove(&self, place: &Place, id: &str) {
        let mut command = self.command(place);
        command.args(["delete", "--force", id]).stdout(Stdio::null()).stderr(Stdio::null());
        let _ = self.wait(&mut command);
    }

    /// Waits for a command's end. A runtime that hangs must not hold up the judge for ever.
    fn wait(&self, command: &mut Command) -> Result<bool, Fault> {
        let fault = |e: std::io::Error| Fault(format!("{}: {e}", self.path.display()));
        let mut child = command.spawn().map_err(fault)?;
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = child.try_wait().map_err(fault)? {
                return Ok(status.success());
            }
            if Instant::now() > end {
                let _ = child.kill();
                let _ = child.wait();
                return Err(Fault(format!("{} did not end within {PATIENCE:?}", self.path.display())));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

/// The first of those known that is in one of the folders.
fn find_in(folders: &[PathBuf]) -> Result<PathBuf, Fault> {
    let mut found = KNOWN.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    found.find(|path| path.is_absolute() && is_program(path)).ok_or_else(|| {
        Fault(format!(
            "{NO_RUNTIME}: none of {} is on PATH (apt install runc, or apt install crun; --oci-runtime names another)",
            KNOWN.join(", ")
        ))
    })
}

/// What the runtime, or a container's first process, wrote to stderr: its last line, which tells the cause.
pub fn words(place: &Place) -> String {
    let text = fs::read(place.at("said")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text).into_owned();
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it failed without a word");
    line.trim().to_owned()
}

/// In the runtime's process before its exec: the descriptors, under the numbers that the first process expects, and
/// addresses that are the same in every run.
fn hand_on(handed: [RawFd; 4]) -> std::io::Result<()> {
    // SAFETY: numbers only. Copies above all wanted numbers first, since one may have another's.
    unsafe {
        let mut high = [0; 4];
        for (copy, fd) in high.iter_mut().zip(handed) {
            *copy = sys::check(libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 64))? as RawFd;
        }
        for (copy, wanted) in high.iter().zip(init::HANDED) {
            sys::check(libc::dup2(*copy, wanted))?;
        }
        libc::personality(libc::ADDR_NO_RANDOMIZE as u64);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_known_one_that_can_be_run_is_taken_and_its_absence_comes_with_a_cure() {
        let dir = tempfile::tempdir().unwrap();
        let (first, second) = (dir.path().join("a"), dir.path().join("b"));
        for folder in [&first, &second] {
            fs::create_dir(folder).unwrap();
        }
        let folders = [first.clone(), second.clone(), "relative".into()];
        // No program, and nobody's name.
        fs::write(first.join("runc"), "").unwrap();
        fs::write(first.join("docker"), "").unwrap();
        let reason = find_in(&folders).unwrap_err().0;
        assert!(reason.starts_with(NO_RUNTIME) && reason.contains("apt install runc"), "{reason}");
        for path in [first.join("crun"), second.join("runc")] {
            fs::write(&path, "").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        assert_eq!(find_in(&folders).unwrap(), second.join("runc"));
        fs::remove_file(second.join("runc")).unwrap();
        assert_eq!(find_in(&folders).unwrap(), first.join("crun"));
        let reason = Runtime::find(Some(&first.join("runc"))).unwrap_err().0;
        assert!(reason.starts_with("--oci-runtime ") && reason.contains("a/runc"), "{reason}");
    }
}
