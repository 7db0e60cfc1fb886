//! A room without namespaces (`--sandbox process`), for machines that deny them: Landlock decides what a program reaches
//! of files, network and signals, the filter which calls it makes, rlimits what it takes, and the launcher buries what it
//! started (`family.rs`). What this does not promise stands in SECURITY.md.
//!
//! There is no other root: /box, /tmp and /cache of the languages table are folders of the host, and their names in
//! commands and environments are changed on the way.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::landlock::{self, Rules};
use super::namespaces::{DEVICES, ETC, SYSTEM};
use super::sys::Step;
use super::{family, seccomp};
use crate::sandbox::wire::{Kind, Run, Setup};
use crate::wipe;

/// Entries that /tmp may hold.
const ENTRIES: u64 = 65_536;

pub struct Plain {
    /// This worker's: `box` and `tmp` are in it.
    folder: PathBuf,
    /// Folders that are shown: toolchains and what the judge adds.
    shown: Vec<PathBuf>,
    /// Names inside, and what they are outside.
    places: Vec<(&'static str, PathBuf)>,
    cache: Option<PathBuf>,
    version: i32,
    /// Bytes that /tmp may hold in this run.
    bytes: u64,
    looked: Instant,
    look_again: Duration,
}

impl Plain {
    /// # Errors
    /// When there is no Landlock, or the folder cannot be made.
    pub fn build(setup: &Setup, folder: &Path) -> Result<Self, String> {
        let version = landlock::version();
        if version == 0 {
            return Err("no Landlock in this kernel, or not switched on: nothing would keep programs from the host's \
                        files (Linux 5.13 or later, booted with lsm=landlock,…)"
                .into());
        }
        family::adopt_orphans();
        let mut places = vec![("/box", folder.join("box")), ("/tmp", folder.join("tmp"))];
        places.extend(setup.cache.iter().map(|cache| ("/cache", cache.clone())));
        for (place, _) in &places[..2] {
            let path = folder.join(&place[1..]);
            fs::DirBuilder::new().mode(0o755).create(&path).step(|| format!("making {}", path.display()))?;
        }
        for (host, place) in setup.mounts.iter().filter(|(host, place)| host != place) {
            // Node looks for packages on its way up from the program.
            let name = place.strip_prefix("/").unwrap_or(place);
            std::os::unix::fs::symlink(host, folder.join(name))
                .step(|| format!("linking {}", place.display()))?;
            if place == Path::new("/node_modules") {
                places.push(("/node_modules", folder.join(name)));
            }
        }
        let shown = setup.mounts.iter().map(|(host, _)| host.clone()).collect();
        let (looked, look_again) = (Instant::now(), Duration::ZERO);
        let (folder, cache) = (folder.to_path_buf(), setup.cache.clone());
        Ok(Self { folder, shown, places, cache, version, bytes: 0, looked, look_again })
    }

    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn program_folder(&self) -> PathBuf {
        self.folder.join("box")
    }

    pub fn working_folder(&self) -> PathBuf {
        self.folder.join("tmp")
    }

    /// Calls beside those of the container's filter that are refused here, as Landlock knows nothing of them.
    ///
    /// An ordinary user's programs own what the user owns, and devices are everybody's: modes, owners and times are no
    /// program's to change by name. Where the kernel keeps no signals in, programs signal themselves only.
    pub fn refusals(&self, own_user: bool) -> seccomp::Refusals {
        seccomp::Refusals {
            truncate: self.version < landlock::TRUNCATES,
            attributes: true,
            signals: !own_user && self.version < landlock::SCOPED,
        }
    }

    /// The command as it is called outside.
    pub fn command(&self, run: &Run) -> Run {
        let all = |words: &[String]| words.iter().map(|word| self.outside(word)).collect();
        Run { arguments: all(&run.arguments), environment: all(&run.environment), ..run.clone() }
    }

    /// Changes the names of places, where they begin a path: `-I/box`, `GOPATH=/tmp/go`, but not `/usr/box`.
    fn outside(&self, word: &str) -> String {
        let mut text = String::with_capacity(word.len() + 64);
        let mut rest = word;
        // Whether a path has begun before `rest`, in the piece that `rest` goes on with.
        let mut inside = false;
        while let Some(first) = rest.chars().next() {
            let found = self.places.iter().find(|(name, _)| {
                let after = rest.strip_prefix(name).map(|tail| tail.chars().next());
                !inside
                    && after
                        .is_some_and(|next| next.is_none_or(|c| !c.is_alphanumeric() && c != '_' && c != '-'))
            });
            if let Some((name, path)) = found {
                text.push_str(&path.to_string_lossy());
                rest = &rest[name.len()..];
                inside = true;
                continue;
            }
            inside = match first {
                '/' => true,
                ' ' | '=' | ':' | ',' | ';' | '"' | '\'' | '(' => false,
                _ => inside,
            };
            text.push(first);
            rest = &rest[first.len_utf8()..];
        }
        text
    }

    /// An empty working folder for `bytes` of files, of user and group `ids` or ours.
    ///
    /// # Errors
    /// When it cannot be emptied.
    pub fn fresh_tmp(&mut self, bytes: u64, ids: Option<(u32, u32)>) -> Result<(), String> {
        self.bytes = bytes;
        let path = self.working_folder();
        wipe::empty(&path).step(|| format!("emptying {}", path.display()))?;
        own(&path, 0o700, ids.unwrap_or_else(our_ids))
    }

    /// # Errors
    /// When it cannot be emptied.
    pub fn fresh_box(&self) -> Result<(), String> {
        let path = self.program_folder();
        wipe::empty(&path).step(|| format!("emptying {}", path.display()))?;
        own(&path, 0o755, our_ids())
    }

    /// What a run of this kind may reach; the child adds its own /proc.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn rules(&self, kind: Kind) -> io::Result<Rules> {
        let rules = Rules::new(self.version, true)?;
        for name in SYSTEM {
            rules.allow(&format!("/{name}"), landlock::READ)?;
        }
        for entry in fs::read_dir("/etc").into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if ETC.iter().any(|beginning| name.starts_with(beginning)) {
                rules.allow(&format!("/etc/{name}"), landlock::READ)?;
            }
        }
        // Node ends where this is there and closed; where it is not there, as in the container, it goes on.
        rules.allow("/etc/ssl/openssl.cnf", landlock::READ)?;
        for name in DEVICES {
            rules.allow(&format!("/dev/{name}"), landlock::USE)?;
        }
        for path in self.shown.iter().chain(&self.cache) {
            rules.allow(&path.to_string_lossy(), landlock::READ)?;
        }
        let mut write = vec![self.working_folder()];
        match kind {
            Kind::Test => rules.allow(&self.program_folder().to_string_lossy(), landlock::READ)?,
            Kind::Compile => write.push(self.program_folder()),
            Kind::Prepare => write.extend([self.program_folder()].into_iter().chain(self.cache.clone())),
        }
        for path in write {
            rules.allow(&path.to_string_lossy(), landlock::READ | landlock::WRITE)?;
        }
        Ok(rules)
    }

    /// True when /tmp holds more than it may. Looking takes as long as there are entries, so that it is done the more
    /// seldom the more there are; files that are open and have no name any more are not seen.
    pub fn overflows(&mut self) -> bool {
        if self.looked.elapsed() < self.look_again {
            return false;
        }
        let start = Instant::now();
        let found = overflows(&self.working_folder(), self.bytes);
        (self.looked, self.look_again) = (Instant::now(), start.elapsed() * 8 + Duration::from_millis(10));
        found
    }
}

fn our_ids() -> (u32, u32) {
    // SAFETY: only reads.
    unsafe { (libc::geteuid(), libc::getegid()) }
}

fn own(path: &Path, mode: u32, (uid, gid): (u32, u32)) -> Result<(), String> {
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
        .step(|| format!("opening {}", path.display()))?;
    chown(path, Some(uid), Some(gid)).step(|| format!("giving {} away", path.display()))
}

fn overflows(top: &Path, bytes: u64) -> bool {
    let (mut left, mut entries) = (bytes, 0);
    let mut folders = vec![top.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
            entries += 1;
            let Ok(data) = entry.metadata() else { continue };
            let size = data.blocks() * 512;
            if size > left || entries > ENTRIES {
                return true;
            }
            left -= size;
            if data.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(folder: &Path) -> Plain {
        let places = vec![
            ("/box", folder.join("box")),
            ("/tmp", folder.join("tmp")),
            ("/cache", "/home/u/.cache".into()),
        ];
        Plain {
            folder: folder.to_path_buf(),
            shown: Vec::new(),
            places,
            cache: None,
            version: 1,
            bytes: 2 << 20,
            looked: Instant::now(),
            look_again: Duration::ZERO,
        }
    }

    #[test]
    fn places_are_renamed_where_they_begin_a_path() {
        let plain = plain(Path::new("/s/1"));
        let of = |word: &str| plain.outside(word);
        for (inside, outside) in [
            ("/box/main.py", "/s/1/box/main.py"),
            ("/box", "/s/1/box"),
            ("-I/box", "-I/s/1/box"),
            ("GOPATH=/tmp/go:/box", "GOPATH=/s/1/tmp/go:/s/1/box"),
            ("cd /tmp && x '/cache/k'/y", "cd /s/1/tmp && x '/home/u/.cache/k'/y"),
            ("/usr/box/tmp", "/usr/box/tmp"),
            ("/boxes", "/boxes"),
            ("/tmp_x", "/tmp_x"),
            ("/home/tmp/x=/tmp", "/home/tmp/x=/s/1/tmp"),
            ("PATH=/usr/local/bin:/usr/bin:/bin", "PATH=/usr/local/bin:/usr/bin:/bin"),
            ("ü/tmp é", "ü/s/1/tmp é"),
        ] {
            assert_eq!(of(inside), outside);
        }
    }

    #[test]
    fn bytes_and_entries_are_counted() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("tmp/deep")).unwrap();
        fs::write(dir.path().join("tmp/deep/file"), vec![b'x'; 1 << 20]).unwrap();
        // A hole is no byte.
        fs::File::create(dir.path().join("tmp/hole")).unwrap().set_len(1 << 40).unwrap();
        let mut plain = plain(dir.path());
        assert!(!plain.overflows());
        assert!(overflows(&plain.working_folder(), 1 << 19));
        plain.bytes = 1 << 19;
        plain.look_again = Duration::from_secs(3600);
        assert!(!plain.overflows(), "too early for another look");
        plain.look_again = Duration::ZERO;
        assert!(plain.overflows());
    }
}
