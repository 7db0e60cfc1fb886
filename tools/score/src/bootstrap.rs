//! Percentile bootstrap intervals over problems, and over problems crossed with training seeds.
//!
//! One seed: problems are drawn with replacement, so the interval speaks of other problems and of these very models.
//! Several seeds: every seed answers the same problems, a crossed design, so both are drawn independently (the
//! pigeonhole bootstrap: Owen 2007, Annals of Applied Statistics 1(2), which is conservative where both are many). Of S
//! seeds S − 1 are drawn, because S draws with replacement would understate their variance by (S − 1)/S, a third for
//! three seeds (Rao and Wu 1988, JASA 83(401)). A percentile interval of two to five seeds is still too short where
//! seeds differ more than problems do.

use std::collections::BTreeMap;

use cognate_random::Key;
use rayon::prelude::*;

/// Values of one quantity: a row a seed, a column a problem; all rows have the same length.
#[derive(Debug, Clone, PartialEq)]
pub struct Panel {
    rows: Vec<Vec<f64>>,
}

impl Panel {
    /// `None` without a seed or a problem.
    pub fn new(rows: Vec<Vec<f64>>) -> Option<Self> {
        let problems = rows.first()?.len();
        (problems > 0 && rows.iter().all(|r| r.len() == problems)).then_some(Self { rows })
    }

    pub fn problems(&self) -> usize {
        self.rows[0].len()
    }

    /// The mean over problems of each seed.
    pub fn seed_means(&self) -> Vec<f64> {
        self.rows.iter().map(|row| row.iter().sum::<f64>() / row.len() as f64).collect()
    }

    /// The mean over seeds of the means over problems.
    pub fn mean(&self) -> f64 {
        mean(&self.seed_means())
    }
}

pub fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// Sample standard deviation (n − 1); `None` for fewer than two values.
pub fn deviation(values: &[f64]) -> Option<f64> {
    if values.len() < 2 {
        return None;
    }
    let centre = mean(values);
    let squares: f64 = values.iter().map(|v| (v - centre).powi(2)).sum();
    Some((squares / (values.len() - 1) as f64).sqrt())
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    pub low: f64,
    pub high: f64,
}

impl Interval {
    pub fn covers(&self, value: f64) -> bool {
        self.low <= value && value <= self.high
    }
}

/// What is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    Problems,
    ProblemsAndSeeds,
}

/// Draws are keyed by (seed, replicate) alone, so that quantities over the same problems share them, which makes
/// differences of intervals paired, and nothing depends on threads or on which quantities are asked for.
pub struct Bootstrap {
    key: Key,
    replicates: usize,
    confidence: f64,
    over: Over,
    /// Drawn problem numbers by number of problems, replicate after replicate.
    drawn: BTreeMap<usize, Vec<u32>>,
}

/// Draws kept in memory, at most: 64 MiB.
const KEPT: usize = 16 << 20;

impl Bootstrap {
    pub fn new(seed: u64, replicates: usize, confidence: f64, over: Over) -> Self {
        let key = Key::new(seed).with("bootstrap");
        Self { key, replicates, confidence, over, drawn: BTreeMap::new() }
    }

    pub fn interval(&mut self, panel: &Panel) -> Interval {
        let problems = panel.problems();
        if problems.saturating_mul(self.replicates) > KEPT {
            let means = (0..self.replicates)
                .into_par_iter()
                .map(|b| self.replicate(panel, b, &self.problems(b, problems)))
                .collect();
            return self.percentiles(means);
        }
        if !self.drawn.contains_key(&problems) {
            let all: Vec<Vec<u32>> =
                (0..self.replicates).into_par_iter().map(|b| self.problems(b, problems)).collect();
            self.drawn.insert(problems, all.concat());
        }
        let drawn = &self.drawn[&problems];
        let means = drawn
            .par_chunks_exact(problems)
            .enumerate()
            .map(|(b, columns)| self.replicate(panel, b, columns))
            .collect();
        self.percentiles(means)
    }

    fn problems(&self, replicate: usize, problems: usize) -> Vec<u32> {
        let mut stream = self.key.with("problems").with(replicate).stream();
        (0..problems).map(|_| stream.below(problems as u64) as u32).collect()
    }

    fn replicate(&self, panel: &Panel, replicate: usize, columns: &[u32]) -> f64 {
        let over_row =
            |row: &Vec<f64>| columns.iter().map(|&c| row[c as usize]).sum::<f64>() / columns.len() as f64;
        let seeds = panel.rows.len();
        if seeds == 1 || self.over == Over::Problems {
            return panel.rows.iter().map(over_row).sum::<f64>() / seeds as f64;
        }
        let mut stream = self.key.with("seeds").with(replicate).stream();
        let draws = seeds - 1;
        (0..draws).map(|_| over_row(stream.choose(&panel.rows))).sum::<f64>() / draws as f64
    }

    fn percentiles(&self, mut means: Vec<f64>) -> Interval {
        means.sort_by(f64::total_cmp);
        let tail = (1.0 - self.confidence) / 2.0;
        Interval { low: quantile(&means, tail), high: quantile(&means, 1.0 - tail) }
    }
}

/// Linear interpolation between order statistics (Hyndman and Fan 1996, type 7). `sorted` is not empty.
fn quantile(sorted: &[f64], p: f64) -> f64 {
    let position = p * (sorted.len() - 1) as f64;
    let below = position.floor() as usize;
    let above = (below + 1).min(sorted.len() - 1);
    sorted[below] + (sorted[above] - sorted[below]) * (position - below as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn panel(rows: &[&[f64]]) -> Panel {
        Panel::new(rows.iter().map(|r| r.to_vec()).collect()).unwrap()
    }

    #[test]
    fn quantiles_interpolate() {
        assert_eq!(quantile(&[0.0, 1.0, 2.0, 3.0], 0.5), 1.5);
        assert_eq!(quantile(&[0.0, 1.0, 2.0, 3.0, 4.0], 0.25), 1.0);
        assert_eq!(quantile(&[5.0], 0.975), 5.0);
    }

    #[test]
    fn seeds_are_averaged_as_by_hand() {
        let p = panel(&[&[1.0, 0.0, 0.0, 1.0], &[1.0, 1.0, 0.0, 1.0]]);
        assert_eq!(p.seed_means(), [0.5, 0.75]);
        assert_eq!(p.mean(), 0.625);
        assert!((deviation(&p.seed_means()).unwrap() - 0.25 / 2f64.sqrt()).abs() < 1e-15);
        assert_eq!(deviation(&[1.0]), None);
        assert!(Panel::new(vec![vec![]]).is_none() && Panel::new(vec![]).is_none());
    }

    /// The share of 300 synthetic experiments whose interval covers the truth; and intervals that are cut to a
    /// tenth of their width must fail the same check.
    #[test]
    fn intervals_cover_the_truth_as_often_as_they_claim() {
        let (mut covered, mut covered_by_a_tenth) = (0, 0);
        for experiment in 0..300u64 {
            let mut stream = Key::new(9).with("coverage").with(experiment).stream();
            let p = panel(&[&(0..120).map(|_| f64::from(stream.chance(0.3))).collect::<Vec<_>>()]);
            let i = Bootstrap::new(experiment, 400, 0.95, Over::Problems).interval(&p);
            covered += u32::from(i.covers(0.3));
            let narrow = Interval {
                low: p.mean() - (p.mean() - i.low) / 10.0,
                high: p.mean() + (i.high - p.mean()) / 10.0,
            };
            covered_by_a_tenth += u32::from(narrow.covers(0.3));
        }
        assert!((275..=297).contains(&covered), "{covered} of 300");
        assert!(covered_by_a_tenth < 90, "{covered_by_a_tenth} of 300");
    }

    #[test]
    fn the_width_is_that_of_the_normal_approximation() {
        let values: Vec<f64> = (0..400).map(|i| f64::from(i % 4 == 0)).collect();
        let i = Bootstrap::new(1, 4000, 0.95, Over::Problems).interval(&panel(&[&values]));
        let expected = 2.0 * 1.96 * (0.25f64 * 0.75 / 400.0).sqrt();
        assert!(((i.high - i.low) / expected - 1.0).abs() < 0.06, "{i:?}");
    }

    /// Seeds that differ widen the crossed interval to about their standard error and leave the other as it is.
    #[test]
    fn seeds_count_only_when_they_are_drawn() {
        let rows: Vec<Vec<f64>> = [-0.2, 0.0, 0.2, 0.4].iter().map(|&shift| vec![shift; 50]).collect();
        let p = Panel::new(rows).unwrap();
        let fixed = Bootstrap::new(1, 2000, 0.95, Over::Problems).interval(&p);
        assert!((fixed.high - fixed.low).abs() < 1e-12 && (fixed.low - 0.1).abs() < 1e-12, "{fixed:?}");
        let crossed = Bootstrap::new(1, 2000, 0.95, Over::ProblemsAndSeeds).interval(&p);
        let error = deviation(&p.seed_means()).unwrap() / 2.0;
        let width = crossed.high - crossed.low;
        assert!((width / (2.0 * 1.96 * error) - 1.0).abs() < 0.2, "{crossed:?} {error}");
    }

    #[test]
    fn kept_and_repeated_draws_agree() {
        let values: Vec<f64> = (0..97).map(|i| f64::from(i % 3)).collect();
        let p = panel(&[&values]);
        let mut bootstrap = Bootstrap::new(4, 300, 0.9, Over::Problems);
        let first = bootstrap.interval(&p);
        assert_eq!(first, bootstrap.interval(&p));
        let again: Vec<f64> =
            (0..300).map(|b| bootstrap.replicate(&p, b, &bootstrap.problems(b, 97))).collect();
        assert_eq!(first, bootstrap.percentiles(again));
        assert_ne!(first, Bootstrap::new(5, 300, 0.9, Over::Problems).interval(&p));
    }
}
