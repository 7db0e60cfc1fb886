//! The reader thread: from lines to work for the judges.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, SyncSender};

use cognate_languages::Language;
use cognate_records::{Error, Format, Line, Lines, Program, Reader, Record, Rollout, Status, detect_format};

use crate::desk::{Answer, Desk, Done, Waiting};
use crate::event::Event;
use crate::extract::{self, Found, Rule};
use crate::judge;
use crate::problems::{Problems, checker_languages};
use crate::record::{self, Work};
use crate::sheet;
use crate::verification;
use crate::workers::{Job, Shared};

/// The reader thread.
pub struct Intake {
    pub shared: Arc<Shared>,
    pub desk: Arc<Desk>,
    pub problems: Problems,
    pub rule: Rule,
    pub jobs: SyncSender<Job>,
    pub events: Sender<Event>,
    /// The place of the next line that will be written.
    pub next: u64,
}

impl Intake {
    /// Reads everything; the last event says how many lines there were, or what was wrong.
    pub fn read_all(mut self, inputs: &[PathBuf], keep_going: bool) {
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
            if self.desk.is_empty() {
                return Some(());
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        None
    }

    fn read(&mut self, path: &Path, keep_going: bool) -> Result<(), Error> {
        let parquet = path.as_os_str() != "-" && detect_format(path)? == Format::Parquet;
        let lines = if parquet { rows(path)? } else { Box::new(Lines::open(path)?) };
        for line in lines {
            match line.and_then(|line| self.take(&line)) {
                Ok(()) => {}
                Err(error) if keep_going && error.is_data() => {
                    self.desk.skip();
                    cognate_cli::say(format_args!("skipped: {error}"));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn take(&mut self, line: &Line) -> Result<(), Error> {
        let work = record::work(line)?;
        let (problem, language, source, found) = match work {
            Work::Pass => return self.pass(line, None, None),
            Work::Verification { text, label } => {
                let answer = verification::answer(&text);
                let right = answer == Some(label);
                let status = if right { Status::AC } else { Status::WA };
                let mut verdict = sheet::bare(status, Some(if right { 1.0 } else { 0.0 }), 1, None);
                (verdict.run, verdict.passed) = (1, u32::from(right));
                let found = if answer.is_some() { Found::Whole } else { Found::None };
                verdict.extraction = Some(found.name().into());
                return self.pass(
                    line,
                    Some((record::with_verdict(line.text(), &verdict), status)),
                    Some(found),
                );
            }
            Work::Program { problem, language, source } => (problem, language, source, None),
            Work::Answer { problem, language, text } => {
                let known = self.language(line, &language)?;
                let (code, found) = extract::extract(&self.rule, &self.shared.tools.languages, known, &text);
                (problem, language, code.to_owned(), Some(found))
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
        if found == Some(Found::None) {
            let message = Some("no program in the answer".to_owned());
            let mut verdict = sheet::bare(Status::CE, Some(0.0), tests.len() as u32, message);
            verdict.extraction = Some(Found::None.name().into());
            let text = record::with_verdict(line.text(), &verdict);
            return self.pass(line, Some((text, Status::CE)), found);
        }
        let checkers = checker_languages(&problem).filter_map(|n| self.shared.tools.languages.by_spelling(n));
        let here = |needed: &Language| {
            self.shared.tools.usable(needed).and_then(|()| self.shared.kinds.of(needed)).map_err(|reason| {
                line.error(format!("{} cannot be judged on this machine: {reason}", needed.display))
            })
        };
        let kind = here(&language)?;
        for needed in checkers {
            here(needed)?;
        }
        self.desk.enter(line.text().len());
        let waiting = Waiting { at: self.next, text: line.text().to_owned(), found };
        self.next += 1;
        let key = (language.name.clone(), problem.id.clone(), source.clone());
        match self.desk.ask(key, waiting) {
            Answer::Asked => {}
            Answer::Known(done) => {
                let _ = self.events.send(Event::Line(done));
            }
            Answer::Ask(ticket) => {
                let _ = self.jobs.send(Job { ticket, language: language.name, kind, source, problem });
            }
        }
        Ok(())
    }

    fn language(&self, line: &Line, name: &str) -> Result<&Language, Error> {
        let found = self.shared.tools.languages.by_spelling(name);
        found.ok_or_else(|| {
            line.error(format!("unknown language {name:?} (cog-judge languages lists the known ones)"))
        })
    }

    /// Lets a line through, or a line that is finished at once.
    fn pass(
        &mut self,
        line: &Line,
        judged: Option<(String, Status)>,
        found: Option<Found>,
    ) -> Result<(), Error> {
        let weight = line.text().len();
        self.desk.enter(weight);
        let (text, status) = match judged {
            Some((text, status)) => (text, Some(status)),
            None => (line.text().to_owned(), None),
        };
        let _ = self.events.send(Event::Line(Done { at: self.next, text, status, found, weight }));
        self.next += 1;
        Ok(())
    }
}

type Rows = Box<dyn Iterator<Item = Result<Line, Error>>>;

/// Parquet of programs or of rollouts, as lines.
fn rows(path: &Path) -> Result<Rows, Error> {
    fn of<T: Record>(path: &Path) -> Result<Rows, Error> {
        let path = path.to_path_buf();
        let reader = Reader::<T>::open(&path)?;
        Ok(Box::new(reader.enumerate().map(move |(row, record)| as_line(&path, row, &record?))))
    }
    match of::<Program>(path) {
        Err(error) if error.is_data() => of::<Rollout>(path).map_err(|_| error),
        outcome => outcome,
    }
}

/// A row of a Parquet file as the JSONL line that it would be.
fn as_line<T: Record>(path: &Path, row: usize, record: &T) -> Result<Line, Error> {
    let mut value =
        serde_json::to_value(record).map_err(|e| Error::data(path.display().to_string(), e.to_string()))?;
    if let serde_json::Value::Object(fields) = &mut value {
        fields.shift_insert(0, "schema".into(), T::SCHEMA.into());
    }
    let name = format!("{}: row {}", path.display(), row + 1);
    let text = value.to_string() + "\n";
    Lines::new(&name, std::io::Cursor::new(text))
        .next()
        .unwrap_or_else(|| Err(Error::data(name, "empty row")))
}
