//! Ctrl-C, and a scheduler that wants its machine back: the first signal asks, the second one ends at once.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use anyhow::anyhow;
use signal_hook::{
    consts::{SIGINT, SIGTERM},
    flag,
};

use super::{Ended, Exit};

/// Has this process been asked to end?
pub(super) struct Interrupt {
    /// It has been asked.
    pub(super) asked: Arc<AtomicBool>,
    signal: Arc<AtomicUsize>,
}

impl Interrupt {
    /// From now on a first signal is for the code that looks here.
    pub(super) fn watch() -> Result<Interrupt, Ended> {
        let interrupt = Interrupt { asked: Arc::default(), signal: Arc::default() };
        interrupt.register().map_err(|error| {
            Ended::environment(anyhow!("cannot watch for signals ({error}): see what limits this process"))
        })?;
        Ok(interrupt)
    }

    fn register(&self) -> io::Result<()> {
        for signal in [SIGINT, SIGTERM] {
            // In this order: the first signal finds the flag down, and sets it.
            flag::register_conditional_shutdown(signal, exit(signal) as i32, self.asked.clone())?;
            flag::register(signal, self.asked.clone())?;
            flag::register_usize(signal, self.signal.clone(), signal as usize)?;
        }
        Ok(())
    }

    /// The exit code of who was asked and has ended.
    pub(super) fn exit(&self) -> Exit {
        exit(self.signal.load(Ordering::Relaxed) as i32)
    }
}

/// A shell says 128 and the number of the signal.
fn exit(signal: i32) -> Exit {
    if signal == SIGTERM { Exit::Terminated } else { Exit::Interrupted }
}

impl Drop for Interrupt {
    fn drop(&mut self) {
        // Nobody looks any more: the next signal ends the process.
        self.asked.store(true, Ordering::Relaxed);
    }
}
