//! `reprocheck merge`: the parts of a run that several machines shared, as one.

use std::{io::Write, path::PathBuf, time::Duration};

use anyhow::anyhow;
use clap::Args;
use tabled::builder::Builder;

use super::{Ended, Exit, complain, report::Shown};
use crate::{
    report::{text::aligned, words::grouped},
    run::{merge, pace::in_words},
    store::run::{PartOf, parts},
};

/// Join the parts of a run that several machines shared, and judge the whole
#[derive(Args, Debug)]
pub(super) struct Merge {
    /// The folder that the parts were told to go to, or those of the parts
    #[arg(required = true)]
    parts: Vec<PathBuf>,
    /// Where the whole goes [default: the folder, where there is one with parts in it]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Replace the run that is there
    #[arg(long)]
    fresh: bool,
    #[command(flatten)]
    shown: Shown,
}

impl Merge {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        let baseline = self.shown.baseline()?;
        let below = |folder: &PathBuf| {
            let parts = parts(folder);
            if parts.is_empty() { vec![folder.clone()] } else { parts }
        };
        let all: Vec<_> = self.parts.iter().flat_map(below).collect();
        let whole = match (&self.out, &self.parts[..]) {
            (Some(out), _) => out,
            (None, [folder]) if all[0] != *folder => folder,
            (None, _) => {
                return Err(Ended::usage(anyhow!(
                    "{} holds no parts, and no folder is named for the whole: add --out DIR",
                    self.parts[0].display()
                )));
            }
        };
        // What lies beside its own parts was made of them.
        let is_made_of_them = all.iter().all(|part| part.parent() == Some(whole));
        let merged = merge::merge(&all, whole, self.fresh || is_made_of_them);
        let merged = merged.map_err(|error| match error {
            merge::MergeError::Conflict(_) => Ended::failed(error),
            _ => Ended::from(error),
        })?;
        for problem in &merged.distrusted {
            complain(&format!("not believed, so it counts as not done: {problem}"));
        }
        if !merged.parts.is_empty() {
            complain(&took(&merged.parts));
        }
        self.shown.judge(whole, baseline.as_ref(), out)
    }
}

/// What each part took.
fn took(parts: &[PartOf]) -> String {
    let mut table = Builder::default();
    table.push_record(["part", "items", "time", "peak memory"]);
    for PartOf { part, took } in parts {
        let memory =
            took.peak_bytes.map_or("not told".to_owned(), |bytes| format!("{} MiB", grouped(bytes >> 20)));
        let time = in_words(Duration::from_millis(took.milliseconds));
        table.push_record([part.to_string(), grouped(took.items), time, memory]);
    }
    aligned(table, [1, 2, 3]).to_string()
}
