//! Random numbers whose every value is a function of its key and counter, the same forever and everywhere.
//!
//! [`philox`] is Philox4x32-10 of Salmon, Moraes, Dror and Shaw ("Parallel random numbers: as easy as 1, 2,
//! 3", 2011), bit for bit that of their library Random123: integers only, no state. [`Stream`] gives numbers
//! in a row.
//!
//! None of this may ever change: samples and suites are functions of it.

use std::num::NonZeroU64;

/// The two constants that the halves of a counter are multiplied by in every round.
const MULTIPLIERS: [u64; 2] = [0xD251_1F53, 0xCD9E_8D57];
/// What is added to the two halves of the key after every round: the golden ratio, and the square root of 3
/// less 1.
const STEPS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];

/// The 128 random bits that belong to a counter under a key.
#[inline(always)]
pub fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let ([mut a, mut b, mut c, mut d], [mut left, mut right]) = (counter, key);
    for _ in 0..10 {
        let (ab, cd) = (MULTIPLIERS[0] * u64::from(a), MULTIPLIERS[1] * u64::from(c));
        let high = |product: u64| (product >> 32) as u32;
        (a, b, c, d) = (high(cd) ^ b ^ left, cd as u32, high(ab) ^ d ^ right, ab as u32);
        (left, right) = (left.wrapping_add(STEPS[0]), right.wrapping_add(STEPS[1]));
    }
    [a, b, c, d]
}

/// The lower half of a number, then its upper half: how 64 bits stand in a counter or a key.
#[inline(always)]
pub fn halves(number: u64) -> [u32; 2] {
    [number as u32, (number >> 32) as u32]
}

/// 52 of these bits as a number of the open interval from 0 to 1: an odd multiple of 2^-53, exactly.
#[inline(always)]
pub fn open_unit(bits: u64) -> f64 {
    // Both the integer, of 53 bits, and the power of two are exact.
    const SCALE: f64 = 1.0 / (1_u64 << 53) as f64;
    (bits >> 12 << 1 | 1) as f64 * SCALE
}

/// Random numbers in a row. Streams of different seeds or numbers have nothing to do with each other.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Stream {
    key: [u32; 2],
    number: [u32; 2],
    /// How many values came before: two to a block.
    position: u64,
    /// The second half of the block that the last value came from.
    left: u64,
}

impl Stream {
    /// The stream of this number among those of this seed.
    pub fn new(seed: u64, number: u64) -> Stream {
        // Not the seed itself: what else counts under that key shall share no block with a stream.
        let key = seed ^ u64::from_le_bytes(*b"a stream");
        Stream { key: halves(key), number: halves(number), position: 0, left: 0 }
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        let bits = if self.position.is_multiple_of(2) {
            let ([low, high], number) = (halves(self.position / 2), self.number);
            let [a, b, c, d] = philox([low, high, number[0], number[1]], self.key);
            self.left = u64::from(d) << 32 | u64::from(c);
            u64::from(b) << 32 | u64::from(a)
        } else {
            self.left
        };
        // 2^64 values take millennia.
        self.position = self.position.wrapping_add(1);
        bits
    }

    /// A number below `bound`, each as likely as any other: `bits * bound / 2^64`, drawn again where the
    /// remainder tells that one result would come up more often than the others.
    pub fn below(&mut self, bound: NonZeroU64) -> u64 {
        let bound = bound.get();
        // 2^64 modulo the bound: so many remainders are one too many.
        let surplus = bound.wrapping_neg() % bound;
        loop {
            let product = u128::from(self.bits()) * u128::from(bound);
            if product as u64 >= surplus {
                return (product >> 64) as u64;
            }
        }
    }

    /// A number of the open interval from 0 to 1, see [`open_unit`].
    pub fn unit(&mut self) -> f64 {
        open_unit(self.bits())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_known_answers_of_random123_are_met() {
        // The three lines `philox4x32 10` of tests/kat_vectors in Random123 1.14.0.
        for (counter, key, answer) in [
            ([0; 4], [0; 2], [0x6627_E8D5, 0xE169_C58D, 0xBC57_AC4C, 0x9B00_DBD8]),
            ([u32::MAX; 4], [u32::MAX; 2], [0x408F_276D, 0x41C8_3B0E, 0xA20B_C7C6, 0x6D54_51FD]),
            (
                [0x243F_6A88, 0x85A3_08D3, 0x1319_8A2E, 0x0370_7344],
                [0xA409_3822, 0x299F_31D0],
                [0xD16C_FE09, 0x94FD_CCEB, 0x5001_E420, 0x2412_6EA1],
            ),
        ] {
            assert_eq!(philox(counter, key), answer);
        }
    }

    #[test]
    fn a_stream_reads_the_blocks_of_its_key_in_a_row() {
        let mut stream = Stream::new(7, u64::MAX - 1);
        let key = halves(7 ^ u64::from_le_bytes(*b"a stream"));
        for block in 0..3 {
            let [a, b, c, d] = philox([block, 0, u32::MAX - 1, u32::MAX], key);
            assert_eq!(halves(stream.bits()), [a, b]);
            assert_eq!(halves(stream.bits()), [c, d]);
        }
        // Written down, so that no change can change both sides.
        let mut stream = Stream::new(1, 2);
        let recorded = [0xA0EF_6375_A2AD_F1D0, 0x6B83_3184_09EA_72E2, 0xBD31_02F7_F8F0_4498];
        assert_eq!([stream.bits(), stream.bits(), stream.bits()], recorded);
    }

    #[test]
    fn streams_differ_by_seed_and_by_number() {
        let first = |seed, number| Stream::new(seed, number).bits();
        let values = [first(0, 0), first(1, 0), first(0, 1), first(1 << 32, 0), first(0, 1 << 32)];
        for (at, value) in values.iter().enumerate() {
            assert!(!values[..at].contains(value), "{at}");
        }
    }

    #[test]
    fn an_open_unit_never_reaches_its_ends() {
        assert_eq!(open_unit(0), f64::EPSILON / 2.0);
        assert_eq!(open_unit(u64::MAX), 1.0 - f64::EPSILON / 2.0);
        assert_eq!(open_unit(1 << 63), 0.5 + f64::EPSILON / 2.0);
        let mut stream = Stream::new(3, 0);
        let mean = (0..100_000).map(|_| stream.unit()).sum::<f64>() / 1e5;
        // The mean of so many has a standard deviation of 0.0009.
        assert!((mean - 0.5).abs() < 0.004, "{mean}");
    }

    #[test]
    fn every_number_below_a_bound_is_as_likely_as_any_other() {
        let mut stream = Stream::new(11, 5);
        for bound in [1, 2, 7, 10, 1000] {
            let bound = NonZeroU64::new(bound).unwrap();
            let mut counts = vec![0_u32; bound.get() as usize];
            let expected = 1000.0;
            for _ in 0..1000 * bound.get() {
                counts[stream.below(bound) as usize] += 1;
            }
            let square = |&count: &u32| {
                let difference = f64::from(count) - expected;
                difference * difference / expected
            };
            let (chi_square, freedom) = (counts.iter().map(square).sum::<f64>(), counts.len() as f64 - 1.0);
            // Five standard deviations of it.
            assert!((chi_square - freedom).abs() <= 5.0 * (2.0 * freedom).sqrt(), "{bound}: {chi_square}");
        }
        // Where most of the bits do not go through: three quarters of 2^64 leave a surplus of a quarter.
        let bound = NonZeroU64::new(3 << 62).unwrap();
        let below = (0..10_000).filter(|_| stream.below(bound) < 1 << 62).count();
        assert!((3_090..=3_577).contains(&below), "a third of 10,000, give or take five deviations: {below}");
    }
}
