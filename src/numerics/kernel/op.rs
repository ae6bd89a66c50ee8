//! The operations that a decoder asks of arithmetic, each with all that it reads and writes.

use std::ops::Range;

use crate::numerics::{activation::Activation, rotary::Turn};

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

/// Rows of scores that see the same keys, and the values of these.
#[derive(Debug)]
pub struct Attended<'a, W> {
    /// The scores, row after row; a row may be longer than what is seen.
    pub scores: &'a [f32],
    /// How many rows.
    pub rows: usize,
    /// The keys that they see, at least one.
    pub seen: Range<usize>,
    /// The values: a term for every key.
    pub values: &'a W,
    /// The results, row after row.
    pub out: &'a mut [f32],
}

impl<W> Attended<'_, W> {
    /// The scores of each row up to the last key that is seen.
    pub fn seen_rows(&self) -> impl Iterator<Item = &[f32]> {
        let width = self.scores.len().checked_div(self.rows).unwrap_or(0);
        self.scores.chunks_exact(width.max(1)).map(|row| &row[..self.seen.end])
    }
}

/// One operation.
///
/// F is the format of [`Precision::activations`](crate::numerics::precision::Precision::activations); what goes row by row
/// computes in f32 and rounds to F where it says so. [`Definition`](super::Definition) is each of them in plain scalar code.
#[derive(Debug)]
pub enum Op<'a, W> {
    /// Products that share one launch.
    Product(Vec<Job<'a, W>>),
    /// Outputs of a matrix as they are stored, in f32, one after the other: rows of an embedding table. The matrix is one
    /// that was packed for [`Site::Table`](crate::numerics::precision::Site::Table) or
    /// [`Site::Head`](crate::numerics::precision::Site::Head).
    Lookup {
        /// The matrix.
        table: &'a W,
        /// Which of its outputs.
        columns: &'a [u32],
        /// Their terms.
        out: &'a mut [f32],
    },
    /// The root-mean-square norm of every row of `weight.len()` values: x times the reciprocal root of the mean square,
    /// rounded to F, times the weight, rounded to F. The squares are added in the kernel's order, in f32 whatever the
    /// precision.
    Norm {
        /// The values, row after row.
        rows: &'a [f32],
        /// What each column is scaled by.
        weight: &'a [f32],
        /// What is added to the mean square.
        epsilon: f32,
        /// The results, row after row.
        out: &'a mut [f32],
    },
    /// The softmax of `scale` times the scores, in place. Row r sees the keys `seen[r]`: a score before them becomes a
    /// probability of 0, which is a term of the sum as every other (a window slides over a cache and leaves the sum its
    /// shape); a score behind them is not a term and stays as it is.
    ///
    /// A score times the scale rounds to F, as a model's own type does; its distance from the largest, its exponential
    /// and their sum in the kernel's order stay in f32; the quotient rounds to F. Where no rounded score seen is above
    /// minus infinity, or one is NaN or plus infinity, every probability seen is NaN.
    ///
    /// Where attention is [two-pass](crate::numerics::attention::Attention::TwoPass), an exponential is m 2^n, of the score and not of
    /// its distance from the largest: n is the score times log2(e), rounded to f32 and then to a whole number, and m the exponential of
    /// what is left. Terms of the sum are m 2^(n - the largest n), rounded to f32; a probability is m times the reciprocal of the
    /// sum, both rounded to f32, times that power of two, rounded to f32 and then to F.
    Softmax {
        /// The scores, row after row.
        scores: &'a mut [f32],
        /// How many make a row.
        width: usize,
        /// What each row sees.
        seen: &'a [Range<usize>],
        /// What the scores are scaled by.
        scale: f32,
    },
    /// Attention behind its scores, as [`Attention`](crate::numerics::attention::Attention) computes it.
    ///
    /// Where that cuts no keys, it is [`Op::Softmax`] at the place of [`At::weighing`](crate::numerics::at::At::weighing), and
    /// [`Op::Product`] behind it. Where it does, a score times the scale rounds to F as there. Of every stretch of keys there is then the
    /// largest score m, the weights e^(s - m), their sum d in the order of rows, in f32, and the product o of the weights, rounded as
    /// the activations that they are, with the values, in the order of products, with sums as these have them. A row's stretches come
    /// together from the first to the last; every product and every sum rounds to f32:
    ///
    /// * blocks: m is the largest score of the part as far as the block's end; d is d before e^(m before - m) + d of the block.
    /// * parts: m is the larger of both; d is d before e^(m before - m) + d of the part e^(m of the part - m).
    ///
    /// So is o. The end is o / d, rounded as a finished product is. Where m is minus infinity, 0 is taken from scores in its place: such a
    /// stretch weighs nothing, and where all do the result is NaN.
    Attend {
        /// All rows, which share one launch.
        rows: Vec<Attended<'a, W>>,
        /// What the scores are scaled by.
        scale: f32,
    },
    /// Rotary position embedding, in place: token t turns by `turns[t]`, each of its heads alike. A head is as wide as a
    /// turn has angles twice, and its pair i is feature i with feature i + half. Both products and their sum round to
    /// f32, then the sum to F.
    Rotate {
        /// The heads of every token.
        values: &'a mut [f32],
        /// How many heads a token has.
        heads: usize,
        /// By what each token turns.
        turns: &'a [&'a Turn],
    },
    /// Rows of a gate's `width` values and as many beside them: the activation of the first, rounded to F, times the
    /// second, rounded to F.
    Gate {
        /// What the gate passes through.
        activation: Activation,
        /// The rows.
        gate_up: &'a [f32],
        /// How wide a result is.
        width: usize,
        /// The results, row after row.
        out: &'a mut [f32],
    },
    /// Adds an update to the residual stream: the sum in f32, rounded to F.
    Add {
        /// The stream.
        stream: &'a mut [f32],
        /// The update.
        update: &'a [f32],
    },
}

impl<'a, W> Op<'a, W> {
    /// The same operation for the kernel inside another, which carries it out on what this one writes to: `inner` gives its
    /// form of a matrix.
    pub fn lend<'s, V>(&'s mut self, inner: impl Fn(&'s W) -> &'s V) -> Op<'s, V> {
        match self {
            Op::Product(jobs) => {
                let lent = |job: &'s mut Job<'a, W>| Job {
                    activations: job.activations,
                    rows: job.rows,
                    weights: inner(job.weights),
                    start: job.start,
                    out: &mut *job.out,
                };
                Op::Product(jobs.iter_mut().map(lent).collect())
            }
            Op::Lookup { table, columns, out } => Op::Lookup { table: inner(table), columns, out },
            Op::Norm { rows, weight, epsilon, out } => Op::Norm { rows, weight, epsilon: *epsilon, out },
            Op::Softmax { scores, width, seen, scale } => {
                Op::Softmax { scores, width: *width, seen, scale: *scale }
            }
            Op::Attend { rows, scale } => {
                let lent = |own: &'s mut Attended<'a, W>| Attended {
                    scores: own.scores,
                    rows: own.rows,
                    seen: own.seen.clone(),
                    values: inner(own.values),
                    out: &mut *own.out,
                };
                Op::Attend { rows: rows.iter_mut().map(lent).collect(), scale: *scale }
            }
            Op::Rotate { values, heads, turns } => Op::Rotate { values, heads: *heads, turns },
            Op::Gate { activation, gate_up, width, out } => {
                Op::Gate { activation: *activation, gate_up, width: *width, out }
            }
            Op::Add { stream, update } => Op::Add { stream, update },
        }
    }

    /// What it writes, piece after piece; what computes in place reads the same.
    pub fn outputs(&mut self) -> Vec<&mut [f32]> {
        match self {
            Op::Product(jobs) => jobs.iter_mut().map(|job| &mut *job.out).collect(),
            Op::Lookup { out, .. } | Op::Norm { out, .. } | Op::Gate { out, .. } => vec![out],
            Op::Softmax { scores, .. } => vec![scores],
            Op::Attend { rows, .. } => rows.iter_mut().map(|own| &mut *own.out).collect(),
            Op::Rotate { values, .. } => vec![values],
            Op::Add { stream, .. } => vec![stream],
        }
    }

    /// Shapes are checked alike by every kernel, so that a call fails under all or under none.
    ///
    /// # Panics
    ///
    /// If what goes row by row is not given whole rows. Products and lookups are held to their matrix, which each kernel
    /// has in a form of its own.
    pub(super) fn check(&self) {
        match self {
            Op::Product(_) | Op::Lookup { .. } => {}
            Op::Norm { rows, weight, out, .. } => check_rows(rows.len(), weight.len(), out.len()),
            Op::Softmax { scores, width, seen, .. } => {
                assert_eq!(scores.len(), width * seen.len(), "for every row it is known what it sees");
                assert!(
                    seen.iter().all(|seen| seen.start <= seen.end && seen.end <= *width),
                    "a row sees keys that are there"
                );
            }
            Op::Attend { rows, .. } => {
                for own in rows {
                    let width = own.scores.len().checked_div(own.rows).unwrap_or(0);
                    check_rows(own.scores.len(), width, own.rows * width);
                    assert!(
                        own.seen.start < own.seen.end && own.seen.end <= width,
                        "a row sees a key, and only keys that are there"
                    );
                }
            }
            Op::Rotate { values, heads, turns } => {
                let half = pairs(turns);
                assert!(
                    turns.iter().all(|turn| turn.cos.len() == half && turn.sin.len() == half),
                    "every token's heads are as wide as the others'"
                );
                assert_eq!(values.len(), turns.len() * heads * 2 * half, "there is a turn for every token");
            }
            Op::Gate { gate_up, width, out, .. } => check_rows(gate_up.len(), 2 * width, 2 * out.len()),
            Op::Add { stream, update } => {
                assert_eq!(stream.len(), update.len(), "there is an update for every value");
            }
        }
    }
}

fn check_rows(values: usize, width: usize, out: usize) {
    assert_eq!(values, out, "there is room for every result");
    assert_eq!(values, values.checked_div(width).unwrap_or(0) * width, "every row is whole");
}

/// How many pairs a head has that turns like this.
pub(super) fn pairs(turns: &[&Turn]) -> usize {
    turns.first().map_or(0, |turn| turn.cos.len())
}

/// What a matrix grows by.
#[derive(Clone, Copy, Debug)]
pub enum End<'a> {
    /// The terms of one more output: a key.
    Column(&'a [f32]),
    /// One more term of every output: a value.
    Row(&'a [f32]),
}
