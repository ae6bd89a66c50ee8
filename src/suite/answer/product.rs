//! Digit k of a product: which digits of a written product are right, by their places and by what is carried into them.

use num_bigint::BigUint;
use schemars::JsonSchema;
use serde::Serialize;

use super::{Answer, Kind, digits};

/// What is carried into a digit of a product, when it is worked out column by column from the right.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Digit {
    /// Which, from the right and from 0.
    pub place: usize,
    /// What is carried into it.
    pub carry: Carry,
}

/// How much is carried into a digit.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Carry {
    /// Nothing.
    None,
    /// One digit, 1 to 9.
    Digit,
    /// 10 or more, from a column of several products.
    More,
}

/// The digits of a product with what is carried into each, the last one first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Product {
    digits: Vec<(u8, Carry)>,
}

/// More digits are no product that a person would write down.
const MOST_DIGITS: usize = 64;

impl Product {
    /// The product that a question asks for: of the last two numbers of its text, one after the other, whose product the right
    /// answer is. Nothing where there are none, as for all questions that ask for something else.
    pub fn asked(prompt: &str, answer: &Answer) -> Option<Product> {
        if answer.kind != Kind::Integer || answer.text.len() > MOST_DIGITS {
            return None;
        }
        let right: BigUint = answer.text.parse().ok()?;
        let numbers: Vec<&str> = prompt
            .split(|c: char| !c.is_ascii_digit())
            .filter(|digits| !digits.is_empty() && digits.len() <= MOST_DIGITS)
            .collect();
        let factors = numbers.windows(2).rev().find(|pair| {
            let [a, b] = [pair[0], pair[1]].map(|digits| digits.parse::<BigUint>().unwrap_or_default());
            // What is multiplied by nothing or by one says nothing of carries, and may be there by chance.
            a > BigUint::from(1_u8) && b > BigUint::from(1_u8) && &a * &b == right
        })?;
        Some(Product::of(factors[0], factors[1]))
    }

    /// Of two numbers in decimal digits.
    fn of(one: &str, other: &str) -> Product {
        let [a, b] = [one, other]
            .map(|digits| digits.bytes().rev().map(|digit| u64::from(digit - b'0')).collect::<Vec<_>>());
        let mut digits = Vec::new();
        let mut carried = 0;
        for place in 0..a.len() + b.len() {
            let column: u64 = (0..=place).filter_map(|of_a| Some(a.get(of_a)? * b.get(place - of_a)?)).sum();
            let sum = column + carried;
            let carry = match carried {
                0 => Carry::None,
                1..=9 => Carry::Digit,
                _ => Carry::More,
            };
            digits.push(((sum % 10) as u8, carry));
            carried = sum / 10;
        }
        while digits.last().is_some_and(|(digit, _)| *digit == 0) {
            digits.pop();
        }
        Product { digits }
    }

    /// Every digit of the product, and whether the answer that was given has it in its place, whatever its sign.
    pub fn right(&self, given: Option<&str>) -> impl Iterator<Item = (Digit, bool)> {
        let given = given.map(digits::of_integer).unwrap_or_default();
        let mut given = given.into_bytes().into_iter().rev();
        self.digits.iter().enumerate().map(move |(place, (digit, carry))| {
            (Digit { place, carry: *carry }, given.next() == Some(b'0' + digit))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn carries_are_those_of_columns() {
        // 99 x 99: 81, then 81 + 81 + 8 = 170, then 81 + 17 = 98, then 9.
        let product = Product::of("99", "99");
        let digits = vec![(1, Carry::None), (0, Carry::Digit), (8, Carry::More), (9, Carry::Digit)];
        assert_eq!(product.digits, digits);
        assert_eq!(Product::of("12", "11").digits, [(2, Carry::None), (3, Carry::None), (1, Carry::None)]);
    }

    #[test]
    fn a_product_is_found_by_what_it_amounts_to() {
        let asked = |prompt, answer: u32| Product::asked(prompt, &Answer::integer(answer));
        assert_eq!(asked("12*34=408\n53*97=", 5141), Some(Product::of("53", "97")));
        assert_eq!(asked("What is 53 times 97? Think in 2 steps.", 5141), Some(Product::of("53", "97")));
        assert_eq!(asked("53+97=", 150), None);
        assert_eq!(asked("1*97=", 97), None);
        assert_eq!(asked("", 97), None);
    }

    #[test]
    fn digits_are_compared_from_the_right() {
        let right =
            |given| Product::of("12", "11").right(given).map(|(_, is_right)| is_right).collect::<Vec<_>>();
        assert_eq!(right(Some("132")), [true; 3]);
        assert_eq!(right(Some("32")), [true, true, false]);
        assert_eq!(right(Some("1,322")), [true, false, false]);
        assert_eq!(right(Some("132.0")), [true; 3], "what is right has every digit");
        assert_eq!(right(Some("-132")), [true; 3], "digits have no sign");
        assert_eq!(right(None), [false; 3]);
    }
}
