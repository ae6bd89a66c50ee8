//! The parts of a run, joined: what several machines shared becomes the run that one would have made.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use super::{gathering::Gathering, groups::Layout};
use crate::{
    cell::{Cell, Compute},
    digest::{Digest, MerkleTree},
    engine::environment::Environment,
    record::{Done, Record},
    source::Blame,
    store::{
        StoreError,
        lines::Lines,
        partial::{Answered, Groups, Maker},
        run::{Locked, PartOf, Run, RunError},
        trace::{self, CopyError},
    },
    suite::question::Question,
    trace::Sample,
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
    #[error("{0}")]
    Conflict(Box<Conflict>),
    /// Nothing to join.
    #[error("there is no part in {}: `reprocheck run --part 1/2 --out DIR` makes one there", .0.display())]
    NoParts(PathBuf),
    /// A trace that cannot be copied.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The whole cannot be written.
    #[error(transparent)]
    Write(#[from] StoreError),
}

/// A cell of which two parts have other tokens or logits.
#[derive(Debug, thiserror::Error)]
#[error(
    "{cell} ran in {} ({:.12}) and in {} ({:.12}), and has other tokens or logits there: see `reprocheck diff` on the two",
    .two[0].0.display(), .two[0].1.to_string(), .two[1].0.display(), .two[1].1.to_string()
)]
pub struct Conflict {
    cell: Cell,
    /// Each part, with the digest of all tokens and logits that it has.
    two: [(PathBuf, Digest); 2],
}

impl Blame for MergeError {
    fn is_environment(&self) -> bool {
        match self {
            MergeError::Run(error) => error.is_environment(),
            MergeError::Copy(error) => error.is_environment(),
            MergeError::Write(_) => true,
            _ => false,
        }
    }
}

/// What became of parts.
pub struct Merged {
    /// What each part took that says so.
    pub parts: Vec<PartOf>,
    /// What is not what was written: it counts as not done.
    pub distrusted: Vec<RunError>,
}

/// Joins parts, and leaves the whole in a folder: of its own, or the one that the parts lie in.
///
/// # Errors
///
/// When they are not parts of one run, or two of them have other tokens or logits of one cell.
pub fn merge(parts: &[PathBuf], out: &Path, replace: bool) -> Result<Merged, MergeError> {
    let place = |path: &Path| path.canonicalize().ok();
    let folder = Locked::new(out)?;
    if let Some(part) = parts.iter().find(|part| place(part) == place(out)) {
        return Err(MergeError::Itself(part.clone()));
    }
    if folder.holds_a_run() && !replace {
        return Err(MergeError::Exists(out.to_owned()));
    }
    let mut runs = Vec::<Run>::new();
    for part in parts {
        let run = Run::open(part)?;
        if let Some(first) = runs.first() {
            let differs = first.about.difference(&run.about);
            let gates =
                || (first.about.gates != run.about.gates).then(|| "other gates are to hold".to_owned());
            if let Some(difference) = differs.or_else(gates) {
                let (one, other) = (first.folder.clone(), run.folder);
                return Err(MergeError::Different { one, other, difference });
            }
        }
        runs.push(run);
    }
    let first = runs.first().ok_or_else(|| MergeError::NoParts(out.to_owned()))?;
    // What was joined before is no verdict on what is here now, whatever becomes of it.
    folder.clear()?;
    let mut distrusted = Vec::new();
    // In the order of the parts, of which a later one may have what an earlier one failed at.
    let mut records: HashMap<Cell, (&Run, Record)> = HashMap::new();
    for run in &runs {
        for (cell, record) in run.records(&run.about.cells) {
            let record = match record {
                Ok(Some(record)) => record,
                Ok(None) => continue,
                Err(error) if error.is_environment() => return Err(error.into()),
                Err(error) => {
                    distrusted.push(error);
                    continue;
                }
            };
            match (records.get(&cell), &record) {
                (Some((from, Record::Done(known))), Record::Done(done)) if known.trace != done.trace => {
                    let two = [(from.folder.clone(), known.root), (run.folder.clone(), done.root)];
                    return Err(MergeError::Conflict(Box::new(Conflict { cell, two })));
                }
                (None | Some((_, Record::Failed(_))), Record::Done(_)) | (None, Record::Failed(_)) => {
                    records.insert(cell, (run, record));
                }
                _ => {}
            }
        }
    }
    let whole = folder.adopt(first)?;
    for (from, record) in records.values() {
        if let Record::Done(done) = record {
            trace::copy(&from.store, out, &whole.store, done.trace)?;
        }
        folder.record(record)?;
    }
    let mut joining = Joining { runs: &runs, whole: &whole, questions: None, distrusted };
    for cell in whole.about.cells.iter().filter(|cell| !records.contains_key(cell)) {
        if let Some(done) = joining.cell(*cell)? {
            folder.record(&Record::Done(Box::new(done)))?;
        }
    }
    let distrusted = joining.distrusted;
    let parts = runs.iter().filter_map(|run| run.part_of().transpose()).collect::<Result<_, _>>()?;
    Ok(Merged { parts, distrusted })
}

/// Joins cells of which several parts have done some groups each.
struct Joining<'a> {
    runs: &'a [Run],
    whole: &'a Run,
    /// All questions, and how cells group them, once a cell needs them.
    questions: Option<(Lines<Question>, Layout)>,
    distrusted: Vec<RunError>,
}

/// The groups of a part, with the next one in hand.
struct Hand<'a> {
    run: &'a Run,
    groups: Groups,
    next: Option<Answered>,
    /// How long it took for those that were taken.
    milliseconds: u64,
}

impl Hand<'_> {
    /// The next one. What is not what was written ends it.
    fn turn(&mut self, distrusted: &mut Vec<RunError>) {
        self.next = self.groups.read().unwrap_or_else(|error| {
            distrusted.push(error);
            None
        });
    }
}

impl Joining<'_> {
    /// A cell, if every group of it is in one of the parts.
    fn cell(&mut self, cell: Cell) -> Result<Option<Done>, MergeError> {
        let mut hands = Vec::new();
        for run in self.runs {
            if let Some(groups) = Groups::open(&run.folder, cell)? {
                let mut hand = Hand { run, groups, next: None, milliseconds: 0 };
                hand.turn(&mut self.distrusted);
                hands.push(hand);
            }
        }
        let Some(mut maker) = hands.iter().find_map(|hand| Some(hand.next.as_ref()?.maker.clone())) else {
            return Ok(None);
        };
        let (questions, layout) = match &mut self.questions {
            Some(known) => known,
            unknown => {
                let mut questions = self.whole.questions()?;
                let layout = Layout::of(&mut questions).map_err(RunError::from)?;
                unknown.insert((questions, layout))
            }
        };
        let mut gathering = Gathering::new(&self.whole.folder, maker.sight)?;
        for group in layout.groups(cell.serving.grouping, cell.serving.together()) {
            let asked = group.iter().map(|item| questions.get(*item)).collect::<Result<Vec<_>, _>>();
            let asked = asked.map_err(RunError::from)?;
            let mut found: Option<(&Run, Vec<Sample>)> = None;
            for hand in &mut hands {
                let is_it = |answered: &mut Answered| {
                    let answered = answered.samples.iter().map(|sample| (sample.item, &sample.prompt));
                    answered.eq(asked.iter().map(|question| (question.item, &question.tokens)))
                };
                let Some(answered) = hand.next.take_if(is_it) else { continue };
                hand.turn(&mut self.distrusted);
                hand.milliseconds = answered.milliseconds;
                let Some(environment) = joined(&maker, &answered.maker) else { continue };
                maker.environment = environment;
                match &found {
                    None => found = Some((hand.run, answered.samples)),
                    Some((from, known)) => {
                        let root = |samples: &[Sample]| {
                            MerkleTree::over(samples.iter().map(|sample| sample.root(maker.sight)).collect())
                                .root()
                        };
                        let roots = [root(known), root(&answered.samples)];
                        if roots[0] != roots[1] {
                            let two = [(from.folder.clone(), roots[0]), (hand.run.folder.clone(), roots[1])];
                            return Err(MergeError::Conflict(Box::new(Conflict { cell, two })));
                        }
                    }
                }
            }
            let Some((_, samples)) = found else { return Ok(None) };
            gathering.add(&asked, &samples)?;
        }
        let milliseconds = hands.iter().map(|hand| hand.milliseconds).sum();
        Ok(Some(gathering.finish(&self.whole.store, maker, milliseconds)?))
    }
}

/// Where a cell ran of which this one has done some and the other one more; nothing where they do not make one cell. The lab has
/// the same bits everywhere, and of another engine a cell is of one place.
fn joined(one: &Maker, other: &Maker) -> Option<Environment> {
    let is_pinned = matches!(one.cell.compute, Compute::Lab(_));
    let is_one = Maker { environment: one.environment.clone(), ..other.clone() } == *one;
    (is_one && (is_pinned || one.environment == other.environment))
        .then(|| one.environment.joined(&other.environment))
}
