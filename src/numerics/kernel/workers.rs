//! The threads that share work, and how many of them a call of arithmetic could use.

use std::{
    num::NonZeroUsize,
    sync::atomic::{AtomicUsize, Ordering},
};

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder, prelude::*};

/// So many threads; one is the caller's own.
#[derive(Debug)]
pub struct Workers {
    pool: Option<ThreadPool>,
    /// The most of all calls since the number was last read.
    used: AtomicUsize,
}

impl Workers {
    /// The caller's own thread.
    pub const fn alone() -> Workers {
        Workers { pool: None, used: AtomicUsize::new(1) }
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

    /// Does the work of every job, each on whichever thread is free. The jobs should be worth waking a thread for.
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
