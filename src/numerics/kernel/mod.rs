//! The arithmetic a decoder needs, twice: as an executable definition, and fast.
//!
//! Products with weights and attention's two products over a growing cache are one operation, [`Kernel::run`]:
//! activations times a matrix that is either packed once or grows, by a column for every key, by a row for
//! every value. [`Definition`] says in plain scalar code what every bit must be. [`Fast`] gives the same bits
//! on vectors: one lane per output element, so that no width, tile or batch changes the order of one output.

mod certified;
mod definition;
mod fast;
mod float;
mod integer;
mod isa;
mod packed;
mod prepared;
mod tile;

use super::{Numerics, order::Launch, precision::Site};

pub use definition::Definition;
pub use fast::{Fast, Fault};
pub use isa::Isa;
pub use packed::Packed;

/// One product: rows of activations times a matrix.
#[derive(Debug)]
pub struct Job<'a, W> {
    /// The activations, row after row. A row may be shorter than a growing matrix is deep: then it meets the
    /// matrix's first rows only, as a token meets the values up to its own.
    pub activations: &'a [f32],
    /// How many rows.
    pub rows: usize,
    /// The right-hand side.
    pub weights: &'a W,
    /// What each column's sum begins at, instead of +0.
    pub start: Option<&'a [f32]>,
    /// The results, row after row.
    pub out: &'a mut [f32],
}

/// Everything that a decoder asks of arithmetic.
///
/// The launch is an argument: an order may follow it, and then the shape of a call moves bits.
pub trait Kernel: Sync {
    /// The right-hand side of a product.
    type Weights: Send + Sync;

    /// What this kernel computes.
    fn numerics(&self) -> Numerics;

    /// Packs a matrix of `columns` outputs and `depth` terms. `fill(column, terms)` writes the weights of one
    /// output; they are rounded to the precision's own format here.
    fn pack(
        &self,
        site: Site,
        columns: usize,
        depth: usize,
        fill: &mut dyn FnMut(usize, &mut [f32]),
    ) -> Self::Weights;

    /// Appends one output: a key.
    fn push_column(&self, weights: &mut Self::Weights, terms: &[f32]);

    /// Appends one term to every output: a value.
    fn push_row(&self, weights: &mut Self::Weights, terms: &[f32]);

    /// Carries out the jobs, which share one launch.
    fn run(&self, site: Site, launch: Launch, jobs: Vec<Job<'_, Self::Weights>>);

    /// The sum of these f32 values in this kernel's order, in f32 whatever the precision: what softmax divides
    /// by.
    fn sum(&self, launch: Launch, terms: &[f32]) -> f32;

    /// The sum of their squares, in f32: what a norm divides by.
    fn sum_of_squares(&self, launch: Launch, terms: &[f32]) -> f32;

    /// One product, the launch taken from its own shape.
    fn matmul(&self, site: Site, activations: &[f32], rows: usize, weights: &Self::Weights, out: &mut [f32]) {
        let launch = Launch { rows, threads: self.numerics().threads.get() };
        self.run(site, launch, vec![Job { activations, rows, weights, start: None, out }]);
    }
}
