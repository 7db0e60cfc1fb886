//! Vectors of programs with the problem and the language of each: what every measure is taken over.

/// `points()` vectors of `width` values; problems and languages are indices into the names.
#[derive(Debug, Clone, Default)]
pub struct Cloud {
    pub width: usize,
    /// `[points, width]`, row-major.
    pub values: Vec<f32>,
    /// Problem of each point.
    pub problem: Vec<u32>,
    /// Language of each point, an index into `languages`.
    pub language: Vec<u32>,
    /// Names of the languages, in the order in which they are reported.
    pub languages: Vec<String>,
    /// Number of problems.
    pub problems: usize,
}

impl Cloud {
    pub fn points(&self) -> usize {
        self.problem.len()
    }

    pub fn vector(&self, point: usize) -> &[f32] {
        &self.values[point * self.width..(point + 1) * self.width]
    }

    /// Points of one language, in order.
    pub fn of_language(&self, language: usize) -> Vec<usize> {
        (0..self.points()).filter(|&p| self.language[p] as usize == language).collect()
    }

    /// Subtracts from each vector the mean vector of its language, so that what is left tells programs of one
    /// language apart and the language itself is gone.
    pub fn centre_by_language(&mut self) {
        for language in 0..self.languages.len() {
            let points = self.of_language(language);
            let mean = self.mean(&points);
            for &p in &points {
                for (x, m) in self.values[p * self.width..(p + 1) * self.width].iter_mut().zip(&mean) {
                    *x = (f64::from(*x) - m) as f32;
                }
            }
        }
    }

    /// Mean vector of the points; zeros for none.
    pub fn mean(&self, points: &[usize]) -> Vec<f64> {
        let mut mean = vec![0.0f64; self.width];
        for &p in points {
            for (m, x) in mean.iter_mut().zip(self.vector(p)) {
                *m += f64::from(*x);
            }
        }
        for m in &mut mean {
            *m /= points.len().max(1) as f64;
        }
        mean
    }

    /// The vectors scaled to length 1, `[points, width]`; a zero vector stays zero and is like nothing.
    pub fn unit(&self) -> Vec<f32> {
        let mut unit = self.values.clone();
        if self.width > 0 {
            for row in unit.chunks_exact_mut(self.width) {
                let norm = row.iter().map(|x| f64::from(*x).powi(2)).sum::<f64>().sqrt();
                if norm > 0.0 {
                    row.iter_mut().for_each(|x| *x = (f64::from(*x) / norm) as f32);
                }
            }
        }
        unit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn centring_removes_what_a_language_shares() {
        let mut cloud = Cloud {
            width: 2,
            values: vec![1.0, 10.0, 3.0, 10.0, 1.0, -5.0, 3.0, -5.0],
            problem: vec![0, 1, 0, 1],
            language: vec![0, 0, 1, 1],
            languages: vec!["a".into(), "b".into()],
            problems: 2,
        };
        cloud.centre_by_language();
        assert_eq!(cloud.values, [-1.0, 0.0, 1.0, 0.0, -1.0, 0.0, 1.0, 0.0]);
    }

    #[test]
    fn a_zero_vector_has_no_direction() {
        let cloud =
            Cloud { width: 2, values: vec![0.0, 0.0, 3.0, 4.0], problem: vec![0, 1], ..Cloud::default() };
        assert_eq!(cloud.unit(), [0.0, 0.0, 0.6, 0.8]);
    }
}
