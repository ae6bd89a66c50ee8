//! What every cell is compared with: the reference under its own seed, so that both draw by the same noise.

use crate::cell::Cell;

/// The reference under every seed that it runs under.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct References(Vec<Cell>);

impl References {
    /// Those of these cells that are the reference, whatever their seed, and the reference itself before all.
    pub fn among(reference: Option<Cell>, cells: &[Cell]) -> References {
        let Some(reference) = reference else { return References::default() };
        let under_a_seed =
            |cell: &&Cell| **cell != reference && reference.under_seed(cell.serving.seed) == **cell;
        References([reference].into_iter().chain(cells.iter().filter(under_a_seed).copied()).collect())
    }

    /// The one that a cell is compared with, which has its seed if any has. Nothing for one of them.
    pub fn of(&self, cell: Cell) -> Option<Cell> {
        let first = *self.0.first().filter(|_| !self.has(cell))?;
        let own = first.under_seed(cell.serving.seed);
        Some(if self.has(own) { own } else { first })
    }

    /// Is this one of them?
    pub fn has(&self, cell: Cell) -> bool {
        self.0.contains(&cell)
    }

    /// What a sentence calls the one that a cell is compared with.
    pub fn name(&self) -> Option<String> {
        let (first, others) = self.0.split_first()?;
        Some(if others.is_empty() { first.to_string() } else { format!("{first} under the same seed") })
    }
}
