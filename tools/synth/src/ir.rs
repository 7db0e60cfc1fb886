//! The typed intermediate representation: a source, one to a few operations, a sink, and perhaps a scalar step.
//!
//! Everything else is derived from it: the statement, the tests, the programs in every language and the wrong
//! programs. Ranges of values are kept so small that no language's integers overflow, and remainders and divisions
//! are only taken of numbers that cannot be negative, because languages disagree about those.

use std::fmt;

/// Type of the elements of the list that flows through a pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    Int,
    Word,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// Non-negative integers on one line.
    Ints,
    /// One number n; the integers from `first` to n + `beyond`. Problems have 1 and 0, wrong programs others.
    Range { first: i64, beyond: i64 },
    /// Lower-case words on one line.
    Words,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Op {
    // Keep some integers.
    Even,
    Odd,
    Above(i64),
    Below(i64),
    AtLeast(i64),
    AtMost(i64),
    MultipleOf(i64),
    // Change each integer.
    Add(i64),
    Times(i64),
    Square,
    // Keep some words.
    Contains(char),
    Longer(i64),
    // Change each word.
    Upper,
    Backwards,
    // A number for each word.
    Length,
    // The list as a whole.
    Sort,
    Reverse,
    /// Keeps the first of equal elements.
    Dedup,
    Take(i64),
}

/// What an operation works on: this decides how emitters arrange it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    Keep,
    Map,
    List,
}

impl Op {
    pub fn form(self) -> Form {
        use Op::*;
        match self {
            Even | Odd | Above(_) | Below(_) | AtLeast(_) | AtMost(_) | MultipleOf(_) | Contains(_)
            | Longer(_) => Form::Keep,
            Add(_) | Times(_) | Square | Upper | Backwards | Length => Form::Map,
            Sort | Reverse | Dedup | Take(_) => Form::List,
        }
    }

    /// Whether it can be applied to a list of `kind`.
    pub fn accepts(self, kind: Kind) -> bool {
        use Op::*;
        match self {
            Even | Odd | Above(_) | Below(_) | AtLeast(_) | AtMost(_) | MultipleOf(_) | Add(_) | Times(_)
            | Square => kind == Kind::Int,
            Contains(_) | Longer(_) | Upper | Backwards | Length => kind == Kind::Word,
            Sort | Reverse | Dedup | Take(_) => true,
        }
    }

    /// Kind of the elements after it.
    pub fn result(self, kind: Kind) -> Kind {
        if self == Op::Length { Kind::Int } else { kind }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sink {
    /// All elements with this separator on one line.
    Joined(char),
    /// One element a line.
    Lines,
    Sum,
    Count,
    Max,
    Min,
}

impl Sink {
    /// Whether it yields one integer, to which a scalar step can be applied.
    pub fn is_scalar(self) -> bool {
        !matches!(self, Sink::Joined(_) | Sink::Lines)
    }

    pub fn accepts(self, kind: Kind) -> bool {
        match self {
            Sink::Joined(_) | Sink::Lines | Sink::Count => true,
            Sink::Sum | Sink::Max | Sink::Min => kind == Kind::Int,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scalar {
    Plus(i64),
    Modulo(i64),
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pipeline {
    pub source: Source,
    pub ops: Vec<Op>,
    pub sink: Sink,
    pub scalar: Option<Scalar>,
}

impl Source {
    pub fn kind(self) -> Kind {
        match self {
            Source::Ints | Source::Range { .. } => Kind::Int,
            Source::Words => Kind::Word,
        }
    }
}

impl Pipeline {
    /// Kind of the elements before each operation, and at the sink.
    pub fn kinds(&self) -> Vec<Kind> {
        let mut kinds = vec![self.source.kind()];
        for op in &self.ops {
            kinds.push(op.result(kinds[kinds.len() - 1]));
        }
        kinds
    }

    /// Whether every part accepts what comes to it.
    pub fn is_well_typed(&self) -> bool {
        let kinds = self.kinds();
        self.ops.iter().zip(&kinds).all(|(op, &kind)| op.accepts(kind))
            && self.sink.accepts(kinds[kinds.len() - 1])
            && (self.scalar.is_none() || self.sink.is_scalar())
    }
}

/// The canonical text, as in `ints | above 3 | square | sum | modulo 7`.
impl fmt::Display for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source {
            Source::Ints => write!(f, "ints")?,
            Source::Range { first: 1, beyond: 0 } => write!(f, "range")?,
            Source::Range { first, beyond } => write!(f, "range {first} {beyond}")?,
            Source::Words => write!(f, "words")?,
        }
        for op in &self.ops {
            write!(f, " | {}", plain(op))?;
        }
        match self.sink {
            Sink::Joined(' ') => write!(f, " | spaces")?,
            Sink::Joined(c) => write!(f, " | joined {c}")?,
            sink => write!(f, " | {}", plain(&sink))?,
        }
        match self.scalar {
            None => Ok(()),
            Some(scalar) => write!(f, " | {}", plain(&scalar)),
        }
    }
}

/// `Above(3)` as `above 3`, `Contains('l')` as `contains l`.
fn plain(part: &impl fmt::Debug) -> String {
    format!("{part:?}").to_lowercase().replace('(', " ").replace([')', '\'', ','], "")
}
