//! Samples counted by what they are compared under: model labels × language × temperature, and within by problem.

use std::collections::BTreeMap;
use std::fmt;

use cognate_records::Status;

use crate::bootstrap::Panel;
use crate::labels::Labels;
use crate::pass_at_k::pass_at_k;

/// Every status in reading order, with its spelling.
pub const STATUSES: [(Status, &str); 9] = [
    (Status::AC, "AC"),
    (Status::WA, "WA"),
    (Status::PE, "PE"),
    (Status::RE, "RE"),
    (Status::OLE, "OLE"),
    (Status::TLE, "TLE"),
    (Status::MLE, "MLE"),
    (Status::CE, "CE"),
    (Status::IE, "IE"),
];

/// Failures split as in arXiv 2605.28751: it does the wrong thing, or the right thing at too high a price. Code that
/// does not compile, or is no code, stands apart from both.
pub const CORRECTNESS: [Status; 4] = [Status::WA, Status::PE, Status::RE, Status::OLE];
pub const OPTIMISATION: [Status; 2] = [Status::TLE, Status::MLE];

/// Sampling temperature, not negative; ordered by value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Temperature(u32);

impl Temperature {
    /// `None` for a negative or not finite number.
    pub fn new(value: f32) -> Option<Self> {
        // Bits of non-negative floats are ordered as their values; adding zero turns −0 into 0.
        (value.is_finite() && value >= 0.0).then(|| Self((value + 0.0).to_bits()))
    }

    pub fn is_greedy(self) -> bool {
        self.0 == 0
    }
}

impl fmt::Display for Temperature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f32::from_bits(self.0).fmt(f)
    }
}

impl std::str::FromStr for Temperature {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let value = text.parse().ok().and_then(Self::new);
        value.ok_or_else(|| format!("{text:?} is not a temperature (0 is greedy)"))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    pub labels: Labels,
    pub language: String,
    pub temperature: Option<Temperature>,
}

/// Samples of one problem in one cell.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tally {
    /// In the order of [`STATUSES`].
    statuses: [u64; STATUSES.len()],
    /// Samples whose language was told, and those of them in the asked one.
    pub told: u64,
    pub asked: u64,
    /// Samples whose end is known, and those of them cut by the length limit.
    pub ended: u64,
    pub truncated: u64,
}

impl Tally {
    pub fn add(&mut self, status: Status, asked: Option<bool>, truncated: Option<bool>) {
        self.statuses[index(status)] += 1;
        if status == Status::IE {
            return;
        }
        self.told += u64::from(asked.is_some());
        self.asked += u64::from(asked == Some(true));
        self.ended += u64::from(truncated.is_some());
        self.truncated += u64::from(truncated == Some(true));
    }

    /// Samples that count: all but the judge's own faults.
    pub fn samples(&self) -> u64 {
        self.statuses.iter().sum::<u64>() - self.count(Status::IE)
    }

    pub fn count(&self, status: Status) -> u64 {
        self.statuses[index(status)]
    }

    pub fn solved(&self) -> u64 {
        self.count(Status::AC)
    }

    pub fn pass(&self, k: u64) -> Option<f64> {
        pass_at_k(self.samples(), self.solved(), k)
    }

    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.statuses.iter_mut().zip(other.statuses) {
            *mine += theirs;
        }
        self.told += other.told;
        self.asked += other.asked;
        self.ended += other.ended;
        self.truncated += other.truncated;
    }

    /// Share of samples whose language could be told; `None` where none was, as when nobody asked.
    pub fn told_share(&self) -> Option<f64> {
        (self.told > 0).then(|| self.told as f64 / self.samples() as f64)
    }

    pub fn asked_share(&self) -> Option<f64> {
        (self.told > 0).then(|| self.asked as f64 / self.told as f64)
    }

    pub fn truncated_share(&self) -> Option<f64> {
        (self.ended > 0).then(|| self.truncated as f64 / self.ended as f64)
    }
}

fn index(status: Status) -> usize {
    STATUSES.iter().position(|(s, _)| *s == status).expect("every status stands in the table")
}

/// One cell: tallies by problem.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Cell {
    pub problems: BTreeMap<String, Tally>,
}

impl Cell {
    pub fn total(&self) -> Tally {
        let mut total = Tally::default();
        self.problems.values().for_each(|t| total.merge(t));
        total
    }

    /// pass@k of each problem with at least `k` samples, and the number of problems with fewer.
    pub fn pass(&self, k: u64) -> (Option<Panel>, usize) {
        let values: Vec<f64> = self.problems.values().filter_map(|t| t.pass(k)).collect();
        let short = self.problems.len() - values.len();
        (Panel::new(vec![values]), short)
    }

    /// The fewest and the most counted samples of a problem.
    pub fn samples_per_problem(&self) -> (u64, u64) {
        let counts = || self.problems.values().map(Tally::samples);
        (counts().min().unwrap_or(0), counts().max().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn temperatures_are_ordered_and_printed_as_numbers() {
        let mut given: Vec<Temperature> =
            ["1", "0.6", "0", "1.25"].iter().map(|t| t.parse().unwrap()).collect();
        given.sort();
        let texts: Vec<String> = given.iter().map(ToString::to_string).collect();
        assert_eq!(texts, ["0", "0.6", "1", "1.25"]);
        assert_eq!(Temperature::new(-0.0), Temperature::new(0.0));
        assert!("-1".parse::<Temperature>().is_err() && "NaN".parse::<Temperature>().is_err());
    }

    #[test]
    fn faults_of_the_judge_count_for_nothing_but_themselves() {
        let mut tally = Tally::default();
        tally.add(Status::AC, Some(true), Some(false));
        tally.add(Status::WA, Some(false), None);
        tally.add(Status::IE, Some(false), Some(true));
        assert_eq!((tally.samples(), tally.solved(), tally.count(Status::IE)), (2, 1, 1));
        assert_eq!(tally.pass(1), Some(0.5));
        assert_eq!((tally.asked_share(), tally.truncated_share()), (Some(0.5), Some(0.0)));
        assert_eq!(Tally::default().asked_share(), None);
    }
}
