//! Exact sums of 8-bit integers, four terms a step: order is no matter here, speed is.

use pulp::{Simd, WithSimd};

use super::{
    isa::Isa,
    packed::{PANEL, QUAD, QuadRow},
};

/// The most terms whose sum is sure to fit an i32.
pub(super) const DEPTH_LIMIT: usize = (i32::MAX / (127 * 127)) as usize;

/// Rows of integers for one call of [`sums`].
pub(super) const ROWS: usize = 8;

/// The sums of `R` rows, four terms a step, with a panel.
pub(super) fn sums<const R: usize>(isa: Isa, x: &[[[i8; QUAD]; R]], panel: &[QuadRow]) -> [[i32; PANEL]; R] {
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx512 && std::arch::is_x86_feature_detected!("avx512vnni") {
        return vnni::sums(x, panel);
    }
    isa.dispatch(Widening { x, panel })
}

/// The portable form: widened, multiplied and added in i32.
struct Widening<'a, const R: usize> {
    x: &'a [[[i8; QUAD]; R]],
    panel: &'a [QuadRow],
}

impl<const R: usize> WithSimd for Widening<'_, R> {
    type Output = [[i32; PANEL]; R];

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Self::Output {
        let mut sums = [[0; PANEL]; R];
        for (x, w) in self.x.iter().zip(self.panel) {
            for (sums, x) in sums.iter_mut().zip(x) {
                for (sum, w) in sums.iter_mut().zip(&w.0) {
                    for term in 0..QUAD {
                        *sum += i32::from(x[term]) * (i32::from(w[term]) - i32::from(QuadRow::ZERO));
                    }
                }
            }
        }
        sums
    }
}

#[cfg(target_arch = "x86_64")]
mod vnni {
    #![allow(
        unsafe_code,
        reason = "the library of vectors has no instruction for products of 8-bit integers"
    )]

    use std::arch::x86_64::{
        __m512i, _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_si512,
        _mm512_storeu_si512,
    };

    use super::{PANEL, QUAD, QuadRow};

    /// Half a row of outputs, 16 sums of 32 bits.
    const LANES: usize = PANEL / 2;

    pub(super) fn sums<const R: usize>(x: &[[[i8; QUAD]; R]], panel: &[QuadRow]) -> [[i32; PANEL]; R] {
        // SAFETY: the caller has seen that the machine has the instructions.
        unsafe { sums_vnni(x, panel) }
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    fn sums_vnni<const R: usize>(x: &[[[i8; QUAD]; R]], panel: &[QuadRow]) -> [[i32; PANEL]; R] {
        let mut sums = [[_mm512_setzero_si512(); 2]; R];
        for (x, w) in x.iter().zip(panel) {
            let w = [load(&w.0[..LANES]), load(&w.0[LANES..])];
            for (sums, &x) in sums.iter_mut().zip(x) {
                let x = _mm512_set1_epi32(i32::from_le_bytes(x.map(i8::cast_unsigned)));
                sums[0] = _mm512_dpbusd_epi32(sums[0], w[0], x);
                sums[1] = _mm512_dpbusd_epi32(sums[1], w[1], x);
            }
        }
        let mut out = [[0; PANEL]; R];
        for (row, (out, sums)) in out.iter_mut().zip(sums).enumerate() {
            store(&mut out[..LANES], sums[0]);
            store(&mut out[LANES..], sums[1]);
            // The instruction wants one side unsigned, so the weights are stored with 128 more.
            let sum: i32 = x.iter().flat_map(|x| x[row]).map(i32::from).sum();
            for out in out {
                // Wrapping, as the instruction's own sums: only the end result is sure to fit.
                *out = out.wrapping_sub(sum.wrapping_mul(i32::from(QuadRow::ZERO)));
            }
        }
        out
    }

    #[target_feature(enable = "avx512f")]
    fn load(terms: &[[u8; QUAD]]) -> __m512i {
        assert_eq!(size_of_val(terms), size_of::<__m512i>());
        // SAFETY: the slice is as long as the vector, and the load asks for no alignment.
        unsafe { _mm512_loadu_si512(terms.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx512f")]
    fn store(out: &mut [i32], sums: __m512i) {
        assert_eq!(size_of_val(out), size_of::<__m512i>());
        // SAFETY: the slice is as long as the vector, and the store asks for no alignment.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), sums) }
    }
}
