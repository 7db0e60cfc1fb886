//! The table, parsed and checked.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use regex::Regex;
use serde::Deserialize;

use crate::Wasm;

/// Where errors of the built-in table are said to be; no file has this name.
const PLACE: &str = "<built-in>/languages.toml";
const BUILTIN: &str = include_str!("../languages.toml");

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: std::io::Error },
    #[error("{place}: {reason}")]
    Table { place: String, reason: String },
}

/// One language. The keys are explained at the head of `languages.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Language {
    /// Canonical name, the key of the table.
    #[serde(skip)]
    pub name: String,
    pub display: String,
    #[serde(default)]
    pub(crate) spellings: Vec<String>,
    pub extension: String,
    pub line_comment: String,
    #[serde(default)]
    pub block_comment: Option<[String; 2]>,
    pub source: String,
    #[serde(default)]
    pub compile: Option<Vec<String>>,
    /// Program → words that `compile` gets where it is there.
    #[serde(default)]
    pub compile_if: BTreeMap<String, Vec<String>>,
    pub run: Vec<String>,
    #[serde(default)]
    pub home: Option<Vec<String>>,
    pub version: Vec<String>,
    #[serde(default)]
    pub packages: Vec<String>,
    #[serde(default)]
    pub npm: Vec<String>,
    #[serde(default)]
    pub environment: BTreeMap<String, String>,
    #[serde(default = "one")]
    pub cpu_factor: f64,
    #[serde(default = "one")]
    pub memory_factor: f64,
    #[serde(default)]
    pub startup_ms: u64,
    #[serde(default)]
    pub startup_mb: u64,
    #[serde(default)]
    pub startup_processes: u64,
    #[serde(default)]
    pub fork_server: Option<Checkpoint>,
    #[serde(default)]
    pub canary: Option<String>,
    #[serde(default)]
    pub prepare: Option<Vec<String>>,
    #[serde(default)]
    pub tags: Option<[String; 2]>,
    #[serde(default)]
    pub wasm: Option<Wasm>,
    /// True in a table made by [`Languages::in_wasm`].
    #[serde(skip)]
    pub in_wasm: bool,
    #[serde(default)]
    pub(crate) syntax: Vec<(f64, String)>,
    #[serde(skip)]
    pub(crate) compiled_spellings: OnceLock<Vec<Regex>>,
    #[serde(skip)]
    pub(crate) compiled_syntax: OnceLock<Vec<(f64, Regex)>>,
}

fn one() -> f64 {
    1.0
}

fn compile_spellings(spellings: &[String]) -> Result<Vec<Regex>, regex::Error> {
    spellings.iter().map(|s| Regex::new(&format!("^(?i:{s})$"))).collect()
}

fn compile_syntax(syntax: &[(f64, String)]) -> Result<Vec<(f64, Regex)>, regex::Error> {
    syntax.iter().map(|(weight, s)| Regex::new(s).map(|r| (*weight, r))).collect()
}

/// Where a fork server stops its interpreter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Checkpoint {
    Open,
    Require,
}

/// All languages, in the order of the table.
#[derive(Debug, Clone)]
pub struct Languages {
    list: Vec<Language>,
}

impl Languages {
    /// The table that the suite comes with.
    pub fn builtin() -> Self {
        Self::parse(&[(PLACE.into(), BUILTIN.into())]).expect("the built-in table is tested")
    }

    /// The built-in table with a user's merged over it.
    ///
    /// # Errors
    /// When the file cannot be read, is not TOML, has an unknown or missing key, or a pattern is no regular expression.
    pub fn with_user_file(path: &Path) -> Result<Self, Error> {
        let text =
            std::fs::read_to_string(path).map_err(|source| Error::Io { path: path.to_path_buf(), source })?;
        Self::parse(&[(PLACE.into(), BUILTIN.into()), (path.display().to_string(), text)])
    }

    /// The built-in table, with a user's file where one is given.
    ///
    /// # Errors
    /// As [`Languages::with_user_file`].
    pub fn load(user: Option<&Path>) -> Result<Self, Error> {
        match user {
            Some(path) => Self::with_user_file(path),
            None => Ok(Self::builtin()),
        }
    }

    /// Later files win, key by key. Languages keep the place of their first appearance.
    fn parse(files: &[(String, String)]) -> Result<Self, Error> {
        let mut merged: Vec<(String, toml::Table, &str)> = Vec::new();
        for (place, text) in files {
            let fail = |reason: String| Error::Table { place: place.clone(), reason };
            // A TOML table is sorted by key; the file's own order is found again by the position of its headers.
            let tables: toml::Table = text.parse().map_err(|e: toml::de::Error| fail(e.to_string()))?;
            let mut names: Vec<&String> = tables.keys().collect();
            names.sort_by_key(|name| text.find(&format!("[{name}]")).unwrap_or(usize::MAX));
            for name in names {
                let toml::Value::Table(new) = &tables[name] else {
                    return Err(fail(format!("{name:?} is not a table")));
                };
                match merged.iter_mut().find(|(n, ..)| n == name) {
                    Some((_, old, from)) => {
                        old.extend(new.clone());
                        *from = place;
                    }
                    None => merged.push((name.clone(), new.clone(), place)),
                }
            }
        }
        let list = merged
            .into_iter()
            .map(|(name, table, place)| {
                Language::new(name.clone(), table, place == PLACE).map_err(|reason| Error::Table {
                    place: place.to_string(),
                    reason: format!("[{name}] {reason}"),
                })
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { list })
    }

    /// By canonical name.
    pub fn get(&self, name: &str) -> Option<&Language> {
        self.list.iter().find(|l| l.name == name)
    }

    /// By any spelling of a corpus: `GNU C++17 (64)`, `PyPy 3-64`, `Node js`. Canonical names and extensions count.
    pub fn by_spelling(&self, spelling: &str) -> Option<&Language> {
        let spelling = spelling.trim();
        self.get(spelling)
            .or_else(|| self.list.iter().find(|l| l.spelling_patterns().iter().any(|r| r.is_match(spelling))))
    }

    /// By a file name's extension, with or without the dot.
    pub fn by_extension(&self, extension: &str) -> Option<&Language> {
        let extension = extension.trim_start_matches('.');
        self.list.iter().find(|l| l.extension == extension)
    }

    /// Every language changed, in the same order.
    pub fn map(&self, change: impl Fn(Language) -> Language) -> Self {
        Self { list: self.list.iter().cloned().map(change).collect() }
    }

    pub fn iter(&self) -> impl Iterator<Item = &Language> {
        self.list.iter()
    }
}

impl Language {
    fn spelling_patterns(&self) -> &[Regex] {
        self.compiled_spellings.get_or_init(|| compile_spellings(&self.spellings).expect("checked or tested"))
    }

    pub(crate) fn syntax_patterns(&self) -> &[(f64, Regex)] {
        self.compiled_syntax.get_or_init(|| compile_syntax(&self.syntax).expect("checked or tested"))
    }

    /// Patterns of a user's table are tried at once; compiling those of the built-in one waits until it is asked for.
    fn new(name: String, table: toml::Table, trusted: bool) -> Result<Self, String> {
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        {
            return Err("a language's name is made of a-z, 0-9 and _".into());
        }
        let mut language: Self =
            table.try_into().map_err(|e: toml::de::Error| e.to_string().trim().to_owned())?;
        if language.run.is_empty()
            || language.version.is_empty()
            || language.compile.as_ref().is_some_and(Vec::is_empty)
        {
            return Err("`compile`, `run` and `version` must not be empty".into());
        }
        let source = &language.source;
        if source.is_empty() || source.contains('/') || source.starts_with('.') {
            return Err(format!("`source` must be a plain file name, not {source:?}"));
        }
        if language.fork_server.is_some() && (language.compile.is_some() || source.contains('{')) {
            return Err("`fork_server` needs an interpreter and a fixed `source` name".into());
        }
        for (key, factor) in [("cpu_factor", language.cpu_factor), ("memory_factor", language.memory_factor)]
        {
            if !(factor > 0.0 && factor <= 1000.0) {
                return Err(format!("`{key}` must be above 0 and at most 1000, not {factor}"));
            }
        }
        if let Some(wasm) = &language.wasm {
            wasm.check()?;
        }
        if !trusted {
            compile_spellings(&language.spellings).map_err(|e| e.to_string())?;
            compile_syntax(&language.syntax).map_err(|e| e.to_string())?;
        }
        language.name = name;
        Ok(language)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_the_corpora() {
        let table = Languages::builtin();
        for (spelling, want) in [
            ("GNU C++17 (64)", "cpp"),
            ("GNU C++20 (64)", "cpp"),
            ("GNU C++0x", "cpp"),
            ("C++20 (GCC 13-64)", "cpp"),
            ("C++23 (GCC 14-64, msys2)", "cpp"),
            ("C++14 (GCC 5.4.1)", "cpp"),
            ("Clang++17 Diagnostics", "cpp"),
            ("MS C++ 2017", "cpp"),
            ("CPP", "cpp"),
            ("GNU C11", "c"),
            ("GNU C", "c"),
            ("C", "c"),
            ("C (GCC 9.2.1)", "c"),
            ("PyPy 3-64", "python"),
            ("PyPy 3", "python"),
            ("Python 3", "python"),
            ("Python 3 + libs", "python"),
            ("Python (3.8.2)", "python"),
            ("PYTHON3", "python"),
            ("Python (CPython 3.11.4)", "python"),
            ("Python (PyPy 3.10-v7.3.12)", "python"),
            ("PyPy3 (7.3.0)", "python"),
            ("Node js", "javascript"),
            ("Node.js", "javascript"),
            ("Node.js 15.8.0 (64bit)", "javascript"),
            ("JavaScript V8 4.8.0", "javascript"),
            ("JavaScript (Node.js 12.16.1)", "javascript"),
            ("TypeScript (3.8)", "typescript"),
            ("Java 21", "java"),
            ("Java 1.8.0_162", "java"),
            ("Java (OpenJDK 1.8.0)", "java"),
            ("JAVA", "java"),
            ("Rust 1.75.0 (2021)", "rust"),
            ("Go 1.19.5", "go"),
            ("Ruby 3.2.2", "ruby"),
            ("PHP 8.1.7", "php"),
            ("PHP7 (7.0.15)", "php"),
            ("Perl 5.20.1", "perl"),
            ("Perl (5.26.1)", "perl"),
            ("Perl (perl 5.34)", "perl"),
            ("Lua (LuaJIT 2.1.0)", "lua"),
            ("Bash (5.0.11)", "bash"),
        ] {
            assert_eq!(table.by_spelling(spelling).map(|l| l.name.as_str()), Some(want), "{spelling}");
        }
        for spelling in [
            "Python 2",
            "PyPy 2",
            "PyPy 2-64",
            "Python (2.7.6)",
            "Mono C#",
            "Kobol",
            "Perl 6",
            "Cobol",
            "Ceylon",
            "",
        ] {
            assert!(table.by_spelling(spelling).is_none(), "{spelling}");
        }
    }

    #[test]
    fn a_users_file_replaces_keys_and_adds_tables() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("mine.toml");
        let awk = "[awk]\ndisplay = \"AWK\"\nextension = \"awk\"\nline_comment = \"#\"\nsource = \"main.awk\"\n\
                   run = [\"awk\", \"-f\", \"/box/{source}\"]\nversion = [\"awk\", \"-W\", \"version\"]\n";
        std::fs::write(&path, format!("[python]\nstartup_ms = 7\n{awk}")).unwrap();
        let table = Languages::with_user_file(&path).unwrap();
        assert_eq!(table.get("python").unwrap().startup_ms, 7);
        assert_eq!(table.get("python").unwrap().display, "Python");
        assert_eq!(table.get("awk").unwrap().display, "AWK");
        assert_eq!(table.iter().next().unwrap().name, "python");

        for (text, reason) in [
            ("[awk]\ndisplay = \"AWK\"\n", "missing field"),
            ("[python]\nspelings = []\n", "unknown field"),
            ("[python]\nspellings = [\"(\"]\n", "unclosed group"),
            ("[python]\nsource = \"../main.py\"\n", "plain file name"),
            ("[python]\ncpu_factor = 0.0\n", "above 0"),
            ("python = 1\n", "not a table"),
        ] {
            std::fs::write(&path, text).unwrap();
            let error = Languages::with_user_file(&path).unwrap_err().to_string();
            assert!(error.contains(reason) && error.contains("mine.toml"), "{error}");
        }
    }
}
