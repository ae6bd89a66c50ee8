//! What became of what: how many items went from which outcome in the reference to which in a cell.

use std::collections::BTreeMap;

/// Counts of pairs of outcomes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Transitions<T> {
    counts: BTreeMap<(T, T), u64>,
}

impl<T> Default for Transitions<T> {
    fn default() -> Self {
        Transitions { counts: BTreeMap::new() }
    }
}

impl<T: Ord> Transitions<T> {
    /// Adds an item with this outcome in the reference and that one in the cell.
    pub fn include(&mut self, reference: T, cell: T) {
        *self.counts.entry((reference, cell)).or_default() += 1;
    }

    /// The pairs that occur, the outcome in the reference first, with their counts, in their order.
    pub fn iter(&self) -> impl Iterator<Item = (&T, &T, u64)> {
        self.counts.iter().map(|((reference, cell), &count)| (reference, cell, count))
    }
}

impl<T: Ord> FromIterator<(T, T)> for Transitions<T> {
    fn from_iter<I: IntoIterator<Item = (T, T)>>(pairs: I) -> Self {
        let mut transitions = Transitions::default();
        pairs.into_iter().for_each(|(reference, cell)| transitions.include(reference, cell));
        transitions
    }
}
