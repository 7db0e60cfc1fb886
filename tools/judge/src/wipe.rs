//! Removes a folder that a program has filled, whatever it did there: any depth, any names, permissions taken away.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Removes everything in a folder, which stays. Nobody may work in it any more.
///
/// Folders are moved up before they are emptied, so that no path and no stack of ours grows with their depth.
///
/// # Errors
/// When something cannot be removed.
pub fn empty(dir: &Path) -> io::Result<()> {
    let mut fresh = 0_u64;
    let open = |path: &Path| fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    open(dir)?;
    loop {
        let mut any = false;
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            any = true;
            if !entry.file_type()?.is_dir() {
                fs::remove_file(entry.path())?;
                continue;
            }
            open(&entry.path())?;
            for below in fs::read_dir(entry.path())? {
                let below = below?;
                if !below.file_type()?.is_dir() {
                    fs::remove_file(below.path())?;
                    continue;
                }
                // Moving a folder changes its link to the one above.
                open(&below.path())?;
                loop {
                    fresh += 1;
                    match fs::rename(below.path(), dir.join(format!("wipe-{fresh}"))) {
                        Ok(()) => break,
                        // The program has a full folder, or a file, of this name.
                        Err(e) if is_taken(&e) => {}
                        Err(e) => return Err(e),
                    }
                }
            }
            fs::remove_dir(entry.path())?;
        }
        if !any {
            return Ok(());
        }
    }
}

fn is_taken(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTEMPTY | libc::EEXIST | libc::ENOTDIR))
}

/// As [`empty`], and removes the folder.
///
/// # Errors
/// When something cannot be removed; never because there is nothing.
pub fn remove(dir: &Path) -> io::Result<()> {
    match fs::symlink_metadata(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
        Ok(data) if !data.is_dir() => return fs::remove_file(dir),
        Ok(_) => {}
    }
    empty(dir)?;
    fs::remove_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deep_closed_and_oddly_named_folders_go() {
        let dir = tempfile::tempdir().unwrap();
        let top = dir.path().join("top");
        fs::create_dir(&top).unwrap();
        fs::create_dir_all(top.join("wipe-1/full")).unwrap();
        fs::write(top.join("wipe-2"), "x").unwrap();
        fs::write(dir.path().join("kept"), "x").unwrap();
        std::os::unix::fs::symlink("..", top.join("link")).unwrap();
        std::os::unix::fs::symlink("../kept", top.join("wipe-1/link")).unwrap();
        // Deeper than a path may be long, made from its innermost folder outwards.
        for _ in 0..3000 {
            fs::create_dir(top.join("new")).unwrap();
            if top.join("deep").exists() {
                fs::rename(top.join("deep"), top.join("new/deep")).unwrap();
            }
            fs::rename(top.join("new"), top.join("deep")).unwrap();
        }
        fs::set_permissions(top.join("deep/deep/deep"), fs::Permissions::from_mode(0o0)).unwrap();
        fs::set_permissions(top.join("deep"), fs::Permissions::from_mode(0o0)).unwrap();
        remove(&top).unwrap();
        assert!(!top.exists());
        remove(&top).unwrap();
        assert_eq!(fs::read(dir.path().join("kept")).unwrap(), b"x");
    }
}
