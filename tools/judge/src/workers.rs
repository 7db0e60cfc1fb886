//! The workers: a thread each, with a sandbox each, taking programs from one queue.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex};

use cognate_languages::Language;
use cognate_records::{Problem, Status, Verdict};

use crate::alone::Gate;
use crate::filter::Event;
use crate::helper::Helper;
use crate::judge::{self, Judge, Policy};
use crate::sandbox::Fault;
use crate::sandbox::kinds::{Kind, Kinds, Standing};
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
    pub queue: Mutex<Receiver<Job>>,
    pub stop: AtomicBool,
    pub said: Mutex<Vec<String>>,
    pub quiet: bool,
}

impl Shared {
    fn note(&self, text: String) {
        let mut said = self.said.lock().expect("no thread panics while it holds this");
        if !self.quiet && !said.contains(&text) {
            eprintln!("note: {text}");
            said.push(text);
        }
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
                    // Nothing of the old sandboxes is kept.
                    self.standing.drop(job.kind);
                    self.helper = None;
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
pub fn work(shared: &Shared, index: usize, events: &Sender<Event>) {
    let mut bench = Bench::new(shared, index);
    loop {
        let job = match shared.queue.lock().expect("no thread panics while it holds this").recv() {
            Ok(job) if !shared.stop.load(Ordering::Relaxed) => job,
            _ => return,
        };
        let event = match bench.judge(&job) {
            Ok(verdict) => Event::Judged(job.ticket, Box::new(verdict)),
            Err(error) => Event::Failed(error),
        };
        let failed = matches!(event, Event::Failed(_));
        if events.send(event).is_err() || failed {
            return;
        }
    }
}
