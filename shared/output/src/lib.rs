//! Outputs that appear whole or not at all.
//!
//! A file or directory is built under a temporary name beside its final place, synced, and renamed into place by
//! `commit`. Dropped without `commit`, or cut short by SIGINT or SIGTERM (see [`remove_on_signals`]), it leaves
//! nothing behind. A killed process (SIGKILL) can leave a file named `.NAME.XXXXXX.tmp`, never a file under
//! the final name.

mod place;
mod signals;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use place::behind_links;
pub use place::{replaceable, written_in_place};
pub use signals::{hold_signals, interrupted, remove_on_signals, signal};

fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    }
}

fn temporary_prefix(path: &Path) -> io::Result<String> {
    let name = path.file_name().ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("{}: not a file name", path.display()))
    })?;
    Ok(format!(".{}.", name.to_string_lossy()))
}

/// Makes a rename in `dir` durable. Filesystems that cannot sync a directory are left to their own promises.
fn sync_dir(dir: &Path) {
    if let Ok(d) = File::open(dir) {
        let _ = d.sync_all();
    }
}

/// A file that replaces `path` in one step when committed. Parent directories are created. Links are followed, and what
/// is [`written_in_place`] is written to.
#[derive(Debug)]
pub struct AtomicFile {
    temporary: Option<tempfile::NamedTempFile>,
    device: Option<File>,
    path: PathBuf,
}

impl AtomicFile {
    /// # Errors
    /// When the parent directory cannot be created or written.
    pub fn create(path: &Path) -> io::Result<Self> {
        if written_in_place(path) {
            // Behind `>> log` there is something already.
            let device = File::options().append(true).open(path)?;
            return Ok(Self { temporary: None, device: Some(device), path: path.to_path_buf() });
        }
        let path = &behind_links(path);
        let parent = parent_of(path);
        fs::create_dir_all(parent)?;
        let temporary = tempfile::Builder::new()
            .prefix(&temporary_prefix(path)?)
            .suffix(".tmp")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666))
            .tempfile_in(parent)?;
        signals::register(temporary.path());
        Ok(Self { temporary: Some(temporary), device: None, path: path.to_path_buf() })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    fn file(&mut self) -> &mut File {
        if let Some(device) = &mut self.device {
            return device;
        }
        self.temporary.as_mut().expect("present until commit consumes self").as_file_mut()
    }

    /// Syncs the bytes and renames the file into place.
    ///
    /// # Errors
    /// On a full disk or a failed rename; then the final name is untouched.
    pub fn commit(mut self) -> io::Result<()> {
        if self.device.is_some() {
            return Ok(());
        }
        let temporary = self.temporary.take().expect("present until commit consumes self");
        temporary.as_file().sync_all()?;
        let name = temporary.path().to_path_buf();
        let outcome = temporary.persist(&self.path).map(drop).map_err(|e| e.error);
        signals::unregister(&name);
        outcome?;
        sync_dir(parent_of(&self.path));
        Ok(())
    }
}

impl Write for AtomicFile {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.file().write(buf)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file().flush()
    }
}

impl Drop for AtomicFile {
    fn drop(&mut self) {
        if let Some(t) = self.temporary.take() {
            signals::unregister(t.path());
        }
    }
}

/// Writes `bytes` to `path` atomically.
///
/// # Errors
/// As [`AtomicFile::create`] and [`AtomicFile::commit`].
pub fn write_file(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = AtomicFile::create(path)?;
    file.write_all(bytes)?;
    file.commit()
}

/// A directory that appears at `path` in one step when committed; an existing one is replaced where it is
/// [`replaceable`].
#[derive(Debug)]
pub struct AtomicDir {
    temporary: Option<tempfile::TempDir>,
    path: PathBuf,
}

impl AtomicDir {
    /// # Errors
    /// When the parent directory cannot be created or written, or what is at `path` is not [`replaceable`].
    pub fn create(path: &Path) -> io::Result<Self> {
        let path = &behind_links(path);
        let parent = parent_of(path);
        fs::create_dir_all(parent)?;
        replaceable(path)?;
        let temporary = tempfile::Builder::new()
            .prefix(&temporary_prefix(path)?)
            .suffix(".tmp")
            .permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777))
            .tempdir_in(parent)?;
        signals::register(temporary.path());
        Ok(Self { temporary: Some(temporary), path: path.to_path_buf() })
    }

    /// Where to build the contents.
    pub fn building(&self) -> &Path {
        self.temporary.as_ref().expect("present until commit consumes self").path()
    }

    /// Syncs every file and renames the directory into place.
    ///
    /// # Errors
    /// On a full disk or a failed rename. When an older directory stands at the final name it is moved aside first,
    /// and moved back if the rename fails.
    pub fn commit(mut self) -> io::Result<()> {
        for entry in fs::read_dir(self.building())? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                File::open(entry.path())?.sync_all()?;
            }
        }
        sync_dir(self.building());
        let building = self.temporary.take().expect("present until commit consumes self").keep();
        signals::unregister(&building);
        let aside = parent_of(&self.path).join(format!("{}old.tmp", temporary_prefix(&self.path)?));
        let _ = fs::remove_dir_all(&aside);
        let replaced = match fs::rename(&self.path, &aside) {
            Ok(()) => true,
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            Err(e) => {
                let _ = fs::remove_dir_all(&building);
                return Err(e);
            }
        };
        if let Err(e) = fs::rename(&building, &self.path) {
            if replaced {
                let _ = fs::rename(&aside, &self.path);
            }
            let _ = fs::remove_dir_all(&building);
            return Err(e);
        }
        if replaced {
            let _ = fs::remove_dir_all(&aside);
        }
        sync_dir(parent_of(&self.path));
        Ok(())
    }
}

impl Drop for AtomicDir {
    fn drop(&mut self) {
        if let Some(t) = self.temporary.take() {
            signals::unregister(t.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dropped_file_leaves_nothing_and_a_committed_one_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("deep/out.jsonl");
        let mut file = AtomicFile::create(&path).unwrap();
        file.write_all(b"half").unwrap();
        drop(file);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 0);
        write_file(&path, b"whole").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }

    #[test]
    fn a_device_is_written_to_and_not_replaced() {
        // A link, so that a failure costs the link and not the machine's device.
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("null");
        std::os::unix::fs::symlink("/dev/null", &path).unwrap();
        write_file(&path, b"gone").unwrap();
        assert!(fs::symlink_metadata(&path).unwrap().is_symlink());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_open_file_is_written_to_under_its_names() {
        use std::os::fd::AsRawFd;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        fs::write(&path, "before\n").unwrap();
        let log = File::options().append(true).open(&path).unwrap();
        // As /dev/stdout is: a link to a name in /proc.
        let link = dir.path().join("stdout");
        std::os::unix::fs::symlink(format!("/proc/self/fd/{}", log.as_raw_fd()), &link).unwrap();
        write_file(&link, b"more\n").unwrap();
        write_file(Path::new(&format!("/dev/fd/{}", log.as_raw_fd())), b"end\n").unwrap();
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_to_string(&path).unwrap(), "before\nmore\nend\n");
    }

    #[test]
    fn links_stay_and_lead_to_the_output() {
        let dir = tempfile::tempdir().unwrap();
        let (file, folder) = (dir.path().join("run-5.jsonl"), dir.path().join("run-5"));
        fs::write(&file, "old").unwrap();
        fs::create_dir(&folder).unwrap();
        for (link, to) in [("latest.jsonl", &file), ("latest", &folder)] {
            std::os::unix::fs::symlink(to, dir.path().join(link)).unwrap();
        }
        write_file(&dir.path().join("latest.jsonl"), b"new").unwrap();
        AtomicDir::create(&dir.path().join("latest")).unwrap().commit().unwrap();
        for link in ["latest.jsonl", "latest"] {
            assert!(fs::symlink_metadata(dir.path().join(link)).unwrap().is_symlink(), "{link}");
        }
        assert_eq!(fs::read_to_string(&file).unwrap(), "new");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
    }

    #[test]
    fn what_is_no_output_is_not_replaced_by_a_directory() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("thesis.tex"), "years").unwrap();
        for path in [dir.path().to_path_buf(), dir.path().join("thesis.tex")] {
            let refused = AtomicDir::create(&path).unwrap_err();
            assert!(refused.to_string().contains("is not replaced"), "{refused}");
        }
        assert_eq!(fs::read_to_string(dir.path().join("thesis.tex")).unwrap(), "years");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_directory_is_replaced_in_one_step() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("model");
        for text in ["first", "second"] {
            let out = AtomicDir::create(&path).unwrap();
            fs::write(out.building().join("config.json"), text).unwrap();
            out.commit().unwrap();
            assert_eq!(fs::read_to_string(path.join("config.json")).unwrap(), text);
        }
        drop(AtomicDir::create(&path).unwrap());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
