//! From a program and a problem to a verdict.

use cognate_languages::{Language, identify};
use cognate_records::{Checker, Limits, Measured, Problem, Status, Test, TestKind, TestVerdict, Verdict};

use crate::sandbox::wire::{Exceeded, Kind, Run, RunLimits};
use crate::sandbox::{Fault, Finished, Sandbox};
use crate::toolchain::{Names, Toolchains};
use crate::{checker, java};

/// What the command line decides about judging.
#[derive(Debug, Clone)]
pub struct Policy {
    pub first_failure: bool,
    pub excerpts: bool,
    pub measured: bool,
    pub drift: bool,
    /// Share of the tests, smallest inputs first.
    pub coverage: f64,
    pub defaults: Limits,
}

/// Longest excerpt and message, in bytes.
const EXCERPT: usize = 1000;
const COMPILE: RunLimits = RunLimits {
    cpu_us: 60_000_000,
    wall_us: 180_000_000,
    memory_bytes: 2 << 30,
    processes: 256,
    file_bytes: 512 << 20,
    output_bytes: 4 << 20,
};

/// The tests that count for a language, in order of size, within the coverage.
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

fn run_limits(policy: &Policy, problem: &Problem, test: &Test, language: &Language) -> RunLimits {
    let layers = [test.limits.as_ref(), problem.limits.as_ref(), Some(&policy.defaults)];
    let pick = |of: fn(&Limits) -> Option<u64>, builtin: u64| {
        layers.iter().flatten().find_map(|l| of(l)).unwrap_or(builtin)
    };
    let cpu_ms = pick(|l| l.cpu_ms, 2000) + language.startup_ms;
    let wall_ms = layers.iter().flatten().find_map(|l| l.wall_ms).unwrap_or(cpu_ms * 3 + 1000);
    RunLimits {
        cpu_us: cpu_ms * 1000,
        wall_us: wall_ms * 1000,
        memory_bytes: (pick(|l| l.memory_mb, 512) + language.startup_mb) << 20,
        processes: pick(|l| l.processes, 32) + language.startup_processes,
        file_bytes: pick(|l| l.file_mb, 64) << 20,
        output_bytes: pick(|l| l.output_kb, 16 * 1024) << 10,
    }
}

/// One program being judged.
pub struct Judge<'a> {
    pub tools: &'a Toolchains,
    pub policy: &'a Policy,
    pub sandbox: &'a mut dyn Sandbox,
    pub language: &'a Language,
    pub problem: &'a Problem,
    pub source: &'a str,
    /// Says once why a fork server does not stand.
    pub note: &'a dyn Fn(String),
}

/// A program that is ready to run, or what the compiler said.
enum Built {
    Ready { arguments: Vec<String>, server: Option<String>, cpu_us: u64 },
    Refused { message: String, cpu_us: u64 },
}

impl Judge<'_> {
    /// # Errors
    /// When the sandbox fails; the program is not to blame, and may be judged again.
    pub fn verdict(&mut self) -> Result<Verdict, Fault> {
        let tests = selected(self.problem, self.language, self.policy.coverage);
        let mut sheet = Sheet { total: tests.len() as u32, ..Sheet::default() };
        let mut built: Option<(bool, Built)> = None;
        for (index, test) in tests.iter().enumerate() {
            let is_assert = test.kind == TestKind::Assert;
            let limits = run_limits(self.policy, self.problem, test, self.language);
            // One build serves all stdio tests; assertion code makes a program of its own.
            if built.as_ref().is_none_or(|(assert, _)| is_assert || *assert) {
                let source = match (&test.code, is_assert) {
                    (Some(code), true) => with_assertions(self.source, code, self.language),
                    _ => self.source.to_owned(),
                };
                built = Some((is_assert, self.build(&source, &limits)?));
            }
            let Some((_, built)) = &built else { continue };
            match built {
                Built::Refused { message, cpu_us } => {
                    sheet.compile_us += cpu_us;
                    sheet.message.get_or_insert_with(|| message.clone());
                    sheet.add(TestVerdict {
                        status: Status::CE,
                        exit: None,
                        signal: None,
                        stdout: None,
                        stderr: None,
                    });
                    if !is_assert {
                        // The same program fails to compile for every other test as well.
                        sheet.tests.clear();
                        sheet.times.clear();
                        sheet.refused = true;
                        break;
                    }
                }
                Built::Ready { arguments, server, cpu_us } => {
                    if index == 0 || is_assert {
                        sheet.compile_us += cpu_us;
                    }
                    let run = Run {
                        arguments: arguments.clone(),
                        environment: self.tools.environment(self.language),
                        limits,
                        kind: Kind::Test,
                        server: server.clone(),
                    };
                    let input = test.input.as_deref().unwrap_or_default();
                    let finished = self.sandbox.run(&run, input.as_bytes())?;
                    sheet.times.push((
                        finished.outcome.cpu_us,
                        finished.outcome.wall_us,
                        finished.outcome.memory_kb,
                    ));
                    sheet.add(self.examine(test, &finished));
                }
            }
            if self.policy.first_failure && sheet.failed.is_some() {
                break;
            }
        }
        Ok(sheet.verdict(self.policy, self.detected()))
    }

    fn detected(&self) -> Option<String> {
        let found = self.policy.drift.then(|| identify(&self.tools.languages, self.source)).flatten();
        found.map(|l| l.name.clone())
    }

    fn build(&mut self, source: &str, limits: &RunLimits) -> Result<Built, Fault> {
        let (file, class) =
            if self.language.source.contains("{class}") { java::names(source) } else { Default::default() };
        let source_name = self.language.source.replace("{class}", &file);
        let names = Names { source: &source_name, class: &class, memory_mb: limits.memory_bytes >> 20 };
        let arguments = self.tools.command(&self.language.run, self.language, &names);
        let server = self.tools.server(self.language);
        if self.language.compile.is_some() {
            self.tools.prepare(self.language, self.sandbox)?;
        }
        let refusal = self.sandbox.place(&[(&source_name, source.as_bytes())], server.as_ref())?;
        if let Some(reason) = &refusal {
            (self.note)(format!("{}: no fork server, each test starts anew: {reason}", self.language.name));
        }
        let server = server.filter(|_| refusal.is_none()).map(|s| s.name);
        let Some(compile) = &self.language.compile else {
            return Ok(Built::Ready { arguments, server, cpu_us: 0 });
        };
        let run = Run {
            arguments: self.tools.command(compile, self.language, &names),
            environment: self.tools.environment(self.language),
            limits: COMPILE,
            kind: Kind::Compile,
            server: None,
        };
        let finished = self.sandbox.run(&run, b"")?;
        let cpu_us = finished.outcome.cpu_us;
        if finished.outcome.exit == Some(0) && finished.outcome.exceeded.is_none() {
            return Ok(Built::Ready { arguments, server, cpu_us });
        }
        Ok(Built::Refused { message: complaint(&finished), cpu_us })
    }

    fn examine(&self, test: &Test, finished: &Finished) -> TestVerdict {
        let outcome = &finished.outcome;
        let status = match outcome.exceeded {
            Some(Exceeded::Cpu | Exceeded::Wall) => Status::TLE,
            Some(Exceeded::Memory) => Status::MLE,
            Some(Exceeded::Output) => Status::OLE,
            None if outcome.signal == Some(libc::SIGXCPU) => Status::TLE,
            None if outcome.exit != Some(0) => Status::RE,
            None if test.kind == TestKind::Assert => Status::AC,
            None => {
                let default = Checker::default();
                let checker = test.checker.as_ref().or(self.problem.checker.as_ref()).unwrap_or(&default);
                let expected = test.output.as_deref().unwrap_or_default();
                if checker::accepts(checker, &finished.stdout, expected.as_bytes()) {
                    Status::AC
                } else {
                    Status::WA
                }
            }
        };
        // What a limit cut short says where the clock stood, not what the program is.
        let whole = outcome.exceeded.is_none();
        let text = |bytes: &[u8]| (self.policy.excerpts && whole).then(|| excerpt(bytes));
        TestVerdict {
            status,
            exit: outcome.exit.filter(|_| whole),
            signal: outcome.signal.filter(|_| whole),
            stdout: text(&finished.stdout),
            stderr: text(&finished.stderr),
        }
    }
}

/// Tests as they come in.
#[derive(Default)]
struct Sheet {
    total: u32,
    tests: Vec<TestVerdict>,
    times: Vec<(u64, u64, u64)>,
    failed: Option<Status>,
    refused: bool,
    message: Option<String>,
    compile_us: u64,
}

impl Sheet {
    fn add(&mut self, test: TestVerdict) {
        if test.status != Status::AC {
            self.failed.get_or_insert(test.status);
        }
        self.tests.push(test);
    }

    fn verdict(self, policy: &Policy, detected_language: Option<String>) -> Verdict {
        let status = self.failed.unwrap_or(Status::AC);
        let passed = self.tests.iter().filter(|t| t.status == Status::AC).count() as u32;
        let ms = |us: u64| us as f64 / 1000.0;
        let measured = policy.measured.then(|| Measured {
            cpu_ms: ms(self.times.iter().map(|t| t.0).sum()),
            wall_ms: ms(self.times.iter().map(|t| t.1).sum()),
            memory_kb: self.times.iter().map(|t| t.2).max().unwrap_or(0),
            compile_cpu_ms: (self.compile_us > 0).then(|| ms(self.compile_us)),
            tests: self.times.iter().map(|&(cpu, wall, memory)| [ms(cpu), ms(wall), memory as f64]).collect(),
        });
        Verdict {
            status,
            reward: Some(if status == Status::AC { 1.0 } else { 0.0 }),
            passed,
            run: if self.refused { 0 } else { self.tests.len() as u32 },
            total: self.total,
            tests: self.tests,
            extraction: None,
            message: self.message,
            detected_language,
            measured,
        }
    }
}

/// A verdict without a run.
pub fn bare(status: Status, reward: Option<f32>, total: u32, message: Option<String>) -> Verdict {
    Verdict {
        status,
        reward,
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

/// Program and assertions as one source. Where code stands between tags (PHP), it goes on between them.
fn with_assertions(source: &str, code: &str, language: &Language) -> String {
    let mut text = source.to_owned();
    if let Some([open, close]) = &language.tags {
        let closed = match (text.rfind(open.as_str()), text.rfind(close.as_str())) {
            (Some(o), Some(c)) => c > o,
            (None, _) => true,
            _ => false,
        };
        let opens = code.trim_start().starts_with(open.as_str());
        if closed && !opens {
            return format!("{text}{open}\n{code}\n");
        }
        if !closed && opens {
            text = format!("{}\n{close}", text.trim_end());
        }
    }
    format!("{text}\n{code}\n")
}

fn complaint(finished: &Finished) -> String {
    let what = match (finished.outcome.exceeded, finished.outcome.signal) {
        (Some(Exceeded::Cpu | Exceeded::Wall), _) => "the compiler ran out of time",
        (Some(Exceeded::Memory), _) => "the compiler ran out of memory",
        (Some(Exceeded::Output), _) => "the compiler wrote too much",
        (None, Some(_)) => "the compiler was ended by a signal",
        (None, None) => "",
    };
    if !what.is_empty() {
        return what.into();
    }
    let text = if finished.stderr.is_empty() { &finished.stdout } else { &finished.stderr };
    excerpt(text)
}

/// The beginning, as valid UTF-8.
fn excerpt(bytes: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(&bytes[..bytes.len().min(EXCERPT)]).into_owned();
    if bytes.len() > EXCERPT {
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use cognate_languages::Languages;

    #[test]
    fn assertions_go_on_between_php_tags() {
        let table = Languages::builtin();
        let php = table.get("php").unwrap();
        assert_eq!(with_assertions("<?php f();", "g();", php), "<?php f();\ng();\n");
        assert_eq!(with_assertions("<?php f(); ?>", "g();", php), "<?php f(); ?><?php\ng();\n");
        assert_eq!(with_assertions("<?php f();", "<?php g();", php), "<?php f();\n?>\n<?php g();\n");
        assert_eq!(with_assertions("f()", "g()", table.get("python").unwrap()), "f()\ng()\n");
    }

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
