//! Products of numbers of one to five digits.

use serde::Deserialize;

use super::{expression::Operation, gpt3_arith::pair};
use crate::suite::{
    draw::Draw,
    problem::{Generator, Problem},
};

/// Products by the lengths of their factors, the longer one first.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MulLadder {
    /// Of the longest factor.
    digits: u32,
}

impl Generator for MulLadder {
    fn cells(&self) -> usize {
        (self.digits * (self.digits + 1) / 2) as usize
    }

    fn draw(&self, cell: usize, draw: &mut Draw) -> Vec<Problem> {
        let lengths = (1..=self.digits).flat_map(|longer| (1..=longer).map(move |shorter| (longer, shorter)));
        let (longer, shorter) = lengths.into_iter().nth(cell).expect("cells are counted by the same rule");
        let (a, b) = (draw.number(longer).unsigned_abs(), draw.number(shorter).unsigned_abs());
        vec![pair(format!("{longer}x{shorter}"), Operation::Multiply, a, b)]
    }

    fn check(&self) -> Result<(), String> {
        if !(1..=9).contains(&self.digits) {
            return Err(format!("`digits` is {}: take a number from 1 to 9", self.digits));
        }
        Ok(())
    }
}
