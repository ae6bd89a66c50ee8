//! From a run to the parts of the model that carry a difference: items that two cells read, each place by itself.

use std::{num::NonZeroUsize, path::Path};

use super::{
    bisect::{BisectError, Side, cells, item, opened, side},
    passages::Passages,
};
use crate::{
    cause::{
        Distance,
        attribution::{Attribution, By, Panel},
        passage::Passage,
        sensitivity::{Budget, Mapped},
    },
    cell::Cell,
    digest::Digest,
    model::{Checkpoint, Subject},
    numerics::{Numerics, precision::Precision},
    stats::clustered::Clustered,
    store::{
        run::{Run, RunError},
        trace::{Line, Reader},
    },
    trace::Token,
};

/// What is told how many of about how many readings are done.
pub type Done<'d> = &'d mut dyn FnMut(usize, usize);

/// Of which cells and items it is asked which parts carry their difference.
#[derive(Clone, Debug)]
pub struct Asked<'a> {
    /// Of which two cells; those that first part where there are none.
    pub cells: Option<[Cell; 2]>,
    /// Of one item, by its name.
    pub item: Option<&'a str>,
    /// Of so many items otherwise, the first whose logits differ.
    pub items: usize,
    /// What a part is.
    pub by: By,
    /// How many tokens are read at once; that moves no bit.
    pub together: NonZeroUsize,
}

/// Which parts carry the difference of two cells.
#[derive(Clone, PartialEq, Debug)]
pub struct Attributed {
    /// The two.
    pub cells: [Cell; 2],
    /// The items that were read.
    pub items: Vec<String>,
    /// What was found.
    pub attribution: Attribution,
}

/// Finds which parts of a model carry the difference between two cells, on what the first one wrote.
///
/// # Errors
///
/// When nothing differs, when a cell cannot be looked into, or when what the run recorded is not computed here.
pub fn attribute(
    folder: &Path,
    checkpoint: &Checkpoint,
    subject: &Subject<'_>,
    asked: &Asked<'_>,
    done: Done<'_>,
) -> Result<Attributed, BisectError> {
    let run = opened(folder, subject)?;
    let cells = cells(&run, asked.cells)?;
    let sides = [side(&run, cells[0])?, side(&run, cells[1])?];
    let mut read = Read::open(&run, cells, &sides)?;
    let only = asked.item.map(|id| item(&run, id)).transpose()?.map(|question| question.item);
    let mut chosen = Chosen::default();
    for item in 0..read.passages.items() {
        let [one, other] = read.next(item)?;
        let is_asked = only.map_or_else(|| one.0.root != other.0.root, |only| only == item);
        if is_asked && chosen.items.len() < asked.items {
            chosen.take(&mut read.passages, item, [&one, &other], asked.together)?;
        }
    }
    if chosen.items.is_empty() {
        let sentence = "both cells have the same logits for every token of every item";
        return Err(BisectError::Refused(sentence.to_owned()));
    }
    let (items, panel) = chosen.panel(checkpoint, sides.each_ref().map(|side| side.numerics));
    let attribution = panel.attribute(asked.by, done)?;
    if attribution.whole.divergence == Some(0.0) {
        let sentence = "every operation gives the same in both cells: they do not part by what they compute";
        return Err(BisectError::Refused(sentence.to_owned()));
    }
    Ok(Attributed { cells, items, attribution })
}

/// What is to be lowered, and how far.
#[derive(Clone, Copy, Debug)]
pub struct Lower {
    /// The cell that is the reference.
    pub cell: Cell,
    /// To which precision.
    pub to: Precision,
    /// How much may be given up.
    pub budget: Budget,
    /// How many items are read: every other one to choose by, and the others to tell what the choice costs.
    pub items: usize,
    /// How many tokens are read at once; that moves no bit.
    pub together: NonZeroUsize,
}

/// Measures how much a cell feels each product in a lower precision, and finds the cheapest map within a budget.
///
/// # Errors
///
/// When the cell cannot be looked into, when what the run recorded is not computed here, or when there is no such map.
pub fn sensitivity(
    folder: &Path,
    checkpoint: &Checkpoint,
    subject: &Subject<'_>,
    lower: &Lower,
    done: Done<'_>,
) -> Result<Mapped, BisectError> {
    let run = opened(folder, subject)?;
    let sides = [side(&run, lower.cell)?, side(&run, lower.cell)?];
    let own = sides[0].numerics;
    let to = own.in_precision(lower.to).map_err(|error| BisectError::Refused(error.to_string()))?;
    let mut read = Read::open(&run, [lower.cell; 2], &sides)?;
    let mut halves = [Chosen::default(), Chosen::default()];
    for item in 0..read.passages.items().min(lower.items as u64) {
        let [one, other] = read.next(item)?;
        let half = &mut halves[item as usize % 2];
        half.take(&mut read.passages, item, [&one, &other], lower.together)?;
    }
    if halves[1].items.is_empty() {
        return Err(BisectError::Refused(
            "one item chooses a map and another one tells what it costs: read two or more, of a run that has them"
                .to_owned(),
        ));
    }
    let [(chooses, panel), (tells, elsewhere)] = halves.map(|half| half.panel(checkpoint, [own, to]));
    let sensitivity = panel.sensitivity(lower.budget, done)?;
    let found = elsewhere.lowered(&sensitivity.lowered)?;
    let map = panel.map(&sensitivity.lowered);
    let outcomes = found
        .iter()
        .enumerate()
        .flat_map(|(item, of)| (0..of.places).map(move |place| (item, i64::from(place < of.flips))));
    let expected = outcomes.collect::<Clustered<_>>().sample().expected(0.95);
    Ok(Mapped { items: [chooses, tells], sensitivity, map, elsewhere: Distance::of_all(&found), expected })
}

/// What two cells wrote, item by item.
struct Read {
    passages: Passages,
    readers: [Reader; 2],
}

/// What a cell made of an item.
type Output = (Line, Vec<Token>);

impl Read {
    fn open(run: &Run, cells: [Cell; 2], sides: &[Side; 2]) -> Result<Read, BisectError> {
        let [one, other] = sides.each_ref().map(|side| side.trace);
        let reader = |trace: Digest| Reader::open(&run.store, trace).map_err(RunError::from);
        Ok(Read {
            passages: Passages::open(run, cells, [one, other])?,
            readers: [reader(one)?, reader(other)?],
        })
    }

    /// The outputs of the next item.
    fn next(&mut self, item: u64) -> Result<[Output; 2], BisectError> {
        let [one, other] = self.readers.each_mut().map(|reader| reader.expect(item));
        Ok([one.map_err(RunError::from)?, other.map_err(RunError::from)?])
    }
}

/// The items that are read.
#[derive(Default)]
struct Chosen {
    items: Vec<String>,
    passages: Vec<Passage>,
    digests: Vec<[Vec<Digest>; 2]>,
}

impl Chosen {
    /// Takes an item as far as both have read it, with the tokens of the first.
    fn take(
        &mut self,
        passages: &mut Passages,
        item: u64,
        [one, other]: [&Output; 2],
        together: NonZeroUsize,
    ) -> Result<(), BisectError> {
        let places = one.1.len().min(other.1.len());
        let Some(last) = places.checked_sub(1) else { return Ok(()) };
        self.passages.push(passages.of(item, &one.0.tokens[..last], together)?);
        let tokens = [one, other].map(|output| &output.1[..places]);
        // The second has read the same up to the first token that is another one.
        let ids = tokens[0].iter().zip(tokens[1]);
        let same = ids.take_while(|(one, other)| one.id == other.id).count() + 1;
        let of = |tokens: &[Token]| tokens.iter().filter_map(Token::digest).collect::<Vec<_>>();
        self.digests.push([of(tokens[0]), of(&tokens[1][..same.min(places)])]);
        self.items.push(passages.question(item)?.id);
        Ok(())
    }

    fn panel(self, checkpoint: &Checkpoint, numerics: [Numerics; 2]) -> (Vec<String>, Panel<'_>) {
        let Chosen { items, passages, digests } = self;
        (items, Panel { checkpoint, numerics, passages, digests })
    }
}
