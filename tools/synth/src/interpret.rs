//! Reference semantics: what a pipeline prints for an input.

use std::collections::BTreeSet;

use crate::ir::{Op, Pipeline, Scalar, Sink, Source};

#[derive(Debug, Clone, PartialEq, Eq)]
enum List {
    Ints(Vec<i64>),
    Words(Vec<String>),
}

/// Values beyond this are refused: every language holds integers up to 2^53 exactly, and sums of these stay below.
const LARGEST: i64 = 1 << 40;

/// What `pipeline` prints for `input`, without trailing blanks and empty lines; `None` where it has no meaning: the
/// largest of nothing, a number out of range, an input of another shape, a
/// pipeline about which languages disagree.
pub fn interpret(pipeline: &Pipeline, input: &str) -> Option<String> {
    if !pipeline.is_portable() {
        return None;
    }
    let mut list = read(pipeline.source, input)?;
    for op in &pipeline.ops {
        list = apply(*op, list)?;
        if let List::Ints(values) = &list
            && values.iter().any(|v| v.abs() > LARGEST)
        {
            return None;
        }
    }
    let mut value = match (pipeline.sink, list) {
        (Sink::Joined(separator), list) => return Some(texts(list).join(&separator.to_string())),
        (Sink::Lines, list) => return Some(texts(list).join("\n")),
        (Sink::Count, List::Ints(v)) => v.len() as i64,
        (Sink::Count, List::Words(v)) => v.len() as i64,
        (Sink::Sum, List::Ints(v)) => v.iter().sum(),
        (Sink::Distinct, List::Ints(v)) => v.into_iter().collect::<BTreeSet<_>>().len() as i64,
        (Sink::Distinct, List::Words(v)) => v.into_iter().collect::<BTreeSet<_>>().len() as i64,
        (Sink::Spread, List::Ints(v)) => v.iter().max()? - v.iter().min()?,
        (Sink::First, list) => return texts(list).into_iter().next(),
        (Sink::Final, list) => return texts(list).into_iter().next_back(),
        (Sink::Max, List::Ints(v)) => v.into_iter().max()?,
        (Sink::Min, List::Ints(v)) => v.into_iter().min()?,
        _ => return None,
    };
    match pipeline.scalar {
        None => {}
        Some(Scalar::Plus(k)) => value += k,
        Some(Scalar::Minus(k)) => value -= k,
        Some(Scalar::Times(k)) => value *= k,
        Some(Scalar::Modulo(k)) if value >= 0 => value %= k,
        Some(Scalar::Modulo(_)) => return None,
    }
    Some(value.to_string())
}

fn read(source: Source, input: &str) -> Option<List> {
    Some(match source {
        Source::Ints | Source::Signed => {
            List::Ints(input.split_whitespace().map(|w| w.parse().ok()).collect::<Option<_>>()?)
        }
        Source::Range { first, beyond } => {
            List::Ints((first..=input.trim().parse::<i64>().ok()? + beyond).collect())
        }
        Source::Column => {
            let mut numbers = input.split_whitespace().map(|w| w.parse::<i64>());
            let n = usize::try_from(numbers.next()?.ok()?).ok()?;
            let values: Vec<i64> = numbers.collect::<Result<_, _>>().ok()?;
            List::Ints(values.get(..n)?.to_vec())
        }
        Source::Words | Source::WordLines => {
            List::Words(input.split_whitespace().map(String::from).collect())
        }
    })
}

fn texts(list: List) -> Vec<String> {
    match list {
        List::Ints(values) => values.iter().map(i64::to_string).collect(),
        List::Words(words) => words,
    }
}

fn apply(op: Op, list: List) -> Option<List> {
    Some(match list {
        List::Ints(values) => List::Ints(match op {
            Op::Even => keep(values, |x| x % 2 == 0),
            Op::Odd => keep(values, |x| x % 2 != 0),
            Op::Above(k) => keep(values, |x| *x > k),
            Op::Below(k) => keep(values, |x| *x < k),
            Op::AtLeast(k) => keep(values, |x| *x >= k),
            Op::AtMost(k) => keep(values, |x| *x <= k),
            Op::MultipleOf(k) => keep(values, |x| x % k == 0),
            Op::Add(k) => map(values, |x| x + k),
            Op::Times(k) => map(values, |x| x * k),
            Op::NotMultipleOf(k) => keep(values, |x| x % k != 0),
            Op::Between(k, j) => keep(values, |x| (k..=j).contains(x)),
            Op::LastDigit(k) => keep(values, |x| x % 10 == k),
            Op::Not(k) => keep(values, |x| *x != k),
            Op::Square => map(values, |x| x.saturating_mul(x)),
            Op::Cube => map(values, |x| x.saturating_mul(x).saturating_mul(x)),
            Op::Subtract(k) => map(values, |x| x - k),
            Op::Modulo(k) => map(values, |x| x % k),
            Op::Halve => map(values, |x| x / 2),
            Op::Distance(k) => map(values, |x| (x - k).abs()),
            Op::DigitSum => map(values, |x| x.to_string().bytes().map(|d| i64::from(d - b'0')).sum()),
            Op::PrefixSums => {
                let mut sum = 0i64;
                map(values, |x| {
                    sum = sum.saturating_add(x);
                    sum
                })
            }
            Op::Differences => values.windows(2).map(|w| w[1] - w[0]).collect(),
            _ => whole(op, values)?,
        }),
        List::Words(words) => List::Words(match op {
            Op::Contains(c) => keep(words, |w| w.contains(c)),
            Op::Longer(k) => keep(words, |w| w.len() as i64 > k),
            Op::Lacks(c) => keep(words, |w| !w.contains(c)),
            Op::Shorter(k) => keep(words, |w| (w.len() as i64) < k),
            Op::LengthIs(k) => keep(words, |w| w.len() as i64 == k),
            Op::StartsWith(c) => keep(words, |w| w.starts_with(c)),
            Op::EndsWith(c) => keep(words, |w| w.ends_with(c)),
            Op::Palindrome => keep(words, |w| w.bytes().eq(w.bytes().rev())),
            Op::Capitalize => map(words, |w| w[..1].to_ascii_uppercase() + &w[1..]),
            Op::FirstLetter => map(words, |w| w[..1].to_owned()),
            Op::LastLetter => map(words, |w| w[w.len() - 1..].to_owned()),
            Op::Twice => map(words, |w| w.repeat(2)),
            Op::Replace(c, d) => map(words, |w| w.replace(c, &d.to_string())),
            Op::CountOf(c) => {
                return Some(List::Ints(words.iter().map(|w| w.matches(c).count() as i64).collect()));
            }
            Op::SortByLength => {
                let mut sorted = words;
                sorted.sort_by(|a, b| (a.len(), a).cmp(&(b.len(), b)));
                sorted
            }
            Op::Upper => map(words, |w| w.to_ascii_uppercase()),
            Op::Backwards => map(words, |w| w.chars().rev().collect()),
            Op::Length => return Some(List::Ints(words.iter().map(|w| w.len() as i64).collect())),
            _ => whole(op, words)?,
        }),
    })
}

/// Operations on a list of anything that can be compared.
fn whole<T: Ord + Clone>(op: Op, mut list: Vec<T>) -> Option<Vec<T>> {
    match op {
        Op::Sort => list.sort(),
        Op::SortDescending => list.sort_by(|a, b| b.cmp(a)),
        Op::Drop(k) => drop(list.drain(..list.len().min(usize::try_from(k).ok()?))),
        Op::Last(k) => drop(list.drain(..list.len().saturating_sub(usize::try_from(k).ok()?))),
        Op::EveryOther => list = list.into_iter().step_by(2).collect(),
        Op::Reverse => list.reverse(),
        Op::Dedup => {
            let mut seen = BTreeSet::new();
            list.retain(|x| seen.insert(x.clone()));
        }
        Op::Take(k) => list.truncate(usize::try_from(k).ok()?),
        _ => return None,
    }
    Some(list)
}

fn keep<T>(list: Vec<T>, rule: impl Fn(&T) -> bool) -> Vec<T> {
    list.into_iter().filter(|x| rule(x)).collect()
}

fn map<T>(list: Vec<T>, rule: impl FnMut(T) -> T) -> Vec<T> {
    list.into_iter().map(rule).collect()
}
