//! Waiting for a word of shared memory to change: by futex on Linux, by short sleeps elsewhere.

use std::sync::atomic::AtomicU32;
use std::time::Duration;

/// Sleeps while `word` is `value`, for `limit` at most; may wake early.
pub(crate) fn wait(word: &AtomicU32, value: u32, limit: Duration) {
    #[cfg(target_os = "linux")]
    {
        let limit = libc::timespec {
            tv_sec: limit.as_secs() as libc::time_t,
            tv_nsec: limit.subsec_nanos() as libc::c_long,
        };
        // SAFETY: the word and the time outlive the call; the kernel reads both.
        unsafe { libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAIT, value, &raw const limit) };
    }
    #[cfg(not(target_os = "linux"))]
    if word.load(std::sync::atomic::Ordering::Acquire) == value {
        std::thread::sleep(limit.min(Duration::from_micros(200)));
    }
}

/// Wakes all that wait for `word`.
pub(crate) fn wake(word: &AtomicU32) {
    #[cfg(target_os = "linux")]
    // SAFETY: the word outlives the call, which only looks up its address.
    unsafe {
        libc::syscall(libc::SYS_futex, word.as_ptr(), libc::FUTEX_WAKE, i32::MAX);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = word;
}
