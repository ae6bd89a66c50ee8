//! The arithmetic a decoder needs, twice: as an executable definition, and fast.
//!
//! Products with weights and attention's two products over a growing cache are one operation, [`Op::Product`]:
//! activations times a matrix that is either packed once or grows, by a column for every key, by a row for
//! every value. What stands between products (norms, softmax, gates) goes row by row. Where attention cuts the keys, all
//! that is behind its scores is one operation, [`Op::Attend`].
//! [`Definition`] says in plain scalar code what every bit must be. [`Fast`] gives the same bits
//! on vectors: one lane per output element, so that no width, tile or batch changes the order of one output.
//! [`Faulty`] is a kernel with a defect, for showing that an audit sees it.

mod blocks;
mod certified;
mod codes;
mod definition;
mod fast;
mod faulty;
mod float;
mod integer;
mod isa;
mod op;
mod packed;
mod pairs;
mod panel;
mod prepared;
mod rows;
mod scaled;
mod schedules;
mod source;
mod task;
mod tile;
mod units;
mod workers;

use std::fmt;

use super::{Numerics, at::Site, order::Launch};

pub use super::at::{At, Step};
pub use definition::Definition;
pub use fast::{Fast, cost_of_term};
pub use faulty::{Faulty, KernelFault};
pub use isa::Isa;
pub use op::{Attended, End, Job, Op};
pub use packed::Packed;
pub use source::{Copied, Encoding, Source};
pub use workers::Workers;

/// Whatever carries out the operations of a decoder.
///
/// It has one door, and nothing stands here with a body: a kernel around another one sees every operation, with its
/// address, before and after the inner one does. The launch is an argument: an order may follow it, and then the shape
/// of a call moves bits.
pub trait Kernel: Sync {
    /// The right-hand side of a product.
    type Weights: fmt::Debug + Send + Sync;

    /// What this kernel computes.
    fn numerics(&self) -> Numerics;

    /// The threads that share its calls.
    fn workers(&self) -> &Workers;

    /// Packs a matrix of `columns` outputs and `depth` terms, to be multiplied at this place. Each output is asked for
    /// once, in turn; its terms are rounded to the precision's own format here.
    fn pack(&self, at: At, columns: usize, depth: usize, source: &mut dyn Source) -> Self::Weights;

    /// Appends an output or a term to a matrix that was packed without.
    fn push(&self, weights: &mut Self::Weights, end: End<'_>);

    /// Carries out an operation.
    fn apply(&self, at: At, launch: Launch, op: Op<'_, Self::Weights>);
}

/// One product on its own, the launch taken from its shape.
pub fn matmul<K: Kernel>(
    kernel: &K,
    site: Site,
    activations: &[f32],
    rows: usize,
    weights: &K::Weights,
    out: &mut [f32],
) {
    let launch = Launch { rows, threads: kernel.numerics().threads.get() };
    let job = Job { activations, rows, weights, start: None, out };
    kernel.apply(At::alone(site), launch, Op::Product(vec![job]));
}
