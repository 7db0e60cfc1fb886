//! Keeps special-token strings inside contents from becoming special tokens.
//!
//! Before rendering, each such string is replaced by one private-use character; after rendering, the text is cut at
//! those characters and the strings are encoded as the plain characters that they are. So a text without any, which
//! is the ordinary case, is tokenised in one piece and has exactly the ids that `transformers` gives it.

use std::borrow::Cow;

use aho_corasick::{AhoCorasick, MatchKind};

/// Planes 15 and 16 are private use; the last two code points of each are not characters.
const PRIVATE: [(u32, u32); 2] = [(0xF_0000, 0xF_FFFD), (0x10_0000, 0x10_FFFD)];

#[derive(Debug)]
pub struct Guard {
    strings: Vec<String>,
    matcher: AhoCorasick,
}

/// One range of private-use characters that nothing in the texts at hand uses: character `base + k` stands for
/// special string `k`.
#[derive(Debug, Clone, Copy)]
pub struct Placeholders {
    base: u32,
    count: u32,
}

/// A stretch of text, or special string number `k`.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    Text(&'a str),
    Special(usize),
}

impl Guard {
    /// # Errors
    /// When the strings are too many for one automaton.
    pub fn new(mut strings: Vec<String>) -> Result<Self, String> {
        strings.retain(|s| !s.is_empty());
        strings.sort();
        strings.dedup();
        let matcher = AhoCorasick::builder()
            .match_kind(MatchKind::LeftmostLongest)
            .build(&strings)
            .map_err(|e| e.to_string())?;
        Ok(Self { strings, matcher })
    }

    pub fn strings(&self) -> &[String] {
        &self.strings
    }

    /// Plain text cut at the special strings in it.
    pub fn cut<'a>(&self, text: &'a str) -> Vec<Piece<'a>> {
        let mut pieces = Vec::new();
        let mut start = 0;
        for found in self.matcher.find_iter(text) {
            if found.start() > start {
                pieces.push(Piece::Text(&text[start..found.start()]));
            }
            pieces.push(Piece::Special(found.pattern().as_usize()));
            start = found.end();
        }
        if start < text.len() {
            pieces.push(Piece::Text(&text[start..]));
        }
        pieces
    }

    /// A range of private-use characters for which `used` is false.
    pub fn placeholders(&self, used: impl Fn(u32) -> bool) -> Option<Placeholders> {
        let count = self.strings.len() as u32;
        for (first, last) in PRIVATE {
            let mut base = first;
            'next: while base + count <= last + 1 {
                for code in (base..base + count).rev() {
                    if used(code) {
                        base = code + 1;
                        continue 'next;
                    }
                }
                return Some(Placeholders { base, count });
            }
        }
        None
    }

    /// Content with its special strings replaced.
    pub fn hide<'a>(&self, text: &'a str, placeholders: Placeholders) -> Cow<'a, str> {
        if !self.matcher.is_match(text) {
            return Cow::Borrowed(text);
        }
        let mut out = String::with_capacity(text.len());
        for piece in self.cut(text) {
            match piece {
                Piece::Text(text) => out.push_str(text),
                Piece::Special(k) => out.extend(placeholders.character(k)),
            }
        }
        Cow::Owned(out)
    }

    /// Rendered text cut at the placeholders in it.
    pub fn reveal<'a>(&self, text: &'a str, placeholders: Placeholders) -> Vec<Piece<'a>> {
        let mut pieces = Vec::new();
        let mut start = 0;
        for (at, c) in text.char_indices() {
            if let Some(k) = placeholders.index(c) {
                if at > start {
                    pieces.push(Piece::Text(&text[start..at]));
                }
                pieces.push(Piece::Special(k));
                start = at + c.len_utf8();
            }
        }
        if start < text.len() {
            pieces.push(Piece::Text(&text[start..]));
        }
        pieces
    }
}

impl Placeholders {
    fn character(self, k: usize) -> Option<char> {
        char::from_u32(self.base + k as u32)
    }

    fn index(self, c: char) -> Option<usize> {
        let code = u32::from(c);
        (self.base..self.base + self.count).contains(&code).then(|| (code - self.base) as usize)
    }
}

/// True for every character that can be a placeholder.
pub fn is_private(c: char) -> bool {
    PRIVATE.iter().any(|&(first, last)| (first..=last).contains(&u32::from(c)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        Guard::new(vec!["<|end|>".into(), "<|en".into(), "<code>".into()]).unwrap()
    }

    #[test]
    fn cutting_takes_the_longest_and_loses_nothing() {
        let guard = guard();
        let text = "a<|end|><|enx<code><code";
        let back: String = guard
            .cut(text)
            .iter()
            .map(|p| match p {
                Piece::Text(t) => *t,
                Piece::Special(k) => &guard.strings()[*k],
            })
            .collect();
        assert_eq!(back, text);
        assert_eq!(guard.cut("<|end|>"), [Piece::Special(2)]);
    }

    #[test]
    fn placeholders_avoid_characters_in_use() {
        let guard = guard();
        let free = guard.placeholders(|_| false).unwrap();
        assert_eq!(free.base, 0xF_0000);
        let taken = guard.placeholders(|c| c == 0xF_0001 || c == 0xF_0004).unwrap();
        assert_eq!(taken.base, 0xF_0005);
        let hidden = guard.hide("x<code>y", taken);
        assert_eq!(guard.reveal(&hidden, taken), [Piece::Text("x"), Piece::Special(0), Piece::Text("y")]);
        assert!(guard.placeholders(|_| true).is_none());
    }
}
