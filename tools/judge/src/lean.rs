//! Which of two precompiled headers a program takes: the full one, or a lean one without the parts that few programs use
//! and that cost each program most of the header's time.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Words that mean something in the full header and nothing in the lean one.
#[derive(Debug)]
pub struct Words(HashSet<Box<[u8]>>);

/// Those of GCC's `<bits/stdc++.h>` are some 16 KiB.
const LARGEST: u64 = 1 << 20;

impl Words {
    /// One word a line. `None` where no such list was prepared; an empty or endless one is none.
    pub fn read(path: &Path) -> Option<Self> {
        let mut text = Vec::new();
        File::open(path).ok()?.take(LARGEST + 1).read_to_end(&mut text).ok()?;
        let words: HashSet<Box<[u8]>> =
            text.split(|b| *b == b'\n').filter(|w| !w.is_empty()).map(Into::into).collect();
        (text.len() as u64 <= LARGEST && !words.is_empty()).then_some(Self(words))
    }

    /// True when no word of the list stands in `files`, comments and literals included, nor can be made there of parts.
    pub fn are_absent(&self, files: &[(&str, &[u8])]) -> bool {
        files.iter().all(|(_, text)| {
            let mut words = text.split(|b| !(b.is_ascii_alphanumeric() || *b == b'_'));
            words.all(|word| !self.0.contains(word)) && !makes_words(text)
        })
    }
}

/// `##` joins words, as `%:%:` does; a backslash before white space may continue one on the next line, and before `u` or
/// `U` it spells a letter.
fn makes_words(text: &[u8]) -> bool {
    text.windows(2).any(|pair| match pair {
        b"##" => true,
        [b'\\', next] => next.is_ascii_whitespace() || matches!(next, b'u' | b'U'),
        _ => false,
    }) || text.windows(4).any(|four| four == b"%:%:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_anywhere_and_whatever_could_make_one_ask_for_the_full_header() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("words");
        assert!(Words::read(&path).is_none());
        std::fs::write(&path, "").unwrap();
        assert!(Words::read(&path).is_none());
        std::fs::write(&path, "mt19937\nthread\n").unwrap();
        let words = Words::read(&path).unwrap();
        let absent = |text: &str| words.are_absent(&[("a.h", b"int x;"), ("main.cpp", text.as_bytes())]);
        for text in
            ["", "int main() { puts(\"a\\n\"); }", "int mt199370, _thread, Thread;", "#define S(x) #x"]
        {
            assert!(absent(text), "{text}");
        }
        for text in [
            "std::mt19937 r;",
            "// thread",
            "thread",
            "#define J(a, b) a##b",
            "#define J(a, b) a %:%: b",
            "std::thr\\\nead t;",
            "std::thr\\ \nead t;",
            "std::thr\\u0065ad t;",
        ] {
            assert!(!absent(text), "{text}");
        }
    }
}
