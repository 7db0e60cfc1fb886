//! The workers: a thread each, with a sandbox each, taking programs from one queue.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex};

use cognate_languages::Language;
use cognate_records::{Problem, Status, Verdict};

use crate::alone::Gate;
use crate::event::Event;
use crate::helper::Helper;
use crate::judge::{self, Judge, Policy};
use crate::key::Keys;
use crate::results::Results;
use crate::sandbox::kinds::{Kind, Kinds, Standing};
use crate::sandbox::{Fault, Sandbox};
use crate::sheet;
use crate::toolchain::Toolchains;

/// A program to judge; `ticket` comes back with the verdict.
pub struct Job {
    pub ticket: u64,
    pub language: String,
    pub kind: Kind,
    pub source: String,
    pub problem: Arc<Problem>,
}

/// What all workers share.
pub struct Shared {
    pub tools: Toolchains,
    pub policy: Policy,
    pub gate: Gate,
    pub kinds: Kinds,
    /// Verdicts kept on disk, where that was asked for.
    pub results: Option<Mutex<Results>>,
    keys: Keys,
    said: Mutex<Vec<String>>,
    quiet: bool,
}

impl Shared {
    pub fn new(kinds: Kinds, tools: Toolchains, policy: Policy, quiet: bool) -> Self {
        let notice = kinds.notice();
        let shared = Self {
            tools,
            policy,
            gate: Gate::default(),
            kinds,
            results: None,
            keys: Keys::default(),
            said: Mutex::default(),
            quiet,
        };
        if let Some(text) = notice {
            shared.note(text);
        }
        shared
    }

    /// Says something on stderr, once.
    pub fn note(&self, text: String) {
        let mut said = self.said.lock().expect("no thread panics while it holds this");
        if !self.quiet && !said.contains(&text) {
            cognate_cli::say(format_args!("note: {text}"));
            said.push(text);
        }
    }
}

/// Jobs for whoever is free.
pub struct Queue {
    jobs: Mutex<Receiver<Job>>,
    stop: AtomicBool,
}

impl Queue {
    pub fn new(jobs: Receiver<Job>) -> Self {
        Self { jobs: Mutex::new(jobs), stop: AtomicBool::new(false) }
    }

    /// Nobody waits for verdicts any more.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    fn next(&self) -> Option<Job> {
        let job = self.jobs.lock().expect("no thread panics while it holds this").recv().ok();
        job.filter(|_| !self.stop.load(Ordering::Relaxed))
    }
}

/// Sandboxes of checker programs are numbered from here, those of workers from 0.
const HELPERS: usize = 2000;

/// A worker's sandboxes.
pub struct Bench<'a> {
    shared: &'a Shared,
    index: usize,
    standing: Standing,
    helper: Option<Helper>,
}

impl<'a> Bench<'a> {
    pub fn new(shared: &'a Shared, index: usize) -> Self {
        Self { shared, index, standing: Standing::default(), helper: None }
    }

    /// The sandbox of a kind, started where there is none.
    ///
    /// # Errors
    /// When it cannot be built.
    pub fn sandbox(&mut self, kind: Kind) -> Result<&mut dyn Sandbox, Fault> {
        self.standing.get(&self.shared.kinds, kind, self.index)
    }

    /// Takes down what a fault may have touched.
    pub fn clear(&mut self, kind: Kind) {
        self.standing.drop(kind);
        self.helper = None;
    }

    /// The verdict kept on this program, or a new one, which is kept.
    ///
    /// # Errors
    /// As [`Bench::judge`]; and when the verdict cannot be kept.
    fn judge_or_recall(&mut self, job: &Job) -> anyhow::Result<Verdict> {
        let shared = self.shared;
        let (Some(results), Some(language)) = (&shared.results, shared.tools.languages.get(&job.language))
        else {
            return self.judge(job);
        };
        let key =
            shared.keys.of(&shared.tools, &shared.policy, job.kind, language, &job.problem, &job.source);
        let lock = || results.lock().expect("no thread panics while it holds this");
        let kept = lock().get(key);
        if let Some(verdict) = kept {
            return Ok(verdict);
        }
        let verdict = self.judge(job)?;
        if verdict.status != Status::IE {
            lock().put(key, &verdict)?;
        }
        Ok(verdict)
    }

    /// Judges a program; after a fault of the sandbox or of the problem's checker once more.
    ///
    /// # Errors
    /// When there is no sandbox, or none of the kind that the problem needs: no verdict on anything.
    pub fn judge(&mut self, job: &Job) -> anyhow::Result<Verdict> {
        let mut last = String::new();
        for _ in 0..2 {
            match self.judge_once(job)? {
                Ok(verdict) => return Ok(verdict),
                Err(fault) => {
                    self.clear(job.kind);
                    last = fault.to_string();
                    self.shared
                        .note(format!("problem {:?}: judged again after a fault: {last}", job.problem.id));
                }
            }
        }
        Ok(sheet::bare(Status::IE, None, 0, Some(last)))
    }

    fn judge_once(&mut self, job: &Job) -> anyhow::Result<Result<Verdict, Fault>> {
        let (shared, index) = (self.shared, self.index);
        let Some(language) = shared.tools.languages.get(&job.language) else {
            return Ok(Err(Fault(format!("unknown language {}", job.language))));
        };
        let sandbox = self
            .standing
            .get(&shared.kinds, job.kind, index)
            .map_err(|fault| anyhow::anyhow!("no sandbox: {fault}"))?;
        let selected = judge::selected(&job.problem, language, shared.policy.coverage);
        if judge::needs_extras(&selected) && !sandbox.has_extras() {
            return Err(cognate_cli::rejected(anyhow::anyhow!(
                "problem {:?} needs files or an interactor, which this kind of sandbox does not have; use --sandbox \
                 container",
                job.problem.id
            )));
        }
        let start_helper = |language: &Language| {
            let kind = shared.kinds.of(language).map_err(Fault)?;
            shared.kinds.start(kind, HELPERS + index)
        };
        let mut judge = Judge {
            tools: &shared.tools,
            policy: &shared.policy,
            gate: &shared.gate,
            sandbox,
            helper: &mut self.helper,
            start_helper: &start_helper,
            language,
            problem: &job.problem,
            source: &job.source,
            note: &|text| shared.note(text),
        };
        Ok(judge.verdict())
    }
}

/// Works until the queue ends.
pub fn work(shared: &Shared, queue: &Queue, index: usize, events: &Sender<Event>) {
    let mut bench = Bench::new(shared, index);
    while let Some(job) = queue.next() {
        let event = match bench.judge_or_recall(&job) {
            Ok(verdict) => Event::Judged(job.ticket, Box::new(verdict)),
            Err(error) => Event::Failed(error),
        };
        let failed = matches!(event, Event::Failed(_));
        if events.send(event).is_err() || failed {
            return;
        }
    }
}
