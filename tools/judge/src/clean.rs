//! Takes away what judges that were killed (SIGKILL, a crash) left behind: control groups and the processes in them,
//! launchers, first processes of containers, temporary files, sockets. Runs at every judge's start, and as `cog-judge clean`.
//!
//! Only what carries the name of a judge that is dead is touched ([`Owner`]). What belongs to another machine or process
//! namespace, where nobody here can tell, is left alone until it is old and empty.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use cognate_cli::Common;
use serde_json::json;

use crate::launcher;
use crate::owner::{Owner, State};
use crate::sandbox::cgroup::{self, sweep};
use crate::sandbox::oci::init;
use crate::toolchain;
use crate::wipe;

/// Files of judges elsewhere that share a folder with us are left alone for this long.
const OLD: Duration = Duration::from_secs(24 * 3600);
/// How long launchers without namespaces may take to bury what a dead judge ran.
const FAREWELL: Duration = Duration::from_secs(5);
/// Folder in the cache with a file for each socket that a judge listens on; it holds the socket's path.
const SOCKETS: &str = "sockets";

/// What was found, and whether it is gone.
#[derive(Default)]
pub struct Leftovers {
    pub groups: Vec<(PathBuf, bool)>,
    pub processes: Vec<(u32, bool)>,
    pub files: Vec<(PathBuf, bool)>,
}

impl Leftovers {
    fn stuck(&self) -> usize {
        let paths = self.groups.iter().chain(&self.files).map(|(_, gone)| gone);
        paths.chain(self.processes.iter().map(|(_, gone)| gone)).filter(|gone| !**gone).count()
    }
}

/// Looks for leftovers; removes them unless `dry`.
pub fn sweep_all(dry: bool) -> Leftovers {
    let mut found = Leftovers::default();
    // Processes first: what lives could make more. A launcher without namespaces sees its judge's end and takes its
    // programs and its folder with it; killed, it would leave them.
    if !dry {
        await_farewells();
    }
    for launcher in launchers().into_iter().filter(|launcher| !launcher.plain) {
        if launcher.owner.state() == State::Dead {
            // A second look through a descriptor: the number may be another process's by now.
            let process = sweep::open(launcher.pid).filter(|_| Launcher::of(launcher.pid) == Some(launcher));
            let Some(process) = process else { continue };
            found.processes.push((launcher.pid, dry || sweep::kill(&process)));
        }
    }
    for dir in sweep::dead(Path::new(cgroup::ROOT)) {
        let gone = dry || sweep::bury(&dir);
        found.groups.push((dir, gone));
    }
    let cache = toolchain::cache_folder();
    for path in cache.iter().flat_map(|folder| parts(folder)).chain(scratch()) {
        let gone = dry || wipe::remove(&path).is_ok();
        found.files.push((path, gone));
    }
    for (entry, socket) in cache.iter().flat_map(|folder| sockets(folder)) {
        if is_abandoned(&socket) {
            let gone = dry || fs::remove_file(&socket).is_ok();
            found.files.push((socket, gone));
        }
        if !dry {
            let _ = fs::remove_file(entry);
        }
    }
    found
}

/// `cog-judge clean`.
///
/// # Errors
/// When something could not be removed.
pub fn run(common: &Common, dry: bool) -> anyhow::Result<()> {
    let found = sweep_all(dry);
    if common.json {
        let paths = |list: &[(PathBuf, bool)]| -> Vec<_> {
            list.iter().map(|(path, gone)| json!({ "path": path, "removed": *gone && !dry })).collect()
        };
        let processes: Vec<_> = found
            .processes
            .iter()
            .map(|(pid, gone)| json!({ "pid": pid, "killed": *gone && !dry }))
            .collect();
        let report = json!({
            "groups": paths(&found.groups), "processes": processes, "files": paths(&found.files),
        });
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        let word = |gone: bool| match (dry, gone) {
            (true, _) => "left",
            (false, true) => "removed",
            (false, false) => "cannot remove",
        };
        for (pid, gone) in &found.processes {
            println!("{}: process {pid}", word(*gone));
        }
        for (path, gone) in found.groups.iter().chain(&found.files) {
            println!("{}: {}", word(*gone), path.display());
        }
        if found.groups.is_empty() && found.processes.is_empty() && found.files.is_empty() {
            common.note("nothing is left of dead judges");
        }
    }
    match found.stuck() {
        0 => Ok(()),
        n => anyhow::bail!("{n} could not be removed; as their owner or as root they could"),
    }
}

/// A launcher, or what it forked without another name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Launcher {
    pid: u32,
    owner: Owner,
    plain: bool,
    /// First process of an OCI container, which goes by itself when it sees the judge's end.
    in_container: bool,
}

impl Launcher {
    fn of(pid: u32) -> Option<Self> {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let mut words = line.split(|byte| *byte == 0);
        let name = words.next()?;
        let in_container = name == init::NAME.as_bytes();
        if name != launcher::NAME.as_bytes() && !in_container {
            return None;
        }
        let (owner, _) = Owner::parse(std::str::from_utf8(words.next()?).ok()?)?;
        let plain = words.next() == Some(launcher::PLAIN.as_bytes());
        Some(Self { pid, owner, plain, in_container })
    }
}

fn launchers() -> Vec<Launcher> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter_map(Launcher::of).collect()
}

/// Launchers without namespaces and containers whose judge is dead.
fn is_parting(launcher: &Launcher) -> bool {
    (launcher.plain || launcher.in_container) && launcher.owner.state() == State::Dead
}

fn await_farewells() {
    let end = Instant::now() + FAREWELL;
    while launchers().iter().any(is_parting) && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Unfinished files and folders of the cache: `NAME.OWNER.part`.
fn parts(cache: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![(cache.to_path_buf(), 0)];
    while let Some((folder, depth)) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let owner = name.strip_suffix(".part").and_then(|stem| Owner::parse(stem.rsplit('.').next()?));
            match owner {
                Some((owner, "")) if is_left(owner, &entry.path()) => found.push(entry.path()),
                Some(_) => {}
                None if depth < 1 && entry.file_type().is_ok_and(|kind| kind.is_dir()) => {
                    folders.push((entry.path(), depth + 1));
                }
                None => {}
            }
        }
    }
    found
}

/// Folders of sandboxes that have no mounts of their own: `cog-judge-OWNER-WORKER` where temporary files go.
fn scratch() -> Vec<PathBuf> {
    // Where programs still run nothing may be removed by its path: they could put a link there meanwhile.
    let busy: Vec<Owner> =
        launchers().iter().filter(|l| l.plain || l.in_container).map(|l| l.owner).collect();
    let entries = fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten();
    let found = entries.filter(|entry| {
        let name = entry.file_name();
        let owner = name.to_str().and_then(|n| n.strip_prefix(cgroup::PREFIX)).and_then(Owner::parse);
        // Anybody can make folders there: only our own are ours to open.
        let own = || entry.metadata().is_ok_and(|data| data.is_dir() && data.uid() == user());
        owner.is_some_and(|(owner, _)| own() && !busy.contains(&owner) && is_left(owner, &entry.path()))
    });
    found.map(|entry| entry.path()).collect()
}

fn user() -> u32 {
    // SAFETY: only reads.
    unsafe { libc::geteuid() }
}

fn is_left(owner: Owner, path: &Path) -> bool {
    let age = || {
        let changed = fs::symlink_metadata(path).and_then(|data| data.modified()).ok()?;
        SystemTime::now().duration_since(changed).ok()
    };
    match owner.state() {
        State::Living => false,
        State::Dead => true,
        State::Elsewhere => age().is_some_and(|age| age > OLD),
    }
}

/// Notes a socket, so that it is removed should this judge be killed.
pub fn note_socket(path: &Path) {
    let Some(folder) = toolchain::cache_folder().map(|cache| cache.join(SOCKETS)) else { return };
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf());
    let _ = fs::create_dir_all(&folder);
    let _ = fs::write(folder.join(Owner::this().to_string()), path.as_os_str().as_encoded_bytes());
}

/// Notes of sockets whose judge is dead, and the sockets.
fn sockets(cache: &Path) -> Vec<(PathBuf, PathBuf)> {
    use std::os::unix::ffi::OsStringExt;
    let entries = fs::read_dir(cache.join(SOCKETS)).into_iter().flatten().flatten();
    let notes = entries.filter(|entry| {
        let name = entry.file_name();
        let owner = name.to_str().and_then(Owner::parse);
        owner.is_some_and(|(owner, rest)| rest.is_empty() && is_left(owner, &entry.path()))
    });
    let pairs = notes.filter_map(|entry| {
        let path = std::ffi::OsString::from_vec(fs::read(entry.path()).ok()?);
        Some((entry.path(), PathBuf::from(path)))
    });
    pairs.collect()
}

/// A socket that nobody listens on: not one that another judge has put in its place.
fn is_abandoned(path: &Path) -> bool {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|data| data.file_type().is_socket());
    let refused =
        || UnixStream::connect(path).is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionRefused);
    is_socket && refused()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A judge that has ended; its number may come again, its start not.
    fn dead() -> String {
        let this = Owner::this().to_string();
        let space = this.rsplit('-').next().unwrap();
        format!("{}-1-{space}", std::process::id())
    }

    #[test]
    fn only_what_the_dead_left_is_found_in_the_cache() {
        let dir = tempfile::tempdir().unwrap();
        let (dead, this) = (dead(), Owner::this());
        fs::create_dir_all(dir.path().join("wasm")).unwrap();
        fs::create_dir_all(dir.path().join(format!("go-12.{dead}.part/deep"))).unwrap();
        fs::write(dir.path().join(format!("wasm/lua.{dead}.part")), "").unwrap();
        for other in
            [format!("cpp-1.{this}.part"), "cpp-1.1-1-00000000.part".into(), "cpp-1".into(), "x.part".into()]
        {
            fs::write(dir.path().join(other), "").unwrap();
        }
        let mut found = parts(dir.path());
        found.sort();
        let names: Vec<_> = found.iter().map(|p| p.strip_prefix(dir.path()).unwrap().to_owned()).collect();
        assert_eq!(
            names,
            [format!("go-12.{dead}.part").into(), PathBuf::from(format!("wasm/lua.{dead}.part"))]
        );
        found.iter().for_each(|path| wipe::remove(path).unwrap());
        assert_eq!(parts(dir.path()), [] as [PathBuf; 0]);
    }

    #[test]
    fn a_dead_servers_socket_is_found_and_a_living_ones_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("old"), dir.path().join("new"));
        drop(std::os::unix::net::UnixListener::bind(&old).unwrap());
        let _living = std::os::unix::net::UnixListener::bind(&new).unwrap();
        fs::create_dir(dir.path().join(SOCKETS)).unwrap();
        let note = dir.path().join(SOCKETS).join(dead());
        fs::write(&note, old.as_os_str().as_encoded_bytes()).unwrap();
        fs::write(dir.path().join(SOCKETS).join(Owner::this().to_string()), "x").unwrap();
        assert_eq!(sockets(dir.path()), [(note, old.clone())]);
        assert!(is_abandoned(&old) && !is_abandoned(&new) && !is_abandoned(dir.path()));
    }
}
