//! The threads that operations share out their work to.

use std::{
    cell::{Cell, RefCell},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use rayon::Yield;

/// Makes the calling thread one of the pool that operations run on, so that it computes its share
/// itself. Otherwise it sleeps while the pool works and has to be woken after each of the hundreds of
/// operations of a step. A program calls this once, on the thread that trains or samples, before the
/// first operation; later calls change nothing.
pub fn compute_on_this_thread() {
    let threads = rayon::ThreadPoolBuilder::new().use_current_thread();
    // It fails where the pool is running already, which then serves as it is.
    let _ = threads.build_global();
}

/// While this lives, the pool's other threads stay awake: between operations that take microseconds
/// they look for the next one instead of going to sleep, from which it takes longer to wake them than
/// the operation lasts. They let other programs' threads go first, and sleep after all if for long nothing
/// comes.
///
/// Made on a thread outside the pool ([`compute_on_this_thread`]) it does nothing.
#[derive(Debug)]
pub struct ThreadsAwake(Arc<AtomicBool>);

/// So often a thread looks for work before it lets others go first.
const LOOKS: usize = 256;
/// So long a thread looks for work in vain.
const PATIENCE: Duration = Duration::from_millis(20);

thread_local! {
    /// What a thread stays awake for: each is true once that is over.
    static REASONS: RefCell<Vec<Arc<AtomicBool>>> = const { RefCell::new(Vec::new()) };
    /// True while it runs [`stay_awake`].
    static AWAKE: Cell<bool> = const { Cell::new(false) };
}

impl ThreadsAwake {
    /// Wakes them.
    pub fn new() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        if let Some(caller) = rayon::current_thread_index() {
            let over = over.clone();
            rayon::spawn_broadcast(move |thread| {
                if thread.index() != caller {
                    REASONS.with_borrow_mut(|reasons| reasons.push(over.clone()));
                    stay_awake();
                }
            });
        }
        Self(over)
    }
}

/// Looks for work until every reason is over.
///
/// It may be called from work that was found here, or from a thread's other work: a thread that waits for the
/// second half of what it shares out takes whatever there is. What lies below on its stack can end only
/// when this returns. So it returns at once where it is running already, and in any case when nothing comes for
/// long: then others may be waiting for what lies below.
fn stay_awake() {
    if AWAKE.replace(true) {
        return;
    }
    let (mut idle, mut since) = (0, None);
    while is_wanted() {
        if rayon::yield_now() == Some(Yield::Executed) {
            (idle, since) = (0, None);
            continue;
        }
        idle += 1;
        if idle % LOOKS == 0 {
            std::thread::yield_now();
            if since.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
                REASONS.with_borrow_mut(Vec::clear);
            }
        } else {
            std::hint::spin_loop();
        }
    }
    AWAKE.set(false);
}

fn is_wanted() -> bool {
    REASONS.with_borrow_mut(|reasons| {
        reasons.retain(|over| !over.load(Ordering::Relaxed));
        !reasons.is_empty()
    })
}

impl Default for ThreadsAwake {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for ThreadsAwake {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    /// Halves again and again, each waiting for its second half.
    fn leaves(depth: usize) -> usize {
        if depth == 0 {
            return std::hint::black_box(1);
        }
        let (a, b) = rayon::join(|| leaves(depth - 1), || leaves(depth - 1));
        a + b
    }

    /// Threads that begin to stay awake while they wait for a part of their work: nobody waits for ever.
    #[test]
    fn steps_that_follow_one_another_end() {
        for threads in [2, 4] {
            let (send, receive) = mpsc::channel();
            thread::spawn(move || {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads);
                let steps = || {
                    (0..50_000).all(|_| {
                        let _awake = ThreadsAwake::new();
                        (0..3).all(|_| leaves(4) == 16)
                    })
                };
                let _ = send.send(pool.build().is_ok_and(|pool| pool.install(steps)));
            });
            let ended = receive.recv_timeout(Duration::from_secs(120));
            assert_eq!(ended, Ok(true), "{threads} threads");
        }
    }
}
