//! How many digits of a number are right: the digit metrics of "Number Cookbook" (NUPA), exactly.

use std::borrow::Cow;

use super::{Kind, latex, number};

/// From which end the digits of a part are held against each other.
#[derive(Clone, Copy)]
enum Side {
    Left,
    Right,
}

/// Where the parts of a number of this kind are aligned; nothing for what has no such parts.
fn sides(kind: Kind) -> Option<&'static [Side]> {
    match kind {
        Kind::Integer => Some(&[Side::Right]),
        Kind::Decimal => Some(&[Side::Right, Side::Left]),
        Kind::Fraction | Kind::Irreducible => Some(&[Side::Right, Side::Right]),
        Kind::Scientific => Some(&[Side::Right, Side::Left, Side::Right]),
        _ => None,
    }
}

/// What the digits of one answer are worth.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Digits {
    /// Are all digits of all parts the same, and the signs too?
    pub exact: bool,
    /// How many digits are right where they stand.
    pub matched: u64,
    /// Of so many.
    pub of: u64,
    /// How many digits there are too many or too few, over all parts together.
    pub length_error: u64,
}

/// Compares an answer with the right one, digit by digit. No answer has no digits.
///
/// Nothing for labels, lists, LaTeX, digit strings and numbers of no fixed form.
pub fn compare(kind: Kind, gold: &str, given: Option<&str>) -> Option<Digits> {
    let sides = sides(kind)?;
    let gold_parts = parts(kind, gold);
    let given_parts = given.map(|given| parts(kind, given)).unwrap_or_default();
    let mut digits = Digits { exact: gold_parts == given_parts, matched: 0, of: 0, length_error: 0 };
    let mut given_digits = 0;
    for (at, side) in sides.iter().enumerate() {
        let (gold, given) = (gold_parts.digits[at].as_bytes(), given_parts.digits[at].as_bytes());
        let equal = |(left, right): (&u8, &u8)| left == right;
        let matched = match side {
            Side::Left => gold.iter().zip(given).filter(|&pair| equal(pair)).count(),
            Side::Right => gold.iter().rev().zip(given.iter().rev()).filter(|&pair| equal(pair)).count(),
        };
        digits.matched += matched as u64;
        digits.of += gold.len() as u64;
        given_digits += given.len() as u64;
    }
    digits.length_error = digits.of.abs_diff(given_digits);
    Some(digits)
}

/// The digits of up to three parts, and the signs that stand before the number and its exponent: `1.2e-4` is
/// not `1.2e4`.
#[derive(PartialEq, Default)]
struct Parts {
    digits: [String; 3],
    negative: [bool; 2],
}

/// The digits of an answer that should be an integer.
pub(super) fn of_integer(text: &str) -> String {
    let [digits, ..] = parts(Kind::Integer, text).digits;
    digits
}

fn parts(kind: Kind, text: &str) -> Parts {
    let plain = latex::plain(text);
    let text = number::trimmed(&plain);
    let text: Cow<'_, str> = if text.contains(['×', '*']) {
        text.replace(" × 10^", "e").replace("×10^", "e").replace(" * 10^", "e").replace("*10^", "e").into()
    } else {
        text.into()
    };
    let (text, exponent) = match text.split_once(['e', 'E']) {
        Some((text, exponent)) if kind == Kind::Scientific => (text, exponent),
        _ => (&*text, ""),
    };
    let separator = if matches!(kind, Kind::Fraction | Kind::Irreducible) { '/' } else { '.' };
    let (first, second) = text.split_once(separator).unwrap_or((text, ""));
    // `28811.0` is the integer 28811.
    let whole = kind == Kind::Integer && second.bytes().all(|byte| byte == b'0');
    let (first, second) = if kind == Kind::Integer && !whole { (text, "") } else { (first, second) };
    let second = if whole { "" } else { second };
    let digits = [first, second, exponent].map(|part| part.chars().filter(char::is_ascii_digit).collect());
    Parts { digits, negative: [text.starts_with('-'), exponent.contains('-')] }
}

/// The digits of several answers together.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct Tally {
    /// How many answers.
    pub items: u64,
    /// How many of them are exact.
    pub exact: u64,
    /// How many digits are right where they stand.
    pub matched: u64,
    /// Of so many.
    pub of: u64,
    /// The length errors, added up.
    pub length_error: u64,
}

impl Tally {
    /// Adds one answer.
    pub fn add(&mut self, digits: Digits) {
        self.items += 1;
        self.exact += u64::from(digits.exact);
        self.matched += digits.matched;
        self.of += digits.of;
        self.length_error += digits.length_error;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(kind: Kind, gold: &str, given: &str) -> (bool, u64, u64, u64) {
        let digits = compare(kind, gold, Some(given)).unwrap();
        (digits.exact, digits.matched, digits.of, digits.length_error)
    }

    #[test]
    fn each_part_is_aligned_where_its_unit_stands() {
        assert_eq!(of(Kind::Integer, "1234", "234"), (false, 3, 4, 1));
        assert_eq!(of(Kind::Integer, "1234", "123"), (false, 0, 4, 1));
        assert_eq!(of(Kind::Decimal, "12.345", "2.34"), (false, 3, 5, 2));
        assert_eq!(of(Kind::Decimal, "12.345", "12.3450"), (false, 5, 5, 1));
        assert_eq!(of(Kind::Fraction, "13/27", "3/127"), (false, 3, 4, 0));
        assert_eq!(of(Kind::Scientific, "1.23e12", "1.2e2"), (false, 3, 5, 2));
    }

    #[test]
    fn an_exact_answer_has_every_digit() {
        assert_eq!(of(Kind::Integer, "28811", "28,811.0"), (true, 5, 5, 0));
        assert_eq!(of(Kind::Irreducible, "3/4", "$\\frac{3}{4}$"), (true, 2, 2, 0));
        assert_eq!(of(Kind::Scientific, "1.23e4", "1.23 × 10^4."), (true, 4, 4, 0));
    }

    #[test]
    fn signs_count_for_the_whole_and_not_for_the_digits() {
        assert_eq!(of(Kind::Scientific, "1.2e4", "1.2e-4"), (false, 3, 3, 0));
        assert_eq!(of(Kind::Integer, "5", "-5"), (false, 1, 1, 0));
    }

    #[test]
    fn no_answer_has_no_digits() {
        let none = compare(Kind::Decimal, "10.5", None);
        assert_eq!(none, Some(Digits { exact: false, matched: 0, of: 3, length_error: 3 }));
        assert_eq!(compare(Kind::Label, "yes", Some("yes")), None);
    }
}
