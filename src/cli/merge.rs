//! `reprocheck merge`: the parts of a run that several machines shared, as one.

use std::{io::Write, path::PathBuf};

use clap::Args;

use super::{Ended, Exit, report::Shown};
use crate::run::merge;

/// Join the parts of a run that several machines shared, and judge the whole
#[derive(Args, Debug)]
pub(super) struct Merge {
    /// The folders of the parts
    #[arg(required = true)]
    parts: Vec<PathBuf>,
    /// Where the whole goes
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace the run that is there
    #[arg(long)]
    fresh: bool,
    #[command(flatten)]
    shown: Shown,
}

impl Merge {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        let baseline = self.shown.baseline()?;
        merge::merge(&self.parts, &self.out, self.fresh).map_err(|error| match error {
            merge::MergeError::Conflict { .. } => Ended::failed(error),
            _ => Ended::from(error),
        })?;
        self.shown.judge(&self.out, baseline.as_ref(), out)
    }
}
