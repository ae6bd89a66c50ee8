//! Defects of a store, for showing that whoever reads it sees them.

use std::{
    fs::{self, File},
    io,
    path::Path,
};

use super::{
    StoreError,
    run::{Locked, Run, RunError},
    trace::{self, Reader, Writer},
};
use crate::{
    record::{Done, Record},
    trace::{Finish, Sample, Step},
};

/// What is wrong with a trace.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum StoreFault {
    /// Its tokens end before their end.
    EndsEarly,
    /// A bit of its tokens is another one.
    FlipsBit,
    /// The answer of its first item was taken from its second. Every digest is that of what is there.
    TakesAnotherAnswer,
    /// Its first two items have changed places. Every digest is that of what is there.
    SwapsItems,
}

/// Makes the trace of the last cell that ran what a fault makes of it.
///
/// # Errors
///
/// When there is none, or it cannot be read or written.
pub fn spoil(folder: &Path, fault: StoreFault) -> Result<(), RunError> {
    let run = Run::open(folder)?;
    let done = run.records(&run.about.cells).into_iter().rev().find_map(|(_, record)| match record {
        Ok(Some(Record::Done(done))) => Some(done),
        _ => None,
    });
    let Some(done) = done else { return Ok(()) };
    match fault {
        StoreFault::EndsEarly | StoreFault::FlipsBit => {
            let path = trace::tokens_file(&run.store, done.trace);
            let changed = || {
                let length = fs::metadata(&path)?.len();
                if fault == StoreFault::EndsEarly {
                    return File::options().write(true).open(&path)?.set_len(length - 1);
                }
                let mut bytes = fs::read(&path)?;
                // Behind the header, where the digests are.
                if let Some(byte) = bytes.get_mut(length as usize / 2) {
                    *byte ^= 1;
                }
                fs::write(&path, bytes)
            };
            changed().map_err(|error: io::Error| StoreError::Write { path: path.clone(), error })?;
        }
        StoreFault::TakesAnotherAnswer | StoreFault::SwapsItems => rewrite(&run, *done, fault)?,
    }
    Ok(())
}

/// Writes a trace anew, and the record of its cell.
fn rewrite(run: &Run, done: Done, fault: StoreFault) -> Result<(), RunError> {
    let mut reader = Reader::open(&run.store, done.trace)?;
    let mut lines = Vec::new();
    for item in 0..run.about.questions {
        lines.push(reader.expect(item)?);
    }
    if let [(one, of_one), (other, of_other), ..] = &mut lines[..] {
        match fault {
            StoreFault::TakesAnotherAnswer => {
                one.scores.strict.answer.clone_from(&other.scores.strict.answer)
            }
            _ => {
                std::mem::swap(one, other);
                std::mem::swap(of_one, of_other);
                std::mem::swap(&mut one.item, &mut other.item);
                let mut questions = run.questions()?;
                for line in [one, other] {
                    let question = questions.get(line.item)?;
                    line.scores = question.score(&line.text, line.finish == Finish::Length);
                }
            }
        }
    }
    let mut writer = Writer::new(&run.folder, reader.sight())?;
    for (line, tokens) in lines {
        let steps = tokens.into_iter().map(|token| Step { token, rows: None }).collect();
        let (item, text, finish) = (line.item, line.text, line.finish);
        let sample = Sample { item, prompt: Vec::new(), steps, text, finish, launch: None };
        writer.add(&sample, line.scores)?;
    }
    let written = writer.finish(&run.store)?;
    let done = Done { trace: written.digest, root: written.root, ..done };
    Ok(Locked::new(&run.folder)?.record(&Record::Done(Box::new(done)))?)
}
