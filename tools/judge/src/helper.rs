//! Checker programs and interactors: the problem's own code, in a sandbox of its own, so that a judged program can never
//! see an expected output.

use std::os::fd::OwnedFd;

use cognate_languages::Language;
use cognate_records::{Status, TestFile};

use crate::build::{self, Built, Order, Ready, complaint, excerpt};
use crate::limits;
use crate::sandbox::wire::{Kind, Run, RunLimits};
use crate::sandbox::{Detailed, Extras, Fault, Finished, Sandbox};
use crate::toolchain::Toolchains;

/// How a test's output was found.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Grade {
    pub status: Status,
    /// Share of the test, where a checker gave points.
    pub score: Option<f64>,
}

impl Grade {
    pub const RIGHT: Self = Self { status: Status::AC, score: None };
}

/// A checker or an interactor as a problem gives it.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub language: &'a Language,
    pub source: &'a str,
    pub files: &'a [TestFile],
}

/// A sandbox that holds the last helper built in it.
pub struct Helper {
    pub sandbox: Box<dyn Sandbox>,
    built: Option<(u128, Ready, RunLimits)>,
}

impl Helper {
    pub fn new(sandbox: Box<dyn Sandbox>) -> Self {
        Self { sandbox, built: None }
    }

    /// Builds a helper, unless it is the one that stands.
    ///
    /// # Errors
    /// When it does not compile, which is the problem's fault, or the sandbox fails.
    pub fn build(&mut self, tools: &Toolchains, helper: Source<'_>) -> Result<(), Fault> {
        let text = format!("{}\0{}\0{:?}", helper.language.name, helper.source, helper.files);
        let key = xxhash_rust::xxh3::xxh3_128(text.as_bytes());
        if self.built.as_ref().is_some_and(|(stands, ..)| *stands == key) {
            return Ok(());
        }
        let limits = limits::of_helper(helper.language);
        let order = Order {
            language: helper.language,
            source: helper.source,
            beside: helper.files.iter().map(|f| (f.name.as_str(), f.content.as_bytes())).collect(),
            main: None,
            memory_bytes: limits.memory_bytes,
            compile: limits::COMPILE,
            forks: false,
        };
        self.built = None;
        match build::build(tools, self.sandbox.as_mut(), &order, &|_| ())? {
            Built::Ready(ready) => self.built = Some((key, ready, limits)),
            Built::Refused(finished) => {
                return Err(Fault(format!("the checker does not compile: {}", complaint(&finished))));
            }
        }
        Ok(())
    }

    /// Runs the helper that stands with testlib's three arguments; its log, where it writes one, is not read.
    ///
    /// # Errors
    /// When the sandbox fails.
    pub fn run(
        &mut self,
        input: &[u8],
        output: &[u8],
        answer: &[u8],
        joined: Option<([OwnedFd; 2], u64)>,
    ) -> Result<Detailed, Fault> {
        let Some((_, ready, limits)) = &self.built else { return Err(Fault("no helper stands".into())) };
        let (ends, more_wall) = joined.map_or((None, 0), |(ends, wall)| (Some(ends), wall));
        let names = ["input", "output", "answer"];
        let run = Run {
            arguments: ready.arguments.iter().cloned().chain(names.map(str::to_owned)).collect(),
            environment: ready.environment.clone(),
            limits: RunLimits { wall_us: limits.wall_us + more_wall, ..*limits },
            kind: Kind::Test,
            server: None,
        };
        let files = names.into_iter().zip([input, output, answer]).collect();
        self.sandbox.run_with(&run, b"", Extras { files, fetch: Vec::new(), ends })
    }
}

/// What a checker's end means (testlib's exit codes).
///
/// # Errors
/// When the checker failed: no verdict on the program.
pub fn grade(finished: &Finished, presentation: bool) -> Result<Grade, Fault> {
    let outcome = &finished.outcome;
    let plain = |status| Ok(Grade { status, score: None });
    match (outcome.exceeded, outcome.exit) {
        (None, Some(0)) => plain(Status::AC),
        (None, Some(1)) => plain(Status::WA),
        (None, Some(2 | 4 | 8)) => plain(if presentation { Status::PE } else { Status::WA }),
        (None, Some(7)) => {
            let text = String::from_utf8_lossy(&finished.stderr);
            let points = text.split_ascii_whitespace().find_map(|word| word.parse::<f64>().ok());
            let share = points.filter(|p| (0.0..=1.0).contains(p)).ok_or_else(|| {
                Fault(format!("the checker gave no points in [0, 1]: {}", excerpt(&finished.stderr)))
            })?;
            let status = if share >= 1.0 { Status::AC } else { Status::WA };
            Ok(Grade { status, score: Some(share) })
        }
        (Some(limit), _) => Err(Fault(format!("the checker passed a limit ({limit:?})"))),
        (None, code) => Err(Fault(format!(
            "the checker failed (exit {code:?}, signal {:?}): {}",
            outcome.signal,
            excerpt(&finished.stderr)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::wire::{Exceeded, Outcome};

    fn finished(exit: i32, stderr: &str, exceeded: Option<Exceeded>) -> Finished {
        let outcome =
            Outcome { exit: Some(exit), signal: None, exceeded, cpu_us: 0, wall_us: 0, memory_kb: 0 };
        Finished { outcome, stdout: Vec::new(), stderr: stderr.into() }
    }

    #[test]
    fn exit_codes_are_testlibs() {
        let of = |code, text: &str| grade(&finished(code, text, None), false).ok();
        let is = |status| Some(Grade { status, score: None });
        assert_eq!(
            [of(0, ""), of(1, ""), of(2, ""), of(8, "")],
            [is(Status::AC), is(Status::WA), is(Status::WA), is(Status::WA)]
        );
        assert_eq!(grade(&finished(2, "", None), true).ok(), is(Status::PE));
        assert_eq!(of(7, "points 0.25 half right"), Some(Grade { status: Status::WA, score: Some(0.25) }));
        assert_eq!(of(7, "points 1"), Some(Grade { status: Status::AC, score: Some(1.0) }));
        assert_eq!([of(7, "points 70"), of(7, "many"), of(3, "FAIL"), of(139, "")], [None; 4]);
        assert!(grade(&finished(0, "", Some(Exceeded::Cpu)), false).is_err());
    }
}
