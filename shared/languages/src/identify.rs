//! Which language a piece of code is in, by its own syntax: a sum of weighted patterns for each language.
//!
//! A parser would be stricter than needed: sampled programs are often broken, and a broken Ruby program is still Ruby.
//! Comments and strings are left in place, because each language writes them differently and so they are evidence.

use crate::{Language, Languages};

/// A pattern that repeats says little more each time.
const COUNTED: usize = 4;
/// A score below this is no evidence.
const FLOOR: f64 = 2.0;
/// Only the beginning is read: enough to tell, and bounded.
const READ: usize = 16 * 1024;

/// Score of every language that has patterns, in the table's order.
pub type Scores<'a> = Vec<(&'a Language, f64)>;

pub fn scores<'a>(languages: &'a Languages, source: &str) -> Scores<'a> {
    let end = (0..=READ.min(source.len())).rev().find(|&i| source.is_char_boundary(i)).unwrap_or(0);
    let text = &source[..end];
    languages
        .iter()
        .filter(|l| !l.syntax_patterns().is_empty())
        .map(|language| {
            let score = language
                .syntax_patterns()
                .iter()
                .map(|(weight, pattern)| weight * pattern.find_iter(text).take(COUNTED).count() as f64)
                .sum();
            (language, score)
        })
        .collect()
}

/// The language with the highest score; of equal scores the first in the table. `None` where nothing speaks for any.
pub fn identify<'a>(languages: &'a Languages, source: &str) -> Option<&'a Language> {
    let mut best: Option<(&Language, f64)> = None;
    for (language, score) in scores(languages, source) {
        if score >= FLOOR && best.is_none_or(|(_, s)| score > s) {
            best = Some((language, score));
        }
    }
    best.map(|(l, _)| l)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_programs_are_told_apart() {
        let table = Languages::builtin();
        for (want, source) in [
            ("python", "xs = list(map(int, input().split()))\nprint(sum(x * 2 for x in xs if x % 2 == 0))\n"),
            ("ruby", "xs = gets.split.map(&:to_i)\nputs xs.select(&:even?).map { |x| x * 2 }.sum\n"),
            (
                "php",
                "<?php\n$xs = array_map('intval', explode(' ', trim(fgets(STDIN))));\necho array_sum($xs), \"\\n\";\n",
            ),
            ("perl", "my @xs = split ' ', <STDIN>;\nmy $s = 0;\n$s += $_ for @xs;\nprint \"$s\\n\";\n"),
            (
                "lua",
                "local s = 0\nfor w in io.read('l'):gmatch('%S+') do\n  s = s + tonumber(w)\nend\nprint(s)\n",
            ),
            (
                "javascript",
                "const xs = require('fs').readFileSync(0, 'utf8').split(' ').map(Number);\nconsole.log(xs.length);\n",
            ),
            ("cpp", "#include <iostream>\nint main() { int x; std::cin >> x; std::cout << x; }\n"),
            (
                "c",
                "#include <stdio.h>\nint main(void) { int x; scanf(\"%d\", &x); printf(\"%d\\n\", x); return 0; }\n",
            ),
            ("go", "package main\n\nimport \"fmt\"\n\nfunc main() {\n\tx := 1\n\tfmt.Println(x)\n}\n"),
            (
                "java",
                "import java.util.*;\npublic class Main {\n  public static void main(String[] a) {\n    System.out.println(1);\n  }\n}\n",
            ),
            (
                "rust",
                "use std::io;\nfn main() {\n    let mut s = String::new();\n    io::stdin().read_line(&mut s).unwrap();\n    println!(\"{}\", s);\n}\n",
            ),
            ("bash", "#!/bin/bash\nread n\nif [ \"$n\" -gt 3 ]; then\n  echo yes\nfi\n"),
            ("typescript", "const f = (n: number): boolean => n > 2;\nconsole.log(f(3));\n"),
            // Comments with arrows, types that are all generic, a blank before the colon.
            (
                "ruby",
                "# irb> twice(2)\n# => 4\n# irb> twice(3)\n# => 6\n# irb> twice(5)\n# => 10\ndef twice(n)  return n * 2\nend\n",
            ),
            (
                "typescript",
                "const ends = function (xs: Array<number>) : Array<number> {\n  return [xs[0], xs[xs.length - 1]];\n}\n",
            ),
            ("python", "def half(a, b) :\n    return ((a * b) / 2)\n"),
        ] {
            assert_eq!(identify(&table, source).map(|l| l.name.as_str()), Some(want), "{source}");
        }
        assert!(identify(&table, "").is_none());
        assert!(identify(&table, "the quick brown fox").is_none());
    }
}
