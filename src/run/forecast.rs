//! How long a plan will take, as a few tokens of everything that computes otherwise say.

use std::{
    collections::{HashMap, hash_map::Entry},
    time::{Duration, Instant},
};

use super::{RunFailure, groups::Layout, questions};
use crate::{
    cell::{Cell, Compute, Serving},
    engine::{Engine, EngineError, Observer, Opener, Prompt, Request},
    model::Subject,
    plan::Plan,
    source::Blame as _,
    suite::question::Question,
    trace::Sample,
};

/// How many tokens are measured after the first.
const MORE: usize = 4;

/// How long an engine takes.
#[derive(Clone, Copy)]
struct Took {
    /// To open.
    load: Duration,
    /// For each token of the prompts of a group, as it takes them all at once.
    read: Duration,
    /// For every further token of all of them.
    next: Duration,
}

/// Takes the time of tokens as they come.
struct Clock {
    start: Instant,
    first: Option<Duration>,
    last: Duration,
    steps: u32,
}

impl Observer for Clock {
    fn finished(&mut self, _: Sample) {}

    fn chose(&mut self, tokens: usize) {
        if tokens > 0 {
            self.last = self.start.elapsed();
            match self.first {
                None => self.first = Some(self.last),
                Some(_) => self.steps += 1,
            }
        }
    }
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
    // The prompt that is measured, and what the longest prompt of each suite has of tokens, before it and after it.
    let (mut layout, mut longest) = (Layout::default(), None::<Question>);
    let mut suites = Vec::<(usize, usize)>::new();
    for question in questions::questions(plan.made_of(), &asked, &plan.generation, subject) {
        let question = question?;
        layout.add(&question);
        suites.resize(layout.suites.len(), (0, question.max_new_tokens));
        let (tokens, _) = &mut suites[layout.suites.len() - 1];
        *tokens = question.tokens.len().max(*tokens);
        if longest.as_ref().is_none_or(|longest| longest.tokens.len() < question.tokens.len()) {
            longest = Some(question);
        }
    }
    let Some(longest) = longest else { return Ok((Duration::ZERO, 0)) };
    let (mut whole, mut refused) = (Duration::ZERO, 0);
    // What is open, for which cells, and how long it took to open.
    let mut open: Option<(Compute, Box<dyn Engine + '_>, Duration)> = None;
    let mut known = HashMap::new();
    for (cell, before) in plan.cells.iter().zip(std::iter::once(None).chain(plan.cells.iter().map(Some))) {
        let Serving { prefill_chunk, asking, .. } = cell.serving;
        let took = match known.entry((cell.compute, cell.serving.together(), prefill_chunk, asking)) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(unknown) => match measure(*cell, &longest, plan, opener, &mut open) {
                Err(error) if error.is_environment() => {
                    return Err(RunFailure::Engine { cell: Box::new(*cell), error });
                }
                took => unknown.insert(took.ok()),
            },
        };
        let Some(Took { load, read, next }) = *took else {
            refused += 1;
            continue;
        };
        if before.is_none_or(|before| before.engine() != cell.engine()) {
            whole += load;
        }
        for group in layout.groups(cell.serving.grouping, cell.serving.together()) {
            let (tokens, more) = suites[layout.suites.partition_point(|suite| suite.end <= group[0])];
            let more = next.saturating_mul(more.saturating_sub(1) as u32);
            whole = whole.saturating_add(read.saturating_mul(tokens as u32).saturating_add(more));
        }
    }
    Ok((whole, refused))
}

/// Asks one question, as often as a call of the cell has prompts, for a few tokens.
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
    let prompts: Vec<_> = (0..cell.serving.together().get() as u64).map(prompt).collect();
    let request = Request {
        prefill_chunk: cell.serving.prefill_chunk,
        asking: cell.serving.asking(),
        max_new_tokens: question.max_new_tokens.min(1 + MORE),
        // Nothing ends it early.
        stop_tokens: Vec::new(),
        stop_strings: Vec::new(),
        choice: cell.serving.choice(plan.generation.choice),
        candidates: plan.generation.candidates,
    };
    let mut clock = Clock { start: Instant::now(), first: None, last: Duration::ZERO, steps: 0 };
    engine.generate(&prompts, &request, &mut clock)?;
    // Who tells of no token has told all at once.
    let first = clock.first.unwrap_or_else(|| clock.start.elapsed());
    let next = clock.last.saturating_sub(first).checked_div(clock.steps).unwrap_or_default();
    Ok(Took { load: *load, read: first / question.tokens.len().max(1) as u32, next })
}
