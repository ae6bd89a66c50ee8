//! From a run's folder to the files of lm-evaluation-harness, cell by cell, every answer scored again.

use std::path::{Path, PathBuf};

use super::review;
use crate::{
    cell::Cell,
    record::Done,
    report::{
        Missing,
        lm_eval::{self, Task},
    },
    stats::proportion::Proportion,
    store::{
        self,
        lines::Lines,
        parts::Parts,
        run::{Run, RunError, cell_name},
        trace::Reader,
    },
    suite::{extract::Filter, question::Question},
};

/// What was written of a run.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exported {
    /// Every cell that was written, with its folder, in the order of the plan.
    pub written: Vec<(Cell, PathBuf)>,
    /// Every other one, and why.
    pub missing: Vec<Missing>,
}

/// Writes a folder for every cell that is done: its samples, suite by suite, and then its results, so that a folder with
/// results is whole. Cells with one trace get the same samples.
///
/// # Errors
///
/// When the run or one of its traces is not what was written, or the files cannot be written.
pub fn lm_eval(folder: &Path, out: &Path) -> Result<Exported, RunError> {
    let run = Run::open(folder)?;
    let mut questions = review::questions(&run)?;
    let tasks = tasks(&run, &mut questions)?;
    let (mut written, mut missing) = (Vec::new(), Vec::new());
    for (cell, done) in review::cells(&run)? {
        let is_replay = run.about.generation.replay && run.about.reference != Some(cell);
        match done {
            Ok(done) if !is_replay => {
                let place = out.join(cell_name(cell));
                write(&run, &done, &tasks, &mut questions, &place)?;
                written.push((cell, place));
            }
            // Its answers would be the reference's.
            Ok(_) => {
                let reason = "it read what the reference wrote, and answered nothing itself".to_owned();
                missing.push(Missing { cell, reason });
            }
            Err(reason) => missing.push(Missing { cell, reason }),
        }
    }
    Ok(Exported { written, missing })
}

/// Every suite that has questions, in the order in which they are asked.
fn tasks(run: &Run, questions: &mut Lines<Question>) -> Result<Vec<Task>, RunError> {
    let mut suites = run.about.suites.iter();
    let mut tasks: Vec<Task> = Vec::new();
    for item in 0..questions.len() {
        let question = questions.get(item)?;
        let other = |problem: &str| {
            let difference = format!("its question {item} {problem}");
            RunError::Other { folder: run.folder.clone(), difference }
        };
        if question.item != item {
            return Err(other(&format!("has the number {}", question.item)));
        }
        match tasks.last_mut() {
            Some(task) if task.has(&question) => task.items.end = item + 1,
            _ => {
                let asked = suites.find(|asked| asked.name == question.suite);
                let asked = asked.ok_or_else(|| other("belongs to no suite that is asked there"))?;
                tasks.push(Task::new(asked, &question));
            }
        }
    }
    for task in &mut tasks {
        for _ in Filter::ALL {
            for item in task.items.clone() {
                task.add(&questions.get(item)?);
            }
        }
    }
    Ok(tasks)
}

/// Writes one cell, and counts right answers meanwhile.
fn write(
    run: &Run,
    done: &Done,
    tasks: &[Task],
    questions: &mut Lines<Question>,
    place: &Path,
) -> Result<(), RunError> {
    let mut reader = Reader::open(&run.store, done.trace)?;
    let mut counted = Vec::new();
    let choice = done.cell.serving.choice(run.about.generation.choice);
    for task in tasks {
        // The harness writes all lines of one filter and then all of the next.
        let mut lines = Parts::new(&place.join(task.file()), Filter::ALL.len() - 1)?;
        let mut right = vec![Proportion::default(); Filter::ALL.len()];
        for item in task.items.clone() {
            let question = questions.get(item)?;
            let (line, tokens) = reader.expect(item)?;
            review::check(&reader, &question, &line, &tokens)?;
            for (part, filter) in Filter::ALL.iter().enumerate() {
                let score = line.scores.under(*filter);
                lines.write(part, task.sample(choice, &question, &line.text, *filter, score).as_bytes())?;
                right[part] = right[part] + Proportion { hits: score.is_correct().into(), of: 1 };
            }
        }
        lines.finish()?;
        counted.push((task, right));
    }
    reader.end()?;
    let results = lm_eval::results(&run.about, done.cell, &counted);
    store::write(&place.join(lm_eval::results_file()), results.as_bytes())?;
    Ok(())
}
