//! From a run to the cause of one of its divergences: what both cells read is read again, in the calls that the run had.

use std::{num::NonZeroUsize, path::Path};

use super::{
    diff::{self, DiffError},
    passages::{PassageError, Passages},
    review,
};
use crate::{
    cause::{Cause, CauseError, search::Case, sensitivity::SensitivityError},
    cell::{Cell, Compute},
    compare::{Divergence, Tally},
    digest::Digest,
    engine::EngineError,
    model::{Checkpoint, Subject},
    numerics::{Numerics, choice::Choice},
    record::{Explained, Record},
    source::Blame,
    store::{
        lines::LinesError,
        run::{Locked, Run, RunError},
        trace::{Line, Reader},
    },
    suite::question::Question,
    trace::{Sight, Token},
};

/// What is asked.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// Of which two cells; those that first part where there are none.
    pub cells: Option<[Cell; 2]>,
    /// Of which item, by its name; the first that parts where there is none.
    pub item: Option<&'a str>,
    /// How many sets of operations may be tried.
    pub tries: usize,
    /// How many tokens are read at once; that moves no bit.
    pub together: NonZeroUsize,
}

/// How many sets are tried, and how many tokens are read at once, where nobody says.
pub const USUAL: (usize, NonZeroUsize) = (64, NonZeroUsize::new(64).expect("it is not 0"));

impl Default for Wanted<'_> {
    fn default() -> Self {
        let (tries, together) = USUAL;
        Wanted { cells: None, item: None, tries, together }
    }
}

/// Where two cells part, and why.
#[derive(Clone, PartialEq, Debug)]
pub struct Bisected {
    /// The two.
    pub cells: [Cell; 2],
    /// Their traces.
    pub traces: [Digest; 2],
    /// Where they part.
    pub divergence: Divergence,
    /// Why.
    pub cause: Cause,
}

/// Why no cause can be named.
#[derive(Debug, thiserror::Error)]
pub enum BisectError {
    /// The run cannot be read.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A cell of it has not run.
    #[error(transparent)]
    Diff(#[from] DiffError),
    /// A file of it cannot be read.
    #[error(transparent)]
    Lines(#[from] LinesError),
    /// What is asked cannot be answered, and why.
    #[error("{0}")]
    Refused(String),
    /// What was computed here says nothing.
    #[error(transparent)]
    Cause(#[from] CauseError),
    /// No map is within a budget.
    #[error(transparent)]
    Map(#[from] SensitivityError),
    /// The lab cannot read what it read in the run.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl From<PassageError> for BisectError {
    fn from(error: PassageError) -> BisectError {
        match error {
            PassageError::Run(error) => BisectError::Run(error),
            PassageError::Lines(error) => BisectError::Lines(error),
        }
    }
}

impl Blame for BisectError {
    fn is_environment(&self) -> bool {
        match self {
            BisectError::Run(error) => error.is_environment(),
            BisectError::Diff(error) => error.is_environment(),
            BisectError::Cause(error) | BisectError::Map(SensitivityError::Cause(error)) => {
                error.is_environment()
            }
            BisectError::Engine(error) => error.is_environment(),
            BisectError::Lines(_) => true,
            BisectError::Map(_) | BisectError::Refused(_) => false,
        }
    }
}

/// Looks for the cause of a divergence.
///
/// # Errors
///
/// When nothing parts, when a cell's engine cannot be looked into, or when what the run recorded is not computed here.
pub fn bisect(
    folder: &Path,
    checkpoint: &Checkpoint,
    subject: &Subject<'_>,
    wanted: &Wanted<'_>,
) -> Result<Bisected, BisectError> {
    let run = opened(folder, subject)?;
    let cells = cells(&run, wanted.cells)?;
    let sides = [side(&run, cells[0])?, side(&run, cells[1])?];
    let mut passages = Passages::open(&run, cells, sides.each_ref().map(|side| side.trace))?;
    let question = asked(&run, &sides, wanted.item)?;
    let item = question.item;
    let outputs = [output(&run, sides[0].trace, item)?, output(&run, sides[1].trace, item)?];
    let mut tally = Tally::default();
    let replay = run.about.generation.replay;
    let [one, other] =
        outputs.each_ref().map(|(line, tokens)| review::output(line, tokens, Sight::Logits, replay));
    tally.add(&question, one, other);
    let Some(divergence) = tally.first().cloned() else {
        return Err(BisectError::Refused(format!(
            "both cells have the same logits for every token of {}",
            question.id
        )));
    };
    let place = divergence.place;
    let choices = cells.map(|cell| cell.serving.choice(run.about.generation.choice));
    if choices[0] != choices[1] {
        return Err(BisectError::Refused(format!(
            "they draw otherwise, which is why {} parts, whatever computes: name two cells of one temperature, top-p, top-k and \
             seed",
            divergence.id
        )));
    }
    if outputs.iter().any(|(_, tokens)| tokens.len() <= place) {
        return Err(BisectError::Refused(format!(
            "one of the outputs of {} has ended where the other goes on, so no token tells them apart",
            divergence.id
        )));
    }
    let case = Case {
        checkpoint,
        numerics: sides.each_ref().map(|side| side.numerics),
        passage: passages.of(item, &outputs[0].0.tokens[..place], wanted.together)?,
        item,
        choice: if replay { Choice::Greedy } else { choices[0] },
        digests: outputs
            .each_ref()
            .map(|(_, tokens)| tokens[..=place].iter().filter_map(Token::digest).collect()),
        tries: wanted.tries,
    };
    let cause = case.cause()?;
    Ok(Bisected { cells, traces: sides.map(|side| side.trace), divergence, cause })
}

/// Keeps what was found beside the run: reports in which these two cells first part there tell why from now on.
///
/// # Errors
///
/// When it cannot be written.
pub fn keep(folder: &Path, found: &Bisected) -> Result<(), BisectError> {
    let Bisected { cells, traces, divergence: Divergence { item, place, .. }, cause } = found;
    let explained =
        Explained { cells: *cells, traces: *traces, item: *item, place: *place, cause: cause.clone() };
    Ok(Locked::new(folder)?.explain(&explained).map_err(RunError::from)?)
}

/// A run of this model.
///
/// # Errors
///
/// When it cannot be read, or ran another model.
pub fn opened(folder: &Path, subject: &Subject<'_>) -> Result<Run, BisectError> {
    let run = Run::open(folder)?;
    let model = &run.about.model;
    if model.digest != subject.digest {
        return Err(BisectError::Refused(format!(
            "{} ran {}, whose files have the digest {}, and those of {} have {}: name that model with --model",
            folder.display(),
            model.name,
            model.digest,
            subject.name,
            subject.digest
        )));
    }
    Ok(run)
}

/// The two cells that are named, or those that first part in the report.
///
/// # Errors
///
/// When none are named, and no two part.
pub fn cells(run: &Run, named: Option<[Cell; 2]>) -> Result<[Cell; 2], BisectError> {
    if let Some(cells) = named {
        return Ok(cells);
    }
    // A cause that is there and cannot be read is written anew.
    let first = review::without_cause(&run.folder, None)?.report.first.map(|first| first.cells);
    first.ok_or_else(|| {
        let sentence = "no two cells part in what the report compares: name two that do";
        BisectError::Refused(sentence.to_owned())
    })
}

/// A cell of the lab that has run.
pub(super) struct Side {
    pub(super) numerics: Numerics,
    pub(super) trace: Digest,
}

pub(super) fn side(run: &Run, cell: Cell) -> Result<Side, BisectError> {
    let Compute::Lab(numerics) = cell.compute else {
        return Err(BisectError::Refused(format!(
            "what the operations of {cell} give cannot be seen: `reprocheck bisect` says which order and precision of the lab \
             comes nearest to it"
        )));
    };
    if cell.serving.has_history() && numerics.minds_its_rows() {
        return Err(BisectError::Refused(format!(
            "which calls {cell} had does not follow from how long its answers are, and its bits follow its calls: name cells without \
             neighbors, cache, verify and rebuild, or of an order that ignores the launch"
        )));
    }
    Ok(Side { numerics, trace: trace(run, cell)? })
}

/// What a cell left behind.
pub(super) fn trace(run: &Run, cell: Cell) -> Result<Digest, BisectError> {
    match run.records(&[cell]).swap_remove(0).1? {
        Some(Record::Done(done)) => Ok(done.trace),
        _ => Err(DiffError::Missing { cell: Box::new(cell), folder: run.folder.clone() }.into()),
    }
}

/// The question of a name, or the first one that parts two traces.
fn asked(run: &Run, sides: &[Side; 2], wanted: Option<&str>) -> Result<Question, BisectError> {
    if let Some(id) = wanted {
        return item(run, id);
    }
    let tally = diff::tally(run, run, [sides[0].trace, sides[1].trace])?;
    let first = tally.first().ok_or_else(|| {
        BisectError::Refused("both cells have the same logits for every token of every item".to_owned())
    })?;
    Ok(review::questions(run)?.get(first.item)?)
}

/// The question of a name.
pub(super) fn item(run: &Run, id: &str) -> Result<Question, BisectError> {
    let mut questions = review::questions(run)?;
    for item in 0..questions.len() {
        let question = questions.get(item)?;
        if question.id == id {
            return Ok(question);
        }
    }
    Err(BisectError::Refused(format!(
        "no item is called {id}: take a name of {}",
        run.folder.join("items.jsonl").display()
    )))
}

/// What a cell made of an item.
pub(super) fn output(run: &Run, trace: Digest, item: u64) -> Result<(Line, Vec<Token>), RunError> {
    let mut reader = Reader::open(&run.store, trace)?;
    for before in 0..item {
        reader.expect(before)?;
    }
    Ok(reader.expect(item)?)
}
