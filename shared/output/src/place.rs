//! What stands at an output's place already: a file or folder to replace, a device to write to, or what must not be lost.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::parent_of;

/// Whether an output of this name is written to as it is: what is there is no plain file (`/dev/null`, a named pipe), or
/// the name stands for an open file (`/dev/stdout`, `/dev/fd/3`). Replacing a device would break the machine, and what
/// the shell has opened must get the bytes.
pub fn written_in_place(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| !m.is_file() && !m.is_dir()) || is_descriptor(path)
}

/// Whether the name leads, link by link, into the folder of a process's open files.
fn is_descriptor(path: &Path) -> bool {
    let mut path = path.to_path_buf();
    // As many links as the kernel follows.
    for _ in 0..40 {
        if fs::canonicalize(parent_of(&path)).is_ok_and(|p| p.starts_with("/proc")) {
            return true;
        }
        let Ok(next) = fs::read_link(&path) else { return false };
        path = parent_of(&path).join(next);
    }
    false
}

/// What is replaced where `path` is a link: what it leads to. A link that leads nowhere is itself replaced.
pub(crate) fn behind_links(path: &Path) -> PathBuf {
    let linked = fs::symlink_metadata(path).is_ok_and(|m| m.is_symlink());
    if linked { fs::canonicalize(path).unwrap_or_else(|_| path.into()) } else { path.into() }
}

/// Files one of which stands in every directory that the suite writes, and in those of Hugging Face's layout.
const MARKS: [&str; 5] =
    ["provenance.json", "manifest.json", "config.json", "tokenizer.json", "adapter_config.json"];

/// Whether a directory may be put in the place of `path`: nothing is there, an empty folder, or an earlier output.
///
/// # Errors
/// What stands there and must not be lost.
pub fn replaceable(path: &Path) -> io::Result<()> {
    let refuse = |what: String| {
        let reason = format!("{} {what} and is not replaced by an output folder", path.display());
        Err(io::Error::new(io::ErrorKind::AlreadyExists, reason))
    };
    match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
        Ok(there) if !there.is_dir() => return refuse("is no folder".into()),
        Ok(_) => {}
    }
    match fs::read_dir(path)?.next().transpose()? {
        Some(entry) if !MARKS.iter().any(|mark| path.join(mark).exists()) => {
            refuse(format!("holds {:?}", entry.file_name()))
        }
        _ => Ok(()),
    }
}
