//! Inputs: random ones of growing size, and the fixed battery by which two problems are told apart.

use cognate_random::{Key, Stream};

use crate::ir::Source;

/// Short common words, with letters repeated often enough for conditions to split them.
const WORDS: [&str; 64] = [
    "sun", "tree", "river", "stone", "cloud", "apple", "bread", "lamp", "road", "hill", "tea", "ant", "lion",
    "robin", "otter", "eel", "oak", "rose", "iron", "gold", "paper", "table", "chair", "door", "window",
    "garden", "music", "train", "boat", "sail", "north", "east", "rain", "snow", "ice", "fire", "night",
    "dawn", "noon", "level", "radar", "civic", "kayak", "echo", "alpha", "delta", "omega", "lemon", "olive",
    "onion", "melon", "pear", "plum", "corn", "rice", "salt", "milk", "egg", "nut", "leaf", "root", "seed",
    "bark", "area",
];

/// A random input of about `size` elements.
pub fn input(source: Source, size: usize, stream: &mut Stream) -> String {
    match source {
        Source::Range { .. } => format!("{}\n", size + 2),
        Source::Signed => {
            let top = *stream.choose(&[6, 15, 25]);
            let values: Vec<String> = (0..size).map(|_| stream.range(-top, top).to_string()).collect();
            format!("{}\n", values.join(" "))
        }
        Source::Column => {
            let values = input(Source::Ints, size, stream);
            format!("{size}\n{}", values.replace(' ', "\n"))
        }
        Source::WordLines => input(Source::Words, size, stream).replace(' ', "\n"),
        Source::Ints => {
            // Few distinct values in some inputs, so that duplicates are there.
            let top = *stream.choose(&[9, 20, 30]);
            let values: Vec<String> = (0..size).map(|_| stream.range(0, top).to_string()).collect();
            format!("{}\n", values.join(" "))
        }
        Source::Words => {
            let pool = *stream.choose(&[6, 16, 64]);
            let start = stream.below(64) as usize;
            let words: Vec<&str> =
                (0..size).map(|_| WORDS[(start + stream.below(pool) as usize) % WORDS.len()]).collect();
            format!("{}\n", words.join(" "))
        }
    }
}

/// The number that orders a problem's tests: elements of the input, or n.
pub fn size(source: Source, input: &str) -> u64 {
    match source {
        Source::Range { .. } => input.trim().parse().unwrap_or(0),
        Source::Column => input.split_whitespace().count() as u64 - 1,
        _ => input.split_whitespace().count() as u64,
    }
}

/// Inputs that are the same in every world, whatever its seed: two problems with equal answers to all of them are one.
pub fn battery(source: Source) -> Vec<String> {
    let mut stream = Key::new(0).with("battery").stream();
    (0..48).map(|i| input(source, 1 + i * 2 / 3, &mut stream)).collect()
}
