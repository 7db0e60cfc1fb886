//! Deep recursion of a program is deep recursion of the thread that runs it: what it touched of the stack goes back to the
//! kernel, or one hostile program a worker would keep the judge 256 MiB larger for ever.

use std::cell::Cell;

/// Stack below the caller that stays, in bytes: what most runs need.
const KEPT: usize = 1 << 20;
const PAGE: usize = 4096;

thread_local! {
    /// Where this thread's stack ends, once that is known.
    static END: Cell<usize> = const { Cell::new(0) };
}

/// Gives back what lies far below this frame, where anything does.
pub fn release() {
    let frame = [0u8; 1];
    let here = std::hint::black_box(&frame).as_ptr() as usize;
    let from = (here & !(PAGE - 1)).saturating_sub(KEPT);
    let end = END.get();
    let end = if end == 0 { end_of_stack() } else { end };
    END.set(end);
    if end >= from || !is_resident(from - PAGE) {
        return; // recursion touches every page on its way down
    }
    // SAFETY: this thread's own stack, from its end to far below the frame that is now the lowest; nothing is there.
    unsafe { libc::madvise(end as *mut libc::c_void, from - end, libc::MADV_DONTNEED) };
}

/// The lowest address of this thread's stack, above its guard; the highest where that cannot be found out.
fn end_of_stack() -> usize {
    // SAFETY: the attributes are ours and are destroyed; the pointers are to variables of ours.
    unsafe {
        let mut attributes: libc::pthread_attr_t = std::mem::zeroed();
        if libc::pthread_getattr_np(libc::pthread_self(), &raw mut attributes) != 0 {
            return usize::MAX;
        }
        let (mut base, mut size) = (std::ptr::null_mut(), 0);
        let failed = libc::pthread_attr_getstack(&raw const attributes, &raw mut base, &raw mut size);
        libc::pthread_attr_destroy(&raw mut attributes);
        // A guard, where there is one, is a page or some at this end.
        if failed == 0 { base as usize + 16 * PAGE } else { usize::MAX }
    }
}

fn is_resident(page: usize) -> bool {
    let mut there = 0;
    // SAFETY: the answer is one byte, of ours; the page is only asked about.
    let outcome = unsafe { libc::mincore(page as *mut libc::c_void, PAGE, &raw mut there) };
    outcome == 0 && there & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;

    #[inline(never)]
    fn deep(levels: usize) -> usize {
        let room = std::hint::black_box([levels as u8; 64 << 10]);
        if levels == 0 { room[7] as usize } else { deep(levels - 1) + room[9] as usize % 2 }
    }

    #[test]
    fn a_deep_stack_is_given_back() {
        let thread = std::thread::Builder::new().stack_size(64 << 20).spawn(|| {
            let frame = [0u8; 1];
            let far = (std::hint::black_box(&frame).as_ptr() as usize & !(PAGE - 1)) - (16 << 20);
            let before = is_resident(far);
            std::hint::black_box(deep(500));
            let during = is_resident(far);
            release();
            (before, during, is_resident(far))
        });
        assert_eq!(thread.unwrap().join().unwrap(), (false, true, false));
    }
}
