//! Who waits for what, and the verdicts on programs seen before. Groups of rollouts repeat programs, and a verdict depends
//! on program, language and tests alone.

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard};

use cognate_records::{Status, Verdict};

use crate::extract::Found;
use crate::record;

/// Bytes of programs whose verdicts are remembered.
const REMEMBERED: usize = 32 << 20;
/// Bytes of lines that are read but not yet written, with the verdicts on them; one line may be larger alone.
const HELD: usize = 256 << 20;

/// A line that waits for a verdict.
pub struct Waiting {
    /// Its place among the lines.
    pub at: u64,
    pub text: String,
    pub found: Option<Found>,
}

/// A line that can be written.
pub struct Done {
    pub at: u64,
    pub text: String,
    pub status: Option<Status>,
    pub found: Option<Found>,
    /// What [`Desk::leave`] is to be given.
    pub weight: usize,
}

impl Waiting {
    fn finish(self, verdict: &Verdict) -> Done {
        let mut verdict = verdict.clone();
        verdict.extraction = self.found.map(|f| f.name().to_owned());
        let text = record::with_verdict(&self.text, &verdict);
        let weight = text.len();
        Done { at: self.at, text, status: Some(verdict.status), found: self.found, weight }
    }
}

/// Language, problem, source.
pub type Key = (String, String, String);

pub struct Desk {
    state: Mutex<State>,
    room: Condvar,
    window: usize,
    remember: bool,
}

#[derive(Default)]
struct State {
    in_flight: usize,
    held: usize,
    skipped: u64,
    next_ticket: u64,
    open: HashMap<Key, u64>,
    tickets: HashMap<u64, (Key, Vec<Waiting>)>,
    known: HashMap<Key, Verdict>,
    order: VecDeque<Key>,
    bytes: usize,
}

pub enum Answer {
    Known(Done),
    Asked,
    Ask(u64),
}

impl Desk {
    /// `window`: how many lines may be in flight.
    pub fn new(window: usize, remember: bool) -> Self {
        Self { state: Mutex::default(), room: Condvar::new(), window, remember }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no thread panics while it holds this")
    }

    /// Waits until another line fits: memory stays bounded however slow the first line in flight is.
    pub fn enter(&self, weight: usize) {
        let is_full =
            |s: &mut State| s.in_flight >= self.window || (s.in_flight > 0 && s.held + weight > HELD);
        let mut state = self.room.wait_while(self.state(), is_full).expect("as above");
        state.in_flight += 1;
        state.held += weight;
    }

    pub fn leave(&self, weight: usize) {
        let mut state = self.state();
        state.in_flight -= 1;
        state.held -= weight;
        drop(state);
        self.room.notify_one();
    }

    pub fn is_empty(&self) -> bool {
        self.state().in_flight == 0
    }

    pub fn skip(&self) {
        self.state().skipped += 1;
    }

    pub fn skipped(&self) -> u64 {
        self.state().skipped
    }

    pub fn ask(&self, key: Key, waiting: Waiting) -> Answer {
        let mut state = self.state();
        if self.remember {
            if let Some(verdict) = state.known.get(&key) {
                let verdict = verdict.clone();
                return Answer::Known(state.finish(waiting, &verdict));
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

    pub fn answer(&self, ticket: u64, verdict: &Verdict) -> Vec<Done> {
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
        lines.into_iter().map(|line| state.finish(line, verdict)).collect()
    }
}

impl State {
    /// The line with its verdict, which is held too until it is written.
    fn finish(&mut self, waiting: Waiting, verdict: &Verdict) -> Done {
        let entered = waiting.text.len();
        let done = waiting.finish(verdict);
        self.held = self.held - entered + done.weight;
        done
    }
}

fn weight(key: &Key) -> usize {
    key.0.len() + key.1.len() + key.2.len() + 512
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::time::Duration;

    #[test]
    fn lines_in_flight_are_bounded_by_count_and_by_bytes() {
        for (window, weight, most) in [(3, 1, 3), (1000, HELD / 4, 4), (1000, HELD * 2, 1)] {
            let desk = Arc::new(Desk::new(window, true));
            let inside = desk.clone();
            let reader = std::thread::spawn(move || (0..most + 1).for_each(|_| inside.enter(weight)));
            std::thread::sleep(Duration::from_millis(50));
            assert_eq!(desk.state().in_flight, most);
            desk.leave(weight);
            reader.join().unwrap();
            assert_eq!(desk.state().in_flight, most);
        }
    }

    #[test]
    fn a_verdict_weighs_until_its_line_is_written() {
        let desk = Desk::new(9, true);
        let key = ("python".to_owned(), "p".to_owned(), "1".to_owned());
        let line = |at| Waiting { at, text: r#"{"id":"x"}"#.into(), found: None };
        let entered = line(0).text.len();
        desk.enter(entered);
        let Answer::Ask(ticket) = desk.ask(key.clone(), line(0)) else { panic!("nobody asked before") };
        let verdict = crate::sheet::bare(Status::AC, Some(1.0), 1, None);
        let mut done = desk.answer(ticket, &verdict);
        desk.enter(entered);
        let Answer::Known(again) = desk.ask(key, line(1)) else { panic!("it is remembered") };
        done.push(again);
        assert!(done.iter().all(|d| d.weight == d.text.len() && d.weight > entered));
        assert_eq!(desk.state().held, done.iter().map(|d| d.weight).sum::<usize>());
        done.iter().for_each(|d| desk.leave(d.weight));
        let state = desk.state();
        assert_eq!((state.held, state.in_flight), (0, 0));
    }
}
