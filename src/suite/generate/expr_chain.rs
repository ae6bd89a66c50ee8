//! Expressions of two to eight operations.

use serde::Deserialize;

use super::{Range, expression::Expression};
use crate::suite::{
    draw::Draw,
    problem::{Generator, Problem},
};

/// Expressions in parentheses, more operations at each step of difficulty.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExprChain {
    operations: Range<usize>,
    /// The largest number as drawn.
    largest: i64,
    /// The largest number on the way to the result.
    limit: i64,
}

impl Generator for ExprChain {
    fn cells(&self) -> usize {
        self.operations.count()
    }

    fn draw(&self, cell: usize, draw: &mut Draw) -> Vec<Problem> {
        let operations = self.operations.from + cell;
        let leaning = draw.chance(1, 2);
        loop {
            let expression = Expression::tree(operations, leaning, self.largest, draw);
            if expression.value_within(self.limit).is_some() {
                return vec![expression.problem(format!("{operations} operations"), "Compute", ".")];
            }
        }
    }

    fn check(&self) -> Result<(), String> {
        self.operations.check("operations", 1, 64)?;
        if !(1..=99).contains(&self.largest) {
            return Err(format!("`largest` is {}: take a number from 1 to 99", self.largest));
        }
        if !(1000..=1_000_000_000).contains(&self.limit) {
            return Err(format!("`limit` is {}: take a number from 1000 to 1000000000", self.limit));
        }
        Ok(())
    }
}
