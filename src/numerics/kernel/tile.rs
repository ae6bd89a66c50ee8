//! The fast kernel's inner loops: a block of rows times a panel, one lane per output element.
//!
//! A [`Tile`] is an [`Adder`] whose partial sums are registers full of outputs. Which output a lane holds
//! changes with the width of the vectors; in which order that output's terms are added does not.

#![expect(clippy::needless_range_loop, reason = "the loops run over several arrays of registers at once")]

use std::{marker::PhantomData, ops::Range};

use pulp::{Simd, WithSimd};

use super::panel::{Bf16Row, FloatRow, PANEL};
use crate::numerics::{
    format::{INFINITY, LARGEST_FINITE, Lanes, NAN, SIGN, SMALLEST_NORMAL},
    order::{Adder, Leaves, tree_of_leaves},
    product::LMul,
};

/// Whether several rows share a tile: where a step is long it hardly pays to load the weights once for all of them, and
/// every tile is compiled for every instruction set.
#[derive(Clone, Copy)]
pub(super) enum Steps {
    Short,
    /// Short along runs of plain additions, and nowhere else.
    ShortInRuns,
    Long,
}

impl Steps {
    pub(super) const fn are_shared(self, plain_run: bool) -> bool {
        match self {
            Steps::Short => true,
            Steps::ShortInRuns => plain_run,
            Steps::Long => false,
        }
    }
}

/// How terms are formed and sums rounded, on vectors: each the twin of one in the definition.
pub(super) trait Arithmetic: Copy {
    const STEPS: Steps = Steps::Long;

    /// What every result rounds to.
    #[inline(always)]
    fn round<S: Simd>(self, _: S, value: S::f32s) -> S::f32s {
        value
    }

    /// A running sum's step.
    #[inline(always)]
    fn step<S: Simd>(self, simd: S, sum: S::f32s, x: S::f32s, w: S::f32s) -> S::f32s {
        self.round(simd, simd.mul_add_f32s(x, w, sum))
    }

    /// The same without subnormal numbers; `sum` is none.
    #[inline(always)]
    fn step_of_dot<S: Simd>(self, simd: S, sum: S::f32s, x: S::f32s, w: S::f32s) -> S::f32s {
        let (x, w) = (flush(simd, x), flush(simd, w));
        let value = simd.mul_add_f32s(x, w, sum);
        // Once more 2^64 times as large, where exponents go on below the smallest normal number. Where that overflows,
        // the value is zero or far from tiny; infinity and NaN are not less than anything.
        let [up, up_twice] = [32, 64].map(|exponent| simd.splat_f32s(power_of_two(exponent)));
        let larger =
            simd.mul_add_f32s(simd.mul_f32s(x, up), simd.mul_f32s(w, up), simd.mul_f32s(sum, up_twice));
        let size =
            simd.transmute_f32s_u32s(simd.and_u32s(simd.transmute_u32s_f32s(larger), simd.splat_u32s(!SIGN)));
        let tiny = simd.less_than_f32s(size, simd.splat_f32s(power_of_two(64 - 126)));
        self.round(simd, zero_where(simd, tiny, value))
    }

    /// A term on its own.
    #[inline(always)]
    fn term<S: Simd>(self, simd: S, x: S::f32s, w: S::f32s) -> S::f32s {
        self.round(simd, simd.mul_f32s(x, w))
    }

    #[inline(always)]
    fn add<S: Simd>(self, simd: S, a: S::f32s, b: S::f32s) -> S::f32s {
        self.round(simd, simd.add_f32s(a, b))
    }

    #[inline(always)]
    fn sub<S: Simd>(self, simd: S, a: S::f32s, b: S::f32s) -> S::f32s {
        self.round(simd, simd.sub_f32s(a, b))
    }
}

const fn power_of_two(exponent: i32) -> f32 {
    f32::from_bits(((127 + exponent) as u32) << 23)
}

/// Zero with the value's sign there, and the value elsewhere.
#[inline(always)]
fn zero_where<S: Simd>(simd: S, there: S::m32s, value: S::f32s) -> S::f32s {
    let word = simd.transmute_u32s_f32s(value);
    let zero = simd.and_u32s(word, simd.splat_u32s(SIGN));
    simd.transmute_f32s_u32s(simd.select_u32s(there, zero, word))
}

/// The value, and zero with its sign for a subnormal number.
#[inline(always)]
fn flush<S: Simd>(simd: S, value: S::f32s) -> S::f32s {
    let magnitude = simd.and_u32s(simd.transmute_u32s_f32s(value), simd.splat_u32s(!SIGN));
    zero_where(simd, simd.less_than_u32s(magnitude, simd.splat_u32s(SMALLEST_NORMAL)), value)
}

/// Fused multiply-add in f32.
#[derive(Clone, Copy)]
pub(super) struct Fused;

impl Arithmetic for Fused {
    const STEPS: Steps = Steps::Short;
}

/// Fused multiply-add in f32, each result rounded to bfloat16.
#[derive(Clone, Copy)]
pub(super) struct FusedBf16;

impl Arithmetic for FusedBf16 {
    const STEPS: Steps = Steps::ShortInRuns;

    #[inline(always)]
    fn round<S: Simd>(self, simd: S, value: S::f32s) -> S::f32s {
        let word = simd.transmute_u32s_f32s(value);
        // Half a unit, less one where the kept part is even: what carries is what rounds up.
        let odd = simd.and_u32s(simd.wrapping_dyn_shr_u32s(word, simd.splat_u32s(16)), simd.splat_u32s(1));
        let nudged = simd.add_u32s(simd.add_u32s(word, simd.splat_u32s(0x7FFF)), odd);
        let rounded = simd.and_u32s(nudged, simd.splat_u32s(0xFFFF_0000));
        let magnitude = simd.and_u32s(word, simd.splat_u32s(!SIGN));
        let nan = simd.greater_than_u32s(magnitude, simd.splat_u32s(INFINITY));
        simd.transmute_f32s_u32s(simd.select_u32s(nan, simd.splat_u32s(NAN), rounded))
    }
}

/// Fused multiply-add in f32, each result rounded to IEEE half.
#[derive(Clone, Copy)]
pub(super) struct FusedF16;

impl Arithmetic for FusedF16 {
    const STEPS: Steps = Steps::ShortInRuns;

    #[inline(always)]
    fn round<S: Simd>(self, simd: S, value: S::f32s) -> S::f32s {
        let word = simd.transmute_u32s_f32s(value);
        let sign = simd.and_u32s(word, simd.splat_u32s(SIGN));
        let magnitude = simd.and_u32s(word, simd.splat_u32s(!SIGN));
        // Adding 1.5 * 2^13 times the leading power of two leaves ten bits behind it, and the smallest
        // normal half's leading power leaves the subnormals' grid.
        let power = simd.and_u32s(word, simd.splat_u32s(INFINITY));
        let power = simd.max_u32s(power, simd.splat_u32s((127 - 14) << 23));
        let power = simd.min_u32s(power, simd.splat_u32s((127 + 16) << 23));
        let magic = simd.transmute_f32s_u32s(simd.add_u32s(power, simd.splat_u32s((13 << 23) | (1 << 22))));
        let magnitude = simd.transmute_f32s_u32s(magnitude);
        let rounded = simd.sub_f32s(simd.add_f32s(magnitude, magic), magic);
        let overflows = simd.greater_than_f32s(rounded, simd.splat_f32s(65504.0));
        let rounded = simd.select_f32s(overflows, simd.splat_f32s(f32::INFINITY), rounded);
        simd.transmute_f32s_u32s(simd.or_u32s(simd.transmute_u32s_f32s(rounded), sign))
    }
}

/// Fused multiply-add in f32, each result rounded to nearest even in any format.
#[derive(Clone, Copy)]
pub(super) struct FusedRounded(pub(super) Lanes);

impl Arithmetic for FusedRounded {
    const STEPS: Steps = Steps::ShortInRuns;

    #[inline(always)]
    fn round<S: Simd>(self, simd: S, value: S::f32s) -> S::f32s {
        self.0.round_all(simd, value)
    }
}

/// A product that is a number of its own, added as it is.
pub(super) trait Multiply: Copy {
    const STEPS: Steps = Steps::Long;

    fn multiply<S: Simd>(self, simd: S, x: S::f32s, w: S::f32s) -> S::f32s;
}

/// The arithmetic of such a product, in f32.
#[derive(Clone, Copy)]
pub(super) struct Added<M>(M);

impl<M: Multiply> Arithmetic for Added<M> {
    const STEPS: Steps = M::STEPS;

    #[inline(always)]
    fn step<S: Simd>(self, simd: S, sum: S::f32s, x: S::f32s, w: S::f32s) -> S::f32s {
        simd.add_f32s(sum, self.0.multiply(simd, x, w))
    }

    #[inline(always)]
    fn step_of_dot<S: Simd>(self, simd: S, sum: S::f32s, x: S::f32s, w: S::f32s) -> S::f32s {
        // A product is no subnormal number either, and then a sum as small as one is exact.
        flush(simd, self.step(simd, sum, x, w))
    }

    #[inline(always)]
    fn term<S: Simd>(self, simd: S, x: S::f32s, w: S::f32s) -> S::f32s {
        self.0.multiply(simd, x, w)
    }
}

/// L-Mul's bit trick where x is never zero, no factor subnormal, infinite or NaN, no product out of range, and
/// no sum begins at -0: the sum of the words is then the word of the product, sign and all. Zeros in w are
/// looked at only if there are any; the sign of what they give cannot be seen in a sum.
#[derive(Clone, Copy)]
pub(super) struct LMulWords<const ZEROS: bool> {
    offset: u32,
}

impl<const ZEROS: bool> LMulWords<ZEROS> {
    pub(super) fn of(product: LMul) -> Added<Self> {
        Added(LMulWords { offset: product.offset() })
    }
}

impl<const ZEROS: bool> Multiply for LMulWords<ZEROS> {
    const STEPS: Steps = Steps::Short;

    #[inline(always)]
    fn multiply<S: Simd>(self, simd: S, x: S::f32s, w: S::f32s) -> S::f32s {
        let zero = simd.equal_f32s(w, simd.splat_f32s(0.0));
        let x = simd.sub_u32s(simd.transmute_u32s_f32s(x), simd.splat_u32s(self.offset));
        let term = simd.transmute_f32s_u32s(simd.add_u32s(x, simd.transmute_u32s_f32s(w)));
        if ZEROS { simd.select_f32s(zero, simd.splat_f32s(0.0), term) } else { term }
    }
}

/// L-Mul's bit trick with all its edges.
#[derive(Clone, Copy)]
pub(super) struct LMulEdges {
    offset: u32,
}

impl LMulEdges {
    pub(super) fn of(product: LMul) -> Added<Self> {
        Added(LMulEdges { offset: product.offset() })
    }
}

impl Multiply for LMulEdges {
    const STEPS: Steps = Steps::ShortInRuns;

    #[inline(always)]
    fn multiply<S: Simd>(self, simd: S, x: S::f32s, w: S::f32s) -> S::f32s {
        let (magnitudes, edges) = Edges::of(simd, x, w);
        let sum = simd.add_u32s(magnitudes.0, magnitudes.1);
        let offset = simd.splat_u32s(self.offset);
        let too_small = simd.less_than_u32s(sum, simd.splat_u32s(self.offset + SMALLEST_NORMAL));
        // Of no concern where it wraps: that is where it is too small.
        let word = simd.min_u32s(simd.sub_u32s(sum, offset), simd.splat_u32s(LARGEST_FINITE));
        edges.finish(simd, simd.select_u32s(too_small, simd.splat_u32s(0), word))
    }
}

/// L-Mul's printed formula with all its edges.
#[derive(Clone, Copy)]
pub(super) struct LMulFormula {
    correction: f32,
}

impl LMulFormula {
    pub(super) fn of(product: LMul) -> Added<Self> {
        // 2^-l.
        let correction = 1_f32.to_bits() - (product.correction_exponent() << 23);
        Added(LMulFormula { correction: f32::from_bits(correction) })
    }
}

impl Multiply for LMulFormula {
    #[inline(always)]
    fn multiply<S: Simd>(self, simd: S, x: S::f32s, w: S::f32s) -> S::f32s {
        let (magnitudes, edges) = Edges::of(simd, x, w);
        let one = simd.splat_f32s(1.0);
        let mantissa = |word| {
            let fraction = simd.and_u32s(word, simd.splat_u32s(0x007F_FFFF));
            simd.transmute_f32s_u32s(simd.or_u32s(fraction, simd.transmute_u32s_f32s(one)))
        };
        let corrected =
            simd.add_f32s(simd.sub_f32s(mantissa(magnitudes.1), one), simd.splat_f32s(self.correction));
        let sum = simd.transmute_u32s_f32s(simd.add_f32s(mantissa(magnitudes.0), corrected));
        let exponents = simd.splat_u32s(INFINITY);
        let exponents =
            simd.add_u32s(simd.and_u32s(magnitudes.0, exponents), simd.and_u32s(magnitudes.1, exponents));
        // The word is sum + exponents - 2 * 127 << 23; compared before the subtraction can wrap. Both
        // exponents are at most 254 and the sum's is 127 or 128, so the addition may wrap: halve first.
        let half = |word| simd.wrapping_dyn_shr_u32s(word, simd.splat_u32s(1));
        let halved = simd.add_u32s(half(simd.and_u32s(sum, simd.splat_u32s(INFINITY))), half(exponents));
        let too_small = simd.less_than_u32s(halved, simd.splat_u32s((2 * 127 + 1) << 22));
        let too_large = simd.greater_than_u32s(halved, simd.splat_u32s((2 * 127 + 254) << 22));
        let word = simd.sub_u32s(simd.add_u32s(sum, exponents), simd.splat_u32s((2 * 127) << 23));
        let word = simd.select_u32s(too_large, simd.splat_u32s(LARGEST_FINITE), word);
        edges.finish(simd, simd.select_u32s(too_small, simd.splat_u32s(0), word))
    }
}

/// What L-Mul does with factors that are no normal numbers.
struct Edges<S: Simd> {
    sign: S::u32s,
    smaller: S::u32s,
    larger: S::u32s,
}

impl<S: Simd> Edges<S> {
    /// The magnitudes of both factors, and what else is known of them.
    #[inline(always)]
    fn of(simd: S, x: S::f32s, w: S::f32s) -> ((S::u32s, S::u32s), Self) {
        let (x, w) = (simd.transmute_u32s_f32s(x), simd.transmute_u32s_f32s(w));
        let sign = simd.and_u32s(simd.xor_u32s(x, w), simd.splat_u32s(SIGN));
        let magnitude = simd.splat_u32s(!SIGN);
        let (x, w) = (simd.and_u32s(x, magnitude), simd.and_u32s(w, magnitude));
        ((x, w), Edges { sign, smaller: simd.min_u32s(x, w), larger: simd.max_u32s(x, w) })
    }

    /// The product, its magnitude being right for normal factors.
    #[inline(always)]
    fn finish(self, simd: S, word: S::u32s) -> S::f32s {
        let zero = simd.less_than_u32s(self.smaller, simd.splat_u32s(SMALLEST_NORMAL));
        let word = simd.select_u32s(zero, simd.splat_u32s(0), word);
        let word = simd.or_u32s(word, self.sign);
        let nan = simd.greater_than_u32s(self.larger, simd.splat_u32s(LARGEST_FINITE));
        simd.transmute_f32s_u32s(simd.select_u32s(nan, simd.splat_u32s(NAN), word))
    }
}

/// A row of a panel, widened to f32 in registers.
pub(super) trait Row {
    /// One vector of each half, or, if `V` is 1, of one half: the groups of the first come first.
    fn load<S: Simd, const V: usize>(&self, simd: S, group: usize) -> [S::f32s; V];
}

impl Row for FloatRow {
    #[inline(always)]
    fn load<S: Simd, const V: usize>(&self, simd: S, group: usize) -> [S::f32s; V] {
        let row = S::as_simd_f32s(&self.0).0;
        let mut vectors = [simd.splat_f32s(0.0); V];
        for half in 0..V {
            vectors[half] = row[group + half * groups::<S, 2>()];
        }
        vectors
    }
}

impl Row for Bf16Row {
    #[inline(always)]
    fn load<S: Simd, const V: usize>(&self, simd: S, group: usize) -> [S::f32s; V] {
        let words = S::as_simd_u32s(&self.0).0[group % groups::<S, 2>()];
        let low = simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(words, simd.splat_u32s(16)));
        let high = simd.transmute_f32s_u32s(simd.and_u32s(words, simd.splat_u32s(0xFFFF_0000)));
        let mut vectors = [if group < groups::<S, 2>() { low } else { high }; V];
        if V == 2 {
            vectors[1] = high;
        }
        vectors
    }
}

/// How many rows ahead of the one in use to ask the memory for: far enough to hide it behind the work, where
/// the hardware's own look-ahead stops at the end of a page.
pub(super) const AHEAD: usize = 16;

/// Asks for a row that need not be there.
#[inline(always)]
pub(super) fn prefetch<W>(row: *const W) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        #[allow(unsafe_code, reason = "the library of vectors has no way to ask the memory for data early")]
        for line in 0..size_of::<W>().div_ceil(64) {
            // SAFETY: a prefetch reads nothing and faults at no address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(row.cast::<i8>().wrapping_add(64 * line)) }
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = row;
}

/// Tiles of `V` vectors in a panel's row.
pub(super) const fn groups<S: Simd, const V: usize>() -> usize {
    PANEL / S::F32_LANES / V
}

/// How the additions of a running sum are carried out.
///
/// Methods, not closures: the vector code is only as good as its inlining, and a closure's cannot be forced.
pub(super) trait Running {
    /// Does it take part in balanced trees?
    const TREES: bool = false;
    /// Do its sums leave registers for tall tiles?
    const TALL: bool = false;

    /// What a running sum begins at, if it is to begin at `start`.
    #[inline(always)]
    fn begin<S: Simd>(_: S, start: S::f32s) -> S::f32s {
        start
    }

    /// Adds the term of `x` and `w`; `lost` is what compensation remembers.
    fn step<S: Simd, A: Arithmetic>(
        simd: S,
        arithmetic: A,
        sum: &mut S::f32s,
        lost: &mut S::f32s,
        x: S::f32s,
        w: S::f32s,
    );

    /// The end of the running sum.
    #[inline(always)]
    fn finish<S: Simd, A: Arithmetic>(_: S, _: A, sum: S::f32s, _: S::f32s) -> S::f32s {
        sum
    }
}

/// Partial sums: `V` vectors for each of `R` rows and `P` panels. Aligned, since they pass through memory where
/// an order joins them, and a vector across two cache lines is slow there.
#[derive(Clone, Copy)]
#[repr(align(64))]
pub(super) struct Sums<S: Simd, const R: usize, const P: usize, const V: usize>(
    pub(super) [[[S::f32s; V]; R]; P],
);

/// `R` rows times one group of `P` panels.
pub(super) struct Tile<'a, S: Simd, A, W, U, const R: usize, const P: usize, const V: usize> {
    pub(super) simd: S,
    pub(super) arithmetic: A,
    /// The activations, term after term, in walking order.
    pub(super) x: &'a [[f32; R]],
    /// The panels' rows, in walking order.
    pub(super) panels: [&'a [W]; P],
    pub(super) group: usize,
    /// What each panel's sums begin at.
    pub(super) start: &'a [FloatRow; P],
    pub(super) running: PhantomData<U>,
}

impl<S, A, W, U, const R: usize, const P: usize, const V: usize> Adder for Tile<'_, S, A, W, U, R, P, V>
where
    S: Simd,
    A: Arithmetic,
    W: Row,
    U: Running,
{
    type Sum = Sums<S, R, P, V>;

    // Runs and trees are functions of their own, of which nothing is left to inline: only there are the sums
    // sure to stay in registers, whatever becomes of them later.
    #[inline(always)]
    fn run(&mut self, positions: Range<usize>) -> Self::Sum {
        self.simd.vectorize(Run { tile: self, positions })
    }

    #[inline(always)]
    fn tree(&mut self, positions: Range<usize>) -> Self::Sum {
        if U::TREES {
            self.simd.vectorize(Leafage { tile: self, positions })
        } else {
            unreachable!("a tile without trees is given an order without them")
        }
    }

    #[inline(always)]
    fn join(&mut self, left: Self::Sum, right: Self::Sum) -> Self::Sum {
        self.joined(left, right)
    }
}

/// A running sum.
struct Run<'t, 'a, S: Simd, A, W, U, const R: usize, const P: usize, const V: usize> {
    tile: &'t Tile<'a, S, A, W, U, R, P, V>,
    positions: Range<usize>,
}

impl<S, A, W, U, const R: usize, const P: usize, const V: usize> WithSimd for Run<'_, '_, S, A, W, U, R, P, V>
where
    S: Simd,
    A: Arithmetic,
    W: Row,
    U: Running,
{
    type Output = Sums<S, R, P, V>;

    #[inline(always)]
    fn with_simd<T: Simd>(self, _: T) -> Self::Output {
        let Run { tile, positions } = self;
        let (simd, arithmetic) = (tile.simd, tile.arithmetic);
        let mut sums = tile.begin(positions.start);
        for panel in 0..P {
            for row in 0..R {
                for half in 0..V {
                    let sum = &mut sums.0[panel][row][half];
                    *sum = U::begin(simd, *sum);
                }
            }
        }
        let mut lost = [[[simd.splat_f32s(0.0); V]; R]; P];
        let x = &tile.x[positions.clone()];
        let panels = tile.panels.map(|panel| &panel[positions.clone()]);
        for (index, x) in x.iter().enumerate() {
            for panel in 0..P {
                prefetch(panels[panel].as_ptr().wrapping_add(index + AHEAD));
                let w: [S::f32s; V] = panels[panel][index].load(simd, tile.group);
                for row in 0..R {
                    let x = simd.splat_f32s(x[row]);
                    let (sum, lost) = (&mut sums.0[panel][row], &mut lost[panel][row]);
                    for half in 0..V {
                        U::step(simd, arithmetic, &mut sum[half], &mut lost[half], x, w[half]);
                    }
                }
            }
        }
        for panel in 0..P {
            for row in 0..R {
                for half in 0..V {
                    let sum = &mut sums.0[panel][row][half];
                    *sum = U::finish(simd, arithmetic, *sum, lost[panel][row][half]);
                }
            }
        }
        sums
    }
}

/// A balanced tree over a few terms.
struct Leafage<'t, 'a, S: Simd, A, W, U, const R: usize, const P: usize, const V: usize> {
    tile: &'t Tile<'a, S, A, W, U, R, P, V>,
    positions: Range<usize>,
}

impl<S, A, W, U, const R: usize, const P: usize, const V: usize> WithSimd
    for Leafage<'_, '_, S, A, W, U, R, P, V>
where
    S: Simd,
    A: Arithmetic,
    W: Row,
{
    type Output = Sums<S, R, P, V>;

    #[inline(always)]
    fn with_simd<T: Simd>(self, _: T) -> Self::Output {
        let Leafage { tile, positions } = self;
        let x = &tile.x[positions.clone()];
        let panels = tile.panels.map(|panel| &panel[positions.clone()]);
        if tile.group == 0 {
            for panel in panels {
                panel.iter().for_each(|row| prefetch(std::ptr::from_ref(row).wrapping_add(AHEAD)));
            }
        }
        tree_of_leaves(&mut InRegisters { tile, x, panels, first: positions.start }, x.len())
    }
}

/// The terms of a tree in registers.
struct InRegisters<'t, 'a, S: Simd, A, W, U, const R: usize, const P: usize, const V: usize> {
    tile: &'t Tile<'a, S, A, W, U, R, P, V>,
    x: &'a [[f32; R]],
    panels: [&'a [W]; P],
    first: usize,
}

impl<S, A, W, U, const R: usize, const P: usize, const V: usize> Leaves
    for InRegisters<'_, '_, S, A, W, U, R, P, V>
where
    S: Simd,
    A: Arithmetic,
    W: Row,
{
    type Sum = Sums<S, R, P, V>;

    #[inline(always)]
    fn leaf(&mut self, offset: usize) -> Self::Sum {
        let tile = self.tile;
        // Only the first of a tree's terms can be the first of all.
        let mut sums = if offset == 0 { tile.begin(self.first) } else { tile.zero() };
        let x = &self.x[offset];
        for panel in 0..P {
            let w: [S::f32s; V] = self.panels[panel][offset].load(tile.simd, tile.group);
            for row in 0..R {
                let x = tile.simd.splat_f32s(x[row]);
                for half in 0..V {
                    let sum = &mut sums.0[panel][row][half];
                    *sum = tile.arithmetic.step(tile.simd, *sum, x, w[half]);
                }
            }
        }
        sums
    }

    #[inline(always)]
    fn join(&mut self, left: Self::Sum, right: Self::Sum) -> Self::Sum {
        self.tile.joined(left, right)
    }
}

impl<S, A, W, U, const R: usize, const P: usize, const V: usize> Tile<'_, S, A, W, U, R, P, V>
where
    S: Simd,
    A: Arithmetic,
    W: Row,
{
    #[inline(always)]
    fn joined(&self, mut left: Sums<S, R, P, V>, right: Sums<S, R, P, V>) -> Sums<S, R, P, V> {
        for panel in 0..P {
            for row in 0..R {
                for half in 0..V {
                    let left = &mut left.0[panel][row][half];
                    *left = self.arithmetic.add(self.simd, *left, right.0[panel][row][half]);
                }
            }
        }
        left
    }

    #[inline(always)]
    fn zero(&self) -> Sums<S, R, P, V> {
        Sums([[[self.simd.splat_f32s(0.0); V]; R]; P])
    }

    /// What a running sum from this position begins at.
    #[inline(always)]
    fn begin(&self, position: usize) -> Sums<S, R, P, V> {
        let mut sums = self.zero();
        if position == 0 {
            for (sums, start) in sums.0.iter_mut().zip(self.start) {
                let mut start = start.load(self.simd, self.group);
                for start in &mut start {
                    *start = self.arithmetic.round(self.simd, *start);
                }
                *sums = [start; R];
            }
        }
        sums
    }
}

/// Add and round, along a run or in balanced trees.
pub(super) struct Rounded<const TREES: bool>;

/// Add and round, along a run.
pub(super) type Plain = Rounded<false>;

/// Add and round, in balanced trees.
pub(super) type Trees = Rounded<true>;

impl<const TREES: bool> Running for Rounded<TREES> {
    const TREES: bool = TREES;
    const TALL: bool = !TREES;

    #[inline(always)]
    fn step<S: Simd, A: Arithmetic>(
        simd: S,
        arithmetic: A,
        sum: &mut S::f32s,
        _: &mut S::f32s,
        x: S::f32s,
        w: S::f32s,
    ) {
        *sum = arithmetic.step(simd, *sum, x, w);
    }
}

/// Kahan's compensated addition.
pub(super) struct Kahan;

impl Running for Kahan {
    #[inline(always)]
    fn step<S: Simd, A: Arithmetic>(
        simd: S,
        arithmetic: A,
        sum: &mut S::f32s,
        lost: &mut S::f32s,
        x: S::f32s,
        w: S::f32s,
    ) {
        let term = arithmetic.sub(simd, arithmetic.term(simd, x, w), *lost);
        let next = arithmetic.add(simd, *sum, term);
        *lost = arithmetic.sub(simd, arithmetic.sub(simd, next, *sum), term);
        *sum = next;
    }
}

/// Neumaier's: the losses are summed apart and added at the end.
pub(super) struct Neumaier;

impl Running for Neumaier {
    #[inline(always)]
    fn step<S: Simd, A: Arithmetic>(
        simd: S,
        arithmetic: A,
        sum: &mut S::f32s,
        lost: &mut S::f32s,
        x: S::f32s,
        w: S::f32s,
    ) {
        let term = arithmetic.term(simd, x, w);
        let next = arithmetic.add(simd, *sum, term);
        let added = arithmetic.sub(simd, next, *sum);
        let lost_sum = arithmetic.sub(simd, *sum, arithmetic.sub(simd, next, added));
        let lost_term = arithmetic.sub(simd, term, added);
        *lost = arithmetic.add(simd, *lost, arithmetic.add(simd, lost_sum, lost_term));
        *sum = next;
    }

    #[inline(always)]
    fn finish<S: Simd, A: Arithmetic>(simd: S, arithmetic: A, sum: S::f32s, lost: S::f32s) -> S::f32s {
        arithmetic.add(simd, sum, lost)
    }
}

/// VDPBF16PS's, by instructions that every machine has.
pub(super) struct DotBf16;

impl Running for DotBf16 {
    #[inline(always)]
    fn begin<S: Simd>(simd: S, start: S::f32s) -> S::f32s {
        flush(simd, start)
    }

    #[inline(always)]
    fn step<S: Simd, A: Arithmetic>(
        simd: S,
        arithmetic: A,
        sum: &mut S::f32s,
        _: &mut S::f32s,
        x: S::f32s,
        w: S::f32s,
    ) {
        *sum = arithmetic.step_of_dot(simd, *sum, x, w);
    }
}

/// Writes a tile's sums to the rows of one panel of outputs each, every NaN as the one there is.
#[inline(always)]
pub(super) fn store<S: Simd, const R: usize, const P: usize, const V: usize>(
    simd: S,
    sums: &Sums<S, R, P, V>,
    group: usize,
    out: &mut [[[f32; PANEL]; R]; P],
) {
    for (sums, out) in sums.0.as_flattened().iter().zip(out.as_flattened_mut()) {
        let vectors = S::as_mut_simd_f32s(out).0;
        for half in 0..V {
            vectors[group + half * groups::<S, 2>()] = canonical(simd, sums[half]);
        }
    }
}

/// Every NaN as the one there is.
#[inline(always)]
pub(super) fn canonical<S: Simd>(simd: S, value: S::f32s) -> S::f32s {
    let word = simd.transmute_u32s_f32s(value);
    let magnitude = simd.and_u32s(word, simd.splat_u32s(!SIGN));
    let nan = simd.greater_than_u32s(magnitude, simd.splat_u32s(INFINITY));
    simd.transmute_f32s_u32s(simd.select_u32s(nan, simd.splat_u32s(NAN), word))
}
