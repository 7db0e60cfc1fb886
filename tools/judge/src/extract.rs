//! Finds the program in a model's answer. The rules and what they are called are specified in
//! `shared/records/spec/verdict.md`; the one that applied stands in `verdict.extraction`.

use std::str::FromStr;

use cognate_languages::{Language, Languages};

/// `--extract`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Rule {
    /// The last fence, else the whole text.
    #[default]
    Auto,
    Fence,
    Whole,
    /// Between an opening and a closing tag of this name.
    Tags(String),
}

impl FromStr for Rule {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (rule, name) = text.split_once(':').map_or((text, None), |(rule, name)| (rule, Some(name)));
        match (rule, name) {
            ("auto", None) => Ok(Self::Auto),
            ("fence", None) => Ok(Self::Fence),
            ("whole", None) => Ok(Self::Whole),
            ("tags", name) => {
                let name = name.unwrap_or("code");
                let plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-');
                if name.is_empty() || !plain {
                    return Err(format!("{name:?} is no tag name"));
                }
                Ok(Self::Tags(name.to_owned()))
            }
            _ => Err("the rules are auto, fence, whole, tags and tags:NAME".into()),
        }
    }
}

/// How the program was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Found {
    Fence,
    Whole,
    Tags,
    /// There is no program.
    None,
}

impl Found {
    pub fn name(self) -> &'static str {
        match self {
            Self::Fence => "fence",
            Self::Whole => "whole",
            Self::Tags => "tags",
            Self::None => "none",
        }
    }
}

/// The program in `text`, and how it was found.
pub fn extract<'a>(
    rule: &Rule,
    languages: &Languages,
    language: &Language,
    text: &'a str,
) -> (&'a str, Found) {
    let fence = |text| last_fence(languages, language, text);
    let found = match rule {
        Rule::Whole => Some((text, Found::Whole)),
        Rule::Fence => fence(text).map(|code| (code, Found::Fence)),
        Rule::Auto => fence(text).map(|code| (code, Found::Fence)).or(Some((text, Found::Whole))),
        Rule::Tags(name) => between(text, name).map(|inside| (fence(inside).unwrap_or(inside), Found::Tags)),
    };
    found.filter(|(code, _)| !code.trim().is_empty()).unwrap_or(("", Found::None))
}

/// The last closed fence tagged as the language; failing that, the last closed one without a tag.
fn last_fence<'a>(languages: &Languages, language: &Language, text: &'a str) -> Option<&'a str> {
    let (mut tagged, mut untagged) = (None, None);
    for (tag, code) in fences(text) {
        if tag.is_empty() {
            untagged = Some(code);
        } else if languages.by_spelling(tag).is_some_and(|l| l.name == language.name) {
            tagged = Some(code);
        }
    }
    tagged.or(untagged)
}

/// What stands after the last `<name>`, up to the next `</name>`. One newline after the tag is not part of it.
fn between<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (open, close) = (format!("<{name}>"), format!("</{name}>"));
    let end = text.rfind(&close)?;
    let start = text[..end].rfind(&open)? + open.len();
    let inside = &text[start..end];
    Some(inside.strip_prefix('\n').unwrap_or(inside))
}

/// Closed fences of backticks: (first word of the info string, code). A fence closes with at least as many backticks
/// as opened it (CommonMark 4.5).
fn fences(text: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    let mut open: Option<(usize, &str, usize)> = None;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let start = at;
        at += line.len();
        let trimmed = line.trim();
        let ticks = trimmed.bytes().take_while(|&b| b == b'`').count();
        if ticks < 3 {
            continue;
        }
        let rest = trimmed[ticks..].trim();
        match open {
            None if !rest.contains('`') => {
                open = Some((ticks, rest.split_whitespace().next().unwrap_or_default(), at));
            }
            Some((opened, tag, code)) if ticks >= opened && rest.is_empty() => {
                found.push((tag, &text[code..start]));
                open = None;
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by<'a>(rule: &str, language: &str, text: &'a str) -> (&'a str, &'static str) {
        let table = Languages::builtin();
        let (code, found) = extract(&rule.parse().unwrap(), &table, table.get(language).unwrap(), text);
        (code, found.name())
    }

    #[test]
    fn auto_takes_the_last_fence_or_the_whole_text() {
        let of = |language, text| by("auto", language, text);
        let text = "first\n```python\na\n```\nthen\n```\nb\n```\n```py\nc\n```\n```ruby\nd\n```\n";
        assert_eq!(of("python", text), ("c\n", "fence"));
        assert_eq!(of("ruby", text), ("d\n", "fence"));
        assert_eq!(of("php", text), ("b\n", "fence"));
        assert_eq!(of("php", "```ruby\nd\n```\n"), ("```ruby\nd\n```\n", "whole"));
        assert_eq!(of("python", "print(1)\n"), ("print(1)\n", "whole"));
        assert_eq!(of("python", " \n"), ("", "none"));
        assert_eq!(of("python", "```python\n\n```\n"), ("", "none"));
        assert_eq!(of("cpp", "```c++\nint x;\n"), ("```c++\nint x;\n", "whole"));
        assert_eq!(of("python", "````\n```\nx\n```\n````\n"), ("```\nx\n```\n", "fence"));
    }

    #[test]
    fn the_other_rules_take_what_they_name_and_nothing_else() {
        let text = "<code>no</code> so <code>\nyes\n</code>, or\n```python\nfenced\n```\n";
        assert_eq!(by("fence", "python", text), ("fenced\n", "fence"));
        assert_eq!(by("fence", "python", "print(1)"), ("", "none"));
        assert_eq!(by("whole", "python", text), (text, "whole"));
        assert_eq!(by("tags", "python", text), ("yes\n", "tags"));
        assert_eq!(by("tags:answer", "python", text), ("", "none"));
        let inside = "<answer>Here:\n```python\nx\n```\n</answer>";
        assert_eq!(by("tags:answer", "python", inside), ("x\n", "tags"));
        assert_eq!(by("tags", "python", "</code> <code>open"), ("", "none"));
        for wrong in ["", "tag", "auto:x", "tags:", "tags:a b", "tags:<"] {
            assert!(wrong.parse::<Rule>().is_err(), "{wrong:?}");
        }
    }
}
