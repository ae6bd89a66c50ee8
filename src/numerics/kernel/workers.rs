//! The threads that share work, and how many of them a call of arithmetic could use.

use std::{
    hint,
    num::NonZeroUsize,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder, Yield, prelude::*};

/// So many threads; one is the caller's own.
#[derive(Debug)]
pub struct Workers {
    pool: Option<ThreadPool>,
    /// Do the others stand by for one of them?
    led: AtomicBool,
    /// The most of all calls since the number was last read.
    used: AtomicUsize,
}

impl Workers {
    /// The caller's own thread.
    pub const fn alone() -> Workers {
        Workers { pool: None, led: AtomicBool::new(false), used: AtomicUsize::new(1) }
    }

    /// So many.
    ///
    /// # Errors
    ///
    /// When they cannot be started.
    pub fn new(threads: NonZeroUsize) -> Result<Workers, ThreadPoolBuildError> {
        Ok(match threads.get() {
            1 => Workers::alone(),
            threads => Workers {
                pool: Some(ThreadPoolBuilder::new().num_threads(threads).build()?),
                ..Workers::alone()
            },
        })
    }

    /// How many there are.
    pub fn threads(&self) -> usize {
        self.pool.as_ref().map_or(1, ThreadPool::current_num_threads)
    }

    /// Runs `work` on one of the threads while the others stand by. What it shares begins at once: a thread that sleeps
    /// takes as long to wake as a small product takes to compute, and between two products of a decoder it would sleep.
    pub fn within<R: Send>(&self, work: impl FnOnce() -> R + Send) -> R {
        let Some(pool) = &self.pool else { return work() };
        let led = Led::claim(&self.led);
        let threads = pool.current_num_threads();
        // A thread without a core of its own would stand in the way of those that work.
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        pool.scope(|scope| {
            if let (Some(led), Some(leader)) = (led.as_ref(), pool.current_thread_index()) {
                let flag = led.0;
                scope.spawn_broadcast(move |_, thread| {
                    let behind = (thread.index() + threads - leader) % threads;
                    if (1..cores).contains(&behind) {
                        stand_by(flag);
                    }
                });
            }
            // Whether it returns or panics, nobody stands by any longer.
            let _until_here = led;
            work()
        })
    }

    /// Does the work of every job, each on whichever thread is free. Outside of [`within`](Self::within) the jobs should be
    /// worth waking a thread for.
    pub fn share<T: Send>(&self, jobs: Vec<T>, work: impl Fn(T) + Send + Sync) {
        match &self.pool {
            Some(pool) if jobs.len() > 1 => {
                pool.install(|| jobs.into_par_iter().with_max_len(1).for_each(work));
            }
            _ => jobs.into_iter().for_each(work),
        }
    }

    /// How many threads had a share in the largest call of arithmetic since this was last asked: evidence that a number
    /// of threads was more than a wish. It follows from the shapes of the calls alone, and so is the same in every run.
    pub fn used(&self) -> usize {
        self.used.swap(1, Ordering::Relaxed)
    }

    /// A call of arithmetic comes in so many shares.
    pub(super) fn note(&self, shares: usize) {
        self.used.fetch_max(self.threads().min(shares), Ordering::Relaxed);
    }
}

/// One caller at a time has the others stand by: two that waited for each other's threads would wait for ever.
struct Led<'a>(&'a AtomicBool);

impl<'a> Led<'a> {
    fn claim(flag: &'a AtomicBool) -> Option<Led<'a>> {
        (!flag.swap(true, Ordering::AcqRel)).then_some(Led(flag))
    }
}

impl Drop for Led<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Release);
    }
}

/// Takes shares of work as they come, for as long as somebody leads.
fn stand_by(led: &AtomicBool) {
    /// Looks between two that let other programs run.
    const LOOKS: usize = 16;
    let mut looks = 0;
    while led.load(Ordering::Acquire) {
        if rayon::yield_now() == Some(Yield::Executed) {
            looks = 0;
        } else if looks < LOOKS {
            looks += 1;
            hint::spin_loop();
        } else {
            looks = 0;
            thread::yield_now();
        }
    }
}
