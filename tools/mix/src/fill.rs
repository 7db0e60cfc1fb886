//! Chooses documents whose lengths sum to a budget exactly, wherever the lengths allow it.
//!
//! Arms can only be compared at equal budgets, and documents come whole. So documents are taken in order until a few
//! of them are missing, and those are found by subset sum among the next ones.

/// How many documents the subset sum chooses from.
const WINDOW: usize = 512;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filled {
    /// Indices, ascending.
    pub chosen: Vec<usize>,
    /// Sum of their lengths: the budget, or as near below it as was found.
    pub total: u64,
}

/// Takes documents in order, then the subset of the next ones that comes nearest to the budget from below.
pub fn fill(lengths: &[u64], budget: u64) -> Filled {
    let longest = lengths.iter().copied().max().unwrap_or(0);
    let reserve = 6 * longest;
    let mut chosen = Vec::new();
    let mut total = 0;
    let mut next = 0;
    while next < lengths.len() && total + lengths[next] + reserve <= budget {
        total += lengths[next];
        chosen.push(next);
        next += 1;
    }
    let rest = (budget - total) as usize;
    let window: Vec<usize> = (next..lengths.len()).filter(|&i| lengths[i] > 0).take(WINDOW).collect();
    // reached[s]: the document that first made the sum s; what it was added to was made by earlier ones alone.
    let mut reached: Vec<Option<usize>> = vec![None; rest + 1];
    let mut highest = 0;
    for &i in &window {
        let length = lengths[i] as usize;
        for sum in (length..=rest.min(highest + length)).rev() {
            if reached[sum].is_none() && (sum == length || reached[sum - length].is_some()) {
                reached[sum] = Some(i);
                highest = highest.max(sum);
            }
        }
        if highest == rest {
            break;
        }
    }
    let mut sum = highest;
    total += highest as u64;
    while sum > 0 {
        let Some(i) = reached[sum] else { break };
        chosen.push(i);
        sum -= lengths[i] as usize;
    }
    chosen.sort_unstable();
    Filled { chosen, total }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn a_budget_is_met_from_below_without_repetition(
            lengths in prop::collection::vec(0u64..60, 0..300),
            budget in 0u64..9000,
        ) {
            let filled = fill(&lengths, budget);
            prop_assert!(filled.total <= budget);
            prop_assert_eq!(filled.total, filled.chosen.iter().map(|&i| lengths[i]).sum::<u64>());
            prop_assert!(filled.chosen.windows(2).all(|w| w[0] < w[1]));
        }

        #[test]
        fn varied_lengths_meet_the_budget_exactly(seed in 0u64..500) {
            let mut draws = cognate_random::Key::new(seed).stream();
            let lengths: Vec<u64> = (0..400).map(|_| 30 + draws.below(40)).collect();
            let budget = lengths.iter().sum::<u64>() / 2;
            prop_assert_eq!(fill(&lengths, budget).total, budget);
        }
    }

    #[test]
    fn what_cannot_be_met_falls_short() {
        assert_eq!(fill(&[10, 10, 10], 25).total, 20);
        assert_eq!(fill(&[10, 10], 1000), Filled { chosen: vec![0, 1], total: 20 });
        assert_eq!(fill(&[], 5), Filled { chosen: vec![], total: 0 });
        assert_eq!(fill(&[7, 3, 5], 8).chosen, [1, 2]);
    }
}
