//! What is worth checking or counting about each record type, beyond what the type itself says.

use cognate_records::{
    Conversation, Embedding, Group, Metric, Packed, Problem, Program, Prompt, Record, Rollout, Status,
    StepEnd, VerdictRecord,
};

/// The same questions asked of every record.
#[derive(Debug, Default)]
pub struct Facts {
    /// Must not occur twice in a file.
    pub identity: Option<String>,
    pub languages: Vec<String>,
    pub split: Option<String>,
    /// The problem that it refers to.
    pub problem: Option<String>,
    pub status: Option<Status>,
    /// What the record should say and does not: a lower-case fragment.
    pub faults: Vec<String>,
}

pub trait Examined: Record {
    fn facts(&self) -> Facts;
}

impl Examined for Problem {
    fn facts(&self) -> Facts {
        let mut faults = Vec::new();
        let sizes: Vec<u64> = self.tests.iter().filter_map(|t| t.size).collect();
        if sizes.len() == self.tests.len() && !sizes.is_sorted() {
            faults.push("tests are not ordered by size".to_owned());
        }
        Facts {
            identity: Some(self.id.clone()),
            languages: self.tests.iter().filter_map(|t| t.language.clone()).collect(),
            split: self.split.clone(),
            problem: Some(self.id.clone()),
            faults,
            ..Facts::default()
        }
    }
}

impl Examined for Program {
    fn facts(&self) -> Facts {
        let empty = self.source.trim().is_empty();
        Facts {
            identity: Some(self.id.clone()),
            languages: vec![self.language.clone()],
            split: self.split.clone(),
            problem: Some(self.problem.clone()),
            status: self.verdict.as_ref().map(|v| v.status),
            faults: if empty { vec!["field source is empty".to_owned()] } else { Vec::new() },
        }
    }
}

impl Examined for Group {
    fn facts(&self) -> Facts {
        let mut faults = Vec::new();
        let order: Vec<_> = self.members.iter().map(|m| (&m.language, &m.id)).collect();
        if !order.is_sorted() {
            faults.push("members are not sorted by language, then id".to_owned());
        } else if order.windows(2).any(|w| w[0] == w[1]) {
            faults.push("a program is a member twice".to_owned());
        }
        if order.first().map(|m| m.0) == order.last().map(|m| m.0) {
            faults.push("all members are in one language".to_owned());
        }
        Facts {
            identity: Some(self.id.clone()),
            languages: self.members.iter().map(|m| m.language.clone()).collect(),
            split: self.split.clone(),
            problem: Some(self.problem.clone()),
            faults,
            ..Facts::default()
        }
    }
}

impl Examined for Conversation {
    fn facts(&self) -> Facts {
        Facts {
            identity: Some(self.id.clone()),
            languages: self.language.iter().cloned().collect(),
            problem: self.problem.clone(),
            ..Facts::default()
        }
    }
}

impl Examined for Packed {
    fn facts(&self) -> Facts {
        Facts { identity: Some(self.id.clone()), ..Facts::default() }
    }
}

impl Examined for Prompt {
    fn facts(&self) -> Facts {
        Facts {
            identity: Some(self.id.clone()),
            languages: vec![self.language.clone()],
            split: self.split.clone(),
            problem: Some(self.problem.clone()),
            ..Facts::default()
        }
    }
}

impl Examined for Rollout {
    fn facts(&self) -> Facts {
        let temperature = self.parameters.as_ref().map(|p| (p.temperature, p.seed));
        Facts {
            identity: Some(format!(
                "{}#{} {:?} {:?} {temperature:?}",
                self.prompt, self.index, self.round, self.model
            )),
            languages: self.language.iter().cloned().collect(),
            split: self.split.clone(),
            problem: self.problem.clone(),
            status: self.verdict.as_ref().map(|v| v.status),
            faults: Vec::new(),
        }
    }
}

impl Examined for VerdictRecord {
    fn facts(&self) -> Facts {
        Facts {
            identity: Some(self.id.clone()),
            languages: self.language.iter().cloned().collect(),
            problem: self.problem.clone(),
            status: Some(self.verdict.status),
            ..Facts::default()
        }
    }
}

impl Examined for Embedding {
    fn facts(&self) -> Facts {
        Facts {
            identity: Some(format!("{} {} {} {:?}", self.id, self.layer, self.pooling, self.model)),
            languages: vec![self.language.clone()],
            problem: Some(self.problem.clone()),
            ..Facts::default()
        }
    }
}

impl Examined for Metric {
    fn facts(&self) -> Facts {
        Facts::default()
    }
}

impl Examined for StepEnd {
    fn facts(&self) -> Facts {
        Facts { identity: Some(self.step.to_string()), ..Facts::default() }
    }
}
