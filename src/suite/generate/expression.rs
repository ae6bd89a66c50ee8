//! Sums, differences and products in parentheses, and how they come down to a number step by step.

use std::fmt;

use crate::suite::{answer::Answer, compact::Compact, draw::Draw, problem::Problem};

/// What is done with two numbers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, serde::Deserialize)]
pub(super) enum Operation {
    #[serde(rename = "+")]
    Add,
    #[serde(rename = "-")]
    Subtract,
    #[serde(rename = "*")]
    Multiply,
}

impl Operation {
    pub(super) const ALL: [Operation; 3] = [Operation::Add, Operation::Subtract, Operation::Multiply];

    pub(super) fn of(self, a: i128, b: i128) -> i128 {
        match self {
            Operation::Add => a + b,
            Operation::Subtract => a - b,
            Operation::Multiply => a * b,
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Operation::Add => "add",
            Operation::Subtract => "subtract",
            Operation::Multiply => "multiply",
        }
    }

    fn sign(self) -> char {
        match self {
            Operation::Add => '+',
            Operation::Subtract => '-',
            Operation::Multiply => '*',
        }
    }
}

/// A number, or an operation on two expressions.
#[derive(Clone, Debug)]
pub(super) enum Expression {
    Number(i64),
    Of(Operation, Box<[Expression; 2]>),
}

impl Expression {
    fn of(operation: Operation, left: Expression, right: Expression) -> Expression {
        Expression::Of(operation, Box::new([left, right]))
    }

    /// Three numbers, of which the first two or the last two belong together.
    pub(super) fn chain(
        [a, b, c]: [Expression; 3],
        [first, second]: [Operation; 2],
        left: bool,
    ) -> Expression {
        if left {
            Expression::of(second, Expression::of(first, a, b), c)
        } else {
            Expression::of(first, a, Expression::of(second, b, c))
        }
    }

    /// A tree of so many operations on numbers from 1 to `largest`: leaning to the left, or halved at each step.
    pub(super) fn tree(operations: usize, leaning: bool, largest: i64, draw: &mut Draw) -> Expression {
        if operations == 0 {
            return Expression::Number(draw.between(1, largest));
        }
        let below = operations - 1;
        let right = if leaning { 0 } else { below / 2 };
        let left = Expression::tree(below - right, leaning, largest, draw);
        let operation = *draw.pick(&Operation::ALL);
        Expression::of(operation, left, Expression::tree(right, leaning, largest, draw))
    }

    /// The value, unless a step on the way is larger than `limit` or a product has two factors above 99.
    pub(super) fn value_within(&self, limit: i64) -> Option<i64> {
        let value = match self {
            Expression::Number(number) => *number,
            Expression::Of(operation, sides) => {
                let [left, right] = &**sides;
                let (left, right) = (left.value_within(limit)?, right.value_within(limit)?);
                if *operation == Operation::Multiply && left.abs() > 99 && right.abs() > 99 {
                    return None;
                }
                operation.of(left.into(), right.into()) as i64
            }
        };
        (value.abs() <= limit).then_some(value)
    }

    /// Computes the first operation from the left whose two sides are numbers.
    fn reduce(&mut self) {
        let Expression::Of(operation, sides) = self else { return };
        match &mut **sides {
            [Expression::Number(left), Expression::Number(right)] => {
                *self = Expression::Number(operation.of((*left).into(), (*right).into()) as i64);
            }
            [Expression::Number(_), right] => right.reduce(),
            [left, _] => left.reduce(),
        }
    }

    /// What is left after each step but the last: the expression as it becomes shorter.
    fn steps(&self) -> Vec<String> {
        let mut steps = Vec::new();
        let mut rest = self.clone();
        rest.reduce();
        while matches!(rest, Expression::Of(..)) {
            steps.push(rest.to_string());
            rest.reduce();
        }
        steps
    }

    fn write(&self, f: &mut impl fmt::Write, space: &str, inside: bool) -> fmt::Result {
        match self {
            Expression::Number(number) => write!(f, "{number}"),
            Expression::Of(operation, sides) => {
                let [left, right] = &**sides;
                if inside {
                    f.write_char('(')?;
                }
                left.write(f, space, true)?;
                write!(f, "{space}{}{space}", operation.sign())?;
                right.write(f, space, true)?;
                if inside {
                    f.write_char(')')?;
                }
                Ok(())
            }
        }
    }

    fn leaves(&self, found: &mut Vec<i64>) {
        match self {
            Expression::Number(number) => found.push(*number),
            Expression::Of(_, sides) => sides.iter().for_each(|side| side.leaves(found)),
        }
    }

    /// The problem of computing it, asked as `before`, the expression, `after`.
    pub(super) fn problem(&self, stratum: impl Into<String>, before: &str, after: &str) -> Problem {
        // Small as the numbers are, no step can leave an i64.
        let value = self.value_within(i64::MAX).expect("generators draw expressions of small values only");
        let mut words = String::new();
        self.write(&mut words, " ", false).expect("a String takes all that is written");
        let mut operands = Vec::new();
        self.leaves(&mut operands);
        Problem::new(stratum, "expression", format!("{before} {words}{after}"), Answer::integer(value))
            .of(operands)
            .with_compact(Compact { prompt: format!("{self}="), scratchpad: self.steps().join(";") })
    }
}

/// Without blanks, each operation but the last in parentheses.
impl fmt::Display for Expression {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.write(f, "", false)
    }
}
