//! Gives each problem to ONE language, for arms that are not parallel.

/// Deals problems in order. `lengths[p][l]` is what problem `p` would add to language `l`, or `None` where it has no
/// program in it; each problem goes to the language that is furthest behind its budget. All problems are dealt, so
/// that the budgets can then be met exactly from what each language was given.
///
/// Returns the language of each problem.
pub fn deal(lengths: &[Vec<Option<u64>>], budgets: &[u64]) -> Vec<Option<usize>> {
    let mut given = vec![0u64; budgets.len()];
    lengths
        .iter()
        .map(|of| {
            // given/budget is compared by cross products: exact, and no budget of 0 is divided by.
            let language = (0..budgets.len()).filter(|&l| of[l].is_some()).min_by(|&a, &b| {
                let left = u128::from(given[a]) * u128::from(budgets[b]);
                let right = u128::from(given[b]) * u128::from(budgets[a]);
                left.cmp(&right).then(a.cmp(&b))
            })?;
            given[language] += of[language].unwrap_or(0);
            Some(language)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_follow_the_budgets_and_absent_programs_are_respected() {
        let lengths: Vec<Vec<Option<u64>>> =
            (0..1000).map(|p| vec![Some(50), (p % 2 == 0).then_some(100), Some(50)]).collect();
        let dealt = deal(&lengths, &[100, 200, 100]);
        let mut given = [0u64; 3];
        for (p, language) in dealt.iter().enumerate() {
            let language = language.unwrap();
            given[language] += lengths[p][language].unwrap();
        }
        assert!(given[0].abs_diff(given[2]) <= 50 && given[1].abs_diff(2 * given[0]) <= 200, "{given:?}");
        assert_eq!(deal(&[vec![None, None]], &[1, 1]), [None]);
    }
}
