//! The learning rate as a pure function of the step, so that a resumed run needs no state for it.

use crate::cli::{Optimisation, Shape};

/// Learning rates of a run of `total` steps.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    pub shape: Shape,
    pub peak: f64,
    pub warmup: u64,
    /// Fraction of the peak that the decay heads for.
    pub last: f64,
    /// Fraction of the steps in which `wsd` decays.
    pub decay: f64,
    pub total: u64,
}

impl Schedule {
    pub fn new(flags: &Optimisation, total: u64) -> Self {
        Self {
            shape: flags.schedule,
            peak: flags.lr,
            warmup: flags.warmup,
            last: flags.final_lr,
            decay: flags.decay,
            total,
        }
    }

    /// Learning rate of step `step`, from 1. The warm-up's first step has peak / warmup, not 0, and the decay would
    /// reach its end one step after the last one: no step is wasted on a rate of zero.
    pub fn at(&self, step: u64) -> f64 {
        let done = step.saturating_sub(1);
        if done < self.warmup {
            return self.peak * step as f64 / self.warmup as f64;
        }
        let progress = |from: u64| {
            let length = self.total.saturating_sub(from).max(1);
            (done.saturating_sub(from) as f64 / length as f64).min(1.0)
        };
        let fraction = match self.shape {
            Shape::Constant => 1.0,
            Shape::Linear => 1.0 - (1.0 - self.last) * progress(self.warmup),
            Shape::Cosine => {
                let half = 0.5 * (1.0 + (std::f64::consts::PI * progress(self.warmup)).cos());
                self.last + (1.0 - self.last) * half
            }
            Shape::Wsd => {
                let decay = (self.total as f64 * self.decay).round() as u64;
                1.0 - (1.0 - self.last) * progress(self.total.saturating_sub(decay).max(self.warmup))
            }
        };
        self.peak * fraction
    }

    /// Whether the rate of a step depends on how many there will be.
    pub fn needs_total(&self) -> bool {
        self.shape != Shape::Constant
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(shape: Shape, warmup: u64) -> Vec<f64> {
        let s = Schedule { shape, peak: 1.0, warmup, last: 0.1, decay: 0.5, total: 10 };
        (1..=10).map(|step| (s.at(step) * 1e4).round() / 1e4).collect()
    }

    #[test]
    fn shapes_have_the_stated_values() {
        assert_eq!(rates(Shape::Constant, 2), [0.5, 1., 1., 1., 1., 1., 1., 1., 1., 1.]);
        assert_eq!(rates(Shape::Linear, 0), [1., 0.91, 0.82, 0.73, 0.64, 0.55, 0.46, 0.37, 0.28, 0.19]);
        assert_eq!(rates(Shape::Wsd, 2), [0.5, 1., 1., 1., 1., 1., 0.82, 0.64, 0.46, 0.28]);
        let cosine = rates(Shape::Cosine, 0);
        assert_eq!((cosine[0], cosine[5]), (1.0, 0.55));
        assert!(cosine.windows(2).all(|w| w[1] < w[0]) && cosine[9] > 0.1);
    }
}
