//! Problems of one structure each, whose coefficients grow longer and longer.

use serde::Deserialize;

use crate::suite::{
    answer::Answer,
    draw::Draw,
    problem::{Generator, Problem},
};

/// What is calculated from longer coefficients would not fit.
const DIGITS_MAX: usize = 18;

/// Six structures. In the original of each every coefficient is 1; in the others, numbers of so many digits
/// stand in one place or in all.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PerturbNum {
    /// How many digits the longest coefficients have.
    digits: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Structure {
    Derivative,
    Integral,
    Equation,
    Determinant,
    Composition,
    Sum,
}

/// A structure, its name and how many coefficients it has.
const STRUCTURES: [(Structure, &str, usize); 6] = [
    (Structure::Derivative, "derivative", 2),
    (Structure::Integral, "integral", 2),
    (Structure::Equation, "equation", 3),
    (Structure::Determinant, "determinant", 4),
    (Structure::Composition, "composition", 4),
    (Structure::Sum, "sum", 2),
];

impl Generator for PerturbNum {
    fn cells(&self) -> usize {
        STRUCTURES.len() * self.digits * 2
    }

    fn draw(&self, cell: usize, draw: &mut Draw) -> Vec<Problem> {
        let (structure, round) = (cell % STRUCTURES.len(), cell / STRUCTURES.len());
        // Single digits come last in a round: the originals, which come before all, stand for them in the
        // first.
        let digits = (round + 1) % self.digits + 1;
        // In the second half of the cells all is the other way round.
        let all = (structure + digits + round / self.digits).is_multiple_of(2);
        let mut slots = original(structure);
        let place = draw.place(slots.len());
        for (at, slot) in slots.iter_mut().enumerate() {
            if all || at == place {
                *slot = coefficient(digits as u32, has_to_be_even(structure, at), draw);
            }
        }
        let variant = if all { "all-d" } else { "one-d" };
        vec![problem(structure, &slots, draw.between(2, 12), variant, digits)]
    }

    fn fixed(&self) -> Vec<Problem> {
        let of = |structure| problem(structure, &original(structure), 3, "orig", 1);
        (0..STRUCTURES.len()).map(of).collect()
    }

    fn check(&self) -> Result<(), String> {
        match self.digits {
            1..=DIGITS_MAX => Ok(()),
            digits => Err(format!("digits cannot be {digits}: give a number from 1 to {DIGITS_MAX}")),
        }
    }
}

/// The coefficients of the original.
fn original(structure: usize) -> Vec<i128> {
    let one_or_two = |at| if has_to_be_even(structure, at) { 2 } else { 1 };
    (0..STRUCTURES[structure].2).map(one_or_two).collect()
}

/// An integral is a whole number only if it halves an even coefficient.
fn has_to_be_even(structure: usize, slot: usize) -> bool {
    STRUCTURES[structure].0 == Structure::Integral && slot == 0
}

fn coefficient(digits: u32, even: bool, draw: &mut Draw) -> i128 {
    loop {
        let number = draw.between(10_i64.pow(digits - 1), 10_i64.pow(digits) - 1);
        if !even || number % 2 == 0 {
            return number.into();
        }
    }
}

/// Every product below has at most two coefficients and a square of `point`: 2 * 18 + 2 digits, which 128
/// bits hold.
fn problem(structure: usize, slots: &[i128], point: i64, variant: &str, digits: usize) -> Problem {
    let (structure, name, _) = STRUCTURES[structure];
    let k = i128::from(point);
    let (question, value) = match (structure, slots) {
        (Structure::Derivative, &[a, b]) => {
            let function = format!("{} + {}", times(a, "x^3"), times(b, "x^2"));
            (
                format!("Let f(x) = {function}. What is f'({k}), its derivative at x = {k}?"),
                3 * a * k * k + 2 * b * k,
            )
        }
        (Structure::Integral, &[a, b]) => {
            let function = linear(a, b, "x");
            (format!("What is the integral of {function} from x = 0 to x = {k}?"), a / 2 * k * k + b * k)
        }
        (Structure::Equation, &[a, b, x]) => {
            (format!("For which x is {} equal to {}?", linear(a, b, "x"), a * x + b), x)
        }
        (Structure::Determinant, &[a, b, c, d]) => {
            (format!("What is the determinant of the matrix [[{a}, {b}], [{c}, {d}]]?"), a * d - b * c)
        }
        (Structure::Composition, &[a, b, c, d]) => {
            let (f, g) = (linear(a, b, "x"), linear(c, d, "x"));
            (format!("Let f(x) = {f} and g(x) = {g}. What is f(g({k}))?"), a * (c * k + d) + b)
        }
        (Structure::Sum, &[a, b]) => {
            let term = linear(a, b, "i");
            (
                format!("What is the sum of {term} over all whole numbers i from 1 to {k}?"),
                a * (k * (k + 1) / 2) + b * k,
            )
        }
        _ => unreachable!("the table says how many coefficients a structure has"),
    };
    let mut operands = slots.to_vec();
    if !matches!(structure, Structure::Equation | Structure::Determinant) {
        operands.push(k);
    }
    let task = format!("{name}/{variant}");
    let problem = Problem::new(digits.to_string(), task, question, Answer::integer(value)).of(operands);
    Problem { cluster: Some(name.to_owned()), ..problem }
}

/// `12x + 3`
fn linear(factor: i128, summand: i128, variable: &str) -> String {
    format!("{} + {summand}", times(factor, variable))
}

/// `12x^3`, and `x^3` for a factor of 1.
fn times(factor: i128, power: &str) -> String {
    if factor == 1 { power.to_owned() } else { format!("{factor}{power}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_originals_have_the_answers_that_paper_gives() {
        let answers = PerturbNum { digits: 10 }.fixed().into_iter().map(|problem| problem.answer.text);
        // 27 + 6; 9 + 3; 1; 0; (3 + 1) + 1; 2 + 3 + 4.
        assert_eq!(answers.collect::<Vec<_>>(), ["33", "12", "1", "0", "5", "9"]);
    }

    #[test]
    fn coefficients_that_would_not_fit_are_refused() {
        let of = |digits| PerturbNum { digits }.check();
        assert!(of(1).is_ok() && of(18).is_ok());
        assert!(of(0).is_err() && of(19).is_err());
    }
}
