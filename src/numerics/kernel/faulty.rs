//! A kernel with a defect, at one place of the forward pass or at all, for showing that an audit sees it.

use std::sync::atomic::{AtomicU64, Ordering};

use super::{At, Attended, Copied, End, Job, Kernel, Op, Source, Step, Workers};
use crate::numerics::{
    Numerics,
    format::Format,
    order::{Launch, Order},
    precision::Precision,
};

/// What is wrong with a kernel. It declares its numerics all the same.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum KernelFault {
    /// Sums are added in another order: last term to first, or first to last where that is what is declared.
    AddsInAnotherOrder,
    /// The last term of every sum counts for nothing.
    DropsLastTerm,
    /// The operation is not carried out: where its results should stand is what stood there.
    SkipsOperation,
    /// The last term of every product counts twice, as a partial sum that two threads add.
    CountsLastTermTwice,
    /// The order is that of a launch of one row on one thread, whatever the launch.
    IgnoresLaunch,
    /// What does not add in the order, and every factor, is of bfloat16.
    ComputesInBf16,
    /// Results of products in bfloat16 are rounded toward zero.
    RoundsTowardZero,
    /// Results below the normal numbers of their format are 0.
    FlushesSubnormals,
    /// The last bit of bfloat16 is another one in the last row's first result of every product.
    FlipsBit,
    /// Each column of weights has the scale of the next.
    ScalesByNeighbor,
    /// The last update is not added to the residual stream.
    LosesUpdate,
    /// Of every fourth key the one before is kept in its place.
    KeepsKey,
    /// A query sees a key more than it should, where there is one.
    LooksAhead,
    /// Keys meet the queries of the job beside theirs.
    ReadsNeighbor,
    /// A token turns as the one before it in the call.
    TurnsLate,
    /// Nothing is added to the mean square of a norm.
    LosesEpsilon,
}

impl KernelFault {
    /// Those of every sum, wherever it stands; the tests walk them.
    pub const OF_SUMS: [KernelFault; 3] =
        [KernelFault::AddsInAnotherOrder, KernelFault::DropsLastTerm, KernelFault::SkipsOperation];

    /// Is the operation one that this can spoil?
    fn concerns<W>(self, at: At, op: &Op<'_, W>) -> bool {
        match self {
            KernelFault::AddsInAnotherOrder | KernelFault::DropsLastTerm => {
                matches!(op, Op::Product(_) | Op::Norm { .. } | Op::Softmax { .. } | Op::Attend { .. })
            }
            KernelFault::SkipsOperation
            | KernelFault::IgnoresLaunch
            | KernelFault::ComputesInBf16
            | KernelFault::FlushesSubnormals => true,
            KernelFault::CountsLastTermTwice | KernelFault::RoundsTowardZero => {
                matches!(op, Op::Product(_))
            }
            KernelFault::FlipsBit => matches!(op, Op::Product(_) | Op::Attend { .. }),
            KernelFault::LosesUpdate => matches!(op, Op::Add { .. }),
            KernelFault::ReadsNeighbor => matches!(op, Op::Product(_)) && at.step == Step::Scores,
            KernelFault::LooksAhead => matches!(op, Op::Softmax { .. } | Op::Attend { .. }),
            KernelFault::TurnsLate => matches!(op, Op::Rotate { .. }),
            KernelFault::LosesEpsilon => matches!(op, Op::Norm { .. }),
            // These are in what is packed.
            KernelFault::ScalesByNeighbor | KernelFault::KeepsKey => false,
        }
    }

    /// What a second kernel computes that stands in for the first.
    fn other(self, numerics: Numerics) -> Option<Numerics> {
        let (precision, order) = (numerics.precision(), numerics.order());
        let (precision, order) = match self {
            KernelFault::AddsInAnotherOrder if order == Order::REVERSED => (precision, Order::SEQUENTIAL),
            KernelFault::AddsInAnotherOrder => (precision, Order::REVERSED),
            KernelFault::ComputesInBf16 => (Precision::Bf16, order),
            KernelFault::RoundsTowardZero => (Precision::Fp32, order),
            _ => return None,
        };
        let other = numerics.in_order(order).and_then(|other| other.in_precision(precision));
        Some(other.expect("a precision of floats goes with every order"))
    }
}

/// A kernel with a fault.
#[derive(Debug)]
pub struct Faulty<K> {
    kernel: K,
    fault: KernelFault,
    /// Where it shows; everywhere if no place is given.
    only: Option<At>,
    /// What stands in for it.
    other: Option<K>,
    /// How often the fault has been carried out.
    strikes: AtomicU64,
}

/// A matrix of such a kernel.
#[derive(Debug)]
pub struct Suspect<W> {
    own: W,
    /// The same in the kernel that stands in.
    other: Option<W>,
    /// The last key of one that grows by keys, and how many there are.
    key: (Vec<f32>, usize),
}

impl<K: Kernel> Faulty<K> {
    /// The kernel that `make` makes of these numerics, with a fault `only` there, or everywhere.
    ///
    /// # Errors
    ///
    /// When it cannot be made.
    pub fn new<E>(
        numerics: Numerics,
        fault: KernelFault,
        only: Option<At>,
        make: impl Fn(Numerics) -> Result<K, E>,
    ) -> Result<Faulty<K>, E> {
        let other = fault.other(numerics).map(&make).transpose()?;
        Ok(Faulty { kernel: make(numerics)?, fault, only, other, strikes: AtomicU64::new(0) })
    }

    /// How often the fault has been carried out: a witness that its code ran.
    pub fn strikes(&self) -> u64 {
        self.strikes.load(Ordering::Relaxed)
    }

    fn is_here(&self, at: At) -> bool {
        self.only.is_none_or(|only| only == at)
    }

    fn struck(&self) {
        self.strikes.fetch_add(1, Ordering::Relaxed);
    }
}

impl<K: Kernel> Kernel for Faulty<K> {
    type Weights = Suspect<K::Weights>;

    fn numerics(&self) -> Numerics {
        self.kernel.numerics()
    }

    fn workers(&self) -> &Workers {
        self.kernel.workers()
    }

    fn pack(&self, at: At, columns: usize, depth: usize, source: &mut dyn Source) -> Self::Weights {
        let alone = |own| Suspect { own, other: None, key: (Vec::new(), 0) };
        if !self.is_here(at) {
            return alone(self.kernel.pack(at, columns, depth, source));
        }
        let is_scaled = self.fault == KernelFault::ScalesByNeighbor && columns > 1 && depth > 0;
        if self.other.is_none() && !is_scaled {
            return alone(self.kernel.pack(at, columns, depth, source));
        }
        let mut copied = Copied::new(source, depth);
        let own = self.kernel.pack(at, columns, depth, &mut copied);
        if let Some(other) = &self.other {
            let other = other.pack(at, columns, depth, &mut copied.again());
            return Suspect { other: Some(other), ..alone(own) };
        }
        self.struck();
        let mut source = copied.again();
        let mut values = vec![0.0; columns * depth];
        values.chunks_exact_mut(depth).enumerate().for_each(|(column, terms)| source.values(column, terms));
        let scale = |column: usize| {
            values[column % columns * depth..][..depth]
                .iter()
                .fold(0.0_f32, |most, term| most.max(term.abs()))
        };
        let ratio = |column: usize| if scale(column) > 0.0 { scale(column + 1) / scale(column) } else { 1.0 };
        alone(self.kernel.pack(at, columns, depth, &mut |column: usize, terms: &mut [f32]| {
            let ratio = ratio(column);
            for (term, value) in terms.iter_mut().zip(&values[column * depth..]) {
                *term = value * ratio;
            }
        }))
    }

    fn push(&self, weights: &mut Self::Weights, end: End<'_>) {
        if let (End::Column(key), KernelFault::KeepsKey) = (end, self.fault) {
            let (last, keys) = &mut weights.key;
            *keys += 1;
            if keys.is_multiple_of(4) {
                self.struck();
                return self.kernel.push(&mut weights.own, End::Column(last));
            }
            *last = key.to_vec();
        }
        self.kernel.push(&mut weights.own, end);
        if let (Some(kernel), Some(weights)) = (&self.other, &mut weights.other) {
            kernel.push(weights, end);
        }
    }

    fn apply(&self, at: At, launch: Launch, mut op: Op<'_, Self::Weights>) {
        if !(self.is_here(at) && self.fault.concerns(at, &op)) {
            return self.kernel.apply(at, launch, op.lend(|weights| &weights.own));
        }
        self.struck();
        let alone = Launch { rows: 1, threads: 1 };
        let with_other = |op: &mut Op<'_, Self::Weights>| {
            const MADE: &str = "what multiplies at a place has packed the matrix there";
            let other = self.other.as_ref().expect("the fault has its kernel");
            other.apply(at, launch, op.lend(|weights| weights.other.as_ref().expect(MADE)));
        };
        let own = |launch: Launch, op: Op<'_, K::Weights>| self.kernel.apply(at, launch, op);
        match self.fault {
            KernelFault::AddsInAnotherOrder | KernelFault::ComputesInBf16 => with_other(&mut op),
            KernelFault::SkipsOperation => {}
            KernelFault::IgnoresLaunch => own(alone, op.lend(|weights| &weights.own)),
            KernelFault::RoundsTowardZero => {
                with_other(&mut op);
                let is_bf16 = self.numerics().precision().activations(at) == Format::BF16;
                let cut = |value: f32| f32::from_bits(value.to_bits() & 0xffff_0000);
                each(&mut op, |value| if is_bf16 { cut(value) } else { value });
            }
            KernelFault::FlushesSubnormals => {
                own(launch, op.lend(|weights| &weights.own));
                let least = self.numerics().precision().activations(at).min_normal();
                each(&mut op, |value| if value.abs() < least { 0.0_f32.copysign(value) } else { value });
            }
            KernelFault::FlipsBit => {
                own(launch, op.lend(|weights| &weights.own));
                let rows: Vec<usize> = match &op {
                    Op::Product(jobs) => jobs.iter().map(|job| job.rows).collect(),
                    Op::Attend { rows, .. } => rows.iter().map(|own| own.rows).collect(),
                    _ => Vec::new(),
                };
                for (out, rows) in op.outputs().into_iter().zip(rows) {
                    let width = out.len().checked_div(rows).unwrap_or(0);
                    if let Some(value) = out.len().checked_sub(width).and_then(|last| out.get_mut(last)) {
                        *value = f32::from_bits(value.to_bits() ^ 0x1_0000);
                    }
                }
            }
            fault => spoiled(fault, op.lend(|weights| &weights.own), |op| own(launch, op)),
        }
    }
}

/// Changes every result.
fn each<W>(op: &mut Op<'_, W>, change: impl Fn(f32) -> f32) {
    op.outputs().into_iter().flatten().for_each(|value| *value = change(*value));
}

/// Hands on the operation with what the fault makes of its arguments.
fn spoiled<W>(fault: KernelFault, op: Op<'_, W>, apply: impl FnOnce(Op<'_, W>)) {
    // The last term of every row, times so much.
    let with_last = |rows: &[f32], width: usize, times: f32| {
        let mut rows = rows.to_vec();
        rows.chunks_exact_mut(width.max(1)).for_each(|row| row[width.max(1) - 1] *= times);
        rows
    };
    let times = if fault == KernelFault::CountsLastTermTwice { 2.0 } else { 0.0 };
    match (fault, op) {
        (KernelFault::DropsLastTerm | KernelFault::CountsLastTermTwice, Op::Product(jobs)) => {
            let rows = |job: &Job<'_, W>| {
                let width = job.activations.len().checked_div(job.rows).unwrap_or(0);
                with_last(job.activations, width, times)
            };
            let others: Vec<_> = jobs.iter().map(rows).collect();
            let jobs = jobs.into_iter().zip(&others);
            apply(Op::Product(jobs.map(|(job, activations)| Job { activations, ..job }).collect()));
        }
        (KernelFault::DropsLastTerm, Op::Norm { rows, weight, epsilon, out }) => {
            let rows = with_last(rows, weight.len(), times);
            apply(Op::Norm { rows: &rows, weight, epsilon, out });
        }
        (KernelFault::DropsLastTerm, Op::Softmax { scores, width, seen, scale }) => {
            for (row, seen) in scores.chunks_exact_mut(width.max(1)).zip(seen) {
                // The only key that is seen stays: without it there is nothing to weigh.
                if seen.len() > 1 {
                    row[seen.end - 1] = f32::NEG_INFINITY;
                }
            }
            apply(Op::Softmax { scores, width, seen, scale });
        }
        (KernelFault::DropsLastTerm, Op::Attend { rows, scale }) => {
            let without_last = |own: &Attended<'_, W>| {
                let width = own.scores.len() / own.rows;
                let mut scores = own.scores.to_vec();
                // As above.
                let last = own.seen.end - 1;
                let hidden = scores.chunks_exact_mut(width).filter(|_| own.seen.len() > 1);
                hidden.for_each(|row| row[last] = f32::NEG_INFINITY);
                scores
            };
            let others: Vec<_> = rows.iter().map(without_last).collect();
            let rows = rows.into_iter().zip(&others).map(|(own, scores)| Attended { scores, ..own });
            apply(Op::Attend { rows: rows.collect(), scale });
        }
        (KernelFault::LooksAhead, Op::Attend { rows, scale }) => {
            let rows = rows.into_iter().map(|mut own| {
                own.seen.end = (own.seen.end + 1).min(own.scores.len() / own.rows);
                own
            });
            apply(Op::Attend { rows: rows.collect(), scale });
        }
        (KernelFault::LooksAhead, Op::Softmax { scores, width, seen, scale }) => {
            let seen: Vec<_> = seen.iter().map(|seen| seen.start..(seen.end + 1).min(width)).collect();
            apply(Op::Softmax { scores, width, seen: &seen, scale });
        }
        (KernelFault::LosesUpdate, Op::Add { stream, update }) => {
            let mut update = update.to_vec();
            update.iter_mut().next_back().into_iter().for_each(|last| *last = 0.0);
            apply(Op::Add { stream, update: &update });
        }
        (KernelFault::ReadsNeighbor, Op::Product(jobs)) => {
            let queries: Vec<_> = jobs.iter().map(|job| job.activations).collect();
            let beside = |at: usize| {
                let (own, beside) = (queries[at], queries[(at + 1) % queries.len()]);
                if beside.len() == own.len() { beside } else { own }
            };
            let jobs = jobs.into_iter().enumerate();
            apply(Op::Product(jobs.map(|(at, job)| Job { activations: beside(at), ..job }).collect()));
        }
        (KernelFault::TurnsLate, Op::Rotate { values, heads, turns }) => {
            let late: Vec<_> = turns.first().into_iter().chain(turns).take(turns.len()).copied().collect();
            apply(Op::Rotate { values, heads, turns: &late });
        }
        (KernelFault::LosesEpsilon, Op::Norm { rows, weight, out, .. }) => {
            apply(Op::Norm { rows, weight, epsilon: 0.0, out });
        }
        (_, op) => apply(op),
    }
}
