//! A run divided into parts that take about as long as each other: cells by what they are reckoned to take, and a cell by its
//! groups where it is too long for a part.
//!
//! Every part divides the whole by itself, and nobody tells the others: nothing here depends on the machine.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, hash_map::Entry},
    ops::Range,
    path::Path,
};

use super::{RunFailure, groups::Layout, questions};
use crate::{
    cell::{Axis, Cell, Compute, Setting},
    model::{Cost, Subject},
    numerics::kernel::cost_of_term,
    plan::Plan,
    record::Record,
    store::run::Run,
};

/// Consecutive groups of a cell.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stretch {
    /// The cell.
    pub cell: Cell,
    /// Which of its groups; all of them where it is whole.
    groups: Option<Range<usize>>,
}

impl Stretch {
    /// A whole cell.
    pub(super) fn whole(cell: Cell) -> Stretch {
        Stretch { cell, groups: None }
    }

    /// Is it the whole cell?
    pub fn is_whole(&self) -> bool {
        self.groups.is_none()
    }

    /// Those of a cell's groups that are its own.
    pub(super) fn of(&self, groups: impl Iterator<Item = Vec<u64>>) -> impl Iterator<Item = Vec<u64>> {
        let Range { start, end } = self.groups.clone().unwrap_or(0..usize::MAX);
        groups.skip(start).take(end - start)
    }

    /// How many items it has.
    pub(super) fn items(&self, layout: &Layout) -> u64 {
        let serving = self.cell.serving;
        self.of(layout.groups(serving.grouping, serving.together())).map(|group| group.len() as u64).sum()
    }
}

/// What cells are reckoned to take, each beside the others.
pub struct Weights {
    /// Of a token.
    of_token: HashMap<Cell, u64>,
    /// Of cells that were measured, in milliseconds.
    measured: HashMap<Cell, u64>,
    /// The sum of what was measured, and of what a token of the same cells is reckoned to take.
    scale: (u64, u64),
}

impl Weights {
    /// By what a token takes of a model, or by what the cells of an earlier run took.
    ///
    /// # Errors
    ///
    /// When the model or the run cannot be read.
    pub fn new(subject: &Subject<'_>, cells: &[Cell], like: Option<&Path>) -> Result<Weights, RunFailure> {
        // Many cells have one cost: it follows from what is stored and from the batch.
        let (mut costs, mut of_token) = (HashMap::new(), HashMap::new());
        for &cell in cells {
            let stored =
                (cell.compute.engine(), cell.compute.precision(), cell.compute.kv(), cell.serving.batch);
            let cost = match costs.entry(stored) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(unknown) => {
                    let failed = |error| RunFailure::Engine { cell: Box::new(cell), error };
                    *unknown.insert(super::cost(subject, cell).map_err(failed)?)
                }
            };
            of_token.insert(cell, reckoned(cost, subject, cell));
        }
        let mut measured = HashMap::new();
        if let Some(folder) = like {
            let run = Run::open(folder)?;
            for (cell, record) in run.records(cells) {
                if let Some(Record::Done(done)) = record? {
                    measured.insert(cell, done.elapsed.milliseconds.max(1));
                }
            }
        }
        let scale = (measured.values().sum(), measured.keys().map(|cell| of_token[cell]).sum());
        Ok(Weights { of_token, measured, scale })
    }

    /// Of a cell, in a unit that all share.
    fn of(&self, cell: Cell) -> u64 {
        let reckoned = self.of_token[&cell];
        match (self.measured.get(&cell), self.scale) {
            (_, (0, _)) => reckoned,
            // A thousandth, so that whole numbers do.
            (Some(&milliseconds), _) => milliseconds * 1000,
            (None, (milliseconds, of_token)) => {
                (u128::from(reckoned) * u128::from(milliseconds) * 1000 / u128::from(of_token.max(1))) as u64
            }
        }
    }
}

/// The parts of a plan, each with its stretches and how many items each of these has.
///
/// # Errors
///
/// When the model cannot be asked, or the earlier run not be read.
pub fn parts(
    plan: &Plan,
    subject: &Subject<'_>,
    like: Option<&Path>,
    parts: usize,
) -> Result<Vec<Vec<(Stretch, u64)>>, RunFailure> {
    let asked = questions::asked(plan, subject)?;
    let mut layout = Layout::default();
    for question in questions::questions(plan.made_of(), &asked, &plan.generation, subject) {
        layout.add(&question?);
    }
    let weights = Weights::new(subject, &plan.cells, like)?;
    let with_items = |stretch: Stretch| {
        let items = stretch.items(&layout);
        (stretch, items)
    };
    let divided = divide(plan, &layout, &weights, parts).into_iter();
    Ok(divided.map(|part| part.into_iter().map(with_items).collect()).collect())
}

/// What one token takes under a cell: multiply-adds, each as often as an order takes longer than a running sum, shared by the
/// threads, and the bytes that are read for it, each as long as a few of them.
fn reckoned(cost: Option<Cost>, subject: &Subject<'_>, cell: Cell) -> u64 {
    /// As long as one byte from memory a core multiplies and adds so many numbers, on a machine of today.
    const MACS_OF_BYTE: u64 = 2;
    // Where nothing is known of cells, they are alike.
    let Some(cost) = cost else { return subject.parameters.max(1) };
    let steps = match cell.compute {
        Compute::Lab(numerics) => cost_of_term(numerics) as u64,
        _ => 1,
    };
    let threads = match cell.get(Axis::Threads) {
        Setting::Threads(threads) => threads.get() as u64,
        _ => 1,
    };
    let macs = (cost.linear_macs + cost.attention_macs) * steps / threads;
    (macs + MACS_OF_BYTE * cost.moved_bytes) * cell.serving.answers() as u64
}

/// Divides the cells of a plan into so many parts. A reference that all of them read is in none.
pub(super) fn divide(plan: &Plan, layout: &Layout, weights: &Weights, parts: usize) -> Vec<Vec<Stretch>> {
    let is_shared = |cell: &&Cell| !(plan.generation.replay && Some(**cell) == plan.reference);
    // Of every way of grouping, how many tokens each group has.
    let way = |cell: Cell| (cell.serving.grouping, cell.serving.together());
    let mut groups_of: HashMap<_, Vec<u64>> = HashMap::new();
    let mut cells = Vec::new();
    for &cell in plan.cells.iter().filter(is_shared) {
        let (grouping, together) = way(cell);
        let groups = groups_of.entry((grouping, together)).or_insert_with(|| {
            layout.groups(grouping, together).map(|group| layout.tokens(&group)).collect()
        });
        let (tokens, weight): (u64, _) = (groups.iter().sum(), u128::from(weights.of(cell)));
        cells.push((cell, weight, u128::from(tokens) * weight));
    }
    // The longest first; those that take the same go round, so that what is wrong with one estimate is wrong in all parts.
    cells.sort_by_key(|(_, _, whole)| Reverse(*whole));
    let all: u128 = cells.iter().map(|(_, _, whole)| whole).sum();
    let most = all.div_ceil(parts as u128);
    // A part may be as much too long, before a cell is cut.
    let slack = most / 32;
    let mut divided = vec![Vec::new(); parts];
    // The part with most room is the next one, and of equal ones the first.
    let mut room: BinaryHeap<_> = (0..parts).map(|part| (most as i128, Reverse(part))).collect();
    for (cell, weight, mut rest) in cells {
        let can_be_cut = matches!(cell.compute, Compute::Lab(_));
        let groups = &groups_of[&way(cell)];
        // A part has one stretch of a cell, so that it has one file of what is done of it.
        let (mut start, mut given) = (0, Vec::new());
        while let Some((left, Reverse(part))) = room.pop() {
            let fits = left.max(0) as u128;
            let (mut end, mut taken) = (groups.len(), rest);
            if can_be_cut && rest > fits + slack && !room.is_empty() {
                (end, taken) = (start, 0);
                let of = |group: usize| u128::from(groups[group]) * weight;
                while end == start || end < groups.len() && taken + of(end) <= fits {
                    taken += of(end);
                    end += 1;
                }
            }
            let is_whole = start == 0 && end == groups.len();
            divided[part].push(Stretch { cell, groups: (!is_whole).then_some(start..end) });
            given.push((left - taken as i128, Reverse(part)));
            rest -= taken;
            start = end;
            if start == groups.len() {
                break;
            }
        }
        room.extend(given);
    }
    // As the plan has them: neighbors share an engine.
    let place: HashMap<Cell, usize> = plan.cells.iter().copied().zip(0..).collect();
    for part in &mut divided {
        part.sort_by_key(|stretch| place[&stretch.cell]);
    }
    divided
}
