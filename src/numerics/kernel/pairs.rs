//! Sums of products of bfloat16 by the instruction VDPBF16PS, which the order `dpbf16` is named after.
//!
//! It is not always the fastest way: some machines do four multiply-adds in the time of one pair of it. Where no sum comes near
//! the subnormal numbers, plain sums over the same walk have the same bits; it is for all others.

use std::{ops::Range, sync::OnceLock};

use super::{
    isa::Isa,
    packed::Store,
    panel::{Bf16Row, HALF, PANEL},
    task::{Activations, Out, Task},
};
use crate::numerics::{
    canonical, flush,
    format::Format,
    precision::{Product, Recipe, Storage},
};

/// Rows that one step takes together.
const ROWS: usize = 8;

/// The activations, in blocks of rows.
pub(super) struct PairRows {
    blocks: Vec<PairBlock>,
}

/// Rows that are taken together, packed pair after pair; a block taller than the rows that are left repeats the last one.
struct PairBlock {
    first: usize,
    rows: usize,
    height: usize,
    x: Vec<u32>,
}

impl PairRows {
    /// Packs rows of bfloat16.
    pub(super) fn new(activations: &Activations<'_, '_>) -> PairRows {
        let mut blocks = Vec::new();
        let mut first = 0;
        while first < activations.rows {
            let left = activations.rows - first;
            let height = match left {
                _ if activations.rows == 1 => 1,
                ..=4 => 4,
                _ => ROWS,
            };
            let rows = left.min(height);
            let mut x = vec![0; activations.depth.div_ceil(2) * height];
            for row in 0..height {
                let values = activations.row(first + row.min(rows - 1));
                for (x, pair) in x.iter_mut().skip(row).step_by(height).zip(values.chunks(2)) {
                    *x = pair_of(pair);
                }
            }
            blocks.push(PairBlock { first, rows, height, x });
            first += rows;
        }
        PairRows { blocks }
    }

    pub(super) fn multiply(&self, task: &Task<'_>, panels: Range<usize>, out: &mut Out<'_>) {
        let Store::Bf16(stored) = &task.weights.store else {
            unreachable!("a matrix of bfloat16 is packed as one");
        };
        for panel in panels {
            let rows = task.rows_of(stored, panel);
            let begin = task.begin(panel).0.map(flush::flush);
            for block in &self.blocks {
                let mut put = |sums: &mut [[f32; PANEL]]| {
                    task.round(task.recipe.result, sums);
                    for (row, values) in sums.iter().enumerate().take(block.rows) {
                        out.put(block.first + row, panel, values);
                    }
                };
                let odd_first = task.weights.walked;
                match block.height {
                    1 => put(&mut add_products::<1>(block.x.as_chunks().0, rows, odd_first, begin)),
                    4 => put(&mut add_products::<4>(block.x.as_chunks().0, rows, odd_first, begin)),
                    _ => put(&mut add_products::<ROWS>(block.x.as_chunks().0, rows, odd_first, begin)),
                }
            }
        }
    }
}

/// Two terms in one word, the even one in its low half. Where there is no odd one, -0 stands for it: its product with +0
/// changes no sum, not even -0.
fn pair_of(terms: &[f32]) -> u32 {
    let code = |term: usize| terms.get(term).unwrap_or(&-0.0).to_bits() >> 16;
    code(0) | (code(1) << 16)
}

/// Can these products be the instruction's on this machine, and are they?
pub(super) fn does(isa: Isa, recipe: &Recipe) -> bool {
    let its_own = recipe.product == Product::Fused
        && recipe.activations == Format::BF16
        && recipe.weights == Storage::Values(Format::BF16)
        && recipe.sum == Format::F32;
    its_own && is_there(isa)
}

/// Has this machine the instruction, with the edges that the definition has?
///
/// Its description leaves open whether a result is tiny before or after it is rounded. Where it is another maker's other
/// reading, the same bits come from other instructions.
fn is_there(isa: Isa) -> bool {
    static AS_DEFINED: OnceLock<bool> = OnceLock::new();
    isa == Isa::Avx512 && has_instruction() && *AS_DEFINED.get_or_init(is_as_defined)
}

#[cfg(target_arch = "x86_64")]
fn has_instruction() -> bool {
    std::arch::is_x86_feature_detected!("avx512bf16")
}

#[cfg(not(target_arch = "x86_64"))]
fn has_instruction() -> bool {
    false
}

/// Asks the instruction for sums of a smallest normal number and products around half of its last digit.
fn is_as_defined() -> bool {
    let power = |exponent: i32| f32::from_bits(((127 + exponent) as u32) << 23);
    let start: [f32; PANEL] = std::array::from_fn(|lane| {
        let size = f32::from_bits(f32::MIN_POSITIVE.to_bits() + lane as u32 % 3);
        if lane.is_multiple_of(2) { size } else { -size }
    });
    let odd: [f32; PANEL] = std::array::from_fn(|lane| power(-76 + lane as i32 / 6));
    let even = [power(-126); PANEL];
    [-1.0, 1.0].into_iter().all(|sign| {
        let x = [1.0, sign * power(-75)];
        let sums = add_products(&[[pair_of(&x)]], &[row_of(&odd), row_of(&even)], true, start);
        let defined = (0..PANEL)
            .map(|lane| flush::fused(x[0], even[lane], flush::fused(x[1], odd[lane], start[lane])).to_bits());
        sums[0].iter().map(|sum| sum.to_bits()).eq(defined)
    })
}

/// A term of 32 outputs.
fn row_of(values: &[f32; PANEL]) -> Bf16Row {
    Bf16Row(std::array::from_fn(|word| pair_of(&[values[word], values[word + HALF]])))
}

/// The sums of `R` rows with a panel, each output's begun at `start`. Of the panel's pairs the odd term stands first, or the even
/// one; the last term is alone if their number is odd.
fn add_products<const R: usize>(
    x: &[[u32; R]],
    panel: &[Bf16Row],
    odd_first: bool,
    start: [f32; PANEL],
) -> [[f32; PANEL]; R] {
    let mut sums = instruction::add_products(x, panel, odd_first, &start);
    sums.as_flattened_mut().iter_mut().for_each(|sum| *sum = canonical(*sum));
    sums
}

#[cfg(target_arch = "x86_64")]
mod instruction {
    #![allow(unsafe_code, reason = "the library of vectors has no instruction for products of bfloat16")]

    use std::arch::x86_64::{
        __m512, __m512bh, __m512i, _mm512_and_si512, _mm512_dpbf16_ps, _mm512_loadu_ps, _mm512_loadu_si512,
        _mm512_or_si512, _mm512_set1_epi32, _mm512_setzero_si512, _mm512_slli_epi32, _mm512_srli_epi32,
        _mm512_storeu_ps,
    };

    use super::{Bf16Row, HALF, PANEL};

    pub(super) fn add_products<const R: usize>(
        x: &[[u32; R]],
        panel: &[Bf16Row],
        odd_first: bool,
        start: &[f32; PANEL],
    ) -> [[f32; PANEL]; R] {
        // SAFETY: the caller has seen that the machine has the instructions.
        unsafe { add_products_bf16(x, panel, odd_first, start) }
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    fn add_products_bf16<const R: usize>(
        x: &[[u32; R]],
        panel: &[Bf16Row],
        odd_first: bool,
        start: &[f32; PANEL],
    ) -> [[f32; PANEL]; R] {
        let (low, high) = start.split_at(HALF);
        let mut sums = [[load(low), load(high)]; R];
        let (pairs, last) = panel.as_chunks::<2>();
        for (x, [first, second]) in x.iter().zip(pairs) {
            let (even, odd) = if odd_first { (second, first) } else { (first, second) };
            add(&mut sums, x, halves(row(even), row(odd)));
        }
        for (x, even) in x.iter().skip(pairs.len()).zip(last) {
            add(&mut sums, x, halves(row(even), _mm512_setzero_si512()));
        }
        let mut out = [[0.0; PANEL]; R];
        for (out, [low, high]) in out.iter_mut().zip(sums) {
            let (first, second) = out.split_at_mut(HALF);
            store(first, low);
            store(second, high);
        }
        out
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    fn add<const R: usize>(sums: &mut [[__m512; 2]; R], x: &[u32; R], [low, high]: [__m512i; 2]) {
        for (sums, x) in sums.iter_mut().zip(x) {
            let x = _mm512_set1_epi32(x.cast_signed());
            sums[0] = _mm512_dpbf16_ps(sums[0], pairs(x), pairs(low));
            sums[1] = _mm512_dpbf16_ps(sums[1], pairs(x), pairs(high));
        }
    }

    /// From a row of even terms and one of odd ones, pairs of both for the first half of the outputs and for the second.
    #[target_feature(enable = "avx512f")]
    fn halves(even: __m512i, odd: __m512i) -> [__m512i; 2] {
        let low = _mm512_set1_epi32(0xFFFF);
        let high = _mm512_slli_epi32::<16>(low);
        [
            _mm512_or_si512(_mm512_and_si512(even, low), _mm512_slli_epi32::<16>(odd)),
            _mm512_or_si512(_mm512_srli_epi32::<16>(even), _mm512_and_si512(odd, high)),
        ]
    }

    #[target_feature(enable = "avx512f,avx512bf16")]
    fn pairs(words: __m512i) -> __m512bh {
        // SAFETY: both are 512 bits, of which any are 32 numbers of bfloat16.
        unsafe { std::mem::transmute::<__m512i, __m512bh>(words) }
    }

    #[target_feature(enable = "avx512f")]
    fn row(row: &Bf16Row) -> __m512i {
        const { assert!(size_of::<[u32; HALF]>() == size_of::<__m512i>()) };
        // SAFETY: the row is as long as the vector, and the load asks for no alignment.
        unsafe { _mm512_loadu_si512(row.0.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx512f")]
    fn load(values: &[f32]) -> __m512 {
        assert_eq!(size_of_val(values), size_of::<__m512>());
        // SAFETY: the slice is as long as the vector, and the load asks for no alignment.
        unsafe { _mm512_loadu_ps(values.as_ptr()) }
    }

    #[target_feature(enable = "avx512f")]
    fn store(out: &mut [f32], sums: __m512) {
        assert_eq!(size_of_val(out), size_of::<__m512>());
        // SAFETY: the slice is as long as the vector, and the store asks for no alignment.
        unsafe { _mm512_storeu_ps(out.as_mut_ptr(), sums) }
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod instruction {
    use super::{Bf16Row, PANEL};

    pub(super) fn add_products<const R: usize>(
        _: &[[u32; R]],
        _: &[Bf16Row],
        _: bool,
        _: &[f32; PANEL],
    ) -> [[f32; PANEL]; R] {
        unreachable!("who asks has seen that the machine has the instruction")
    }
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;
    use crate::numerics::random::Stream;

    const KINDS: usize = 7;

    /// A number with any sign and significand and one of the exponents from this one up.
    fn number(bits: u64, exponent: u32, exponents: u32) -> u32 {
        (bits as u32 & 0x807F_FFFF) | ((exponent + (bits >> 32) as u32 % exponents) << 23)
    }

    /// A start, and four factors that are bfloat16 in their upper halves: of any size, of sizes that cancel, and around the edge where
    /// numbers become subnormal.
    fn draw(kind: usize, random: &mut Stream) -> (u32, [u32; 4]) {
        const LEAST: u32 = f32::MIN_POSITIVE.to_bits();
        let mut bits = || random.bits();
        let sign = |bits: u64| (bits >> 32) as u32 & 0x8000_0000;
        let edge = |bits: u64| sign(bits) | (LEAST + bits as u32 % 5 - 1);
        match kind {
            0 => (bits() as u32, [0; 4].map(|_| bits() as u32)),
            1 => (number(bits(), 96, 64), [0; 4].map(|_| number(bits(), 96, 64))),
            2 => (edge(bits()), [0; 4].map(|_| number(bits(), 45, 10))),
            3 => (edge(bits()), [0; 4].map(|_| number(bits(), 48, 6) & 0xFF80_0000)),
            4 => (number(bits(), 0, 3), [0; 4].map(|_| number(bits(), 60, 8))),
            5 => (number(bits(), 0, 40), [0; 4].map(|_| number(bits(), 0, 6))),
            _ => {
                const EDGES: [u32; 8] =
                    [0, 0x0001_0000, 0x007F_0000, LEAST, 0x3F80_0000, 0x7F7F_0000, 0x7F80_0000, 0x7FC0_0000];
                let mut one = || sign(bits()) | EDGES[bits() as usize % EDGES.len()];
                (one(), [0; 4].map(|_| one()))
            }
        }
    }

    /// Holds the instruction to the definition over so many random sums times 32, each kind of them in turn; tells how many
    /// came out as the smallest normal number.
    fn compare(rounds: usize) -> usize {
        let mut random = Stream::new(1, 0);
        let mut least = 0;
        for round in 0..rounds {
            let mut x = [0.0; 2];
            let (mut start, mut even, mut odd) = ([0.0; PANEL], [0.0; PANEL], [0.0; PANEL]);
            for lane in 0..PANEL {
                let (sum, factors) = draw(round % KINDS, &mut random);
                let factors = factors.map(|word| f32::from_bits(word & 0xFFFF_0000));
                (start[lane], x) = (f32::from_bits(sum), [factors[0], factors[1]]);
                (even[lane], odd[lane]) = (factors[2], factors[3]);
            }
            let sums = add_products(&[[pair_of(&x)]], &[row_of(&even), row_of(&odd)], false, start);
            for lane in 0..PANEL {
                let defined = flush::fused(x[0], even[lane], flush::fused(x[1], odd[lane], start[lane]));
                let [got, expected] = [sums[0][lane], canonical(defined)].map(f32::to_bits);
                assert_eq!(got, expected, "{:e} {x:?} {:e} {:e}", start[lane], even[lane], odd[lane]);
                least += usize::from(defined.abs() == f32::MIN_POSITIVE);
            }
        }
        least
    }

    #[test]
    fn the_instruction_adds_as_the_definition_does() {
        if has_instruction() {
            assert!(is_as_defined() && is_there(Isa::Avx512));
            assert!(compare(7_000) > 1_000);
        }
        assert!(!is_there(Isa::Avx2));
    }

    #[test]
    #[ignore = "sixty million sums take minutes"]
    fn the_instruction_adds_as_the_definition_does_sixty_million_times() {
        if has_instruction() {
            assert!(compare(2_000_000) > 100_000);
        }
    }
}
