//! The four forms of a number: how one is drawn, written and calculated with, exactly.

use std::cmp::Ordering;

use num_bigint::BigUint;
use num_integer::Integer as _;
use num_rational::Ratio;
use num_traits::Zero as _;

use crate::suite::{answer::Kind, draw::Draw};

/// How a number is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Form {
    /// `123`
    Integer,
    /// `10.4`
    Float,
    /// `7/13`
    Fraction,
    /// `1.23e4`
    Scientific,
}

impl Form {
    /// Its name in strata and tasks.
    pub(super) fn name(self) -> &'static str {
        match self {
            Form::Integer => "integer",
            Form::Float => "float",
            Form::Fraction => "fraction",
            Form::Scientific => "scientific",
        }
    }

    /// What an answer in this form looks like.
    pub(super) fn looks(self) -> &'static str {
        match self {
            Form::Integer => "an integer without separators, such as 123",
            Form::Float => "a decimal number without separators, such as 10.4",
            Form::Fraction => "a fraction in lowest terms, such as 7/13",
            Form::Scientific => {
                "a number in scientific notation, from 1 to below 10 before the e, such as 1.23e4"
            }
        }
    }

    /// How an answer in this form is compared.
    pub(super) fn kind(self) -> Kind {
        match self {
            Form::Integer => Kind::Integer,
            Form::Float => Kind::Decimal,
            Form::Fraction => Kind::Irreducible,
            Form::Scientific => Kind::Scientific,
        }
    }
}

/// A number of finitely many decimals: `digits` times ten to the power of `scale`.
#[derive(Clone, Debug)]
pub(super) struct Decimal {
    digits: BigUint,
    scale: i64,
}

impl Decimal {
    /// The number of these digits at this scale.
    pub(super) fn new(digits: BigUint, scale: i64) -> Decimal {
        Decimal { digits, scale }
    }

    /// 1 and so many zeros.
    pub(super) fn ten_to(power: i64) -> Decimal {
        Decimal::new(ten_to(power as usize), 0)
    }

    /// An integer of so many digits.
    pub(super) fn integer(length: usize, draw: &mut Draw) -> Decimal {
        Decimal::new(draw.big(length), 0)
    }

    /// So many digits before the point, none for a number below 1, and so many after it, of which the first
    /// `zeros` are 0 and the last is not.
    pub(super) fn float(whole: usize, decimals: usize, zeros: usize, draw: &mut Draw) -> Decimal {
        let mut digits = draw.digits(whole);
        digits.resize(whole + zeros, 0);
        digits.extend((zeros + 1..decimals).map(|_| any_digit(draw)));
        digits.push(draw.between(1, 9) as u8);
        Decimal::new(from_digits(&digits), -(decimals as i64))
    }

    /// A mantissa of so many decimals, the last of which is not 0.
    pub(super) fn scientific(decimals: usize, exponent: i64, draw: &mut Draw) -> Decimal {
        let mut digits = vec![draw.between(1, 9) as u8];
        digits.extend((1..decimals).map(|_| any_digit(draw)));
        digits.push(draw.between(1, 9) as u8);
        Decimal::new(from_digits(&digits), exponent - decimals as i64)
    }

    /// The digits of both at the finer one of the two scales, and that scale.
    fn aligned(&self, other: &Decimal) -> (BigUint, BigUint, i64) {
        let scale = self.scale.min(other.scale);
        let shift = |number: &Decimal| match number.scale - scale {
            0 => number.digits.clone(),
            places => &number.digits * ten_to(places as usize),
        };
        (shift(self), shift(other), scale)
    }

    /// The sum.
    pub(super) fn plus(&self, other: &Decimal) -> Decimal {
        let (a, b, scale) = self.aligned(other);
        Decimal::new(a + b, scale)
    }

    /// The difference: the other one must not be larger.
    pub(super) fn minus(&self, other: &Decimal) -> Decimal {
        let (a, b, scale) = self.aligned(other);
        Decimal::new(a - b, scale)
    }

    /// The product.
    pub(super) fn times(&self, other: &Decimal) -> Decimal {
        Decimal::new(&self.digits * &other.digits, self.scale + other.scale)
    }

    /// The integer part of the quotient of two integers, and the remainder.
    pub(super) fn div_rem(&self, other: &Decimal) -> (Decimal, Decimal) {
        let (quotient, remainder) = self.digits.div_rem(&other.digits);
        (Decimal::new(quotient, 0), Decimal::new(remainder, 0))
    }

    /// The quotient of two integers, in lowest terms.
    pub(super) fn ratio(&self, other: &Decimal) -> Ratio<BigUint> {
        Ratio::new(self.digits.clone(), other.digits.clone())
    }

    /// Place by place, with 0 where a number has no digit.
    pub(super) fn by_digit(&self, other: &Decimal, of: impl Fn(u8, u8) -> u8) -> Decimal {
        let (a, b, scale) = self.aligned(other);
        let (a, b) = (a.to_radix_le(10), b.to_radix_le(10));
        let digit = |digits: &[u8], at: usize| digits.get(at).copied().unwrap_or(0);
        let digits: Vec<u8> = (0..a.len().max(b.len())).map(|at| of(digit(&a, at), digit(&b, at))).collect();
        Decimal::new(BigUint::from_radix_le(&digits, 10).expect("a digit and a digit make a digit"), scale)
    }

    /// How many digits there are from the first that is not 0 to the last.
    pub(super) fn figures(&self) -> usize {
        self.digits.to_string().len()
    }

    /// In scientific notation with exactly so many figures, at least 2 and no more than there are. Half a
    /// unit of the last of them and more is rounded up.
    pub(super) fn significant(&self, figures: usize) -> String {
        let digits = self.digits.to_string();
        let (kept, rest) = digits.split_at(figures);
        let up = rest.bytes().next().is_some_and(|next| next >= b'5');
        let kept: BigUint = kept.parse().expect("these are digits");
        let kept = (kept + u8::from(up)).to_string();
        // 9.99 becomes 10.0: one digit more, which is a 0.
        let exponent = digits.len() as i64 - 1 + self.scale + (kept.len() - figures) as i64;
        format!("{}.{}e{exponent}", &kept[..1], &kept[1..figures])
    }

    /// The canonical text: as many decimals as the number has, but at least one, in a float and before an
    /// exponent.
    pub(super) fn text(&self, form: Form) -> String {
        let mut digits = self.digits.to_string();
        match form {
            Form::Integer | Form::Fraction => digits,
            Form::Float if self.scale >= 0 => {
                digits.extend(std::iter::repeat_n('0', self.scale as usize));
                digits + ".0"
            }
            Form::Float => {
                let places = -self.scale as usize;
                let digits = format!("{digits:0>width$}", width = places + 1);
                let (whole, decimals) = digits.split_at(digits.len() - places);
                format!("{whole}.{}", trimmed(decimals))
            }
            Form::Scientific => {
                let exponent = digits.len() as i64 - 1 + self.scale;
                format!("{}.{}e{exponent}", &digits[..1], trimmed(&digits[1..]))
            }
        }
    }
}

impl PartialEq for Decimal {
    fn eq(&self, other: &Decimal) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Decimal {}

impl Ord for Decimal {
    fn cmp(&self, other: &Decimal) -> Ordering {
        let (a, b, _) = self.aligned(other);
        a.cmp(&b)
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Decimal) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// A fraction in lowest terms whose denominator has so many digits and is not 1, and whose numerator has no
/// more. A proper one is below 1.
pub(super) fn fraction(length: usize, proper: bool, draw: &mut Draw) -> Ratio<BigUint> {
    let least = ten_to(length - 1).max(BigUint::from(2_u8));
    loop {
        let denominator = draw.big(length);
        let numerator = numerator(length, draw);
        if denominator.is_zero() || numerator.is_zero() || proper && numerator >= denominator {
            continue;
        }
        let fraction = Ratio::new(numerator, denominator);
        if *fraction.denom() >= least {
            return fraction;
        }
    }
}

/// A fraction of finitely many decimals, in lowest terms, whose denominator has so many digits, and its
/// value.
pub(super) fn finite_fraction(length: usize, draw: &mut Draw) -> (Ratio<BigUint>, Decimal) {
    let (least, beyond) = (ten_to(length - 1).max(BigUint::from(2_u8)), ten_to(length));
    // Powers of 5 up to the largest that fits; powers of 2 then bring the denominator to its length.
    let fives = draw.place((0..).take_while(|&fives| BigUint::from(5_u8).pow(fives) < beyond).count()) as u32;
    let mut denominators = Vec::new();
    let mut denominator = BigUint::from(5_u8).pow(fives);
    for twos in 0_u32.. {
        if denominator >= beyond {
            break;
        }
        if denominator >= least {
            denominators.push((twos, denominator.clone()));
        }
        denominator *= 2_u8;
    }
    let (twos, denominator) = draw.pick(&denominators).clone();
    let numerator = loop {
        let numerator = numerator(length, draw);
        let coprime = |prime: u8, power: u32| power == 0 || !(&numerator % prime).is_zero();
        if coprime(2, twos) && coprime(5, fives) {
            break numerator;
        }
    };
    // n / (2^i 5^j) is n 2^(m - i) 5^(m - j) / 10^m, where m is the larger one of i and j.
    let places = twos.max(fives);
    let digits =
        &numerator * BigUint::from(2_u8).pow(places - twos) * BigUint::from(5_u8).pow(places - fives);
    (Ratio::new_raw(numerator, denominator), Decimal::new(digits, -i64::from(places)))
}

/// `7/13`, and `2/1` for an integer.
pub(super) fn fraction_text(fraction: &Ratio<BigUint>) -> String {
    format!("{}/{}", fraction.numer(), fraction.denom())
}

/// Up to so many digits.
fn numerator(length: usize, draw: &mut Draw) -> BigUint {
    let digits: Vec<u8> = (0..length).map(|_| any_digit(draw)).collect();
    from_digits(&digits)
}

fn any_digit(draw: &mut Draw) -> u8 {
    draw.between(0, 9) as u8
}

fn from_digits(digits: &[u8]) -> BigUint {
    BigUint::from_radix_be(digits, 10).expect("these are digits")
}

fn ten_to(power: usize) -> BigUint {
    BigUint::from(10_u8).pow(power as u32)
}

/// Decimals without the zeros at their end, but at least one.
fn trimmed(decimals: &str) -> &str {
    match decimals.trim_end_matches('0') {
        "" => "0",
        decimals => decimals,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(digits: u64, scale: i64) -> Decimal {
        Decimal::new(digits.into(), scale)
    }

    #[test]
    fn a_float_keeps_its_decimals_and_at_least_one() {
        for (number, text) in [
            (decimal(12_340, -3), "12.34"),
            (decimal(12_000, -3), "12.0"),
            (decimal(7, -3), "0.007"),
            (decimal(12, 2), "1200.0"),
            (decimal(12, 0), "12.0"),
            (decimal(0, -2), "0.0"),
        ] {
            assert_eq!(number.text(Form::Float), text);
        }
    }

    #[test]
    fn numbers_compare_by_value() {
        assert_eq!(decimal(120, -1), decimal(12, 0));
        assert!(decimal(119, -1) < decimal(12, 0) && decimal(12, 3) > decimal(9999, 0));
    }

    #[test]
    fn an_exponent_has_its_sign() {
        for (number, text) in [
            (decimal(12, -5), "1.2e-4"),
            (decimal(1200, 0), "1.2e3"),
            (decimal(5, 0), "5.0e0"),
            (decimal(10, -2), "1.0e-1"),
        ] {
            assert_eq!(number.text(Form::Scientific), text);
        }
    }

    #[test]
    fn a_half_is_rounded_up_and_may_carry_through() {
        for (number, figures, text) in [
            (decimal(1257, -3), 2, "1.3e0"),
            (decimal(1250, -3), 2, "1.3e0"),
            (decimal(1249, -3), 2, "1.2e0"),
            (decimal(1257, -3), 4, "1.257e0"),
            (decimal(99_950, 0), 3, "1.00e5"),
            (decimal(99_949, -9), 3, "9.99e-5"),
            (decimal(12_004, 0), 3, "1.20e4"),
        ] {
            assert_eq!(number.significant(figures), text);
        }
    }

    #[test]
    fn digits_meet_at_the_point() {
        // 12.50 and 3.71
        let (a, b) = (decimal(125, -1), decimal(371, -2));
        assert_eq!(a.by_digit(&b, u8::max).text(Form::Float), "13.71");
        assert_eq!(a.by_digit(&b, u8::min).text(Form::Float), "2.5");
        assert_eq!(a.by_digit(&b, |a, b| (a + b) % 10).text(Form::Float), "15.21");
    }
}
