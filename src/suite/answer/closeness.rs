//! How near an estimate comes: the four labels of questions that ask for one.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{Signed, Zero};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{latex, number::Number};
use crate::name::named;

/// How near an estimate comes, the nearest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Closeness {
    /// Off by at most a millionth, in absolute terms.
    Exact,
    /// Off by at most a fifth of the right value.
    Good,
    /// Off by at most three fifths of it.
    Mild,
    /// Off by more.
    Off,
}

impl Closeness {
    /// How near a number comes to the right one; nothing where either text is no number.
    pub fn of(right: &str, given: &str) -> Option<Closeness> {
        // A number of thousands of digits or places is near nothing.
        let (Some(right), Some(given)) = (value(right)?, value(given)?) else { return Some(Closeness::Off) };
        let of = |numerator: i64, denominator: i64| {
            BigRational::new(BigInt::from(numerator), BigInt::from(denominator))
        };
        let error = (given - &right).abs();
        if error <= of(1, 1_000_000) {
            return Some(Closeness::Exact);
        }
        // Nothing is near zero but zero.
        let within = |fifths| !right.is_zero() && error <= of(fifths, 5) * right.abs();
        Some(match (within(1), within(3)) {
            (true, _) => Closeness::Good,
            (_, true) => Closeness::Mild,
            _ => Closeness::Off,
        })
    }
}

/// The value of a number, as far as it is one to calculate with; nothing where the text is no number.
fn value(text: &str) -> Option<Option<BigRational>> {
    let Number { numerator, denominator, .. } = Number::parse(&latex::plain(text))?;
    let ratio = || {
        let numerator = latex::ratio(&numerator)?;
        Some(match &denominator {
            Some(denominator) => numerator / latex::ratio(denominator)?,
            None => numerator,
        })
    };
    Some(ratio())
}

named! { Closeness, "closeness": Exact = "exact", Good = "good", Mild = "mild", Off = "off" }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thresholds_belong_to_the_nearer_label() {
        let of = |given: &str| Closeness::of("10", given);
        for (given, closeness) in [
            ("10", Closeness::Exact),
            ("$10.00", Closeness::Exact),
            ("10.000001", Closeness::Exact),
            ("9.999999", Closeness::Exact),
            ("10.0000010000000000001", Closeness::Good),
            ("12", Closeness::Good),
            ("8", Closeness::Good),
            ("12.0000000000000000001", Closeness::Mild),
            ("16", Closeness::Mild),
            ("4", Closeness::Mild),
            ("16.01", Closeness::Off),
            ("-10", Closeness::Off),
            ("1e999999", Closeness::Off),
            ("1e-999999", Closeness::Off),
            ("20/2", Closeness::Exact),
        ] {
            assert_eq!(of(given), Some(closeness), "{given}");
        }
        assert_eq!(of("ten"), None);
        assert_eq!(of(&"9".repeat(1_000_000)), Some(Closeness::Off));
    }

    #[test]
    fn only_zero_is_near_zero() {
        assert_eq!(Closeness::of("0.00", "0.0"), Some(Closeness::Exact));
        assert_eq!(Closeness::of("0.00", "0.01"), Some(Closeness::Off));
    }

    #[test]
    fn a_negative_value_is_neared_from_both_sides() {
        assert_eq!(Closeness::of("-10", "-12"), Some(Closeness::Good));
        assert_eq!(Closeness::of("-10", "-8"), Some(Closeness::Good));
        assert_eq!(Closeness::of("-10", "10"), Some(Closeness::Off));
    }
}
