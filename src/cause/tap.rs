//! A kernel that keeps, of every operation of another one, what it read and what it gave.

use std::{
    collections::BTreeMap,
    hash::BuildHasher as _,
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
};

use foldhash::fast::FixedState;

use super::passage::{Follows, Rows};
use crate::{
    model::Config,
    numerics::{
        Numerics,
        kernel::{At, Attended, End, Job, Kernel, Op, Source, Step, Workers},
        order::Launch,
    },
};

/// Which operation it is of those that a passage takes: the position of the token that it is for, its place, and the head of
/// attention, which is 0 where heads stand together.
///
/// Operations are in an order in which each one reads what smaller ones gave.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Which {
    /// The position.
    pub position: usize,
    /// The place.
    pub at: At,
    /// The head.
    pub head: usize,
}

/// What one operation read and what it gave. Two that are equal have read and given the same bits, but for one chance in 2^64;
/// they are never written down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Reading {
    /// Which operation.
    pub which: Which,
    read: u64,
    gave: u64,
}

/// Where two lists of readings first differ.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parting {
    /// This operation read the same and gave something else.
    Gave(Which),
    /// This operation read something else, although every one before gave the same: what lies between operations differs.
    Read(Which),
}

/// Where the readings of a passage first differ from those of another cell.
pub fn parting(one: &[Reading], other: &[Reading]) -> Option<Parting> {
    let pairs = one.iter().zip(other);
    let first = pairs.into_iter().find(|(one, other)| one != other);
    first.map(|(one, other)| {
        // Both cells read the same tokens by the same steps, so a place that one alone has is read by one alone.
        if one.which != other.which || one.read != other.read {
            Parting::Read(one.which.min(other.which))
        } else {
            Parting::Gave(one.which)
        }
    })
}

/// The kernel.
#[derive(Debug)]
pub struct Tap<K> {
    kernel: K,
    heads: usize,
    kv_heads: usize,
    now: Mutex<Now>,
}

#[derive(Default, Debug)]
struct Now {
    /// The tokens of the call.
    tokens: Range<usize>,
    listens: bool,
    readings: Vec<Reading>,
    /// The position of which everything that is given is kept.
    kept_of: Option<usize>,
    kept: Kept,
}

/// What operations gave for one position.
pub type Kept = BTreeMap<Which, Vec<f32>>;

/// A matrix of such a kernel.
#[derive(Debug)]
pub struct Tapped<W> {
    weights: W,
    /// What stands for so many ends that it has grown by: one more than there are.
    grown: Vec<u64>,
}

/// Stands for values, bit for bit.
fn mark(values: &[f32]) -> u64 {
    // The same in every run, so that a strange answer can be asked for again.
    FixedState::with_seed(0).hash_one(bytemuck::cast_slice::<f32, u8>(values))
}

/// Stands for several such together, in this order.
fn marks(all: &[u64]) -> u64 {
    FixedState::with_seed(1).hash_one(all)
}

impl<K> Tap<K> {
    /// Around a kernel of a model of this shape.
    pub fn new(kernel: K, config: &Config) -> Tap<K> {
        Tap { kernel, heads: config.heads, kv_heads: config.kv_heads, now: Mutex::default() }
    }

    /// The kernel inside.
    pub fn inner(&self) -> &K {
        &self.kernel
    }

    fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on it keeps what is read and given, and whole what is given for this position.
    pub fn listen(&self, position: Option<usize>) {
        *self.now() = Now { listens: true, kept_of: position, ..Now::default() };
    }

    /// What was read and given since then, in order, and what was kept whole. From now on it keeps nothing.
    pub fn take(&self) -> (Vec<Reading>, Kept) {
        let now = std::mem::take(&mut *self.now());
        let mut readings = now.readings;
        readings.sort_unstable_by_key(|reading| reading.which);
        (readings, now.kept)
    }

    /// What an operation is for, row after row, and what stands for what each of them reads.
    fn read<W>(&self, at: At, tokens: &Range<usize>, op: &Op<'_, Tapped<W>>) -> Vec<(usize, usize, u64)> {
        let (first, group) = (tokens.start, self.heads / self.kv_heads);
        let each = |rows: &[f32], count: usize| -> Vec<u64> {
            rows.chunks_exact(rows.len().checked_div(count).unwrap_or(0).max(1)).map(mark).collect()
        };
        let of_tokens = |marks: Vec<u64>| -> Vec<(usize, usize, u64)> {
            let a_token = (marks.len() / tokens.len()).max(1);
            let places = marks.into_iter().enumerate();
            places.map(|(row, mark)| (first + row / a_token, row % a_token, mark)).collect()
        };
        match op {
            // The queries of a head of keys stand together, token by token.
            Op::Product(jobs) if at.step == Step::Scores => {
                let of_job = |(kv_head, job): (usize, &Job<'_, Tapped<W>>)| {
                    let rows = each(job.activations, job.rows).into_iter().enumerate();
                    let of_row = |(row, read): (usize, u64)| {
                        let position = first + row / group;
                        let keys = job.weights.grown[position + 1];
                        (position, kv_head * group + row % group, marks(&[read, keys]))
                    };
                    rows.map(of_row).collect::<Vec<_>>()
                };
                jobs.iter().enumerate().flat_map(of_job).collect()
            }
            Op::Product(jobs) if at.step == Step::Context => {
                let of_job = |(job, product): (usize, &Job<'_, Tapped<W>>)| {
                    let (position, kv_head) = (first + job / self.kv_heads, job % self.kv_heads);
                    let values = product.weights.grown[position + 1];
                    let rows = each(product.activations, product.rows).into_iter().enumerate();
                    let of_row =
                        |(row, read): (usize, u64)| (position, kv_head * group + row, marks(&[read, values]));
                    rows.map(of_row).collect::<Vec<_>>()
                };
                jobs.iter().enumerate().flat_map(of_job).collect()
            }
            // Those of a token and a head of keys stand together.
            Op::Attend { rows, .. } => {
                let of_rows = |(job, own): (usize, &Attended<'_, Tapped<W>>)| {
                    let (position, kv_head) = (first + job / self.kv_heads, job % self.kv_heads);
                    let values = own.values.grown[position + 1];
                    let of_row = |(row, scores): (usize, &[f32])| {
                        let read = [mark(&scores[own.seen.start..]), values, own.seen.start as u64];
                        (position, kv_head * group + row, marks(&read))
                    };
                    own.seen_rows().enumerate().map(of_row).collect::<Vec<_>>()
                };
                rows.iter().enumerate().flat_map(of_rows).collect()
            }
            Op::Product(jobs) => {
                of_tokens(jobs.iter().flat_map(|job| each(job.activations, job.rows)).collect())
            }
            Op::Lookup { columns, .. } => {
                of_tokens(columns.iter().map(|column| u64::from(*column)).collect())
            }
            Op::Norm { rows, weight, .. } => of_tokens(each(rows, rows.len() / weight.len().max(1))),
            Op::Softmax { scores, width, seen, .. } => {
                let of_row = |(row, seen): (usize, &Range<usize>)| {
                    let (kv_head, rest) = (row / (tokens.len() * group), row % (tokens.len() * group));
                    let visible = &scores[row * width..][seen.clone()];
                    let read = marks(&[mark(visible), seen.start as u64]);
                    (first + rest / group, kv_head * group + rest % group, read)
                };
                seen.iter().enumerate().map(of_row).collect()
            }
            Op::Rotate { values, .. } => of_tokens(each(values, tokens.len())),
            Op::Gate { gate_up, .. } => of_tokens(each(gate_up, tokens.len())),
            Op::Add { stream, update } => {
                let both = each(stream, tokens.len()).into_iter().zip(each(update, tokens.len()));
                of_tokens(both.map(|(stream, update)| marks(&[stream, update])).collect())
            }
        }
    }
}

/// What an operation has given for these tokens, in so many rows; of scores and their softmax what those see whom they are for,
/// whoever else is read with them.
pub(super) fn given<'o, W>(
    at: At,
    op: &'o Op<'_, W>,
    tokens: &Range<usize>,
    rows: usize,
) -> Box<dyn Iterator<Item = &'o [f32]> + 'o> {
    let rows_of =
        |out: &'o [f32], count: usize| out.chunks_exact(out.len().checked_div(count).unwrap_or(0).max(1));
    match op {
        Op::Product(jobs) if at.step == Step::Scores => {
            let (first, count) = (tokens.start, tokens.len());
            Box::new(jobs.iter().flat_map(move |job| {
                let group = job.rows / count;
                let rows = rows_of(job.out, job.rows).enumerate();
                rows.map(move |(row, out)| &out[..=first + row / group])
            }))
        }
        Op::Product(jobs) => Box::new(jobs.iter().flat_map(move |job| rows_of(job.out, job.rows))),
        Op::Attend { rows, .. } => Box::new(rows.iter().flat_map(move |own| rows_of(own.out, own.rows))),
        Op::Softmax { scores, width, seen, .. } => {
            Box::new(scores.chunks_exact((*width).max(1)).zip(*seen).map(|(row, seen)| &row[..seen.end]))
        }
        Op::Lookup { out, .. } | Op::Norm { out, .. } | Op::Gate { out, .. } => Box::new(rows_of(out, rows)),
        Op::Rotate { values, .. } => Box::new(rows_of(values, rows)),
        Op::Add { stream, .. } => Box::new(rows_of(stream, rows)),
    }
}

impl<K: Kernel> Kernel for Tap<K> {
    type Weights = Tapped<K::Weights>;

    fn numerics(&self) -> Numerics {
        self.kernel.numerics()
    }

    fn workers(&self) -> &Workers {
        self.kernel.workers()
    }

    fn pack(&self, at: At, columns: usize, depth: usize, source: &mut dyn Source) -> Self::Weights {
        Tapped { weights: self.kernel.pack(at, columns, depth, source), grown: vec![0] }
    }

    fn push(&self, weights: &mut Self::Weights, end: End<'_>) {
        let (End::Column(terms) | End::Row(terms)) = end;
        let before = weights.grown.last().copied().unwrap_or_default();
        weights.grown.push(marks(&[before, mark(terms)]));
        self.kernel.push(&mut weights.weights, end);
    }

    fn apply(&self, at: At, launch: Launch, mut op: Op<'_, Self::Weights>) {
        let mut now = self.now();
        if !now.listens {
            return self.kernel.apply(at, launch, op.lend(|weights| &weights.weights));
        }
        let read = self.read(at, &now.tokens, &op);
        self.kernel.apply(at, launch, op.lend(|weights| &weights.weights));
        let Now { tokens, readings, kept_of, kept, .. } = &mut *now;
        for ((position, head, read), gave) in read.iter().zip(given(at, &op, tokens, read.len())) {
            let which = Which { position: *position, at, head: *head };
            readings.push(Reading { which, read: *read, gave: mark(gave) });
            if *kept_of == Some(*position) {
                kept.insert(which, gave.to_vec());
            }
        }
    }
}

impl<K: Follows> Follows for Tap<K> {
    fn follow(&self, tokens: Range<usize>, rows: [Rows; 2]) {
        self.now().tokens = tokens.clone();
        self.kernel.follow(tokens, rows);
    }
}
