//! From a run to what comes nearest to a cell of it that nobody looks into: what its engine showed is held against the lab.

use std::{num::NonZeroUsize, path::Path, thread};

use super::{
    bisect::{self, BisectError, Wanted},
    diff, review,
};
use crate::{
    cause::likeness::{Answered, Likeness, candidates, likeness},
    cell::{Cell, Compute},
    compare::{Divergence, Tally},
    digest::Digest,
    model::{Checkpoint, Subject},
    numerics::Numerics,
    store::{
        run::{Run, RunError},
        trace::Reader,
    },
};

/// Where two cells part of which not both are looked into, and what comes nearest to those that are not.
#[derive(Clone, PartialEq, Debug)]
pub struct Likened {
    /// The two.
    pub cells: [Cell; 2],
    /// Where they part; nothing where that is not seen.
    pub divergence: Option<Divergence>,
    /// What comes nearest to each that is not looked into.
    pub likenesses: Vec<(Cell, Likeness)>,
}

/// So many places are read where nobody says.
pub const PLACES: NonZeroUsize = NonZeroUsize::new(256).expect("it is not 0");

/// Is it a cell whose operations nobody sees?
pub fn is_foreign(cell: &Cell) -> bool {
    !matches!(cell.compute, Compute::Lab(_))
}

/// Looks for what comes nearest to the cells that nobody looks into: at the first places of what they answered, so many of
/// them, or at those of the item that is wanted.
///
/// # Errors
///
/// When a cell has not run, or the model does not load.
pub fn likened(
    folder: &Path,
    checkpoint: &Checkpoint,
    subject: &Subject<'_>,
    wanted: &Wanted<'_>,
    places: NonZeroUsize,
) -> Result<Likened, BisectError> {
    let run = bisect::opened(folder, subject)?;
    let cells = bisect::cells(&run, wanted.cells)?;
    let divergence = parting(&run, cells, wanted.item)?;
    let of_lab = |cell: &Cell| match cell.compute {
        Compute::Lab(numerics) => Some(numerics),
        _ => None,
    };
    let tried: Vec<Numerics> = candidates(run.about.cells.iter().filter_map(of_lab), subject.is_gguf);
    let threads = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let mut likenesses = Vec::new();
    for cell in cells.into_iter().filter(is_foreign) {
        let trace = bisect::trace(&run, cell)?;
        let mut reader = Reader::open(&run.store, trace).map_err(RunError::from)?;
        let mut answers = answers(&run, &mut reader, wanted.item, places)?;
        for Answered { tokens, .. } in &mut answers {
            // Nothing is read after a token that the model does not know.
            let known = tokens.iter().take_while(|token| (token.id as usize) < subject.vocabulary).count();
            tokens.truncate(known + 1);
        }
        let found = likeness(checkpoint, &answers, reader.sight(), &tried, [threads, wanted.together])?;
        likenesses.push((cell, found));
    }
    Ok(Likened { cells, divergence, likenesses })
}

/// Where they first part, or where they do on an item.
fn parting(run: &Run, cells: [Cell; 2], wanted: Option<&str>) -> Result<Option<Divergence>, BisectError> {
    let traces = [bisect::trace(run, cells[0])?, bisect::trace(run, cells[1])?];
    let Some(id) = wanted else { return Ok(diff::tally(run, run, traces)?.first().cloned()) };
    let question = bisect::item(run, id)?;
    let read = |trace: Digest| -> Result<_, BisectError> {
        let sight = Reader::open(&run.store, trace).map_err(RunError::from)?.sight();
        Ok((bisect::output(run, trace, question.item)?, sight))
    };
    let read = [read(traces[0])?, read(traces[1])?];
    let [one, other] = read
        .each_ref()
        .map(|((line, tokens), sight)| review::output(line, tokens, *sight, run.about.generation.replay));
    let mut tally = Tally::default();
    tally.add(&question, one, other);
    Ok(tally.first().cloned())
}

/// What a cell answered, up to so many places; the last of them may be in the midst of an item.
fn answers(
    run: &Run,
    reader: &mut Reader,
    wanted: Option<&str>,
    places: NonZeroUsize,
) -> Result<Vec<Answered>, BisectError> {
    let mut questions = review::questions(run)?;
    let mut left = places.get();
    let mut answers = Vec::new();
    for item in 0..questions.len() {
        let question = questions.get(item)?;
        let (_, mut tokens) = reader.expect(item).map_err(RunError::from)?;
        if tokens.is_empty() || wanted.is_some_and(|id| id != question.id) {
            continue;
        }
        tokens.truncate(left);
        left -= tokens.len();
        answers.push(Answered { prompt: question.tokens, tokens });
        if left == 0 {
            break;
        }
    }
    Ok(answers)
}
