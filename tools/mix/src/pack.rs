//! Puts documents into sequences without padding. A document is never cut and never reordered inside.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::path::Path;

use cognate_random::Key;
use cognate_records::{Packed, Provenance, Writer, WriterOptions};

use crate::cli::PackMethod;
use crate::document::Document;

/// How many sequences best-fit keeps open.
const OPEN: usize = 64;

/// Indices of documents, in an order that depends on the key and their ids alone.
pub fn shuffled(documents: &[impl AsRef<Document>], key: Key) -> Vec<usize> {
    let mut order: Vec<usize> = (0..documents.len()).collect();
    order.sort_by_cached_key(|&i| {
        let id = &documents[i].as_ref().id;
        (key.with(id).bits(0), id.clone())
    });
    order
}

/// Sequences of at most `context` tokens from documents in the given order; none may be longer than that.
pub fn pack(
    order: &[usize],
    length: impl Fn(usize) -> usize,
    context: usize,
    method: PackMethod,
) -> Vec<Vec<usize>> {
    let open = if method == PackMethod::Sequential { 1 } else { OPEN };
    let mut done: Vec<Vec<usize>> = Vec::new();
    let mut bins: Vec<(usize, Vec<usize>)> = Vec::new();
    for &i in order {
        let need = length(i);
        let best =
            (0..bins.len()).filter(|&b| bins[b].0 + need <= context).max_by_key(|&b| (bins[b].0, Reverse(b)));
        match best {
            Some(b) => {
                bins[b].0 += need;
                bins[b].1.push(i);
            }
            None => {
                if bins.len() == open {
                    let fullest = (0..bins.len()).max_by_key(|&b| (bins[b].0, Reverse(b))).unwrap_or(0);
                    done.push(bins.remove(fullest).1);
                }
                bins.push((need, vec![i]));
            }
        }
    }
    done.extend(bins.into_iter().map(|(_, documents)| documents));
    done
}

/// Exactly `count` sequences of as equal lengths as can be (longest processing time first: Graham, "Bounds on
/// multiprocessing timing anomalies", 1969), each at most `context` tokens and none empty; `None` where that cannot
/// be. Documents stand in the given order inside a sequence, and so do sequences by their first documents.
pub fn even(
    order: &[usize],
    length: impl Fn(usize) -> usize,
    context: usize,
    count: usize,
) -> Option<Vec<Vec<usize>>> {
    if order.len() < count {
        return None;
    }
    let mut ranks: Vec<usize> = (0..order.len()).collect();
    ranks.sort_by_key(|&rank| (Reverse(length(order[rank])), rank));
    let mut bins: Vec<Vec<usize>> = vec![Vec::new(); count];
    let mut least: BinaryHeap<Reverse<(usize, usize)>> = (0..count).map(|b| Reverse((0, b))).collect();
    for rank in ranks {
        let Reverse((filled, b)) = least.pop()?;
        let filled = filled + length(order[rank]);
        if filled > context {
            return None;
        }
        bins[b].push(rank);
        least.push(Reverse((filled, b)));
    }
    for bin in &mut bins {
        bin.sort_unstable();
    }
    bins.sort_unstable();
    Some(bins.into_iter().map(|bin| bin.into_iter().map(|rank| order[rank]).collect()).collect())
}

/// One packed record.
pub fn packed(id: String, documents: &[&Document]) -> Packed {
    let mut record = Packed { id, ..Packed::default() };
    for document in documents {
        record.starts.push(record.ids.len() as u32);
        record.ids.extend(&document.ids);
        record.weights.extend(&document.weights);
        record.documents.push(document.id.clone());
    }
    record
}

/// Writes the sequences as `NAME/000000`, `NAME/000001`, …
pub fn write(
    path: &Path,
    name: &str,
    sequences: &[Vec<usize>],
    documents: &[impl AsRef<Document>],
    provenance: Provenance,
) -> anyhow::Result<()> {
    let options = WriterOptions { provenance: Some(provenance), ..WriterOptions::default() };
    let mut writer = Writer::<Packed>::create(path, options)?;
    for (n, sequence) in sequences.iter().enumerate() {
        let inside: Vec<&Document> = sequence.iter().map(|&i| documents[i].as_ref()).collect();
        writer.write(&packed(format!("{name}/{n:06}"), &inside))?;
    }
    writer.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn documents(lengths: &[usize]) -> Vec<std::sync::Arc<Document>> {
        let text = |(i, &n): (usize, &usize)| {
            let ids = (0..n as u32).map(|t| t * 31 + i as u32).collect();
            std::sync::Arc::new(Document::text(format!("d{i}"), "p", "text", ids, "python"))
        };
        lengths.iter().enumerate().map(text).collect()
    }

    /// Takes a packed record apart again.
    fn unpack(record: &Packed) -> Vec<(String, Vec<u32>, Vec<f32>)> {
        let mut ends: Vec<usize> = record.starts[1..].iter().map(|&s| s as usize).collect();
        ends.push(record.ids.len());
        let starts = record.starts.iter().map(|&s| s as usize);
        starts
            .zip(ends)
            .zip(&record.documents)
            .map(|((a, b), id)| (id.clone(), record.ids[a..b].to_vec(), record.weights[a..b].to_vec()))
            .collect()
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn packing_preserves_every_document_exactly(
            lengths in prop::collection::vec(1usize..40, 1..200),
            seed in 0u64..100,
            how in 0usize..3,
        ) {
            let documents = documents(&lengths);
            let order = shuffled(&documents, Key::new(seed));
            let length = |i: usize| documents[i].ids.len();
            let sequences = match how {
                0 => pack(&order, length, 64, PackMethod::BestFit),
                1 => pack(&order, length, 64, PackMethod::Sequential),
                _ => {
                    let least = lengths.iter().sum::<usize>().div_ceil(64);
                    (least..=lengths.len()).find_map(|n| even(&order, length, 64, n)).unwrap()
                }
            };
            let mut back = Vec::new();
            for (n, sequence) in sequences.iter().enumerate() {
                let inside: Vec<&Document> = sequence.iter().map(|&i| &*documents[i]).collect();
                let record = packed(n.to_string(), &inside);
                prop_assert!(record.ids.len() <= 64);
                prop_assert!(cognate_records::Record::validate(&record).is_ok());
                back.extend(unpack(&record));
            }
            back.sort_by(|a, b| a.0.cmp(&b.0));
            let mut all: Vec<_> =
                documents.iter().map(|d| (d.id.clone(), d.ids.clone(), d.weights.clone())).collect();
            all.sort_by(|a, b| a.0.cmp(&b.0));
            prop_assert_eq!(back, all);
        }
    }

    #[test]
    fn even_sequences_are_even() {
        let documents = documents(&(0..300).map(|i| 20 + i % 30).collect::<Vec<_>>());
        let order = shuffled(&documents, Key::new(1));
        let sequences = even(&order, |i| documents[i].ids.len(), 256, 50).unwrap();
        let lengths: Vec<usize> =
            sequences.iter().map(|s| s.iter().map(|&i| documents[i].ids.len()).sum()).collect();
        let (least, most) = (lengths.iter().min().unwrap(), lengths.iter().max().unwrap());
        assert!(sequences.len() == 50 && most - least < 20, "{least}..{most}");
        assert!(even(&order, |i| documents[i].ids.len(), 256, 20).is_none(), "too many tokens for 20");
        assert!(even(&order[..10], |i| documents[i].ids.len(), 256, 11).is_none(), "none may be empty");
    }
}
