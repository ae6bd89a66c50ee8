//! Sums that must be correctly rounded, against exact rationals and a rounding by search.
#![expect(clippy::print_stdout, reason = "reports the rates it measures")]

use std::cmp::Ordering;

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{Signed, Zero};
use proptest::prelude::*;
use reprocheck::numerics::exact::{
    Superaccumulator, certify, certify_lane, dot, error_bound, grid, is_exact, norm_bound,
};

type Terms = Vec<(f32, f32)>;

const TINY: f32 = f32::from_bits(1);
const NAN_BITS: u32 = 0x7FC0_0000;

/// SplitMix64, by its published constants.
struct Random(u64);

impl Random {
    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: usize) -> usize {
        (self.bits() % n as u64) as usize
    }

    /// Uniform in (-1, 1).
    fn uniform(&mut self) -> f64 {
        (self.bits().cast_signed() >> 11) as f64 / (1_u64 << 52) as f64
    }

    /// Near enough to a normal distribution: twelve uniforms of variance 1/3, scaled to 1.
    fn gaussian(&mut self) -> f32 {
        ((0..12).map(|_| self.uniform()).sum::<f64>() / 2.0) as f32
    }

    /// A finite number with its exponent field in the given range.
    fn finite(&mut self, exponents: std::ops::Range<usize>) -> f32 {
        let exponent = (exponents.start + self.below(exponents.len())) as u32;
        let bits = self.bits() as u32;
        f32::from_bits((bits & 0x807F_FFFF) | (exponent << 23))
    }

    fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }
}

fn rational(a: f64) -> BigRational {
    BigRational::from_float(a).expect("finite")
}

fn exact_sum(terms: &[(f32, f32)]) -> BigRational {
    let product = |&(a, b): &(f32, f32)| rational(a.into()) * rational(b.into());
    terms.iter().map(product).fold(BigRational::zero(), |sum, term| sum + term)
}

/// The magnitude an encoding stands for, if the exponent range went one step further.
fn magnitude(bits: u32) -> BigRational {
    match f32::from_bits(bits) {
        a if a.is_finite() => rational(a.into()),
        _ => BigRational::from(BigInt::from(1) << 128),
    }
}

/// Round to nearest, ties to even: searches the encodings, which are ordered as the numbers are.
fn rounded(exact: &BigRational) -> f32 {
    let target = exact.abs();
    let (mut low, mut high) = (0, 0x7F80_0000);
    if target >= magnitude(high) {
        low = high;
    }
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if magnitude(middle) <= target { low = middle } else { high = middle }
    }
    let bits = match (magnitude(low) + magnitude(high)).cmp(&(target * BigInt::from(2))) {
        _ if low == high => high,
        Ordering::Less => high,
        Ordering::Greater => low,
        Ordering::Equal => low + (low & 1),
    };
    if exact.is_negative() { -f32::from_bits(bits) } else { f32::from_bits(bits) }
}

fn assert_exact(terms: &[(f32, f32)]) {
    let (got, want) = (dot(terms.iter().copied()), rounded(&exact_sum(terms)));
    assert_eq!(got.to_bits(), want.to_bits(), "{got:e} is not {want:e} for {terms:?}");
}

fn sum_of(values: &[f32]) -> f32 {
    let mut sum = Superaccumulator::default();
    values.iter().for_each(|&a| sum.add(a));
    sum.round()
}

/// All terms and their negatives but for a few small ones, so that only those are left.
fn cancelling(random: &mut Random, n: usize) -> Terms {
    let mut terms: Terms = (0..n).map(|_| (random.finite(120..150), random.finite(120..150))).collect();
    terms.extend(terms.clone().iter().map(|&(a, b)| (b, -a)));
    terms.extend((0..3).map(|_| (random.finite(90..130), random.finite(90..130))));
    random.shuffle(&mut terms);
    terms
}

#[test]
fn rounds_as_exact_rationals_do() {
    let mut random = Random(1);
    for exponents in [0..255, 0..2, 0..70, 50..80, 60..66, 120..135, 185..195, 188..192, 250..255] {
        for _ in 0..150 {
            let n = random.below(24);
            let mut finite = || random.finite(exponents.clone());
            assert_exact(&(0..n).map(|_| (finite(), finite())).collect::<Terms>());
        }
    }
    for n in (1..40).chain([300]) {
        assert_exact(&cancelling(&mut random, n));
    }
}

#[test]
fn rounds_near_every_kind_of_tie() {
    let mut random = Random(2);
    for _ in 0..1500 {
        let a = random.finite(0..255);
        let exponent = ((a.to_bits() >> 23) & 0xFF).max(1) as i32;
        // Half a unit in the last place of `a`, as a product, and then perhaps a push off the tie.
        let half = (2_f32.powi((exponent - 151) / 2), 2_f32.powi((exponent - 151) - (exponent - 151) / 2));
        let push = [(0.0, 0.0), (TINY, TINY), (-TINY, TINY)][random.below(3)];
        let mut terms = vec![(a, 1.0), half, push];
        random.shuffle(&mut terms);
        assert_exact(&terms);
    }
}

proptest! {
    #[test]
    fn any_finite_terms_round_as_exact_rationals_do(
        terms in prop::collection::vec(
            (any::<f32>(), any::<f32>()).prop_filter("finite", |(a, b)| a.is_finite() && b.is_finite()),
            0..12,
        ),
    ) {
        assert_exact(&terms);
    }

    #[test]
    fn any_bits_in_any_order_give_one_result(
        terms in prop::collection::vec((any::<u32>(), any::<u32>()), 0..20),
        seed: u64,
    ) {
        let mut terms: Terms =
            terms.into_iter().map(|(a, b)| (f32::from_bits(a), f32::from_bits(b))).collect();
        let before = dot(terms.iter().copied());
        Random(seed).shuffle(&mut terms);
        prop_assert_eq!(before.to_bits(), dot(terms).to_bits());
    }

    #[test]
    fn a_certified_interval_rounds_to_one_value_at_both_ends(
        bits: u32,
        step in -3_i64..=3,
        narrow in 20..60,
    ) {
        // Around the midpoint of two neighbors, where the rounding of the ends matters.
        let a = f32::from_bits(bits & 0x7FFF_FFFF).min(f32::MAX.next_down());
        let middle = f64::midpoint(a.into(), a.next_up().into());
        let sum = f64::from_bits(middle.to_bits().wrapping_add_signed(step));
        let bound = sum * 0.5_f64.powi(narrow);
        if let Some(value) = certify(sum, bound) {
            let (sum, bound) = (rational(sum), rational(bound));
            prop_assert_eq!(rounded(&(&sum - &bound)).to_bits(), value.to_bits());
            prop_assert_eq!(rounded(&(sum + bound)).to_bits(), value.to_bits());
        }
    }
}

#[test]
fn no_permutation_changes_the_result() {
    let mut random = Random(3);
    let mut terms = cancelling(&mut random, 2000);
    let before = dot(terms.iter().copied());
    for _ in 0..20 {
        random.shuffle(&mut terms);
        assert_eq!(before.to_bits(), dot(terms.iter().copied()).to_bits());
    }
}

#[test]
fn merged_parts_equal_the_whole() {
    let mut random = Random(4);
    for parts in [1, 2, 3, 7, 100] {
        let terms: Vec<_> = (0..5000).map(|_| (random.finite(0..255), random.finite(0..255))).collect();
        let mut sums = vec![Superaccumulator::new(); parts];
        for &(a, b) in &terms {
            sums[random.below(parts)].add_product(a, b);
        }
        let mut joined = sums.pop().unwrap();
        sums.iter().for_each(|sum| joined.merge(sum));
        assert_eq!(joined.round().to_bits(), dot(terms).to_bits());
    }
}

#[test]
fn many_additions_of_the_largest_digits_do_not_overflow() {
    // 2^-149 survives 2^19 products of all ones on each side of zero, at every offset in a limb.
    for shift in 0..32 {
        let largest = f32::from_bits(((100 + shift) << 23) | 0x7F_FFFF);
        let mut sum = Superaccumulator::new();
        sum.add(TINY);
        (0..1 << 19).for_each(|_| sum.add_product(largest, largest));
        assert_eq!(sum.round(), dot([(largest, largest)]) * 2_f32.powi(19));
        (0..1 << 19).for_each(|_| sum.add_product(-largest, largest));
        assert_eq!(sum.round().to_bits(), TINY.to_bits());
    }
}

#[test]
fn merging_counts_additions_to_two_to_the_sixty() {
    // After k doublings 2^k copies; nearly full limbs on both sides of each merge.
    for start in [1, 3, 16_383, 16_384, 16_385] {
        for a in [f32::MAX, -f32::MAX] {
            let mut sum = Superaccumulator::new();
            (0..start).for_each(|_| sum.add_product(a, f32::MAX));
            let (mut negative, mut part) = (Superaccumulator::new(), Superaccumulator::new());
            (0..start).for_each(|_| part.add_product(-a, f32::MAX));
            negative.merge(&part);
            for _ in 0..60 {
                sum.merge(&sum.clone());
                negative.merge(&negative.clone());
            }
            assert_eq!(sum.round(), a * f32::INFINITY);
            sum.merge(&negative);
            assert_eq!(sum.round().to_bits(), 0);
            sum.add_product(-TINY, 3.0);
            assert_eq!(sum.round(), -3.0 * TINY);
        }
    }
}

#[test]
fn infinities_and_nans_follow_ieee() {
    let inf = f32::INFINITY;
    let nan = |terms: &[(f32, f32)]| dot(terms.iter().copied()).to_bits() == NAN_BITS;
    assert!(
        nan(&[(f32::NAN, 1.0)]) && nan(&[(0.0, -f32::NAN)]) && nan(&[(f32::from_bits(0xFFA0_0001), inf)])
    );
    assert!(nan(&[(inf, 0.0)]) && nan(&[(-0.0, -inf)]));
    assert!(nan(&[(inf, 1.0), (2.0, 3.0), (1.0, -inf)]) && nan(&[(inf, 1.0), (f32::NAN, 1.0)]));
    assert_eq!(dot([(-1.0, 1.0), (inf, TINY), (-f32::MAX, f32::MAX), (-inf, -inf)]), inf);
    assert_eq!(dot([(f32::MAX, f32::MAX), (-inf, 1.0)]), -inf);
    let (mut up, mut down) = (Superaccumulator::new(), Superaccumulator::new());
    up.add(inf);
    down.add(-inf);
    up.merge(&down);
    assert_eq!(up.round().to_bits(), NAN_BITS);
}

#[test]
fn an_exact_zero_is_positive_and_an_underflow_keeps_its_sign() {
    let zero: [&[(f32, f32)]; 4] =
        [&[], &[(-0.0, 1.0)], &[(-0.0, 0.0), (-0.0, 5.0)], &[(3.0, 5.0), (-5.0, 3.0)]];
    for terms in zero {
        assert_eq!(dot(terms.iter().copied()).to_bits(), 0);
    }
    assert_eq!(dot([(TINY, -TINY)]).to_bits(), 0x8000_0000);
    assert_eq!(dot([(TINY, TINY)]).to_bits(), 0);
    assert_eq!(dot([(TINY, -0.5)]).to_bits(), 0x8000_0000);
    assert_eq!(dot([(TINY, -0.5), (-TINY, TINY)]), -TINY);
}

#[test]
fn ties_go_to_even() {
    let unit = 2_f32.powi(-23);
    assert_eq!(sum_of(&[1.0, unit / 2.0]), 1.0);
    assert_eq!(sum_of(&[1.0 + unit, unit / 2.0]), 1.0 + 2.0 * unit);
    assert_eq!(sum_of(&[-1.0, -unit, -unit / 2.0]), -1.0 - 2.0 * unit);
    assert_eq!(sum_of(&[1.0, unit / 2.0, TINY]), 1.0 + unit);
    assert_eq!(sum_of(&[1.0 + unit, unit / 2.0, -TINY]), 1.0 + unit);
    assert_eq!(dot([(3.0 * TINY, 0.5)]), 2.0 * TINY);
    assert_eq!(dot([(5.0 * TINY, 0.5)]), 2.0 * TINY);
}

#[test]
fn overflow_starts_at_half_a_unit_beyond_the_largest_number() {
    let half = 2_f32.powi(103);
    assert_eq!(sum_of(&[f32::MAX, half]), f32::INFINITY);
    assert_eq!(sum_of(&[f32::MAX, half, -TINY]), f32::MAX);
    assert_eq!(sum_of(&[-f32::MAX, -half]), f32::NEG_INFINITY);
    assert_eq!(sum_of(&[f32::MAX, f32::MAX, -f32::MAX]), f32::MAX);
}

#[test]
fn certify_declines_what_it_cannot_know() {
    for odd in [f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        for other in [0.0, 1.0, f64::MAX, f64::INFINITY, f64::NAN] {
            assert_eq!(certify(odd, other), None);
            assert_eq!(certify(other, odd.abs()), None);
            assert_eq!(certify(-other, odd.abs()), None);
        }
    }
    for sum in [0.0, -0.0] {
        assert_eq!(certify(sum, 0.0).map(f32::to_bits), Some(0));
        // The exact sum may be either zero's.
        assert_eq!(certify(sum, 1e-100), None);
    }
    assert_eq!(certify(1e-100, 1e-101).map(f32::to_bits), Some(0));
    assert_eq!(certify(-1e-100, 1e-101).map(f32::to_bits), Some(0x8000_0000));
    assert_eq!(certify(-1e-100, 1e-100), None);
    assert_eq!(certify(1.0, 1e-9), Some(1.0));
    assert_eq!(certify(1.0, 1e-7), None);
    assert_eq!(certify(1e60, 1e50), Some(f32::INFINITY));
    let tie = 1.0 + 0.5_f64.powi(24);
    assert_eq!(certify(tie, 0.0), Some(1.0));
    assert_eq!(certify(tie, 1e-30), None);
    // The interval's lower end rounds to the tie, and from there to 1 + 2^-23, in f64.
    assert_eq!(certify(tie.next_up(), f64::EPSILON * 1.1), None);
}

#[test]
fn the_norm_bound_is_above_the_norm_and_close() {
    let mut random = Random(5);
    for n in (0..40).chain([500, 2000]) {
        for exponents in [0..1, 0..255, 120..130, 254..255] {
            let values: Vec<f32> = (0..n).map(|_| random.finite(exponents.clone())).collect();
            let exact = exact_sum(&values.iter().map(|&a| (a, a)).collect::<Terms>());
            let bound = rational(norm_bound(&values));
            let square = &bound * &bound;
            assert!(square >= exact);
            assert!(square <= exact * rational(1.0 + 1e-11));
        }
    }
    assert!(norm_bound(&[1.0, f32::INFINITY]).is_infinite() && norm_bound(&[f32::NAN, 1.0]).is_nan());
}

#[test]
fn the_error_bound_covers_gamma_times_the_norms() {
    for (terms, a, b) in [(1, 1.0, 1.0), (4096, 0.1, 3.7), (1 << 40, 1e-44, 1e-44), (12_345, 1e40, 7e39)] {
        let du = rational(terms as f64) * rational(0.5_f64.powi(53));
        let gamma = &du / (rational(1.0) - &du);
        assert!(rational(error_bound(terms, a, b)) >= gamma * rational(a) * rational(b));
    }
    assert_eq!(error_bound(0, 1.0, 1.0), 0.0);
    assert_eq!(error_bound(5, 0.0, 1.0), 0.0);
    assert!(error_bound(1 << 53, 1.0, 1.0).is_infinite());
}

/// A f64 sum over `lanes` partial sums.
fn sum_f64(terms: &[(f32, f32)], lanes: usize) -> f64 {
    let mut sums = vec![0.0; lanes];
    for (i, &(a, b)) in terms.iter().enumerate() {
        sums[i % lanes] += f64::from(a) * f64::from(b);
    }
    sums.into_iter().sum()
}

fn bound_of(terms: &[(f32, f32)]) -> f64 {
    let (a, b): (Vec<f32>, Vec<f32>) = terms.iter().copied().unzip();
    error_bound(terms.len(), norm_bound(&a), norm_bound(&b))
}

fn has_exact_sums(terms: &[(f32, f32)]) -> bool {
    let (a, b): (Vec<f32>, Vec<f32>) = terms.iter().copied().unzip();
    is_exact(norm_bound(&a), norm_bound(&b), grid(&a), grid(&b))
}

fn bf16(a: f32) -> f32 {
    half::bf16::from_f32(a).to_f32()
}

/// The shares of dots that were not certified by the bound alone, and by the bound with the test for
/// exactness; a certified one that is wrong panics.
fn fallback_rates(dots: usize, mut draw: impl FnMut() -> Terms) -> [f64; 2] {
    let mut fallbacks = [0; 2];
    for i in 0..dots {
        let terms = draw();
        let exact = dot(terms.iter().copied());
        let sum = sum_f64(&terms, [1, 8, 32][i % 3]);
        let bound = bound_of(&terms);
        let sharp = if has_exact_sums(&terms) { 0.0 } else { bound };
        for (count, bound) in fallbacks.iter_mut().zip([bound, sharp]) {
            match certify(sum, bound) {
                Some(value) => assert_eq!(value.to_bits(), exact.to_bits()),
                None => *count += 1,
            }
        }
    }
    fallbacks.map(|count| f64::from(count) / dots as f64)
}

#[test]
fn a_certified_value_is_the_exact_one_and_fallback_is_rare() {
    let mut random = Random(6);
    let mut measure = |name: &str, draw: fn(&mut Random) -> f32, store: fn(f32) -> f32| {
        let mut rates = |dots, lengths: std::ops::Range<usize>| {
            fallback_rates(dots, || {
                let n = lengths.start + random.below(lengths.len());
                (0..n).map(|_| (store(draw(&mut random)), store(draw(&mut random)))).collect()
            })
        };
        let [any, sharp_any] = rates(1500, 1..4097);
        let [bound, sharp] = rates(10_000, 512..513);
        println!("{name}: fallback {any:.1e} ({sharp_any:.1e} sharp) for n in 1..=4096");
        println!("{name}: fallback {bound:.1e} ({sharp:.1e} sharp) for n = 512");
        assert!(sharp < 0.01);
        bound
    };
    assert!(measure("gaussian", Random::gaussian, |a| a) < 0.01);
    measure("gaussian bf16", Random::gaussian, bf16);
    measure("heavy tail", |random| random.gaussian().powi(5), |a| a);
    measure("heavy tail bf16", |random| random.gaussian().powi(5), bf16);
}

#[test]
fn sums_on_a_coarse_grid_are_exact_in_f64() {
    let mut random = Random(9);
    let mut seen = [0; 2];
    for _ in 0..500 {
        let (n, width) = (1 + random.below(30), 1 + random.below(16));
        let mut draw = || bf16(random.finite(127 - width..127 + width));
        let terms: Terms = (0..n).map(|_| (draw(), draw())).collect();
        let exact = has_exact_sums(&terms);
        seen[usize::from(exact)] += 1;
        assert!(!exact || rational(sum_f64(&terms, 1)) == exact_sum(&terms));
    }
    assert!(seen[0] > 50 && seen[1] > 50);
    // The first needs 53 bits, the second 54.
    let odd = |k: i32| [(1.0, 2_f32.powi(k)), (1.0, 1.0)];
    assert!(has_exact_sums(&odd(51)) && !has_exact_sums(&odd(53)));
}

#[test]
fn the_grid_is_the_largest_power_of_two_that_divides_all() {
    assert_eq!(grid(&[]), f64::INFINITY);
    assert_eq!(grid(&[0.0, -0.0]), f64::INFINITY);
    assert_eq!(grid(&[12.0, 0.0, -8.0]), 4.0);
    assert_eq!(grid(&[f32::MAX, 1.0]), 1.0);
    assert_eq!(grid(&[f32::MAX]), 2_f64.powi(104));
    assert_eq!(grid(&[1.5, TINY]), 2_f64.powi(-149));
}

#[test]
fn cancellation_is_certified_wrongly_only_under_too_small_a_bound() {
    let mut random = Random(7);
    let (mut wrong, mut certified) = (0, 0);
    for _ in 0..2000 {
        let n = 1 + random.below(20);
        let terms = cancelling(&mut random, n);
        let exact = dot(terms.iter().copied());
        let (sum, bound) = (sum_f64(&terms, 1), bound_of(&terms));
        if let Some(value) = certify(sum, bound) {
            certified += 1;
            assert_eq!(value.to_bits(), exact.to_bits());
        }
        // The tempting mistake: an error relative to the sum instead of the norms.
        let sabotaged = error_bound(terms.len(), sum.abs(), 1.0);
        wrong += usize::from(certify(sum, sabotaged).is_some_and(|value| value.to_bits() != exact.to_bits()));
    }
    println!("cancellation: {certified} of 2000 certified; {wrong} wrong under the sabotaged bound");
    assert!(wrong > 100 && certified > 0);
}

#[test]
fn lanes_agree_with_the_option() {
    let mut random = Random(8);
    for _ in 0..100_000 {
        let (sum, bound) = (f64::from_bits(random.bits()), f64::from_bits(random.bits() >> 1));
        let (value, certified) = certify_lane(sum, bound);
        assert_eq!(certify(sum, bound).map(f32::to_bits), certified.then_some(value.to_bits()));
    }
}
