//! Spread, intervals, paired tests, survival, what several draws amount to, and what a draw would
//! have found, out of counts, and limits that few rows exceed: knows nothing of suites or engines.
//!
//! What can be counted is kept as integers and becomes a float once, at the very end. So equal cells have a
//! deviation of exactly 0, and no result depends on the order in which items came. Where a statistic does not
//! exist, as the rate of nothing, it is `None`: no NaN comes out of here.
//!
//! A `confidence` is a share between 0 and 1, of which 0.95 is the usual one.

pub mod ballot;
pub mod clustered;
pub mod coverage;
pub mod detection;
pub mod limit;
pub mod paired;
pub mod passes;
pub mod proportion;
pub mod redraw;
pub mod roc;
pub mod spread;
pub mod survival;
pub mod transitions;

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{ToPrimitive, Zero};
use schemars::JsonSchema;
use serde::Serialize;

/// An interval, both ends included.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, JsonSchema)]
pub struct Interval {
    /// The lower end.
    pub lower: f64,
    /// The upper end.
    pub upper: f64,
}

/// Why items cannot be held against each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("cell {cell} has {found} items and cell 0 has {expected}: give every cell the same items")]
pub struct UnequalCells {
    /// Which of the cells differs from the first one.
    pub cell: usize,
    /// How many items the first cell has.
    pub expected: usize,
    /// How many this one has.
    pub found: usize,
}

/// A quotient of integers, rounded once; nothing where the denominator is 0.
fn quotient(numerator: impl Into<BigInt>, denominator: impl Into<BigInt>) -> Option<f64> {
    let denominator = denominator.into();
    if denominator.is_zero() {
        return None;
    }
    BigRational::new_raw(numerator.into(), denominator).to_f64()
}

/// The number of items that all cells have: 0 without cells.
fn items<T>(cells: &[impl AsRef<[T]>]) -> Result<usize, UnequalCells> {
    let expected = cells.first().map_or(0, |cell| cell.as_ref().len());
    let lengths = cells.iter().map(|cell| cell.as_ref().len()).enumerate();
    match lengths.into_iter().find(|&(_, found)| found != expected) {
        Some((cell, found)) => Err(UnequalCells { cell, expected, found }),
        None => Ok(expected),
    }
}
