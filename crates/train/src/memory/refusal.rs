//! A GPU that has no memory left: Burn panics, and here that becomes an error.

use std::{
    any::Any,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind, set_hook, take_hook},
    sync::{
        Mutex, MutexGuard, Once, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

/// What drivers' reasons have in them, in small letters.
const REFUSALS: [&str; 5] = [
    "out of memory",
    "out of device memory",
    "out_of_memory",
    "not enough memory left",
    "can't allocate buffer",
];

/// Calls of [`unless_refused`] that have not returned.
static LISTENING: AtomicUsize = AtomicUsize::new(0);
/// The first reason since nobody listened. The thread that is refused may be a driver's, and the one that
/// computes then fails for want of what that thread was to make, or does not notice.
static REASON: Mutex<Option<String>> = Mutex::new(None);

fn reason() -> MutexGuard<'static, Option<String>> {
    REASON.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The line of a panic's text that says that there is no memory.
fn refusal(panic: &dyn Any) -> Option<String> {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied())?;
    let says = |line: &&str| {
        let line = line.to_ascii_lowercase();
        REFUSALS.iter().any(|refusal| line.contains(refusal))
    };
    // Errors of Burn's have a backtrace in them, which is not the reason.
    text.lines().find(says).map(|line| line.trim().to_owned())
}

/// From the first call on, panics are heard of in every thread. A refusal, and what fails after one, is not printed
/// where its error will be.
fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let hook = take_hook();
        set_hook(Box::new(move |panic| {
            if LISTENING.load(Ordering::Relaxed) > 0 {
                let mut reason = reason();
                if reason.is_none() {
                    *reason = refusal(panic.payload());
                }
                if reason.is_some() {
                    return;
                }
            }
            hook(panic);
        }));
    });
}

/// Does some work on a device.
///
/// # Errors
/// The reason, where the device had no memory left and the work failed. After that it is not to be used again.
///
/// # Panics
/// As the work does for any other reason.
pub fn unless_refused<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    listen();
    if LISTENING.fetch_add(1, Ordering::Relaxed) == 0 {
        *reason() = None;
    }
    let done = catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let said = refusal(&*panic).or_else(refused);
        said.ok_or(panic)
    });
    LISTENING.fetch_sub(1, Ordering::Relaxed);
    done.map_err(|said| said.unwrap_or_else(|panic| resume_unwind(panic)))
}

/// Why the device has refused memory in the work of now, if it has: it may have told a thread of its own alone.
pub fn refused() -> Option<String> {
    reason().clone()
}

/// Asks a device something after it has refused memory; nothing where it does not answer any more.
pub(super) fn after_refusal<T>(question: impl FnOnce() -> T) -> Option<T> {
    LISTENING.fetch_add(1, Ordering::Relaxed);
    let answer = catch_unwind(AssertUnwindSafe(question)).ok();
    LISTENING.fetch_sub(1, Ordering::Relaxed);
    answer
}
