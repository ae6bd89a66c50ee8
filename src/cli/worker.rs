//! `reprocheck engine-worker`: the stock engine, for another process of this program.

use std::io::{BufRead, Write};

use clap::Args;

use super::{Ended, Exit, interrupt::Interrupt};
use crate::{
    engine::{EngineError, child},
    model::{Checkpoint, hub::HubSettings},
};

#[derive(Args, Debug)]
pub(super) struct Worker {}

impl Worker {
    pub(super) fn run(&self, input: impl BufRead, out: &mut (impl Write + Send)) -> Result<Exit, Ended> {
        // A terminal's Ctrl-C goes to both processes: the other one says when this one ends.
        let _interrupt = Interrupt::watch()?;
        child::serve(input, out, |model| {
            // Whoever asks has fetched it, and names the folder.
            Checkpoint::resolve(model, &HubSettings::from_environment(), &mut |_| {})
                .map_err(|error| EngineError::Model(error.to_string()))
        })?;
        Ok(Exit::Held)
    }
}
