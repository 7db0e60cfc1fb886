//! Learns byte-pair merges (Sennrich, Haddow, Birch, "Neural machine translation of rare words with subword units",
//! ACL 2016).
//!
//! The `tokenizers` crate applies the merges; it does not learn them here, because its trainer keeps one pair in its
//! queue several times when two merges spell the same token, and which of them comes first depends on the order of a
//! randomly seeded hash map. Here the order is total: the most frequent pair, ties to the smaller ids.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

type Pair = (u32, u32);

struct Word {
    tokens: Vec<u32>,
    count: u64,
}

/// Learns merges until there are `merged` new tokens or no pair occurs `min_frequency` times.
///
/// `words` are texts in the byte alphabet with their numbers of occurrences. No merge makes one of `reserved`, the
/// texts of special tokens, so that no text can yield them.
pub fn learn(
    words: &BTreeMap<String, u64>,
    alphabet: &[char],
    merged: usize,
    min_frequency: u64,
    reserved: &BTreeSet<String>,
) -> Vec<(String, String)> {
    let mut tokens: Vec<String> = alphabet.iter().map(ToString::to_string).collect();
    let mut id_of: HashMap<String, u32> = tokens.iter().cloned().zip(0..).collect();
    let mut words: Vec<Word> = words
        .iter()
        .map(|(text, &count)| Word {
            tokens: text
                .chars()
                .filter_map(|c| id_of.get(c.encode_utf8(&mut [0; 4]) as &str).copied())
                .collect(),
            count,
        })
        .collect();

    let mut queue = Queue::default();
    for (index, word) in words.iter().enumerate() {
        for pair in word.tokens.windows(2) {
            queue.add((pair[0], pair[1]), word.count, index);
        }
    }
    let mut merges = Vec::new();
    let mut made = 0;
    while made < merged {
        let Some((count, pair)) = queue.pop() else { break };
        if count < min_frequency {
            break;
        }
        let text = format!("{}{}", tokens[pair.0 as usize], tokens[pair.1 as usize]);
        if reserved.contains(&text) {
            continue;
        }
        merges.push((tokens[pair.0 as usize].clone(), tokens[pair.1 as usize].clone()));
        let new = *id_of.entry(text).or_insert_with_key(|text| {
            tokens.push(text.clone());
            made += 1;
            tokens.len() as u32 - 1
        });
        for index in queue.words(pair) {
            let word = &mut words[index];
            for old in word.tokens.windows(2) {
                queue.remove((old[0], old[1]), word.count);
            }
            word.merge(pair, new);
            for now in word.tokens.windows(2) {
                if (now[0], now[1]) != pair {
                    queue.add((now[0], now[1]), word.count, index);
                }
            }
        }
    }
    merges
}

impl Word {
    /// Left to right, as the tokenizer applies it.
    fn merge(&mut self, pair: Pair, new: u32) {
        let mut out = Vec::with_capacity(self.tokens.len());
        let mut i = 0;
        while i < self.tokens.len() {
            if i + 1 < self.tokens.len() && (self.tokens[i], self.tokens[i + 1]) == pair {
                out.push(new);
                i += 2;
            } else {
                out.push(self.tokens[i]);
                i += 1;
            }
        }
        self.tokens = out;
    }
}

/// Pairs by frequency. A pair that was popped is gone for good: after its merge it occurs no more, or it may not be
/// merged.
#[derive(Default)]
struct Queue {
    counts: HashMap<Pair, u64>,
    order: BTreeSet<(u64, Reverse<Pair>)>,
    places: HashMap<Pair, BTreeSet<usize>>,
    gone: BTreeSet<Pair>,
}

impl Queue {
    fn add(&mut self, pair: Pair, count: u64, word: usize) {
        if self.gone.contains(&pair) {
            return;
        }
        let total = self.counts.entry(pair).or_default();
        self.order.remove(&(*total, Reverse(pair)));
        *total += count;
        self.order.insert((*total, Reverse(pair)));
        self.places.entry(pair).or_default().insert(word);
    }

    fn remove(&mut self, pair: Pair, count: u64) {
        if let Some(total) = self.counts.get_mut(&pair) {
            self.order.remove(&(*total, Reverse(pair)));
            *total -= count;
            if *total > 0 {
                self.order.insert((*total, Reverse(pair)));
            }
        }
    }

    fn pop(&mut self) -> Option<(u64, Pair)> {
        let (count, Reverse(pair)) = self.order.pop_last()?;
        self.counts.remove(&pair);
        self.gone.insert(pair);
        Some((count, pair))
    }

    fn words(&mut self, pair: Pair) -> BTreeSet<usize> {
        self.places.remove(&pair).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn learn_from(words: &[(&str, u64)], merged: usize, reserved: &[&str]) -> Vec<String> {
        let words = words.iter().map(|(w, c)| ((*w).to_owned(), *c)).collect();
        let alphabet: Vec<char> = ('a'..='z').chain("<>|".chars()).collect();
        let reserved = reserved.iter().map(|r| (*r).to_owned()).collect();
        learn(&words, &alphabet, merged, 2, &reserved).iter().map(|(a, b)| format!("{a}+{b}")).collect()
    }

    /// The example of the paper (section 3.2), without its end-of-word mark.
    #[test]
    fn the_papers_example() {
        let merges = learn_from(&[("low", 5), ("lower", 2), ("newest", 6), ("widest", 3)], 4, &[]);
        assert_eq!(merges, ["e+s", "es+t", "l+o", "lo+w"]);
    }

    #[test]
    fn runs_ties_and_the_least_frequency() {
        assert_eq!(learn_from(&[("aaaa", 3)], 9, &[]), ["a+a", "aa+aa"]);
        assert_eq!(learn_from(&[("cd", 2), ("ab", 2)], 1, &[]), ["a+b"]);
        assert_eq!(learn_from(&[("xy", 1)], 9, &[]), Vec::<String>::new());
    }

    #[test]
    fn no_merge_makes_a_special_token() {
        let free = learn_from(&[("<code>", 9)], 99, &[]);
        assert!(free.iter().any(|m| m.replace('+', "") == "<code>"));
        let kept = learn_from(&[("<code>", 9)], 99, &["<code>"]);
        assert!(!kept.is_empty() && kept.iter().all(|m| m.replace('+', "") != "<code>"), "{kept:?}");
    }

    /// Counting from scratch after each merge must choose the same pairs.
    #[test]
    fn incremental_counts_agree_with_recounting() {
        let mut draws = cognate_random::Key::new(5).stream();
        for _ in 0..20 {
            let words: BTreeMap<String, u64> = (0..30)
                .map(|_| {
                    let n = 1 + draws.below(9);
                    ((0..n).map(|_| *draws.choose(&['a', 'b', 'c'])).collect(), 1 + draws.below(5))
                })
                .collect();
            let alphabet = ['a', 'b', 'c'];
            assert_eq!(learn(&words, &alphabet, 25, 2, &BTreeSet::new()), recount(&words, &alphabet, 25, 2));
        }
    }

    fn recount(
        words: &BTreeMap<String, u64>,
        alphabet: &[char],
        merged: usize,
        least: u64,
    ) -> Vec<(String, String)> {
        let mut tokens: Vec<String> = alphabet.iter().map(ToString::to_string).collect();
        let mut split: Vec<(Vec<u32>, u64)> = words
            .iter()
            .map(|(w, &c)| {
                (w.chars().map(|x| alphabet.iter().position(|a| *a == x).unwrap() as u32).collect(), c)
            })
            .collect();
        let mut merges = Vec::new();
        let mut done: BTreeSet<Pair> = BTreeSet::new();
        while tokens.len() < alphabet.len() + merged {
            let mut counts: BTreeMap<Pair, u64> = BTreeMap::new();
            for (w, c) in &split {
                for p in w.windows(2) {
                    *counts.entry((p[0], p[1])).or_default() += c;
                }
            }
            let best =
                counts.iter().filter(|(p, _)| !done.contains(p)).max_by_key(|&(p, c)| (*c, Reverse(*p)));
            let Some((&pair, &count)) = best else { break };
            if count < least {
                break;
            }
            done.insert(pair);
            let (a, b) = (tokens[pair.0 as usize].clone(), tokens[pair.1 as usize].clone());
            let text = format!("{a}{b}");
            let new = tokens.iter().position(|t| *t == text).unwrap_or_else(|| {
                tokens.push(text);
                tokens.len() - 1
            });
            for (w, c) in &mut split {
                let mut word = Word { tokens: std::mem::take(w), count: *c };
                word.merge(pair, new as u32);
                *w = word.tokens;
            }
            merges.push((a, b));
        }
        merges
    }
}
