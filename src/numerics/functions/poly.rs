//! The coefficients of the minimax polynomials, as `tests/functions/minimax.py` prints them: a row for each degree, the lowest power first.
//!
//! What is said of an error is the polynomial's own, before its coefficients were rounded and without the roundings of its evaluation.

/// The degrees that there are.
pub(super) const DEGREES: std::ops::RangeInclusive<u8> = 3..=7;

/// (e^r - 1) / r for |r| <= ln(2)/2, such that the relative error of e^r is smallest: 1.0e-4, 2.8e-6, 9.2e-8, 2.0e-9, 4.7e-11.
pub(super) const EXP: [&[u32]; 5] = [
    &[0x3F80_066B, 0x3F01_0EB0, 0x3E29_24E2],
    &[0x3F7F_FDD4, 0x3F00_01FA, 0x3E2B_E75B, 0x3D2A_0A6D],
    &[0x3F7F_FFFB, 0x3EFF_FEE3, 0x3E2A_AD35, 0x3D2B_9D2A, 0x3C07_D41A],
    &[0x3F80_0000, 0x3EFF_FFFE, 0x3E2A_AA0D, 0x3D2A_AC11, 0x3C09_33C1, 0x3AB5_7398],
    &[0x3F80_0000, 0x3F00_0000, 0x3E2A_AAAA, 0x3D2A_AA41, 0x3C08_8985, 0x3AB6_CAAB, 0x394F_4771],
];

/// (sin(r) - r) / r^3 in powers of r^2 for |r| <= pi/4, of degrees 3, 5 and 7: 5.7e-4, 1.9e-6, 3.8e-9 of sin(r).
pub(super) const SIN: [&[u32]; 3] =
    [&[0xBE26_5381], &[0xBE2A_A214, 0x3C05_BF49], &[0xBE2A_AAA3, 0x3C08_839D, 0xB94C_A1F1]];

/// (cos(r) - 1) / r^2 in powers of r^2 for |r| <= pi/4, of degrees 2, 4 and 6: 3.2e-3, 1.5e-5, 3.8e-8 of cos(r).
pub(super) const COS: [&[u32]; 3] =
    [&[0xBEF4_FF97], &[0xBEFF_E09E, 0x3D25_B7C3], &[0xBEFF_FFD9, 0x3D2A_9F40, 0xBAB2_26B1]];

/// erfc(z) * e^(z^2) / t for t = 1/(1 + z/2) and z up to 10, where no f32 is left of the rest: 3.3e-3, 1.1e-3, 8.6e-5, 2.6e-5, 1.4e-6
/// of it.
pub(super) const TAIL: [&[u32]; 5] = [
    &[0x3E97_9120, 0x3E25_80A1, 0x3F0A_0230],
    &[0x3E93_AF16, 0x3E64_FF1E, 0x3ECC_80E1, 0x3DB7_929B],
    &[0x3E8F_62E7, 0x3E9E_8810, 0x3DE6_E98C, 0x3EEE_AE3F, 0xBE2C_908C],
    &[0x3E90_01E2, 0x3E96_6A95, 0x3E3F_F584, 0x3E9C_DE94, 0xBC3E_D1B2, 0xBD6A_94D5],
    &[0x3E90_8DBE, 0x3E8E_1F42, 0x3E90_2134, 0x3D1B_3471, 0x3EC7_483A, 0xBEB6_A63D, 0x3DB4_A44D],
];

/// The polynomial at x, from the highest power down, fused.
#[inline(always)]
pub(super) fn horner(x: f32, coefficients: &[u32]) -> f32 {
    let Some((highest, rest)) = coefficients.split_last() else { return 0.0 };
    rest.iter().rev().fold(f32::from_bits(*highest), |y, bits| x.mul_add(y, f32::from_bits(*bits)))
}
