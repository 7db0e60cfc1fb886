//! The stream: a reader thread, the workers, and the main thread, which writes finished lines in the order of the
//! input. Memory is bounded by a window of lines that are read but not yet written.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Condvar, Mutex};

use anyhow::anyhow;
use cognate_cli::{Common, rejected, usage};
use cognate_languages::Languages;
use cognate_records::{
    Error, Format, Line, LineWriter, Lines, Program, Provenance, Reader, Record, Status, Verdict,
    detect_format,
};

use crate::alone::Gate;
use crate::cli::Filter;
use crate::extract::{self, Rule};
use crate::judge::{self, Policy};
use crate::problems::{Problems, checker_languages};
use crate::record::{self, Work};
use crate::sandbox::kinds::Kinds;
use crate::sheet;
use crate::toolchain::Toolchains;
use crate::workers::{self, Job, Shared};

/// Lines in flight for each worker.
const WINDOW: usize = 128;
/// Bytes of programs whose verdicts are remembered.
const REMEMBERED: usize = 32 << 20;

/// What the main thread hears.
pub enum Event {
    /// The line at this place is finished.
    Line(u64, String, Option<Status>),
    Judged(u64, Box<Verdict>),
    /// The reader is done, after this many lines.
    End(u64),
    Failed(anyhow::Error),
}

/// # Errors
/// Bad records (exit code 3), a sandbox that cannot be built, output that cannot be written.
pub fn run(common: &Common, filter: &Filter) -> anyhow::Result<()> {
    if filter.tests.is_empty() {
        return Err(usage("--tests FILE is needed: the problems with their tests"));
    }
    if !(filter.coverage > 0.0 && filter.coverage <= 1.0) {
        return Err(usage(format!("--coverage must be above 0 and at most 1, not {}", filter.coverage)));
    }
    if filter.output.extension().is_some_and(|e| e == "parquet") {
        return Err(usage("verdicts are written as JSONL; name the output .jsonl"));
    }
    let languages = Languages::load(filter.languages.as_deref()).map_err(rejected)?;
    let problems = Problems::open(&filter.tests, &languages)?;
    let tools = Toolchains::new(languages, !filter.no_fork_server);
    let threads = common.threads();
    let (jobs, queue) = mpsc::sync_channel(threads * 2);
    let (events, inbox) = mpsc::channel();
    let shared = Arc::new(Shared {
        kinds: Kinds::new(filter.sandbox.kind, tools.host()),
        tools,
        policy: Policy {
            first_failure: filter.first_failure,
            presentation: filter.presentation,
            excerpts: filter.excerpts,
            measured: filter.measured,
            drift: filter.drift,
            coverage: filter.coverage,
            defaults: filter.limits.limits(),
        },
        gate: Gate::default(),
        queue: Mutex::new(queue),
        stop: AtomicBool::new(false),
        said: Mutex::default(),
        quiet: common.quiet,
    });
    let desk = Arc::new(Desk::new(threads * WINDOW, !filter.no_result_cache));
    let mut workers = Vec::new();
    for index in 0..threads {
        let (shared, events) = (shared.clone(), events.clone());
        workers.push(std::thread::spawn(move || workers::work(&shared, index, &events)));
    }
    let reader = Intake { shared: shared.clone(), desk: desk.clone(), problems, jobs, events, next: 0 };
    let inputs = filter.input.clone();
    let keep_going = common.keep_going;
    // Detached on purpose: it may be waiting for input when a failure ends the run.
    std::thread::spawn(move || reader.read_all(&inputs, keep_going));

    let outcome = write_all(common, filter, &desk, &inbox);
    shared.stop.store(true, Ordering::Relaxed);
    if outcome.is_ok() {
        // So that their sandboxes are taken down in order. After a failure the kernel does it.
        for worker in workers {
            let _ = worker.join();
        }
    }
    let counts = outcome?;
    let skipped = desk.skipped();
    if common.json {
        eprintln!("{}", serde_json::json!({ "judged": counts, "skipped": skipped }));
    } else {
        let total: u64 = counts.values().sum();
        let list: Vec<String> = counts.iter().map(|(status, n)| format!("{status} {n}")).collect();
        let tail = if skipped > 0 { format!(", {skipped} lines skipped") } else { String::new() };
        common.note(format_args!("judged {total}: {}{tail}", list.join(", ")));
    }
    Ok(())
}

/// Writes lines as soon as all before them are written.
fn write_all(
    common: &Common,
    filter: &Filter,
    desk: &Desk,
    inbox: &Receiver<Event>,
) -> anyhow::Result<BTreeMap<String, u64>> {
    let mut out = LineWriter::create(&filter.output)?;
    let follows = filter.output.as_os_str() == "-";
    let progress = common.progress("judging", None);
    let mut counts = BTreeMap::new();
    let mut waiting: BTreeMap<u64, (String, Option<Status>)> = BTreeMap::new();
    let (mut next, mut end) = (0, None);
    while end != Some(next) {
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
            Event::Line(at, text, status) => {
                waiting.insert(at, (text, status));
            }
            Event::Judged(ticket, verdict) => {
                for line in desk.answer(ticket, &verdict) {
                    waiting.insert(line.at, (line.finish(&verdict), Some(verdict.status)));
                }
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
        while let Some((text, status)) = waiting.remove(&next) {
            out.write_raw(&text)?;
            next += 1;
            desk.leave();
            if let Some(status) = status {
                *counts.entry(format!("{status:?}")).or_default() += 1;
                progress.inc(1);
            }
        }
    }
    progress.finish();
    if !follows {
        Provenance::remove_beside(&filter.output)?;
    }
    out.finish()?;
    if !follows {
        let mut provenance = common.provenance("cog-judge", env!("CARGO_PKG_VERSION"));
        for path in filter.tests.iter().chain(&filter.input) {
            provenance = provenance.input(path)?;
        }
        provenance.write_beside(&filter.output)?;
    }
    Ok(counts)
}

/// A line that waits for a verdict.
struct Waiting {
    at: u64,
    text: String,
    rule: Option<Rule>,
}

impl Waiting {
    fn finish(&self, verdict: &Verdict) -> String {
        let mut verdict = verdict.clone();
        verdict.extraction = self.rule.map(|r| r.name().to_owned());
        record::with_verdict(&self.text, &verdict)
    }
}

type Key = (String, String, String);

/// Who waits for what, and the verdicts on programs seen before. Groups of rollouts repeat programs, and a verdict
/// depends on program, language and tests alone.
struct Desk {
    state: Mutex<State>,
    room: Condvar,
    window: usize,
    remember: bool,
}

#[derive(Default)]
struct State {
    in_flight: usize,
    skipped: u64,
    next_ticket: u64,
    open: HashMap<Key, u64>,
    tickets: HashMap<u64, (Key, Vec<Waiting>)>,
    known: HashMap<Key, Verdict>,
    order: VecDeque<Key>,
    bytes: usize,
}

enum Answer {
    Known(Box<Verdict>, Waiting),
    Asked,
    Ask(u64),
}

impl Desk {
    fn new(window: usize, remember: bool) -> Self {
        Self { state: Mutex::default(), room: Condvar::new(), window, remember }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds this")
    }

    /// Waits until another line fits into the window.
    fn enter(&self) {
        let mut state = self.room.wait_while(self.state(), |s| s.in_flight >= self.window).expect("as above");
        state.in_flight += 1;
    }

    fn leave(&self) {
        self.state().in_flight -= 1;
        self.room.notify_one();
    }

    fn skip(&self) {
        self.state().skipped += 1;
    }

    fn skipped(&self) -> u64 {
        self.state().skipped
    }

    fn ask(&self, key: Key, waiting: Waiting) -> Answer {
        let mut state = self.state();
        if self.remember {
            if let Some(verdict) = state.known.get(&key) {
                return Answer::Known(Box::new(verdict.clone()), waiting);
            }
            if let Some(ticket) = state.open.get(&key).copied()
                && let Some((_, lines)) = state.tickets.get_mut(&ticket)
            {
                lines.push(waiting);
                return Answer::Asked;
            }
        }
        let ticket = state.next_ticket;
        state.next_ticket += 1;
        if self.remember {
            state.open.insert(key.clone(), ticket);
        }
        state.tickets.insert(ticket, (key, vec![waiting]));
        Answer::Ask(ticket)
    }

    fn answer(&self, ticket: u64, verdict: &Verdict) -> Vec<Waiting> {
        let mut state = self.state();
        let Some((key, lines)) = state.tickets.remove(&ticket) else { return Vec::new() };
        // The judge's own fault is not repeated.
        if self.remember {
            state.open.remove(&key);
            if verdict.status != Status::IE {
                state.bytes += weight(&key);
                state.known.insert(key.clone(), verdict.clone());
                state.order.push_back(key);
                while state.bytes > REMEMBERED {
                    let Some(oldest) = state.order.pop_front() else { break };
                    state.bytes -= weight(&oldest);
                    state.known.remove(&oldest);
                }
            }
        }
        lines
    }
}

fn weight(key: &Key) -> usize {
    key.0.len() + key.1.len() + key.2.len() + 512
}

/// The reader thread.
struct Intake {
    shared: Arc<Shared>,
    desk: Arc<Desk>,
    problems: Problems,
    jobs: SyncSender<Job>,
    events: Sender<Event>,
    next: u64,
}

impl Intake {
    fn read_all(mut self, inputs: &[PathBuf], keep_going: bool) {
        for path in inputs {
            if let Err(error) = self.read(path, keep_going) {
                let _ = self.finish_open();
                let _ = self.events.send(Event::Failed(error.into()));
                return;
            }
        }
        let _ = self.events.send(Event::End(self.next));
    }

    /// Lets what was read before a bad line be judged and written.
    fn finish_open(&self) -> Option<()> {
        for _ in 0..6000 {
            if self.desk.state().in_flight == 0 {
                return Some(());
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        None
    }

    fn read(&mut self, path: &Path, keep_going: bool) -> Result<(), Error> {
        let parquet = path.as_os_str() != "-" && detect_format(path)? == Format::Parquet;
        let lines: Box<dyn Iterator<Item = Result<Line, Error>>> = if parquet {
            Box::new(
                Reader::<Program>::open(path)?
                    .enumerate()
                    .map(|(row, program)| as_line(path, row, &program?)),
            )
        } else {
            Box::new(Lines::open(path)?)
        };
        for line in lines {
            match line.and_then(|line| self.take(&line)) {
                Ok(()) => {}
                Err(error) if keep_going && error.is_data() => {
                    self.desk.skip();
                    eprintln!("skipped: {error}");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn take(&mut self, line: &Line) -> Result<(), Error> {
        let work = record::work(line)?;
        let (problem, language, source, rule) = match work {
            Work::Pass => return self.pass(line.text().to_owned(), None),
            Work::Verification { text, label } => {
                let answer = crate::verification::answer(&text);
                let right = answer == Some(label);
                let status = if right { Status::AC } else { Status::WA };
                let mut verdict = sheet::bare(status, Some(if right { 1.0 } else { 0.0 }), 1, None);
                (verdict.run, verdict.passed) = (1, u32::from(right));
                verdict.extraction =
                    Some(if answer.is_some() { Rule::Whole } else { Rule::None }.name().into());
                return self.pass(record::with_verdict(line.text(), &verdict), Some(status));
            }
            Work::Program { problem, language, source } => (problem, language, source, None),
            Work::Answer { problem, language, text } => {
                let known = self.language(line, &language)?;
                let (code, rule) = extract::extract(&self.shared.tools.languages, known, &text);
                (problem, language, code.to_owned(), Some(rule))
            }
        };
        let language = self.language(line, &language)?.clone();
        let problem = match self.problems.get(&problem)? {
            Some(problem) => problem,
            None => return Err(line.error(format!("unknown problem {problem:?}"))),
        };
        let tests = judge::selected(&problem, &language, self.shared.policy.coverage);
        if tests.is_empty() {
            return Err(line.error(format!("problem {:?} has no test for {}", problem.id, language.name)));
        }
        if rule == Some(Rule::None) {
            let message = Some("no program in the answer".to_owned());
            let mut verdict = sheet::bare(Status::CE, Some(0.0), tests.len() as u32, message);
            verdict.extraction = Some(Rule::None.name().into());
            return self.pass(record::with_verdict(line.text(), &verdict), Some(Status::CE));
        }
        let checkers = checker_languages(&problem).filter_map(|n| self.shared.tools.languages.by_spelling(n));
        let here = |needed: &cognate_languages::Language| {
            self.shared.tools.usable(needed).and_then(|()| self.shared.kinds.of(needed)).map_err(|reason| {
                line.error(format!("{} cannot be judged on this machine: {reason}", needed.display))
            })
        };
        let kind = here(&language)?;
        for needed in checkers {
            here(needed)?;
        }
        self.desk.enter();
        let waiting = Waiting { at: self.next, text: line.text().to_owned(), rule };
        self.next += 1;
        let key = (language.name.clone(), problem.id.clone(), source.clone());
        match self.desk.ask(key, waiting) {
            Answer::Asked => {}
            Answer::Known(verdict, waiting) => {
                let _ =
                    self.events.send(Event::Line(waiting.at, waiting.finish(&verdict), Some(verdict.status)));
            }
            Answer::Ask(ticket) => {
                let _ = self.jobs.send(Job { ticket, language: language.name, kind, source, problem });
            }
        }
        Ok(())
    }

    fn language(&self, line: &Line, name: &str) -> Result<&cognate_languages::Language, Error> {
        let found = self.shared.tools.languages.by_spelling(name);
        found.ok_or_else(|| {
            line.error(format!("unknown language {name:?} (cog-judge languages lists the known ones)"))
        })
    }

    fn pass(&mut self, text: String, status: Option<Status>) -> Result<(), Error> {
        self.desk.enter();
        let _ = self.events.send(Event::Line(self.next, text, status));
        self.next += 1;
        Ok(())
    }
}

/// A row of a Parquet file as the JSONL line that it would be.
fn as_line(path: &Path, row: usize, program: &Program) -> Result<Line, Error> {
    let mut value =
        serde_json::to_value(program).map_err(|e| Error::data(path.display().to_string(), e.to_string()))?;
    if let serde_json::Value::Object(fields) = &mut value {
        fields.shift_insert(0, "schema".into(), Program::SCHEMA.into());
    }
    let name = format!("{}: row {}", path.display(), row + 1);
    let text = value.to_string() + "\n";
    Lines::new(&name, std::io::Cursor::new(text))
        .next()
        .unwrap_or_else(|| Err(Error::data(name, "empty row")))
}
