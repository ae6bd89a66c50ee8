//! What a precision costs: the bytes that a model's weights and its cache take, and what one more token reads and multiplies.
//!
//! Nothing is timed. A kernel that computes nothing and counts goes with the decoder through its matrices and through one
//! token, so that whatever the decoder packs, ties or maps is counted as it is.

use std::{
    num::NonZeroUsize,
    sync::{Mutex, PoisonError},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Checkpoint, CheckpointError, Decoder,
    decoder::{Span, Wanted},
};
use crate::numerics::{
    Numerics,
    kernel::{At, Attended, End, Kernel, Op, Source, Workers},
    order::Launch,
    precision::{Bits, Site},
};

/// So many tokens are read where the token is chosen that is counted, unless the model reads fewer.
pub const CONTEXT: usize = 1024;

/// What a precision costs. What is said of a token is said of one that is decoded, after so many.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cost {
    /// The bytes of all weights, with their scales: every code takes as many bits as its format has.
    pub weight_bytes: u64,
    /// The bytes of the keys and values that one token leaves in the cache.
    pub cache_bytes: u64,
    /// How many tokens the sequence has read, the last one included.
    pub context: u64,
    /// Multiply-adds of the token with weights.
    pub linear_macs: u64,
    /// Multiply-adds of the token with keys and values.
    pub attention_macs: u64,
    /// Multiplications and additions of all these products.
    pub operations: u64,
    /// The arithmetic computation effort of PokeBNN (Zhang et al., 2022): each multiply-add counts as the bits of its weight times
    /// the bits of its activation.
    pub ace: u64,
    /// The bytes that are read for the token: its own cache, and its share of the weights, which a call reads once for the batch.
    pub moved_bytes: u64,
}

impl Cost {
    /// Of a model under these numerics, whose calls share a batch of so many sequences.
    ///
    /// # Errors
    ///
    /// When a tensor is missing, or is not what the config says.
    pub fn of(
        checkpoint: &Checkpoint,
        numerics: Numerics,
        batch: NonZeroUsize,
    ) -> Result<Cost, CheckpointError> {
        let decoder = Decoder::load(Counter { numerics, counted: Mutex::default() }, checkpoint)?;
        let (mut cache, tokens) = (decoder.cache(), &[0]);
        decoder.forward(&mut [Span { cache: &mut cache, tokens, logits: Wanted::Last }]);
        let counted = *decoder.kernel().counted.lock().unwrap_or_else(PoisonError::into_inner);
        // Both products of attention grow by as much with every token.
        let context = CONTEXT.min(decoder.config().positions) as u64;
        let [linear_macs, attention_macs] = [counted.linear.macs, context * counted.attention.macs];
        let bytes = |bits: u64| bits.div_ceil(8);
        let cache_bytes = bytes(counted.cache);
        let read = bytes(counted.multiplied + counted.vectors).div_ceil(batch.get() as u64);
        Ok(Cost {
            weight_bytes: bytes(counted.packed + counted.vectors),
            cache_bytes,
            context,
            linear_macs,
            attention_macs,
            operations: 2 * (linear_macs + attention_macs),
            ace: counted.linear.ace + context * counted.attention.ace,
            moved_bytes: read + bytes(counted.looked_up) + context * cache_bytes,
        })
    }
}

/// Bits of what a decoder keeps and reads, and what it multiplies, for the first token of a sequence.
#[derive(Clone, Copy, Default, Debug)]
struct Counted {
    /// All matrices of weights.
    packed: u64,
    /// Those of them that are multiplied.
    multiplied: u64,
    /// Norms and biases.
    vectors: u64,
    /// A row of the embedding.
    looked_up: u64,
    /// Keys and values.
    cache: u64,
    linear: Products,
    attention: Products,
}

/// What is multiplied.
#[derive(Clone, Copy, Default, Debug)]
struct Products {
    macs: u64,
    ace: u64,
}

/// A kernel that computes nothing, and counts.
struct Counter {
    numerics: Numerics,
    counted: Mutex<Counted>,
}

/// What there is to count of a matrix.
#[derive(Debug)]
struct Counts {
    outputs: usize,
    entries: u64,
    /// Bits of the codes of all entries.
    codes: u64,
    /// Bits of all of it.
    bits: u64,
    /// What an entry takes; none where the model's file says that.
    of_entry: Option<Bits>,
}

impl Counts {
    /// Takes so many more terms that stand together.
    fn add(&mut self, terms: usize, stored: Bits) {
        self.entries += terms as u64;
        self.codes += u64::from(stored.code) * terms as u64;
        self.bits += stored.of(terms);
    }
}

static ALONE: Workers = Workers::alone();

impl Counter {
    fn count(&self, count: impl FnOnce(&mut Counted)) {
        count(&mut self.counted.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// The bits of a small vector of this place.
    fn vector(&self, at: At, values: usize) -> u64 {
        u64::from(self.numerics.precision().vectors(at).bits()) * values as u64
    }
}

impl Kernel for Counter {
    type Weights = Counts;

    fn numerics(&self) -> Numerics {
        self.numerics
    }

    fn workers(&self) -> &Workers {
        &ALONE
    }

    fn pack(&self, at: At, outputs: usize, depth: usize, source: &mut dyn Source) -> Counts {
        let of_entry = self.numerics.recipe(at).weight_bits();
        let mut counts = Counts { outputs, entries: 0, codes: 0, bits: 0, of_entry };
        for output in 0..outputs {
            match of_entry {
                Some(stored) => counts.add(depth, stored),
                // Scales lie inside of the blocks.
                None => {
                    let stored = source.encoding(output);
                    let bits = 8 * (depth / stored.terms() * stored.bytes()) as u64;
                    counts.entries += depth as u64;
                    counts.codes += bits;
                    counts.bits += bits;
                }
            }
        }
        self.count(|counted| counted.packed += counts.bits);
        counts
    }

    fn push(&self, counts: &mut Counts, end: End<'_>) {
        let (terms, outputs) = match end {
            End::Column(terms) => (terms.len(), 1),
            End::Row(terms) => (terms.len(), 0),
        };
        counts.outputs += outputs;
        let before = counts.bits;
        let stored = counts.of_entry.expect("no file says how keys and values are kept");
        counts.add(terms, stored);
        self.count(|counted| counted.cache += counts.bits - before);
    }

    fn apply(&self, at: At, _: Launch, op: Op<'_, Counts>) {
        self.count(|counted| match op {
            Op::Product(jobs) => {
                let activation = u64::from(self.numerics.recipe(at).activation_bits());
                for job in jobs {
                    let (rows, weights) = (job.rows as u64, job.weights);
                    let products = match at.site() {
                        Site::Attention => &mut counted.attention,
                        _ => {
                            counted.multiplied += weights.bits;
                            &mut counted.linear
                        }
                    };
                    products.macs += rows * weights.entries;
                    products.ace += rows * weights.codes * activation;
                    counted.vectors += self.vector(at, job.start.map_or(0, <[f32]>::len));
                }
            }
            Op::Attend { rows, .. } => {
                let activation = u64::from(self.numerics.recipe(at).activation_bits());
                for Attended { rows, values, .. } in rows {
                    counted.attention.macs += rows as u64 * values.entries;
                    counted.attention.ace += rows as u64 * values.codes * activation;
                }
            }
            Op::Lookup { table, columns, .. } => {
                counted.looked_up += (table.bits * columns.len() as u64).div_ceil(table.outputs as u64);
            }
            Op::Norm { weight, .. } => counted.vectors += self.vector(at, weight.len()),
            // What they read has just been written.
            Op::Softmax { .. } | Op::Rotate { .. } | Op::Gate { .. } | Op::Add { .. } => {}
        });
    }
}
