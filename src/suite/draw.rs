//! The random choices that a problem is made of.

use std::num::NonZeroU64;

use num_bigint::BigUint;
use sha2::{Digest as _, Sha256};

use crate::numerics::random::Stream;

/// Where the numbers of one group of problems come from: a function of the suite, its version, the seed, the group
/// and the attempt, and of nothing else.
pub struct Draw(Stream);

impl Draw {
    /// The draw of a group. Another attempt is another draw: for problems that came up before.
    pub fn new(suite: &str, version: u32, seed: u64, group: u64, attempt: u32) -> Draw {
        // The name comes last, so that no two sets of causes are the same bytes.
        let digest = Sha256::new()
            .chain_update(b"reprocheck suite")
            .chain_update(version.to_le_bytes())
            .chain_update(seed.to_le_bytes())
            .chain_update(group.to_le_bytes())
            .chain_update(attempt.to_le_bytes())
            .chain_update(suite)
            .finalize();
        let word = |at: usize| u64::from_le_bytes(digest[at..at + 8].try_into().expect("eight bytes"));
        Draw(Stream::new(word(0), word(8)))
    }

    /// A number from `low` to `high`, both included.
    ///
    /// # Panics
    ///
    /// When there is none.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        assert!(low <= high, "there is no number from {low} to {high}");
        let span = high.wrapping_sub(low).cast_unsigned();
        // All of 64 bits have no bound to stay below.
        let offset = match NonZeroU64::new(span.wrapping_add(1)) {
            Some(bound) => self.0.below(bound),
            None => self.0.bits(),
        };
        low.wrapping_add_unsigned(offset)
    }

    /// A place in a list of so many.
    pub fn place(&mut self, count: usize) -> usize {
        self.between(0, count as i64 - 1) as usize
    }

    /// One of them.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.place(from.len())]
    }

    /// True `hits` times out of `of`.
    pub fn chance(&mut self, hits: i64, of: i64) -> bool {
        self.between(1, of) <= hits
    }

    /// In any order, each as likely as any other.
    pub fn shuffle<T>(&mut self, list: &mut [T]) {
        for end in (1..list.len()).rev() {
            list.swap(end, self.place(end + 1));
        }
    }

    /// So many different numbers from `low` to `high`.
    ///
    /// # Panics
    ///
    /// When there are not so many.
    pub fn distinct(&mut self, count: usize, low: i64, high: i64) -> Vec<i64> {
        assert!(high - low + 1 >= count as i64, "there are no {count} numbers from {low} to {high}");
        let mut numbers: Vec<i64> = Vec::with_capacity(count);
        while numbers.len() < count {
            let number = self.between(low, high);
            if !numbers.contains(&number) {
                numbers.push(number);
            }
        }
        numbers
    }

    /// The digits of a number with so many of them: the first is not 0, unless it is alone.
    pub fn digits(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|at| self.between(i64::from(at == 0 && length > 1), 9) as u8).collect()
    }

    /// A number of so many digits, up to 18.
    pub fn number(&mut self, length: u32) -> i64 {
        let low = if length == 1 { 0 } else { 10_i64.pow(length - 1) };
        self.between(low, 10_i64.pow(length) - 1)
    }

    /// A number of so many digits.
    pub fn big(&mut self, length: usize) -> BigUint {
        BigUint::from_radix_be(&self.digits(length), 10).expect("these are digits")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_is_a_function_of_its_causes_forever() {
        let of = |suite, version, seed, group, attempt| {
            let mut draw = Draw::new(suite, version, seed, group, attempt);
            [draw.between(0, 999), draw.between(0, 999), draw.between(i64::MIN, i64::MAX)]
        };
        let first = of("divmod", 1, 0, 0, 0);
        assert_eq!(first, of("divmod", 1, 0, 0, 0));
        let others = [
            of("divmod", 1, 0, 0, 1),
            of("divmod", 1, 0, 1, 0),
            of("divmod", 1, 1, 0, 0),
            of("divmod", 2, 0, 0, 0),
            of("divmo", 1, 0, 0, 0),
        ];
        assert!(others.iter().all(|other| *other != first));
    }

    #[test]
    fn both_ends_come_up_and_nothing_beyond_them() {
        let mut draw = Draw::new("test", 1, 0, 0, 0);
        let mut counts = [0; 5];
        for _ in 0..1000 {
            counts[(draw.between(-2, 2) + 2) as usize] += 1;
        }
        assert!(counts.iter().all(|&count| count > 150), "{counts:?}");
        assert_eq!(draw.between(7, 7), 7);
        assert_eq!(draw.between(i64::MAX, i64::MAX), i64::MAX);
    }

    #[test]
    fn a_number_of_one_digit_may_be_zero_and_a_longer_one_has_its_length() {
        let mut draw = Draw::new("test", 1, 0, 1, 0);
        let ones: Vec<_> = (0..200).map(|_| draw.number(1)).collect();
        assert!((0..10).all(|digit| ones.contains(&digit)));
        for length in 2..=18 {
            assert_eq!(draw.number(length).to_string().len(), length as usize);
        }
        assert_eq!(draw.big(100).to_string().len(), 100);
    }

    #[test]
    fn a_shuffle_keeps_everything_and_distinct_numbers_are() {
        let mut draw = Draw::new("test", 1, 0, 2, 0);
        let mut list: Vec<_> = (0..50).collect();
        draw.shuffle(&mut list);
        assert_ne!(list, (0..50).collect::<Vec<_>>());
        list.sort_unstable();
        assert_eq!(list, (0..50).collect::<Vec<_>>());
        let mut numbers = draw.distinct(10, 1, 10);
        numbers.sort_unstable();
        assert_eq!(numbers, (1..=10).collect::<Vec<_>>());
    }
}
