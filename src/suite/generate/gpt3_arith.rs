//! The arithmetic of the GPT-3 paper: ten subtasks, from one digit with three operands to five digits.

use serde::Deserialize;

use super::expression::{Expression, Operation};
use crate::suite::{
    answer::Answer,
    compact::{self, Compact},
    draw::Draw,
    problem::{Generator, Problem},
};

/// Sums, differences and products of small numbers, and expressions of three digits.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gpt3Arith {
    subtasks: Vec<Subtask>,
}

/// As the paper's data set names them: digits, and what is done with them.
#[derive(Deserialize, Clone, Copy)]
enum Subtask {
    #[serde(rename = "1dc")]
    Composite,
    #[serde(rename = "2dm")]
    Multiply2,
    #[serde(rename = "2da")]
    Add2,
    #[serde(rename = "3da")]
    Add3,
    #[serde(rename = "4da")]
    Add4,
    #[serde(rename = "5da")]
    Add5,
    #[serde(rename = "2ds")]
    Subtract2,
    #[serde(rename = "3ds")]
    Subtract3,
    #[serde(rename = "4ds")]
    Subtract4,
    #[serde(rename = "5ds")]
    Subtract5,
}

impl Generator for Gpt3Arith {
    fn cells(&self) -> usize {
        self.subtasks.len()
    }

    fn draw(&self, cell: usize, draw: &mut Draw) -> Vec<Problem> {
        use Subtask::*;
        let (name, operation, digits) = match self.subtasks[cell] {
            Composite => return vec![composite(draw)],
            Multiply2 => ("2dm", Operation::Multiply, 2),
            Add2 => ("2da", Operation::Add, 2),
            Add3 => ("3da", Operation::Add, 3),
            Add4 => ("4da", Operation::Add, 4),
            Add5 => ("5da", Operation::Add, 5),
            Subtract2 => ("2ds", Operation::Subtract, 2),
            Subtract3 => ("3ds", Operation::Subtract, 3),
            Subtract4 => ("4ds", Operation::Subtract, 4),
            Subtract5 => ("5ds", Operation::Subtract, 5),
        };
        let mut number = || draw.between(0, 10_i64.pow(digits) - 1);
        let (a, b) = (number(), number());
        vec![pair(name, operation, a.unsigned_abs(), b.unsigned_abs())]
    }

    fn check(&self) -> Result<(), String> {
        if self.subtasks.is_empty() {
            return Err("`subtasks` is empty: name at least one, such as \"2da\"".to_owned());
        }
        Ok(())
    }
}

/// One operation on two numbers.
pub(super) fn pair(stratum: impl Into<String>, operation: Operation, a: u64, b: u64) -> Problem {
    let (word, compact): (_, Compact) = match operation {
        Operation::Add => ("plus", compact::add(a, b)),
        Operation::Subtract => ("minus", compact::subtract(a, b)),
        Operation::Multiply => ("times", compact::multiply(a, b)),
    };
    let result = operation.of(i128::from(a), i128::from(b));
    Problem::new(stratum, operation.name(), format!("What is {a} {word} {b}?"), Answer::integer(result))
        .of([a, b])
        .with_compact(compact)
}

/// Three digits, two operations, and parentheses around two of the three.
fn composite(draw: &mut Draw) -> Problem {
    let mut leaf = || Expression::Number(draw.between(0, 9));
    let leaves = [leaf(), leaf(), leaf()];
    let mut operation = || *draw.pick(&Operation::ALL);
    let operations = [operation(), operation()];
    let expression = Expression::chain(leaves, operations, draw.chance(1, 2));
    expression.problem("1dc", "What is", "?")
}
