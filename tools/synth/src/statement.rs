//! Natural-language statements, put together from a clause for each part of the pipeline.

use cognate_random::Stream;

use crate::ir::{Kind, Op, Pipeline, Scalar, Sink, Source};

/// A statement; each clause is one of the first `variety` paraphrases of its concept.
pub fn statement(pipeline: &Pipeline, variety: usize, stream: &mut Stream) -> String {
    let mut say = |clauses: &[&'static str]| *stream.choose(&clauses[..variety.clamp(1, clauses.len())]);
    let mut clauses = vec![say(source(pipeline.source)).to_owned()];
    for (op, kind) in pipeline.ops.iter().zip(pipeline.kinds()) {
        let mut clause = say(operation(*op, kind)).to_owned();
        for (place, value) in op.constants() {
            // A letter is quoted as programs quote it, so that it is the same token in both.
            let value = if matches!(place, "{c}" | "{d}") { format!("\"{value}\"") } else { value };
            clause = clause.replace(place, &value);
        }
        clauses.push(clause);
    }
    let mut last = say(sink(pipeline.sink)).to_owned();
    match pipeline.scalar {
        None => {}
        Some(Scalar::Plus(k)) => {
            last.push_str(&say(&[" plus {k}", " increased by {k}"]).replace("{k}", &k.to_string()))
        }
        Some(Scalar::Minus(k)) => {
            last.push_str(&say(&[" minus {k}", " decreased by {k}"]).replace("{k}", &k.to_string()));
        }
        Some(Scalar::Times(k)) => last.push_str(&format!(" times {k}")),
        Some(Scalar::Modulo(k)) => last.push_str(&format!(" modulo {k}")),
    }
    clauses.push(last);
    let mut text = clauses.join(". ");
    text.push('.');
    text
}

fn source(source: Source) -> &'static [&'static str] {
    match source {
        Source::Column => &[
            "read n and then n integers one per line",
            "the first line has n and each of the next n lines has an integer",
            "you are given n followed by n integers on lines of their own",
        ],
        Source::WordLines => &[
            "read words one per line",
            "you are given a word on each line",
            "every line of the input has one word",
        ],
        Source::Signed => &[
            "read integers of any sign from one line",
            "you are given positive and negative integers on one line",
            "the input is a line of integers that may be negative",
        ],
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
        NotMultipleOf(_) => &[
            "remove multiples of {k}",
            "keep only values not divisible by {k}",
            "drop every multiple of {k}",
        ],
        Between(..) => &[
            "keep numbers from {k} to {j}",
            "keep only values between {k} and {j} inclusive",
            "select those at least {k} and at most {j}",
        ],
        LastDigit(_) => &[
            "keep numbers ending in {k}",
            "keep only values whose last digit is {k}",
            "select those with last digit {k}",
        ],
        Not(_) => &["remove every {k}", "drop all values equal to {k}", "keep numbers other than {k}"],
        Subtract(_) => &["subtract {k} from each", "decrease each by {k}", "lower every number by {k}"],
        Cube => &["cube each", "replace each by its cube", "raise every number to the third power"],
        Modulo(_) => &[
            "take each modulo {k}",
            "replace each by its remainder when divided by {k}",
            "reduce every number modulo {k}",
        ],
        Halve => &[
            "halve each rounding down",
            "divide each by 2 rounding down",
            "replace each by half of it rounded down",
        ],
        Distance(_) => &[
            "replace each by its distance to {k}",
            "take the absolute difference of each and {k}",
            "turn every number into how far it is from {k}",
        ],
        DigitSum => &[
            "replace each by the sum of its digits",
            "add up the digits of each",
            "turn every number into its digit sum",
        ],
        Lacks(_) => &[
            "remove words containing {c}",
            "keep only words without the letter {c}",
            "drop those that contain {c}",
        ],
        Shorter(_) => &[
            "keep words shorter than {k}",
            "keep only words with fewer than {k} letters",
            "select those shorter than {k} letters",
        ],
        LengthIs(_) => &[
            "keep words of length {k}",
            "keep only words with exactly {k} letters",
            "select those of {k} letters",
        ],
        StartsWith(_) => &[
            "keep words starting with {c}",
            "keep only words whose first letter is {c}",
            "select those that begin with {c}",
        ],
        EndsWith(_) => &[
            "keep words ending with {c}",
            "keep only words whose last letter is {c}",
            "select those that end in {c}",
        ],
        Palindrome => &[
            "keep the palindromes",
            "keep only words that read the same backwards",
            "select those equal to their reverse",
        ],
        Capitalize => &[
            "capitalize each word",
            "make the first letter of each upper case",
            "start every word with a capital letter",
        ],
        FirstLetter => &[
            "replace each by its first letter",
            "take the first letter of each",
            "turn every word into its initial",
        ],
        LastLetter => &[
            "replace each by its last letter",
            "take the last letter of each",
            "keep of every word the final letter",
        ],
        Twice => &[
            "write each word twice without a space",
            "repeat each word twice",
            "append every word to itself",
        ],
        Replace(..) => &[
            "replace the letter {c} by {d} in each",
            "change every {c} to {d}",
            "substitute {d} for {c} in every word",
        ],
        CountOf(_) => &[
            "replace each by how often it has the letter {c}",
            "count the letter {c} in each",
            "turn every word into its number of {c}",
        ],
        SortDescending if kind == Kind::Int => {
            &["sort in decreasing order", "sort from largest to smallest", "put them in decreasing order"]
        }
        SortDescending => &[
            "sort in reverse alphabetical order",
            "put them in reverse alphabetical order",
            "sort from z to a",
        ],
        SortByLength => &[
            "sort by length and then alphabetically",
            "order by length with ties in alphabetical order",
            "put shorter words first and equal lengths in alphabetical order",
        ],
        Drop(_) => &["skip the first {k}", "remove the first {k}", "leave out the first {k} items"],
        Last(_) => &["take the last {k}", "keep the last {k}", "keep only the last {k} items"],
        EveryOther => &[
            "take every other one starting with the first",
            "keep the first and third and so on",
            "keep every second one beginning with the first",
        ],
        PrefixSums => {
            &["replace each by the sum up to it", "take running sums", "turn them into prefix sums"]
        }
        Differences => &[
            "replace the list by differences of neighbours",
            "take each minus the one before it",
            "compute consecutive differences",
        ],
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
        Sink::Joined('-') => &[
            "print them separated by dashes",
            "print them joined by dashes",
            "output all with dashes between",
        ],
        Sink::Spread => &[
            "print the largest minus the smallest",
            "print the range of values",
            "output how far the largest is from the smallest",
        ],
        Sink::Distinct => &[
            "print how many different ones there are",
            "print the number of distinct ones",
            "output the count of different items",
        ],
        Sink::First => &["print the first one", "print the first", "output the first item"],
        Sink::Final => &["print the last one", "print the last", "output the final item"],
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
