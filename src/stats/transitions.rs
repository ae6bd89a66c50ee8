//! What became of what: how many items went from which outcome in the reference to which in a cell.

use std::collections::{BTreeMap, BTreeSet};

use super::proportion::Proportion;

/// Counts of pairs of outcomes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transitions<T> {
    counts: BTreeMap<(T, T), u64>,
}

impl<T: Ord> Transitions<T> {
    /// How many items had this outcome in the reference and that one in the cell.
    pub fn get(&self, reference: T, cell: T) -> u64 {
        self.counts.get(&(reference, cell)).copied().unwrap_or(0)
    }

    /// The pairs that occur, the outcome in the reference first, with their counts, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&T, &T, u64)> {
        self.counts.iter().map(|((reference, cell), &count)| (reference, cell, count))
    }

    /// The outcomes that occur on either side, in their order: the rows and the columns of the table.
    pub fn outcomes(&self) -> BTreeSet<&T> {
        self.counts.keys().flat_map(|(reference, cell)| [reference, cell]).collect()
    }

    /// How many items changed their outcome.
    pub fn changes(&self) -> Proportion {
        let part =
            |(reference, cell, count)| Proportion { hits: u64::from(reference != cell) * count, of: count };
        self.iter().map(part).sum()
    }
}

impl<T: Ord> FromIterator<(T, T)> for Transitions<T> {
    fn from_iter<I: IntoIterator<Item = (T, T)>>(pairs: I) -> Self {
        let mut counts = BTreeMap::new();
        for pair in pairs {
            *counts.entry(pair).or_default() += 1;
        }
        Transitions { counts }
    }
}
