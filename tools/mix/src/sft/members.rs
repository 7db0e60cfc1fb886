//! Reads groups of parallel programs: the members that may be trained on.

use std::collections::{BTreeMap, HashSet};

use cognate_cli::{Common, rejected};
use cognate_records::{Group, Member};

use crate::cli;
use crate::corpus::{Corpus, data, read};

/// Members by problem and language.
pub type ByProblem = BTreeMap<String, BTreeMap<String, Vec<Member>>>;

/// Members of the groups of the asked splits, by problem and language, exact duplicates dropped.
pub fn members(
    common: &Common,
    options: &cli::Sft,
    corpus: &mut Corpus,
    languages: &[&str],
) -> anyhow::Result<ByProblem> {
    let mut found = ByProblem::new();
    let mut groups = 0u64;
    let mut dropped = corpus.dropped.clone();
    read::<Group>(common, &options.groups, |path, group| {
        groups += 1;
        let what = format!("group {:?}", group.id);
        let split = match corpus.split(path, &what, &group.problem, group.split.as_deref()) {
            Ok(split) => split.to_owned(),
            Err(error) => return common.skip(error),
        };
        for member in group.members {
            if corpus.languages.get(&member.language).is_none() {
                let reason =
                    format!("{what}: member {:?}: unknown language {:?}", member.id, member.language);
                return common.skip(data(path, reason));
            }
            if corpus.is_forbidden(&split) {
                corpus.forbid_program(&member.language, &member.source);
            } else if options.splits.contains(&split) && languages.contains(&member.language.as_str()) {
                if member.evidence.kind != "verdict" && !options.accept_claims {
                    dropped.unverified += 1;
                    continue;
                }
                let of = found
                    .entry(group.problem.clone())
                    .or_default()
                    .entry(member.language.clone())
                    .or_default();
                if of.iter().any(|m| m.source.trim_end() == member.source.trim_end()) {
                    dropped.duplicate += 1;
                } else {
                    of.push(member);
                }
            }
        }
        Ok(())
    })?;
    // Only now is every forbidden text known.
    let mut seen: HashSet<(String, String)> = HashSet::new();
    for (problem, languages) in &mut found {
        let leaks = corpus.statement_leaks(problem);
        for (language, members) in languages {
            members.retain(|m| {
                if leaks || corpus.program_leaks(language, &m.source) {
                    dropped.contaminated += 1;
                    return false;
                }
                // The same text for two problems would be trained twice.
                let new = seen.insert((language.clone(), m.source.trim_end().to_owned()));
                dropped.duplicate += u64::from(!new);
                new
            });
        }
    }
    corpus.dropped = dropped;
    if found.values().all(|of| of.values().all(Vec::is_empty)) {
        let reason = if groups == 0 { "no groups" } else { "no usable member of a group" };
        return Err(rejected(anyhow::anyhow!(
            "{reason} in --splits {} ({groups} groups read; left out: {})",
            options.splits.join(","),
            corpus.dropped
        )));
    }
    Ok(found)
}
