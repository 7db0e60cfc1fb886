//! Random pipelines: which concepts a world has and how often each is drawn.

use cognate_random::Stream;

use crate::ir::{Kind, Op, Pipeline, Scalar, Sink, Source};

/// Letters that conditions ask for: frequent in the words of the inputs.
const LETTERS: [char; 8] = ['a', 'e', 'i', 'o', 'l', 'n', 'r', 't'];

/// All sources that problems have.
pub const SOURCES: [Source; 6] = [
    Source::Ints,
    Source::Signed,
    Source::Column,
    Source::Range { first: 1, beyond: 0 },
    Source::Words,
    Source::WordLines,
];

/// How many concepts a world has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Level {
    /// What a model of a million parameters learns in minutes: 13 element-wise operations, 4 on lists, 7 sinks.
    Tiny,
    /// 37 element-wise operations, 11 on lists, 12 sinks, more sources: for models of some tens of millions.
    Rich,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difficulty {
    pub level: Level,
    pub min_ops: usize,
    pub max_ops: usize,
    /// Share of number-valued problems with a scalar step.
    pub scalar_share: f64,
}

/// A random well-typed pipeline. It may still be redundant or trivial; `world` rejects those.
pub fn pipeline(difficulty: &Difficulty, stream: &mut Stream) -> Pipeline {
    loop {
        let pipeline = unchecked(difficulty, stream);
        if pipeline.is_portable() {
            return pipeline;
        }
    }
}

fn unchecked(difficulty: &Difficulty, stream: &mut Stream) -> Pipeline {
    let rich = difficulty.level == Level::Rich;
    let sources: &[Source] = match difficulty.level {
        Level::Tiny => {
            &[Source::Ints, Source::Ints, Source::Range { first: 1, beyond: 0 }, Source::Words, Source::Words]
        }
        Level::Rich => &SOURCES,
    };
    let source = *stream.choose(sources);
    let count = stream.range(difficulty.min_ops as i64, difficulty.max_ops as i64) as usize;
    let mut kind = source.kind();
    let mut upper = false;
    let mut ops: Vec<Op> = Vec::new();
    while ops.len() < count {
        let op = operation(kind, upper, rich, stream);
        // Twice the same operation says nothing new: two additions are one. Two letters to contain are two conditions.
        let again = !matches!(op, Op::Contains(_))
            && ops.iter().any(|o| std::mem::discriminant(o) == std::mem::discriminant(&op));
        if again {
            continue;
        }
        upper |= op == Op::Upper;
        kind = op.result(kind);
        ops.push(op);
    }
    let sink = sink(kind, rich, stream);
    let scalar = (sink.is_number() && stream.chance(difficulty.scalar_share)).then(|| scalar(rich, stream));
    Pipeline { source, ops, sink, scalar }
}

fn sink(kind: Kind, rich: bool, stream: &mut Stream) -> Sink {
    let tiny: &[Sink] = match kind {
        Kind::Int => &[
            Sink::Joined(' '),
            Sink::Lines,
            Sink::Joined(','),
            Sink::Sum,
            Sink::Sum,
            Sink::Count,
            Sink::Max,
            Sink::Min,
        ],
        Kind::Word => &[Sink::Joined(' '), Sink::Lines, Sink::Joined(','), Sink::Count],
    };
    let more: &[Sink] = match kind {
        Kind::Int => &[Sink::Joined('-'), Sink::Spread, Sink::Distinct, Sink::First, Sink::Final],
        Kind::Word => &[Sink::Joined('-'), Sink::Distinct, Sink::First, Sink::Final],
    };
    let sinks = if rich && stream.chance(0.4) { more } else { tiny };
    *stream.choose(sinks)
}

fn scalar(rich: bool, stream: &mut Stream) -> Scalar {
    match stream.below(if rich { 4 } else { 2 }) {
        0 => Scalar::Plus(stream.range(1, 9)),
        1 => Scalar::Modulo(*stream.choose(&[3, 5, 7, 10])),
        2 => Scalar::Minus(stream.range(1, 9)),
        _ => Scalar::Times(stream.range(2, 9)),
    }
}

fn operation(kind: Kind, upper: bool, rich: bool, stream: &mut Stream) -> Op {
    let whole = stream.chance(0.3);
    if rich && stream.chance(0.6) {
        return if whole { more_on_lists(kind, stream) } else { more_on_elements(kind, upper, stream) };
    }
    if whole {
        return match stream.below(4) {
            0 => Op::Sort,
            1 => Op::Reverse,
            2 => Op::Dedup,
            _ => Op::Take(stream.range(2, 5)),
        };
    }
    match kind {
        Kind::Int => match stream.below(8) {
            0 => Op::Even,
            1 => Op::Odd,
            // One digit at the tiny level: a number of two is two tokens to copy.
            2 => Op::Above(if rich { stream.range(2, 12) } else { stream.range(2, 9) }),
            3 => Op::Below(if rich { stream.range(5, 20) } else { stream.range(4, 9) }),
            4 => Op::MultipleOf(stream.range(3, 5)),
            5 => Op::Add(stream.range(1, 9)),
            6 => Op::Times(stream.range(2, 9)),
            _ => Op::Square,
        },
        Kind::Word => match stream.below(6) {
            0 | 1 => Op::Contains(letter(upper, stream)),
            2 => Op::Longer(stream.range(2, 5)),
            3 => Op::Upper,
            4 => Op::Backwards,
            _ => Op::Length,
        },
    }
}

fn more_on_lists(kind: Kind, stream: &mut Stream) -> Op {
    match stream.below(6) {
        0 => Op::SortDescending,
        1 => Op::Drop(stream.range(1, 4)),
        2 => Op::Last(stream.range(2, 5)),
        3 => Op::EveryOther,
        _ if kind == Kind::Word => Op::SortByLength,
        4 => Op::PrefixSums,
        _ => Op::Differences,
    }
}

fn more_on_elements(kind: Kind, upper: bool, stream: &mut Stream) -> Op {
    match kind {
        Kind::Int => match stream.below(12) {
            0 => Op::AtLeast(stream.range(2, 12)),
            1 => Op::AtMost(stream.range(5, 20)),
            2 => Op::NotMultipleOf(stream.range(2, 5)),
            3 => {
                let low = stream.range(1, 10);
                Op::Between(low, low + stream.range(3, 12))
            }
            4 => Op::LastDigit(stream.range(0, 9)),
            5 => Op::Not(stream.range(0, 9)),
            6 => Op::Subtract(stream.range(1, 9)),
            7 => Op::Cube,
            8 => Op::Modulo(stream.range(3, 9)),
            9 => Op::Halve,
            10 => Op::Distance(stream.range(3, 15)),
            _ => Op::DigitSum,
        },
        Kind::Word => match stream.below(12) {
            0 => Op::Lacks(letter(upper, stream)),
            1 => Op::Shorter(stream.range(4, 6)),
            2 => Op::LengthIs(stream.range(3, 5)),
            3 => Op::StartsWith(letter(upper, stream)),
            4 => Op::EndsWith(letter(upper, stream)),
            5 => Op::Palindrome,
            6 => Op::Capitalize,
            7 => Op::FirstLetter,
            8 => Op::LastLetter,
            9 => Op::Twice,
            10 => {
                let from = letter(upper, stream);
                let to = letter(upper, stream);
                if from == to { Op::CountOf(from) } else { Op::Replace(from, to) }
            }
            _ => Op::CountOf(letter(upper, stream)),
        },
    }
}

fn letter(upper: bool, stream: &mut Stream) -> char {
    let letter = *stream.choose(&LETTERS);
    if upper { letter.to_ascii_uppercase() } else { letter }
}
