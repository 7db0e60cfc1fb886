//! Which of two precompiled headers a program takes: the full one, or a lean one without the parts that few programs use
//! and that cost each program most of the header's time.

use std::collections::HashSet;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Words that mean something in the full header and nothing in the lean one.
#[derive(Debug)]
pub struct Words {
    /// Name of both, as programs include it.
    header: Box<[u8]>,
    only_full: HashSet<Box<[u8]>>,
}

/// Those of GCC's `<bits/stdc++.h>` are some 16 KiB.
const LARGEST: u64 = 1 << 20;

impl Words {
    /// The header's name, then one word a line. `None` where no such list was prepared; an empty or endless one is none.
    pub fn read(path: &Path) -> Option<Self> {
        let mut text = Vec::new();
        File::open(path).ok()?.take(LARGEST + 1).read_to_end(&mut text).ok()?;
        let mut lines = text.split(|b| *b == b'\n').filter(|w| !w.is_empty()).map(Into::into);
        let header = lines.next()?;
        let only_full: HashSet<_> = lines.collect();
        (text.len() as u64 <= LARGEST && !only_full.is_empty()).then_some(Self { header, only_full })
    }

    /// True when `files` name the header, and no word of the list stands in them, comments and literals included, nor can
    /// be made there of parts.
    pub fn allow_lean(&self, files: &[(&str, &[u8])]) -> bool {
        let names_header = |text: &[u8]| text.windows(self.header.len()).any(|w| w == &*self.header);
        files.iter().any(|(_, text)| names_header(text))
            && files.iter().all(|(_, text)| {
                let mut words = text.split(|b| !(b.is_ascii_alphanumeric() || *b == b'_'));
                words.all(|word| !self.only_full.contains(word)) && !makes_words(text)
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
        std::fs::write(&path, "all.h\n").unwrap();
        assert!(Words::read(&path).is_none());
        std::fs::write(&path, "all.h\nmt19937\nthread\n").unwrap();
        let words = Words::read(&path).unwrap();
        assert!(!words.allow_lean(&[("a.h", b"int x;"), ("main.cpp", b"#include <vector>")]));
        let lean =
            |text: &str| words.allow_lean(&[("a.h", b"#include <all.h>"), ("main.cpp", text.as_bytes())]);
        for text in
            ["", "int main() { puts(\"a\\n\"); }", "int mt199370, _thread, Thread;", "#define S(x) #x"]
        {
            assert!(lean(text), "{text}");
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
            assert!(!lean(text), "{text}");
        }
    }
}
