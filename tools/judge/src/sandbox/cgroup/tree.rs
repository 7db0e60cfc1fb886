//! The kernel's folder tree of control groups, or a test's imitation of it.

use std::fs;
use std::io;
use std::path::Path;

/// What making a group needs of the kernel.
pub trait Tree {
    fn root(&self) -> &Path;
    /// As /proc/self/cgroup.
    fn own(&self) -> String;
    /// # Errors
    /// The kernel's.
    fn make(&self, dir: &Path) -> io::Result<()>;
    /// # Errors
    /// The kernel's.
    fn write(&self, file: &Path, text: &str) -> io::Result<()>;

    /// This process's path in the hierarchy of `controller` (empty: version 2), without the first slash. `None` where it
    /// lies outside of what this control group namespace shows.
    fn own_path(&self, controller: &str) -> Option<String> {
        let text = self.own();
        let path = text.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            let found = match controller {
                "" => controllers.is_empty(),
                name => controllers.split(',').any(|c| c == name),
            };
            found.then(|| path.trim_start_matches('/').to_owned())
        })?;
        (!path.split('/').any(|part| part == "..")).then_some(path)
    }
}

pub struct Kernel;

impl Tree for Kernel {
    fn root(&self) -> &Path {
        Path::new(super::ROOT)
    }

    fn own(&self) -> String {
        fs::read_to_string("/proc/self/cgroup").unwrap_or_default()
    }

    fn make(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir(dir)
    }

    fn write(&self, file: &Path, text: &str) -> io::Result<()> {
        // Not created: a file that the kernel does not have is an error.
        let mut file = fs::File::options().write(true).open(file)?;
        io::Write::write_all(&mut file, text.as_bytes())
    }
}
