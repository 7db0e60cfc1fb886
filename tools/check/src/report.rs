//! What was found in one file: counts, and the first faults with their places.

use std::collections::BTreeMap;

use serde::Serialize;

type Counts = BTreeMap<String, u64>;

#[derive(Debug, Default, Serialize)]
pub struct Report {
    pub file: String,
    /// `jsonl`, `parquet` or `model`.
    pub format: &'static str,
    pub records: u64,
    pub faults: u64,
    /// Records of each type.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub schemas: Counts,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub languages: Counts,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub splits: Counts,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub verdicts: Counts,
    /// Fields that the type does not know; they are kept by every tool, and are no error.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub unknown_fields: Counts,
    /// Of a model directory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tensors: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provenance: Option<serde_json::Value>,
    #[serde(skip)]
    max_shown: u64,
}

pub fn count(counts: &mut Counts, name: &str) {
    match counts.get_mut(name) {
        Some(n) => *n += 1,
        None => drop(counts.insert(name.to_owned(), 1)),
    }
}

impl Report {
    pub fn new(file: &str, format: &'static str, max_shown: u64) -> Self {
        Self { file: file.to_owned(), format, max_shown, ..Self::default() }
    }

    /// Counts a fault and prints it, up to the bound. Control characters of the file reach no terminal.
    pub fn fault(&mut self, text: &str) {
        self.faults += 1;
        if self.faults <= self.max_shown {
            cognate_cli::say(printable(text));
        } else if self.faults == self.max_shown + 1 {
            cognate_cli::say(format_args!(
                "{}: more faults are counted, not shown (--max-errors)",
                printable(&self.file)
            ));
        }
    }

    pub fn text(&self) -> String {
        let schemas: Vec<_> = self.schemas.iter().map(|(s, n)| format!("{n} {s}")).collect();
        let found = match self.faults {
            0 => "good".to_owned(),
            1 => "1 fault".to_owned(),
            n => format!("{n} faults"),
        };
        let what = match self.tensors {
            Some(n) => format!("model, {n} tensors"),
            None if schemas.is_empty() => "no record".to_owned(),
            None => schemas.join(", "),
        };
        let mut out = format!("{}: {}: {what}: {found}\n", printable(&self.file), self.format);
        for (name, counts) in [
            ("languages", &self.languages),
            ("splits", &self.splits),
            ("verdicts", &self.verdicts),
            ("unknown fields", &self.unknown_fields),
        ] {
            if !counts.is_empty() {
                let list: Vec<_> = counts.iter().map(|(k, n)| format!("{} {n}", printable(k))).collect();
                out += &format!("  {name}: {}\n", list.join(", "));
            }
        }
        out
    }
}

/// Text with control characters shown as escapes, so that a record cannot drive the terminal.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_escaped() {
        assert_eq!(printable("a\u{1b}[31mé\n"), "a\\u{1b}[31mé\\n");
    }
}
