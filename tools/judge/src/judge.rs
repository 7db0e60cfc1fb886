//! From a program and a problem to a verdict.

use cognate_languages::{Language, identify};
use cognate_records::{Checker, Limits, Problem, Status, Test, TestKind, TestVerdict, Verdict};

use crate::alone::Gate;
use crate::assertions;
use crate::build::{self, Built, Order, Ready, complaint, excerpt};
use crate::checker;
use crate::helper::{self, Grade, Helper};
use crate::interactive;
use crate::limits;
use crate::sandbox::wire::{Exceeded, Kind, Outcome, Run, RunLimits};
use crate::sandbox::{Detailed, Extras, Fault, Finished, Sandbox};
use crate::sheet::Sheet;
use crate::toolchain::Toolchains;

/// What the command line decides about judging.
#[derive(Debug, Clone)]
pub struct Policy {
    pub first_failure: bool,
    pub presentation: bool,
    pub excerpts: bool,
    pub measured: bool,
    pub drift: bool,
    /// Share of the tests, smallest inputs first.
    pub coverage: f64,
    pub defaults: Limits,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            first_failure: false,
            presentation: false,
            excerpts: false,
            measured: false,
            drift: false,
            coverage: 1.0,
            defaults: Limits::default(),
        }
    }
}

/// The tests that count for a language, in order of size, within the coverage. A smaller coverage's tests are among a
/// larger one's.
pub fn selected<'a>(problem: &'a Problem, language: &Language, coverage: f64) -> Vec<&'a Test> {
    let mut tests: Vec<&Test> =
        problem.tests.iter().filter(|t| t.language.as_ref().is_none_or(|l| *l == language.name)).collect();
    if coverage < 1.0 {
        if tests.iter().all(|t| t.size.is_some()) {
            tests.sort_by_key(|t| t.size);
        }
        let kept = (tests.len() as f64 * coverage).ceil().max(1.0) as usize;
        tests.truncate(kept);
    }
    tests
}

/// The checker of a test.
pub fn checker_of<'a>(problem: &'a Problem, test: &'a Test) -> &'a Checker {
    const DEFAULT: &Checker = &Checker::Tokens;
    test.checker.as_ref().or(problem.checker.as_ref()).unwrap_or(DEFAULT)
}

/// True when the tests need more of a sandbox than stdin and stdout.
pub fn needs_extras(tests: &[&Test]) -> bool {
    tests.iter().any(|test| matches!(test.kind, TestKind::Files | TestKind::Interactive))
}

/// Starts a sandbox for a helper in the given language.
pub type StartHelper<'a> = &'a dyn Fn(&Language) -> Result<Box<dyn Sandbox>, Fault>;

/// One program being judged.
pub struct Judge<'a> {
    pub tools: &'a Toolchains,
    pub policy: &'a Policy,
    pub gate: &'a Gate,
    pub sandbox: &'a mut dyn Sandbox,
    /// The sandbox of checker programs and interactors, started when one is first needed.
    pub helper: &'a mut Option<Helper>,
    pub start_helper: StartHelper<'a>,
    pub language: &'a Language,
    pub problem: &'a Problem,
    pub source: &'a str,
    /// Says once why a fork server does not stand.
    pub note: &'a dyn Fn(String),
}

/// A run of a test, whatever its kind.
struct Ran {
    finished: Finished,
    /// Contents of the output files.
    fetched: Vec<Option<Vec<u8>>>,
    /// The interactor's end, and whether the program's came first.
    interactor: Option<(Finished, bool)>,
}

impl Judge<'_> {
    /// # Errors
    /// When the sandbox fails, or the problem's own checker; the program is not to blame, and may be judged again.
    pub fn verdict(&mut self) -> Result<Verdict, Fault> {
        let tests = selected(self.problem, self.language, self.policy.coverage);
        let mut sheet = Sheet::new(self.problem, tests.len());
        let mut built: Option<(bool, Built)> = None;
        for test in tests {
            if self.policy.first_failure && sheet.is_lost(test) {
                continue;
            }
            let is_assert = test.kind == TestKind::Assert;
            let limits = limits::of_test(&self.policy.defaults, self.problem, test, self.language);
            // One build serves all tests but those with assertion code, each of which makes a program of its own.
            if built.as_ref().is_none_or(|(assert, _)| is_assert || *assert) {
                let new = self.build(test, &limits)?;
                let compiled = match &new {
                    Built::Ready(ready) => ready.compiled.as_ref(),
                    Built::Refused(finished) => Some(finished),
                };
                sheet.compiled(compiled.map_or(0, |f| f.outcome.cpu_us));
                built = Some((is_assert, new));
            }
            match &built {
                Some((_, Built::Ready(ready))) => {
                    let ran = self.run(test, ready, limits)?;
                    let outcome = &ran.finished.outcome;
                    let times = (outcome.cpu_us, outcome.wall_us, outcome.memory_kb);
                    let found = self.examine(test, &ran)?;
                    sheet.add(test, found, Some(times));
                }
                Some((_, Built::Refused(finished))) => {
                    sheet.say(|| complaint(finished));
                    if !is_assert {
                        // The same program fails to compile for every other test as well.
                        sheet.refuse();
                        break;
                    }
                    let blank = TestVerdict {
                        status: Status::CE,
                        score: None,
                        exit: None,
                        signal: None,
                        stdout: None,
                        stderr: None,
                    };
                    sheet.add(test, blank, None);
                }
                None => {}
            }
        }
        let detected = self.policy.drift.then(|| identify(&self.tools.languages, self.source)).flatten();
        Ok(sheet.verdict(self.policy.measured, detected.map(|l| l.name.clone())))
    }

    fn build(&mut self, test: &Test, limits: &RunLimits) -> Result<Built, Fault> {
        let appended = match (&test.code, &test.file) {
            (Some(code), None) => Some(assertions::append(self.source, code, self.language)),
            _ => None,
        };
        let order = Order {
            language: self.language,
            source: appended.as_deref().unwrap_or(self.source),
            beside: Vec::new(),
            main: test.file.as_deref().zip(test.code.as_deref()),
            memory_bytes: limits.memory_bytes,
            compile: limits::COMPILE,
            forks: true,
        };
        let _turn = self.gate.shared();
        build::build(self.tools, self.sandbox, &order, self.note)
    }

    /// Runs a test; again and alone, where the limits may have been passed because of others.
    fn run(&mut self, test: &Test, ready: &Ready, limits: RunLimits) -> Result<Ran, Fault> {
        let gate = self.gate;
        let first = {
            let _turn = gate.shared();
            self.attempt(test, ready, limits::lenient(limits))?
        };
        if !limits::borderline(&limits, &first.finished.outcome) {
            return Ok(first);
        }
        let _turn = gate.alone();
        self.attempt(test, ready, limits)
    }

    fn attempt(&mut self, test: &Test, ready: &Ready, limits: RunLimits) -> Result<Ran, Fault> {
        let run = Run {
            arguments: ready.arguments.clone(),
            environment: ready.environment.clone(),
            limits,
            kind: Kind::Test,
            server: ready.server.clone(),
        };
        let input = test.input.as_deref().unwrap_or_default().as_bytes();
        match test.kind {
            TestKind::Stdio | TestKind::Assert => {
                let finished = self.sandbox.run(&run, input)?;
                Ok(Ran { finished, fetched: Vec::new(), interactor: None })
            }
            TestKind::Files => {
                let extras = Extras {
                    files: test.files.iter().map(|f| (f.name.as_str(), f.content.as_bytes())).collect(),
                    fetch: test.outputs.iter().map(|f| f.name.as_str()).collect(),
                    ends: None,
                };
                let Detailed { finished, fetched, .. } = self.sandbox.run_with(&run, input, extras)?;
                Ok(Ran { finished, fetched, interactor: None })
            }
            TestKind::Interactive => {
                let checker = checker_of(self.problem, test);
                self.stand(checker)?;
                let Some(helper) = self.helper else { return Err(Fault("no interactor stands".into())) };
                let answer = test.output.as_deref().unwrap_or_default().as_bytes();
                let (finished, interactor, first) =
                    interactive::run(self.sandbox, &run, helper, input, answer)?;
                Ok(Ran { finished, fetched: Vec::new(), interactor: Some((interactor, first)) })
            }
        }
    }

    /// Makes the problem's checker program stand in the helper's sandbox.
    fn stand(&mut self, checker: &Checker) -> Result<(), Fault> {
        let Checker::Program { language, source, files } = checker else {
            return Err(Fault("the checker is no program".into()));
        };
        let language = self.tools.languages.by_spelling(language);
        let language = language.ok_or_else(|| Fault("the checker's language is unknown".into()))?;
        let helper = match self.helper {
            Some(helper) => helper,
            None => self.helper.insert(Helper::new((self.start_helper)(language)?)),
        };
        helper.build(self.tools, helper::Source { language, source, files })
    }

    fn examine(&mut self, test: &Test, ran: &Ran) -> Result<TestVerdict, Fault> {
        let outcome = &ran.finished.outcome;
        let own = own_failure(outcome);
        let grade = match (own, &ran.interactor) {
            (_, Some((interactor, program_first))) => {
                interactive::grade(own, interactor, *program_first, self.policy.presentation)?
            }
            (Some(status), None) => Grade { status, score: None },
            (None, None) => self.grade(test, ran)?,
        };
        // What a limit cut short says where the clock stood, not what the program is; and which of two joined programs
        // had written how much when the other ended is chance.
        let whole = outcome.exceeded.is_none() && ran.interactor.is_none();
        let text = |bytes: &[u8]| (self.policy.excerpts && whole).then(|| excerpt(bytes));
        Ok(TestVerdict {
            status: grade.status,
            score: grade.score,
            exit: outcome.exit.filter(|_| whole),
            signal: outcome.signal.filter(|_| whole),
            stdout: text(&ran.finished.stdout),
            stderr: text(&ran.finished.stderr),
        })
    }

    /// What stdout and the output files are worth: the first that is wrong decides.
    fn grade(&mut self, test: &Test, ran: &Ran) -> Result<Grade, Fault> {
        if test.kind == TestKind::Assert {
            return Ok(Grade::RIGHT);
        }
        let stdout = test.output.as_deref().map(|expected| (Some(&ran.finished.stdout), expected));
        let files = ran.fetched.iter().zip(&test.outputs).map(|(got, f)| (got.as_ref(), f.content.as_str()));
        let mut total = Grade::RIGHT;
        for (got, expected) in stdout.into_iter().chain(files) {
            let Some(got) = got else { return Ok(Grade { status: Status::WA, score: None }) };
            let one = self.compare(test, got, expected)?;
            if total.status == Status::AC {
                total.status = one.status;
            }
            total.score = match (total.score, one.score) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        Ok(total)
    }

    fn compare(&mut self, test: &Test, output: &[u8], expected: &str) -> Result<Grade, Fault> {
        let checker = checker_of(self.problem, test);
        if !matches!(checker, Checker::Program { .. }) {
            let status = checker::grade(checker, output, expected.as_bytes(), self.policy.presentation);
            return Ok(Grade { status, score: None });
        }
        let gate = self.gate;
        let _turn = gate.shared();
        self.stand(checker)?;
        let Some(helper) = self.helper else { return Err(Fault("no checker stands".into())) };
        let input = test.input.as_deref().unwrap_or_default().as_bytes();
        let end = helper.run(input, output, expected.as_bytes(), None)?;
        helper::grade(&end.finished, self.policy.presentation)
    }
}

/// How the program failed by itself, whatever it printed.
fn own_failure(outcome: &Outcome) -> Option<Status> {
    match outcome.exceeded {
        Some(Exceeded::Cpu | Exceeded::Wall) => Some(Status::TLE),
        Some(Exceeded::Memory) => Some(Status::MLE),
        Some(Exceeded::Output) => Some(Status::OLE),
        None if outcome.signal == Some(libc::SIGXCPU) => Some(Status::TLE),
        None if outcome.exit != Some(0) => Some(Status::RE),
        None => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use cognate_languages::Languages;

    #[test]
    fn coverage_keeps_the_smaller_share_and_at_least_one() {
        let table = Languages::builtin();
        let test = |size| Test { size: Some(size), ..Test::default() };
        let problem = Problem { tests: [5, 1, 9, 3].map(test).to_vec(), ..Problem::default() };
        let sizes = |coverage| {
            let tests = selected(&problem, table.get("c").unwrap(), coverage);
            tests.iter().filter_map(|t| t.size).collect::<Vec<_>>()
        };
        assert_eq!(sizes(1.0), [5, 1, 9, 3]);
        assert_eq!(sizes(0.5), [1, 3]);
        assert_eq!(sizes(0.25), [1]);
        assert_eq!(sizes(0.01), [1]);
    }
}
