//! `reprocheck approve`: what a gate against the baseline is held to from now on.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use clap::Args;

use super::{Ended, Exit, in_ci};
use crate::{
    report::words::plural,
    run::review,
    store,
    verdict::baseline::{Baseline, Change},
};

/// Approve the digests of a run: what a gate against the baseline is held to from now on
#[derive(Args, Debug)]
pub(super) struct Approve {
    /// The folder that `reprocheck run` wrote
    folder: PathBuf,
    /// The file that holds what is approved; in CI it is compared and not written
    #[arg(long, value_name = "FILE", default_value = "baseline.json")]
    baseline: PathBuf,
}

/// What was approved.
pub(super) fn read_baseline(path: &Path) -> Result<Baseline, Ended> {
    let file = path.display();
    let text = fs::read_to_string(path).map_err(|error| {
        Ended::usage(anyhow!(
            "cannot read {file}: {error}; make it with `reprocheck approve DIR --baseline {file}`"
        ))
    })?;
    Baseline::read(&text).map_err(|error| {
        Ended::usage(anyhow!("{file} {error}; remove it, and make it again with `reprocheck approve`"))
    })
}

impl Approve {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        let reviewed = review::review(&self.folder, None)?;
        if let Some(missing) = reviewed.report.missing.first() {
            return Err(Ended::usage(anyhow!(
                "{} of its cells are missing, such as {}: finish it with --resume before it is approved",
                reviewed.report.missing.len(),
                missing.cell
            )));
        }
        let (file, new) = (self.baseline.display(), reviewed.baseline);
        let old = self.baseline.exists().then(|| read_baseline(&self.baseline)).transpose()?;
        let same_subject = old.as_ref().filter(|old| old.about == new.about);
        if old.is_some() && same_subject.is_none() {
            writeln!(
                out,
                "~ another model, other questions, or other limits and choices: nothing can be compared"
            )?;
        }
        let changes = match same_subject {
            Some(old) => new.changes_from(old),
            None => new.cells.keys().map(|name| Change::New(name.clone())).collect(),
        };
        for change in &changes {
            match change {
                Change::New(cell) => writeln!(out, "+ {cell}: {} right", new.cells[cell].right)?,
                Change::Gone(cell) => writeln!(out, "- {cell}")?,
                Change::Elsewhere(cell) => {
                    writeln!(out, "~ {cell}: another machine or version of its engine")?
                }
                Change::Shown(cell, [before, now]) => {
                    writeln!(out, "~ {cell}: shows {now}, where it showed {before}")?;
                }
                Change::Changed(cell, levels, [before, now]) => {
                    let levels: Vec<_> = levels.iter().map(ToString::to_string).collect();
                    let right =
                        if before == now { String::new() } else { format!("; right {before}, now {now}") };
                    writeln!(out, "~ {cell}: other {}{right}", levels.join(", "))?;
                }
            }
        }
        if changes.is_empty() {
            writeln!(out, "{file} is up to date: {} cells", new.cells.len())?;
            return Ok(Exit::Held);
        }
        if in_ci() {
            writeln!(
                out,
                "{} pending, and CI approves none: run this elsewhere, and commit {file}",
                plural(changes.len() as u64, "change")
            )?;
            return Ok(Exit::Failed);
        }
        let mut json =
            serde_json::to_string_pretty(&new).map_err(|error| Ended::environment(anyhow!(error)))?;
        json.push('\n');
        store::write(&self.baseline, json.as_bytes()).map_err(Ended::environment)?;
        writeln!(out, "{} approved: {file}", plural(changes.len() as u64, "change"))?;
        Ok(Exit::Held)
    }
}
