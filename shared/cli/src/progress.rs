//! Rate and ETA on stderr: a bar on a terminal, a line now and then elsewhere.

use std::io::IsTerminal;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{HumanCount, ProgressBar, ProgressState, ProgressStyle};

/// Between two lines where stderr is no terminal.
const EVERY: Duration = Duration::from_secs(20);

/// Progress of one stage. May be shared between threads.
#[derive(Debug)]
pub struct Progress {
    label: String,
    total: Option<u64>,
    done: AtomicU64,
    start: Instant,
    mode: Mode,
}

#[derive(Debug)]
enum Mode {
    Bar(ProgressBar),
    Lines { last: Mutex<Instant>, message: Mutex<String> },
    Quiet,
}

impl Progress {
    pub(crate) fn new(label: &str, total: Option<u64>, quiet: bool) -> Self {
        let mode = if quiet {
            Mode::Quiet
        } else if std::io::stderr().is_terminal() {
            let (bar, template) = match total {
                Some(n) => (
                    ProgressBar::new(n),
                    "{prefix} [{bar:30}] {human_pos}/{human_len} {rate}/s eta {eta} {msg}",
                ),
                None => (ProgressBar::no_length(), "{prefix} {human_pos} {rate}/s {elapsed} {msg}"),
            };
            let style = ProgressStyle::with_template(template).expect("a constant template").with_key(
                "rate",
                |state: &ProgressState, text: &mut dyn std::fmt::Write| {
                    let _ = write!(text, "{:.1}", state.per_sec());
                },
            );
            Mode::Bar(bar.with_style(style).with_prefix(label.to_string()))
        } else {
            Mode::Lines { last: Mutex::new(Instant::now()), message: Mutex::default() }
        };
        Self { label: label.into(), total, done: AtomicU64::new(0), start: Instant::now(), mode }
    }

    pub fn inc(&self, n: u64) {
        self.done.fetch_add(n, Ordering::Relaxed);
        match &self.mode {
            Mode::Bar(bar) => bar.inc(n),
            Mode::Lines { last, .. } => {
                if let Ok(mut last) = last.try_lock()
                    && last.elapsed() >= EVERY
                {
                    *last = Instant::now();
                    crate::say(self.line());
                }
            }
            Mode::Quiet => {}
        }
    }

    /// A short text that stands behind the rate, such as the current loss.
    pub fn message(&self, text: impl Into<String>) {
        match &self.mode {
            Mode::Bar(bar) => bar.set_message(text.into()),
            Mode::Lines { message, .. } => {
                if let Ok(mut m) = message.lock() {
                    *m = text.into();
                }
            }
            Mode::Quiet => {}
        }
    }

    /// Ends the stage with a line that says how much was done, in what time, at what rate.
    pub fn finish(self) {
        match &self.mode {
            Mode::Bar(bar) => {
                bar.finish_and_clear();
                crate::say(self.line());
            }
            Mode::Lines { .. } => crate::say(self.line()),
            Mode::Quiet => {}
        }
    }

    fn line(&self) -> String {
        let done = self.done.load(Ordering::Relaxed);
        let seconds = self.start.elapsed().as_secs_f64();
        let rate = done as f64 / seconds.max(1e-9);
        let mut text = format!("{}: {}", self.label, HumanCount(done));
        if let Some(total) = self.total {
            text += &format!("/{}", HumanCount(total));
            if done > 0 && done < total {
                let eta = (total - done) as f64 / rate.max(1e-9);
                text += &format!(", eta {eta:.0} s");
            }
        }
        text += &format!(", {seconds:.1} s, {rate:.1}/s");
        if let Mode::Lines { message, .. } = &self.mode
            && let Ok(m) = message.lock()
            && !m.is_empty()
        {
            text += &format!(", {m}");
        }
        text
    }
}
