//! Tells the language of each JSONL record's `source` or `code` on stdin, against its `language`: a confusion table.

use std::collections::BTreeMap;

use cognate_languages::{Languages, identify, scores};

fn main() {
    let languages = Languages::builtin();
    let show = std::env::args().nth(1);
    let mut counts: BTreeMap<(String, String), u32> = BTreeMap::new();
    for line in std::io::stdin().lines() {
        let record: serde_json::Value = serde_json::from_str(&line.expect("text")).expect("JSON");
        let text = record["source"].as_str().or(record["code"].as_str()).unwrap_or_default();
        let want = record["language"].as_str().unwrap_or_default();
        let found = identify(&languages, text).map_or("none", |l| l.name.as_str());
        *counts.entry((want.to_owned(), found.to_owned())).or_default() += 1;
        if found != want && show.as_deref() == Some(want) {
            let list: Vec<_> = scores(&languages, text)
                .into_iter()
                .filter(|s| s.1 > 0.0)
                .map(|(l, s)| format!("{} {s}", l.name))
                .collect();
            println!("--- {list:?}\n{text}");
        }
    }
    for ((want, found), n) in counts {
        println!("{}{want:<12} {found:<12} {n}", if want == found { "  " } else { "! " });
    }
}
