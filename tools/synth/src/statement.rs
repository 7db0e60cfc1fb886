//! Natural-language statements, put together from a clause for each part of the pipeline.

use cognate_random::Stream;

use crate::ir::{Kind, Op, Pipeline, Scalar, Sink, Source};

/// A statement; each clause is one of the first `variety` paraphrases of its concept.
pub fn statement(pipeline: &Pipeline, variety: usize, stream: &mut Stream) -> String {
    let mut say = |clauses: &[&'static str]| *stream.choose(&clauses[..variety.clamp(1, clauses.len())]);
    let mut clauses = vec![say(source(pipeline.source)).to_owned()];
    for (op, kind) in pipeline.ops.iter().zip(pipeline.kinds()) {
        let (k, c) = constants(*op);
        clauses.push(say(operation(*op, kind)).replace("{k}", &k).replace("{c}", &c));
    }
    let mut last = say(sink(pipeline.sink)).to_owned();
    match pipeline.scalar {
        None => {}
        Some(Scalar::Plus(k)) => {
            last.push_str(&say(&[" plus {k}", " increased by {k}"]).replace("{k}", &k.to_string()))
        }
        Some(Scalar::Modulo(k)) => last.push_str(&format!(" modulo {k}")),
    }
    clauses.push(last);
    let mut text = clauses.join(". ");
    text.push('.');
    text
}

fn constants(op: Op) -> (String, String) {
    use Op::*;
    match op {
        Above(k) | Below(k) | AtLeast(k) | AtMost(k) | MultipleOf(k) | Add(k) | Times(k) | Longer(k)
        | Take(k) => (k.to_string(), String::new()),
        Contains(c) => (String::new(), c.to_string()),
        Even | Odd | Square | Upper | Backwards | Length | Sort | Reverse | Dedup => Default::default(),
    }
}

fn source(source: Source) -> &'static [&'static str] {
    match source {
        Source::Ints => &[
            "read integers from one line",
            "you are given integers on one line",
            "the input is a line of integers",
        ],
        Source::Range { .. } => &[
            "read n and take the numbers from 1 to n",
            "you are given n. start with the numbers from 1 to n",
            "for an input n count from 1 to n",
        ],
        Source::Words => {
            &["read words from one line", "you are given words on one line", "the input is a line of words"]
        }
    }
}

fn operation(op: Op, kind: Kind) -> &'static [&'static str] {
    use Op::*;
    match op {
        Even => &["keep the even numbers", "keep only even values", "select the even ones"],
        Odd => &["keep the odd numbers", "keep only odd values", "select the odd ones"],
        Above(_) => {
            &["keep numbers greater than {k}", "keep only values above {k}", "select those larger than {k}"]
        }
        Below(_) => {
            &["keep numbers less than {k}", "keep only values below {k}", "select those smaller than {k}"]
        }
        AtLeast(_) => &["keep numbers that are at least {k}", "keep only values of {k} or more"],
        AtMost(_) => &["keep numbers that are at most {k}", "keep only values of {k} or less"],
        MultipleOf(_) => {
            &["keep multiples of {k}", "keep only values divisible by {k}", "select the multiples of {k}"]
        }
        Add(_) => &["add {k} to each", "increase each by {k}", "add {k} to every number"],
        Times(_) => &["multiply each by {k}", "scale each by {k}", "multiply every number by {k}"],
        Square => &["square each", "replace each by its square", "square every number"],
        Contains(_) => &[
            "keep words containing {c}",
            "keep only words with the letter {c}",
            "select those that contain {c}",
        ],
        Longer(_) => &[
            "keep words longer than {k}",
            "keep only words with more than {k} letters",
            "select those longer than {k} letters",
        ],
        Upper => {
            &["convert each to upper case", "make every word upper case", "turn each into capital letters"]
        }
        Backwards => &["reverse each word", "spell every word backwards", "reverse the letters of each"],
        Length => {
            &["replace each by its length", "take the length of each", "turn every word into its length"]
        }
        Sort if kind == Kind::Int => {
            &["sort them", "sort in increasing order", "put them in increasing order"]
        }
        Sort => &["sort them", "sort in alphabetical order", "put them in alphabetical order"],
        Reverse => &["reverse the list", "reverse their order", "put them in reverse order"],
        Dedup => &["remove duplicates", "drop repeated ones", "keep each distinct one once"],
        Take(_) => &["take the first {k}", "keep the first {k}", "keep only the first {k} items"],
    }
}

fn sink(sink: Sink) -> &'static [&'static str] {
    match sink {
        Sink::Joined(' ') => {
            &["print them separated by spaces", "print them on one line", "output all with spaces between"]
        }
        Sink::Joined(_) => &[
            "print them separated by commas",
            "print them joined by commas",
            "output all with commas between",
        ],
        Sink::Lines => &["print each on its own line", "print them one per line", "output one on each line"],
        Sink::Sum => &["print the sum", "print their sum", "output the total"],
        Sink::Count => &["print how many there are", "print the count", "output how many remain"],
        Sink::Max => &["print the largest", "print the maximum", "output the greatest"],
        Sink::Min => &["print the smallest", "print the minimum", "output the least"],
    }
}
