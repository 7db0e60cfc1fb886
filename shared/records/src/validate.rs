//! What a type system cannot say about each record.

use crate::types::{
    Checker, Conversation, Embedding, Group, Metric, Packed, Problem, Program, Prompt, Rollout, StepEnd,
    Test, TestKind, Verdict, VerdictRecord,
};

pub(crate) trait Validate {
    fn check(&self) -> Result<(), String>;
}

fn named(value: &str, field: &str) -> Result<(), String> {
    if value.is_empty() { Err(format!("field {field} is empty")) } else { Ok(()) }
}

fn ensure(holds: bool, reason: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(reason()) }
}

fn check_test(test: &Test, index: usize) -> Result<(), String> {
    let at = || match &test.id {
        Some(id) => format!("test {id:?}"),
        None => format!("test {index}"),
    };
    let missing = |field: &str| format!("{}: field {field} is missing", at());
    let stray = |field: &str| format!("{}: a test of this kind has no field {field}", at());
    let is = |kind| test.kind == kind;
    ensure(test.code.is_some() == is(TestKind::Assert), || {
        if is(TestKind::Assert) { missing("code") } else { stray("code") }
    })?;
    ensure(is(TestKind::Assert) || test.file.is_none(), || stray("file"))?;
    ensure(is(TestKind::Files) || test.files.is_empty(), || stray("files"))?;
    ensure(is(TestKind::Files) || test.outputs.is_empty(), || stray("outputs"))?;
    match test.kind {
        TestKind::Stdio => ensure(test.output.is_some(), || missing("output"))?,
        TestKind::Assert => ensure(test.output.is_none(), || stray("output"))?,
        TestKind::Files => {
            ensure(test.output.is_some() || !test.outputs.is_empty(), || missing("outputs"))?;
        }
        TestKind::Interactive => {}
    }
    let names = test.files.iter().chain(&test.outputs).map(|f| &f.name).chain(&test.file);
    names.clone().try_for_each(|name| plain(name).map_err(|reason| format!("{}: {reason}", at())))?;
    match &test.checker {
        Some(checker) => check_checker(checker).map_err(|reason| format!("{}: {reason}", at())),
        None => Ok(()),
    }
}

/// A name that cannot leave its folder.
fn plain(name: &str) -> Result<(), String> {
    let good = !name.is_empty() && name.len() <= 255 && !name.starts_with('.') && !name.contains(['/', '\0']);
    ensure(good, || format!("{name:?} is not a plain file name"))
}

fn check_checker(checker: &Checker) -> Result<(), String> {
    match checker {
        Checker::Float { absolute, relative } => {
            ensure([absolute, relative].iter().all(|x| **x >= 0.0), || {
                "checker: a tolerance is negative".into()
            })
        }
        Checker::Program { language, files, .. } => {
            named(language, "checker.language")?;
            files.iter().try_for_each(|f| plain(&f.name))
        }
        _ => Ok(()),
    }
}

impl Validate for Problem {
    fn check(&self) -> Result<(), String> {
        named(&self.id, "id")?;
        for (i, test) in self.tests.iter().enumerate() {
            check_test(test, i)?;
            let own = test.checker.as_ref().or(self.checker.as_ref());
            ensure(
                test.kind != TestKind::Interactive || matches!(own, Some(Checker::Program { .. })),
                || format!("test {i}: an interactive test needs a checker of kind program"),
            )?;
        }
        self.checker.as_ref().map_or(Ok(()), check_checker)?;
        let mut names = std::collections::BTreeSet::new();
        for group in &self.groups {
            named(&group.name, "groups[].name")?;
            ensure(group.points.is_finite() && group.points >= 0.0, || {
                format!("group {:?}: points must be a number from 0", group.name)
            })?;
            ensure(names.insert(&group.name), || format!("group {:?} appears twice", group.name))?;
        }
        Ok(())
    }
}

impl Validate for Program {
    fn check(&self) -> Result<(), String> {
        named(&self.id, "id")?;
        named(&self.problem, "problem")?;
        named(&self.language, "language")?;
        self.verdict.as_ref().map_or(Ok(()), check_verdict)
    }
}

impl Validate for Group {
    fn check(&self) -> Result<(), String> {
        named(&self.id, "id")?;
        named(&self.problem, "problem")?;
        ensure(!self.members.is_empty(), || "field members is empty".into())?;
        for m in &self.members {
            named(&m.id, "members[].id")?;
            named(&m.language, "members[].language")?;
        }
        Ok(())
    }
}

impl Validate for Conversation {
    fn check(&self) -> Result<(), String> {
        named(&self.id, "id")?;
        named(&self.task, "task")?;
        ensure(!self.messages.is_empty(), || "field messages is empty".into())
    }
}

impl Validate for Packed {
    fn check(&self) -> Result<(), String> {
        named(&self.id, "id")?;
        let (ids, weights, starts) = (self.ids.len(), self.weights.len(), self.starts.len());
        ensure(ids > 0, || "field ids is empty".into())?;
        ensure(ids == weights, || format!("{ids} ids but {weights} weights"))?;
        ensure(self.weights.iter().all(|w| w.is_finite() && *w >= 0.0), || {
            "field weights holds a negative or infinite number".into()
        })?;
        ensure(self.starts.first() == Some(&0), || "field starts must begin with 0".into())?;
        ensure(self.starts.windows(2).all(|w| w[0] < w[1]), || "field starts must increase".into())?;
        ensure((self.starts[starts - 1] as usize) < ids, || "the last start is beyond the ids".into())?;
        ensure(self.starts.iter().all(|&s| self.weights[s as usize] == 0.0), || {
            "the first token of a document cannot be a target: its weight must be 0".into()
        })?;
        ensure(self.documents.is_empty() || self.documents.len() == starts, || {
            format!("{starts} starts but {} documents", self.documents.len())
        })
    }
}

impl Validate for Prompt {
    fn check(&self) -> Result<(), String> {
        named(&self.id, "id")?;
        named(&self.problem, "problem")?;
        named(&self.language, "language")
    }
}

impl Validate for Rollout {
    fn check(&self) -> Result<(), String> {
        named(&self.prompt, "prompt")?;
        let n = self.ids.len();
        for (field, length) in [
            ("logprobs", self.logprobs.len()),
            ("sampling_logprobs", self.sampling_logprobs.len()),
            ("versions", self.versions.len()),
        ] {
            ensure(length == 0 || length == n, || format!("{n} ids but {length} {field}"))?;
        }
        let finite = self.logprobs.iter().chain(&self.sampling_logprobs).all(|x| x.is_finite() && *x <= 1e-3);
        ensure(finite, || "a log-probability is positive or not finite".into())?;
        self.verdict.as_ref().map_or(Ok(()), check_verdict)
    }
}

fn check_verdict(v: &Verdict) -> Result<(), String> {
    ensure(v.passed <= v.run && v.run <= v.total, || {
        format!("verdict: passed {} of {} run of {} tests", v.passed, v.run, v.total)
    })?;
    ensure(v.reward.is_none_or(f32::is_finite), || "verdict: reward is not finite".into())
}

impl Validate for VerdictRecord {
    fn check(&self) -> Result<(), String> {
        named(&self.id, "id")?;
        check_verdict(&self.verdict)
    }
}

impl Validate for Embedding {
    fn check(&self) -> Result<(), String> {
        named(&self.id, "id")?;
        ensure(!self.vector.is_empty(), || "field vector is empty".into())?;
        ensure(self.vector.iter().all(|x| x.is_finite()), || {
            "field vector holds a number that is not finite".into()
        })
    }
}

impl Validate for Metric {
    fn check(&self) -> Result<(), String> {
        named(&self.name, "name")?;
        ensure(self.value.is_finite(), || "field value is not finite".into())
    }
}

impl Validate for StepEnd {
    fn check(&self) -> Result<(), String> {
        Ok(())
    }
}
