//! The working folder of a run: files put there before, and read back after.

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::mem::MaybeUninit;
use std::os::fd::FromRawFd;
use std::os::unix::fs::{OpenOptionsExt, chown};
use std::path::{Component, Path};

use super::sys::Step;

/// Writes files into the folder, which is fresh and which nobody else sees yet; the program owns them.
///
/// # Errors
/// When a name would leave the folder, or a file cannot be written.
pub fn fill(folder: &Path, files: &[(String, &[u8])], ids: Option<(u32, u32)>) -> Result<(), String> {
    for (name, bytes) in files {
        let path = Path::new(name);
        if name.is_empty() || !path.components().all(|c| matches!(c, Component::Normal(_))) {
            return Err(format!("bad file name {name:?}"));
        }
        let own = |path: &Path| match ids {
            Some((uid, gid)) => chown(path, Some(uid), Some(gid)).step(|| format!("giving {name} away")),
            None => Ok(()),
        };
        let mut place = folder.to_path_buf();
        for part in path.parent().into_iter().flat_map(Path::components) {
            place.push(part);
            if !place.is_dir() {
                fs::create_dir(&place).step(|| format!("making a folder of {name}"))?;
                own(&place)?;
            }
        }
        place = folder.join(path);
        let mut file =
            File::options().write(true).create_new(true).mode(0o644).open(&place).step(|| name.clone())?;
        io::Write::write_all(&mut file, bytes).step(|| format!("writing {name}"))?;
        own(&place)?;
    }
    Ok(())
}

/// Reads files back when every process of the run is gone: the contents of those that are plain files, reached without
/// a link, at most `bytes` of all together. `Err` says that there was more.
pub fn collect(folder: &Path, names: &[String], bytes: u64) -> Result<Vec<Option<Vec<u8>>>, ()> {
    let mut left = bytes;
    names
        .iter()
        .map(|name| {
            let Some(file) = open_inside(folder, name) else { return Ok(None) };
            let mut text = Vec::new();
            match file.take(left + 1).read_to_end(&mut text) {
                Ok(n) if n as u64 > left => Err(()),
                Ok(n) => {
                    left -= n as u64;
                    Ok(Some(text))
                }
                Err(_) => Ok(None),
            }
        })
        .collect()
}

/// Opens a plain file below the folder. The kernel resolves the name, so that no link leads out of it.
fn open_inside(folder: &Path, name: &str) -> Option<File> {
    let folder =
        File::options().read(true).custom_flags(libc::O_PATH | libc::O_DIRECTORY).open(folder).ok()?;
    let name = CString::new(name).ok()?;
    // SAFETY: zero is a valid value of every field.
    let mut how: libc::open_how = unsafe { MaybeUninit::zeroed().assume_init() };
    // Without O_NONBLOCK a named pipe would hold the launcher for ever.
    how.flags = (libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY) as u64;
    how.resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_SYMLINKS | libc::RESOLVE_NO_XDEV;
    // SAFETY: name and structure outlive the call, whose last argument is the structure's size; the descriptor is ours.
    let file = unsafe {
        let fd = libc::syscall(
            libc::SYS_openat2,
            std::os::fd::AsRawFd::as_raw_fd(&folder),
            name.as_ptr(),
            &raw const how,
            size_of::<libc::open_how>(),
        );
        if fd < 0 {
            return None;
        }
        File::from_raw_fd(fd as i32)
    };
    file.metadata().is_ok_and(|m| m.is_file()).then_some(file)
}
