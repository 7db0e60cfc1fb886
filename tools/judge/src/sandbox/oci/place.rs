//! Where a worker's bundle, program and temporary files are: a folder, which as root is a tmpfs in a mount namespace of
//! its own. So nobody else sees it, what programs write is bounded in bytes and inodes, and when the judge and its
//! containers end, however that happens, the kernel takes it away.

use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use crate::launcher::{BOX_BYTES, namespaces, sys};
use crate::sandbox::Fault;
use crate::sandbox::container::own_folder;
use crate::wipe;

/// Room for the bundle and, where it cannot be shown in its place, for a copy of this program.
const BYTES: u64 = 256 << 20;

pub struct Place {
    folder: PathBuf,
    /// The mount namespace in which it is a tmpfs.
    space: Option<OwnedFd>,
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(self.space.take());
        let _ = wipe::remove(&self.folder);
    }
}

impl Place {
    /// # Errors
    /// When there can be no such folder.
    pub fn new(index: usize) -> Result<Self, Fault> {
        let folder = own_folder(index)?;
        let mut place = Self { folder, space: None };
        // SAFETY: only reads.
        if unsafe { libc::geteuid() } == 0 {
            // A machine that denies this denies the runtime its own mounts too, and the runtime's words are better.
            place.space = in_thread(|| separate(&place.folder)).ok();
        }
        place.inside(|| {
            for name in ["rootfs", "box", "tmp", "state"] {
                std::fs::create_dir(place.folder.join(name))
                    .map_err(|e| Fault(format!("making {}: {e}", place.folder.join(name).display())))?;
            }
            Ok(())
        })?;
        Ok(place)
    }

    pub fn at(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// True when what is written here is bounded, and seen by nobody else.
    pub fn is_private(&self) -> bool {
        self.space.is_some()
    }

    /// Does something where the folder is. The thread is a new one: a mount namespace is a thread's own, and this one has
    /// other work.
    pub fn inside<T: Send>(&self, act: impl FnOnce() -> Result<T, Fault> + Send) -> Result<T, Fault> {
        let Some(space) = &self.space else { return act() };
        in_thread(|| {
            // SAFETY: numbers only. Working folder and root are made this thread's own first, as the kernel asks.
            unsafe {
                sys::check(libc::unshare(libc::CLONE_FS))
                    .and_then(|_| sys::check(libc::setns(space.as_raw_fd(), libc::CLONE_NEWNS)))
                    .map_err(|e| Fault(format!("entering the worker's mounts: {e}")))?;
            }
            act()
        })
    }

    /// An empty /box. To be called inside.
    ///
    /// # Errors
    /// When it cannot be had.
    pub fn fresh_box(&self) -> Result<(), Fault> {
        let path = self.at("box");
        if self.is_private() {
            return namespaces::fresh_box(&path.to_string_lossy(), BOX_BYTES).map_err(Fault);
        }
        wipe::empty(&path).map_err(|e| Fault(format!("emptying {}: {e}", path.display())))
    }

    /// An empty /tmp of so many bytes. To be called inside, of a private place.
    ///
    /// # Errors
    /// When it cannot be mounted.
    pub fn fresh_tmp(&self, bytes: u64) -> Result<(), Fault> {
        namespaces::fresh_tmp(&self.at("tmp").to_string_lossy(), bytes).map_err(Fault)
    }
}

fn in_thread<T: Send>(act: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| match scope.spawn(act).join() {
        Ok(value) => value,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}

/// Takes this thread into a mount namespace of its own, with a tmpfs at `folder`.
fn separate(folder: &Path) -> Result<OwnedFd, Fault> {
    let fault = |what: &'static str| move |e: std::io::Error| Fault(format!("{what}: {e}"));
    sys::unshare(libc::CLONE_NEWNS).map_err(fault("making a mount namespace"))?;
    // What the host unmounts goes here too; nothing goes the other way.
    sys::mount("", "/", "", libc::MS_REC | libc::MS_SLAVE, "").map_err(fault("making mounts private"))?;
    let flags = libc::MS_NOSUID | libc::MS_NODEV;
    sys::mount("judge", &folder.to_string_lossy(), "tmpfs", flags, &format!("mode=711,size={BYTES}"))
        .map_err(fault("mounting a tmpfs"))?;
    Ok(File::open("/proc/thread-self/ns/mnt").map_err(fault("opening a mount namespace"))?.into())
}
