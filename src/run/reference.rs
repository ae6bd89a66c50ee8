//! The reference of a run, taken from another run that has it instead of being computed again.

use std::path::Path;

use super::RunFailure;
use crate::{
    record::Record,
    store::{
        run::{Locked, Run},
        trace,
    },
};

/// Takes it, unless it is there.
pub(super) fn take(run: &Run, folder: &Locked, from: &Path) -> Result<(), RunFailure> {
    let refused = |problem: String| RunFailure::Reference { folder: from.to_owned(), problem };
    let Some(cell) = run.about.reference else {
        return Err(refused("this matrix names no reference".to_owned()));
    };
    if let [(_, Ok(Some(Record::Done(_))))] = &run.records(&[cell])[..] {
        return Ok(());
    }
    let other = Run::open(from)?;
    if other.about.work() != run.about.work() {
        let difference = other.about.difference(&run.about);
        return Err(refused(difference.unwrap_or_else(|| "it does other work".to_owned())));
    }
    if other.about.generation.replay && other.about.reference != Some(cell) {
        return Err(refused(format!(
            "{cell} is not its reference, and reads the tokens of another cell there"
        )));
    }
    match other.records(&[cell]).pop() {
        Some((_, Ok(Some(record @ Record::Done(_))))) => {
            if let Record::Done(done) = &record {
                trace::copy(&other.store, &run.folder, &run.store, done.trace)?;
            }
            Ok(folder.record(&record)?)
        }
        Some((_, Err(problem))) => Err(problem.into()),
        _ => Err(refused(format!("{cell} has not run to its end there"))),
    }
}
