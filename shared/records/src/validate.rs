//! What a type system cannot say about each record.

use crate::types::{
    Conversation, Embedding, Group, Metric, Packed, Problem, Program, Prompt, Rollout, StepEnd, Test,
    TestKind, Verdict, VerdictRecord,
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
    match test.kind {
        TestKind::Stdio => {
            ensure(test.code.is_none(), || format!("{}: a stdio test has no field code", at()))?;
            ensure(test.output.is_some(), || format!("{}: field output is missing", at()))
        }
        TestKind::Assert => {
            ensure(test.code.is_some(), || format!("{}: field code is missing", at()))?;
            ensure(test.output.is_none(), || format!("{}: an assert test has no field output", at()))
        }
    }
}

impl Validate for Problem {
    fn check(&self) -> Result<(), String> {
        named(&self.id, "id")?;
        for (i, test) in self.tests.iter().enumerate() {
            check_test(test, i)?;
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
