//! Field maps: how the rows of somebody else's JSONL or Parquet become problems and programs. A map is data (TOML, or
//! `source=code,language=lang` on the command line), so that a new corpus needs no code.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::Context;
use cognate_records::{Checker, Visibility};
use serde::Deserialize;

use crate::value::Field;

/// One map file.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FieldMap {
    /// Name of the corpus; the file's stem where absent.
    pub corpus: Option<String>,
    /// Licence of rows that carry none themselves.
    pub licence: Option<String>,
    /// How a row becomes a problem; absent where the rows are programs only.
    pub problem: Option<ProblemMap>,
    /// How a row becomes programs; several tables where a row holds several lists.
    #[serde(default)]
    pub programs: Vec<ProgramMap>,
    /// Spellings of the corpus that mean accepted and wrong; any other is kept as it stands.
    #[serde(default)]
    pub claims: Claims,
    /// Spellings of languages that the table of languages does not know.
    #[serde(default)]
    pub languages: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Claims {
    #[serde(default)]
    pub accepted: Vec<String>,
    #[serde(default)]
    pub wrong: Vec<String>,
}

impl Claims {
    /// `accepted`, `wrong`, or the spelling itself.
    pub fn translate(&self, spelling: &str) -> String {
        let has = |list: &[String]| list.iter().any(|s| s == spelling);
        if has(&self.accepted) {
            "accepted".to_owned()
        } else if has(&self.wrong) {
            "wrong".to_owned()
        } else {
            spelling.to_owned()
        }
    }
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProblemMap {
    pub id: Field,
    pub statement: Option<Field>,
    pub title: Option<Field>,
    pub split: Option<Field>,
    pub url: Option<Field>,
    pub licence: Option<Field>,
    pub cpu_seconds: Option<Field>,
    pub memory_mb: Option<Field>,
    pub memory_bytes: Option<Field>,
    /// Path of a list of texts.
    pub tags: Option<String>,
    /// One checker for the whole corpus, as in the problem record.
    pub checker: Option<Checker>,
    #[serde(default)]
    pub tests: Vec<TestMap>,
    /// Paths whose values are carried along as fields of the record.
    #[serde(default)]
    pub keep: Vec<String>,
}

/// One list of tests. With `code` they are assertions, else stdin→stdout.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TestMap {
    pub each: Option<String>,
    pub zip: Option<String>,
    pub id: Option<Field>,
    pub input: Option<Field>,
    pub output: Option<Field>,
    pub code: Option<Field>,
    pub language: Option<Field>,
    pub group: Option<Field>,
    #[serde(default)]
    pub visibility: Visibility,
    /// Other `code` for some languages, by canonical name.
    #[serde(default)]
    pub by_language: BTreeMap<String, CodeMap>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CodeMap {
    pub code: Field,
}

/// One list of programs, or the row itself as one program.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProgramMap {
    pub each: Option<String>,
    pub zip: Option<String>,
    /// Where absent, an id is made from problem, language and source.
    pub id: Option<Field>,
    /// Where absent, the problem of the same row.
    pub problem: Option<Field>,
    pub language: Field,
    pub source: Field,
    pub claim: Option<Field>,
    pub split: Option<Field>,
    pub licence: Option<Field>,
    pub url: Option<Field>,
    pub path: Option<Field>,
    #[serde(default)]
    pub keep: Vec<String>,
    /// Other `source` for some languages, by canonical name.
    #[serde(default)]
    pub by_language: BTreeMap<String, SourceMap>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceMap {
    pub source: Field,
}

impl FieldMap {
    /// A TOML file, or pairs `field=path` where the text holds an equals sign.
    ///
    /// # Errors
    /// When the file cannot be read, a key is unknown, or nothing is mapped.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let pairs = text.contains('=');
        let map = match pairs {
            true => Self::from_pairs(text).map_err(cognate_cli::usage)?,
            false => Self::from_file(Path::new(text))?,
        };
        match map.fault() {
            None => Ok(map),
            Some(reason) if pairs => Err(cognate_cli::usage(format!("--map: {reason}"))),
            Some(reason) => Err(cognate_records::Error::data(text, reason).into()),
        }
    }

    fn fault(&self) -> Option<&'static str> {
        if self.problem.is_none() && self.programs.is_empty() {
            return Some("neither [problem] nor [[programs]] is mapped");
        }
        let both = self.programs.iter().any(|p| p.each.is_some() && p.zip.is_some());
        let homeless = self.problem.is_none() && self.programs.iter().any(|p| p.problem.is_none());
        match (both, homeless) {
            (true, _) => Some("a table has both each and zip"),
            (_, true) => Some("programs need `problem` where there is no [problem] table"),
            _ => None,
        }
    }

    fn from_file(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("map {}", path.display()))?;
        let mut map: Self = toml::from_str(&text)
            .map_err(|e| cognate_cli::rejected(anyhow::anyhow!("{}: {e}", path.display())))?;
        if map.corpus.is_none() {
            map.corpus = path.file_stem().map(|s| s.to_string_lossy().into_owned());
        }
        Ok(map)
    }

    fn from_pairs(text: &str) -> Result<Self, String> {
        let mut pairs = BTreeMap::new();
        for pair in text.split(',') {
            let (name, path) =
                pair.split_once('=').ok_or_else(|| format!("--map: {pair:?} is not FIELD=PATH"))?;
            pairs.insert(name.trim().to_owned(), path.trim().to_owned());
        }
        let mut take = |name: &str| pairs.remove(name);
        let mut map = Self { corpus: take("corpus").filter(|c| !c.is_empty()), ..Self::default() };
        let field = |path: Option<String>| path.map(Field::Path);
        let (problem, statement) = (take("problem"), field(take("statement")));
        let (source, language) = (field(take("source")), field(take("language")));
        if let (Some(id), true) = (&problem, statement.is_some()) {
            map.problem = Some(ProblemMap {
                id: Field::Path(id.clone()),
                statement,
                title: field(take("title")),
                split: field(take("problem_split")),
                url: None,
                licence: None,
                cpu_seconds: field(take("cpu_seconds")),
                memory_mb: field(take("memory_mb")),
                memory_bytes: None,
                tags: take("tags"),
                checker: None,
                tests: Vec::new(),
                keep: Vec::new(),
            });
        }
        match (source, language, &problem) {
            (Some(source), Some(language), Some(_)) => map.programs.push(ProgramMap {
                each: take("each"),
                zip: take("zip"),
                id: field(take("id")),
                // With `each`, the id stands in the row, not in the element.
                problem: field(problem.filter(|_| map.problem.is_none())),
                language,
                source,
                claim: field(take("claim")),
                split: field(take("split")),
                licence: field(take("licence")),
                url: field(take("url")),
                path: field(take("path")),
                keep: Vec::new(),
                by_language: BTreeMap::new(),
            }),
            _ => return Err("--map: source, language and problem are needed".to_owned()),
        }
        if let Some(name) = pairs.keys().next() {
            return Err(format!("--map: unknown field {name:?}"));
        }
        Ok(map)
    }
}
