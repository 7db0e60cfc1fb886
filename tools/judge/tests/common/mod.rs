//! Runs the judge as its users do.
#![expect(dead_code, reason = "each test file uses a part")]

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};

pub const JUDGE: &str = env!("CARGO_BIN_EXE_cog-judge");

pub fn is_root() -> bool {
    // SAFETY: only reads.
    unsafe { libc::geteuid() == 0 }
}

/// False, loudly, where this machine lets nobody build a sandbox, or lacks a language.
pub fn can_judge(languages: &[&str]) -> bool {
    // From where the cases run, since npm packages are looked for from the working folder upwards.
    let output =
        Command::new(JUDGE).args(["languages", "--json"]).current_dir(std::env::temp_dir()).output().unwrap();
    let table: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap();
    for name in languages {
        if !table.iter().any(|l| l["name"] == *name && l["usable"] == true) {
            eprintln!("SKIPPED: {name} is not installed");
            return false;
        }
    }
    true
}

/// A folder with the files of one test.
pub struct Case {
    pub dir: tempfile::TempDir,
}

impl Case {
    pub fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn lines(&self, name: &str, records: &[Value]) -> PathBuf {
        let text: String = records.iter().map(|r| format!("{r}\n")).collect();
        self.text(name, &text)
    }

    pub fn text(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    /// The judge on `problems.jsonl`, with stdin.
    pub fn judge(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = self.command(arguments).stdin(Stdio::piped()).spawn().unwrap();
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// A folder for temporary files of a judge, in which programs of other users may pass.
    pub fn scratch(&self) -> PathBuf {
        let scratch = self.path("scratch");
        std::fs::create_dir(&scratch).unwrap();
        open_to_all(&[self.dir.path(), &scratch], 0o755);
        scratch
    }

    /// The judge as an ordinary user, at home in a folder of the case that is all users' to write; `None`, loudly, where
    /// that cannot be. No other test may have user `id` at the time: the kernel counts their processes together.
    pub fn judge_as(&self, id: u32, arguments: &[&str]) -> Option<Output> {
        let (copy, home) = (self.path("cog-judge"), self.path("home"));
        std::fs::copy(JUDGE, &copy).unwrap();
        std::fs::create_dir_all(&home).unwrap();
        open_to_all(&[self.dir.path(), &copy], 0o755);
        open_to_all(&[&home], 0o777);
        let output = Command::new("setpriv")
            .args([format!("--reuid={id}"), format!("--regid={id}"), "--clear-groups".into()])
            .arg(&copy)
            .args(["--tests", "problems.jsonl"])
            .args(arguments)
            .current_dir(self.dir.path())
            .env("HOME", &home)
            .env("COGNATE_SECRET", "COGNATE_SECRET")
            .env("TMPDIR", &home)
            .stdin(Stdio::null())
            .output();
        output.inspect_err(|_| eprintln!("SKIPPED: setpriv is not installed")).ok()
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(JUDGE);
        command
            .current_dir(self.dir.path())
            .args(["--tests", "problems.jsonl"])
            .args(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }
}

fn open_to_all(paths: &[&Path], mode: u32) {
    for path in paths {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    }
}

/// Command lines of all processes of this machine.
pub fn running() -> String {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|e| std::fs::read(e.path().join("cmdline")).ok());
    lines.map(|c| String::from_utf8_lossy(&c).into_owned() + "\n").collect()
}

/// Waits for it half a minute.
pub fn wait_until(what: &str, holds: &dyn Fn() -> bool) {
    for _ in 0..3000 {
        if holds() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("not so after 30 s: {what}: {}", running());
}

/// The sum of two numbers, with two tests.
pub fn sum_problem() -> Value {
    json!({
        "schema": "problem/1", "id": "sum", "statement": "the sum of two numbers",
        "tests": [{"input": "1 2\n", "output": "3\n"}, {"input": "1000000000 9\n", "output": "1000000009\n"}],
    })
}

pub fn program(id: &str, language: &str, source: &str) -> Value {
    json!({"schema": "program/1", "id": id, "problem": "sum", "language": language, "source": source})
}

pub fn records(output: &[u8]) -> Vec<Value> {
    String::from_utf8_lossy(output).lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

pub fn language_of(path: &Path) -> Option<&'static str> {
    Some(match path.extension()?.to_str()? {
        "py" => "python",
        "rb" => "ruby",
        "php" => "php",
        "pl" => "perl",
        "lua" => "lua",
        "sh" => "bash",
        "c" => "c",
        _ => return None,
    })
}

/// Files of a folder that are programs, in order of name.
pub fn programs_in(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|f| language_of(f).is_some());
    files.sort();
    files
}
