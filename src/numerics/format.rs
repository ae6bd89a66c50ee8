//! Binary floating-point formats no wider than f32: how a value rounds, and which code stands for it.

use std::fmt;

use pulp::{Arch, Simd};
use thiserror::Error;

use super::canonical;
use crate::name::named;

/// The bit of f32's sign.
pub(super) const SIGN: u32 = 1 << 31;
/// The bits of f32's infinity; a larger magnitude is a NaN.
pub(super) const INFINITY: u32 = 0x7F80_0000;
/// The bits of the smallest normal f32.
pub(super) const SMALLEST_NORMAL: u32 = 0x0080_0000;
/// The bits of the largest finite f32.
pub(super) const LARGEST_FINITE: u32 = 0x7F7F_FFFF;
/// The bits of the one NaN that leaves this module.
pub(super) const NAN: u32 = super::NAN.to_bits();

/// A format of X exponent bits and Y mantissa bits, with its rounding and what it does on overflow.
///
/// Two formats are equal when they give the same bits for the same reasons: `e5m10` as
/// [`Format::minifloat`] makes it saturates, so it is not [`Format::F16`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Format {
    exponent: u8,
    mantissa: u8,
    specials: Specials,
    rounding: Rounding,
    saturate: bool,
    subnormal: bool,
}

/// Which codes are not finite numbers.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Specials {
    /// The largest exponent holds the infinities and the NaNs.
    Ieee,
    /// No infinities; the code of all ones is NaN (OCP e4m3).
    NanOnly,
    /// Every code is a number (OCP e2m1, e2m3, e3m2).
    Finite,
}

/// Which neighbor a value between two codes goes to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Rounding {
    /// The nearest, of two equally near the one with an even code.
    NearestEven,
    /// The nearest, of two equally near the one farther from zero.
    NearestAway,
    /// The larger.
    Up,
    /// The smaller.
    Down,
    /// The one nearer to zero.
    Zero,
    /// The nearest, of two equally near the one nearer to zero.
    NearestZero,
}

/// What makes a format impossible.
#[derive(Clone, PartialEq, Eq, Debug, Error)]
pub enum FormatError {
    /// An exponent that f32 cannot hold, or none.
    #[error("a format cannot have {0} exponent bits: choose 2 to 8")]
    Exponent(u8),
    /// A mantissa that f32 cannot hold, or none.
    #[error("a format cannot have {0} mantissa bits: choose 1 to 23")]
    Mantissa(u8),
    /// Overflow with no code to go to.
    #[error("{0} has no code for infinity or NaN, so a value too large has nowhere to go: let it saturate")]
    MustSaturate(Format),
}

named! {
    Rounding, "rounding":
    NearestEven = "even",
    NearestAway = "away",
    Up = "up",
    Down = "down",
    Zero = "zero",
    NearestZero = "half-zero",
}

/// The name without rounding: `f32`, `bf16`, `f16`, `tf32`, or `e4m3` and its like. The four known names mean
/// formats that do not saturate; one of their shape that does is `e8m23`, `e8m7`, `e5m10` or `e8m10`.
impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match (self.exponent, self.mantissa, self.saturate) {
            (8, 23, false) => f.pad("f32"),
            (8, 7, false) => f.pad("bf16"),
            (5, 10, false) => f.pad("f16"),
            (8, 10, false) => f.pad("tf32"),
            (exponent, mantissa, _) => f.pad(&format!("e{exponent}m{mantissa}")),
        }
    }
}

impl Format {
    /// IEEE binary32.
    pub const F32: Self = Self::new(8, 23, Specials::Ieee, false);
    /// The upper half of binary32.
    pub const BF16: Self = Self::new(8, 7, Specials::Ieee, false);
    /// IEEE binary16.
    pub const F16: Self = Self::new(5, 10, Specials::Ieee, false);
    /// NVIDIA's TF32: the range of binary32 with the precision of binary16.
    pub const TF32: Self = Self::new(8, 10, Specials::Ieee, false);
    /// OCP e4m3, saturating.
    pub const E4M3: Self = Self::new(4, 3, Specials::NanOnly, true);
    /// OCP e5m2, saturating.
    pub const E5M2: Self = Self::new(5, 2, Specials::Ieee, true);

    /// The range of binary32 with 13 digits, cut off: the sums of 8-bit floats on some matrix units.
    pub const E8M13_TOWARD_ZERO: Self = Self::new(8, 13, Specials::Ieee, false).with_rounding(Rounding::Zero);

    /// OCP e2m1, which has nothing but numbers.
    pub const E2M1: Self = Self::new(2, 1, Specials::Finite, true);
    /// OCP e2m3, which has nothing but numbers.
    pub const E2M3: Self = Self::new(2, 3, Specials::Finite, true);

    /// An IEEE-like eight-bit format with more precision than range, saturating.
    pub const E3M4: Self = Self::new(3, 4, Specials::Ieee, true);

    const fn new(exponent: u8, mantissa: u8, specials: Specials, saturate: bool) -> Self {
        Self { exponent, mantissa, specials, rounding: Rounding::NearestEven, saturate, subnormal: true }
    }

    /// Any format of 2 to 8 exponent bits and 1 to 23 mantissa bits; it rounds to nearest even and
    /// saturates. The four formats that OCP defines without infinities have none; all others are IEEE-like.
    pub fn minifloat(exponent: u8, mantissa: u8) -> Result<Self, FormatError> {
        if !(2..=8).contains(&exponent) {
            return Err(FormatError::Exponent(exponent));
        }
        if !(1..=23).contains(&mantissa) {
            return Err(FormatError::Mantissa(mantissa));
        }
        let specials = match (exponent, mantissa) {
            (4, 3) => Specials::NanOnly,
            (2, 1) | (2, 3) | (3, 2) => Specials::Finite,
            _ => Specials::Ieee,
        };
        Ok(Self::new(exponent, mantissa, specials, true))
    }

    /// Zero and the powers of two that so many exponent bits hold, 2 to 6: no mantissa, and every code a number.
    pub fn powers_of_two(exponent: u8) -> Option<Self> {
        (2..=6).contains(&exponent).then_some(Self::new(exponent, 0, Specials::Finite, true))
    }

    /// The same format with another rounding.
    #[must_use]
    pub const fn with_rounding(self, rounding: Rounding) -> Self {
        Self { rounding, ..self }
    }

    /// The same format, where a value too large becomes the largest finite one or does not.
    pub fn with_saturation(self, saturate: bool) -> Result<Self, FormatError> {
        if !saturate && self.specials == Specials::Finite {
            return Err(FormatError::MustSaturate(self));
        }
        Ok(Self { saturate, ..self })
    }

    /// The same format, with or without numbers below the smallest normal one. Without them, what is smaller before it is
    /// rounded becomes a zero with its sign, whatever the rounding.
    #[must_use]
    pub const fn with_subnormals(self, subnormal: bool) -> Self {
        Self { subnormal, ..self }
    }

    /// The number of exponent bits.
    pub const fn exponent_bits(self) -> u32 {
        self.exponent as u32
    }

    /// The number of mantissa bits that are stored.
    pub const fn mantissa_bits(self) -> u32 {
        self.mantissa as u32
    }

    /// Has it as many exponent and mantissa bits as the other?
    pub const fn has_widths_of(self, other: Format) -> bool {
        self.exponent == other.exponent && self.mantissa == other.mantissa
    }

    /// The number of bits of a code.
    pub const fn bits(self) -> u32 {
        1 + self.exponent_bits() + self.mantissa_bits()
    }

    /// Which neighbor a value between two codes goes to.
    pub const fn rounding(self) -> Rounding {
        self.rounding
    }

    /// Whether a value too large becomes the largest finite one.
    pub const fn saturates(self) -> bool {
        self.saturate
    }

    /// Whether there are numbers below the smallest normal one.
    pub const fn has_subnormals(self) -> bool {
        self.subnormal
    }

    /// Which codes are not finite numbers.
    pub const fn specials(self) -> Specials {
        self.specials
    }

    /// The largest finite value.
    pub fn max_finite(self) -> f32 {
        self.decode(self.max_code())
    }

    /// The smallest value of full precision.
    pub fn min_normal(self) -> f32 {
        self.decode(1 << self.mantissa)
    }

    /// The smallest value above zero: the smallest normal one, if there are no subnormal numbers.
    pub fn min_subnormal(self) -> f32 {
        if self.subnormal { self.decode(1) } else { self.min_normal() }
    }

    const fn bias(self) -> u32 {
        (1 << (self.exponent - 1)) - 1
    }

    /// The mantissa bits of f32 that this format lacks.
    const fn dropped(self) -> u32 {
        23 - self.mantissa_bits()
    }

    /// The code of the largest finite value.
    const fn max_code(self) -> u32 {
        let ones = (1 << (self.bits() - 1)) - 1;
        match self.specials {
            Specials::Ieee => ones - (1 << self.mantissa),
            Specials::NanOnly => ones - 1,
            Specials::Finite => ones,
        }
    }

    /// The code a NaN gets; where there is none the largest value, as NVIDIA's conversions have it.
    const fn nan_code(self) -> u32 {
        match self.specials {
            Specials::Ieee => self.max_code() + 1 + (1 << (self.mantissa - 1)),
            Specials::NanOnly => self.max_code() + 1,
            Specials::Finite => self.max_code(),
        }
    }

    /// The value of the code that `x` gets. Negative zero, and the sign of what rounds to zero, are kept.
    pub fn round(self, x: f32) -> f32 {
        self.decode(self.encode(x))
    }

    /// The code that `x` gets, in the low [`bits`](Self::bits), the sign on top: the definition of rounding.
    pub fn encode(self, x: f32) -> u32 {
        let magnitude = x.to_bits() & !SIGN;
        if magnitude > INFINITY {
            return self.nan_code();
        }
        let negative = x.is_sign_negative();
        let (exponent, fraction) = (magnitude >> 23, magnitude & 0x7F_FFFF);
        let significand = if exponent == 0 { fraction } else { fraction | 0x80_0000 };
        // No format reaches below f32, so the smallest exponents, biased as in f32, are at least 1.
        let min_exponent = 128 - self.bias();
        if !self.subnormal && exponent < min_exponent {
            return u32::from(negative) << (self.bits() - 1);
        }
        let target = exponent.max(min_exponent);
        // One unit of the code is 2^shift units of the significand. The significand has 24 bits, so from
        // a shift of 25 on it is less than half a unit, whatever the shift.
        let shift = (self.dropped() + target - exponent.max(1)).min(25);
        let (kept, rest, unit) = (significand >> shift, significand & ((1 << shift) - 1), 1 << shift);
        // The leading bit of a normal number, and a carry, add one to the exponent, as they must.
        let below = ((target - min_exponent) << self.mantissa) + kept;
        let increment = match self.rounding {
            Rounding::NearestEven => 2 * rest > unit || (2 * rest == unit && below & 1 == 1),
            Rounding::NearestAway => 2 * rest >= unit,
            Rounding::NearestZero => 2 * rest > unit,
            Rounding::Up => rest > 0 && !negative,
            Rounding::Down => rest > 0 && negative,
            Rounding::Zero => false,
        };
        let code = below + u32::from(increment);
        let sign = u32::from(negative) << (self.bits() - 1);
        if code <= self.max_code() {
            return code | sign;
        }
        let toward_zero = match self.rounding {
            Rounding::NearestEven | Rounding::NearestAway | Rounding::NearestZero => false,
            Rounding::Up => negative,
            Rounding::Down => !negative,
            Rounding::Zero => true,
        };
        match self.specials {
            _ if self.saturate || (toward_zero && magnitude < INFINITY) => self.max_code() | sign,
            Specials::Ieee => (self.max_code() + 1) | sign,
            Specials::NanOnly | Specials::Finite => self.nan_code(),
        }
    }

    /// The value of a code, exactly; bits above the code's own are ignored.
    pub fn decode(self, code: u32) -> f32 {
        Lanes::of(self).decode(code)
    }

    /// Rounds every element as [`round`](Self::round) does, fast where the rounding is to nearest even.
    pub fn round_slice(self, xs: &mut [f32]) {
        fn each(xs: &mut [f32], f: impl Fn(f32) -> f32) {
            Arch::new().dispatch(
                // Not inlined, it would be compiled for the least of all machines.
                #[inline(always)]
                move || xs.iter_mut().for_each(|x| *x = f(*x)),
            );
        }
        let lanes = Lanes::of(self);
        // What is a constant in its loop takes fewer instructions.
        match self {
            Self::F32 => each(xs, canonical),
            Self::BF16 => each(xs, |x| const { Lanes::of(Self::BF16) }.round(x)),
            _ if self.rounding == Rounding::NearestEven => each(xs, move |x| lanes.round(x)),
            _ => each(xs, move |x| lanes.decode(self.encode(x))),
        }
    }
}

/// The value of an f16 in its two bytes, low one first: exactly, with a NaN's sign and payload.
///
/// The same as [`Format::F16`]'s [`decode`](Format::decode), which has one NaN, and faster.
#[inline(always)]
pub const fn widen_f16(bytes: [u8; 2]) -> f32 {
    const REBIAS: u32 = (127 - 15) << 23;
    // What subnormal values count is added to this.
    const LEAST: u32 = (127 - 14) << 23;
    let code = u16::from_le_bytes(bytes) as u32;
    let exponent = code & 0x7C00;
    let magnitude = (code & 0x7FFF) << 13;
    // No step takes or gives a subnormal f32: for these processors take a hundred times as long.
    let subnormal = f32::from_bits(magnitude | LEAST) - f32::from_bits(LEAST);
    let magnitude = if exponent == 0 { subnormal.to_bits() } else { magnitude + REBIAS };
    let special = if exponent == 0x7C00 { INFINITY } else { 0 };
    f32::from_bits(magnitude | special | (code & 0x8000) << 16)
}

/// A format's constants, worked out before a loop, and what the loop does with an element: without
/// branches, so that the compiler makes vectors of it. Rounds to nearest even, whatever the format says.
#[derive(Clone, Copy)]
pub(crate) struct Lanes {
    // Of a code.
    sign_at: u32,
    max_code: u32,
    infinity_code: u32,
    first_normal_code: u32,
    /// Half of the step from one code to the next, among the bits of f32, less one.
    below_half: u32,
    /// One, unless no bit is dropped and there is nothing to round.
    odd: u32,
    /// The mantissa bits of f32 that the format lacks.
    dropped: u32,
    /// What a normal code, moved up to f32's place, lacks to f32's exponent.
    rebias: u32,
    // Of a magnitude as f32. Below the first, it is subnormal here though not in f32, or becomes zero; above the last
    // it becomes NaN.
    first_normal: u32,
    largest: u32,
    overflow: u32,
    nan: u32,
    last_number: u32,
    /// The smallest subnormal.
    quantum: f32,
    /// The power of two whose last bit is worth that quantum. Adding it to a value below the smallest
    /// normal rounds that value as a subnormal must be, and leaves its code in the low bits. Where there are no
    /// subnormals, so large a power that nothing is left of the value.
    anchor: f32,
}

impl Lanes {
    /// The constants of a format.
    #[inline(always)]
    pub(crate) const fn of(format: Format) -> Self {
        let (bias, mantissa, dropped) = (format.bias(), format.mantissa_bits(), format.dropped());
        let max_code = format.max_code();
        let rebias = (127 - bias) << 23;
        // The largest value is normal, and its code has no sign.
        let largest = (max_code << dropped) + rebias;
        let ieee = matches!(format.specials, Specials::Ieee);
        let overflows_to_nan = !format.saturate && !ieee;
        // With 8 exponent bits the subnormals are f32's own, and what holds for normals holds for them.
        let subnormals = format.exponent < 8;
        Self {
            sign_at: format.bits() - 1,
            max_code,
            // Without infinities, a code that no magnitude reaches.
            infinity_code: if ieee { max_code + 1 } else { u32::MAX },
            first_normal_code: if subnormals { 1 << mantissa } else { 0 },
            below_half: (1u32 << dropped >> 1).saturating_sub(1),
            odd: (dropped > 0) as u32,
            dropped,
            rebias,
            first_normal: if subnormals || !format.subnormal { (128 - bias) << 23 } else { 0 },
            largest,
            overflow: if format.saturate { largest } else { INFINITY },
            nan: if matches!(format.specials, Specials::Finite) { largest } else { NAN },
            // The tie between the largest value and the one that would follow goes to the largest.
            last_number: if overflows_to_nan { largest + (1 << dropped >> 1) } else { INFINITY },
            quantum: f32::from_bits(if subnormals { (128 - bias - mantissa) << 23 } else { 0 }),
            anchor: f32::from_bits(if format.subnormal { (151 - bias - mantissa) << 23 } else { 254 << 23 }),
        }
    }

    /// Adds just under half a step, and one more if the last bit kept is odd: what is left is to drop the
    /// bits below it.
    #[inline(always)]
    fn nearest(self, magnitude: u32) -> u32 {
        magnitude + self.below_half + ((magnitude >> self.dropped) & self.odd)
    }

    /// [`Format::round`] to nearest even.
    #[inline(always)]
    pub(crate) fn round(self, x: f32) -> f32 {
        let magnitude = x.to_bits() & !SIGN;
        let normal = self.nearest(magnitude) >> self.dropped << self.dropped;
        let subnormal = ((f32::from_bits(magnitude) + self.anchor) - self.anchor).to_bits();
        let value = if magnitude < self.first_normal { subnormal } else { normal };
        let value = if value > self.largest { self.overflow } else { value };
        let value = value | (x.to_bits() & SIGN);
        f32::from_bits(if magnitude > self.last_number { self.nan } else { value })
    }

    /// [`round`](Self::round) of every lane of a vector.
    #[inline(always)]
    pub(crate) fn round_all<S: Simd>(self, simd: S, x: S::f32s) -> S::f32s {
        let word = simd.transmute_u32s_f32s(x);
        let magnitude = simd.and_u32s(word, simd.splat_u32s(!SIGN));
        let last_kept = simd.wrapping_dyn_shr_u32s(magnitude, simd.splat_u32s(self.dropped));
        let nudge = simd
            .add_u32s(simd.splat_u32s(self.below_half), simd.and_u32s(last_kept, simd.splat_u32s(self.odd)));
        let kept = simd.splat_u32s(u32::MAX << self.dropped);
        let normal = simd.and_u32s(simd.add_u32s(magnitude, nudge), kept);
        let anchor = simd.splat_f32s(self.anchor);
        let subnormal = simd.sub_f32s(simd.add_f32s(simd.transmute_f32s_u32s(magnitude), anchor), anchor);
        let is_subnormal = simd.less_than_u32s(magnitude, simd.splat_u32s(self.first_normal));
        let value = simd.select_u32s(is_subnormal, simd.transmute_u32s_f32s(subnormal), normal);
        let is_large = simd.greater_than_u32s(value, simd.splat_u32s(self.largest));
        let value = simd.select_u32s(is_large, simd.splat_u32s(self.overflow), value);
        let value = simd.or_u32s(value, simd.and_u32s(word, simd.splat_u32s(SIGN)));
        let is_nan = simd.greater_than_u32s(magnitude, simd.splat_u32s(self.last_number));
        simd.transmute_f32s_u32s(simd.select_u32s(is_nan, simd.splat_u32s(self.nan), value))
    }

    /// [`Format::decode`].
    #[inline(always)]
    pub(crate) fn decode(self, code: u32) -> f32 {
        let magnitude = code & !(u32::MAX << self.sign_at);
        let sign = code >> self.sign_at << 31;
        let infinite =
            if magnitude == self.infinity_code { INFINITY | sign } else { self.number(code).to_bits() };
        let nan = magnitude > self.max_code && magnitude != self.infinity_code;
        f32::from_bits(if nan { NAN } else { infinite })
    }

    /// The value of a code that is a finite number's.
    #[inline(always)]
    pub(crate) fn number(self, code: u32) -> f32 {
        let magnitude = code & !(u32::MAX << self.sign_at);
        let sign = code >> self.sign_at << 31;
        let normal = (magnitude << self.dropped) + self.rebias;
        let subnormal = (magnitude as i32 as f32 * self.quantum).to_bits();
        f32::from_bits(if magnitude < self.first_normal_code { subnormal } else { normal } | sign)
    }
}
