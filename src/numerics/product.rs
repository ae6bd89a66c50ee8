//! How one term of a sum is formed: L-Mul's addition of words, and the integers of LLM.int8().

use super::format::{Format, INFINITY, LARGEST_FINITE, Lanes, NAN, SIGN, SMALLEST_NORMAL};
use crate::name::named;

/// L-Mul (Luo and Sun, 2024): a floating-point product approximated by one integer addition.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct LMul {
    mantissa: Option<u8>,
    /// Which of the two published readings.
    pub variant: Variant,
}

/// The two readings of L-Mul. They differ when the mantissa sum reaches 1: the bit trick carries into the
/// exponent, as Mitchell's logarithm does, the printed formula does not.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Variant {
    /// The words are added as integers: what every implementation does.
    Bits,
    /// The formula as printed: (1 + x + y + 2^-l) 2^(e + f).
    Formula,
}

named! { Variant, "variant": Bits = "bits", Formula = "formula" }

const ONE: u32 = 1_f32.to_bits();

impl LMul {
    /// All mantissa bits, by the bit trick.
    pub const PUBLISHED: LMul = LMul { mantissa: None, variant: Variant::Bits };

    /// The same with inputs of so many mantissa bits, if f32 has them. All of them are as many as none were given.
    pub fn with_mantissa(self, bits: u8) -> Option<LMul> {
        (1..=23).contains(&bits).then_some(LMul { mantissa: (bits < 23).then_some(bits), ..self })
    }

    /// To how many mantissa bits the inputs are rounded first, if not to all of f32's.
    pub fn mantissa(self) -> Option<u8> {
        self.mantissa
    }

    /// What both inputs round to before they meet.
    pub fn operands(self) -> Format {
        match self.mantissa {
            None => Format::F32,
            Some(bits) => Format::minifloat(8, bits).expect("f32 holds its own bits"),
        }
    }

    /// The published l(m): the correction is 2^-l.
    pub fn correction_exponent(self) -> u32 {
        match self.mantissa.unwrap_or(23) {
            bits @ 0..=3 => u32::from(bits),
            4 => 3,
            _ => 4,
        }
    }

    /// The number subtracted from the sum of the words: 0x3f780000 for all mantissa bits.
    pub fn offset(self) -> u32 {
        ONE - (SMALLEST_NORMAL >> self.correction_exponent())
    }

    /// One product. Zero and subnormal inputs and results too small for a normal number give a signed zero,
    /// results too large the largest finite number, infinite and NaN inputs NaN.
    #[inline(always)]
    pub fn multiply(self, x: f32, y: f32) -> f32 {
        let (x, y) = (x.to_bits(), y.to_bits());
        let sign = (x ^ y) & SIGN;
        let (x, y) = (x & !SIGN, y & !SIGN);
        if x >= INFINITY || y >= INFINITY {
            return f32::from_bits(NAN);
        }
        if x < SMALLEST_NORMAL || y < SMALLEST_NORMAL {
            return f32::from_bits(sign);
        }
        let word = match self.variant {
            Variant::Bits => i64::from(x) + i64::from(y) - i64::from(self.offset()),
            Variant::Formula => {
                let mantissa = |word: u32| f32::from_bits((word & (SMALLEST_NORMAL - 1)) | ONE);
                // 1 + x, and y + 2^-l: both exact, so that their sum is the only rounding.
                let correction = f32::from_bits(ONE - (self.correction_exponent() << 23));
                let sum = mantissa(x) + ((mantissa(y) - 1.0) + correction);
                let exponents = i64::from(x >> 23) + i64::from(y >> 23) - 2 * 127;
                i64::from(sum.to_bits()) + (exponents << 23)
            }
        };
        let magnitude = match u32::try_from(word) {
            Ok(word @ SMALLEST_NORMAL..=LARGEST_FINITE) => word,
            Ok(..SMALLEST_NORMAL) | Err(_) if word < i64::from(SMALLEST_NORMAL) => 0,
            _ => LARGEST_FINITE,
        };
        f32::from_bits(sign | magnitude)
    }

    /// The product of two values as they come, which round first where the inputs have fewer mantissa bits.
    #[inline(always)]
    pub fn times(self, x: f32, y: f32) -> f32 {
        match self.mantissa {
            None => self.multiply(x, y),
            Some(_) => {
                let operands = Lanes::of(self.operands());
                self.multiply(operands.round(x), operands.round(y))
            }
        }
    }
}

/// From which magnitude an activation makes its column an outlier: a positive number, kept as its bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Threshold(u32);

impl Threshold {
    /// The published one.
    pub const PUBLISHED: Threshold = Threshold(0x40C0_0000);

    /// This number, if it is positive and finite.
    pub fn new(value: f32) -> Option<Threshold> {
        (value.is_finite() && value > 0.0).then_some(Threshold(value.to_bits()))
    }

    /// The number.
    pub fn value(self) -> f32 {
        f32::from_bits(self.0)
    }
}

/// A vector as 8-bit integers and the one number that scales them back. Not finite: the scale is NaN, so
/// that whatever it touches is NaN.
#[derive(Clone, PartialEq, Debug)]
pub struct Integers {
    /// From -127 to 127.
    pub codes: Vec<i8>,
    /// What the precision multiplies back with.
    pub scale: f32,
}

/// 1/127², nearest in f32.
pub const INT8_RESCALE: f32 = 6.200_012e-5;
/// 1/127, nearest in f32.
pub const INT8_STEP: f32 = 1.0 / 127.0;

/// A vector for LLM.int8(): the scale is the largest magnitude below `threshold`, and what reaches the
/// threshold becomes 0. Weights have no threshold: pass infinity.
#[inline(always)]
pub fn quantize_int8(values: &[f32], threshold: f32) -> Integers {
    if values.iter().any(|value| value.is_nan() || (value.is_infinite() && threshold.is_infinite())) {
        return Integers { codes: vec![0; values.len()], scale: f32::NAN };
    }
    let below = |value: f32| if value.abs() < threshold { value } else { 0.0 };
    let largest = values.iter().fold(0.0_f32, |largest, &value| largest.max(below(value).abs()));
    let factor = if largest == 0.0 { 0.0 } else { 127.0 / largest };
    let codes = values.iter().map(|&value| integer(below(value) * factor)).collect();
    Integers { codes, scale: largest }
}

/// The nearest integer from -127 to 127, ties to even.
#[inline(always)]
fn integer(value: f32) -> i8 {
    value.round_ties_even().clamp(-127.0, 127.0) as i8
}

/// LLM.int8(): the integer sum scaled back and begun at `start`, in f32 and then in half.
#[inline(always)]
pub fn rescale_int8(sum: i32, row: f32, column: f32, start: f32) -> f32 {
    (sum as f32 * row * column).mul_add(INT8_RESCALE, start)
}

/// LLM.int8(): the weight that an outlier meets, back in half.
pub fn outlier_weight(code: i8, scale: f32) -> f32 {
    Format::F16.round(f32::from(code) * scale * INT8_STEP)
}

/// A sum of products of codes scaled back in f64, where the scale is exact, and rounded once to f32.
#[inline(always)]
pub fn rescale_codes(sum: f64, row: f32, column: f32, start: f32) -> f32 {
    (sum * (f64::from(row) * f64::from(column)) + f64::from(start)) as f32
}

/// The columns in which any row reaches the threshold: they leave the integers for all rows of the call.
/// That is how LLM.int8() comes to depend on who shares the batch.
pub fn outlier_columns(rows: &[f32], width: usize, threshold: Threshold) -> Vec<usize> {
    let mut outlier = vec![false; width];
    for row in rows.chunks_exact(width.max(1)) {
        for (outlier, value) in outlier.iter_mut().zip(row) {
            *outlier |= value.abs() >= threshold.value();
        }
    }
    (0..width).filter(|&column| outlier[column]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn published(x: f32, y: f32) -> u32 {
        LMul::PUBLISHED.multiply(x, y).to_bits()
    }

    #[test]
    fn lmul_gives_the_known_words() {
        assert_eq!(LMul::PUBLISHED.offset(), 0x3F78_0000);
        assert_eq!(published(1.0, 1.0), 0x3F88_0000);
        assert_eq!(published(3.6, 2.1), 0x40F4_CCCC);
        assert_eq!(published(1.5, 2.0), 0x4048_0000);
        assert_eq!(published(-3.75, 5.0), 0xC198_0000);
        assert_eq!(published(0.1, 0.2), 0x3CA1_999A);
        assert_eq!(published(1.968_75, 1.968_75), 0x4080_0000);
    }

    #[test]
    fn lmul_is_total_at_the_edges() {
        let subnormal = f32::from_bits(1);
        assert_eq!(published(-0.0, 3.0), SIGN);
        assert_eq!(published(-subnormal, f32::MAX), SIGN);
        assert_eq!(published(1e-30, -1e-30), SIGN);
        assert_eq!(published(1e30, -1e30), SIGN | LARGEST_FINITE);
        assert_eq!(published(f32::INFINITY, 0.0), NAN);
        assert_eq!(published(f32::NAN, 1.0), NAN);
    }

    #[test]
    fn the_printed_formula_parts_from_the_bit_trick_only_past_the_carry() {
        let formula = LMul { variant: Variant::Formula, ..LMul::PUBLISHED };
        assert_eq!(formula.multiply(1.25, 1.25), LMul::PUBLISHED.multiply(1.25, 1.25));
        // s = 0.75 + 0.75 + 1/16: the carry doubles it, the formula adds 1.
        assert_eq!(LMul::PUBLISHED.multiply(1.75, 1.75), 2.0 * 1.5625);
        assert_eq!(formula.multiply(1.75, 1.75), 2.5625);
    }

    #[test]
    fn fewer_mantissa_bits_have_their_own_correction() {
        let correction = |bits| LMul::PUBLISHED.with_mantissa(bits).unwrap().multiply(1.0, 1.0);
        assert_eq!([1, 2, 3, 4, 5].map(correction), [1.5, 1.25, 1.125, 1.125, 1.0625]);
        assert_eq!(LMul::PUBLISHED.with_mantissa(23), Some(LMul::PUBLISHED));
        assert_eq!([0, 24].map(|bits| LMul::PUBLISHED.with_mantissa(bits)), [None, None]);
    }

    #[test]
    fn a_vector_of_zeros_quantizes_to_zeros() {
        assert_eq!(quantize_int8(&[0.0, -0.0], 6.0), Integers { codes: vec![0, 0], scale: 0.0 });
    }

    #[test]
    fn the_largest_entry_becomes_127() {
        assert_eq!(quantize_int8(&[2.0, -1.0, 6.0], 6.0), Integers { codes: vec![127, -64, 0], scale: 2.0 });
    }

    #[test]
    fn nothing_hides_a_nan() {
        assert!(quantize_int8(&[1.0, f32::NAN], 6.0).scale.is_nan());
    }
}
