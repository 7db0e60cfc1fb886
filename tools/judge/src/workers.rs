//! The workers: a thread each, with a sandbox each, taking programs from one queue.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, Mutex};

use cognate_records::{Problem, Status, Verdict};

use crate::filter::Event;
use crate::judge::{self, Judge, Policy};
use crate::sandbox::Fault;
use crate::sandbox::kinds::{Kind, Kinds, Standing};
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

/// Works until the queue ends.
pub fn work(shared: &Shared, index: usize, events: &Sender<Event>) {
    let mut sandboxes = Standing::default();
    loop {
        let job = match shared.queue.lock().expect("no thread panics while it holds this").recv() {
            Ok(job) if !shared.stop.load(Ordering::Relaxed) => job,
            _ => return,
        };
        let verdict = match judge_once(shared, index, &mut sandboxes, &job) {
            Ok(verdict) => verdict,
            // A sandbox that cannot even be built is no verdict on anything.
            Err(fault) if !sandboxes.stands(job.kind) => {
                let _ = events.send(Event::Failed(anyhow::anyhow!("no sandbox: {fault}")));
                return;
            }
            Err(first) => {
                shared.note(format!("the sandbox failed and the program is judged again: {first}"));
                sandboxes.drop(job.kind);
                match judge_once(shared, index, &mut sandboxes, &job) {
                    Ok(verdict) => verdict,
                    Err(fault) if !sandboxes.stands(job.kind) => {
                        let _ = events.send(Event::Failed(anyhow::anyhow!("no sandbox: {fault}")));
                        return;
                    }
                    Err(fault) => {
                        sandboxes.drop(job.kind);
                        judge::bare(Status::IE, None, 0, Some(fault.to_string()))
                    }
                }
            }
        };
        if events.send(Event::Judged(job.ticket, Box::new(verdict))).is_err() {
            return;
        }
    }
}

fn judge_once(shared: &Shared, index: usize, sandboxes: &mut Standing, job: &Job) -> Result<Verdict, Fault> {
    let sandbox = sandboxes.get(&shared.kinds, job.kind, index)?;
    let language = shared
        .tools
        .languages
        .get(&job.language)
        .ok_or_else(|| Fault(format!("unknown language {}", job.language)))?;
    let mut judge = Judge {
        tools: &shared.tools,
        policy: &shared.policy,
        sandbox,
        language,
        problem: &job.problem,
        source: &job.source,
        note: &|text| shared.note(text),
    };
    judge.verdict()
}
