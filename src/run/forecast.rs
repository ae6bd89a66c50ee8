//! How long a plan will take, as a few tokens of everything that computes otherwise say.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::{Duration, Instant},
};

use super::{RunFailure, groups::Layout, questions};
use crate::{
    cell::{Cell, Compute},
    engine::{Engine, EngineError, Opener, Prompt, Request},
    model::Subject,
    plan::Plan,
    source::Blame as _,
    suite::question::Question,
};

/// How many tokens are measured after the first.
const MORE: usize = 4;

/// How long an engine takes.
#[derive(Clone, Copy)]
struct Took {
    /// To open.
    load: Duration,
    /// For the prompts of a group, and the first token of each.
    first: Duration,
    /// For every further one.
    next: Duration,
}

/// How long all cells of a plan take one after the other, if every prompt is as long as the longest of its suite and as
/// many tokens follow it as may, and how many of them cannot run.
///
/// # Errors
///
/// When the model cannot be asked, or the machine fails.
pub fn at_most(
    plan: &Plan,
    subject: &Subject<'_>,
    opener: &dyn Opener,
) -> Result<(Duration, usize), RunFailure> {
    let asked = questions::asked(plan, subject)?;
    let (mut layout, mut longest) = (Layout::default(), Vec::<Question>::new());
    for question in questions::questions(plan, &asked, subject) {
        let question = question?;
        layout.add(&question);
        match longest.get_mut(layout.suites.len() - 1) {
            None => longest.push(question),
            Some(longest) if longest.tokens.len() < question.tokens.len() => *longest = question,
            Some(_) => {}
        }
    }
    let (mut whole, mut refused) = (Duration::ZERO, 0);
    // What is open, for which cells, and how long it took to open.
    let mut open: Option<(Compute, Box<dyn Engine + '_>, Duration)> = None;
    let mut known = HashMap::new();
    for (cell, before) in plan.cells.iter().zip(std::iter::once(None).chain(plan.cells.iter().map(Some))) {
        let took = match known.entry((cell.compute, cell.serving.batch, cell.serving.prefill_chunk)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => {
                let took = longest.iter().map(|question| measure(*cell, question, plan, opener, &mut open));
                match took.collect::<Result<Vec<_>, _>>() {
                    Err(error) if error.is_environment() => {
                        return Err(RunFailure::Engine { cell: Box::new(*cell), error });
                    }
                    took => unknown.insert(took.ok()),
                }
            }
        };
        let Some(took) = took else {
            refused += 1;
            continue;
        };
        if before.is_none_or(|before| before.engine() != cell.engine()) {
            whole += took.first().map_or(Duration::ZERO, |took| took.load);
        }
        for group in layout.groups(cell.serving.grouping, cell.serving.batch) {
            let suite = layout.suites.partition_point(|suite| suite.end <= group[0]);
            let more = longest[suite].max_new_tokens.saturating_sub(1);
            let Took { first, next, .. } = took[suite];
            whole = whole.saturating_add(first.saturating_add(next.saturating_mul(more as u32)));
        }
    }
    Ok((whole, refused))
}

/// Asks one question, as often as a call of the cell has prompts, for one token and then for some more.
fn measure<'o>(
    cell: Cell,
    question: &Question,
    plan: &Plan,
    opener: &'o dyn Opener,
    open: &mut Option<(Compute, Box<dyn Engine + 'o>, Duration)>,
) -> Result<Took, EngineError> {
    if open.as_ref().is_none_or(|(compute, ..)| *compute != cell.compute) {
        // The old one first: two large models may not fit.
        *open = None;
        let start = Instant::now();
        let engine = opener.open(cell.compute)?;
        *open = Some((cell.compute, engine, start.elapsed()));
    }
    let Some((_, engine, load)) = open else { unreachable!("it has just been opened") };
    let prompt = |item| Prompt { item, tokens: question.tokens.clone(), replay: None };
    let prompts: Vec<_> = (0..cell.serving.batch.get() as u64).map(prompt).collect();
    let mut ask = |tokens: usize| {
        let request = Request {
            prefill_chunk: cell.serving.prefill_chunk,
            max_new_tokens: tokens.min(question.max_new_tokens),
            // Nothing ends it early.
            stop_tokens: Vec::new(),
            stop_strings: Vec::new(),
            choice: plan.generation.choice.with_seed(cell.serving.seed),
            candidates: plan.generation.candidates,
        };
        let (mut samples, start) = (Vec::new(), Instant::now());
        engine.generate(&prompts, &request, &mut samples)?;
        Ok::<_, EngineError>(start.elapsed())
    };
    let first = ask(1)?;
    Ok(Took { load: *load, first, next: ask(1 + MORE)?.saturating_sub(first) / MORE as u32 })
}
