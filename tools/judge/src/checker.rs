//! Compares an output with the expected one. Runs in the judge, on bytes; never in the sandbox.

use std::collections::HashMap;

use cognate_records::{Checker, Status};

/// AC or WA; with `presentation`, PE where only white space is wrong.
pub fn grade(checker: &Checker, output: &[u8], expected: &[u8], presentation: bool) -> Status {
    if accepts(checker, output, expected) {
        return Status::AC;
    }
    let form = match checker {
        Checker::Exact | Checker::Lines => Some(Checker::Tokens),
        Checker::UnorderedLines => Some(Checker::UnorderedTokens),
        _ => None,
    };
    if presentation && form.is_some_and(|c| accepts(&c, output, expected)) { Status::PE } else { Status::WA }
}

/// True when `output` is right. A checker program is not asked here, and accepts nothing.
fn accepts(checker: &Checker, output: &[u8], expected: &[u8]) -> bool {
    match checker {
        Checker::Exact => output == expected,
        Checker::Lines => lines(output).eq(lines(expected)),
        Checker::Tokens => tokens(output).eq(tokens(expected)),
        Checker::TokensIgnoreCase => pairs(output, expected, <[u8]>::eq_ignore_ascii_case),
        Checker::Float { absolute, relative } => {
            pairs(output, expected, |a, b| close(a, b, *absolute, *relative))
        }
        Checker::UnorderedLines => same_bag(lines(output), lines(expected)),
        Checker::UnorderedTokens => same_bag(tokens(output), tokens(expected)),
        Checker::Program { .. } => false,
    }
}

fn tokens(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    text.split(u8::is_ascii_whitespace).filter(|t| !t.is_empty())
}

/// Lines without trailing blanks; empty lines at the end do not count.
fn lines(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let end = text.iter().rposition(|b| !b.is_ascii_whitespace()).map_or(0, |i| i + 1);
    let body = &text[..end];
    let some = (!body.is_empty()).then_some(body);
    some.into_iter().flat_map(|b| b.split(|&c| c == b'\n')).map(<[u8]>::trim_ascii_end)
}

fn pairs(output: &[u8], expected: &[u8], same: impl Fn(&[u8], &[u8]) -> bool) -> bool {
    let (mut a, mut b) = (tokens(output), tokens(expected));
    loop {
        match (a.next(), b.next()) {
            (None, None) => return true,
            (Some(x), Some(y)) if same(x, y) => {}
            _ => return false,
        }
    }
}

/// Equal bytes, or two finite numbers within the absolute or the relative tolerance of the expected one.
fn close(output: &[u8], expected: &[u8], absolute: f64, relative: f64) -> bool {
    // Rust reads decimal notation, and `inf` and `nan`, which are no numbers here.
    let number = |t: &[u8]| std::str::from_utf8(t).ok()?.parse::<f64>().ok().filter(|x| x.is_finite());
    output == expected
        || matches!((number(output), number(expected)), (Some(x), Some(y))
            if { let gap = (x - y).abs(); gap <= absolute || gap <= relative * y.abs() })
}

fn same_bag<'a>(a: impl Iterator<Item = &'a [u8]>, b: impl Iterator<Item = &'a [u8]>) -> bool {
    let mut counts: HashMap<&[u8], i64> = HashMap::new();
    a.for_each(|x| *counts.entry(x).or_default() += 1);
    b.for_each(|x| *counts.entry(x).or_default() -= 1);
    counts.values().all(|&n| n == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_checker_accepts_and_refuses() {
        let float = Checker::Float { absolute: 1e-6, relative: 1e-6 };
        for (checker, output, expected, right) in [
            (Checker::Exact, "1\n", "1\n", true),
            (Checker::Exact, "1", "1\n", false),
            (Checker::Lines, "a b  \nc\n\n\n", "a b\nc", true),
            (Checker::Lines, "a\r\nb\r\n", "a\nb\n", true),
            (Checker::Lines, "a  b\n", "a b\n", false),
            (Checker::Lines, "\na\n", "a\n", false),
            (Checker::Lines, "", "\n \n", true),
            (Checker::Tokens, " 1\n2\t3", "1 2 3\n", true),
            (Checker::Tokens, "1 2", "1 2 3", false),
            (Checker::Tokens, "1 2 3 4", "1 2 3", false),
            (Checker::Tokens, "Yes", "yes", false),
            (Checker::TokensIgnoreCase, "YES no", "yes NO", true),
            (Checker::TokensIgnoreCase, "YES", "no", false),
            (float.clone(), "0.3333333", "0.33333333", true),
            (float.clone(), "1e3 ok", "1000.0000001 ok", true),
            (float.clone(), "0.34", "0.33", false),
            (float.clone(), "nan", "1", false),
            (float.clone(), "inf", "1", false),
            (float.clone(), "inf", "inf", true),
            (float.clone(), "-inf", "inf", false),
            (float.clone(), "0x10", "16", false),
            (float.clone(), "1,5", "1.5", false),
            (float.clone(), "+.5", "0.50", true),
            (float.clone(), "5.", "05", true),
            (float.clone(), "1000000.9", "1000000", true),
            (float.clone(), "1000001.1", "1000000", false),
            (float.clone(), "-0.0000009", "0", true),
            (Checker::Float { absolute: 0.0, relative: 0.0 }, "1.0", "1", true),
            (Checker::Float { absolute: 0.0, relative: 0.5 }, "1.4", "1", true),
            (Checker::Float { absolute: 0.0, relative: 0.5 }, "1.4", "-1", false),
            (float, "1 2", "1", false),
            (Checker::UnorderedLines, "b\na\n", "a\nb\n", true),
            (Checker::UnorderedLines, "a\na\n", "a\nb\n", false),
            (Checker::UnorderedTokens, "3 1 2", "1 2 3", true),
            (Checker::UnorderedTokens, "1 1 2", "1 2 2", false),
        ] {
            assert_eq!(
                accepts(&checker, output.as_bytes(), expected.as_bytes()),
                right,
                "{checker:?} {output:?}"
            );
        }
    }

    #[test]
    fn presentation_is_told_from_content_only_when_asked() {
        use Status::{AC, PE, WA};
        for (checker, output, expected, status) in [
            (Checker::Exact, "1 2\n", "1 2\n", AC),
            (Checker::Exact, "1 2", "1 2\n", PE),
            (Checker::Lines, "1\n2\n", "1 2\n", PE),
            (Checker::Exact, "yes", "YES", WA),
            (Checker::TokensIgnoreCase, "no", "YES", WA),
            (Checker::Tokens, "1 2 3", "1 2", WA),
            (Checker::UnorderedLines, "b c\na", "a\nb\nc", PE),
        ] {
            let of = |asked| grade(&checker, output.as_bytes(), expected.as_bytes(), asked);
            assert_eq!(of(true), status, "{checker:?} {output:?}");
            assert_eq!(of(false), if status == PE { WA } else { status }, "{checker:?} {output:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_compared_as_they_are() {
        assert!(accepts(&Checker::Tokens, b"\xff\xfe 1", b"\xff\xfe\n1"));
        assert!(!accepts(&Checker::Tokens, b"\xff", b"\xfe"));
    }
}
