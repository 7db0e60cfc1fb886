//! Tests as they come in, and the verdict that they make.

use std::collections::BTreeMap;

use cognate_records::{Failure, Measured, Problem, ScoreGroup, Status, Test, TestVerdict, Verdict};

/// CPU, wall (µs) and memory (KiB) of a run.
pub type Times = (u64, u64, u64);

#[derive(Default)]
pub struct Sheet {
    total: u32,
    tests: Vec<TestVerdict>,
    times: Vec<Times>,
    failed: Option<Status>,
    refused: bool,
    message: Option<String>,
    compile_us: u64,
    /// Least share of the tests run, by group.
    shares: BTreeMap<String, f64>,
    groups: Vec<ScoreGroup>,
}

impl Sheet {
    pub fn new(problem: &Problem, total: usize) -> Self {
        Self { total: total as u32, groups: problem.groups.clone(), ..Self::default() }
    }

    pub fn compiled(&mut self, cpu_us: u64) {
        self.compile_us += cpu_us;
    }

    pub fn say(&mut self, message: impl FnOnce() -> String) {
        self.message.get_or_insert_with(message);
    }

    fn scored<'a>(&self, test: &'a Test) -> Option<&'a String> {
        test.group.as_ref().filter(|name| self.groups.iter().any(|g| g.name == **name))
    }

    /// True when a judge that stops at the first failure need not run the test: its group has failed, or, where it is
    /// in none, some test has.
    pub fn is_lost(&self, test: &Test) -> bool {
        match self.scored(test) {
            Some(group) => self.shares.get(group) == Some(&0.0),
            None => self.failed.is_some(),
        }
    }

    pub fn add(&mut self, test: &Test, found: TestVerdict, times: Option<Times>) {
        if found.status != Status::AC {
            self.failed.get_or_insert(found.status);
        }
        if let Some(group) = self.scored(test) {
            let share = found.score.unwrap_or(if found.status == Status::AC { 1.0 } else { 0.0 });
            let least = self.shares.entry(group.clone()).or_insert(1.0);
            *least = least.min(share);
        }
        self.tests.push(found);
        self.times.extend(times);
    }

    /// The program did not compile: what was found so far does not count.
    pub fn refuse(&mut self) {
        self.refused = true;
        self.failed = Some(Status::CE);
        self.tests.clear();
        self.times.clear();
        self.shares.clear();
    }

    pub fn verdict(self, measured: bool, detected_language: Option<String>) -> Verdict {
        let status = self.failed.unwrap_or(Status::AC);
        let passed = self.tests.iter().filter(|t| t.status == Status::AC).count() as u32;
        let ms = |us: u64| us as f64 / 1000.0;
        let measured = measured.then(|| Measured {
            cpu_ms: ms(self.times.iter().map(|t| t.0).sum()),
            wall_ms: ms(self.times.iter().map(|t| t.1).sum()),
            memory_kb: self.times.iter().map(|t| t.2).max().unwrap_or(0),
            compile_cpu_ms: (self.compile_us > 0).then(|| ms(self.compile_us)),
            tests: self.times.iter().map(|&(cpu, wall, memory)| [ms(cpu), ms(wall), memory as f64]).collect(),
        });
        let points = |g: &ScoreGroup| g.points * self.shares.get(&g.name).copied().unwrap_or(0.0);
        let slow = |t: &TestVerdict| matches!(t.status, Status::AC | Status::TLE | Status::MLE);
        let only_slow = !self.refused && self.tests.iter().all(slow);
        Verdict {
            reward: Some(if status == Status::AC { 1.0 } else { 0.0 }),
            score: (!self.groups.is_empty()).then(|| self.groups.iter().map(points).sum()),
            failure: (status != Status::AC).then_some(if only_slow {
                Failure::Optimisation
            } else {
                Failure::Correctness
            }),
            passed,
            run: if self.refused { 0 } else { self.tests.len() as u32 },
            tests: self.tests,
            message: self.message,
            detected_language,
            measured,
            ..bare(status, None, self.total, None)
        }
    }
}

/// A verdict without a run.
pub fn bare(status: Status, reward: Option<f32>, total: u32, message: Option<String>) -> Verdict {
    Verdict {
        status,
        reward,
        score: None,
        failure: (!matches!(status, Status::AC | Status::IE)).then_some(Failure::Correctness),
        passed: 0,
        run: 0,
        total,
        tests: Vec::new(),
        extraction: None,
        message,
        detected_language: None,
        measured: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(status: Status, score: Option<f64>) -> TestVerdict {
        TestVerdict { status, score, exit: None, signal: None, stdout: None, stderr: None }
    }

    fn verdict(list: &[(Option<&str>, Status, Option<f64>)]) -> Verdict {
        let group = |name: &str, points| ScoreGroup { name: name.into(), points };
        let problem = Problem { groups: vec![group("a", 30.0), group("b", 70.0)], ..Problem::default() };
        let mut sheet = Sheet::new(&problem, list.len());
        for (group, status, score) in list {
            let test = Test { group: group.map(str::to_owned), ..Test::default() };
            sheet.add(&test, found(*status, *score), None);
        }
        sheet.verdict(false, None)
    }

    #[test]
    fn a_group_is_won_whole_or_scaled_by_its_least_test() {
        use Status::{AC, TLE, WA};
        let (a, b) = (Some("a"), Some("b"));
        let score = |list: &[_]| verdict(list).score.unwrap();
        assert_eq!(score(&[(a, AC, None), (a, AC, None), (b, AC, None)]), 100.0);
        assert_eq!(score(&[(a, AC, None), (a, WA, None), (b, AC, None)]), 70.0);
        assert_eq!(score(&[(a, AC, None), (b, WA, Some(0.5)), (b, WA, Some(0.8))]), 65.0);
        assert_eq!(score(&[(a, AC, None), (None, WA, None)]), 30.0);
        assert_eq!(verdict(&[(a, AC, None), (b, TLE, None)]).failure, Some(Failure::Optimisation));
        assert_eq!(verdict(&[(a, WA, None), (b, TLE, None)]).failure, Some(Failure::Correctness));
        assert_eq!(verdict(&[(a, AC, None)]).failure, None);
    }
}
