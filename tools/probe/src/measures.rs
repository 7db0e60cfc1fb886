//! Three measures of whether programs lie by what they do or by the language they are written in. Pure functions of
//! a [`Cloud`]; sums run in a fixed order, so the numbers do not depend on the number of threads.

use rayon::prelude::*;

use crate::cloud::Cloud;

/// Sixteen partial sums, whatever the machine's registers, then one fixed tree: the same bits everywhere.
fn lanes(a: &[f32], b: &[f32], term: impl Fn(f32, f32) -> f32) -> f32 {
    let mut sums = [0.0f32; 16];
    let (a_body, a_tail) = a.as_chunks::<16>();
    let (b_body, b_tail) = b.as_chunks::<16>();
    for (x, y) in a_body.iter().zip(b_body) {
        for lane in 0..16 {
            sums[lane] += term(x[lane], y[lane]);
        }
    }
    for (lane, (x, y)) in a_tail.iter().zip(b_tail).enumerate() {
        sums[lane] += term(*x, *y);
    }
    let mut half = 8;
    while half > 0 {
        for lane in 0..half {
            sums[lane] += sums[lane + half];
        }
        half /= 2;
    }
    sums[0]
}

fn dot(a: &[f32], b: &[f32]) -> f32 {
    lanes(a, b, |x, y| x * y)
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    f64::from(lanes(a, b, |x, y| (x - y) * (x - y))).sqrt()
}

/// Retrieval from one language to another.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Retrieval {
    /// For each query its problem and its credit: 1 when the nearest candidate is of the same problem, 0 when not;
    /// among exact ties the share that is.
    pub credits: Vec<(u32, f64)>,
    /// What guessing would score.
    pub chance: f64,
}

impl Retrieval {
    pub fn accuracy(&self) -> f64 {
        mean(self.credits.iter().map(|c| c.1))
    }
}

/// Mean of the values; 0 for none.
pub fn mean(values: impl ExactSizeIterator<Item = f64>) -> f64 {
    let count = values.len();
    if count == 0 { 0.0 } else { values.sum::<f64>() / count as f64 }
}

/// Top-1 retrieval: each program of `source` whose problem `target` also has looks for its nearest neighbour by
/// cosine among ALL programs of `target`. `unit` are the unit vectors of `cloud`.
pub fn retrieval(cloud: &Cloud, unit: &[f32], source: usize, target: usize) -> Retrieval {
    let candidates = cloud.of_language(target);
    let mut of_problem = vec![0u32; cloud.problems];
    for &c in &candidates {
        of_problem[cloud.problem[c] as usize] += 1;
    }
    let queries: Vec<usize> = cloud
        .of_language(source)
        .into_iter()
        .filter(|&q| of_problem[cloud.problem[q] as usize] > 0)
        .collect();
    let row = |p: usize| &unit[p * cloud.width..(p + 1) * cloud.width];
    let credits: Vec<(u32, f64)> = queries
        .par_iter()
        .map(|&q| {
            let (mut best, mut ties, mut right) = (f32::NEG_INFINITY, 0u32, 0u32);
            for &c in &candidates {
                let cosine = dot(row(q), row(c));
                if cosine > best {
                    (best, ties, right) = (cosine, 0, 0);
                }
                if cosine == best {
                    ties += 1;
                    right += u32::from(cloud.problem[c] == cloud.problem[q]);
                }
            }
            (cloud.problem[q], f64::from(right) / f64::from(ties.max(1)))
        })
        .collect();
    let chance = mean(
        queries
            .iter()
            .map(|&q| f64::from(of_problem[cloud.problem[q] as usize]) / candidates.len().max(1) as f64),
    );
    Retrieval { credits, chance }
}

/// Mean cosine over the cross-language pairs of one problem and of different problems.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Cosines {
    pub parallel: f64,
    pub parallel_pairs: u64,
    pub nonparallel: f64,
    pub nonparallel_pairs: u64,
}

/// Cosines between two languages. The sum over all pairs is the product of the sums of the unit vectors, so only
/// the parallel pairs are visited.
pub fn cosines(cloud: &Cloud, unit: &[f32], source: usize, target: usize) -> Cosines {
    let (a, b) = (cloud.of_language(source), cloud.of_language(target));
    let row = |p: usize| &unit[p * cloud.width..(p + 1) * cloud.width];
    let total = |points: &[usize]| {
        let mut sum = vec![0.0f64; cloud.width];
        for &p in points {
            sum.iter_mut().zip(row(p)).for_each(|(s, x)| *s += f64::from(*x));
        }
        sum
    };
    let all: f64 = total(&a).iter().zip(total(&b)).map(|(x, y)| x * y).sum();
    let mut by_problem = vec![Vec::new(); cloud.problems];
    for &q in &b {
        by_problem[cloud.problem[q] as usize].push(q);
    }
    let (mut sum, mut pairs) = (0.0f64, 0u64);
    for &p in &a {
        for &q in &by_problem[cloud.problem[p] as usize] {
            // In f64 throughout, so that subtracting it from the whole leaves no rounding behind.
            sum += row(p).iter().zip(row(q)).map(|(x, y)| f64::from(*x) * f64::from(*y)).sum::<f64>();
            pairs += 1;
        }
    }
    let others = a.len() as u64 * b.len() as u64 - pairs;
    Cosines {
        parallel: if pairs > 0 { sum / pairs as f64 } else { 0.0 },
        parallel_pairs: pairs,
        nonparallel: if others > 0 { (all - sum) / others as f64 } else { 0.0 },
        nonparallel_pairs: others,
    }
}

/// How tight the clusters are. Euclidean; the divisor takes the scale of the space out.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Clusters {
    /// D = mean of ‖xᵢ − xⱼ‖ over all pairs i < j.
    pub spread: f64,
    /// Mean over programs of ‖x − centroid of its problem‖, over problems with two programs or more, divided by D.
    pub problem: f64,
    /// Programs in that mean.
    pub problem_points: u64,
    /// The same with the centroid of its language: small when programs lie by language.
    pub language: f64,
}

/// Intra-cluster distances of the cloud by problem and by language.
pub fn clusters(cloud: &Cloud) -> Clusters {
    let n = cloud.points();
    let pair_sums: Vec<f64> = (0..n)
        .into_par_iter()
        .map(|i| (i + 1..n).map(|j| distance(cloud.vector(i), cloud.vector(j))).sum::<f64>())
        .collect();
    let pairs = n as f64 * (n as f64 - 1.0) / 2.0;
    let spread = if pairs > 0.0 { pair_sums.iter().sum::<f64>() / pairs } else { 0.0 };
    let to_centroid = |labels: &[u32], count: usize| {
        let mut members = vec![Vec::new(); count];
        for (point, &label) in labels.iter().enumerate() {
            members[label as usize].push(point);
        }
        let (mut sum, mut points) = (0.0f64, 0u64);
        for cluster in members.iter().filter(|m| m.len() > 1) {
            let centroid = cloud.mean(cluster);
            for &p in cluster {
                let squares: f64 =
                    cloud.vector(p).iter().zip(&centroid).map(|(x, m)| (f64::from(*x) - m).powi(2)).sum();
                sum += squares.sqrt();
            }
            points += cluster.len() as u64;
        }
        (if points > 0 && spread > 0.0 { sum / points as f64 / spread } else { 0.0 }, points)
    };
    let (problem, problem_points) = to_centroid(&cloud.problem, cloud.problems);
    let (language, _) = to_centroid(&cloud.language, cloud.languages.len());
    Clusters { spread, problem, problem_points, language }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cognate_random::Key;

    /// `problems` × `languages` points; the vector of a point by its problem and language.
    fn cloud(problems: u32, languages: u32, width: usize, vector: impl Fn(u32, u32) -> Vec<f32>) -> Cloud {
        let mut cloud = Cloud {
            width,
            languages: (0..languages).map(|l| format!("l{l}")).collect(),
            problems: problems as usize,
            ..Cloud::default()
        };
        for p in 0..problems {
            for l in 0..languages {
                cloud.values.extend(vector(p, l));
                cloud.problem.push(p);
                cloud.language.push(l);
            }
        }
        cloud
    }

    fn normal(key: Key, width: usize) -> Vec<f32> {
        let mut stream = key.stream();
        (0..width).map(|_| stream.normal() as f32).collect()
    }

    fn accuracy(cloud: &Cloud) -> f64 {
        let unit = cloud.unit();
        (retrieval(cloud, &unit, 0, 1).accuracy() + retrieval(cloud, &unit, 1, 0).accuracy()) / 2.0
    }

    #[test]
    fn identical_vectors_of_a_problem_are_always_found() {
        let c = cloud(40, 3, 24, |p, _| normal(Key::new(1).with(p), 24));
        assert_eq!(accuracy(&c), 1.0);
        let cos = cosines(&c, &c.unit(), 0, 1);
        assert!((cos.parallel - 1.0).abs() < 1e-6 && cos.nonparallel.abs() < 0.1, "{cos:?}");
        assert_eq!((cos.parallel_pairs, cos.nonparallel_pairs), (40, 40 * 39));
        let k = clusters(&c);
        assert!(k.problem < 1e-6 && k.language > 0.5, "{k:?}");
    }

    #[test]
    fn random_vectors_score_what_guessing_scores() {
        let c = cloud(300, 2, 24, |p, l| normal(Key::new(2).with(p).with(l), 24));
        let found = retrieval(&c, &c.unit(), 0, 1);
        assert!((found.chance - 1.0 / 300.0).abs() < 1e-12);
        // Binomial with 300 draws at 1/300: six hits or more happen once in 1,700.
        assert!(found.accuracy() < 6.0 / 300.0, "{}", found.accuracy());
        let cos = cosines(&c, &c.unit(), 0, 1);
        assert!((cos.parallel - cos.nonparallel).abs() < 0.06, "{cos:?}");
        let k = clusters(&c);
        // Two independent points lie at half their distance from their centroid.
        assert!((k.problem - 0.5).abs() < 0.03, "{k:?}");
    }

    #[test]
    fn shuffled_problems_destroy_retrieval() {
        let c = cloud(100, 2, 24, |p, l| {
            let noise = normal(Key::new(4).with(p).with(l), 24);
            normal(Key::new(3).with(p), 24).iter().zip(noise).map(|(x, n)| x + 0.2 * n).collect()
        });
        assert!(accuracy(&c) > 0.95, "{}", accuracy(&c));
        let mut shuffled = c.clone();
        Key::new(5).stream().shuffle(&mut shuffled.problem);
        assert!(accuracy(&shuffled) < 0.08, "{}", accuracy(&shuffled));
        let (right, wrong) = (cosines(&c, &c.unit(), 0, 1), cosines(&shuffled, &shuffled.unit(), 0, 1));
        assert!(right.parallel - right.nonparallel > 0.8, "{right:?}");
        assert!((wrong.parallel - wrong.nonparallel).abs() < 0.1, "{wrong:?}");
    }

    #[test]
    fn one_vector_for_everything_is_no_better_than_guessing() {
        let c = cloud(50, 2, 8, |_, _| vec![1.0; 8]);
        assert!((accuracy(&c) - 1.0 / 50.0).abs() < 1e-12);
        assert_eq!(clusters(&c).problem, 0.0);
    }

    #[test]
    fn a_language_offset_hides_problems_until_it_is_centred_away() {
        let mut c = cloud(60, 2, 16, |p, l| {
            let noise = normal(Key::new(6).with(p).with(l), 16);
            let offset = normal(Key::new(7).with(l), 16);
            let own = normal(Key::new(8).with(p), 16);
            (0..16).map(|i| own[i] + 0.1 * noise[i] + 50.0 * offset[i]).collect()
        });
        let before = (cosines(&c, &c.unit(), 0, 1), clusters(&c));
        c.centre_by_language();
        let after = (cosines(&c, &c.unit(), 0, 1), clusters(&c));
        assert!(before.0.parallel - before.0.nonparallel < 0.05, "{before:?}");
        assert!(after.0.parallel - after.0.nonparallel > 0.8, "{after:?}");
        assert!(before.1.language < 0.1 && after.1.language > 0.6);
        assert!(after.1.problem < 0.1 && before.1.problem > 0.5, "{before:?} {after:?}");
    }

    #[test]
    fn programs_without_a_partner_are_candidates_but_no_queries() {
        let mut c = cloud(3, 2, 2, |p, _| vec![f32::from(p as u8), 1.0]);
        // Problem 2 loses its program in language 1.
        c.values.truncate(10);
        c.problem.pop();
        c.language.pop();
        let unit = c.unit();
        assert_eq!(retrieval(&c, &unit, 0, 1).credits, [(0, 1.0), (1, 1.0)]);
        let back = retrieval(&c, &unit, 1, 0);
        assert_eq!(back.credits.len(), 2);
        assert!((back.chance - 1.0 / 3.0).abs() < 1e-12);
    }
}
