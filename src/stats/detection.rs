//! How likely a draw from several groups takes something that is wrong, wherever it lies.

use num_bigint::{BigInt, BigUint};
use num_rational::BigRational;
use num_traits::{One, ToPrimitive};

use super::coverage::{ratio, ways};

/// A draw without replacement of as many from each of several groups of one size: every choice from a group is as likely.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Draw {
    /// How many groups there are.
    pub groups: u64,
    /// How many each has.
    pub of: u64,
    /// How many of each are drawn.
    pub drawn: u64,
}

impl Draw {
    /// How many there are in all groups.
    pub fn all(self) -> u64 {
        self.groups.saturating_mul(self.of)
    }

    /// How likely at least one of so many wrong ones is drawn, however they are spread over the groups: the least of all ways to
    /// spread them, exactly.
    ///
    /// Among `of` that hold `k` wrong ones, a draw misses all of them with probability C(of - k, drawn) / C(of, drawn). One more
    /// wrong one in a group makes that smaller by a factor that falls with `k`, so that they are missed most often where the
    /// groups have as many as each other, or one more.
    pub fn exactly_found(self, wrong: u64) -> BigRational {
        let groups = self.groups.max(1);
        let (each, more) = (wrong / groups, wrong % groups);
        let power = |share: BigRational, times: u64| {
            (0..u64::BITS - times.leading_zeros()).rev().fold(BigRational::one(), |power, bit| {
                let square = &power * &power;
                if times >> bit & 1 == 1 { square * &share } else { square }
            })
        };
        BigRational::one() - power(self.missed(each), groups - more) * power(self.missed(each + 1), more)
    }

    /// The same, rounded once.
    pub fn found(self, wrong: u64) -> f64 {
        self.exactly_found(wrong).to_f64().unwrap_or(f64::NAN)
    }

    /// The fewest wrong ones of which at least one is drawn with this probability, which is `numerator` of 100; nothing where there
    /// are not as many in all groups.
    pub fn fewest_found(self, percent: u32) -> Option<u64> {
        let wanted = BigRational::new(BigInt::from(percent), BigInt::from(100));
        let is_found = |wrong| self.exactly_found(wrong) >= wanted;
        let (mut low, mut high) = (0, self.all());
        if !is_found(high) {
            return None;
        }
        // More are found more often.
        while low < high {
            let middle = low + (high - low) / 2;
            if is_found(middle) { high = middle } else { low = middle + 1 }
        }
        Some(low)
    }

    /// How likely a draw from one group takes none of so many wrong ones.
    fn missed(self, wrong: u64) -> BigRational {
        let Draw { of, drawn, .. } = self;
        if wrong > of || drawn > of {
            return ratio(BigUint::ZERO, BigUint::one());
        }
        // The two numbers may change places; the smaller one takes fewer steps.
        let (few, many) = (wrong.min(drawn), wrong.max(drawn));
        ratio(ways(of - many, few), ways(of, few))
    }
}
