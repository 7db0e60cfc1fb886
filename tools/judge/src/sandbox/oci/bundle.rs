//! The bundle that a runtime gets: a root folder of empty places, what of the host is shown there, and config.json (OCI
//! runtime-spec 1.0). It shows what the container shows (`launcher/namespaces.rs`).

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use serde_json::{Value, json};

use super::place::Place;
use super::{init, policy};
use crate::launcher::namespaces::{DEVICE_LINKS, DEVICES, ETC, INODES, NAMES, SYSTEM};
use crate::launcher::run::rlimits;
use crate::owner::Owner;
use crate::protections;
use crate::sandbox::Fault;
use crate::sandbox::container::Host;
use crate::sandbox::wire::{Kind, RunLimits};

/// What a container's first process and the runtime's own need beside the program, until the limit is set by measure.
const START_BYTES: u64 = 128 << 20;
/// Threads of the runtime's own, before it becomes our first process. Programs' processes are bounded by RLIMIT_NPROC.
const START_TASKS: u64 = 64;

/// Ids inside and outside.
#[derive(Debug, Clone, Copy)]
pub struct Ids {
    pub inside: u32,
    /// Where a second id could be mapped; else programs run as the judge's user.
    pub outside: Option<(u32, u32)>,
}

pub struct Bundle {
    mounts: Vec<Value>,
    ids: Ids,
}

/// Shows a path of the host, or a part of the bundle.
fn bind(source: &Path, place: &str, options: &[&str]) -> Value {
    let options: Vec<&str> =
        ["rbind", "rprivate", "rnosuid"].into_iter().chain(options.iter().copied()).collect();
    json!({ "destination": place, "type": "bind", "source": source, "options": options })
}

/// Read-only, with everything mounted below it.
fn show(source: &Path, place: &str) -> Value {
    bind(source, place, &["rro", "rnodev"])
}

/// A file of the host or a device, read-only: nothing is below it, and crun takes options for all below only on folders.
fn show_file(source: &Path, place: &str, option: &str) -> Value {
    let options = ["bind", "private", "nosuid", "ro", option];
    json!({ "destination": place, "type": "bind", "source": source, "options": options })
}

fn step(what: impl std::fmt::Display) -> impl FnOnce(std::io::Error) -> Fault {
    move |e| Fault(format!("{what}: {e}"))
}

/// With those above it; readable, whatever this process's umask is.
fn make_dir(path: &Path) -> Result<(), Fault> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(above) = path.parent() {
        make_dir(above)?;
    }
    fs::create_dir(path).map_err(step(path.display()))?;
    open_to_all(path, 0o755)
}

fn write(path: &Path, text: &[u8]) -> Result<(), Fault> {
    fs::write(path, text).map_err(step(path.display()))?;
    open_to_all(path, 0o644)
}

fn open_to_all(path: &Path, mode: u32) -> Result<(), Fault> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).map_err(step(path.display()))
}

impl Bundle {
    /// Makes the root folder. To be called inside the place.
    ///
    /// # Errors
    /// When something cannot be made.
    pub fn build(host: &Host, place: &Place, ids: Ids) -> Result<Self, Fault> {
        let root = place.at("rootfs");
        open_to_all(&root, 0o755)?;
        for name in ["tmp", "box", "proc", "dev", "etc", "run", "cache"] {
            make_dir(&root.join(name))?;
        }
        let mut bundle = Self { mounts: Vec::new(), ids };
        bundle.system(&root)?;
        bundle.etc(&root)?;
        for (path, target) in &host.mounts {
            bundle.toolchain(&root, path, target)?;
        }
        bundle.devices(&root)?;
        write(&root.join(init::NAME.trim_start_matches('/')), b"")?;
        bundle.mounts.push(show_file(&own_program(place)?, init::NAME, "nodev"));
        if let Some(cache) = &host.cache {
            fs::create_dir_all(cache).map_err(step(cache.display()))?;
        }
        Ok(bundle)
    }

    /// Folders of the host; links among them stay links.
    fn system(&mut self, root: &Path) -> Result<(), Fault> {
        for name in SYSTEM {
            let (host, target) = (Path::new("/").join(name), root.join(name));
            let Ok(kind) = fs::symlink_metadata(&host) else { continue };
            if kind.is_symlink() {
                let to = fs::read_link(&host).map_err(step(host.display()))?;
                symlink(to, &target).map_err(step(target.display()))?;
            } else if kind.is_dir() {
                make_dir(&target)?;
                self.mounts.push(show(&host, &format!("/{name}")));
            }
        }
        Ok(())
    }

    fn etc(&mut self, root: &Path) -> Result<(), Fault> {
        let etc = root.join("etc");
        for (name, text) in NAMES {
            write(&etc.join(name), text.as_bytes())?;
        }
        for entry in fs::read_dir("/etc").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let (host, target) = (entry.path(), etc.join(&name));
            let Ok(kind) = entry.file_type() else { continue };
            if !ETC.iter().any(|beginning| name.starts_with(beginning)) {
                continue;
            }
            // What this user may not read is left out, as the toolchain could not read it either.
            if kind.is_dir() && fs::read_dir(&host).is_ok() {
                make_dir(&target)?;
                self.mounts.push(show(&host, &format!("/etc/{name}")));
            } else if let (true, Ok(text)) = (kind.is_file(), fs::read(&host)) {
                write(&target, &text)?;
            } else if let (true, Ok(to)) = (kind.is_symlink(), fs::read_link(&host)) {
                symlink(to, &target).map_err(step(target.display()))?;
            }
        }
        Ok(())
    }

    /// A toolchain's folder, where it is not in one of the system's.
    fn toolchain(&mut self, root: &Path, path: &Path, place: &Path) -> Result<(), Fault> {
        if SYSTEM
            .iter()
            .any(|name| place.starts_with(Path::new("/").join(name)) && Path::new("/").join(name).is_dir())
        {
            return Ok(());
        }
        if !place.is_absolute() || place.components().any(|c| c == Component::ParentDir) {
            return Err(Fault(format!("{} cannot be shown", place.display())));
        }
        make_dir(&root.join(place.strip_prefix("/").unwrap_or(place)))?;
        self.mounts.push(show(path, &place.to_string_lossy()));
        Ok(())
    }

    /// Devices and links. As /dev is a folder of ours, runtimes add none of their own, which would be open for changes
    /// (times, modes).
    fn devices(&mut self, root: &Path) -> Result<(), Fault> {
        let dev = root.join("dev");
        for (name, to) in DEVICE_LINKS {
            symlink(to, dev.join(name)).map_err(step(format!("linking /dev/{name}")))?;
        }
        self.mounts.push(show(&dev, "/dev"));
        for name in DEVICES {
            write(&dev.join(name), b"")?;
            let path = format!("/dev/{name}");
            self.mounts.push(show_file(Path::new(&path), &path, "noexec"));
        }
        Ok(())
    }

    /// Writes config.json for a run. `group` names its control group, where there is to be one.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn configure(
        &self,
        host: &Host,
        place: &Place,
        kind: Kind,
        limits: &RunLimits,
        group: Option<&str>,
    ) -> Result<(), Fault> {
        let open = |write: bool| if write { ["rw", "rnodev"] } else { ["rro", "rnodev"] };
        let mut mounts = vec![json!({
            "destination": "/proc", "type": "proc", "source": "proc",
            "options": ["nosuid", "nodev", "noexec", "ro", "subset=pid", "hidepid=ptraceable"],
        })];
        mounts.extend(self.mounts.iter().cloned());
        mounts.push(if place.is_private() {
            bind(&place.at("tmp"), "/tmp", &["rw", "rnodev"])
        } else {
            let (size, inodes) = (limits.file_bytes, INODES.max(limits.file_bytes >> 12));
            json!({
                "destination": "/tmp", "type": "tmpfs", "source": "tmp",
                "options": ["nosuid", "nodev", "mode=1777", format!("size={size}"), format!("nr_inodes={inodes}")],
            })
        });
        mounts.push(bind(&place.at("box"), "/box", &open(kind == Kind::Compile)));
        if let Some(cache) = &host.cache {
            mounts.push(bind(cache, "/cache", &open(kind == Kind::Prepare)));
        }
        // As in the container, what fills the cache is trusted and writes it as its owner, without capabilities.
        let user = if kind == Kind::Prepare { 0 } else { self.ids.inside };
        let none: [&str; 0] = [];
        let namespaces = ["user", "pid", "mount", "network", "ipc", "uts", "cgroup"];
        let mut linux = json!({
            "namespaces": namespaces.map(|kind| json!({ "type": kind })),
            "uidMappings": self.map(|outside| outside.0, user_id()),
            "gidMappings": self.map(|outside| outside.1, group_id()),
            "seccomp": policy::seccomp(group.is_some()),
            "maskedPaths": ["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats",
                "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        });
        if let Some(group) = group {
            linux["cgroupsPath"] = json!(group);
            linux["resources"] = json!({
                "memory": { "limit": limits.memory_bytes + START_BYTES },
                "pids": { "limit": limits.processes + START_TASKS },
            });
        }
        let config = json!({
            "ociVersion": "1.0.2",
            "hostname": "judge",
            "root": { "path": place.at("rootfs"), "readonly": true },
            "process": {
                "terminal": false,
                "user": { "uid": user, "gid": user },
                "args": [init::NAME, Owner::this().to_string()],
                "env": ["PATH=/usr/local/bin:/usr/bin:/bin"],
                "cwd": "/",
                "noNewPrivileges": true,
                "oomScoreAdj": 1000,
                "capabilities": {
                    "bounding": none, "effective": none, "inheritable": none, "permitted": none, "ambient": none,
                },
                "rlimits": core(limits),
            },
            "mounts": mounts,
            "linux": linux,
        });
        let path = place.at("config.json");
        fs::write(&path, config.to_string()).map_err(step(path.display()))
    }

    fn map(&self, of: impl Fn((u32, u32)) -> u32, own: u32) -> Value {
        let mut map = vec![json!({ "containerID": 0, "hostID": own, "size": 1 })];
        if let Some(outside) = self.ids.outside {
            map.push(json!({ "containerID": self.ids.inside, "hostID": of(outside), "size": 1 }));
        }
        Value::from(map)
    }
}

/// The limit on core dumps, which the filter lets nobody change, not even our first process.
fn core(limits: &RunLimits) -> Vec<Value> {
    let all = rlimits(limits, true, protections::chosen());
    let core = all.iter().filter(|(resource, ..)| *resource == libc::RLIMIT_CORE);
    core.map(|(_, soft, hard)| json!({ "type": "RLIMIT_CORE", "soft": soft, "hard": hard })).collect()
}

fn user_id() -> u32 {
    // SAFETY: only reads.
    unsafe { libc::geteuid() }
}

fn group_id() -> u32 {
    // SAFETY: only reads.
    unsafe { libc::getegid() }
}

/// This program's file, where the container's user may run it, else a copy of it.
fn own_program(place: &Place) -> Result<PathBuf, Fault> {
    let link = Path::new("/proc/self/exe");
    let own = fs::metadata(link).map_err(step("/proc/self/exe"))?;
    if let Ok(path) = fs::read_link(link)
        && fs::metadata(&path).is_ok_and(|m| (m.dev(), m.ino()) == (own.dev(), own.ino()))
        && own.permissions().mode() & 0o5 == 0o5
    {
        return Ok(path);
    }
    let copy = place.at("init");
    fs::copy(link, &copy).map_err(step("copying this program"))?;
    open_to_all(&copy, 0o755)?;
    Ok(copy)
}
