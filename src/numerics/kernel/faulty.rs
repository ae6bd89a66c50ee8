//! A kernel with a defect, at one place of the forward pass or at all, for showing that an audit sees it.

use super::{At, Copied, End, Job, Kernel, Op, Source, Workers};
use crate::numerics::{
    Numerics,
    order::{Launch, Order},
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
}

impl KernelFault {
    /// Every fault; the tests walk them.
    pub const ALL: [KernelFault; 3] =
        [KernelFault::AddsInAnotherOrder, KernelFault::DropsLastTerm, KernelFault::SkipsOperation];

    /// Is the operation one that this can spoil?
    fn concerns<W>(self, op: &Op<'_, W>) -> bool {
        match self {
            KernelFault::AddsInAnotherOrder | KernelFault::DropsLastTerm => {
                matches!(op, Op::Product(_) | Op::Norm { .. } | Op::Softmax { .. })
            }
            KernelFault::SkipsOperation => true,
        }
    }
}

/// A kernel with a fault.
#[derive(Debug)]
pub struct Faulty<K> {
    kernel: K,
    fault: KernelFault,
    /// Where it shows; everywhere if no place is given.
    only: Option<At>,
    /// What adds in another order.
    other: Option<K>,
}

/// A matrix of such a kernel.
#[derive(Debug)]
pub struct Suspect<W> {
    own: W,
    /// The same in the walk of the other order, where that is what multiplies.
    other: Option<W>,
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
        let other = (fault == KernelFault::AddsInAnotherOrder).then(|| {
            let order = match numerics.order() {
                Order::REVERSED => Order::SEQUENTIAL,
                _ => Order::REVERSED,
            };
            let other = Numerics::new(numerics.precision(), order, numerics.threads());
            make(other.expect("a plain order goes with every precision"))
        });
        Ok(Faulty { kernel: make(numerics)?, fault, only, other: other.transpose()? })
    }

    fn strikes(&self, at: At) -> bool {
        self.only.is_none_or(|only| only == at)
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
        let Some(other) = self.other.as_ref().filter(|_| self.strikes(at)) else {
            return Suspect { own: self.kernel.pack(at, columns, depth, source), other: None };
        };
        let mut copied = Copied::new(source, depth);
        let own = self.kernel.pack(at, columns, depth, &mut copied);
        let other = other.pack(at, columns, depth, &mut copied.again());
        Suspect { own, other: Some(other) }
    }

    fn push(&self, weights: &mut Self::Weights, end: End<'_>) {
        self.kernel.push(&mut weights.own, end);
        if let (Some(kernel), Some(weights)) = (&self.other, &mut weights.other) {
            kernel.push(weights, end);
        }
    }

    fn apply(&self, at: At, launch: Launch, mut op: Op<'_, Self::Weights>) {
        if !(self.strikes(at) && self.fault.concerns(&op)) {
            return self.kernel.apply(at, launch, op.lend(|weights| &weights.own));
        }
        match self.fault {
            KernelFault::AddsInAnotherOrder => {
                const MADE: &str = "what multiplies at a place has packed the matrix there";
                let other = self.other.as_ref().expect("the fault has its kernel");
                other.apply(at, launch, op.lend(|weights| weights.other.as_ref().expect(MADE)));
            }
            KernelFault::DropsLastTerm => {
                without_last_term(op.lend(|weights| &weights.own), |op| self.kernel.apply(at, launch, op));
            }
            KernelFault::SkipsOperation => {}
        }
    }
}

/// Hands on the operation, but for the last term of each of its sums.
fn without_last_term<W>(op: Op<'_, W>, apply: impl FnOnce(Op<'_, W>)) {
    let without = |rows: &[f32], width: usize| {
        let mut rows = rows.to_vec();
        rows.chunks_exact_mut(width.max(1)).for_each(|row| row[width.max(1) - 1] = 0.0);
        rows
    };
    match op {
        Op::Product(jobs) => {
            let rows = |job: &Job<'_, W>| {
                without(job.activations, job.activations.len().checked_div(job.rows).unwrap_or(0))
            };
            let shorter: Vec<_> = jobs.iter().map(rows).collect();
            let jobs = jobs.into_iter().zip(&shorter);
            apply(Op::Product(jobs.map(|(job, activations)| Job { activations, ..job }).collect()));
        }
        Op::Norm { rows, weight, epsilon, out } => {
            let rows = without(rows, weight.len());
            apply(Op::Norm { rows: &rows, weight, epsilon, out });
        }
        Op::Softmax { scores, width, seen, scale } => {
            for (row, seen) in scores.chunks_exact_mut(width.max(1)).zip(seen) {
                // The only key that is seen stays: without it there is nothing to weigh.
                if seen.len() > 1 {
                    row[seen.end - 1] = f32::NEG_INFINITY;
                }
            }
            apply(Op::Softmax { scores, width, seen, scale });
        }
        op => apply(op),
    }
}
