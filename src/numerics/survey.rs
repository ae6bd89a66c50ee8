//! How far a function is from the exact one, over all 2^32 inputs.

use std::num::NonZeroUsize;

use rayon::ThreadPoolBuildError;

use super::{
    functions::{Called, Functions},
    kernel::Workers,
};

/// Inputs that are evaluated together.
const BLOCK: usize = 1 << 14;
/// Blocks after which somebody is told how far it is.
const TOGETHER: usize = 1 << 12;
/// How many parts a survey has.
pub const PARTS: usize = (1 << 32) / (BLOCK * TOGETHER);

/// What was found. An error is how many `f32` lie between a value and the exact one, itself counted; the zeros are one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Survey {
    /// How many inputs have an error of 0, 1, 2, 3 to 4, 5 to 8, and so on.
    pub errors: [u64; 34],
    /// The sum of all errors.
    pub sum: u64,
    /// The largest error, and the bits of the first input that has it, in the order of the numbers.
    pub largest: (u32, u32),
    /// How many inputs have a NaN, and the exact function has a number; and the other way round.
    pub nan: [u64; 2],
    /// How many inputs have the other zero.
    pub zeros: u64,
    /// How often the value goes down where the function rises, or up where it falls, from one number to the next; nothing where it
    /// does both again and again.
    pub turns: Option<u64>,
    /// The bits of the first of such two numbers.
    pub turn: Option<u32>,
}

impl Survey {
    /// Evaluates all inputs on so many threads; `told` is told of every part.
    ///
    /// # Errors
    ///
    /// When the threads cannot be started.
    pub fn new(
        functions: Functions,
        called: Called,
        threads: NonZeroUsize,
        mut told: impl FnMut(usize),
    ) -> Result<Survey, ThreadPoolBuildError> {
        let workers = Workers::new(threads)?;
        let mut all = Survey::nothing(called);
        for part in 0..PARTS {
            let mut found = vec![Survey::nothing(called); TOGETHER];
            let blocks = found.iter_mut().zip(part * TOGETHER..).collect();
            workers.share(blocks, |(found, block)| found.add_block(functions, called, block));
            found.iter().for_each(|found| all.add(found));
            told(part + 1);
        }
        Ok(all)
    }

    fn nothing(called: Called) -> Survey {
        let turns = called.rises_from().map(|_| 0);
        Survey { errors: [0; 34], sum: 0, largest: (0, 0), nan: [0; 2], zeros: 0, turns, turn: None }
    }

    fn add_block(&mut self, functions: Functions, called: Called, block: usize) {
        // One more, which the last is compared with.
        let inputs: Vec<f32> = (block * BLOCK..=(block + 1) * BLOCK).filter_map(number).collect();
        let [mut exact, mut own] = [inputs.clone(), inputs.clone()];
        Functions::Exact.slice(called, &mut exact);
        functions.slice(called, &mut own);
        for ((x, exact), own) in inputs.iter().zip(&exact).zip(&own).take(BLOCK) {
            self.add_value(*x, *exact, *own);
        }
        let Some((turns, from)) = self.turns.as_mut().zip(called.rises_from()) else { return };
        for (xs, ys) in inputs.windows(2).zip(own.windows(2)) {
            let (falls, rises) = (ys[1] < ys[0], ys[1] > ys[0]);
            let turned = if xs[0] >= from { falls } else { rises && xs[1] < from };
            if turned {
                *turns += 1;
                self.turn.get_or_insert(xs[0].to_bits());
            }
        }
    }

    fn add_value(&mut self, x: f32, exact: f32, own: f32) {
        if exact.is_nan() || own.is_nan() {
            if exact.is_nan() != own.is_nan() {
                self.nan[usize::from(exact.is_nan())] += 1;
            } else {
                self.errors[0] += 1;
            }
            return;
        }
        let error = place(exact).abs_diff(place(own));
        let bucket = if error < 2 { error } else { 1 + (error - 1).ilog2() + 1 };
        self.errors[bucket as usize] += 1;
        self.sum += u64::from(error);
        self.zeros += u64::from(error == 0 && exact.to_bits() != own.to_bits());
        if error > self.largest.0 {
            self.largest = (error, x.to_bits());
        }
    }

    /// Adds what was found of the inputs after these.
    fn add(&mut self, other: &Survey) {
        for (all, one) in self.errors.iter_mut().zip(other.errors) {
            *all += one;
        }
        for (all, one) in self.nan.iter_mut().zip(other.nan) {
            *all += one;
        }
        self.sum += other.sum;
        self.zeros += other.zeros;
        if other.largest.0 > self.largest.0 {
            self.largest = other.largest;
        }
        self.turns = self.turns.zip(other.turns).map(|(all, one)| all + one);
        self.turn = self.turn.or(other.turn);
    }

    /// The least and the largest error that are counted together.
    pub fn between(bucket: usize) -> (u64, u64) {
        match bucket {
            0 | 1 => (bucket as u64, bucket as u64),
            _ => ((1 << (bucket - 2)) + 1, 1 << (bucket - 1)),
        }
    }

    /// How many inputs were compared as numbers.
    pub fn compared(&self) -> u64 {
        self.errors.iter().copied().fold(0, u64::saturating_add)
    }
}

/// The bits in the order of the numbers: the negative NaNs, minus infinity, and so on.
fn number(index: usize) -> Option<f32> {
    let index = u32::try_from(index).ok()?;
    Some(f32::from_bits(if index >> 31 == 0 { !index } else { index & 0x7FFF_FFFF }))
}

/// The place of a number among the numbers: both zeros have one.
fn place(x: f32) -> i32 {
    let magnitude = (x.to_bits() & 0x7FFF_FFFF).cast_signed();
    if x.is_sign_negative() { -magnitude } else { magnitude }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_come_in_their_order_and_errors_in_their_buckets() {
        let places = [0, 1 << 23, (1 << 31) - 1, 1 << 31, (1 << 32) - 1].map(|at| number(at).unwrap());
        assert_eq!(places.map(f32::to_bits), [u32::MAX, 0xFF7F_FFFF, 0x8000_0000, 0, 0x7FFF_FFFF]);
        assert_eq!(number(1 << 32), None);
        let mut survey = Survey::nothing(Called::Exp);
        for (own, bucket) in [(0, 0), (1, 1), (2, 2), (3, 3), (4, 3), (5, 4), (8, 4), (9, 5)] {
            let before = survey.errors[bucket];
            survey.add_value(1.0, 1.0, f32::from_bits(1.0_f32.to_bits() + own));
            assert_eq!(survey.errors[bucket], before + 1, "{own}");
            let (least, most) = Survey::between(bucket);
            assert!((least..=most).contains(&u64::from(own)), "{own}");
        }
        survey.add_value(1.0, 0.0, -0.0);
        survey.add_value(1.0, 0.0, f32::NAN);
        assert_eq!((survey.largest.0, survey.zeros, survey.nan, survey.compared()), (9, 1, [1, 0], 9));
        // The farthest that two numbers can be from each other.
        survey.add_value(1.0, f32::NEG_INFINITY, f32::INFINITY);
        assert_eq!(survey.errors[33], 1);
    }
}
