//! Holds arms matched in tokens to equality, by what was packed.

use std::collections::BTreeSet;

use cognate_cli::rejected;

use crate::manifest::ArmReport;
use crate::sft::arms::{ArmKind, Matched};

/// Tokens by which arms may differ: the asked share, and in any case two for each language, since documents come
/// whole.
pub fn slack(tolerance: f64, tokens: u64, languages: usize) -> f64 {
    (tolerance * tokens as f64).max(2.0 * languages as f64)
}

/// The last word before anything is written: arms matched in tokens are equal in what they must be equal in.
pub fn check_equal(arms: &[ArmReport], tolerance: f64) -> anyhow::Result<()> {
    let matched: Vec<&ArmReport> = arms.iter().filter(|a| a.matched == Matched::Tokens).collect();
    let Some(first) = matched.first() else { return Ok(()) };
    let differ =
        |a: u64, b: u64, languages: usize| a.abs_diff(b) as f64 > slack(tolerance, a.max(b), languages);
    // An arm of one language is filled to the sum of those of several.
    let most = matched.iter().map(|a| a.languages.len().max(a.replay_languages.len())).max().unwrap_or(1);
    for arm in &matched {
        let fail = |what: &str, of: u64, must: u64, than: &str| {
            rejected(anyhow::anyhow!(
                "arm {:?}: {of} {what}, but {must} in arm {than:?} (--tolerance {tolerance})",
                arm.name
            ))
        };
        if arm.sequences != first.sequences {
            return Err(fail("sequences", arm.sequences, first.sequences, &first.name));
        }
        for task in ["generation", "verification", "replay"] {
            let (of, must) = (arm.shares.task_tokens(task), first.shares.task_tokens(task));
            if differ(of, must, most) {
                return Err(fail(&format!("answer tokens of {task}"), of, must, &first.name));
            }
        }
        let same = matched.iter().find(|a| {
            a.kind != ArmKind::Source
                && a.languages.iter().collect::<BTreeSet<_>>()
                    == arm.languages.iter().collect::<BTreeSet<_>>()
        });
        if let Some(same) = same {
            for language in &arm.languages {
                for task in ["generation", "verification"] {
                    let (of, must) = (arm.shares.tokens(language, task), same.shares.tokens(language, task));
                    if differ(of, must, 1) {
                        return Err(fail(
                            &format!("{language} answer tokens of {task}"),
                            of,
                            must,
                            &same.name,
                        ));
                    }
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    use crate::manifest::{Share, Shares};

    fn reported(name: &str, kind: ArmKind, tokens: [u64; 2], sequences: u64) -> ArmReport {
        let mut shares = Shares::default();
        for (language, tokens) in ["lua", "python"].iter().zip(tokens) {
            let share = Share { documents: 1, tokens };
            shares.0.entry((*language).into()).or_default().insert("generation".into(), share);
        }
        ArmReport {
            name: name.into(),
            kind,
            matched: Matched::Tokens,
            languages: vec!["lua".into(), "python".into()],
            replay_languages: Vec::new(),
            sequences,
            steps: 1,
            documents: 2,
            problems: 2,
            tokens: 100,
            answer_tokens: BTreeMap::new(),
            per_problem: 1,
            shares,
        }
    }

    /// The last word before writing must be able to say no.
    #[test]
    fn unequal_arms_are_refused() {
        let parallel = reported("parallel", ArmKind::Parallel, [500, 500], 8);
        let check = |tokens, sequences| {
            let other = reported("nonparallel", ArmKind::Nonparallel, tokens, sequences);
            check_equal(&[parallel.clone(), other], 0.005).map_err(|e| e.to_string())
        };
        assert!(check([500, 500], 8).is_ok());
        assert!(check([500, 500], 16).unwrap_err().contains("16 sequences, but 8 in arm \"parallel\""));
        assert!(check([500, 498], 8).is_ok(), "documents come whole");
        assert!(check([500, 480], 8).unwrap_err().contains("980 answer tokens of generation, but 1000"));
        assert!(check([400, 600], 8).unwrap_err().contains("400 lua answer tokens of generation, but 500"));
    }
}
