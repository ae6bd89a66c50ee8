//! What goes row by row between products (norms, softmax, gates, rotary angles), on vectors and by several rows at once.
//!
//! A sum keeps its order whatever runs beside it. A row alone waits for each of its additions; the sums of several rows
//! do not wait for each other, so they go together, one running sum a row.

#![expect(clippy::needless_range_loop, reason = "the loops run over several arrays of registers at once")]

use std::{array, borrow::Cow, marker::PhantomData, ops::Range, sync::Arc};

use pulp::{Scalar, Simd, WithSimd};

use super::{
    Isa,
    tile::{DotBf16, Fused, Kahan, Neumaier, Running, Trees},
};
use crate::numerics::{
    activation::Activation,
    attention::{times_power, without_power},
    canonical,
    exact::{certify, dot, error_bound, norm_bound},
    format::{Format, Lanes, Rounding},
    functions::{Called, Functions},
    order::{Adder, Leaves, Rule, Schedule, tree_of_leaves},
    precision::Elementwise,
    rotary::Turn,
};

/// Rows whose sums go together: as many as hide the time that an addition takes.
pub(super) const TOGETHER: usize = 8;

/// Sums over rows of one length, by one schedule.
pub(super) struct RowSums {
    pub(super) isa: Isa,
    pub(super) rule: Rule,
    pub(super) schedule: Arc<Schedule>,
}

/// What is added.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Terms {
    /// The values.
    Values,
    /// Their squares.
    Squares,
}

impl RowSums {
    /// The sums of up to [`TOGETHER`] rows.
    pub(super) fn of(&self, terms: Terms, rows: &[&[f32]]) -> [f32; TOGETHER] {
        let mut sums = [0.0; TOGETHER];
        match (self.rule, rows) {
            (_, []) => {}
            (Rule::Exact, _) => {
                sums.iter_mut().zip(rows).for_each(|(sum, row)| *sum = self.exact(terms, row));
            }
            (_, [row]) => sums[..1].copy_from_slice(&self.together(terms, [row])),
            _ => sums = self.together(terms, array_of(rows)),
        }
        sums
    }

    fn together<const R: usize>(&self, terms: Terms, rows: [&[f32]; R]) -> [f32; R] {
        match terms {
            Terms::Values => self.along::<R, false>(rows),
            Terms::Squares => self.along::<R, true>(rows),
        }
    }

    fn along<const R: usize, const SQUARES: bool>(&self, rows: [&[f32]; R]) -> [f32; R] {
        let schedule = &*self.schedule;
        let rows = rows.map(|row| &row[..schedule.terms]);
        match self.rule {
            Rule::Kahan => {
                self.isa.dispatch(Chains::<Kahan, R, SQUARES> { schedule, rows, running: PhantomData })
            }
            Rule::Neumaier => {
                self.isa.dispatch(Chains::<Neumaier, R, SQUARES> { schedule, rows, running: PhantomData })
            }
            Rule::DotBf16 => {
                self.isa.dispatch(Chains::<DotBf16, R, SQUARES> { schedule, rows, running: PhantomData })
            }
            Rule::Plain => {
                self.isa.dispatch(Chains::<Trees, R, SQUARES> { schedule, rows, running: PhantomData })
            }
            Rule::Exact => unreachable!("exact sums are certified"),
            Rule::Mma(_) | Rule::Unit(_) => unreachable!("no row of values is added by a matrix unit"),
        }
    }

    /// The sum rounded once: from f64 where that is certain.
    fn exact(&self, terms: Terms, row: &[f32]) -> f32 {
        let sum = self.isa.dispatch(WideSum { terms, row });
        // All terms are a product of two values of the row, or of one and 1.
        let other = match terms {
            Terms::Values => (row.len() as f64).sqrt() * (1.0 + f64::EPSILON),
            Terms::Squares => norm_bound(row),
        };
        certify(sum, error_bound(row.len(), norm_bound(row), other))
            .unwrap_or_else(|| dot(row.iter().map(|&x| (x, if terms == Terms::Squares { x } else { 1.0 }))))
    }
}

/// So many rows; where rows are missing the last one stands in.
fn array_of<'r, const R: usize>(rows: &[&'r [f32]]) -> [&'r [f32]; R] {
    array::from_fn(|row| rows[row.min(rows.len() - 1)])
}

/// A row's sum is one lane: rows lie apart in memory, so there is no vector of them to load.
const ONE_LANE: Scalar = Scalar;

/// The sums of `R` rows.
struct Chains<'a, U, const R: usize, const SQUARES: bool> {
    schedule: &'a Schedule,
    rows: [&'a [f32]; R],
    running: PhantomData<U>,
}

impl<U: Running, const R: usize, const SQUARES: bool> WithSimd for Chains<'_, U, R, SQUARES> {
    type Output = [f32; R];

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) -> [f32; R] {
        self.schedule.reduce(&mut Chained { simd, chains: &self }, &mut Vec::new()).map(canonical)
    }
}

/// The same, given the vectors.
struct Chained<'a, S, U, const R: usize, const SQUARES: bool> {
    simd: S,
    chains: &'a Chains<'a, U, R, SQUARES>,
}

impl<S: Simd, U: Running, const R: usize, const SQUARES: bool> Adder for Chained<'_, S, U, R, SQUARES> {
    type Sum = [f32; R];

    // A function of its own, where the sums are sure to stay in registers.
    #[inline(always)]
    fn run(&mut self, positions: Range<usize>) -> [f32; R] {
        self.simd.vectorize(Run { chains: self.chains, positions })
    }

    #[inline(always)]
    fn tree(&mut self, positions: Range<usize>) -> [f32; R] {
        if U::TREES {
            let mut terms =
                TreeTerms::<U, R, SQUARES> { rows: self.chains.part(&positions), running: PhantomData };
            tree_of_leaves(&mut terms, positions.len())
        } else {
            unreachable!("only plain sums have trees")
        }
    }

    #[inline(always)]
    fn join(&mut self, left: [f32; R], right: [f32; R]) -> [f32; R] {
        joined(left, right)
    }
}

impl<U: Running, const R: usize, const SQUARES: bool> Chains<'_, U, R, SQUARES> {
    /// The same part of every row.
    #[inline(always)]
    fn part(&self, positions: &Range<usize>) -> [&[f32]; R] {
        let mut part: [&[f32]; R] = [&[]; R];
        for row in 0..R {
            part[row] = &self.rows[row][positions.clone()];
        }
        part
    }

    /// Adds one term to every sum: a loop, because a closure may not be inlined.
    #[inline(always)]
    fn step(sums: &mut [f32; R], lost: &mut [f32; R], rows: &[&[f32]; R], term: usize) {
        for row in 0..R {
            let x = rows[row][term];
            U::step(ONE_LANE, Fused, &mut sums[row], &mut lost[row], x, if SQUARES { x } else { 1.0 });
        }
    }
}

/// The running sums of `R` rows over some positions.
struct Run<'a, U, const R: usize, const SQUARES: bool> {
    chains: &'a Chains<'a, U, R, SQUARES>,
    positions: Range<usize>,
}

impl<U: Running, const R: usize, const SQUARES: bool> WithSimd for Run<'_, U, R, SQUARES> {
    type Output = [f32; R];

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> [f32; R] {
        let Run { chains, positions } = self;
        let (mut sums, mut lost) = ([0.0; R], [0.0; R]);
        match &chains.schedule.walk {
            None => {
                let rows = chains.part(&positions);
                for position in 0..positions.len() {
                    Chains::<U, R, SQUARES>::step(&mut sums, &mut lost, &rows, position);
                }
            }
            Some(walk) => {
                for &term in &walk[positions] {
                    Chains::<U, R, SQUARES>::step(&mut sums, &mut lost, &chains.rows, term as usize);
                }
            }
        }
        for row in 0..R {
            sums[row] = U::finish(ONE_LANE, Fused, sums[row], lost[row]);
        }
        sums
    }
}

/// The terms of a balanced tree over `R` rows, which stand as they came.
struct TreeTerms<'a, U, const R: usize, const SQUARES: bool> {
    rows: [&'a [f32]; R],
    running: PhantomData<U>,
}

impl<U: Running, const R: usize, const SQUARES: bool> Leaves for TreeTerms<'_, U, R, SQUARES> {
    type Sum = [f32; R];

    #[inline(always)]
    fn leaf(&mut self, offset: usize) -> [f32; R] {
        let mut sums = [0.0; R];
        Chains::<U, R, SQUARES>::step(&mut sums, &mut [0.0; R], &self.rows, offset);
        sums
    }

    #[inline(always)]
    fn join(&mut self, left: [f32; R], right: [f32; R]) -> [f32; R] {
        joined(left, right)
    }
}

#[inline(always)]
fn joined<const R: usize>(mut left: [f32; R], right: [f32; R]) -> [f32; R] {
    for row in 0..R {
        left[row] += right[row];
    }
    left
}

/// A sum in f64, where the terms are exact.
struct WideSum<'a> {
    terms: Terms,
    row: &'a [f32],
}

impl WithSimd for WideSum<'_> {
    type Output = f64;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f64 {
        let term = |x: f32| f64::from(x) * f64::from(if self.terms == Terms::Squares { x } else { 1.0 });
        let (chunks, rest) = self.row.as_chunks::<16>();
        let mut lanes = [0.0; 16];
        for chunk in chunks {
            for (lane, &x) in lanes.iter_mut().zip(chunk) {
                *lane += term(x);
            }
        }
        lanes.into_iter().chain(rest.iter().map(|&x| term(x))).sum()
    }
}

/// Something to do with values that round to a format.
pub(super) trait Rounded {
    /// Does it, given the rounding, and how two values are multiplied.
    fn with(self, round: impl Fn(f32) -> f32 + Copy, times: impl Fn(f32, f32) -> f32 + Copy);
}

/// Does something on the vectors of an instruction set, as values are multiplied and rounded there.
pub(super) fn rounded(isa: Isa, values: Elementwise, work: impl Rounded) {
    isa.dispatch(RoundedTo { values, work });
}

/// As two f32 are multiplied.
#[inline(always)]
fn times(x: f32, y: f32) -> f32 {
    x * y
}

struct RoundedTo<W> {
    values: Elementwise,
    work: W,
}

impl<W: Rounded> WithSimd for RoundedTo<W> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Elementwise { product, result: format } = self.values;
        // What is a constant in its loop takes fewer instructions.
        match format {
            Format::F32 => match product {
                None => self.work.with(canonical, times),
                Some(lmul) => self.work.with(
                    canonical,
                    #[inline(always)]
                    move |x, y| lmul.times(x, y),
                ),
            },
            _ if product.is_some() => unreachable!("what L-Mul multiplies stays f32"),
            Format::BF16 => self.work.with(
                #[inline(always)]
                |x| const { Lanes::of(Format::BF16) }.round(x),
                times,
            ),
            _ if format.rounding() == Rounding::NearestEven => {
                let lanes = Lanes::of(format);
                self.work.with(
                    #[inline(always)]
                    move |x| lanes.round(x),
                    times,
                );
            }
            _ => self.work.with(
                #[inline(always)]
                move |x| format.round(x),
                times,
            ),
        }
    }
}

/// Rows of a norm: the values, what scales each row, and what scales each column.
pub(super) struct Normed<'a> {
    pub(super) rows: &'a [f32],
    pub(super) scales: &'a [f32],
    pub(super) weight: &'a [f32],
    pub(super) out: &'a mut [f32],
}

impl Rounded for Normed<'_> {
    #[inline(always)]
    fn with(self, round: impl Fn(f32) -> f32 + Copy, times: impl Fn(f32, f32) -> f32 + Copy) {
        let width = self.weight.len();
        let rows = self.rows.chunks_exact(width).zip(self.out.chunks_exact_mut(width));
        for ((row, out), scale) in rows.zip(self.scales) {
            for ((out, x), weight) in out.iter_mut().zip(row).zip(self.weight) {
                *out = round(times(*weight, round(times(*x, *scale))));
            }
        }
    }
}

/// Values times a number.
pub(super) struct Scaled<'a> {
    pub(super) values: &'a mut [f32],
    pub(super) scale: f32,
}

impl Rounded for Scaled<'_> {
    #[inline(always)]
    fn with(self, round: impl Fn(f32) -> f32 + Copy, times: impl Fn(f32, f32) -> f32 + Copy) {
        self.values.iter_mut().for_each(|value| *value = round(times(self.scale, *value)));
    }
}

/// Values over a number.
pub(super) struct Divided<'a> {
    pub(super) values: &'a mut [f32],
    pub(super) by: f32,
}

impl Rounded for Divided<'_> {
    #[inline(always)]
    fn with(self, round: impl Fn(f32) -> f32 + Copy, _: impl Fn(f32, f32) -> f32 + Copy) {
        self.values.iter_mut().for_each(|value| *value = round(*value / self.by));
    }
}

/// The largest value; minus infinity where there is none.
pub(super) struct Largest<'a>(pub(super) &'a [f32]);

impl WithSimd for Largest<'_> {
    type Output = f32;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> f32 {
        let (chunks, rest) = self.0.as_chunks::<16>();
        let larger = |largest: f32, value: f32| if value > largest { value } else { largest };
        let mut lanes = [f32::NEG_INFINITY; 16];
        for chunk in chunks {
            for (lane, &value) in lanes.iter_mut().zip(chunk) {
                *lane = larger(*lane, value);
            }
        }
        lanes.into_iter().chain(rest.iter().copied()).fold(f32::NEG_INFINITY, larger)
    }
}

/// The exponentials of values less this.
pub(super) struct Exponentials<'a> {
    pub(super) functions: Functions,
    pub(super) less: f32,
    pub(super) values: &'a mut [f32],
}

impl WithSimd for Exponentials<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        self.functions.each(Called::Exp, self.less, self.values);
    }
}

/// Exponentials as numbers and powers: what is left of the values in their place, and the powers.
pub(super) struct WithoutPowers<'a> {
    pub(super) values: &'a mut [f32],
    pub(super) powers: &'a mut [f32],
}

impl WithSimd for WithoutPowers<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (value, power) in self.values.iter_mut().zip(self.powers) {
            (*value, *power) = without_power(*value);
        }
    }
}

/// Values times powers of two that are so much less than the largest.
pub(super) struct Powered<'a> {
    pub(super) values: &'a mut [f32],
    pub(super) powers: &'a [f32],
    pub(super) largest: f32,
    /// What multiplies them first.
    pub(super) by: Option<f32>,
}

impl Rounded for Powered<'_> {
    #[inline(always)]
    fn with(self, round: impl Fn(f32) -> f32 + Copy, times: impl Fn(f32, f32) -> f32 + Copy) {
        let Powered { values, powers, largest, by } = self;
        for (value, power) in values.iter_mut().zip(powers) {
            let number = by.map_or(*value, |by| times(*value, by));
            *value = round(times_power(number, power - largest));
        }
    }
}

/// What was weighed, multiplied by this, and what comes to it, multiplied by that.
pub(super) struct Joined<'a> {
    pub(super) values: &'a mut [f32],
    pub(super) fade: f32,
    pub(super) update: &'a [f32],
    /// Nothing where it comes as it is.
    pub(super) update_fade: Option<f32>,
}

impl Rounded for Joined<'_> {
    #[inline(always)]
    fn with(self, round: impl Fn(f32) -> f32 + Copy, times: impl Fn(f32, f32) -> f32 + Copy) {
        let Joined { values, fade, update, update_fade } = self;
        for (value, own) in values.iter_mut().zip(update) {
            let own = update_fade.map_or(*own, |fade| times(*own, fade));
            *value = round(times(*value, fade) + own);
        }
    }
}

/// Tokens that turn.
pub(super) struct Turned<'a> {
    pub(super) values: &'a mut [f32],
    pub(super) heads: usize,
    pub(super) turns: &'a [Cow<'a, Turn>],
}

impl Rounded for Turned<'_> {
    #[inline(always)]
    fn with(self, round: impl Fn(f32) -> f32 + Copy, times: impl Fn(f32, f32) -> f32 + Copy) {
        let token = self.values.len() / self.turns.len().max(1);
        for (token, turn) in self.values.chunks_exact_mut(token.max(1)).zip(self.turns) {
            for head in token.chunks_exact_mut(token.len() / self.heads) {
                let (first, second) = head.split_at_mut(head.len() / 2);
                for (((first, second), cos), sin) in
                    first.iter_mut().zip(second).zip(&turn.cos).zip(&turn.sin)
                {
                    let (x, y) = (*first, *second);
                    *first = round(times(x, *cos) - times(y, *sin));
                    *second = round(times(y, *cos) + times(x, *sin));
                }
            }
        }
    }
}

/// The activation of values.
pub(super) struct Activated<'a> {
    pub(super) activation: Activation,
    pub(super) functions: Functions,
    pub(super) values: &'a mut [f32],
}

impl WithSimd for Activated<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        self.activation.apply_slice(self.functions, self.values);
    }
}

/// Values, still to be rounded, times others.
pub(super) struct Gated<'a> {
    pub(super) values: &'a mut [f32],
    pub(super) by: &'a [f32],
}

impl Rounded for Gated<'_> {
    #[inline(always)]
    fn with(self, round: impl Fn(f32) -> f32 + Copy, times: impl Fn(f32, f32) -> f32 + Copy) {
        self.values.iter_mut().zip(self.by).for_each(|(value, by)| *value = round(times(round(*value), *by)));
    }
}

/// Values that are only rounded.
pub(super) struct Same<'a>(pub(super) &'a mut [f32]);

impl Rounded for Same<'_> {
    #[inline(always)]
    fn with(self, round: impl Fn(f32) -> f32 + Copy, _: impl Fn(f32, f32) -> f32 + Copy) {
        self.0.iter_mut().for_each(|value| *value = round(*value));
    }
}

/// Values and what is added to them.
pub(super) struct Updated<'a> {
    pub(super) values: &'a mut [f32],
    pub(super) update: &'a [f32],
}

impl Rounded for Updated<'_> {
    #[inline(always)]
    fn with(self, round: impl Fn(f32) -> f32 + Copy, _: impl Fn(f32, f32) -> f32 + Copy) {
        self.values.iter_mut().zip(self.update).for_each(|(value, update)| *value = round(*value + update));
    }
}
