//! The room that programs run in, built once a worker: a user namespace, then mount, network, IPC, UTS and cgroup
//! namespaces, and a root folder of read-only pieces of the host.
//!
//! Inside: the system's folders and toolchains (read-only), /box (the program), /tmp (private, emptied for each run),
//! /cache (toolchain caches), a /dev of five devices, /proc of the run's own processes, and an /etc without secrets.

use std::fs;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::Path;

use super::sys::{self, Step};
use crate::protections::Protection;
use crate::sandbox::wire::Setup;

/// Folders of the host that are shown; links among them stay links.
pub const SYSTEM: [&str; 8] = ["usr", "bin", "sbin", "lib", "lib64", "lib32", "libx32", "nix/store"];
/// Folders of the new root that are made here, whatever an image has under these names.
const OURS: [&str; 10] = ["tmp", "box", "proc", "sys", "dev", "etc", "run", "cache", "hidden", "old"];
/// What toolchains read in /etc, by beginning of name.
pub const ETC: [&str; 11] = [
    "alternatives",
    "ld.so.c",
    "ld-musl",
    "java",
    "php",
    "perl",
    "python",
    "ruby",
    "lua",
    "node",
    "debian_version",
];
/// Files of /etc that name users and hosts: nobody's.
pub const NAMES: [(&str, &str); 4] = [
    ("passwd", "root:x:0:0:root:/:/bin/sh\njudge:x:1000:1000:judge:/tmp:/bin/sh\n"),
    ("group", "root:x:0:\njudge:x:1000:\n"),
    ("hosts", "127.0.0.1 localhost\n"),
    ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\n"),
];
/// Links in /dev.
pub const DEVICE_LINKS: [(&str, &str); 5] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("shm", "/tmp"),
];
pub const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];
pub const CHECKPOINT: &str = "/run/checkpoint.so";
/// Inodes that one tmpfs may hold.
pub const INODES: u64 = 65_536;

/// Enters the user namespace; id maps are written by the parent, which waits for word of it.
///
/// # Errors
/// When the kernel or a policy denies user namespaces.
pub fn enter_user() -> Result<(), String> {
    sys::unshare(libc::CLONE_NEWUSER).step(|| {
        "creating a user namespace (see sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces, \
         kernel.apparmor_restrict_unprivileged_userns)"
            .into()
    })
}

/// Enters the other namespaces and builds the root.
///
/// # Errors
/// Which step failed and why.
pub fn build(setup: &Setup, checkpoint: &[u8]) -> Result<(), String> {
    let mut namespaces = libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP;
    for (protection, flag) in
        [(Protection::NetworkNamespace, libc::CLONE_NEWNET), (Protection::IpcNamespace, libc::CLONE_NEWIPC)]
    {
        namespaces |= if setup.protections.has(protection) { flag } else { 0 };
    }
    sys::unshare(namespaces).step(|| "creating namespaces".into())?;
    // SAFETY: the name is a buffer of the given length.
    sys::check(unsafe { libc::sethostname(c"judge".as_ptr(), 5) }).step(|| "naming the host".into())?;
    sys::mount("", "/", "", libc::MS_REC | libc::MS_PRIVATE, "").step(|| "making mounts private".into())?;

    // A place to stand: the host's root moves to /old, the new one grows at /new.
    sys::mount("judge", "/tmp", "tmpfs", libc::MS_NOSUID | libc::MS_NODEV, "mode=755")
        .step(|| "mounting a tmpfs".into())?;
    make_dir("/tmp/old", 0o755)?;
    make_dir("/tmp/new", 0o755)?;
    std::env::set_current_dir("/tmp").step(|| "entering /tmp".into())?;
    sys::pivot_root(c".", c"old").step(|| "pivot_root".into())?;
    std::env::set_current_dir("/").step(|| "entering /".into())?;
    sys::mount("judge", "/new", "tmpfs", libc::MS_NOSUID | libc::MS_NODEV, "mode=755,size=16m")
        .step(|| "mounting the root".into())?;
    for dir in ["tmp", "box", "proc", "dev", "etc", "run", "cache", "hidden", "hidden/proc", "old"] {
        make_dir(&format!("/new/{dir}"), 0o755)?;
    }
    match &setup.rootfs {
        Some(root) => image(root)?,
        None => {
            system(SYSTEM.iter().map(|name| (*name).to_owned()), "/old")?;
            etc(setup.protections.has(Protection::OwnEtc))?;
        }
    }
    devices(setup.protections.has(Protection::FixedDevices))?;
    for (path, place) in &setup.mounts {
        show(path, place)?;
    }
    if let Some(cache) = &setup.cache {
        sys::bind(&format!("/old{}", cache.display()), "/new/cache", false, false)
            .step(|| format!("showing {}", cache.display()))?;
    }
    fs::write(format!("/new{CHECKPOINT}"), checkpoint).step(|| "writing the checkpoint library".into())?;
    // What a fork server of mode "require" is made to load.
    fs::write("/new/run/checkpoint.rb", "GC.start\nfork\n").step(|| "writing /run/checkpoint.rb".into())?;
    if !setup.protections.has(Protection::Processes) {
        sys::bind("/old/proc", "/new/proc", true, true).step(|| "showing /proc".into())?;
    }
    // The kernel lets a namespace mount /proc only where it already sees a whole one; a tmpfs hides that one.
    sys::bind("/old/proc", "/new/hidden/proc", true, true).step(|| "keeping /proc".into())?;
    sys::mount("hidden", "/new/hidden", "tmpfs", libc::MS_RDONLY, "mode=000,size=4k")
        .step(|| "hiding /proc".into())?;

    std::env::set_current_dir("/new").step(|| "entering the new root".into())?;
    sys::pivot_root(c".", c"old").step(|| "second pivot_root".into())?;
    std::env::set_current_dir("/").step(|| "entering /".into())?;
    sys::unmount("/old").step(|| "leaving the old root".into())?;
    fresh_tmp("/tmp", 16 << 20)?;
    sys::mount("box", "/box", "tmpfs", libc::MS_NOSUID | libc::MS_NODEV, "mode=755")
        .step(|| "mounting /box".into())?;
    sys::set_mount(None, "/", libc::MOUNT_ATTR_RDONLY, 0, false).step(|| "making the root read-only".into())
}

fn make_dir(path: &str, mode: u32) -> Result<(), String> {
    fs::DirBuilder::new().recursive(true).mode(mode).create(path).step(|| format!("making {path}"))
}

/// The folders of an image, all but those that are made here, and its /etc, which holds nothing of the host's.
fn image(root: &Path) -> Result<(), String> {
    let host = format!("/old{}", root.display());
    let entries = fs::read_dir(&host).step(|| format!("reading {}", root.display()))?;
    let names = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    system(names.filter(|name| !OURS.contains(&name.as_str())), &host)?;
    own_names()?;
    let Ok(entries) = fs::read_dir(format!("{host}/etc")) else { return Ok(()) };
    for entry in entries.flatten() {
        show_etc(&format!("{host}/etc"), &entry)?;
    }
    Ok(())
}

/// Folders of `host` by name; links stay links, to places inside.
fn system(names: impl Iterator<Item = String>, host: &str) -> Result<(), String> {
    for name in names {
        let host = format!("{host}/{name}");
        let Ok(kind) = fs::symlink_metadata(&host) else { continue };
        let target = format!("/new/{name}");
        if kind.is_symlink() {
            let to = fs::read_link(&host).step(|| format!("reading link /{name}"))?;
            symlink(to, &target).step(|| format!("linking /{name}"))?;
        } else if kind.is_dir() {
            make_dir(&target, 0o755)?;
            sys::bind(&host, &target, false, false).step(|| format!("showing /{name}"))?;
        }
    }
    Ok(())
}

fn etc(own: bool) -> Result<(), String> {
    if !own {
        return sys::bind("/old/etc", "/new/etc", false, false).step(|| "showing /etc".into());
    }
    own_names()?;
    let Ok(entries) = fs::read_dir("/old/etc") else { return Ok(()) };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if ETC.iter().any(|beginning| name.starts_with(beginning)) {
            show_etc("/old/etc", &entry)?;
        }
    }
    Ok(())
}

/// Names of users and hosts that are nobody's.
fn own_names() -> Result<(), String> {
    for (name, text) in NAMES {
        fs::write(format!("/new/etc/{name}"), text).step(|| format!("writing /etc/{name}"))?;
    }
    Ok(())
}

/// Shows one entry of an /etc, unless a file of ours has its name.
fn show_etc(host: &str, entry: &fs::DirEntry) -> Result<(), String> {
    let name = entry.file_name().to_string_lossy().into_owned();
    let (host, target) = (format!("{host}/{name}"), format!("/new/etc/{name}"));
    let Ok(kind) = entry.file_type() else { return Ok(()) };
    if fs::symlink_metadata(&target).is_ok() {
        return Ok(());
    } else if kind.is_dir() {
        make_dir(&target, 0o755)?;
    } else if kind.is_file() {
        fs::write(&target, "").step(|| format!("making /etc/{name}"))?;
    } else {
        if let Ok(to) = fs::read_link(&host) {
            symlink(to, &target).step(|| format!("linking /etc/{name}"))?;
        }
        return Ok(());
    }
    // A folder that this user may not read is left out, as the toolchain could not read it either.
    if sys::bind(&host, &target, false, false).is_err() && kind.is_dir() {
        let _ = fs::remove_dir(&target);
    }
    Ok(())
}

fn devices(fixed: bool) -> Result<(), String> {
    for name in DEVICES {
        let target = format!("/new/dev/{name}");
        fs::write(&target, "").step(|| format!("making /dev/{name}"))?;
        // A read-only mount lets a device be used, but not be given other times, which the next test could read.
        sys::bind(&format!("/old/dev/{name}"), &target, !fixed, true)
            .step(|| format!("showing /dev/{name}"))?;
    }
    for (name, to) in DEVICE_LINKS {
        symlink(to, format!("/new/dev/{name}")).step(|| format!("linking /dev/{name}"))?;
    }
    Ok(())
}

/// Shows a toolchain's folder. Folders above it are empty and readable, whatever they are outside.
fn show(path: &Path, place: &Path) -> Result<(), String> {
    let (host, target) = (format!("/old{}", path.display()), format!("/new{}", place.display()));
    if fs::metadata(&target).is_ok() {
        return Ok(()); // inside a folder that is shown already
    }
    make_dir(&target, 0o755)?;
    sys::bind(&host, &target, false, false).step(|| format!("showing {}", path.display()))
}

/// An empty tmpfs for everybody at `path`, in place of what was mounted there.
///
/// # Errors
/// When it cannot be mounted.
pub fn fresh_tmp(path: &str, bytes: u64) -> Result<(), String> {
    let _ = sys::unmount(path);
    let options = format!("mode=1777,size={bytes},nr_inodes={}", INODES.max(bytes >> 12));
    sys::mount("tmp", path, "tmpfs", libc::MS_NOSUID | libc::MS_NODEV, &options)
        .step(|| format!("mounting {path}"))
}

/// An empty folder for a program, at `path`, that only we write.
///
/// # Errors
/// When it cannot be mounted.
pub fn fresh_box(path: &str, bytes: u64) -> Result<(), String> {
    let _ = sys::unmount(path);
    let options = format!("mode=755,size={bytes},nr_inodes={INODES}");
    sys::mount("box", path, "tmpfs", libc::MS_NOSUID | libc::MS_NODEV, &options)
        .step(|| format!("mounting {path}"))
}

/// Opens or closes a mount for writing.
///
/// # Errors
/// When the kernel refuses.
pub fn writable(path: &str, write: bool) -> Result<(), String> {
    let (set, clear) = if write { (0, libc::MOUNT_ATTR_RDONLY) } else { (libc::MOUNT_ATTR_RDONLY, 0) };
    sys::set_mount(None, path, set, clear, false).step(|| format!("changing {path}"))
}
