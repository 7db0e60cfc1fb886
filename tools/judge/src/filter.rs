//! The stream: a reader thread (intake.rs), the workers, and the main thread, which writes finished lines, in the order
//! of the input or as they come. Memory is bounded by a window of lines that are read but not yet written.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex};

use anyhow::anyhow;
use cognate_cli::{Common, rejected, usage};
use cognate_languages::Languages;
use cognate_records::Provenance;

use crate::cli::Filter;
use crate::desk::{Desk, Done};
use crate::event::Event;
use crate::image::System;
use crate::intake::Intake;
use crate::judge::Policy;
use crate::problems::Problems;
use crate::results::Results;
use crate::sandbox::kinds;
use crate::sink::{Sink, is_parquet};
use crate::workers::{self, Queue, Shared};

/// Lines in flight for each worker: so many can be judged while the first of them runs into its limit. Their bytes are
/// bounded too (desk.rs).
const WINDOW: usize = 4096;

/// Statuses and ways of extraction, counted.
#[derive(Default)]
struct Counts {
    statuses: BTreeMap<String, u64>,
    extraction: BTreeMap<&'static str, u64>,
}

fn check(filter: &Filter) -> anyhow::Result<()> {
    if filter.tests.is_empty() {
        return Err(usage("--tests FILE is needed: the problems with their tests"));
    }
    if !(filter.coverage > 0.0 && filter.coverage <= 1.0) {
        return Err(usage(format!("--coverage must be above 0 and at most 1, not {}", filter.coverage)));
    }
    if filter.resume && (filter.output.as_os_str() == "-" || !is_file_to_be(&filter.output)) {
        return Err(usage("--resume needs an output file, -o FILE"));
    }
    Ok(())
}

fn is_file_to_be(path: &Path) -> bool {
    std::fs::metadata(path).map_or(true, |m| m.is_file())
}

/// `FILE`'s verdicts so far, beside it.
fn unfinished(output: &Path) -> PathBuf {
    let name = output.file_name().map_or_else(String::new, |n| n.to_string_lossy().into_owned());
    output.with_file_name(format!(".{name}.unfinished"))
}

/// # Errors
/// Bad records (exit code 3), a sandbox that cannot be built, output that cannot be written.
pub fn run(common: &Common, filter: &Filter) -> anyhow::Result<()> {
    check(filter)?;
    let languages = Languages::load(filter.languages.as_deref()).map_err(rejected)?;
    let problems = Problems::open(&filter.tests, &languages)?;
    let threads = common.threads();
    let system = System::open(filter.sandbox.rootfs.as_deref())?;
    let runtime = filter.sandbox.oci_runtime.as_deref();
    let (tools, kinds) =
        kinds::open(filter.sandbox.kind, languages, !filter.no_fork_server, threads, system, runtime)
            .map_err(|fault| anyhow!("no sandbox: {fault}"))?;
    if let Some(warning) = kinds.warning() {
        common.note(warning);
    }
    let stack = kinds.thread_stack();
    let (jobs, queue) = mpsc::sync_channel(threads * 2);
    let (events, inbox) = mpsc::channel();
    let policy = Policy {
        first_failure: filter.first_failure,
        presentation: filter.presentation,
        excerpts: filter.excerpts,
        measured: filter.measured,
        drift: filter.drift,
        coverage: filter.coverage,
        defaults: filter.limits.limits(),
    };
    let mut shared = Shared::new(kinds, tools, policy, common.quiet);
    let journal = filter.resume.then(|| unfinished(&filter.output));
    if let Some(path) = journal.as_ref().or(filter.result_cache.as_ref()) {
        if let Some(parent) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent)?;
        }
        let results = Results::open(path)?;
        if results.len() > 0 {
            common.note(format_args!("{}: {} verdicts kept", path.display(), results.len()));
        }
        shared.results = Some(Mutex::new(results));
    }
    let shared = Arc::new(shared);
    let desk = Arc::new(Desk::new(threads * WINDOW, !filter.no_result_cache));
    let queue = Arc::new(Queue::new(queue));
    let mut workers = Vec::new();
    for index in 0..threads {
        let (shared, queue, events) = (shared.clone(), queue.clone(), events.clone());
        let worker = std::thread::Builder::new().stack_size(stack);
        workers.push(worker.spawn(move || workers::work(&shared, &queue, index, &events))?);
    }
    let rule = filter.extract.clone();
    let reader = Intake { shared, desk: desk.clone(), problems, rule, jobs, events, next: 0 };
    let inputs = filter.input.clone();
    let keep_going = common.keep_going;
    // Detached on purpose: it may be waiting for input when a failure ends the run.
    std::thread::spawn(move || reader.read_all(&inputs, keep_going));

    let outcome = write_all(common, filter, &desk, &inbox);
    queue.stop();
    if outcome.is_ok() {
        // So that their sandboxes are taken down in order. After a failure the kernel does it.
        for worker in workers {
            let _ = worker.join();
        }
    }
    let counts = outcome?;
    if let Some(journal) = journal {
        let _ = std::fs::remove_file(journal);
    }
    report(common, &counts, desk.skipped());
    Ok(())
}

fn report(common: &Common, counts: &Counts, skipped: u64) {
    if common.json {
        cognate_cli::say(
            serde_json::json!({ "judged": counts.statuses, "extraction": counts.extraction, "skipped": skipped }),
        );
        return;
    }
    let total: u64 = counts.statuses.values().sum();
    let list: Vec<String> = counts.statuses.iter().map(|(status, n)| format!("{status} {n}")).collect();
    let tail = if skipped > 0 { format!(", {skipped} lines skipped") } else { String::new() };
    common.note(format_args!("judged {total}: {}{tail}", list.join(", ")));
    if !counts.extraction.is_empty() {
        let list: Vec<String> = counts.extraction.iter().map(|(found, n)| format!("{found} {n}")).collect();
        common.note(format_args!("programs and answers found: {}", list.join(", ")));
    }
}

/// Writes lines as soon as all before them are written, or, unordered, as soon as they are there.
fn write_all(
    common: &Common,
    filter: &Filter,
    desk: &Desk,
    inbox: &Receiver<Event>,
) -> anyhow::Result<Counts> {
    let follows = filter.output.as_os_str() == "-";
    let parquet = is_parquet(&filter.output);
    // Parquet carries its history from the start. Beside JSONL it is written last: reading a pipe twice is no good.
    let early = if parquet { Some(history(common, filter)?) } else { None };
    let mut out = Sink::create(&filter.output, early)?;
    let progress = common.progress("judging", None);
    let mut counts = Counts::default();
    let mut waiting: BTreeMap<u64, Done> = BTreeMap::new();
    let (mut written, mut end) = (0, None);
    while end != Some(written) {
        let event = match inbox.try_recv() {
            Ok(event) => event,
            Err(_) => {
                // Nothing more is ready: whoever reads on the other side must not wait for what is.
                if follows {
                    out.flush()?;
                }
                inbox.recv().map_err(|_| anyhow!("every worker is gone"))?
            }
        };
        match event {
            Event::Line(done) => {
                waiting.insert(done.at, done);
            }
            Event::Judged(ticket, verdict) => {
                waiting.extend(desk.answer(ticket, &verdict).into_iter().map(|done| (done.at, done)));
            }
            Event::End(lines) => end = Some(lines),
            Event::Failed(error) => {
                // What was judged before the failure is still worth having, on a stream.
                if follows {
                    out.flush()?;
                }
                return Err(error);
            }
        }
        while let Some(entry) = waiting.first_entry()
            && (filter.unordered || *entry.key() == written)
        {
            let done = entry.remove();
            out.write(&done.text)?;
            written += 1;
            desk.leave(done.weight);
            if let Some(found) = done.found {
                *counts.extraction.entry(found.name()).or_default() += 1;
            }
            if let Some(status) = done.status {
                *counts.statuses.entry(format!("{status:?}")).or_default() += 1;
                progress.inc(1);
            }
        }
    }
    progress.finish();
    // Before the output takes its place, which may be that of an input.
    let late = if follows || parquet { None } else { Some(history(common, filter)?) };
    out.finish()?;
    if let Some(history) = late {
        history.write_beside(&filter.output)?;
    }
    Ok(counts)
}

fn history(common: &Common, filter: &Filter) -> anyhow::Result<Provenance> {
    let mut provenance = common.provenance("cog-judge", env!("CARGO_PKG_VERSION"));
    for path in filter.tests.iter().chain(&filter.input) {
        provenance = provenance.input(path)?;
    }
    Ok(provenance)
}
