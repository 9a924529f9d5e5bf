//! The threads that operations share out their work to.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
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
/// the operation lasts. They let other programs' threads go first.
///
/// Made on a thread outside the pool ([`compute_on_this_thread`]) it does nothing.
#[derive(Debug)]
pub struct ThreadsAwake(Arc<AtomicBool>);

/// So often a thread looks for work before it lets others go first.
const LOOKS: usize = 256;

impl ThreadsAwake {
    /// Wakes them.
    pub fn new() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        if let Some(caller) = rayon::current_thread_index() {
            let over = over.clone();
            rayon::spawn_broadcast(move |thread| {
                let mut idle = 0;
                while thread.index() != caller && !over.load(Ordering::Relaxed) {
                    if rayon::yield_now() == Some(Yield::Executed) {
                        idle = 0;
                        continue;
                    }
                    idle += 1;
                    if idle % LOOKS == 0 {
                        std::thread::yield_now();
                    } else {
                        std::hint::spin_loop();
                    }
                }
            });
        }
        Self(over)
    }
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
