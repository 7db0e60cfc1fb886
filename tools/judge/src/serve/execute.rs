//! One request's program, from its source to what SandboxFusion says of a run.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use cognate_languages::Language;

use super::types::{CommandResult, CommandStatus, RunCode, RunCodeResult, RunStatus};
use crate::build::{self, Built, Order, Ready};
use crate::limits;
use crate::sandbox::wire::{Exceeded, Kind, Run, RunLimits};
use crate::sandbox::{Detailed, Extras, Fault, Finished, kinds};
use crate::workers::{Bench, Shared};

/// A program with what its runs may use.
pub struct Task<'a> {
    pub language: &'a Language,
    pub code: &'a str,
    pub files: Vec<(&'a str, Vec<u8>)>,
    pub fetch: Vec<&'a str>,
    pub compile_seconds: f64,
    pub run: RunLimits,
}

impl<'a> Task<'a> {
    /// # Errors
    /// What is wrong with the request.
    pub fn new(shared: &Shared, language: &'a Language, request: &'a RunCode) -> Result<Self, String> {
        let files = request
            .files
            .iter()
            .filter_map(|(name, content)| Some((name, content.as_ref()?)))
            .map(|(name, content)| match STANDARD.decode(content) {
                Ok(bytes) => Ok((name.as_str(), bytes)),
                Err(e) => Err(format!("file {name:?}: no base64: {e}")),
            })
            .collect::<Result<Vec<_>, _>>()?;
        let names = files.iter().map(|f| f.0).chain(request.fetch_files.iter().map(String::as_str));
        names.into_iter().try_for_each(relative)?;
        let run = run_limits(shared, language, request.run_timeout, request.memory_limit_mb);
        Ok(Self {
            language,
            code: &request.code,
            files,
            fetch: request.fetch_files.iter().map(String::as_str).collect(),
            compile_seconds: request.compile_timeout,
            run,
        })
    }

    /// Builds the program and runs it on each input. Without inputs it is only built.
    ///
    /// # Errors
    /// When the sandbox fails, also the second time.
    pub fn execute(
        &self,
        shared: &Shared,
        bench: &mut Bench<'_>,
        inputs: &[&[u8]],
    ) -> Result<Vec<RunCodeResult>, String> {
        let kind = shared.kinds.of(self.language)?;
        let mut last = String::new();
        for _ in 0..2 {
            match self.once(shared, bench, kind, inputs) {
                Ok(results) => return Ok(results),
                Err(fault) => {
                    bench.clear(kind);
                    last = fault.to_string();
                }
            }
        }
        Err(last)
    }

    fn once(
        &self,
        shared: &Shared,
        bench: &mut Bench<'_>,
        kind: kinds::Kind,
        inputs: &[&[u8]],
    ) -> Result<Vec<RunCodeResult>, Fault> {
        let sandbox = bench.sandbox(kind)?;
        let time = micros(self.compile_seconds);
        // A program can include only what lies beside it; all files lie in its working folder.
        let beside = self.files.iter().filter(|(name, _)| !name.contains('/'));
        let order = Order {
            language: self.language,
            source: self.code,
            beside: beside.map(|(name, bytes)| (*name, bytes.as_slice())).collect(),
            main: None,
            memory_bytes: self.run.memory_bytes,
            compile: RunLimits { cpu_us: time, wall_us: time, ..limits::COMPILE },
            forks: true,
        };
        let _turn = shared.gate.shared();
        let ready = match build::build(&shared.tools, sandbox, &order, &|text| shared.note(text))? {
            Built::Ready(ready) => ready,
            Built::Refused(finished) => {
                let refused = result(Some(&finished), None, BTreeMap::new());
                return Ok(inputs.iter().map(|_| refused.clone()).collect());
            }
        };
        let compiled = ready.compiled.as_ref();
        let extras = !self.files.is_empty() || !self.fetch.is_empty();
        inputs
            .iter()
            .map(|input| {
                let run = self.command(&ready);
                if !extras {
                    let finished = sandbox.run(&run, input)?;
                    return Ok(result(compiled, Some(&finished), BTreeMap::new()));
                }
                let files = self.files.iter().map(|(name, bytes)| (*name, bytes.as_slice())).collect();
                let extras = Extras { files, fetch: self.fetch.clone(), ends: None };
                let Detailed { finished, fetched, .. } = sandbox.run_with(&run, input, extras)?;
                let found = self.fetch.iter().zip(fetched);
                let found =
                    found.filter_map(|(name, bytes)| Some(((*name).to_owned(), STANDARD.encode(bytes?))));
                Ok(result(compiled, Some(&finished), found.collect()))
            })
            .collect()
    }

    fn command(&self, ready: &Ready) -> Run {
        Run {
            arguments: ready.arguments.clone(),
            environment: ready.environment.clone(),
            limits: self.run,
            kind: Kind::Test,
            server: ready.server.clone(),
        }
    }
}

fn micros(seconds: f64) -> u64 {
    (seconds * 1e6) as u64
}

/// The server's limits, with the request's time and memory. Time is wall time, as at SandboxFusion, and bounds the CPU
/// time too.
pub fn run_limits(shared: &Shared, language: &Language, seconds: f64, memory_mb: i64) -> RunLimits {
    let problem = cognate_records::Problem::default();
    let test = cognate_records::Test::default();
    let own = limits::of_test(&shared.policy.defaults, &problem, &test, language);
    let memory = u64::try_from(memory_mb).ok().filter(|&m| m > 0).map(|m| (m + language.startup_mb) << 20);
    let time = micros(seconds) + language.startup_ms * 1000;
    RunLimits {
        cpu_us: time,
        wall_us: time,
        memory_bytes: memory.unwrap_or(own.memory_bytes).min(own.memory_bytes),
        ..own
    }
}

fn relative(name: &str) -> Result<(), String> {
    let path = std::path::Path::new(name);
    let inside = path.components().all(|c| matches!(c, std::path::Component::Normal(_)));
    if inside && !name.is_empty() && name.len() < 1000 && !name.contains('\0') {
        Ok(())
    } else {
        Err(format!("file {name:?} is not below the working folder"))
    }
}

fn result(
    compiled: Option<&Finished>,
    run: Option<&Finished>,
    files: BTreeMap<String, String>,
) -> RunCodeResult {
    let (compile_result, run_result) = (compiled.map(command), run.map(command));
    let good = |c: &CommandResult| c.status == CommandStatus::Finished && c.return_code == Some(0);
    let success = compile_result.iter().chain(&run_result).all(good);
    RunCodeResult {
        status: if success { RunStatus::Success } else { RunStatus::Failed },
        message: String::new(),
        compile_result,
        run_result,
        executor_pod_name: None,
        files,
    }
}

/// A limit of memory or output is a kill, as the client knows no other word for it.
fn command(finished: &Finished) -> CommandResult {
    let outcome = &finished.outcome;
    let text = |bytes: &[u8]| Some(String::from_utf8_lossy(bytes).into_owned());
    let (status, return_code) = match outcome.exceeded {
        Some(Exceeded::Cpu | Exceeded::Wall) => (CommandStatus::TimeLimitExceeded, None),
        Some(Exceeded::Memory | Exceeded::Output) => (CommandStatus::Finished, Some(-libc::SIGKILL)),
        None => (CommandStatus::Finished, outcome.exit.or(outcome.signal.map(|s| -s))),
    };
    CommandResult {
        status,
        execution_time: Some(outcome.wall_us as f64 / 1e6),
        cpu_time: Some(outcome.cpu_us as f64 / 1e6),
        return_code,
        stdout: text(&finished.stdout),
        stderr: text(&finished.stderr),
    }
}
