//! Correctly rounded sums of products: the one value that every order of the additions agrees on.

use super::{canonical, product::LMul};

/// 640 bits from 2^-300 up: the largest product lies below 2^256, and the rest is room for carries.
const LIMBS: usize = 20;
/// A limb's value in units of the limb below.
const LIMB_BITS: usize = 32;
/// The bit that stands for 1.
const ONE: usize = 300;
/// Additions between two carry passes, which leave less than 2^32 in a limb. An addition brings it less
/// than 2^47, so even two accumulators this full merge within an i64: 2^15 * 2^47 + 2^33 < 2^63.
const PENDING_MAX: u32 = 1 << 14;

/// Holds any sum of products of f32 exactly: a fixed-point number in limbs of 32 bits, base 2^-300.
#[derive(Clone, Debug)]
pub struct Superaccumulator {
    limbs: [i64; LIMBS],
    /// Additions since the last carry pass.
    pending: u32,
    /// The IEEE sum of all terms that are not finite; 0 while there are none.
    special: f32,
}

impl Default for Superaccumulator {
    fn default() -> Self {
        Self::new()
    }
}

impl Superaccumulator {
    /// The empty sum.
    pub fn new() -> Self {
        Self { limbs: [0; LIMBS], pending: 0, special: 0.0 }
    }

    /// Adds `a * b`.
    #[inline]
    pub fn add_product(&mut self, a: f32, b: f32) {
        let (exponent_a, significand_a) = decompose(a);
        let (exponent_b, significand_b) = decompose(b);
        if exponent_a == 255 || exponent_b == 255 {
            self.special += a * b;
            return;
        }
        // Each factor is significand * 2^(exponent - 150), so the exponents add up to a bit position.
        let position = exponent_a + exponent_b;
        let (limb, shift) = (position / LIMB_BITS, position % LIMB_BITS);
        let product = significand_a * significand_b;
        // Two limbs take all 79 bits, since the upper one has room beyond its 32.
        let low = (product << shift) & 0xFFFF_FFFF;
        let high = product >> (LIMB_BITS - shift);
        // 0 or -1: exclusive or and subtraction negate without a branch on a sign nobody can predict.
        let sign = i64::from((a.to_bits() ^ b.to_bits()).cast_signed() >> 31);
        self.limbs[limb] += (low.cast_signed() ^ sign) - sign;
        self.limbs[limb + 1] += (high.cast_signed() ^ sign) - sign;
        self.count(1);
    }

    /// Adds `a`.
    #[inline]
    pub fn add(&mut self, a: f32) {
        self.add_product(a, 1.0);
    }

    /// Adds everything that `other` holds.
    pub fn merge(&mut self, other: &Self) {
        for (limb, more) in self.limbs.iter_mut().zip(other.limbs) {
            *limb += more;
        }
        self.special += other.special;
        // A limb that has been through a carry pass is worth one addition of its own.
        self.count(other.pending + 1);
    }

    /// The sum, rounded once, to nearest and ties to even. A sum of exactly zero is +0.
    pub fn round(&self) -> f32 {
        if self.special != 0.0 {
            return canonical(self.special);
        }
        let mut magnitude = self.clone();
        magnitude.carry();
        let negative = magnitude.limbs[LIMBS - 1] < 0;
        if negative {
            magnitude.limbs = magnitude.limbs.map(|limb| -limb);
            magnitude.carry();
        }
        let limbs = magnitude.limbs.map(i64::cast_unsigned);
        let Some(top) = limbs.iter().rposition(|&limb| limb != 0) else { return 0.0 };
        let first = top * LIMB_BITS + limbs[top].ilog2() as usize;
        let absolute = if first >= ONE + 128 { f32::INFINITY } else { round_at(&limbs, first) };
        if negative { -absolute } else { absolute }
    }

    #[inline]
    fn count(&mut self, additions: u32) {
        self.pending += additions;
        if self.pending >= PENDING_MAX {
            self.carry();
        }
    }

    /// Brings every limb but the last, which keeps the sign, into 0..2^32.
    #[cold]
    fn carry(&mut self) {
        let mut carry = 0;
        for limb in &mut self.limbs[..LIMBS - 1] {
            let sum = *limb + carry;
            carry = sum >> LIMB_BITS;
            *limb = sum & 0xFFFF_FFFF;
        }
        self.limbs[LIMBS - 1] += carry;
        self.pending = 0;
    }
}

/// The exponent field, at least 1, and the integer such that |a| = integer * 2^(field - 150).
#[inline]
fn decompose(a: f32) -> (usize, u64) {
    let bits = a.to_bits();
    let field = (bits >> 23) & 0xFF;
    let significand = (bits & 0x7F_FFFF) | (u32::from(field != 0) << 23);
    (field.max(1) as usize, u64::from(significand))
}

/// Rounds a positive number below 2^128 whose highest bit is `first`.
fn round_at(limbs: &[u64; LIMBS], first: usize) -> f32 {
    // The unit in the last place, which is never below the smallest subnormal number.
    const SUBNORMAL: usize = ONE - 149;
    let last = first.saturating_sub(23).max(SUBNORMAL);
    let window = limbs[last / LIMB_BITS] | (limbs[last / LIMB_BITS + 1] << LIMB_BITS);
    let kept = window >> (last % LIMB_BITS);
    let (limb, bit) = ((last - 1) / LIMB_BITS, (last - 1) % LIMB_BITS);
    let half = (limbs[limb] >> bit) & 1 == 1;
    let beyond = limbs[limb] & ((1 << bit) - 1) != 0 || limbs[..limb].iter().any(|&limb| limb != 0);
    let up = half && (beyond || kept & 1 == 1);
    // The leading bit of `kept` and a carry out of it raise the exponent field by themselves, and one
    // past the largest finite number is the encoding of infinity.
    f32::from_bits((((last - SUBNORMAL) as u32) << 23) + kept as u32 + u32::from(up))
}

/// The dot product, rounded once: the definition that [`certify`] is a fast way to.
pub fn dot(terms: impl IntoIterator<Item = (f32, f32)>) -> f32 {
    sum(None, 0.0, terms)
}

/// The sum of `start` and of the factors' products, rounded once: exact products, or those of L-Mul.
pub fn sum(lmul: Option<LMul>, start: f32, factors: impl IntoIterator<Item = (f32, f32)>) -> f32 {
    let mut sum = Superaccumulator::new();
    sum.add(start);
    for (a, b) in factors {
        match lmul {
            Some(product) => sum.add(product.multiply(a, b)),
            None => sum.add_product(a, b),
        }
    }
    sum.round()
}

/// An upper bound of the Euclidean norm; not finite if a value is not.
pub fn norm_bound(values: &[f32]) -> f64 {
    let square = |value: f32| f64::from(value) * f64::from(value);
    let (chunks, rest) = values.as_chunks::<8>();
    let mut lanes = [0.0; 8];
    for chunk in chunks {
        for (lane, &value) in lanes.iter_mut().zip(chunk) {
            *lane += square(value);
        }
    }
    let squares: f64 = lanes.into_iter().chain(rest.iter().map(|&value| square(value))).sum();
    // Squares are exact. The sum loses at most gamma of n + 15 additions of it (u = EPSILON / 2), which
    // the root halves, and it rounds once itself: 2u for each covers that and this line's roundings.
    squares.sqrt() * (1.0 + (values.len() as f64 + 16.0) * f64::EPSILON)
}

/// How far a f64 sum of `terms` products of f32, added in any order, fused or not, may lie from the
/// exact sum, given bounds of the norms of both factors. Where no term goes through more than some count
/// of additions, such as a lane's and those of the tree that joins them, that count may stand for `terms`.
#[inline]
pub fn error_bound(terms: usize, norm_a: f64, norm_b: f64) -> f64 {
    // Products of f32 are exact in f64 and never subnormal, so only additions round, at most d = terms
    // of them on the way of any term: |error| <= gamma_d * sum |a_i b_i| with gamma_d = du / (1 - du),
    // u = 2^-53, and sum |a_i b_i| <= |a| |b| (Cauchy-Schwarz). Five roundings here cost < 16u.
    let du = terms as f64 * (f64::EPSILON / 2.0);
    let gamma = if du < 0.5 { du / (1.0 - du) } else { f64::INFINITY };
    gamma * norm_a * norm_b * (1.0 + 8.0 * f64::EPSILON)
}

/// The largest power of two that divides every value; infinity if all are zero.
pub fn grid(values: &[f32]) -> f64 {
    let unit = |&value: &f32| {
        let (exponent, significand) = decompose(value);
        (significand != 0).then(|| exponent as u64 + u64::from(significand.trailing_zeros()))
    };
    let lowest = values.iter().filter_map(unit).min();
    lowest.map_or(f64::INFINITY, |unit| f64::from_bits((unit + 1023 - 150) << 52))
}

/// Whether a f64 sum of products makes no error in any order, so that its bound is 0. This matters where
/// factors are short, as in bf16: their sums often are ties in f32, which no other bound can certify.
#[inline]
pub fn is_exact(norm_a: f64, norm_b: f64, grid_a: f64, grid_b: f64) -> bool {
    // Every partial sum is a multiple of the grids' product, and below |a| |b| (Cauchy-Schwarz).
    norm_a * norm_b < grid_a * grid_b * (1_u64 << 53) as f64
}

/// The correctly rounded f32 of every number in `[sum - bound, sum + bound]`, if that is one value.
/// May decline where an end lies within a few f64 roundings of a tie, unless `bound` is 0.
#[inline(always)]
pub fn certify(sum: f64, bound: f64) -> Option<f32> {
    let (value, certified) = certify_lane(sum, bound);
    certified.then_some(value)
}

/// [`certify`] for loops over lanes: the value, and whether it is certified and means anything.
#[inline(always)]
pub fn certify_lane(sum: f64, bound: f64) -> (f32, bool) {
    // The ends round in f64 before they round in f32. One that lands on a tie may come from its other
    // side, so each end moves outward by 2u |sum|, more than its rounding, and by 8u of the bound.
    let outward = (bound + sum.abs() * f64::EPSILON) * (1.0 + 4.0 * f64::EPSILON);
    let reach = if bound == 0.0 { 0.0 } else { outward };
    // A zero sum is +0 whatever the signs of its terms.
    let sum = sum + 0.0;
    let (low, high) = ((sum - reach) as f32, (sum + reach) as f32);
    // Bits, because -0 and +0 differ.
    (low, (low.to_bits() == high.to_bits()) & (sum.abs() + bound).is_finite())
}
