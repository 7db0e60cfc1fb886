//! What must go away when the user interrupts: the temporary names of outputs under construction.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

static TEMPORARIES: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
/// Number of the signal that arrived first; 0 for none.
static SIGNAL: AtomicI32 = AtomicI32::new(0);
static HELD: AtomicBool = AtomicBool::new(false);

fn temporaries() -> MutexGuard<'static, BTreeSet<PathBuf>> {
    TEMPORARIES.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn register(path: &Path) {
    temporaries().insert(path.to_path_buf());
}

pub(crate) fn unregister(path: &Path) {
    temporaries().remove(path);
}

/// True once SIGINT or SIGTERM has arrived: what fails after that fails because of it.
pub fn interrupted() -> bool {
    signal().is_some()
}

/// The first SIGINT or SIGTERM that arrived.
pub fn signal() -> Option<i32> {
    match SIGNAL.load(Ordering::SeqCst) {
        0 => None,
        n => Some(n),
    }
}

/// From now on the first signal only sets [`signal`], for a tool that looks at it and saves its state; a second one
/// ends the process as [`remove_on_signals`] says.
pub fn hold_signals() {
    HELD.store(true, Ordering::SeqCst);
}

/// On SIGINT or SIGTERM removes every output under construction and exits with 128 + signal (130, 143).
/// A second call does nothing.
pub fn remove_on_signals() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        use signal_hook::consts::{SIGINT, SIGTERM};
        let Ok(mut signals) = signal_hook::iterator::Signals::new([SIGINT, SIGTERM]) else { return };
        std::thread::spawn(move || {
            for signal in signals.forever() {
                let first = SIGNAL.compare_exchange(0, signal, Ordering::SeqCst, Ordering::SeqCst).is_ok();
                if first && HELD.load(Ordering::SeqCst) {
                    continue;
                }
                for path in temporaries().iter() {
                    if path.is_dir() {
                        let _ = std::fs::remove_dir_all(path);
                    } else {
                        let _ = std::fs::remove_file(path);
                    }
                }
                // SAFETY: _exit takes no pointers; destructors are skipped on purpose, the other threads still run.
                unsafe { libc::_exit(128 + signal) }
            }
        });
    });
}
