//! Which prompts an optimizer step is about: a pure function of the seed and the step, so that a resumed run asks
//! what the uninterrupted one would have asked.

use cognate_random::Key;

/// Indices of the prompts of `step` (from 0), in order: every epoch visits the prompts in a shuffled order of its own,
/// `groups` at a step. What is left over at the end of an epoch, fewer than a step needs, is passed over, so that no
/// step asks one prompt twice.
///
/// # Panics
/// When `groups` is 0 or larger than `prompts`.
pub fn prompts_of_step(seed: u64, step: u64, groups: usize, prompts: usize) -> Vec<usize> {
    assert!(groups > 0 && groups <= prompts, "{groups} groups of {prompts} prompts");
    let steps_in_epoch = (prompts / groups) as u64;
    let mut order: Vec<usize> = (0..prompts).collect();
    Key::new(seed).with("prompt order").with(step / steps_in_epoch).stream().shuffle(&mut order);
    let start = (step % steps_in_epoch) as usize * groups;
    order[start..start + groups].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn an_epoch_visits_each_prompt_once_and_the_next_in_another_order() {
        let epoch = |e: u64| (0..5).flat_map(|s| prompts_of_step(7, e * 5 + s, 4, 20)).collect::<Vec<_>>();
        let (first, second) = (epoch(0), epoch(1));
        assert_eq!(first.iter().collect::<BTreeSet<_>>().len(), 20);
        assert_eq!(second.iter().collect::<BTreeSet<_>>().len(), 20);
        assert_ne!(first, second);
        assert_ne!(first, (0..20).collect::<Vec<_>>());
        assert_ne!(prompts_of_step(7, 0, 4, 20), prompts_of_step(8, 0, 4, 20));
        assert_eq!(prompts_of_step(7, 8, 4, 20), second[12..16]);
    }

    #[test]
    fn no_step_asks_a_prompt_twice_when_groups_do_not_divide_the_prompts() {
        for step in 0..50 {
            let chosen = prompts_of_step(1, step, 3, 7);
            assert_eq!(chosen.iter().collect::<BTreeSet<_>>().len(), 3, "{step}");
        }
    }
}
