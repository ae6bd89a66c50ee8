//! A kernel that sees from where to where every channel lies that a layer's product with weights reads, and keeps a few of its rows.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use crate::{
    digest::Digest,
    numerics::{
        Numerics,
        kernel::{At, End, Kernel, Op, Source, Workers},
        order::Launch,
        precision::{Channels, Site},
    },
};

/// The kernel.
#[derive(Debug)]
pub struct Watch<K> {
    kernel: K,
    /// How many rows of every product are kept.
    rows: usize,
    seen: Mutex<BTreeMap<At, Seen>>,
}

/// What a product has read.
#[derive(Default, Debug)]
pub struct Seen {
    /// The limits of its channels.
    pub channels: Channels,
    /// How many rows.
    pub count: u64,
    /// Those of the smallest digests, whichever call they came in.
    rows: BTreeMap<Digest, Vec<f32>>,
}

impl Seen {
    /// The rows that were kept, one after the other.
    pub fn rows(&self) -> Vec<f32> {
        self.rows.values().flatten().copied().collect()
    }

    fn add(&mut self, row: &[f32], kept: usize) {
        let Channels { low, high, .. } = &mut self.channels;
        low.resize(row.len(), 0.0);
        high.resize(row.len(), 0.0);
        low.iter_mut().zip(row).for_each(|(low, value)| *low = low.min(*value));
        high.iter_mut().zip(row).for_each(|(high, value)| *high = high.max(*value));
        self.count += 1;
        if kept == 0 {
            return;
        }
        let digest = Digest::of_logits(row);
        if self.rows.len() < kept || self.rows.last_key_value().is_some_and(|(last, _)| digest < *last) {
            self.rows.insert(digest, row.to_vec());
            if self.rows.len() > kept {
                self.rows.pop_last();
            }
        }
    }
}

impl<K> Watch<K> {
    /// Around a kernel; so many rows of every product are kept.
    pub fn new(kernel: K, rows: usize) -> Watch<K> {
        Watch { kernel, rows, seen: Mutex::default() }
    }

    /// What every product has read until now. From here on it begins anew.
    pub fn take(&self) -> BTreeMap<At, Seen> {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<K: Kernel> Kernel for Watch<K> {
    type Weights = K::Weights;

    fn numerics(&self) -> Numerics {
        self.kernel.numerics()
    }

    fn workers(&self) -> &Workers {
        self.kernel.workers()
    }

    fn pack(&self, at: At, columns: usize, depth: usize, source: &mut dyn Source) -> Self::Weights {
        self.kernel.pack(at, columns, depth, source)
    }

    fn push(&self, weights: &mut Self::Weights, end: End<'_>) {
        self.kernel.push(weights, end);
    }

    fn apply(&self, at: At, launch: Launch, op: Op<'_, Self::Weights>) {
        if let Op::Product(jobs) = &op
            && at.site() == Site::Linear
        {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let seen = seen.entry(at).or_default();
            for job in jobs {
                let width = job.activations.len().checked_div(job.rows).unwrap_or(0).max(1);
                job.activations.chunks_exact(width).for_each(|row| seen.add(row, self.rows));
            }
        }
        self.kernel.apply(at, launch, op);
    }
}
