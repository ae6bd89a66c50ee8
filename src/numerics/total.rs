//! Correctly rounded sums and means of `f64`: the one value that every order of the additions agrees on.
//!
//! A statistic over many items shall not depend on the order in which their files were read. Every finite
//! `f64` is an integer times 2^-1074, so the sum is kept as an integer of that unit and rounded at the end.
//! This costs a fraction of a microsecond for a value, which is nothing beside the tokens behind it.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::ToPrimitive;

/// The bit of the sum that stands for 1.
const ONE: u64 = 1074;

/// A sum of numbers that is exact until it is read.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Total {
    /// In units of 2^-1074.
    sum: BigInt,
    /// Whether something came in that is no finite number.
    broken: bool,
}

impl Total {
    /// Adds a number.
    pub fn add(&mut self, value: f64) {
        self.broken |= !value.is_finite();
        let bits = value.to_bits();
        let field = (bits >> 52) & 0x7FF;
        let significand = (bits & ((1 << 52) - 1)) | (u64::from(field != 0) << 52);
        // Subnormal numbers have the unit of the smallest normal ones.
        let magnitude = BigInt::from(significand) << (field.max(1) - 1);
        if value.is_sign_negative() { self.sum -= magnitude } else { self.sum += magnitude }
    }

    /// The sum, rounded once; NaN if something was added that is not finite.
    pub fn round(&self) -> f64 {
        self.part(1)
    }

    /// The sum divided by `parts`, rounded once.
    fn part(&self, parts: u64) -> f64 {
        if self.broken {
            return f64::NAN;
        }
        let quotient = BigRational::new_raw(self.sum.clone(), BigInt::from(parts) << ONE);
        quotient.to_f64().unwrap_or(f64::NAN)
    }
}

impl Extend<f64> for Total {
    fn extend<I: IntoIterator<Item = f64>>(&mut self, values: I) {
        values.into_iter().for_each(|value| self.add(value));
    }
}

/// A mean that is exact until it is read.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Mean {
    total: Total,
    count: u64,
}

impl Mean {
    /// Adds a number.
    pub fn add(&mut self, value: f64) {
        self.total.add(value);
        self.count += 1;
    }

    /// The mean, rounded once: nothing has none. NaN if a value is not finite.
    pub fn round(&self) -> Option<f64> {
        (self.count > 0).then(|| self.total.part(self.count))
    }
}

/// The mean, rounded once: nothing has none. NaN if a value is not finite.
pub fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut mean = Mean::default();
    values.into_iter().for_each(|value| mean.add(value));
    mean.round()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn total(values: &[f64]) -> f64 {
        let mut total = Total::default();
        total.extend(values.iter().copied());
        total.round()
    }

    #[test]
    fn a_sum_is_rounded_once() {
        assert_eq!(total(&[0.1; 10]), 1.0);
        assert_eq!([0.1; 10].iter().fold(0.0, |sum, value| sum + value), 1.0_f64.next_down());
        assert_eq!(total(&[1e308, 1.0, -1e308, 1e-300]), 1.0);
        assert_eq!(total(&[1.0, f64::EPSILON / 2.0]), 1.0);
        assert_eq!(total(&[1.0, f64::EPSILON / 2.0, f64::from_bits(1)]), 1.0_f64.next_up());
        assert_eq!(total(&[f64::MAX, f64::MAX]), f64::INFINITY);
    }

    #[test]
    fn every_kind_of_number_is_added_as_it_is() {
        let kinds = [0.0, -0.0, f64::from_bits(1), -f64::MIN_POSITIVE, 1.5, -0.1, f64::MAX, f64::MIN];
        for value in kinds {
            assert_eq!(total(&[value]), value);
            assert_eq!(total(&[value, -value]), 0.0);
        }
    }

    #[test]
    fn nothing_has_no_mean_and_what_is_not_finite_has_none_either() {
        assert_eq!(mean([]), None);
        assert_eq!(mean([1.0, 2.0, 6.0]), Some(3.0));
        assert_eq!(mean([f64::MAX, f64::MAX]), Some(f64::MAX));
        assert!(mean([1.0, f64::INFINITY]).unwrap().is_nan());
        assert!(total(&[f64::NAN]).is_nan());
    }
}
