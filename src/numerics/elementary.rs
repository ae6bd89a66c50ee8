//! Elementary functions of `f32` whose bits are the same on every machine, one value or a slice at a time.
//!
//! Each function is evaluated once in `f64` and rounded once to `f32`. The evaluation uses only IEEE `+`,
//! `-`, `*`, `/`, square root and integer operations, in a written order. Rust neither reorders those nor
//! fuses a product with a sum, so a vector of any width holds the bits that the scalar loop gives.
//!
//! `exp`, `tanh`, `rsqrt`, `sqrt`, `sin`, `cos`, `log` and `erf` are correctly rounded for every input:
//! `tests/elementary.rs` compares all 2^32 of them with CORE-MATH (`sqrt` with that of `f64`). Where the
//! recipe alone missed a few, the right results stand here beside it.
//!
//! `sigmoid`, `silu`, `gelu_erf` and `gelu_tanh` are *defined* as one `f64` evaluation. Of their 2^32 results
//! 66, 0, 2 and 1 are not the nearest `f32` where that is a normal number. Where it is subnormal, the last three are x/2 and next to nothing, which `f64` cannot see: it
//! sends ties of x/2 to even instead of up, 2^23 times to the wrong side.
//!
//! Every function is total. A NaN result is always [`NAN`], whatever NaN came in.

use pulp::Arch;

use super::{NAN, canonical};

/// One row of [`FUNCTIONS`].
#[derive(Clone, Copy, Debug)]
pub struct Function {
    /// The name, as in the source and on the command line.
    pub name: &'static str,
    /// What it computes, in one sentence.
    pub sentence: &'static str,
    /// The function of one value.
    pub scalar: fn(f32) -> f32,
    /// The same bits in place over a slice, in vectors of the width that the machine has.
    pub slice: fn(&mut [f32]),
}

/// Writes the scalar form, the slice form and the row of the table of each function from its one body.
macro_rules! functions {
    ($($name:ident $slice:ident $sentence:literal $(($more:literal))* = $body:expr, $far:expr;)*) => {
        $(
            #[doc = $sentence]
            $(#[doc = ""] #[doc = $more])*
            // Always, so that a loop compiled for an instruction set holds it.
            #[inline(always)]
            pub fn $name(x: f32) -> f32 {
                one(x, $body, $far)
            }

            #[doc = concat!("[`", stringify!($name), "`] of every element, in place: the same bits, sooner.")]
            pub fn $slice(xs: &mut [f32]) {
                many(xs, $body, $far);
            }
        )*

        /// Every function of this module.
        pub const FUNCTIONS: &[Function] = &[$(Function {
            name: stringify!($name),
            sentence: $sentence,
            scalar: $name,
            slice: $slice,
        }),*];
    };
}

functions! {
    exp exp_slice "e to the power x, correctly rounded." = exp_body, None;
    tanh tanh_slice "Hyperbolic tangent, correctly rounded." = tanh_body, None;
    sigmoid sigmoid_slice "Logistic function 1/(1+e^-x), one f64 evaluation rounded once."
        = sigmoid_body, None;
    silu silu_slice "SiLU x/(1+e^-x), one f64 evaluation rounded once."
        ("At minus infinity the value is -0, the limit, and not the NaN of the formula read literally.")
        = silu_body, None;
    gelu_erf gelu_erf_slice "GELU x/2*(1+erf(x/sqrt(2))), one f64 evaluation rounded once."
        ("`1+erf(y)` is evaluated as `erfc(-y)`, which is the same number without the cancellation that \
          would leave no digit of it below -8. At minus infinity the value is -0, the limit.")
        = gelu_erf_body, None;
    gelu_tanh gelu_tanh_slice
        "GELU x/2*(1+tanh(sqrt(2/pi)*(x+0.044715*x^3))), one f64 evaluation rounded once."
        ("`(1+tanh(u))/2` is evaluated as `1/(1+e^-2u)`, which is the same number without the cancellation. \
          At minus infinity the value is -0, the limit.")
        = gelu_tanh_body, None;
    rsqrt rsqrt_slice "Reciprocal square root 1/sqrt(x), correctly rounded."
        ("As in IEEE 754, the value at -0 is minus infinity.")
        = |x| (1.0 / f64::from(x).sqrt()) as f32, None;
    sqrt sqrt_slice "Square root, correctly rounded." = f32::sqrt, None;
    sin sin_slice "Sine of x radians, correctly rounded at every magnitude." = sin_near, Some(sin_far);
    cos cos_slice "Cosine of x radians, correctly rounded at every magnitude." = cos_near, Some(cos_far);
    log log_slice "Natural logarithm, correctly rounded." = log_body, None;
    erf erf_slice "Error function, correctly rounded." = |x| libm::erf(f64::from(x)) as f32, None;
}

/// The largest magnitude for which the bodies of `sin` and `cos` serve; beyond it their `far` forms do.
pub(super) const NEAR: f32 = 1_048_576.0;

/// What computes the inputs beyond [`NEAR`], where the body does not.
type Far = Option<fn(f32) -> f32>;

#[inline(always)]
fn one(x: f32, body: impl Fn(f32) -> f32, far: Far) -> f32 {
    canonical(match far {
        Some(far) if x.abs() > NEAR => far(x),
        _ => body(x),
    })
}

#[inline(always)]
fn many(xs: &mut [f32], body: impl Fn(f32) -> f32, far: Far) {
    // Inside `dispatch` the loops are compiled once per instruction set: hence everything is inlined into
    // it. A body has no branches, so that the compiler turns the loop over it into vectors.
    Arch::new().dispatch(
        #[inline(always)]
        || {
            let Some(far) = far else {
                for x in xs {
                    *x = one(*x, &body, None);
                }
                return;
            };
            for block in xs.chunks_mut(64) {
                // A sum, not `any`, which stops early and so stays scalar.
                if block.iter().map(|x| u32::from(x.abs() > NEAR)).sum::<u32>() == 0 {
                    for x in block {
                        *x = one(*x, &body, None);
                    }
                } else {
                    for x in block {
                        *x = one(*x, &body, Some(far));
                    }
                }
            }
        },
    );
}

/// Adding and subtracting 1.5 * 2^52 rounds a small `f64` to the nearest integer; between the two, the
/// low bits of the sum are that integer.
const ROUND: f64 = 6_755_399_441_055_744.0;

/// 1/n!, rounded once: the product is exact up to 22!.
const fn inverse_factorial(n: u32) -> f64 {
    let mut product = 1.0;
    let mut k = 2;
    while k <= n {
        product *= k as f64;
        k += 1;
    }
    1.0 / product
}

/// `N` coefficients of a Taylor series: 1/first!, 1/(first+step)!, and so on, times 1, sign, 1, sign, ….
const fn taylor<const N: usize>(first: u32, step: u32, sign: f64) -> [f64; N] {
    let mut out = [0.0; N];
    let mut i = 0;
    while i < N {
        let c = inverse_factorial(first + step * i as u32);
        out[i] = if i % 2 == 1 { sign * c } else { c };
        i += 1;
    }
    out
}

/// (e^r - 1 - r) / r^2 for |r| <= ln(2)/2.
const EXP: [f64; 12] = taylor(2, 1, 1.0);
/// The same for |r| < 0.4, where `tanh` needs the relative precision.
const EXPM1: [f64; 14] = taylor(2, 1, 1.0);
/// (sin(r) - r) / -r^3 in powers of r^2.
const SIN: [f64; 9] = taylor(3, 2, -1.0);
/// (cos(r) - 1) / -r^2 in powers of r^2.
const COS: [f64; 10] = taylor(2, 2, -1.0);

#[inline(always)]
fn horner<const N: usize>(x: f64, c: &[f64; N]) -> f64 {
    let mut y = c[N - 1];
    for i in (0..N - 1).rev() {
        y = y * x + c[i];
    }
    y
}

/// e^x in `f64`, within a few units of its last place; |x| beyond 700 counts as 700, where every function
/// here has long reached its limit in `f32`. NaN passes through.
#[inline(always)]
pub(super) fn exp64(x: f64) -> f64 {
    // ln(2) in two pieces; the first has 32 bits, so that its product with k is exact.
    const LN_2_HIGH: f64 = f64::from_bits(0x3FE6_2E42_FEE0_0000);
    const LN_2_LOW: f64 = f64::from_bits(0x3DEA_39EF_3579_3C76);
    // Comparisons that are false for NaN, so that it stays.
    let x = if x > 700.0 { 700.0 } else { x };
    let x = if x < -700.0 { -700.0 } else { x };
    let rounded = x * std::f64::consts::LOG2_E + ROUND;
    let k = rounded - ROUND;
    let r = (x - k * LN_2_HIGH) - k * LN_2_LOW;
    let e = 1.0 + (r + r * r * horner(r, &EXP));
    // 2^k by its bits: |k| <= 1010, so it is normal.
    e * f64::from_bits((rounded.to_bits() << 52).wrapping_add(1023 << 52))
}

#[inline(always)]
fn exp_body(x: f32) -> f32 {
    exp64(f64::from(x)) as f32
}

#[inline(always)]
fn tanh_body(x: f32) -> f32 {
    let x = f64::from(x);
    let t = 2.0 * x.abs();
    // tanh(20) is 1 in f64 already; without this bound infinity would become infinity over infinity.
    let t = if t > 40.0 { 40.0 } else { t };
    let small = t + t * t * horner(t, &EXPM1);
    let large = exp64(t) - 1.0;
    let em1 = if t < 0.4 { small } else { large };
    // The sign comes last, so that it survives at -0.
    (em1 / (em1 + 2.0)).copysign(x) as f32
}

#[inline(always)]
fn sigmoid_body(x: f32) -> f32 {
    (1.0 / (1.0 + exp64(-f64::from(x)))) as f32
}

#[inline(always)]
fn silu_body(x: f32) -> f32 {
    let x = not_minus_infinity(x);
    (x / (1.0 + exp64(-x))) as f32
}

#[inline(always)]
fn gelu_erf_body(x: f32) -> f32 {
    let x = not_minus_infinity(x);
    (x * 0.5 * libm::erfc(-x * std::f64::consts::FRAC_1_SQRT_2)) as f32
}

#[inline(always)]
fn gelu_tanh_body(x: f32) -> f32 {
    // 2 * sqrt(2/pi)
    const SCALE: f64 = std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::SQRT_2;
    let x = not_minus_infinity(x);
    let twice_u = SCALE * (x + 0.044715 * (x * x * x));
    (x / (1.0 + exp64(-twice_u))) as f32
}

/// Widens x, with -1000 for everything below it. There a gated unit is x times less than 1e-300, which is
/// -0 in `f32`; infinity times 0 would be NaN instead.
#[inline(always)]
fn not_minus_infinity(x: f32) -> f64 {
    f64::from(if x < -1000.0 { -1000.0 } else { x })
}

#[inline(always)]
fn log_body(x: f32) -> f32 {
    // The five inputs whose logarithm lies too near the middle of two neighbors for `f64` to tell.
    match x.to_bits() {
        0x3C41_3D3A => f32::from_bits(0xC08E_158F),
        0x4117_8FEB => f32::from_bits(0x400F_E5E7),
        0x4C5D_65A5 => f32::from_bits(0x418F_034B),
        0x65D8_90D3 => f32::from_bits(0x4254_D1F9),
        0x6F31_A8EC => f32::from_bits(0x4284_5A89),
        _ => libm::log(f64::from(x)) as f32,
    }
}

#[inline(always)]
fn sin_near(x: f32) -> f32 {
    // The one magnitude up to 2^20 whose sine lies too near the middle of two neighbors for `f64` to tell.
    const HARD: f64 = f32::from_bits(0x4619_9998) as f64;
    const SIN_HARD: f64 = f32::from_bits(0xBEB1_FA5D) as f64;
    let x = f64::from(x);
    let (r, quarter) = reduce_near(x.abs());
    let y = if x.abs() == HARD { SIN_HARD } else { sin_quarter(r, quarter) };
    // The sign comes last, so that it survives at -0.
    f64::from_bits(y.to_bits() ^ (x.to_bits() & (1 << 63))) as f32
}

#[inline(always)]
fn cos_near(x: f32) -> f32 {
    let (r, quarter) = reduce_near(f64::from(x).abs());
    sin_quarter(r, quarter.wrapping_add(1)) as f32
}

fn sin_far(x: f32) -> f32 {
    let Some((r, quarter)) = reduce_far(x.abs()) else { return NAN };
    (sin_quarter(r, quarter) * 1_f64.copysign(f64::from(x))) as f32
}

fn cos_far(x: f32) -> f32 {
    // The three magnitudes whose cosine lies too near the middle of two neighbors for `f64` to tell.
    match x.abs().to_bits() {
        0x5922_AA80 => return f32::from_bits(0x3F08_AEBF),
        0x5F18_B878 => return f32::from_bits(0x3F7F_14BB),
        0x6115_CB11 => return f32::from_bits(0x3F78_142F),
        _ => {}
    }
    let Some((r, quarter)) = reduce_far(x.abs()) else { return NAN };
    sin_quarter(r, quarter.wrapping_add(1)) as f32
}

/// The distance of `x` in [0, [`NEAR`]] from the nearest multiple of pi/2, and which multiple (modulo 4).
#[inline(always)]
fn reduce_near(x: f64) -> (f64, u64) {
    // pi/2 in three pieces; the first two have 33 bits or fewer, so that their products with k are exact.
    const HALF_PI: [f64; 3] = [
        f64::from_bits(0x3FF9_21FB_5440_0000),
        f64::from_bits(0x3DD0_B461_1A60_0000),
        f64::from_bits(0x3BA3_198A_2E03_7073),
    ];
    let rounded = x * std::f64::consts::FRAC_2_PI + ROUND;
    let k = rounded - ROUND;
    (((x - k * HALF_PI[0]) - k * HALF_PI[1]) - k * HALF_PI[2], rounded.to_bits())
}

/// The same for a finite `x` above [`NEAR`], with integers (Payne and Hanek): only the digits of 2/pi that
/// decide the last two bits of the quotient and its fraction take part. `None` for infinity and NaN.
fn reduce_far(x: f32) -> Option<(f64, u64)> {
    /// Eight zero bits, then the first 248 fractional bits of 2/pi.
    const TWO_OVER_PI: [u64; 4] =
        [0x00A2_F983_6E4E_4415, 0x29FC_2757_D1F5_34DD, 0xC0DB_6295_993C_4390, 0x41FE_5163_ABDE_BBC5];
    if !x.is_finite() {
        return None;
    }
    // x is mantissa * 2^exponent, with the exponent in -3..=104.
    let mantissa = u128::from(x.to_bits() & 0x007F_FFFF | 0x0080_0000);
    let exponent = (x.to_bits() >> 23) as usize - 150;
    // The bits of 2/pi above this window, scaled by 2^exponent, are multiples of 4.
    let start = exponent.wrapping_add(6);
    let (word, shift) = (start / 64, start % 64);
    let pair = (u128::from(TWO_OVER_PI[word]) << 64) | u128::from(TWO_OVER_PI[word + 1]);
    let window = (pair << shift) | ((u128::from(TWO_OVER_PI[word + 2]) << shift) >> 64);
    // Modulo 2^128 is modulo 4: two bits of quotient, 126 of fraction, of which the window's end spoils 24.
    // No f32 comes nearer to a multiple of pi/2 than some 2^-30, so more than 70 bits are left.
    let product = mantissa.wrapping_mul(window);
    // As a signed number, the fraction is the distance from the nearest integer.
    let fraction = (product << 2).cast_signed();
    let quarter = (product >> 126) as u64 + u64::from(fraction < 0);
    // 2^-128 times pi/2.
    const SCALE: f64 = std::f64::consts::FRAC_PI_2 / (1_u128 << 127) as f64 / 2.0;
    Some((fraction as f64 * SCALE, quarter))
}

/// sin(r + quarter * pi/2) for |r| <= pi/4.
#[inline(always)]
fn sin_quarter(r: f64, quarter: u64) -> f64 {
    let z = r * r;
    let sin = r - r * (z * horner(z, &SIN));
    let cos = 1.0 - z * horner(z, &COS);
    let y = if quarter & 1 == 0 { sin } else { cos };
    f64::from_bits(y.to_bits() ^ ((quarter & 2) << 62))
}
