//! Group-relative advantages (Shao et al. 2024, "DeepSeekMath", equation 3 ff.; Liu et al. 2025 for the rule without
//! the deviation; Ahmadian et al. 2024, equation 8, for the mean of the others).

use crate::cli::AdvantageRule;

/// Advantages of one prompt's samples from their rewards; `None` when there is nothing to compare: fewer than two, or
/// all equal.
///
/// The deviation is that of a sample (n - 1), as in TRL and verl.
pub fn advantages(rewards: &[f64], rule: AdvantageRule, eps: f64) -> Option<Vec<f64>> {
    let first = *rewards.first()?;
    if rewards.iter().all(|r| *r == first) {
        return None;
    }
    let n = rewards.len() as f64;
    let mean = rewards.iter().sum::<f64>() / n;
    let scale = match rule {
        AdvantageRule::Std => deviation(rewards) + eps,
        // r_i less the mean of the others is n/(n-1) times r_i less the mean of all.
        AdvantageRule::LeaveOneOut => (n - 1.0) / n,
        AdvantageRule::Mean | AdvantageRule::Batch | AdvantageRule::Gae => 1.0,
    };
    Some(rewards.iter().map(|r| (r - mean) / scale).collect())
}

/// Sample standard deviation; 0 for fewer than two values.
pub fn deviation(values: &[f64]) -> f64 {
    let n = values.len() as f64;
    if n < 2.0 {
        return 0.0;
    }
    let mean = values.iter().sum::<f64>() / n;
    (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / (n - 1.0)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advantages_have_the_stated_values_and_sum_to_zero() {
        let a = advantages(&[1.0, 0.0, 0.0, 0.0], AdvantageRule::Std, 0.0).unwrap();
        // Mean 1/4, sample deviation 1/2.
        assert_eq!(a, [1.5, -0.5, -0.5, -0.5]);
        assert_eq!(advantages(&[1.0, 0.0], AdvantageRule::Mean, 9.0).unwrap(), [0.5, -0.5]);
        let others = advantages(&[1.0, 0.0, 0.5, 0.0], AdvantageRule::LeaveOneOut, 9.0).unwrap();
        for (got, want) in others.iter().zip([1.0 - 0.5 / 3.0, -0.5, 0.5 - 1.0 / 3.0, -0.5]) {
            assert!((got - want).abs() < 1e-12);
        }
        let damped = advantages(&[1.0, 0.0, 0.0, 0.0], AdvantageRule::Std, 0.5).unwrap();
        assert_eq!(damped[0], 0.75);
    }

    #[test]
    fn a_group_that_cannot_be_compared_has_none() {
        for rewards in [&[][..], &[1.0], &[0.0; 8], &[1.0; 8]] {
            assert_eq!(advantages(rewards, AdvantageRule::Std, 1e-6), None);
        }
    }
}
