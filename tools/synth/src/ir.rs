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
    /// Integers on one line, some negative.
    Signed,
    /// A number n, then n non-negative integers, one a line.
    Column,
    /// One number n; the integers from `first` to n + `beyond`. Problems have 1 and 0, wrong programs others.
    Range { first: i64, beyond: i64 },
    /// Lower-case words on one line.
    Words,
    /// Lower-case words, one a line.
    WordLines,
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
    NotMultipleOf(i64),
    Between(i64, i64),
    LastDigit(i64),
    Not(i64),
    // Change each integer.
    Add(i64),
    Subtract(i64),
    Times(i64),
    Square,
    Cube,
    Modulo(i64),
    Halve,
    /// Absolute difference.
    Distance(i64),
    DigitSum,
    // Keep some words.
    Contains(char),
    Lacks(char),
    Longer(i64),
    Shorter(i64),
    LengthIs(i64),
    StartsWith(char),
    EndsWith(char),
    Palindrome,
    // Change each word.
    Upper,
    Backwards,
    Capitalize,
    FirstLetter,
    LastLetter,
    Twice,
    Replace(char, char),
    // A number for each word.
    Length,
    CountOf(char),
    // The list as a whole.
    Sort,
    SortDescending,
    /// By length, then alphabetically.
    SortByLength,
    Reverse,
    /// Keeps the first of equal elements.
    Dedup,
    Take(i64),
    Drop(i64),
    /// The last few.
    Last(i64),
    /// The first, the third and so on.
    EveryOther,
    PrefixSums,
    /// Each element but the first, less the one before it.
    Differences,
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
            Even | Odd | Above(_) | Below(_) | AtLeast(_) | AtMost(_) | MultipleOf(_) | NotMultipleOf(_)
            | Between(..) | LastDigit(_) | Not(_) | Contains(_) | Lacks(_) | Longer(_) | Shorter(_)
            | LengthIs(_) | StartsWith(_) | EndsWith(_) | Palindrome => Form::Keep,
            Add(_) | Subtract(_) | Times(_) | Square | Cube | Modulo(_) | Halve | Distance(_) | DigitSum
            | Upper | Backwards | Capitalize | FirstLetter | LastLetter | Twice | Replace(..) | Length
            | CountOf(_) => Form::Map,
            Sort | SortDescending | SortByLength | Reverse | Dedup | Take(_) | Drop(_) | Last(_)
            | EveryOther | PrefixSums | Differences => Form::List,
        }
    }

    /// Whether it can be applied to a list of `kind`.
    pub fn accepts(self, kind: Kind) -> bool {
        use Op::*;
        match self {
            Contains(_) | Lacks(_) | Longer(_) | Shorter(_) | LengthIs(_) | StartsWith(_) | EndsWith(_)
            | Palindrome | Upper | Backwards | Capitalize | FirstLetter | LastLetter | Twice
            | Replace(..) | Length | CountOf(_) | SortByLength => kind == Kind::Word,
            Sort | SortDescending | Reverse | Dedup | Take(_) | Drop(_) | Last(_) | EveryOther => true,
            _ => kind == Kind::Int,
        }
    }

    /// Kind of the elements after it.
    pub fn result(self, kind: Kind) -> Kind {
        if matches!(self, Op::Length | Op::CountOf(_)) { Kind::Int } else { kind }
    }

    /// Languages disagree about it for negative numbers.
    fn needs_natural(self) -> bool {
        matches!(self, Op::Modulo(_) | Op::Halve | Op::LastDigit(_) | Op::DigitSum)
    }

    /// Its constants with their places in templates.
    pub fn constants(self) -> Vec<(&'static str, String)> {
        use Op::*;
        match self {
            Above(k) | Below(k) | AtLeast(k) | AtMost(k) | MultipleOf(k) | NotMultipleOf(k)
            | LastDigit(k) | Not(k) | Add(k) | Subtract(k) | Times(k) | Modulo(k) | Distance(k)
            | Longer(k) | Shorter(k) | LengthIs(k) | Take(k) | Drop(k) | Last(k) => {
                vec![("{k}", k.to_string())]
            }
            Between(k, j) => vec![("{k}", k.to_string()), ("{j}", j.to_string())],
            Contains(c) | Lacks(c) | StartsWith(c) | EndsWith(c) | CountOf(c) => vec![("{c}", c.to_string())],
            Replace(c, d) => vec![("{c}", c.to_string()), ("{d}", d.to_string())],
            _ => vec![],
        }
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
    /// Largest less smallest.
    Spread,
    /// How many different elements.
    Distinct,
    First,
    Final,
}

impl Sink {
    /// Whether it prints the list rather than one value.
    pub fn is_list(self) -> bool {
        matches!(self, Sink::Joined(_) | Sink::Lines)
    }

    /// Whether it yields one integer, to which a scalar step can be applied.
    pub fn is_number(self) -> bool {
        !self.is_list() && !matches!(self, Sink::First | Sink::Final)
    }

    pub fn accepts(self, kind: Kind) -> bool {
        match self {
            Sink::Joined(_) | Sink::Lines | Sink::Count | Sink::Distinct | Sink::First | Sink::Final => true,
            Sink::Sum | Sink::Max | Sink::Min | Sink::Spread => kind == Kind::Int,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scalar {
    Plus(i64),
    Minus(i64),
    Times(i64),
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
            Source::Ints | Source::Signed | Source::Column | Source::Range { .. } => Kind::Int,
            Source::Words | Source::WordLines => Kind::Word,
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
            && (self.scalar.is_none() || self.sink.is_number())
    }

    /// Whether all languages agree about it: no remainder, halving or digits of what may be negative, and no
    /// capitalisation of what has capitals (which some languages lower).
    pub fn is_portable(&self) -> bool {
        let mut negative = self.source == Source::Signed;
        let mut capitals = false;
        for &op in &self.ops {
            if (op.needs_natural() && negative) || (op == Op::Capitalize && capitals) {
                return false;
            }
            capitals |= matches!(op, Op::Upper | Op::Capitalize);
            negative = match op {
                Op::Subtract(_) | Op::Differences => true,
                Op::Square | Op::Distance(_) | Op::AtLeast(0..) | Op::Above(0..) | Op::Between(0.., _) => {
                    false
                }
                _ => negative,
            };
        }
        let value = negative && !matches!(self.sink, Sink::Count | Sink::Distinct | Sink::Spread);
        !(value && matches!(self.scalar, Some(Scalar::Modulo(_))))
    }
}

/// The canonical text, as in `ints | above 3 | square | sum | modulo 7`.
impl fmt::Display for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.source {
            Source::Range { first: 1, beyond: 0 } => write!(f, "range")?,
            Source::Range { first, beyond } => write!(f, "range {first} {beyond}")?,
            source => write!(f, "{}", plain(&source))?,
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
