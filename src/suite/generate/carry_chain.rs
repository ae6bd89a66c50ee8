//! Sums and differences whose longest run of carries or borrows is known.

use serde::Deserialize;

use super::{Range, expression::Operation, gpt3_arith::pair};
use crate::suite::{
    draw::Draw,
    problem::{Generator, Problem},
};

/// Additions by the longest carry, subtractions by the longest borrow.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CarryChain {
    digits: usize,
    chains: Range<usize>,
}

/// Where carries run out of what a model has seen: ten digits, and numbers next to a power of ten.
const EDGES: [(u64, u64); 10] = [
    (0, 0),
    (0, 1),
    (9_999_999_999, 0),
    (9_999_999_999, 1),
    (9_999_999_999, 9_999_999_999),
    (5_000_000_000, 5_000_000_000),
    (1_111_111_111, 8_888_888_889),
    (1_234_567_890, 9_876_543_210),
    (1, 9_999_999_999),
    (4_999_999_999, 5_000_000_001),
];

impl Generator for CarryChain {
    fn cells(&self) -> usize {
        2 * self.chains.count()
    }

    fn fixed(&self) -> Vec<Problem> {
        EDGES.map(|(a, b)| pair("edge", Operation::Add, a, b)).into()
    }

    fn draw(&self, cell: usize, draw: &mut Draw) -> Vec<Problem> {
        let operation = if cell.is_multiple_of(2) { Operation::Add } else { Operation::Subtract };
        let chain = self.chains.from + cell / 2;
        let stratum = format!("{} {chain}", if operation == Operation::Add { "carry" } else { "borrow" });
        let (a, b) = numbers(operation, self.digits, chain, draw);
        vec![pair(stratum, operation, a, b)]
    }

    fn check(&self) -> Result<(), String> {
        if !(2..=18).contains(&self.digits) {
            return Err(format!("`digits` is {}: take a number from 2 to 18", self.digits));
        }
        // The highest digit of a difference cannot borrow.
        self.chains.check("chains", 0, self.digits - 1)
    }
}

/// Two numbers of so many digits whose longest chain is exactly this long: it starts where a place carries by
/// itself, and goes on where places carry with one carried in. Elsewhere nothing carries, even with one carried in.
fn numbers(operation: Operation, digits: usize, chain: usize, draw: &mut Draw) -> (u64, u64) {
    let add = operation == Operation::Add;
    let room = if add { digits } else { digits - 1 };
    let start = draw.place(room - chain + 1);
    let (mut a, mut b) = (0, 0);
    for place in (0..digits).rev() {
        let inside = (start..start + chain).contains(&place);
        // The first digit of a number is not 0.
        let low = i64::from(place == digits - 1);
        let (p, q) = loop {
            let (p, q) = (draw.between(low, 9), draw.between(low, 9));
            let fits = match (add, inside, place == start) {
                (true, true, true) => p + q >= 10,
                // Half of the places that go on do so only because of the carry: nines.
                (true, true, false) => p + q >= 9,
                (true, false, _) => p + q <= 8,
                (false, true, true) => p < q,
                (false, true, false) => p <= q,
                (false, false, _) => p > q,
            };
            let passes_on = if add { p + q == 9 } else { p == q };
            if fits && (!inside || place == start || passes_on || draw.chance(1, 5)) {
                break (p, q);
            }
        };
        (a, b) = (10 * a + p.unsigned_abs(), 10 * b + q.unsigned_abs());
    }
    (a, b)
}
