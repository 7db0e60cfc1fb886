//! Random pipelines: which concepts a world has and how often each is drawn.

use cognate_random::Stream;

use crate::ir::{Kind, Op, Pipeline, Scalar, Sink, Source};

/// Letters that conditions ask for: frequent in the words of the inputs.
const LETTERS: [char; 8] = ['a', 'e', 'i', 'o', 'l', 'n', 'r', 't'];

/// All sources that problems have.
pub const SOURCES: [Source; 3] = [Source::Ints, Source::Range { first: 1, beyond: 0 }, Source::Words];

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Difficulty {
    pub min_ops: usize,
    pub max_ops: usize,
    /// Share of number-valued problems with a scalar step.
    pub scalar_share: f64,
}

/// A random well-typed pipeline. It may still be redundant or trivial; `world` rejects those.
pub fn pipeline(difficulty: &Difficulty, stream: &mut Stream) -> Pipeline {
    let source = *stream.choose(&[
        Source::Ints,
        Source::Ints,
        Source::Range { first: 1, beyond: 0 },
        Source::Words,
        Source::Words,
    ]);
    let count = stream.range(difficulty.min_ops as i64, difficulty.max_ops as i64) as usize;
    let mut kind = source.kind();
    let mut upper = false;
    let mut ops: Vec<Op> = Vec::new();
    while ops.len() < count {
        let op = operation(kind, upper, stream);
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
    let sink = match kind {
        Kind::Int => *stream.choose(&[
            Sink::Joined(' '),
            Sink::Lines,
            Sink::Joined(','),
            Sink::Sum,
            Sink::Sum,
            Sink::Count,
            Sink::Max,
            Sink::Min,
        ]),
        Kind::Word => *stream.choose(&[Sink::Joined(' '), Sink::Lines, Sink::Joined(','), Sink::Count]),
    };
    let scalar = (sink.is_scalar() && stream.chance(difficulty.scalar_share)).then(|| {
        if stream.chance(0.5) {
            Scalar::Plus(stream.range(1, 9))
        } else {
            Scalar::Modulo(*stream.choose(&[3, 5, 7, 10]))
        }
    });
    Pipeline { source, ops, sink, scalar }
}

fn operation(kind: Kind, upper: bool, stream: &mut Stream) -> Op {
    if stream.chance(0.3) {
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
            2 => Op::Above(stream.range(2, 12)),
            3 => Op::Below(stream.range(5, 20)),
            4 => Op::MultipleOf(stream.range(3, 5)),
            5 => Op::Add(stream.range(1, 9)),
            6 => Op::Times(stream.range(2, 9)),
            _ => Op::Square,
        },
        Kind::Word => match stream.below(6) {
            0 | 1 => {
                let letter = *stream.choose(&LETTERS);
                Op::Contains(if upper { letter.to_ascii_uppercase() } else { letter })
            }
            2 => Op::Longer(stream.range(2, 5)),
            3 => Op::Upper,
            4 => Op::Backwards,
            _ => Op::Length,
        },
    }
}
