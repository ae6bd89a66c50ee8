//! `reprocheck server-keeper`: keeps a server, for another process of this program.

use std::io::{BufRead, Write};

use clap::Args;

use super::{Ended, Exit};
use crate::{engine::server::process, store};

#[derive(Args, Debug)]
pub(super) struct Keeper {}

impl Keeper {
    pub(super) fn run(
        &self,
        input: impl BufRead + Send + 'static,
        out: &mut impl Write,
    ) -> Result<Exit, Ended> {
        process::keep(input, out, store::log)?;
        Ok(Exit::Held)
    }
}
