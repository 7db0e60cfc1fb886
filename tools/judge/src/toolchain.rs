//! From the languages table to commands that run on this machine.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use cognate_languages::{Checkpoint, Language, Languages};

use crate::image::{Image, System};
use crate::lean::Words;
use crate::owner::Owner;
use crate::sandbox::container::{Container, Host};
use crate::sandbox::wire::{Kind, Run, RunLimits, Server};
use crate::sandbox::{Fault, Sandbox, wasm};

/// Where programs are looked for, inside and outside the sandbox alike.
const PATH: [&str; 3] = ["/usr/local/bin", "/usr/bin", "/bin"];
/// Beside PATH.
const ENVIRONMENT: [&str; 5] = ["HOME=/tmp", "TMPDIR=/tmp", "LANG=C.UTF-8", "TZ=UTC", "USER=judge"];
/// Number of the container in which an image is asked; no worker has it.
const ASKED: usize = 3998;

/// Where programs find npm packages: Node and tsc look there on their way up from /box.
const NODE_MODULES: &str = "/node_modules";

/// The languages and what this machine has for them.
pub struct Toolchains {
    pub languages: Languages,
    system: System,
    /// The container in which an image is asked about itself.
    asked: Mutex<Option<Container>>,
    node_modules: Option<PathBuf>,
    homes: HashMap<String, Result<PathBuf, String>>,
    cache: Option<PathBuf>,
    /// By language: what its preparation left for [`Names::lean`], where it left something.
    prepared: Mutex<HashMap<String, Option<Arc<Words>>>>,
    fork_servers: bool,
}

/// What the placeholders of a command stand for.
pub struct Names<'a> {
    pub source: &'a str,
    pub class: &'a str,
    pub memory_mb: u64,
    /// Whether the program takes the lean one of two precompiled headers.
    pub lean: bool,
}

impl Toolchains {
    /// The languages on this machine.
    pub fn new(languages: Languages, fork_servers: bool) -> Self {
        Self::of(languages, fork_servers, System::default())
    }

    /// The languages on this machine or in an image.
    pub fn of(languages: Languages, fork_servers: bool, system: System) -> Self {
        let mut tools = Self {
            languages,
            system,
            asked: Mutex::default(),
            node_modules: node_modules(),
            homes: HashMap::new(),
            cache: cache_folder(),
            prepared: Mutex::default(),
            fork_servers,
        };
        let homes =
            tools.languages.iter().filter_map(|l| Some((l.name.clone(), tools.home(l.home.as_ref()?))));
        tools.homes = homes.collect();
        tools.languages = tools.languages.map(|mut language| {
            let there =
                language.compile_if.iter().filter(|(program, _)| tools.system.find(program).is_some());
            let more: Vec<String> = there.flat_map(|(_, words)| words.clone()).collect();
            if let Some(command) = &mut language.compile {
                command.splice(1..1, more);
            }
            language
        });
        tools
    }

    /// Runs a command that tells something about a toolchain: here, or in a container of the image, since what is in an
    /// image is nobody's but its maker's. Gives its stdout, or stderr where that is empty.
    fn ask(&self, words: &[String]) -> Result<String, String> {
        let name = words.first().map_or("", String::as_str);
        let program = self.system.find(name).ok_or_else(|| format!("{name} not found"))?;
        self.ask_program(program, words)
    }

    /// As [`Self::ask`], with `program` for the first word.
    fn ask_program(&self, program: String, words: &[String]) -> Result<String, String> {
        let (ok, stdout, stderr) = match &self.system.0 {
            None => {
                let output = Command::new(program).args(&words[1..]).stdin(Stdio::null()).output();
                let output = output.map_err(|_| format!("{} not found", words[0]))?;
                (output.status.success(), output.stdout, output.stderr)
            }
            Some(image) => self.ask_image(image, program, &words[1..]).map_err(|fault| fault.0)?,
        };
        let text = if stdout.is_empty() { stderr } else { stdout };
        let text = String::from_utf8_lossy(&text).trim().to_owned();
        if ok { Ok(text) } else { Err(format!("{} fails", words.join(" "))) }
    }

    fn ask_image(
        &self,
        image: &Image,
        program: String,
        arguments: &[String],
    ) -> Result<(bool, Vec<u8>, Vec<u8>), Fault> {
        let mut asked = self.asked.lock().expect("no thread panics while it holds this");
        let container = match &mut *asked {
            Some(container) => container,
            none => {
                let host = Host { rootfs: Some(image.root().to_path_buf()), ..Host::default() };
                none.insert(Container::start(&host, ASKED)?)
            }
        };
        container.place(&[], None)?;
        let run = Run {
            arguments: std::iter::once(program).chain(arguments.iter().cloned()).collect(),
            environment: self.fixed_environment(),
            limits: RunLimits {
                cpu_us: 20_000_000,
                wall_us: 60_000_000,
                memory_bytes: 1 << 30,
                processes: 64,
                file_bytes: 16 << 20,
                output_bytes: 1 << 20,
            },
            kind: Kind::Test,
            server: None,
        };
        let finished = container.run(&run, b"")?;
        let ok = finished.outcome.exit == Some(0) && finished.outcome.exceeded.is_none();
        Ok((ok, finished.stdout, finished.stderr))
    }

    fn home(&self, command: &[String]) -> Result<PathBuf, String> {
        let name = command.first().map_or("", String::as_str);
        // What tells where a toolchain is may be the user's own program (rustup's), which no sandbox shows: on the user's PATH.
        let own = || self.system.0.is_none().then(|| name.to_owned());
        let program = self.system.find(name).or_else(own).ok_or_else(|| format!("{name} not found"))?;
        let text = self.ask_program(program, command)?;
        let path = PathBuf::from(&text);
        if path.starts_with("/tmp") && self.system.0.is_none() {
            return Err(format!("{text} lies in /tmp, of which programs have one of their own"));
        }
        if path.is_absolute() && self.system.look(&text).is_ok_and(|data| data.is_dir()) {
            Ok(path)
        } else {
            Err(format!("{text:?} is no folder"))
        }
    }

    /// The same for every run of every language.
    fn fixed_environment(&self) -> Vec<String> {
        let path = match &self.system.0 {
            Some(image) => format!("PATH={}", image.path().join(":")),
            None => format!("PATH={}", PATH.join(":")),
        };
        std::iter::once(path).chain(ENVIRONMENT.iter().map(ToString::to_string)).collect()
    }

    /// For a sandbox that shows the host's folders where they are, under a user of its own when the judge is root: a
    /// toolchain that no other user can reach is missing, and the cache lies where it can be reached.
    #[must_use]
    pub fn without_mounts(mut self) -> Self {
        // SAFETY: only reads.
        let is_open = |path: &Path| unsafe { libc::geteuid() } != 0 || is_open_to_all(path);
        for home in self.homes.values_mut() {
            if let Ok(path) = home
                && !is_open(path)
            {
                let why =
                    "cannot be reached by other users, and --sandbox process as root runs programs as one";
                *home = Err(format!("{} {why}", path.display()));
            }
        }
        self.node_modules = self.node_modules.filter(|path| is_open(path));
        let own = self.cache.take().filter(|path| is_open(path));
        let cache = own.unwrap_or_else(|| "/var/cache/cognate/judge".into()).join("process");
        let made = fs::create_dir_all(&cache).is_ok() && is_open(&cache);
        self.cache = made.then_some(cache);
        self
    }

    /// What sandboxes must show of the host.
    pub fn host(&self) -> Host {
        let rootfs = self.system.0.as_ref().map(|image| image.root().to_path_buf());
        // An image holds its own.
        let homes = self.homes.values().flatten().filter(|_| rootfs.is_none());
        let homes = homes.map(|path| (path.clone(), path.clone()));
        let modules = self.node_modules.iter().map(|path| (path.clone(), PathBuf::from(NODE_MODULES)));
        let mounts = homes.chain(modules).collect();
        Host { mounts, rootfs, cache: self.cache.clone() }
    }

    /// Why programs of this language cannot run here, with the cure.
    ///
    /// # Errors
    /// One line.
    pub fn usable(&self, language: &Language) -> Result<(), String> {
        if let Some(Err(reason)) = self.homes.get(&language.name) {
            return Err(format!("{reason}{}", self.cure(language)));
        }
        if language.in_wasm {
            self.usable_in_wasm(language)?;
        }
        for command in language.compile.iter().chain([&language.run]) {
            let program = self.fill(&command[0], language, None);
            if !program.starts_with("/box/") && self.system.find(&program).is_none() {
                return Err(format!("{program} not found{}", self.cure(language)));
            }
        }
        for package in &language.npm {
            match &self.node_modules {
                Some(folder) if folder.join(package).is_dir() => {}
                _ => return Err(format!("npm package {package} not found{}", self.cure(language))),
            }
        }
        Ok(())
    }

    fn usable_in_wasm(&self, language: &Language) -> Result<(), String> {
        let Some(route) = &language.wasm else {
            return Err("no WebAssembly route in the languages table".into());
        };
        if let Some(guest) = &route.guest {
            wasm::has_guest(guest)?;
        }
        match route.requires.iter().map(|r| self.fill(r, language, None)).find(|r| !Path::new(r).exists()) {
            Some(missing) => Err(format!("{missing} not found{}", self.cure(language))),
            None => Ok(()),
        }
    }

    /// How to get a language.
    pub fn cure(&self, language: &Language) -> String {
        let mut text = String::new();
        if language.in_wasm && language.packages.is_empty() {
            text += " (make wasm)";
        }
        if !language.packages.is_empty() {
            text += &format!(" (apt install {})", language.packages.join(" "));
        }
        if !language.npm.is_empty() {
            let packages = language.npm.join(" ");
            text += &format!(
                " (npm install {packages}, or npm ci in shared/languages/npm; COGNATE_NODE_MODULES names another folder)"
            );
        }
        text
    }

    /// The version as the toolchain prints it, first line.
    pub fn version(&self, language: &Language) -> Option<String> {
        let words: Vec<String> = language.version.iter().map(|w| self.fill(w, language, None)).collect();
        Some(self.ask(&words).ok()?.lines().next()?.trim().to_owned())
    }

    fn fill(&self, word: &str, language: &Language, names: Option<&Names>) -> String {
        let mut text = word.to_owned();
        if let Some(Ok(home)) = self.homes.get(&language.name) {
            text = text.replace("{home}", &home.to_string_lossy());
        }
        if let Some(folder) = &self.node_modules {
            // Without names the command runs outside.
            let folder = if names.is_some() { NODE_MODULES.into() } else { folder.to_string_lossy() };
            text = text.replace("{node_modules}", &folder);
        }
        if text.contains("{cache}") {
            text = text.replace("{cache}", &format!("/cache/{}", self.cache_key(language)));
        }
        if let Some(names) = names {
            text = text
                .replace("{source}", names.source)
                .replace("{class}", names.class)
                .replace("{lean}", if names.lean { "/lean" } else { "" })
                .replace("{memory_mb}", &names.memory_mb.to_string());
        }
        text
    }

    pub fn command(&self, words: &[String], language: &Language, names: &Names) -> Vec<String> {
        let mut words: Vec<String> = words.iter().map(|w| self.fill(w, language, Some(names))).collect();
        if let Some(path) = self.system.find(&words[0]) {
            words[0] = path;
        }
        words
    }

    pub fn environment(&self, language: &Language) -> Vec<String> {
        let own = language.environment.iter().map(|(name, value)| (name, self.fill(value, language, None)));
        // A variable whose folder this machine lacks is left out.
        let own =
            own.filter(|(_, value)| !value.contains('{')).map(|(name, value)| format!("{name}={value}"));
        self.fixed_environment().into_iter().chain(own).collect()
    }

    /// The fork server of a language, where it has one.
    pub fn server(&self, language: &Language) -> Option<Server> {
        let checkpoint = language.fork_server.filter(|_| self.fork_servers)?;
        let names = Names { source: &language.source, class: "", memory_mb: 0, lean: false };
        let mut arguments = self.command(&language.run, language, &names);
        if checkpoint == Checkpoint::Require {
            arguments.splice(1..1, ["-r".to_owned(), "/run/checkpoint.rb".to_owned()]);
        }
        Some(Server {
            name: language.name.clone(),
            arguments,
            environment: self.environment(language),
            source: language.source.clone(),
            mode: match checkpoint {
                Checkpoint::Open => "open".into(),
                Checkpoint::Require => "require".into(),
            },
            canary: language.canary.clone().unwrap_or_default(),
        })
    }

    /// Names the toolchain itself and what prepares it, so that a change of either makes a new folder.
    fn cache_key(&self, language: &Language) -> String {
        let mut text = format!("{:?}{:?}{:?}", language.prepare, language.compile, language.environment);
        if let Some(path) = language.compile.as_ref().and_then(|command| self.system.find(&command[0]))
            && let Ok(data) = self.system.look(&path)
        {
            let path = match &self.system.0 {
                Some(image) => image.root().join(path.trim_start_matches('/')),
                None => fs::canonicalize(&path).unwrap_or_else(|_| path.into()),
            };
            text += &format!("{}{}{:?}", path.display(), data.len(), data.modified().ok());
        }
        format!("{}-{:016x}", language.name, xxhash_rust::xxh3::xxh3_64(text.as_bytes()))
    }

    /// Runs the language's `prepare` once on this machine; later runs find its folder. Gives the words that forbid the
    /// lean header there, `None` where there is no such header.
    ///
    /// # Errors
    /// When the sandbox fails. A failed preparation is told once and compilation goes on without.
    pub fn prepare(
        &self,
        language: &Language,
        sandbox: &mut dyn Sandbox,
    ) -> Result<Option<Arc<Words>>, Fault> {
        let (Some(prepare), Some(cache)) = (&language.prepare, &self.cache) else { return Ok(None) };
        let mut prepared = self.prepared.lock().expect("no thread panics while it holds this");
        if let Some(words) = prepared.get(&language.name) {
            return Ok(words.clone());
        }
        let key = self.cache_key(language);
        let folder = cache.join(&key);
        let mut outcome = Ok(());
        if !folder.is_dir() {
            let part = format!("{key}.{}.part", Owner::this());
            outcome = self.fill_cache(prepare, language, sandbox, &key, &part)?;
            // Another judge may have been faster; its folder is as good.
            if outcome.is_err() || fs::rename(cache.join(&part), &folder).is_err() {
                let _ = fs::remove_dir_all(cache.join(&part));
            }
        }
        if let Err(reason) = &outcome {
            cognate_cli::say(format_args!(
                "warning: {}: preparing the toolchain failed, compiling will be slow: {reason}",
                language.name
            ));
        }
        let words = Words::read(&folder.join("lean/words")).map(Arc::new);
        prepared.insert(language.name.clone(), words.clone());
        Ok(words)
    }

    fn fill_cache(
        &self,
        prepare: &[String],
        language: &Language,
        sandbox: &mut dyn Sandbox,
        key: &str,
        part: &str,
    ) -> Result<Result<(), String>, Fault> {
        let Some(cache) = &self.cache else { return Ok(Ok(())) };
        if let Err(e) = fs::create_dir_all(cache.join(part)) {
            return Ok(Err(e.to_string()));
        }
        for folder in [cache, &cache.join(part)] {
            // Whatever this process's umask is, programs under ids of their own read it.
            let _ = fs::set_permissions(folder, fs::Permissions::from_mode(0o755));
        }
        let names = Names { source: "", class: "", memory_mb: 2048, lean: false };
        let in_part = |text: String| text.replace(&format!("/cache/{key}"), &format!("/cache/{part}"));
        let run = Run {
            arguments: self.command(prepare, language, &names).into_iter().map(in_part).collect(),
            environment: self.environment(language).into_iter().map(in_part).collect(),
            limits: RunLimits {
                cpu_us: 300_000_000,
                wall_us: 900_000_000,
                memory_bytes: 4 << 30,
                processes: 256,
                file_bytes: 2 << 30,
                output_bytes: 1 << 20,
            },
            kind: Kind::Prepare,
            server: None,
        };
        sandbox.place(&[], None)?;
        let finished = sandbox.run(&run, b"")?;
        let complaint = String::from_utf8_lossy(&finished.stderr);
        let complaint = complaint.trim();
        Ok(if finished.outcome.exit == Some(0) {
            if !complaint.is_empty() {
                cognate_cli::say(format_args!(
                    "warning: {}: preparing the toolchain: {complaint}",
                    language.name
                ));
            }
            Ok(())
        } else {
            Err(format!("{:?}: {complaint}", finished.outcome))
        })
    }
}

/// True when every user can pass to this folder and read it.
fn is_open_to_all(path: &Path) -> bool {
    path.ancestors().all(|folder| {
        let wanted = if folder == path { 0o5 } else { 0o1 };
        fs::metadata(folder).is_ok_and(|data| data.permissions().mode() & wanted == wanted)
    })
}

impl System {
    /// A program's absolute path.
    fn find(&self, program: &str) -> Option<String> {
        self.0.as_ref().map_or_else(|| find(program), |image| image.find(program))
    }
}

/// A program's absolute path on this machine.
fn find(program: &str) -> Option<String> {
    let is_program =
        |path: &Path| fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    if program.contains('/') {
        return is_program(Path::new(program)).then(|| program.to_owned());
    }
    PATH.iter()
        .map(|dir| Path::new(dir).join(program))
        .find(|p| is_program(p))
        .map(|p| p.to_string_lossy().into_owned())
}

/// `COGNATE_NODE_MODULES`, or the folder that `npm ci` makes: in the working folder, beside the pinned list
/// (shared/languages/npm), or in a folder above the working folder or above this program.
fn node_modules() -> Option<PathBuf> {
    if let Some(path) = std::env::var_os("COGNATE_NODE_MODULES") {
        return fs::canonicalize(path).ok().filter(|p| p.is_dir());
    }
    let from = [std::env::current_dir().ok(), std::env::current_exe().ok()];
    let mut folders = from
        .iter()
        .flatten()
        .flat_map(|p| p.ancestors())
        .flat_map(|p| [p.join("node_modules"), p.join("shared/languages/npm/node_modules")]);
    folders.find(|p| p.is_dir()).and_then(|p| fs::canonicalize(p).ok())
}

/// `COGNATE_CACHE`, or the user's cache folder; `None` where neither can be written.
pub fn cache_folder() -> Option<PathBuf> {
    let path = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    let base = path("COGNATE_CACHE")
        .or_else(|| path("XDG_CACHE_HOME").map(|p| p.join("cognate")))
        .or_else(|| path("HOME").map(|p| p.join(".cache/cognate")))?;
    let folder = base.join("judge");
    fs::create_dir_all(&folder).ok()?;
    tempfile_in(&folder).then(|| fs::canonicalize(&folder).ok()).flatten()
}

fn tempfile_in(folder: &Path) -> bool {
    use std::os::unix::fs::OpenOptionsExt;
    fs::File::options().write(true).custom_flags(libc::O_TMPFILE).mode(0o600).open(folder).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_toolchain_is_where_its_own_program_says_and_where_sandboxes_can_show_it() {
        let languages = Languages::load(None).unwrap();
        let tools = Toolchains::new(languages, false);
        let home = |text: &str| tools.home(&["printf".into(), "%s".into(), text.into()]);
        assert_eq!(home("/usr/lib").unwrap(), PathBuf::from("/usr/lib"));
        assert!(home("/tmp").unwrap_err().contains("/tmp"));
        assert!(home("/usr/lib/none").unwrap_err().contains("is no folder"));
        assert_eq!(tools.home(&["no-such-program".into()]).unwrap_err(), "no-such-program not found");
        // Whoever builds this has rustc, often where no sandbox looks.
        let rust = tools.home(&["rustc", "--print", "sysroot"].map(String::from)).unwrap();
        assert!(rust.join("bin/rustc").is_file());
    }
}
