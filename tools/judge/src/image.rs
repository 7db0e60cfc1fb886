//! The root folder of an OCI image, unpacked by the usual tools (`umoci unpack`, `docker export … | tar x`, `skopeo` and
//! `tar`): programs see it, read-only, in place of the host's folders, and toolchains are looked for inside.

use std::ffi::CString;
use std::fs::{self, File, Metadata};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use cognate_cli::usage;

/// Where the images of languages keep their programs, after the system's own folders. What a bundle's config.json says
/// comes before.
const PATH: [&str; 6] = [
    "/usr/local/bin",
    "/usr/bin",
    "/bin",
    "/usr/local/go/bin",
    "/usr/local/cargo/bin",
    "/opt/java/openjdk/bin",
];

#[derive(Debug, Clone)]
pub struct Image {
    root: PathBuf,
    path: Vec<String>,
}

impl Image {
    /// Opens a root folder, or a bundle (a folder with `rootfs` and `config.json`).
    ///
    /// # Errors
    /// When there is none (exit code 2).
    pub fn open(dir: &Path) -> anyhow::Result<Self> {
        let place = || format!("--rootfs {}", dir.display());
        let dir = fs::canonicalize(dir).with_context(place)?;
        let root = if dir.join("config.json").is_file() && dir.join("rootfs").is_dir() {
            dir.join("rootfs")
        } else {
            dir.clone()
        };
        let image = Self { path: PATH.map(str::to_owned).to_vec(), root };
        if !["/usr", "/bin"].iter().any(|name| image.look(name).is_some_and(|data| data.is_dir())) {
            return Err(usage(format!(
                "{}: neither usr nor bin is in it: no root folder of an image",
                place()
            )));
        }
        let config = image.root.with_file_name("config.json");
        let Ok(text) = fs::read_to_string(&config) else { return Ok(image) };
        let config: serde_json::Value =
            serde_json::from_str(&text).with_context(|| config.display().to_string())?;
        let variables = config["process"]["env"].as_array().into_iter().flatten();
        let path = variables.filter_map(|v| v.as_str()?.strip_prefix("PATH=")).next().unwrap_or_default();
        let mut folders: Vec<String> =
            path.split(':').filter(|f| f.starts_with('/')).map(str::to_owned).collect();
        folders.extend(PATH.iter().filter(|f| !path.split(':').any(|p| p == **f)).map(ToString::to_string));
        Ok(Self { path: folders, ..image })
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Folders in which programs are looked for.
    pub fn path(&self) -> &[String] {
        &self.path
    }

    /// What a path inside leads to, links resolved as they are inside.
    pub fn look(&self, path: &str) -> Option<Metadata> {
        let root = File::open(&self.root).ok()?;
        let name = CString::new(Path::new(path).as_os_str().as_bytes()).ok()?;
        // SAFETY: zero is a valid value of every field.
        let mut how: libc::open_how = unsafe { MaybeUninit::zeroed().assume_init() };
        how.flags = (libc::O_PATH | libc::O_CLOEXEC) as u64;
        how.resolve = libc::RESOLVE_IN_ROOT;
        // SAFETY: name and structure outlive the call, whose last argument is the structure's size; the descriptor is ours.
        let found = unsafe {
            let fd = libc::syscall(
                libc::SYS_openat2,
                root.as_raw_fd(),
                name.as_ptr(),
                &raw const how,
                size_of::<libc::open_how>(),
            );
            if fd < 0 {
                return None;
            }
            File::from_raw_fd(fd as i32)
        };
        found.metadata().ok()
    }

    /// A program's absolute path inside.
    pub fn find(&self, program: &str) -> Option<String> {
        let is_program =
            |path: &str| self.look(path).is_some_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
        if program.contains('/') {
            return is_program(program).then(|| program.to_owned());
        }
        self.path.iter().map(|folder| format!("{folder}/{program}")).find(|path| is_program(path))
    }
}

/// Where programs and files are looked for: here, or in an image.
#[derive(Debug, Clone, Default)]
pub struct System(pub Option<Image>);

impl System {
    /// # Errors
    /// As [`Image::open`].
    pub fn open(rootfs: Option<&Path>) -> anyhow::Result<Self> {
        Ok(Self(rootfs.map(Image::open).transpose()?))
    }

    pub fn look(&self, path: &str) -> io::Result<Metadata> {
        match &self.0 {
            Some(image) => image.look(path).ok_or_else(|| io::ErrorKind::NotFound.into()),
            None => fs::metadata(path),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn programs_are_found_inside_through_links_that_mean_the_inside() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("rootfs");
        fs::create_dir_all(root.join("usr/bin")).unwrap();
        fs::create_dir_all(root.join("opt/tool")).unwrap();
        fs::write(root.join("opt/tool/python3"), "").unwrap();
        fs::write(root.join("usr/bin/text"), "").unwrap();
        fs::set_permissions(root.join("opt/tool/python3"), fs::Permissions::from_mode(0o755)).unwrap();
        symlink("usr/bin", root.join("bin")).unwrap();
        symlink("/opt/tool/python3", root.join("usr/bin/python3")).unwrap();
        // Outside there is such a program; inside there is not.
        symlink("/bin/sh", root.join("usr/bin/sh")).unwrap();
        symlink("../../../../../../bin/sh", root.join("usr/bin/up")).unwrap();
        let image = Image::open(&root).unwrap();
        assert_eq!(image.find("python3").as_deref(), Some("/usr/bin/python3"));
        assert_eq!(image.find("/bin/python3").as_deref(), Some("/bin/python3"));
        assert_eq!(["sh", "up", "text", "nothing"].map(|name| image.find(name)), [const { None }; 4]);
        // A bundle names its PATH.
        let config = r#"{"process": {"env": ["A=b", "PATH=/opt/tool:/bin:relative"]}}"#;
        fs::write(dir.path().join("config.json"), config).unwrap();
        let bundle = Image::open(dir.path()).unwrap();
        assert_eq!(bundle.root(), fs::canonicalize(&root).unwrap());
        assert_eq!(bundle.path()[..3], ["/opt/tool", "/bin", "/usr/local/bin"]);
        assert_eq!(bundle.find("python3").as_deref(), Some("/opt/tool/python3"));
    }

    #[test]
    fn a_folder_that_is_no_root_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Image::open(dir.path()).unwrap_err().to_string().contains("neither usr nor bin"));
        assert!(Image::open(&dir.path().join("nothing")).is_err());
    }
}
