//! The measures of the table and how their numbers are printed.

use crate::bootstrap::{deviation, mean};
use crate::markdown::minus;

/// What cog-probe measures, as it stands in the table.
pub struct Measure {
    pub name: &'static str,
    pub title: &'static str,
    pub how: How,
    pub reading: &'static str,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// A share, printed in per cent; arms differ in points.
    Share,
    /// Printed with three decimals; arms differ by that unit.
    Plain,
    /// Printed with three decimals; arms differ in per cent of the second.
    Ratio,
}

pub const MEASURES: [Measure; 4] = [
    Measure {
        name: "retrieval@1",
        title: "Retrieval@1, %",
        how: How::Share,
        reading: "how often the nearest program of another language solves the same problem, mean over ordered pairs \
                  of languages; differences in points",
    },
    Measure {
        name: "cosine_gap",
        title: "Cosine gap",
        how: How::Plain,
        reading: "mean cosine of programs of two languages for one problem, less that for different problems",
    },
    Measure {
        name: "intra_cluster_distance",
        title: "Intra-cluster distance",
        how: How::Ratio,
        reading: "mean distance of programs to their problem's centroid over the mean distance of all pairs; lower is \
                  nearer to what programs do; differences in per cent",
    },
    Measure {
        name: "language_cluster_distance",
        title: "Language-cluster distance",
        how: How::Ratio,
        reading: "the same with the language's centroid; lower is nearer to the language; differences in per cent",
    },
];

pub const CHANCE: &str = "retrieval@1_chance";

fn spread(values: &[f64], print: impl Fn(f64) -> String) -> String {
    deviation(values).map_or_else(String::new, |s| format!(" ± {}", print(s)))
}

/// The mean over seeds, with their standard deviation where there are several.
pub fn level(how: How, values: &[f64]) -> String {
    let print = |v: f64| match how {
        How::Share => format!("{:.1}", v * 100.0),
        How::Plain | How::Ratio => minus(format!("{v:.3}")),
    };
    format!("{}{}", print(mean(values)), spread(values, print))
}

/// A difference of two arms, as its measure prints it.
pub fn difference(how: How, values: &[f64]) -> String {
    let signed = |v: f64| match how {
        How::Share => format!("{:+.1}", v * 100.0),
        How::Plain => format!("{v:+.3}"),
        How::Ratio => format!("{:+.1} %", v * 100.0),
    };
    let text = minus(signed(mean(values)));
    format!("{text}{}", spread(values, |s| signed(s).trim_start_matches('+').to_string()))
}
