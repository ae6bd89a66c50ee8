//! The fast twin: the definition's bits, on vectors, by as many threads as asked for.

use std::{
    collections::HashMap,
    ops::Range,
    sync::{
        Arc, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};

use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder, prelude::*};

use super::{
    Isa, Job, Kernel, Packed, check_rows, check_seen, check_turns,
    packed::PANEL,
    prepared::Prepared,
    rows::{
        Activated, Divided, Exponentials, Gated, Normed, RowSums, Scaled, TOGETHER, Terms, Turned, Updated,
        rounded,
    },
};
use crate::numerics::{
    Numerics, Reduction,
    activation::Activation,
    elementary,
    order::{Launch, Order, Schedule},
    precision::Site,
    rotary::Turn,
};

/// Multiply-adds below which waking a second thread costs more than it brings.
const WORTH_SHARING: usize = 1 << 20;

/// The same for what goes row by row, in values that are read, scaled and written.
const WORTH_SHARING_ROWS: usize = 1 << 18;
/// What a value costs in those terms where it is one of a sum.
const COST_OF_SUM: usize = 3;
/// What a value costs where an exponential is taken of it.
const COST_OF_EXP: usize = 20;
/// Terms of all schedules that are kept: a cache that grows asks for one of every length.
const MOST_SCHEDULED: usize = 1 << 22;

/// The fast kernel.
#[derive(Debug)]
pub struct Fast {
    pub(super) numerics: Numerics,
    pub(super) isa: Isa,
    /// As many threads as the numerics ask for; one is the caller's own.
    pool: Option<ThreadPool>,
    /// How many threads a call could use, the most of all calls since somebody asked.
    used: AtomicUsize,
    schedules: RwLock<Schedules>,
    pub(super) fault: Option<Fault>,
}

/// A defect to put into the kernel, for showing that an audit would have seen it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fault {
    /// The terms come in the opposite order.
    Reversed,
    /// The last term of the walk is left out.
    Dropped,
}

impl Fast {
    /// A kernel for these numerics on the widest vectors of this machine.
    ///
    /// # Errors
    ///
    /// When the threads cannot be started.
    pub fn new(numerics: Numerics) -> Result<Fast, ThreadPoolBuildError> {
        Fast::on(Isa::best(), numerics)
    }

    /// A kernel for these numerics on a given instruction set, which the machine must have.
    ///
    /// # Errors
    ///
    /// When the threads cannot be started.
    ///
    /// # Panics
    ///
    /// If the machine lacks the instruction set.
    pub fn on(isa: Isa, numerics: Numerics) -> Result<Fast, ThreadPoolBuildError> {
        assert!(isa.is_available(), "this machine has no {isa}");
        let threads = numerics.threads.get();
        let pool = match threads {
            1 => None,
            _ => Some(ThreadPoolBuilder::new().num_threads(threads).build()?),
        };
        let used = AtomicUsize::new(1);
        Ok(Fast { numerics, isa, pool, used, schedules: RwLock::default(), fault: None })
    }

    /// The same kernel with a defect.
    pub fn with_fault(self, fault: Fault) -> Fast {
        Fast { fault: Some(fault), ..self }
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// How many of so many rows go into one share, given what all of them cost: all, or few enough that every thread
    /// finds several, because rows differ in cost.
    fn share_of(&self, rows: usize, cost: usize) -> usize {
        let threads = self.numerics.threads.get();
        if threads == 1 || cost < WORTH_SHARING_ROWS {
            return rows.max(1);
        }
        let share = rows.div_ceil(4 * threads).max(1);
        self.used.fetch_max(threads.min(rows.div_ceil(share)), Ordering::Relaxed);
        share
    }

    /// Does the work of each share, on whichever thread is free.
    fn in_shares<T: Send>(
        &self,
        mut shares: impl ExactSizeIterator<Item = T>,
        work: impl Fn(T) + Send + Sync,
    ) {
        match shares.len() {
            0 => {}
            1 => shares.by_ref().for_each(work),
            _ => self.share(shares.collect(), work),
        }
    }

    fn row_sums(&self, terms: usize, launch: Launch) -> RowSums {
        let order = self.numerics.order_of(Reduction::Row);
        let schedule = self.schedule(order, terms, launch);
        RowSums { isa: self.isa, rule: order.rule(), schedule, fault: self.fault }
    }

    pub(super) fn schedule(&self, order: Order, terms: usize, launch: Launch) -> Arc<Schedule> {
        let key = (order.under(launch), terms);
        const POISONED: &str = "nothing panics while it holds the schedules";
        if let Some(schedule) = self.schedules.read().expect(POISONED).known.get(&key) {
            return Arc::clone(schedule);
        }
        let schedule = Arc::new(key.0.schedule(terms, launch));
        let mut schedules = self.schedules.write().expect(POISONED);
        if schedules.terms > MOST_SCHEDULED {
            *schedules = Schedules::default();
        }
        schedules.terms += terms;
        Arc::clone(schedules.known.entry(key).or_insert(schedule))
    }
}

/// The schedules made so far.
#[derive(Debug, Default)]
struct Schedules {
    known: HashMap<(Order, usize), Arc<Schedule>>,
    /// The terms of them all.
    terms: usize,
}

impl Kernel for Fast {
    type Weights = Packed;

    fn numerics(&self) -> Numerics {
        self.numerics
    }

    fn pack(
        &self,
        site: Site,
        columns: usize,
        depth: usize,
        fill: &mut dyn FnMut(usize, &mut [f32]),
    ) -> Packed {
        Packed::new(self.numerics, site, columns, depth, fill)
    }

    fn push_column(&self, weights: &mut Packed, terms: &[f32]) {
        weights.push_column(terms);
    }

    fn push_row(&self, weights: &mut Packed, terms: &[f32]) {
        weights.push_row(terms);
    }

    fn lookup(&self, weights: &Packed, column: usize, out: &mut [f32]) {
        let order = self.numerics.order_of(Reduction::Product(Site::Table));
        let schedule = self.schedule(order, weights.depth, Launch::default());
        weights.column(column, schedule.walk.as_deref(), out);
    }

    fn run(&self, site: Site, launch: Launch, jobs: Vec<Job<'_, Packed>>) {
        let recipe = self.numerics.precision.recipe(site);
        let order = self.numerics.order_of(Reduction::Product(site));
        let cost = |job: &Job<'_, Packed>| job.activations.len() * job.weights.columns;
        let pool = self.pool.as_ref().filter(|_| jobs.iter().map(cost).sum::<usize>() >= WORTH_SHARING);
        let Some(pool) = pool else {
            for job in jobs {
                let whole = 0..job.weights.columns.div_ceil(PANEL);
                let (product, out) = Prepared::new(self, order, recipe, launch, job);
                product.panels(whole, out);
            }
            return;
        };
        let threads = self.numerics.threads.get();
        let panels: usize = jobs.iter().map(|job| job.weights.columns.div_ceil(PANEL)).sum();
        self.used.fetch_max(threads.min(panels), Ordering::Relaxed);
        pool.install(|| {
            // Few jobs are shared by their outputs, many by their number.
            let shares = if jobs.len() >= 4 * threads { 1 } else { threads };
            jobs.into_par_iter().with_max_len(1).for_each(|job| {
                let panels = job.weights.columns.div_ceil(PANEL);
                let bounds: Vec<usize> = (0..=shares).map(|share| panels * share / shares).collect();
                let columns = job.weights.columns;
                let (product, out) = Prepared::new(self, order, recipe, launch, job);
                let ends = bounds[1..].iter().map(|&panel| columns.min(panel * PANEL));
                split_columns(out, columns, ends)
                    .into_par_iter()
                    .with_max_len(1)
                    .zip(bounds.par_windows(2))
                    .for_each(|(out, bounds)| product.panels(bounds[0]..bounds[1], out));
            });
        });
    }

    fn sum(&self, launch: Launch, terms: &[f32]) -> f32 {
        self.row_sums(terms.len(), launch).of(Terms::Values, &[terms])[0]
    }

    fn sum_of_squares(&self, launch: Launch, terms: &[f32]) -> f32 {
        self.row_sums(terms.len(), launch).of(Terms::Squares, &[terms])[0]
    }

    fn norm(&self, launch: Launch, rows: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
        check_rows(rows.len(), weight.len(), out.len());
        let (format, width) = (self.numerics.precision.activations(), weight.len().max(1));
        let sums = self.row_sums(weight.len(), launch);
        let share = self.share_of(rows.len() / width, COST_OF_SUM * rows.len());
        let shares = rows.chunks(share * width).zip(out.chunks_mut(share * width));
        self.in_shares(shares, |(rows, out)| {
            for (rows, out) in rows.chunks(TOGETHER * width).zip(out.chunks_mut(TOGETHER * width)) {
                let mut each: [&[f32]; TOGETHER] = [&[]; TOGETHER];
                each.iter_mut().zip(rows.chunks_exact(width)).for_each(|(each, row)| *each = row);
                let each = &each[..rows.len() / width];
                let mut scales = sums.of(Terms::Squares, each);
                for scale in &mut scales[..each.len()] {
                    *scale = elementary::rsqrt(*scale / width as f32 + epsilon);
                }
                rounded(self.isa, format, Normed { rows, scales: &scales, weight, out });
            }
        });
    }

    fn softmax(&self, launch: Launch, scores: &mut [f32], width: usize, seen: &[Range<usize>], scale: f32) {
        check_seen(scores.len(), width, seen);
        let (format, width) = (self.numerics.precision.activations(), width.max(1));
        let terms = seen.iter().map(|seen| seen.end).sum::<usize>();
        let share = self.share_of(seen.len(), COST_OF_EXP * terms);
        self.in_shares(scores.chunks_mut(share * width).zip(seen.chunks(share)), |(scores, seen)| {
            // Sums go together that have as many terms.
            let mut by_end: Vec<usize> = (0..seen.len()).collect();
            by_end.sort_by_key(|&row| seen[row].end);
            for rows in by_end.chunk_by(|&row, &next| seen[row].end == seen[next].end) {
                let end = seen[rows[0]].end;
                let sums = self.row_sums(end, launch);
                for rows in rows.chunks(TOGETHER) {
                    for &row in rows {
                        let (before, visible) = scores[row * width..][..end].split_at_mut(seen[row].start);
                        before.fill(0.0);
                        rounded(self.isa, format, Scaled { values: visible, scale });
                        self.isa.dispatch(Exponentials(visible));
                    }
                    let mut each: [&[f32]; TOGETHER] = [&[]; TOGETHER];
                    each.iter_mut().zip(rows).for_each(|(each, row)| *each = &scores[row * width..][..end]);
                    let sums = sums.of(Terms::Values, &each[..rows.len()]);
                    for (&row, &by) in rows.iter().zip(&sums) {
                        let values = &mut scores[row * width..][seen[row].clone()];
                        rounded(self.isa, format, Divided { values, by });
                    }
                }
            }
        });
    }

    fn rotate(&self, values: &mut [f32], heads: usize, turns: &[&Turn]) {
        let half = check_turns(values.len(), heads, turns);
        let format = self.numerics.precision.activations();
        let share = self.share_of(turns.len(), values.len());
        let shares = values.chunks_mut((share * heads * 2 * half).max(1)).zip(turns.chunks(share));
        self.in_shares(shares, |(values, turns)| rounded(self.isa, format, Turned { values, heads, turns }));
    }

    fn gate(&self, activation: Activation, gate_up: &[f32], width: usize, out: &mut [f32]) {
        check_rows(gate_up.len(), 2 * width, 2 * out.len());
        let (format, width) = (self.numerics.precision.activations(), width.max(1));
        let share = self.share_of(out.len() / width, COST_OF_EXP * out.len());
        let shares = gate_up.chunks(share * 2 * width).zip(out.chunks_mut(share * width));
        self.in_shares(shares, |(gate_up, out)| {
            for (row, values) in gate_up.chunks_exact(2 * width).zip(out.chunks_exact_mut(width)) {
                let (gate, by) = row.split_at(width);
                values.copy_from_slice(gate);
                self.isa.dispatch(Activated { activation, values });
                rounded(self.isa, format, Gated { values, by });
            }
        });
    }

    fn add(&self, stream: &mut [f32], update: &[f32]) {
        assert_eq!(stream.len(), update.len(), "there is an update for every value");
        let format = self.numerics.precision.activations();
        let share = self.share_of(stream.len(), stream.len());
        self.in_shares(stream.chunks_mut(share).zip(update.chunks(share)), |(values, update)| {
            rounded(self.isa, format, Updated { values, update });
        });
    }

    fn share<T: Send>(&self, jobs: Vec<T>, work: impl Fn(T) + Send + Sync) {
        match &self.pool {
            Some(pool) if jobs.len() > 1 => {
                pool.install(|| jobs.into_par_iter().with_max_len(1).for_each(work));
            }
            _ => jobs.into_iter().for_each(work),
        }
    }

    fn threads_used(&self) -> usize {
        self.used.swap(1, Ordering::Relaxed)
    }
}

/// Every row's outputs up to each end, as the rows of one share.
fn split_columns(
    out: Vec<&mut [f32]>,
    columns: usize,
    ends: impl Iterator<Item = usize> + Clone,
) -> Vec<Vec<&mut [f32]>> {
    let mut shares: Vec<_> = ends.clone().map(|_| Vec::with_capacity(out.len())).collect();
    for mut row in out {
        let mut start = 0;
        for (share, end) in shares.iter_mut().zip(ends.clone()) {
            let (this, rest) = row.split_at_mut(end - start);
            share.push(this);
            (row, start) = (rest, end);
        }
        debug_assert_eq!(start, columns);
    }
    shares
}
