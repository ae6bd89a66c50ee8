//! Whole quotients, remainders and irreducible fractions.

use serde::Deserialize;

use super::Range;
use crate::suite::{
    answer::{Answer, Kind},
    compact,
    draw::Draw,
    problem::{Generator, Problem},
};

/// Divisions by what is asked for and the length of the dividend.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Divmod {
    /// Of the dividend.
    digits: Range<u32>,
}

impl Generator for Divmod {
    fn cells(&self) -> usize {
        3 * self.digits.count()
    }

    fn draw(&self, cell: usize, draw: &mut Draw) -> Vec<Problem> {
        let digits = self.digits.from + (cell / 3) as u32;
        let [a, b] = operands(digits, draw);
        let problem = match cell % 3 {
            0 => Problem::new(
                format!("floordiv {digits}"),
                "floordiv",
                format!("How many whole times does {b} go into {a}?"),
                Answer::integer(a / b),
            )
            .with_compact(compact::quotient(a, b)),
            1 => Problem::new(
                format!("mod {digits}"),
                "mod",
                format!("What is the remainder when {a} is divided by {b}?"),
                Answer::integer(a % b),
            )
            .with_compact(compact::remainder(a, b)),
            _ => return vec![fraction(digits, draw)],
        };
        vec![problem.of([a, b])]
    }

    fn check(&self) -> Result<(), String> {
        self.digits.check("digits", 2, 18)
    }
}

/// A dividend of so many digits, and a divisor of up to three that does not end the work with one subtraction: it has
/// 7 of 10 digits and one more at most.
fn operands(digits: u32, draw: &mut Draw) -> [u64; 2] {
    let longest = (digits * 7 / 10 + 1).min(3);
    let length = draw.between(1, longest.into()) as u32;
    let (a, b) = (draw.number(digits).unsigned_abs(), draw.number(length).unsigned_abs().max(2));
    [a.max(b), a.min(b)]
}

/// A fraction that is no whole number, and that can be reduced at least every other time.
fn fraction(digits: u32, draw: &mut Draw) -> Problem {
    loop {
        let factor = if draw.chance(1, 2) { draw.between(2, 9).unsigned_abs() } else { 1 };
        // Of the same length, and a multiple of the factor.
        let near = |number: u64| number.max(10_u64.pow(number.ilog10()) + factor - 1) / factor * factor;
        let [a, b] = operands(digits, draw).map(near);
        if a.is_multiple_of(b) {
            continue;
        }
        let divisor = num_integer::gcd(a, b);
        let lowest = format!("{}/{}", a / divisor, b / divisor);
        return Problem::new(
            format!("fraction {digits}"),
            "fraction",
            format!("What is {a}/{b} as a fraction in lowest terms?"),
            Answer::new(Kind::Irreducible, lowest),
        )
        .of([a, b])
        .with_compact(compact::fraction(a, b));
    }
}
