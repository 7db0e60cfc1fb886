//! One text for one source: byte order mark and line ends.
//!
//! What is written keeps every character inside a line, because trailing blanks can be part of a string literal; what
//! is compared for equality does without them.

use xxhash_rust::xxh3::Xxh3;

/// Without byte order mark, lines ended by LF, blank lines at the end cut, one line end last. Blanks that would be
/// all there is count as nothing: the result is empty for a source of white space.
pub fn normalise(source: &str) -> String {
    let source = source.strip_prefix('\u{feff}').unwrap_or(source);
    let mut out = String::with_capacity(source.len() + 1);
    let mut rest = source;
    while let Some(at) = rest.find('\r') {
        out.push_str(&rest[..at]);
        out.push('\n');
        rest = rest[at + 1..].strip_prefix('\n').unwrap_or(&rest[at + 1..]);
    }
    out.push_str(rest);
    let kept = out.trim_end().len();
    if kept == 0 {
        return String::new();
    }
    // Blanks of the last line that says something stay, the empty lines below it go.
    let end = out[kept..].find('\n').map_or(out.len(), |at| kept + at);
    out.truncate(end);
    out.push('\n');
    out
}

/// 128 bits of the normalised source without trailing blanks: equal sources have equal hashes.
pub fn source_hash(normalised: &str) -> u128 {
    let mut hash = Xxh3::new();
    for line in normalised.lines() {
        hash.update(line.trim_end().as_bytes());
        hash.update(b"\n");
    }
    hash.digest128()
}

/// 128 bits of several texts, kept apart by their lengths.
pub fn key_hash(parts: &[&str]) -> u128 {
    let mut hash = Xxh3::new();
    for part in parts {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.digest128()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_ends_and_byte_order_marks_go_and_blanks_inside_stay() {
        assert_eq!(normalise("\u{feff}a \r\nb\rc\n\n  \n"), "a \nb\nc\n");
        assert_eq!(normalise("a  "), "a  \n");
        assert_eq!(normalise(" \r\n\t"), "");
        assert_eq!(normalise(""), "");
    }

    #[test]
    fn equal_sources_have_equal_hashes_and_others_do_not() {
        let hash = |s: &str| source_hash(&normalise(s));
        assert_eq!(hash("a \r\nb"), hash("a\nb\n\n"));
        assert_ne!(hash("a\nb"), hash("a b"));
        assert_ne!(hash(" a"), hash("a"));
        assert_ne!(key_hash(&["ab", "c"]), key_hash(&["a", "bc"]));
    }
}
