//! From a cloud to `metric/1` records: one for each language pair, and averages over the pairs.

use std::collections::BTreeMap;

use cognate_random::Key;
use cognate_records::{Extra, Metric};

use crate::cloud::Cloud;
use crate::measures::{Cosines, Retrieval, clusters, cosines, mean, retrieval};

/// Resamples of the problems behind the interval of the average retrieval.
const RESAMPLES: u64 = 1000;

type Labels = BTreeMap<String, String>;

fn metric(name: &str, value: f64, labels: &Labels, count: u64) -> Metric {
    Metric {
        name: name.into(),
        value,
        labels: labels.clone(),
        count: Some(count),
        extra: Extra::new(),
        ..Metric::default()
    }
}

fn paired(labels: &Labels, cloud: &Cloud, source: usize, target: usize) -> Labels {
    let mut labels = labels.clone();
    labels.insert("source".into(), cloud.languages[source].clone());
    labels.insert("target".into(), cloud.languages[target].clone());
    labels
}

/// All measures of one cloud. Averages weigh each language pair alike and have no `source` and `target`.
pub fn report(cloud: &Cloud, labels: &Labels, seed: u64) -> Vec<Metric> {
    let unit = cloud.unit();
    let languages = cloud.languages.len();
    let mut records = Vec::new();
    let mut retrievals = Vec::new();
    let mut all_cosines: Vec<Cosines> = Vec::new();
    for source in 0..languages {
        for target in 0..languages {
            if source == target {
                continue;
            }
            let labels = paired(labels, cloud, source, target);
            let found = retrieval(cloud, &unit, source, target);
            if found.credits.is_empty() {
                continue;
            }
            let queries = found.credits.len() as u64;
            records.push(metric("retrieval@1", found.accuracy(), &labels, queries));
            records.push(metric("retrieval@1_chance", found.chance, &labels, queries));
            retrievals.push(found);
            if source < target {
                let cosine = cosines(cloud, &unit, source, target);
                cosine_metrics(&mut records, &cosine, &labels);
                all_cosines.push(cosine);
            }
        }
    }
    if let Some(average) = average_retrieval(&retrievals, labels, seed) {
        records.push(average);
        let chance = mean(retrievals.iter().map(|r| r.chance));
        let queries = retrievals.iter().map(|r| r.credits.len() as u64).sum();
        records.push(metric("retrieval@1_chance", chance, labels, queries));
    }
    if !all_cosines.is_empty() {
        let average = Cosines {
            parallel: mean(all_cosines.iter().map(|c| c.parallel)),
            parallel_pairs: all_cosines.iter().map(|c| c.parallel_pairs).sum(),
            nonparallel: mean(all_cosines.iter().map(|c| c.nonparallel)),
            nonparallel_pairs: all_cosines.iter().map(|c| c.nonparallel_pairs).sum(),
        };
        cosine_metrics(&mut records, &average, labels);
    }
    let tightness = clusters(cloud);
    records.push(metric("intra_cluster_distance", tightness.problem, labels, tightness.problem_points));
    records.push(metric("language_cluster_distance", tightness.language, labels, cloud.points() as u64));
    records
}

fn cosine_metrics(records: &mut Vec<Metric>, cosine: &Cosines, labels: &Labels) {
    records.push(metric("cosine_parallel", cosine.parallel, labels, cosine.parallel_pairs));
    records.push(metric("cosine_nonparallel", cosine.nonparallel, labels, cosine.nonparallel_pairs));
    records.push(metric("cosine_gap", cosine.parallel - cosine.nonparallel, labels, cosine.parallel_pairs));
}

/// Average over the pairs, with a 95 % percentile interval by bootstrap over PROBLEMS: the queries of one problem in
/// several pairs are not independent of each other.
fn average_retrieval(pairs: &[Retrieval], labels: &Labels, seed: u64) -> Option<Metric> {
    if pairs.is_empty() {
        return None;
    }
    let mut of_problem: BTreeMap<u32, (f64, f64)> = BTreeMap::new();
    for (problem, credit) in pairs.iter().flat_map(|r| &r.credits) {
        let entry = of_problem.entry(*problem).or_default();
        entry.0 += credit;
        entry.1 += 1.0;
    }
    let sums: Vec<(f64, f64)> = of_problem.into_values().collect();
    let key = Key::new(seed).with("retrieval bootstrap");
    let mut resampled: Vec<f64> = (0..RESAMPLES)
        .map(|resample| {
            let mut stream = key.with(resample).stream();
            let (mut credit, mut queries) = (0.0, 0.0);
            for _ in 0..sums.len() {
                let problem = stream.choose(&sums);
                credit += problem.0;
                queries += problem.1;
            }
            credit / queries
        })
        .collect();
    resampled.sort_by(f64::total_cmp);
    let at = |quantile: f64| resampled[((RESAMPLES - 1) as f64 * quantile).round() as usize];
    let queries = pairs.iter().map(|r| r.credits.len() as u64).sum();
    Some(Metric {
        low: Some(at(0.025)),
        high: Some(at(0.975)),
        ..metric("retrieval@1", mean(pairs.iter().map(Retrieval::accuracy)), labels, queries)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find<'a>(records: &'a [Metric], name: &str, pair: Option<(&str, &str)>) -> &'a Metric {
        let of = |m: &Metric| m.labels.get("source").cloned().zip(m.labels.get("target").cloned());
        records
            .iter()
            .find(|m| m.name == name && of(m) == pair.map(|(s, t)| (s.to_owned(), t.to_owned())))
            .unwrap_or_else(|| panic!("no {name} {pair:?}"))
    }

    #[test]
    fn averages_weigh_pairs_alike_and_carry_an_interval() {
        // Problem 0 is found from both sides, problem 1 from none: its program in b points away from it.
        let cloud = Cloud {
            width: 2,
            values: vec![1.0, 0.0, 1.0, 0.1, 0.0, 1.0, 0.9, -0.5],
            problem: vec![0, 0, 1, 1],
            language: vec![0, 1, 0, 1],
            languages: vec!["a".into(), "b".into(), "unused".into()],
            problems: 2,
        };
        let labels = Labels::from([("layer".into(), "3".into())]);
        let records = report(&cloud, &labels, 0);
        assert_eq!(find(&records, "retrieval@1", Some(("a", "b"))).value, 0.5);
        assert_eq!(find(&records, "retrieval@1", Some(("b", "a"))).value, 0.5);
        let average = find(&records, "retrieval@1", None);
        assert_eq!((average.value, average.low, average.high), (0.5, Some(0.0), Some(1.0)));
        assert_eq!(average.labels["layer"], "3");
        assert_eq!(find(&records, "retrieval@1_chance", None).value, 0.5);
        let gap = find(&records, "cosine_gap", Some(("a", "b"))).value;
        let parts =
            find(&records, "cosine_parallel", None).value - find(&records, "cosine_nonparallel", None).value;
        assert!((gap - parts).abs() < 1e-12);
        assert!(records.iter().all(|m| !m.labels.values().any(|v| v == "unused")));
        assert!(records.iter().all(|m| m.value.is_finite()));
    }
}
