//! Finds the program in a model's answer. Rules, in order; the one that applied stands in `verdict.extraction`:
//!
//! 1. `fence`: the last closed Markdown fence whose tag is a spelling of the asked language; failing that, the last
//!    closed one without a tag.
//! 2. `whole`: the whole text.
//! 3. `none`: the text is blank. There is no program, and the verdict is CE.

use cognate_languages::{Language, Languages};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    Fence,
    Whole,
    None,
}

impl Rule {
    pub fn name(self) -> &'static str {
        match self {
            Self::Fence => "fence",
            Self::Whole => "whole",
            Self::None => "none",
        }
    }
}

pub fn extract<'a>(languages: &Languages, language: &Language, text: &'a str) -> (&'a str, Rule) {
    if text.trim().is_empty() {
        return ("", Rule::None);
    }
    let (mut tagged, mut untagged) = (None, None);
    for (tag, code) in fences(text) {
        if tag.is_empty() {
            untagged = Some(code);
        } else if languages.by_spelling(tag).is_some_and(|l| l.name == language.name) {
            tagged = Some(code);
        }
    }
    match tagged.or(untagged) {
        Some(code) => (code, Rule::Fence),
        None => (text, Rule::Whole),
    }
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

    fn of<'a>(language: &str, text: &'a str) -> (&'a str, &'static str) {
        let table = Languages::builtin();
        let (code, rule) = extract(&table, table.get(language).unwrap(), text);
        (code, rule.name())
    }

    #[test]
    fn the_rules_apply_in_order() {
        let text = "first\n```python\na\n```\nthen\n```\nb\n```\n```py\nc\n```\n```ruby\nd\n```\n";
        assert_eq!(of("python", text), ("c\n", "fence"));
        assert_eq!(of("ruby", text), ("d\n", "fence"));
        assert_eq!(of("php", text), ("b\n", "fence"));
        assert_eq!(of("php", "```ruby\nd\n```\n"), ("```ruby\nd\n```\n", "whole"));
        assert_eq!(of("python", "print(1)\n"), ("print(1)\n", "whole"));
        assert_eq!(of("python", " \n"), ("", "none"));
        assert_eq!(of("cpp", "```c++\nint x;\n"), ("```c++\nint x;\n", "whole"));
        assert_eq!(of("python", "````\n```\nx\n```\n````\n"), ("```\nx\n```\n", "fence"));
    }
}
