//! The sets of functions that are code here: each says what a model's functions are, one value at a time.
//!
//! A set uses only what IEEE 754 fixes (`+ - * /`, square root, fused multiply-add, conversions) and integer operations, in a written
//! order, so that a vector of any width holds the bits that one value gives.

use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_PI, LOG2_E};

use super::poly::{COS, EXP, SIN, TAIL, horner};
use crate::numerics::{NAN, elementary};

/// What a model's functions are.
pub(super) trait Set {
    /// Is every NaN that it gives [`NAN`] already?
    const CANONICAL: bool = false;

    fn exp(x: f32) -> f32;
    fn rsqrt(x: f32) -> f32;
    fn silu(x: f32) -> f32;
    fn gelu_erf(x: f32) -> f32;
    fn gelu_tanh(x: f32) -> f32;
    fn sin(x: f32) -> f32;
    fn cos(x: f32) -> f32;
}

/// Those of [`elementary`].
pub(super) struct Exact;

impl Set for Exact {
    const CANONICAL: bool = true;

    #[inline(always)]
    fn exp(x: f32) -> f32 {
        elementary::exp(x)
    }

    #[inline(always)]
    fn rsqrt(x: f32) -> f32 {
        elementary::rsqrt(x)
    }

    #[inline(always)]
    fn silu(x: f32) -> f32 {
        elementary::silu(x)
    }

    #[inline(always)]
    fn gelu_erf(x: f32) -> f32 {
        elementary::gelu_erf(x)
    }

    #[inline(always)]
    fn gelu_tanh(x: f32) -> f32 {
        elementary::gelu_tanh(x)
    }

    #[inline(always)]
    fn sin(x: f32) -> f32 {
        elementary::sin(x)
    }

    #[inline(always)]
    fn cos(x: f32) -> f32 {
        elementary::cos(x)
    }
}

/// The `f32` functions of the crate `libm`, and formulas over them as PyTorch has them, every operation rounded to `f32`.
///
/// Those of `std` come from the platform, so that one name would be other bits elsewhere.
pub(super) struct Libm;

/// sqrt(2/pi)
const SQRT_2_OVER_PI: f32 = f32::from_bits(0x3F4C_422A);

impl Set for Libm {
    #[inline(always)]
    fn exp(x: f32) -> f32 {
        libm::expf(x)
    }

    #[inline(always)]
    fn rsqrt(x: f32) -> f32 {
        1.0 / libm::sqrtf(x)
    }

    #[inline(always)]
    fn silu(x: f32) -> f32 {
        silu(x, libm::expf)
    }

    #[inline(always)]
    fn gelu_erf(x: f32) -> f32 {
        0.5 * x * (1.0 + libm::erff(x * FRAC_1_SQRT_2))
    }

    #[inline(always)]
    fn gelu_tanh(x: f32) -> f32 {
        0.5 * x * (1.0 + libm::tanhf(SQRT_2_OVER_PI * (x + 0.044715 * (x * x * x))))
    }

    #[inline(always)]
    fn sin(x: f32) -> f32 {
        libm::sinf(x)
    }

    #[inline(always)]
    fn cos(x: f32) -> f32 {
        libm::cosf(x)
    }
}

/// Minimax polynomials of degree `D` behind reductions of Cody and Waite.
pub(super) struct Poly<const D: usize>;

impl<const D: usize> Set for Poly<D> {
    #[inline(always)]
    fn exp(x: f32) -> f32 {
        /// 1.5 * 2^23: adding and subtracting it rounds to the nearest integer, which the low bits of the sum are.
        const ROUND: f32 = 12_582_912.0;
        // ln(2) in two pieces.
        const LN_2: [f32; 2] = [f32::from_bits(0x3F31_7218), f32::from_bits(0xB102_E308)];
        // Comparisons that are false for NaN, so that it stays.
        let x = if x > 89.0 { 89.0 } else { x };
        let x = if x < -104.0 { -104.0 } else { x };
        let rounded = x.mul_add(LOG2_E, ROUND);
        let k = rounded - ROUND;
        let r = k.mul_add(-LN_2[1], k.mul_add(-LN_2[0], x));
        let y = r.mul_add(horner(r, const { EXP[D - 3] }), 1.0);
        // In two steps, neither of which leaves the normal powers, so that the last one alone rounds.
        let k = rounded.to_bits().wrapping_sub(ROUND.to_bits()).cast_signed();
        let power = |k: i32| f32::from_bits((k.wrapping_add(127) << 23).cast_unsigned());
        y * power(k >> 1) * power(k.wrapping_sub(k >> 1))
    }

    #[inline(always)]
    fn rsqrt(x: f32) -> f32 {
        elementary::rsqrt(x)
    }

    #[inline(always)]
    fn silu(x: f32) -> f32 {
        silu(x, Self::exp)
    }

    #[inline(always)]
    fn gelu_erf(x: f32) -> f32 {
        gelu_erf(x, Self::exp, const { TAIL[D - 3] })
    }

    #[inline(always)]
    fn gelu_tanh(x: f32) -> f32 {
        gelu_tanh(x, Self::exp)
    }

    #[inline(always)]
    fn sin(x: f32) -> f32 {
        if x.abs() > elementary::NEAR {
            return elementary::sin(x);
        }
        let (r, quarter) = reduced(x.abs());
        // The sign comes last, so that it survives at -0.
        f32::from_bits(sin_quarter::<D>(r, quarter).to_bits() ^ (x.to_bits() & (1 << 31)))
    }

    #[inline(always)]
    fn cos(x: f32) -> f32 {
        if x.abs() > elementary::NEAR {
            return elementary::cos(x);
        }
        let (r, quarter) = reduced(x.abs());
        sin_quarter::<D>(r, quarter.wrapping_add(1))
    }
}

/// The distance of `x` in [0, [`elementary::NEAR`]] from the nearest multiple of pi/2, and which multiple (modulo 4).
#[inline(always)]
fn reduced(x: f32) -> (f32, u32) {
    const ROUND: f32 = 12_582_912.0;
    const HALF_PI: [f32; 3] =
        [f32::from_bits(0x3FC9_0FDB), f32::from_bits(0xB33B_BD2E), f32::from_bits(0xA6F7_2CED)];
    let rounded = x.mul_add(FRAC_2_PI, ROUND);
    let k = rounded - ROUND;
    let r = HALF_PI.iter().fold(x, |r, piece| k.mul_add(-piece, r));
    (r, rounded.to_bits())
}

/// sin(r + quarter * pi/2) for |r| <= pi/4.
#[inline(always)]
fn sin_quarter<const D: usize>(r: f32, quarter: u32) -> f32 {
    let z = r * r;
    let sin = (r * z).mul_add(horner(z, const { SIN[(D - 3) / 2] }), r);
    let cos = z.mul_add(horner(z, const { COS[D / 2 - 1] }), 1.0);
    let y = if quarter & 1 == 0 { sin } else { cos };
    f32::from_bits(y.to_bits() ^ ((quarter & 2) << 30))
}

/// e^x by the bits of a float (Schraudolph, A fast, compact approximation of the exponential function, 1999), as fast kernels of
/// softmax have it: x times 2^23/ln(2), plus 127 * 2^23 less what makes the error least, is the bits of the result. What is made of
/// exponentials follows; the other functions are exact.
pub(super) struct Exp2Fast;

impl Set for Exp2Fast {
    #[inline(always)]
    fn exp(x: f32) -> f32 {
        const SCALE: f32 = 12_102_203.0;
        // 1064866805 in code that has it, which is this f32.
        const BIAS: f32 = 1_064_866_816.0;
        let held = if x > 88.0 { 88.0 } else { x };
        let held = if held < -87.0 { -87.0 } else { held };
        // Two roundings, and then toward zero.
        let bits = (SCALE * held + BIAS) as i32;
        if x.is_nan() { NAN } else { f32::from_bits(bits.cast_unsigned()) }
    }

    #[inline(always)]
    fn rsqrt(x: f32) -> f32 {
        elementary::rsqrt(x)
    }

    #[inline(always)]
    fn silu(x: f32) -> f32 {
        silu(x, Self::exp)
    }

    #[inline(always)]
    fn gelu_erf(x: f32) -> f32 {
        gelu_erf(x, Self::exp, const { TAIL[0] })
    }

    #[inline(always)]
    fn gelu_tanh(x: f32) -> f32 {
        gelu_tanh(x, Self::exp)
    }

    #[inline(always)]
    fn sin(x: f32) -> f32 {
        elementary::sin(x)
    }

    #[inline(always)]
    fn cos(x: f32) -> f32 {
        elementary::cos(x)
    }
}

/// x / (1 + e^-x)
#[inline(always)]
fn silu(x: f32, exp: impl Fn(f32) -> f32) -> f32 {
    x / (1.0 + exp(-x))
}

/// x / (1 + e^-2u), which is x/2 * (1 + tanh(u)).
#[inline(always)]
fn gelu_tanh(x: f32, exp: impl Fn(f32) -> f32) -> f32 {
    let twice_u = 2.0 * SQRT_2_OVER_PI * (x + 0.044715 * (x * x * x));
    x / (1.0 + exp(-twice_u))
}

/// x/2 * erfc(z) left of zero, for z = |x|/sqrt(2), and x less that right of it; erfc(z) is t * P(t) * e^(-z^2) for t = 1/(1 + z/2).
#[inline(always)]
fn gelu_erf(x: f32, exp: impl Fn(f32) -> f32, tail: &[u32]) -> f32 {
    let z = x.abs() * FRAC_1_SQRT_2;
    let t = 1.0 / (1.0 + 0.5 * z);
    let beyond = 0.5 * (t * horner(t, tail)) * exp(-(z * z));
    // Where nothing is left, infinity times nothing would be NaN.
    let lost = if z > 11.0 { 0_f32.copysign(x) } else { x * beyond };
    if x < 0.0 { lost } else { x - lost }
}
