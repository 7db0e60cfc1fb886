//! Which programs are read: one accepted program for each problem and language, and only problems that have one in
//! every language, so that all languages are judged on the same problems.

use std::collections::{BTreeMap, BTreeSet};

use cognate_cli::rejected;
use cognate_random::Key;
use cognate_records::{Program, Status};

/// What is looked for.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// Every language of the input when empty.
    pub languages: Vec<String>,
    /// Every split when empty.
    pub splits: Vec<String>,
    /// What the corpus must claim where there is no verdict.
    pub claim: String,
    pub seed: u64,
}

/// A problem's programs, one a language, in the order of the languages.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub problem: String,
    pub programs: Vec<Program>,
}

/// Gathers the programs; memory for one program a problem and language.
#[derive(Debug)]
pub struct Selection {
    wanted: Wanted,
    kept: BTreeMap<String, BTreeMap<String, (u64, Program)>>,
}

impl Selection {
    pub fn new(wanted: Wanted) -> Self {
        Self { wanted, kept: BTreeMap::new() }
    }

    /// Takes a program if it is wanted. Of several for one problem and language a seeded draw over their ids keeps
    /// one, whatever their order in the input.
    pub fn offer(&mut self, program: Program) {
        let w = &self.wanted;
        let listed = |list: &[String], name: &str| list.is_empty() || list.iter().any(|l| l == name);
        let accepted = match &program.verdict {
            Some(verdict) => verdict.status == Status::AC,
            None => program.claim.as_ref().is_none_or(|claim| *claim == w.claim),
        };
        if !accepted
            || !listed(&w.languages, &program.language)
            || !listed(&w.splits, program.split.as_deref().unwrap_or_default())
        {
            return;
        }
        let draw = Key::new(w.seed).with("probe program").with(&program.id).bits(0);
        let slot = self.kept.entry(program.problem.clone()).or_default();
        let better = slot.get(&program.language).is_none_or(|(d, p)| (draw, &program.id) < (*d, &p.id));
        if better {
            slot.insert(program.language.clone(), (draw, program));
        }
    }

    /// The languages and the complete problems, in an order drawn from the seed, so that the first N are a sample.
    ///
    /// # Errors
    /// A data error when fewer than two languages, or no complete problem, were found.
    pub fn finish(self) -> anyhow::Result<(Vec<String>, Vec<Row>)> {
        let found: BTreeSet<&String> = self.kept.values().flat_map(BTreeMap::keys).collect();
        let languages: Vec<String> = if self.wanted.languages.is_empty() {
            found.iter().map(|l| (*l).clone()).collect()
        } else {
            self.wanted.languages.clone()
        };
        for language in &languages {
            if !found.contains(language) {
                return Err(rejected(anyhow::anyhow!(
                    "no accepted program in {language} among the programs"
                )));
            }
        }
        if languages.len() < 2 {
            return Err(rejected(anyhow::anyhow!(
                "programs in two languages or more are needed, found {}",
                languages.join(", ")
            )));
        }
        let key = Key::new(self.wanted.seed).with("probe problem");
        let mut rows: Vec<(u64, Row)> = Vec::new();
        for (problem, mut of_language) in self.kept {
            let programs: Vec<Program> =
                languages.iter().filter_map(|l| of_language.remove(l)).map(|(_, program)| program).collect();
            if programs.len() == languages.len() {
                rows.push((key.with(&problem).bits(0), Row { problem, programs }));
            }
        }
        if rows.is_empty() {
            let list = languages.join(", ");
            return Err(rejected(anyhow::anyhow!("no problem has an accepted program in each of {list}")));
        }
        rows.sort_by(|a, b| (a.0, &a.1.problem).cmp(&(b.0, &b.1.problem)));
        Ok((languages, rows.into_iter().map(|r| r.1).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(problem: &str, language: &str, id: u32, claim: &str) -> Program {
        Program {
            id: format!("{problem}/{language}/{id}"),
            problem: problem.into(),
            language: language.into(),
            claim: Some(claim.into()),
            split: Some("eval".into()),
            ..Program::default()
        }
    }

    fn corpus() -> Vec<Program> {
        let mut all = Vec::new();
        for p in 0..20 {
            for l in ["python", "ruby", "php"] {
                all.extend((0..3).map(|v| program(&format!("p{p}"), l, v, "accepted")));
                all.push(program(&format!("p{p}"), l, 9, "wrong"));
            }
        }
        all.push(program("half", "python", 0, "accepted"));
        all.push(Program { split: Some("rl".into()), ..program("other", "python", 0, "accepted") });
        all.push(Program { split: Some("rl".into()), ..program("other", "ruby", 0, "accepted") });
        all
    }

    fn select(
        programs: Vec<Program>,
        seed: u64,
        languages: &[&str],
    ) -> anyhow::Result<(Vec<String>, Vec<Row>)> {
        let languages = languages.iter().map(|l| (*l).to_owned()).collect();
        let mut s =
            Selection::new(Wanted { languages, splits: vec!["eval".into()], claim: "accepted".into(), seed });
        programs.into_iter().for_each(|p| s.offer(p));
        s.finish()
    }

    #[test]
    fn complete_problems_one_accepted_program_a_language_whatever_the_input_order() {
        let (languages, rows) = select(corpus(), 1, &["ruby", "python"]).unwrap();
        assert_eq!(languages, ["ruby", "python"]);
        assert_eq!(rows.len(), 20);
        assert!(rows.iter().all(|r| r.programs[0].language == "ruby" && r.programs[1].language == "python"));
        assert!(rows.iter().flat_map(|r| &r.programs).all(|p| !p.id.ends_with('9')));
        let reversed: Vec<Program> = corpus().into_iter().rev().collect();
        assert_eq!(select(reversed, 1, &["ruby", "python"]).unwrap().1, rows);
        assert_ne!(select(corpus(), 2, &["ruby", "python"]).unwrap().1, rows);
        assert_eq!(select(corpus(), 1, &[]).unwrap().0, ["php", "python", "ruby"]);
    }

    #[test]
    fn a_verdict_outweighs_a_claim() {
        let verdict = |status| cognate_records::Verdict {
            status,
            reward: None,
            score: None,
            failure: None,
            passed: 0,
            run: 0,
            total: 0,
            tests: vec![],
            extraction: None,
            message: None,
            detected_language: None,
            measured: None,
        };
        let mut programs = vec![program("p", "ruby", 0, "accepted"), program("p", "python", 1, "wrong")];
        programs[1].verdict = Some(verdict(Status::AC));
        assert_eq!(select(programs.clone(), 0, &[]).unwrap().1.len(), 1);
        programs[1].verdict = Some(verdict(Status::WA));
        assert!(select(programs, 0, &[]).is_err());
    }

    #[test]
    fn nothing_to_compare_is_an_error_that_says_what_is_missing() {
        let text = select(corpus(), 1, &["python", "lua"]).unwrap_err().to_string();
        assert!(text.contains("lua"), "{text}");
        assert!(select(vec![program("p", "python", 0, "accepted")], 1, &[]).is_err());
        let apart = vec![program("p", "python", 0, "accepted"), program("q", "ruby", 0, "accepted")];
        let text = select(apart, 1, &[]).unwrap_err().to_string();
        assert!(text.contains("python, ruby"), "{text}");
    }
}
