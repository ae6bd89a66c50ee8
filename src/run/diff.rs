//! Where two runs, two cells or two logs of answers part, and whether accuracy changed.

use std::{
    collections::{HashMap, hash_map::Entry},
    path::{Path, PathBuf},
};

use super::review::{self, review};
use crate::{
    cell::Cell,
    compare::{Level, Tally},
    digest::Digest,
    engine::environment::Differing,
    record::Record,
    report::{Report, around},
    source::Blame,
    stats::paired::Paired,
    store::{
        run::{Run, RunError, cell_of_file},
        trace::{Reader, TreeFile},
    },
    suite::load::{self, Format, LoadErrors, Loaded},
    trace::Sight,
};

/// Something that can be held against another of its kind.
pub enum Side {
    /// A run's folder.
    Run(Run),
    /// One of its cells.
    Cell(Run, Box<Cell>),
    /// A log of lm-evaluation-harness.
    Log(Vec<Loaded>),
}

/// Why two things cannot be held against each other.
#[derive(Debug, thiserror::Error)]
pub enum DiffError {
    /// One of them cannot be read.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A log that does not read.
    #[error(transparent)]
    Log(#[from] LoadErrors),
    /// Two runs that were asked other questions.
    #[error("{one} and {other} cannot be compared: {difference}; compare what was asked the same questions")]
    Questions {
        /// The one.
        one: String,
        /// The other.
        other: String,
        /// What is other.
        difference: String,
    },
    /// Two logs of other documents.
    #[error("document {id} has another {what} in the second log: compare logs of one task")]
    Documents {
        /// Which.
        id: String,
        /// What is other.
        what: &'static str,
    },
    /// A cell that has not run.
    #[error("{cell} has not run in {}: run it with --resume", .folder.display())]
    Missing {
        /// Which.
        cell: Box<Cell>,
        /// Where.
        folder: PathBuf,
    },
    /// Two things of different kinds.
    #[error(
        "a run, a cell and a log are compared with their like: name two folders of runs, two files of cells/, or two samples_*.jsonl"
    )]
    Kinds,
}

impl Blame for DiffError {
    fn is_environment(&self) -> bool {
        matches!(self, DiffError::Run(error) if error.is_environment())
    }
}

impl Side {
    /// What a path stands for.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn open(path: &Path) -> Result<Side, DiffError> {
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("jsonl") => {
                let bytes = load::read(path)?;
                Ok(Side::Log(load::load(Format::LmEval, &path.display().to_string(), &bytes)?))
            }
            Some("json") => {
                let (folder, cell) = cell_of_file(path)?;
                Ok(Side::Cell(Run::open(&folder)?, Box::new(cell)))
            }
            _ => Ok(Side::Run(Run::open(path)?)),
        }
    }
}

/// Two cells beside each other.
pub struct CellDiff {
    /// The two.
    pub cells: [Cell; 2],
    /// In what their surroundings differ: what they differ by may come from it.
    pub around: Differing,
    /// How much the engine of each shows.
    pub sights: [Sight; 2],
    /// All items; nothing where all logits are seen and the roots of both trees are equal, which says it all.
    pub tally: Option<Tally>,
    /// The first item that differs, and how many nodes of each tree were read to find it; nothing where not all logits are
    /// seen.
    pub found: Option<(u64, usize)>,
}

/// Holds a run against another one: what became of every cell.
///
/// # Errors
///
/// When they were asked other questions, or a trace is not what was written.
pub fn runs(before: &Path, after: &Path, level: Level) -> Result<Report, DiffError> {
    let [before, after] = [review(before, None)?, review(after, None)?];
    same_questions(&before.run, &after.run)?;
    // Cells that share both traces share what there is to say of them.
    let mut tallies: HashMap<(Digest, Digest), Tally> = HashMap::new();
    let traces: HashMap<Cell, Digest> = before.traces.into_iter().collect();
    let mut pairs = Vec::new();
    for (cell, now) in after.traces {
        let Some(was) = traces.get(&cell) else { continue };
        if let Entry::Vacant(vacant) = tallies.entry((*was, now)) {
            vacant.insert(tally(&before.run, &after.run, [*was, now])?);
        }
        pairs.push((cell, (*was, now)));
    }
    let pairs: Vec<_> = pairs.iter().map(|(cell, traces)| (*cell, &tallies[traces])).collect();
    let vocabulary = after.run.vocabulary()?;
    let text = |token: u32| vocabulary.get(token as usize).cloned().unwrap_or_default();
    Ok(Report::of_change(before.report, after.report, level, &pairs, &text))
}

fn same_questions(one: &Run, other: &Run) -> Result<(), DiffError> {
    if one.about.items == other.about.items {
        return Ok(());
    }
    let difference = one.about.difference(&other.about).unwrap_or_else(|| "other questions".to_owned());
    let name = |run: &Run| run.folder.display().to_string();
    Err(DiffError::Questions { one: name(one), other: name(other), difference })
}

/// Compares two cells.
///
/// # Errors
///
/// When they were asked other questions, have not run, or their traces are not what was written.
pub fn cells((one, a): (&Run, Cell), (other, b): (&Run, Cell)) -> Result<CellDiff, DiffError> {
    same_questions(one, other)?;
    let done = |run: &Run, cell: Cell| match run.records(&[cell]).swap_remove(0).1? {
        Some(Record::Done(done)) => Ok(done),
        _ => Err(DiffError::Missing { cell: Box::new(cell), folder: run.folder.clone() }),
    };
    let traces = [done(one, a)?, done(other, b)?];
    let environments = [&traces[0].environment, &traces[1].environment];
    let around = around::differences([&one.about, &other.about], [a, b], environments);
    let sight =
        |run: &Run, at: usize| Reader::open(&run.store, traces[at].trace).map(|reader| reader.sight());
    let sights = [sight(one, 0).map_err(RunError::from)?, sight(other, 1).map_err(RunError::from)?];
    let sees_logits = sights == [Sight::Logits; 2];
    if sees_logits && traces[0].root == traces[1].root {
        return Ok(CellDiff { cells: [a, b], around, sights, tally: None, found: None });
    }
    let mut found = None;
    if sees_logits {
        let tree =
            |run: &Run, at: usize| TreeFile::open(&run.store, traces[at].trace).map_err(RunError::from);
        found = tree(one, 0)?.first_difference(&mut tree(other, 1)?).map_err(RunError::from)?;
    }
    let tally = tally(one, other, [traces[0].trace, traces[1].trace])?;
    Ok(CellDiff { cells: [a, b], around, sights, tally: Some(tally), found })
}

/// All items of two traces.
pub(super) fn tally(one: &Run, other: &Run, traces: [Digest; 2]) -> Result<Tally, RunError> {
    let mut questions = one.questions()?;
    let mut readers = [Reader::open(&one.store, traces[0])?, Reader::open(&other.store, traces[1])?];
    let mut tally = Tally::default();
    let replayed = one.about.generation.replay && other.about.generation.replay;
    for item in 0..questions.len() {
        let question = questions.get(item)?;
        let [a, b] = &mut readers;
        let sights = [a.sight(), b.sight()];
        let read = [a.expect(item)?, b.expect(item)?];
        let output = |at: usize| review::output(&read[at].0, &read[at].1, sights[at], replayed);
        let [a, b] = [output(0), output(1)];
        tally.add(&question, a, b);
    }
    Ok(tally)
}

/// Two logs beside each other.
pub struct LogDiff {
    /// How many documents both have, and how many the one alone and the other.
    pub documents: [u64; 3],
    /// How many of those in both have the same output.
    pub same: u64,
    /// The first document whose outputs differ, with both.
    pub first: Option<(String, [String; 2])>,
    /// For each filter that both have: its name, how many answers are the same, and what was lost and gained where both
    /// logs say so.
    pub filters: Vec<(String, u64, Paired)>,
}

/// Compares two logs, document by document.
///
/// # Errors
///
/// When a document is not the same in both.
pub fn logs(one: &[Loaded], other: &[Loaded]) -> Result<LogDiff, DiffError> {
    let mut diff = LogDiff { documents: [0; 3], same: 0, first: None, filters: Vec::new() };
    let by_id: HashMap<&str, &Loaded> = other.iter().map(|loaded| (loaded.id.as_str(), loaded)).collect();
    for a in one {
        let Some(b) = by_id.get(a.id.as_str()) else {
            diff.documents[1] += 1;
            continue;
        };
        let others =
            [(a.prompt != b.prompt || a.question != b.question, "prompt"), (a.answer != b.answer, "target")];
        if let Some((_, what)) = others.into_iter().find(|(other, _)| *other) {
            return Err(DiffError::Documents { id: a.id.clone(), what });
        }
        diff.documents[0] += 1;
        let (Some(a_done), Some(b_done)) = (&a.finished, &b.finished) else { continue };
        if a_done.output == b_done.output {
            diff.same += 1;
        } else if diff.first.is_none() {
            diff.first = Some((a.id.clone(), [a_done.output.clone(), b_done.output.clone()]));
        }
        for a in &a_done.filters {
            let Some(b) = b_done.filters.iter().find(|b| b.filter == a.filter) else { continue };
            let name = a.filter.clone().unwrap_or_else(|| "no filter".to_owned());
            let at = diff.filters.iter().position(|(known, ..)| *known == name).unwrap_or_else(|| {
                diff.filters.push((name, 0, Paired::default()));
                diff.filters.len() - 1
            });
            let (_, same, paired) = &mut diff.filters[at];
            *same += u64::from(a.extracted == b.extracted);
            if let (Some(a), Some(b)) = (a.correct, b.correct) {
                paired.include((a, b));
            }
        }
    }
    diff.documents[2] = other.len() as u64 - diff.documents[0];
    Ok(diff)
}
