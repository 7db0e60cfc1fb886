//! pass@k without bias.

/// The probability that at least one of `k` samples drawn without replacement from `n`, of which `c` are correct,
/// is correct: 1 − C(n−c, k) / C(n, k) (Chen et al. 2021, arXiv 2107.03374, equation 1), as the product
/// 1 − ∏_{i=n−c+1}^{n} (1 − k/i), which neither overflows nor cancels. `None` when `k` is zero or above `n`.
pub fn pass_at_k(n: u64, c: u64, k: u64) -> Option<f64> {
    if k == 0 || k > n || c > n {
        return None;
    }
    if n - c < k {
        return Some(1.0);
    }
    if k == 1 {
        // Exact, where the product would round.
        return Some(c as f64 / n as f64);
    }
    Some(1.0 - (n - c + 1..=n).map(|i| 1.0 - k as f64 / i as f64).product::<f64>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn choose(n: u64, k: u64) -> u128 {
        (0..u128::from(k)).fold(1, |acc, i| acc * (u128::from(n) - i) / (i + 1))
    }

    proptest! {
        #[test]
        fn equals_exact_combinatorics(n in 1u64..60, c in 0u64..60, k in 1u64..60) {
            prop_assume!(c <= n && k <= n);
            let missed = if k > n - c { 0 } else { choose(n - c, k) };
            let exact = 1.0 - missed as f64 / choose(n, k) as f64;
            prop_assert!((pass_at_k(n, c, k).unwrap() - exact).abs() < 1e-12);
        }
    }

    #[test]
    fn counts_every_subset_of_a_small_case() {
        // 5 samples, 2 correct: of the 10 triples only one has neither.
        assert!((pass_at_k(5, 2, 3).unwrap() - 0.9).abs() < 1e-15);
        assert_eq!(pass_at_k(4, 1, 1), Some(0.25));
    }

    #[test]
    fn stays_finite_where_binomials_overflow() {
        let p = pass_at_k(100_000, 10, 1_000).unwrap();
        // Nearly sampling with replacement: 1 − (1 − 0.01)^10.
        assert!((p - (1.0 - 0.99f64.powi(10))).abs() < 1e-3);
    }

    #[test]
    fn asks_for_enough_samples() {
        assert_eq!(pass_at_k(4, 2, 5), None);
        assert_eq!(pass_at_k(0, 0, 1), None);
        assert_eq!(pass_at_k(3, 3, 0), None);
    }
}
