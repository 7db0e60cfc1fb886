//! Java names files after classes: the public class names the file, and the class with `main` is started.

use std::sync::LazyLock;

use regex::Regex;

static NOISE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r#"(?s)//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'"#).expect("a constant")
});
static CLASS: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\b(public\s+)?(?:(?:final|abstract|static|strictfp|sealed)\s+)*(?:class|interface|enum|record)\s+(\w+)")
        .expect("a constant")
});
static MAIN: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\bstatic\s+(?:public\s+|final\s+)*void\s+main\s*\(").expect("a constant"));

/// Longest name of a class whose file has a name that a file system takes, in bytes.
const LONGEST: usize = 240;

/// (name of the file without extension, class to start).
pub fn names(source: &str) -> (String, String) {
    // Comments and strings become blanks of the same length, so that offsets stay.
    let text = NOISE.replace_all(source, |c: &regex::Captures| " ".repeat(c[0].len()));
    let classes: Vec<(usize, bool, String)> = CLASS
        .captures_iter(&text)
        .map(|c| {
            (c.get(0).map_or(0, |m| m.start()), c.get(1).is_some() && depth(&text, &c) == 0, c[2].to_owned())
        })
        .collect();
    // A name too long for a file is the compiler's to refuse.
    let classes: Vec<_> = classes.into_iter().filter(|(.., name)| name.len() <= LONGEST).collect();
    let public = classes.iter().find(|(_, public, _)| *public).map(|(.., name)| name.clone());
    let main = MAIN.find(&text).and_then(|m| {
        let mut before = classes.iter().filter(|(at, ..)| *at < m.start());
        // The innermost outermost one: the last class at depth 0 before `main`.
        before.rfind(|(at, ..)| depth_at(&text, *at) == 0).map(|(.., name)| name.clone())
    });
    let file = public.clone().or_else(|| main.clone()).unwrap_or_else(|| "Main".into());
    let start = main.or(public).unwrap_or_else(|| "Main".into());
    (file, start)
}

fn depth(text: &str, found: &regex::Captures) -> i64 {
    depth_at(text, found.get(0).map_or(0, |m| m.start()))
}

fn depth_at(text: &str, at: usize) -> i64 {
    text[..at].bytes().fold(0, |depth, b| match b {
        b'{' => depth + 1,
        b'}' => depth - 1,
        _ => depth,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_class_names_the_file_and_main_is_started() {
        let of = |source: &str| names(source);
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(of("public class A { public static void main(String[] a) {} }"), pair("A", "A"));
        assert_eq!(
            of("class B { int x; }\nclass Main { public static void main(String[] a) {} }"),
            pair("Main", "Main")
        );
        assert_eq!(
            of(
                "// public class No {}\nclass T { static class U {} }\npublic final class P { }\nclass M { static public void main(String... a) {} }"
            ),
            pair("P", "M")
        );
        assert_eq!(of("class X { String s = \"public class Y {\"; }"), pair("Main", "Main"));
        assert_eq!(of(""), pair("Main", "Main"));
    }
}
