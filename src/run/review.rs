//! From a run's folder to its report: every number again, from the raw traces.

use std::{collections::HashMap, path::Path};

use crate::{
    cell::Cell,
    compare::Output,
    digest::Digest,
    record::{About, Done, Record},
    report::{Missing, Report},
    store::{
        lines::Lines,
        run::{Run, RunError},
        trace::{Line, Reader, TraceError},
    },
    suite::question::Question,
    trace::{Finish, Sight, Token, chain},
    verdict::{
        baseline::Baseline,
        evidence::{Evidence, Known},
        of_faults,
    },
};

/// So many outputs are in memory at once.
const OUTPUTS: usize = 1024;

/// What a run says, and what it says it from.
pub struct Reviewed {
    /// The run.
    pub run: Run,
    /// Its cells that have run, each with its trace.
    pub traces: Vec<(Cell, Digest)>,
    /// What it says.
    pub report: Report,
    /// What can be approved of it.
    pub baseline: Baseline,
}

/// Reads a run again.
///
/// # Errors
///
/// When the run or one of its traces is not what was written.
pub fn review(folder: &Path, baseline: Option<&Baseline>) -> Result<Reviewed, RunError> {
    let mut reviewed = without_cause(folder, baseline)?;
    let Reviewed { run, traces, report, .. } = &mut reviewed;
    if let (Some(first), Some(explained)) = (&mut report.first, run.explained()?) {
        let traced = |cell: Cell| traces.iter().find(|(known, _)| *known == cell).map(|(_, trace)| *trace);
        let is_it = first.cells == explained.cells
            && first.cells.map(traced) == explained.traces.map(Some)
            && (first.divergence.item, first.divergence.place) == (explained.item, explained.place);
        first.cause = is_it.then_some(explained.cause);
    }
    if let Some(tested) = run.tested()?.filter(|tested| tested.about == run.about.digest()) {
        let ruling = of_faults(&tested);
        report.verdict = report.verdict.max(ruling.outcome);
        report.rulings.push(ruling);
    }
    Ok(reviewed)
}

/// Reads a run again, whatever is said of why two cells of it part.
pub(super) fn without_cause(folder: &Path, baseline: Option<&Baseline>) -> Result<Reviewed, RunError> {
    let run = Run::open(folder)?;
    let about = &run.about;
    let (mut known, mut missing) = (Vec::new(), Vec::new());
    // In the order in which cells first have them.
    let mut traces: HashMap<Digest, usize> = HashMap::new();
    let mut readers = Vec::new();
    let mut of_cells = Vec::new();
    for (cell, done) in cells(&run)? {
        let done = match done {
            Ok(done) => done,
            Err(reason) => {
                missing.push(Missing { cell, reason });
                continue;
            }
        };
        let trace = *traces.entry(done.trace).or_insert(readers.len());
        if trace == readers.len() {
            readers.push(Reader::open(&run.store, done.trace)?);
        }
        of_cells.push((cell, done.trace));
        let Done { root, launches, unlike_copies, environment, cost, .. } = *done;
        let sight = readers[trace].sight();
        known.push(Known { cell, trace, root, sight, launches, unlike_copies, environment, cost });
    }
    let mut evidence = Evidence::new(about, known, identity(about));
    read(&run, readers, &mut evidence)?;
    let vocabulary = run.vocabulary()?;
    let text = |token: u32| vocabulary.get(token as usize).cloned().unwrap_or_default();
    let report = Report::new(about, missing, &evidence, baseline, &text);
    let baseline = Baseline::of(&about.model.name, &evidence);
    Ok(Reviewed { report, baseline, traces: of_cells, run })
}

/// What became of a cell; where that cannot be used, why.
type Found = (Cell, Result<Box<Done>, String>);

/// Every cell, in the order of the plan.
pub(super) fn cells(run: &Run) -> Result<Vec<Found>, RunError> {
    let found = run.records(&run.about.cells).into_iter().map(|(cell, record)| {
        let reason = match record {
            Ok(Some(Record::Done(done))) => return Ok((cell, Ok(done))),
            Ok(Some(Record::Failed(failed))) => failed.sentence,
            Ok(None) => "it has not run".to_owned(),
            Err(error @ (RunError::Damaged { .. } | RunError::Trace(_))) => error.to_string(),
            Err(error) => return Err(error),
        };
        Ok((cell, Err(reason)))
    });
    found.collect()
}

/// All questions, which are as many as the run says.
pub(super) fn questions(run: &Run) -> Result<Lines<Question>, RunError> {
    let questions = run.questions()?;
    let (items, expected) = (questions.len(), run.about.questions);
    if items != expected {
        let difference = format!("it has {items} questions, not {expected}");
        return Err(RunError::Other { folder: run.folder.clone(), difference });
    }
    Ok(questions)
}

/// Is an item that was read what its text and its tokens make of it?
pub(super) fn check(
    reader: &Reader,
    question: &Question,
    line: &Line,
    tokens: &[Token],
) -> Result<(), TraceError> {
    if question.score(&line.text, line.finish == Finish::Length) != line.scores {
        return Err(reader.wrong(question.item, "its text is scored differently now"));
    }
    if chain(reader.sight(), tokens) != line.root {
        return Err(reader.wrong(question.item, "its root is not that of its tokens"));
    }
    Ok(())
}

/// What a cell made of an item, with what its tokens were chosen from. `replayed` says that they were given.
pub(super) fn output<'a>(line: &'a Line, tokens: &'a [Token], sight: Sight, replayed: bool) -> Output<'a> {
    let strict = &line.scores.strict;
    Output {
        tokens,
        sight,
        text: &line.text,
        root: line.root,
        answer: strict.answer.as_deref(),
        outcome: strict.outcome,
        flexible: line.scores.flexible.is_correct(),
        replayed,
    }
}

/// One value for everything that the digests of all cells depend on.
fn identity(about: &About) -> Digest {
    let replayed = about.reference.filter(|_| about.generation.replay);
    let all = (about.model.digest, about.items, &about.generation, replayed);
    Digest::of(&serde_json::to_vec(&all).expect("nothing in it has no form in JSON"))
}

/// Reads all traces side by side, some items at a time.
fn read(run: &Run, mut readers: Vec<Reader>, evidence: &mut Evidence) -> Result<(), RunError> {
    let mut questions = questions(run)?;
    let items = questions.len();
    let block = (OUTPUTS / readers.len().max(1)).max(1) as u64;
    let replay = run.about.generation.replay;
    for first in (0..items).step_by(block as usize) {
        let numbers = first..items.min(first + block);
        let mut outputs: Vec<Vec<(Line, Vec<Token>)>> = Vec::new();
        for reader in &mut readers {
            let mut of_trace = Vec::new();
            for item in numbers.clone() {
                of_trace.push(reader.expect(item)?);
            }
            reader.pause();
            outputs.push(of_trace);
        }
        for (at, item) in numbers.enumerate() {
            let question = questions.get(item)?;
            let mut of_item = Vec::new();
            for (reader, of_trace) in readers.iter().zip(&outputs) {
                let (line, tokens) = &of_trace[at];
                check(reader, &question, line, tokens)?;
                of_item.push(output(line, tokens, reader.sight(), replay));
            }
            evidence.add(&question, &of_item);
        }
    }
    // Whatever follows would be no question's.
    for reader in &mut readers {
        reader.end()?;
    }
    Ok(())
}
