//! The arithmetic a decoder needs, twice: as an executable definition, and fast.
//!
//! Products with weights and attention's two products over a growing cache are one operation, [`Kernel::run`]:
//! activations times a matrix that is either packed once or grows, by a column for every key, by a row for
//! every value. What stands between products (norms, softmax, gates) goes row by row.
//! [`Definition`] says in plain scalar code what every bit must be. [`Fast`] gives the same bits
//! on vectors: one lane per output element, so that no width, tile or batch changes the order of one output.

mod certified;
mod definition;
mod fast;
mod float;
mod integer;
mod isa;
mod packed;
mod prepared;
mod rows;
mod tile;

use std::ops::Range;

use super::{Numerics, activation::Activation, elementary, order::Launch, precision::Site, rotary::Turn};

pub use definition::Definition;
pub use fast::{Fast, Fault};
pub use isa::Isa;
pub use packed::Packed;

/// One product: rows of activations times a matrix.
#[derive(Debug)]
pub struct Job<'a, W> {
    /// The activations, row after row. A row may be shorter than a matrix that grows by its terms is deep:
    /// then it meets the matrix's first rows only, as a token meets the values up to its own.
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
///
/// What stands here with a body is its own definition, in plain scalar code: [`Definition`] runs it, and [`Fast`] gives
/// the same bits. F is the format of [`Precision::activations`](super::precision::Precision::activations); every
/// operation computes in f32 and rounds to F where it says so.
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

    /// One output of a matrix as it is stored, in f32: a row of an embedding table. The matrix is one that was packed
    /// for [`Site::Table`] or [`Site::Head`].
    fn lookup(&self, weights: &Self::Weights, column: usize, out: &mut [f32]);

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

    /// The root-mean-square norm of every row of `weight.len()` values: x times the reciprocal root of the mean
    /// square, rounded to F, times the weight, rounded to F. The squares are added in this kernel's order.
    fn norm(&self, launch: Launch, rows: &[f32], weight: &[f32], epsilon: f32, out: &mut [f32]) {
        check_rows(rows.len(), weight.len(), out.len());
        let format = self.numerics().precision.activations();
        let width = weight.len().max(1);
        for (row, out) in rows.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
            let mean = self.sum_of_squares(launch, row) / width as f32;
            let scale = elementary::rsqrt(mean + epsilon);
            for ((out, x), weight) in out.iter_mut().zip(row).zip(weight) {
                *out = format.round(weight * format.round(x * scale));
            }
        }
    }

    /// The softmax of `scale` times the scores, in place, in rows of `width`. Row r sees the keys `seen[r]`: a score
    /// before them becomes a probability of 0, which is a term of the sum as every other (a window slides over a
    /// cache and leaves the sum its shape); a score behind them is no term and stays as it is.
    ///
    /// A score times the scale rounds to F, as a model's own type does; its distance from the largest, its exponential
    /// and their sum in this kernel's order stay in f32; the quotient rounds to F. Where no rounded score seen is above
    /// minus infinity, or one is NaN or plus infinity, every probability seen is NaN.
    fn softmax(&self, launch: Launch, scores: &mut [f32], width: usize, seen: &[Range<usize>], scale: f32) {
        check_seen(scores.len(), width, seen);
        let format = self.numerics().precision.activations();
        for (row, seen) in scores.chunks_exact_mut(width.max(1)).zip(seen) {
            let terms = &mut row[..seen.end];
            terms[..seen.start].fill(0.0);
            let visible = &mut terms[seen.start..];
            let mut largest = f32::NEG_INFINITY;
            for score in visible.iter_mut() {
                *score = format.round(scale * *score);
                largest = largest.max(*score);
            }
            for score in visible.iter_mut() {
                *score = elementary::exp(*score - largest);
            }
            let sum = self.sum(launch, terms);
            for term in &mut terms[seen.start..] {
                *term = format.round(*term / sum);
            }
        }
    }

    /// Rotary position embedding, in place: token t turns by `turns[t]`, each of its `heads` heads alike. A head is as
    /// wide as a turn has angles twice, and its pair i is feature i with feature i + half. Both products and their sum
    /// round to f32, then the sum to F.
    fn rotate(&self, values: &mut [f32], heads: usize, turns: &[&Turn]) {
        let half = check_turns(values.len(), heads, turns);
        let format = self.numerics().precision.activations();
        for (token, turn) in values.chunks_exact_mut((2 * half * heads).max(1)).zip(turns) {
            for head in token.chunks_exact_mut(2 * half) {
                let (first, second) = head.split_at_mut(half);
                for (((first, second), cos), sin) in
                    first.iter_mut().zip(second).zip(&turn.cos).zip(&turn.sin)
                {
                    let (x, y) = (*first, *second);
                    *first = format.round(x * cos - y * sin);
                    *second = format.round(y * cos + x * sin);
                }
            }
        }
    }

    /// Rows of a gate's `width` values and as many beside them: the activation of the first, rounded to F, times the
    /// second, rounded to F.
    fn gate(&self, activation: Activation, gate_up: &[f32], width: usize, out: &mut [f32]) {
        check_rows(gate_up.len(), 2 * width, 2 * out.len());
        let format = self.numerics().precision.activations();
        let width = width.max(1);
        for (row, out) in gate_up.chunks_exact(2 * width).zip(out.chunks_exact_mut(width)) {
            let (gate, up) = row.split_at(width);
            for ((out, &gate), up) in out.iter_mut().zip(gate).zip(up) {
                *out = format.round(format.round(activation.apply(gate)) * up);
            }
        }
    }

    /// Adds an update to the residual stream: the sum in f32, rounded to F.
    fn add(&self, stream: &mut [f32], update: &[f32]) {
        assert_eq!(stream.len(), update.len(), "there is an update for every value");
        let format = self.numerics().precision.activations();
        for (value, update) in stream.iter_mut().zip(update) {
            *value = format.round(*value + update);
        }
    }

    /// Does work that is no arithmetic, such as a digest of every row of logits, on as many threads as this kernel
    /// has. The jobs should be worth waking a thread for.
    fn share<T: Send>(&self, jobs: Vec<T>, work: impl Fn(T) + Send + Sync)
    where
        Self: Sized,
    {
        jobs.into_iter().for_each(work);
    }

    /// How many threads had a share in the largest call of arithmetic since this was last asked: evidence that a number
    /// of threads was more than a wish. It follows from the shapes of the calls alone, and so is the same in every run.
    fn threads_used(&self) -> usize {
        1
    }
}

// Shapes are checked alike by both kernels, so that a call fails under both or under neither.

fn check_rows(values: usize, width: usize, out: usize) {
    assert_eq!(values, out, "there is room for every result");
    assert_eq!(values, values.checked_div(width).unwrap_or(0) * width, "every row is whole");
}

fn check_seen(scores: usize, width: usize, seen: &[Range<usize>]) {
    assert_eq!(scores, width * seen.len(), "for every row it is known what it sees");
    assert!(
        seen.iter().all(|seen| seen.start <= seen.end && seen.end <= width),
        "a row sees keys that are there"
    );
}

/// How many pairs a head has.
fn check_turns(values: usize, heads: usize, turns: &[&Turn]) -> usize {
    let half = turns.first().map_or(0, |turn| turn.cos.len());
    assert!(
        turns.iter().all(|turn| turn.cos.len() == half && turn.sin.len() == half),
        "every token's heads are as wide as the others'"
    );
    assert_eq!(values, turns.len() * heads * 2 * half, "there is a turn for every token");
    half
}
