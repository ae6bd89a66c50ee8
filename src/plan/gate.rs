//! What must hold, as a matrix file says it: which cells are compared, and within which limits.

use std::collections::HashMap;

use super::axis::{AXES, Axis, Cell, Setting};
use crate::compare::Level;

/// Something that must hold.
#[derive(Clone, PartialEq, Debug)]
pub struct Gate {
    /// What a report calls it.
    pub name: String,
    /// The line of the file that it begins in.
    pub line: usize,
    /// Which cells it is about.
    pub filter: Filter,
    /// What they are compared with.
    pub comparison: Comparison,
    /// What must be true of every comparison.
    pub limits: Vec<Limit>,
}

/// What cells are compared with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Comparison {
    /// With those that differ on these axes alone.
    Within(Vec<Axis>),
    /// With the reference.
    Reference,
    /// With their approved digests.
    Baseline,
}

/// What must be true of a comparison.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Limit {
    /// Both agree on this level.
    Require(Level),
    /// They do not agree on their bits.
    Diverges,
    /// Accuracy falls by less than this.
    AccuracyDrop {
        /// A part of all items.
        most: f64,
        /// Of the one-sided bound.
        confidence: f64,
    },
    /// At most this share of the items turns from right to wrong or back.
    FlipRate(f64),
    /// At most this share of the items has another text.
    DivergenceRate(f64),
    /// No text parts before so many tokens were equal.
    FirstDivergence(u64),
}

/// Cells that have, on each axis named, one of the values.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Filter(pub Vec<(Axis, Vec<Setting>)>);

impl Filter {
    /// Is it one of them?
    pub fn matches(&self, cell: &Cell) -> bool {
        self.0.iter().all(|(axis, settings)| settings.contains(&cell.get(*axis)))
    }
}

impl Gate {
    /// The groups of cells that it compares, in the order of the cells: of each group the first is what the others are
    /// compared with. A group of one compares nothing.
    pub fn groups(&self, cells: &[Cell]) -> Vec<Vec<Cell>> {
        let Comparison::Within(vary) = &self.comparison else { return Vec::new() };
        let mut groups: Vec<Vec<Cell>> = Vec::new();
        let mut numbers: HashMap<Vec<Setting>, usize> = HashMap::new();
        for cell in cells.iter().filter(|cell| self.filter.matches(cell)) {
            let kept = AXES.iter().map(|entry| entry.axis).filter(|axis| !vary.contains(axis));
            let number = *numbers.entry(kept.map(|axis| cell.get(axis)).collect()).or_insert(groups.len());
            if number == groups.len() {
                groups.push(Vec::new());
            }
            groups[number].push(*cell);
        }
        groups
    }
}
