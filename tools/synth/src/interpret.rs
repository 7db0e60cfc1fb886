//! Reference semantics: what a pipeline prints for an input.

use crate::ir::{Op, Pipeline, Scalar, Sink, Source};

#[derive(Debug, Clone, PartialEq, Eq)]
enum List {
    Ints(Vec<i64>),
    Words(Vec<String>),
}

/// Values beyond this are refused: every language holds integers up to 2^53 exactly, and sums of these stay below.
const LARGEST: i64 = 1 << 40;

/// What `pipeline` prints for `input`, without trailing blanks and empty lines; `None` where it has no meaning: the
/// largest of nothing, a number out of range, an input of another shape.
pub fn interpret(pipeline: &Pipeline, input: &str) -> Option<String> {
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
        (Sink::Max, List::Ints(v)) => v.into_iter().max()?,
        (Sink::Min, List::Ints(v)) => v.into_iter().min()?,
        _ => return None,
    };
    match pipeline.scalar {
        None => {}
        Some(Scalar::Plus(k)) => value += k,
        Some(Scalar::Modulo(k)) if value >= 0 => value %= k,
        Some(Scalar::Modulo(_)) => return None,
    }
    Some(value.to_string())
}

fn read(source: Source, input: &str) -> Option<List> {
    Some(match source {
        Source::Ints => List::Ints(input.split_whitespace().map(|w| w.parse().ok()).collect::<Option<_>>()?),
        Source::Range { first, beyond } => {
            List::Ints((first..=input.trim().parse::<i64>().ok()? + beyond).collect())
        }
        Source::Words => List::Words(input.split_whitespace().map(String::from).collect()),
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
            Op::Square => map(values, |x| x.saturating_mul(x)),
            _ => whole(op, values)?,
        }),
        List::Words(words) => List::Words(match op {
            Op::Contains(c) => keep(words, |w| w.contains(c)),
            Op::Longer(k) => keep(words, |w| w.len() as i64 > k),
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
        Op::Reverse => list.reverse(),
        Op::Dedup => {
            let mut seen = std::collections::BTreeSet::new();
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

fn map<T>(list: Vec<T>, rule: impl Fn(T) -> T) -> Vec<T> {
    list.into_iter().map(rule).collect()
}
