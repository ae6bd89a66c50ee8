//! The parts of a run, joined: what several machines shared becomes the run that one would have made.

use std::path::{Path, PathBuf};

use crate::{
    cell::Cell,
    record::Record,
    source::Blame,
    store::{
        StoreError,
        run::{Locked, Run, RunError},
        trace::{self, CopyError},
    },
};

/// Why parts cannot be joined.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// A part cannot be read, or the whole not be written.
    #[error(transparent)]
    Run(#[from] RunError),
    /// Parts of several runs.
    #[error("{} and {} are parts of different runs: {difference}; join parts of one", .one.display(), .other.display())]
    Different {
        /// The first part.
        one: PathBuf,
        /// Another.
        other: PathBuf,
        /// What is other.
        difference: String,
    },
    /// The whole where a part is.
    #[error("{} is one of the parts: name another folder with --out", .0.display())]
    Itself(PathBuf),
    /// A run where the whole was to go.
    #[error("{} holds a run already: replace it with --fresh, or name another folder with --out", .0.display())]
    Exists(PathBuf),
    /// A cell that ran twice, and did not do the same.
    #[error(
        "{cell} ran in {} and in {}, and has other tokens or logits there: see `reprocheck diff` on the two",
        .one.display(), .other.display()
    )]
    Conflict {
        /// Which.
        cell: Box<Cell>,
        /// The part that had it first.
        one: PathBuf,
        /// The other.
        other: PathBuf,
    },
    /// A trace that cannot be copied.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The whole cannot be written.
    #[error(transparent)]
    Write(#[from] StoreError),
}

impl Blame for MergeError {
    fn is_environment(&self) -> bool {
        match self {
            MergeError::Run(error) => error.is_environment(),
            MergeError::Copy(CopyError::Write(_)) | MergeError::Write(_) => true,
            _ => false,
        }
    }
}

/// Joins parts, and leaves the whole in a folder of its own.
///
/// # Errors
///
/// When they are not parts of one run, or one of them is not what was written.
pub fn merge(parts: &[PathBuf], out: &Path, replace: bool) -> Result<Run, MergeError> {
    let runs = parts.iter().map(|part| Run::open(part)).collect::<Result<Vec<_>, _>>()?;
    let first = &runs[0];
    for run in &runs {
        let differs = first.about.difference(&run.about);
        let differs = differs
            .or_else(|| (first.about.gates != run.about.gates).then(|| "other gates are to hold".to_owned()));
        if let Some(difference) = differs {
            let (one, other) = (first.folder.clone(), run.folder.clone());
            return Err(MergeError::Different { one, other, difference });
        }
    }
    let place = |path: &Path| path.canonicalize().ok();
    if let Some(part) = parts.iter().find(|part| place(out).is_some() && place(part) == place(out)) {
        return Err(MergeError::Itself(part.clone()));
    }
    let folder = Locked::new(out)?;
    if folder.holds_a_run() && !replace {
        return Err(MergeError::Exists(out.to_owned()));
    }
    // In the order of the parts, of which a later one may have what an earlier one failed at.
    let mut records: Vec<(&Run, Record)> = Vec::new();
    for run in &runs {
        for (cell, record) in run.records(&run.about.cells) {
            let Some(record) = record? else { continue };
            let known = records.iter_mut().find(|(_, known)| known.cell() == cell);
            match (known, &record) {
                (None, _) => records.push((run, record)),
                (Some((from, Record::Done(known))), Record::Done(done)) if known.trace != done.trace => {
                    let (one, other) = (from.folder.clone(), run.folder.clone());
                    return Err(MergeError::Conflict { cell: Box::new(cell), one, other });
                }
                (Some(known @ (_, Record::Failed(_))), Record::Done(_)) => *known = (run, record),
                _ => {}
            }
        }
    }
    let whole = folder.adopt(first)?;
    for (from, record) in &records {
        if let Record::Done(done) = record {
            trace::copy(&from.folder, out, done.trace)?;
        }
        folder.record(record)?;
    }
    Ok(whole)
}
