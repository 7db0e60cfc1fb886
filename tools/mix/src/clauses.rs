//! A statement as its clauses, so that some can be left out.

use cognate_random::Key;

/// Cuts after `.`, `;`, `!`, `?` followed by white space, and after line ends. Joined, the clauses are the statement.
pub fn clauses(statement: &str) -> Vec<&str> {
    let mut found = Vec::new();
    let mut start = 0;
    let mut ended = false;
    for (at, c) in statement.char_indices() {
        if ended && !c.is_whitespace() && at > start {
            found.push(&statement[start..at]);
            start = at;
        }
        ended = if c.is_whitespace() {
            c == '\n' || ended || statement[..at].ends_with(['.', ';', '!', '?'])
        } else {
            false
        };
    }
    if start < statement.len() {
        found.push(&statement[start..]);
    }
    found
}

/// The statement with each clause kept with probability `keep`, at least one, under the given key.
pub fn keep_clauses(statement: &str, keep: f64, key: Key) -> String {
    let all = clauses(statement);
    if all.is_empty() {
        return String::new();
    }
    let mut draws = key.stream();
    let mut kept: Vec<&str> = all.iter().copied().filter(|_| draws.chance(keep)).collect();
    if kept.is_empty() {
        kept.push(all[draws.below(all.len() as u64) as usize]);
    }
    kept.concat().trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clauses_join_to_the_statement() {
        for text in [
            "you are given words . convert each to upper case . print 3.5 of them .",
            "Read n.\nPrint n; then stop!  Done",
            "",
            " . ",
            "one",
        ] {
            assert_eq!(clauses(text).concat(), text);
        }
        assert_eq!(clauses("read n . print 3.5 .").len(), 2);
        assert_eq!(clauses("a.\nb\nc; d").len(), 4);
    }

    #[test]
    fn dropping_keeps_at_least_one_and_depends_on_the_key_alone() {
        let text = "a b . c d . e f .";
        assert_eq!(keep_clauses(text, 1.0, Key::new(1)), text);
        for seed in 0..50 {
            let one = keep_clauses(text, 0.0, Key::new(seed));
            assert_eq!(clauses(&one).len(), 1, "{one}");
            assert_eq!(keep_clauses(text, 0.5, Key::new(seed)), keep_clauses(text, 0.5, Key::new(seed)));
        }
        let kept = (0..1000).filter(|&s| keep_clauses(text, 0.9, Key::new(s)) == text).count();
        assert!((650..810).contains(&kept), "0.9^3 = 0.729 of 1000, found {kept}");
    }
}
