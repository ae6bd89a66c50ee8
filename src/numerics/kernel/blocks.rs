//! Weights that stay as they are stored: the bytes of 32 outputs side by side, widened to f32 where they are multiplied.
//!
//! Byte j of a block of all outputs of a panel is one row of bytes, so that one formula gives a term of all of them at once:
//! what [`BlockFormat::dequantize`] gives, bit for bit. Only the last product of a term may round, and only with its minimum:
//! so it may be fused.

use std::marker::PhantomData;

use bytemuck::{Pod, Zeroable};
use pulp::{Simd, WithSimd};

use super::{
    Encoding, Isa, Source,
    panel::{Bound, FloatRow, PANEL},
    tile::{canonical, prefetch},
};
use crate::numerics::{
    block::{BlockFormat, WORTH},
    format::{Format, widen_f16},
};

/// One byte of 32 outputs.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(32))]
pub(super) struct ByteRow(pub(super) [u8; PANEL]);

/// How many of them the memory brings at once.
const ROWS_OF_A_LINE: usize = 64 / PANEL;
/// How many of them ahead of those in use to ask the memory for: its own look-ahead stops at the end of a page.
const AHEAD: usize = 128;

/// Panels of outputs, each in what its outputs are stored in. Where these differ, the panel is in f32.
#[derive(Clone, Debug)]
pub(super) struct Kept {
    rows: Vec<ByteRow>,
    panels: Vec<Panel>,
}

#[derive(Clone, Copy, Debug)]
struct Panel {
    /// Where its rows begin.
    first: usize,
    encoding: Encoding,
}

impl Kept {
    /// Room for outputs of these encodings.
    pub(super) fn new(encodings: &[Encoding], depth: usize) -> Kept {
        let panels = encodings.chunks(PANEL).scan(0, |rows, outputs| {
            let encoding = common(outputs).unwrap_or(Encoding::Values(Format::F32));
            let first = *rows;
            *rows += rows_of(encoding, depth);
            Some(Panel { first, encoding })
        });
        let panels: Vec<_> = panels.collect();
        let all = panels.last().map_or(0, |last| last.first + rows_of(last.encoding, depth));
        Kept { rows: vec![ByteRow([0; PANEL]); all], panels }
    }

    /// Takes every output from the source; tells what there is to know of each, if that is asked for.
    pub(super) fn fill(
        &mut self,
        encodings: &[Encoding],
        depth: usize,
        source: &mut dyn Source,
        mut bounds: Option<&mut [Bound]>,
    ) {
        let (mut terms, mut bytes) = (vec![0.0; depth], Vec::new());
        for (output, &stored) in encodings.iter().enumerate() {
            let Panel { first, encoding } = self.panels[output / PANEL];
            bytes.resize(rows_of(encoding, depth), 0);
            match (stored, encoding) {
                (Encoding::Blocks(_), Encoding::Blocks(_)) => {
                    source.blocks(output, &mut bytes, &mut terms);
                }
                (_, Encoding::Values(format)) => {
                    source.values(output, &mut terms);
                    let codes = bytes.chunks_exact_mut(encoding.bytes());
                    for (code, &term) in codes.zip(&terms) {
                        code.copy_from_slice(&format.encode(term).to_le_bytes()[..code.len()]);
                    }
                }
                (Encoding::Values(_), Encoding::Blocks(_)) => {
                    unreachable!("a panel of blocks has no other output")
                }
            }
            if let Some(bounds) = &mut bounds {
                bounds[output] = Bound::of(&terms);
            }
            for (row, &byte) in self.rows[first..].iter_mut().zip(&bytes) {
                row.0[output % PANEL] = byte;
            }
        }
    }

    /// Writes the terms of a panel.
    pub(super) fn widen(&self, isa: Isa, panel: usize, out: &mut [FloatRow]) {
        let (encoding, rows) = self.panel(panel, out.len());
        with_layout!(encoding, L => isa.dispatch(Widen::<L> { rows, out, layout: PhantomData }));
    }

    /// Adds the products of a row of activations with the terms of a panel to these sums, one after the other.
    pub(super) fn multiply(&self, isa: Isa, panel: usize, x: &[f32], sums: &mut FloatRow) {
        let (encoding, rows) = self.panel(panel, x.len());
        with_layout!(encoding, L => isa.dispatch(Multiply::<L> { rows, x, sums, layout: PhantomData }));
    }

    fn panel(&self, panel: usize, depth: usize) -> (Encoding, &[ByteRow]) {
        let Panel { first, encoding } = self.panels[panel];
        (encoding, &self.rows[first..][..rows_of(encoding, depth)])
    }

    /// One output's terms.
    pub(super) fn column(&self, output: usize, out: &mut [f32]) {
        let (encoding, rows) = self.panel(output / PANEL, out.len());
        let bytes: Vec<u8> = rows.iter().map(|row| row.0[output % PANEL]).collect();
        match encoding {
            Encoding::Blocks(format) => format.dequantize(&bytes, out),
            Encoding::Values(format) => {
                for (out, code) in out.iter_mut().zip(bytes.chunks_exact(encoding.bytes())) {
                    let code = code.iter().rev().fold(0, |code, &byte| code << 8 | u32::from(byte));
                    *out = format.decode(code);
                }
            }
        }
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.rows.as_slice())
    }
}

/// What all of these are stored in, if that is one.
pub(super) fn common(outputs: &[Encoding]) -> Option<Encoding> {
    let (first, others) = outputs.split_first()?;
    others.iter().all(|other| other == first).then_some(*first)
}

/// How many bytes so many terms take.
fn rows_of(encoding: Encoding, terms: usize) -> usize {
    assert!(terms.is_multiple_of(encoding.terms()), "{terms} terms are not whole blocks of {encoding:?}");
    terms / encoding.terms() * encoding.bytes()
}

/// One value for each output, worked out when it is asked for: a formula is one loop over the outputs, of which the compiler
/// makes vectors. It makes none of several loops with something of each output between them, and slow ones of bytes.
pub(super) trait Each<T>: Fn(usize) -> T + Copy {}

impl<T, F: Fn(usize) -> T + Copy> Each<T> for F {}

/// The values themselves.
#[inline(always)]
pub(super) fn all(value: impl Each<f32>) -> FloatRow {
    let mut row = FloatRow([0.0; PANEL]);
    for (lane, out) in row.0.iter_mut().enumerate() {
        *out = value(lane);
    }
    row
}

/// The f16 whose first byte this is, where the second follows.
#[inline(always)]
fn half(rows: &[ByteRow], first: usize) -> impl Each<f32> {
    move |lane| widen_f16([rows[first].0[lane], rows[first + 1].0[lane]])
}

/// Some bits from this place on.
#[inline(always)]
fn bits(row: &ByteRow, place: usize, mask: i32) -> impl Each<i32> {
    move |lane| i32::from(row.0[lane]) >> place & mask
}

/// The low four bits, or the high ones.
#[inline(always)]
fn four(row: &ByteRow, high: usize) -> impl Each<i32> {
    bits(row, 4 * high, 0x0F)
}

/// These bits, and more above the first so many.
#[inline(always)]
fn with(lower: impl Each<i32>, upper: impl Each<i32>, place: usize) -> impl Each<i32> {
    move |lane| lower(lane) | upper(lane) << place
}

/// Codes that begin at such a negative number.
#[inline(always)]
fn from(lowest: i32, codes: impl Each<i32>) -> impl Each<i32> {
    move |lane| codes(lane) + lowest
}

#[inline(always)]
fn signed(row: &ByteRow) -> impl Each<i32> {
    move |lane| i32::from(row.0[lane].cast_signed())
}

/// A factor times whole numbers.
#[inline(always)]
fn times(factor: &FloatRow, codes: impl Each<i32>) -> impl Each<f32> {
    move |lane| factor.0[lane] * codes(lane) as f32
}

/// What many terms share.
struct Factors {
    scale: FloatRow,
    /// What is added to each; zero where nothing is.
    minimum: FloatRow,
}

impl Factors {
    #[inline(always)]
    fn scale(scale: impl Each<f32>) -> Factors {
        Factors { scale: all(scale), minimum: FloatRow([0.0; PANEL]) }
    }

    #[inline(always)]
    fn both(scale: impl Each<f32>, minimum: impl Each<f32>) -> Factors {
        Factors { scale: all(scale), minimum: all(minimum) }
    }

    /// The scale times codes.
    #[inline(always)]
    fn times(&self, codes: impl Each<i32>) -> impl Each<f32> {
        times(&self.scale, codes)
    }

    /// The same, and the minimum.
    #[inline(always)]
    fn times_and(&self, codes: impl Each<i32>) -> impl Each<f32> {
        move |lane| self.scale.0[lane].mul_add(codes(lane) as f32, self.minimum.0[lane])
    }

    /// The scale times some codes, and the minimum times others, which is taken away.
    #[inline(always)]
    fn of_group(&self, scale: impl Each<i32>, minimum: impl Each<i32>) -> Factors {
        Factors::both(self.times(scale), move |lane| -times(&self.minimum, minimum)(lane))
    }
}

/// How the terms of a block lie in its rows of bytes, and what each is worth.
trait Layout {
    /// The rows of a block.
    const ROWS: usize;
    /// The parts of a block, one after the other, in which a term's place alone differs from the next one's.
    const GROUPS: usize;
    /// The terms of each.
    const TERMS: usize;

    /// What the whole block shares.
    fn block(rows: &[ByteRow]) -> Factors;

    /// What a group shares, if it is more than the block does.
    #[inline(always)]
    fn group(_rows: &[ByteRow], _block: &Factors, _group: usize) -> Option<Factors> {
        None
    }

    /// A term of a group.
    fn term(rows: &[ByteRow], factors: &Factors, group: usize, term: usize) -> impl Each<f32>;
}

/// What becomes of terms.
pub(super) trait Take {
    fn take(&mut self, term: usize, value: impl Each<f32>);
}

/// Hands over every term of whole blocks, in turn.
#[inline(always)]
fn hand<L: Layout>(rows: &[ByteRow], to: &mut impl Take) {
    for (index, rows) in rows.chunks_exact(L::ROWS).enumerate() {
        let block = L::block(rows);
        // Each of eight on its own: so it is known to the compiler which bits of a byte are a group's.
        for group in (0..L::GROUPS).step_by(8) {
            macro_rules! each {
                ($($of_eight:literal)*) => {
                    $(if $of_eight < L::GROUPS { hand_group::<L>(rows, &block, (index, group + $of_eight), to) })*
                };
            }
            each!(0 1 2 3 4 5 6 7);
        }
    }
}

/// Asks the memory for as many rows as these, some way ahead of them.
#[inline(always)]
pub(super) fn prefetch_rows(rows: &[ByteRow]) {
    for row in (0..rows.len()).step_by(ROWS_OF_A_LINE) {
        prefetch(rows.as_ptr().wrapping_add(AHEAD + row));
    }
}

/// The terms of a group.
#[inline(always)]
fn hand_group<L: Layout>(
    rows: &[ByteRow],
    block: &Factors,
    (index, group): (usize, usize),
    to: &mut impl Take,
) {
    // Some of what comes at a time: the memory forgets some of what it is asked for all at once.
    prefetch_rows(&rows[L::ROWS * group / L::GROUPS..L::ROWS * (group + 1) / L::GROUPS]);
    let own = L::group(rows, block, group);
    let factors = own.as_ref().unwrap_or(block);
    for term in 0..L::TERMS {
        to.take((index * L::GROUPS + group) * L::TERMS + term, L::term(rows, factors, group, term));
    }
}

/// Does with the layout of an encoding what is written for any. Not a function of a closure: that could not be for any.
macro_rules! with_layout {
    ($encoding:expr, $layout:ident => $what:expr) => {
        with_layout!($encoding, $layout => $what;
            Encoding::Values(Format::F32) => F32,
            Encoding::Values(Format::F16) => F16,
            Encoding::Values(Format::BF16) => Bf16,
            Encoding::Blocks(BlockFormat::Q4_0) => Small<false, false>,
            Encoding::Blocks(BlockFormat::Q4_1) => Small<false, true>,
            Encoding::Blocks(BlockFormat::Q5_0) => Small<true, false>,
            Encoding::Blocks(BlockFormat::Q5_1) => Small<true, true>,
            Encoding::Blocks(BlockFormat::Q8_0) => Q8_0,
            Encoding::Blocks(BlockFormat::Q2K) => Q2K,
            Encoding::Blocks(BlockFormat::Q3K) => Q3K,
            Encoding::Blocks(BlockFormat::Q4K) => Large<false>,
            Encoding::Blocks(BlockFormat::Q5K) => Large<true>,
            Encoding::Blocks(BlockFormat::Q6K) => Q6K,
            Encoding::Blocks(BlockFormat::Iq4Nl) => Iq4Nl,
        )
    };
    ($encoding:expr, $layout:ident => $what:expr; $($pattern:pat => $of:ty,)*) => {
        match $encoding {
            $($pattern => {
                type $layout = $of;
                $what
            })*
            Encoding::Values(format) => unreachable!("no weights are stored in {format}"),
        }
    };
}
use with_layout;

/// Writes every term of some rows of bytes.
struct Widen<'a, L> {
    rows: &'a [ByteRow],
    out: &'a mut [FloatRow],
    layout: PhantomData<L>,
}

impl<L: Layout> WithSimd for Widen<'_, L> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        hand::<L>(self.rows, &mut Out(self.out));
    }
}

/// Keeps the terms.
pub(super) struct Out<'a>(pub(super) &'a mut [FloatRow]);

impl Take for Out<'_> {
    #[inline(always)]
    fn take(&mut self, term: usize, value: impl Each<f32>) {
        self.0[term] = all(value);
    }
}

/// Multiplies every term of some rows of bytes where it is widened: in the registers.
struct Multiply<'a, L> {
    rows: &'a [ByteRow],
    x: &'a [f32],
    sums: &'a mut FloatRow,
    layout: PhantomData<L>,
}

impl<L: Layout> WithSimd for Multiply<'_, L> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let mut sums = Sums::begin(simd, self.x, self.sums);
        hand::<L>(self.rows, &mut sums);
        *self.sums = sums.end();
    }
}

/// The sums of one row with a panel.
pub(super) struct Sums<'a, S: Simd> {
    simd: S,
    x: &'a [f32],
    /// As many as a panel has are in use.
    vectors: [S::f32s; PANEL],
}

impl<'a, S: Simd> Sums<'a, S> {
    /// Begins at these sums.
    #[inline(always)]
    pub(super) fn begin(simd: S, x: &'a [f32], sums: &FloatRow) -> Sums<'a, S> {
        let mut vectors = [simd.splat_f32s(0.0); PANEL];
        vectors.iter_mut().zip(S::as_simd_f32s(&sums.0).0).for_each(|(vector, &sum)| *vector = sum);
        Sums { simd, x, vectors }
    }

    /// What has become of them.
    #[inline(always)]
    pub(super) fn end(self) -> FloatRow {
        let mut sums = FloatRow([0.0; PANEL]);
        for (out, &sum) in S::as_mut_simd_f32s(&mut sums.0).0.iter_mut().zip(&self.vectors) {
            *out = canonical(self.simd, sum);
        }
        sums
    }
}

impl<S: Simd> Take for Sums<'_, S> {
    #[inline(always)]
    fn take(&mut self, term: usize, value: impl Each<f32>) {
        let x = self.simd.splat_f32s(self.x[term]);
        let row = all(value);
        for (sum, &w) in self.vectors.iter_mut().zip(S::as_simd_f32s(&row.0).0) {
            *sum = self.simd.mul_add_f32s(x, w, *sum);
        }
    }
}

/// A value that is a block of its own.
macro_rules! value {
    ($layout:ident, $rows:literal, |$of:ident| $value:expr) => {
        struct $layout;

        impl Layout for $layout {
            const ROWS: usize = $rows;
            const GROUPS: usize = 1;
            const TERMS: usize = 1;

            #[inline(always)]
            fn block(_: &[ByteRow]) -> Factors {
                Factors::scale(|_| 1.0)
            }

            #[inline(always)]
            fn term($of: &[ByteRow], _: &Factors, _: usize, _: usize) -> impl Each<f32> {
                $value
            }
        }
    };
}

value!(F32, 4, |rows| move |lane: usize| f32::from_le_bytes(std::array::from_fn(|byte| rows[byte].0[lane])));
value!(F16, 2, |rows| half(rows, 0));
value!(Bf16, 2, |rows| move |lane: usize| f32::from_le_bytes([0, 0, rows[0].0[lane], rows[1].0[lane]]));

/// The terms of half a small block: its bytes hold those of the first half in their low bits, of the second in the high ones.
const HALF: usize = 16;

/// Blocks of 32 with one scale: [`Q4_0`](BlockFormat::Q4_0), and with fifth bits or a minimum.
struct Small<const FIFTHS: bool, const MINIMUM: bool>;

impl<const FIFTHS: bool, const MINIMUM: bool> Small<FIFTHS, MINIMUM> {
    /// Where the fifth bits begin, if there are any.
    const FIFTHS: usize = if MINIMUM { 4 } else { 2 };
    /// Where the other bits begin.
    const CODES: usize = Self::FIFTHS + if FIFTHS { 4 } else { 0 };
}

impl<const FIFTHS: bool, const MINIMUM: bool> Layout for Small<FIFTHS, MINIMUM> {
    const ROWS: usize = Self::CODES + HALF;
    const GROUPS: usize = 2;
    const TERMS: usize = HALF;

    #[inline(always)]
    fn block(rows: &[ByteRow]) -> Factors {
        let scale = half(rows, 0);
        if MINIMUM { Factors::both(scale, half(rows, 2)) } else { Factors::scale(scale) }
    }

    #[inline(always)]
    fn term(rows: &[ByteRow], factors: &Factors, group: usize, term: usize) -> impl Each<f32> {
        let (fifth, place) = (Self::FIFTHS + 2 * group + term / 8, term % 8);
        move |lane| {
            let codes = four(&rows[Self::CODES + term], group);
            let codes = |lane| {
                if FIFTHS { with(codes, bits(&rows[fifth], place, 1), 4)(lane) } else { codes(lane) }
            };
            if MINIMUM {
                factors.times_and(codes)(lane)
            } else {
                factors.times(from(if FIFTHS { -16 } else { -8 }, codes))(lane)
            }
        }
    }
}

struct Q8_0;

impl Layout for Q8_0 {
    const ROWS: usize = 34;
    const GROUPS: usize = 1;
    const TERMS: usize = 32;

    #[inline(always)]
    fn block(rows: &[ByteRow]) -> Factors {
        Factors::scale(half(rows, 0))
    }

    #[inline(always)]
    fn term(rows: &[ByteRow], factors: &Factors, _: usize, term: usize) -> impl Each<f32> {
        factors.times(signed(&rows[2 + term]))
    }
}

struct Iq4Nl;

impl Layout for Iq4Nl {
    const ROWS: usize = 18;
    const GROUPS: usize = 2;
    const TERMS: usize = HALF;

    #[inline(always)]
    fn block(rows: &[ByteRow]) -> Factors {
        Factors::scale(half(rows, 0))
    }

    #[inline(always)]
    fn term(rows: &[ByteRow], factors: &Factors, group: usize, term: usize) -> impl Each<f32> {
        factors.times(worth(four(&rows[2 + term], group)))
    }
}

/// What codes are worth. A table of 16 would be looked up for one output after the other: so it is one of four words, chosen by
/// the high bits, and a byte of it.
#[inline(always)]
fn worth(codes: impl Each<i32>) -> impl Each<i32> {
    const WORDS: [i32; 4] = {
        let (table, mut words) = (WORTH.as_chunks::<4>().0, [0; 4]);
        let mut word = 0;
        while word < 4 {
            let [a, b, c, d] = table[word];
            words[word] = i32::from_le_bytes([a as u8, b as u8, c as u8, d as u8]);
            word += 1;
        }
        words
    };
    move |lane| {
        let code = codes(lane);
        let choose = |bit: i32, clear: i32, set: i32| if code & bit == 0 { clear } else { set };
        let word = choose(8, choose(4, WORDS[0], WORDS[1]), choose(4, WORDS[2], WORDS[3]));
        // The byte moves to the top, whence its sign comes down with it.
        word << (24 - 8 * (code & 3)) >> 24
    }
}

/// The terms of the smallest group of a large block.
const GROUP: usize = 16;

/// Where the bits of a group of 16 lie that shares its bytes with three others: in which 16 of the bytes, and the how many of
/// the four it is, from the lowest bits up.
#[inline(always)]
fn shared(group: usize) -> (usize, usize) {
    (group / 8 * 2 + group % 2, group % 8 / 2)
}

struct Q2K;

impl Layout for Q2K {
    const ROWS: usize = 84;
    const GROUPS: usize = 16;
    const TERMS: usize = GROUP;

    #[inline(always)]
    fn block(rows: &[ByteRow]) -> Factors {
        Factors::both(half(rows, 80), half(rows, 82))
    }

    #[inline(always)]
    fn group(rows: &[ByteRow], block: &Factors, group: usize) -> Option<Factors> {
        Some(block.of_group(four(&rows[group], 0), four(&rows[group], 1)))
    }

    #[inline(always)]
    fn term(rows: &[ByteRow], factors: &Factors, group: usize, term: usize) -> impl Each<f32> {
        let (at, part) = shared(group);
        factors.times_and(bits(&rows[16 + GROUP * at + term], 2 * part, 3))
    }
}

struct Q3K;

impl Layout for Q3K {
    const ROWS: usize = 110;
    const GROUPS: usize = 16;
    const TERMS: usize = GROUP;

    #[inline(always)]
    fn block(rows: &[ByteRow]) -> Factors {
        Factors::scale(half(rows, 108))
    }

    #[inline(always)]
    fn group(rows: &[ByteRow], block: &Factors, group: usize) -> Option<Factors> {
        let (quarter, rest) = (group / 4, group % 4);
        let lower = four(&rows[96 + quarter % 2 * 4 + rest], quarter / 2);
        let upper = bits(&rows[96 + 8 + rest], 2 * quarter, 3);
        Some(Factors::scale(block.times(from(-32, with(lower, upper, 4)))))
    }

    #[inline(always)]
    fn term(rows: &[ByteRow], factors: &Factors, group: usize, term: usize) -> impl Each<f32> {
        let (at, part) = shared(group);
        let codes = bits(&rows[32 + GROUP * at + term], 2 * part, 3);
        let thirds = bits(&rows[at % 2 * GROUP + term], group / 2, 1);
        factors.times(from(-4, with(codes, thirds, 2)))
    }
}

/// Blocks of 256 with scales and minimums of 6 bits: [`Q4_K`](BlockFormat::Q4K), and with fifth bits.
struct Large<const FIFTHS: bool>;

impl<const FIFTHS: bool> Layout for Large<FIFTHS> {
    const ROWS: usize = if FIFTHS { 176 } else { 144 };
    const GROUPS: usize = 8;
    const TERMS: usize = 2 * GROUP;

    #[inline(always)]
    fn block(rows: &[ByteRow]) -> Factors {
        Factors::both(half(rows, 0), half(rows, 2))
    }

    #[inline(always)]
    fn group(rows: &[ByteRow], block: &Factors, group: usize) -> Option<Factors> {
        let at = group % 4;
        let (scales, minimums, both) = (&rows[4 + at], &rows[8 + at], &rows[12 + at]);
        Some(if group < 4 {
            block.of_group(bits(scales, 0, 0x3F), bits(minimums, 0, 0x3F))
        } else {
            let upper = |row| bits(row, 6, 3);
            block.of_group(with(four(both, 0), upper(scales), 4), with(four(both, 1), upper(minimums), 4))
        })
    }

    #[inline(always)]
    fn term(rows: &[ByteRow], factors: &Factors, group: usize, term: usize) -> impl Each<f32> {
        let codes = four(&rows[Self::ROWS - 128 + group / 2 * 2 * GROUP + term], group % 2);
        let fifths = bits(&rows[16 + term], group, 1);
        factors.times_and(move |lane| if FIFTHS { with(codes, fifths, 4)(lane) } else { codes(lane) })
    }
}

struct Q6K;

impl Layout for Q6K {
    const ROWS: usize = 210;
    const GROUPS: usize = 16;
    const TERMS: usize = GROUP;

    #[inline(always)]
    fn block(rows: &[ByteRow]) -> Factors {
        Factors::scale(half(rows, 208))
    }

    #[inline(always)]
    fn group(rows: &[ByteRow], block: &Factors, group: usize) -> Option<Factors> {
        Some(Factors::scale(block.times(signed(&rows[192 + group]))))
    }

    #[inline(always)]
    fn term(rows: &[ByteRow], factors: &Factors, group: usize, term: usize) -> impl Each<f32> {
        let (at, part) = shared(group);
        let lower = four(&rows[GROUP * (group / 8 * 4 + group % 4) + term], part / 2);
        let upper = bits(&rows[128 + GROUP * at + term], 2 * part, 3);
        factors.times(from(-32, with(lower, upper, 4)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerics::{block::tests::stream, canonical};

    /// Outputs of several encodings, each with its bytes.
    struct Outputs {
        encodings: Vec<Encoding>,
        bytes: Vec<Vec<u8>>,
    }

    impl Source for Outputs {
        fn encoding(&self, output: usize) -> Encoding {
            self.encodings[output]
        }

        fn values(&mut self, output: usize, terms: &mut [f32]) {
            terms.copy_from_slice(&self.terms(output, terms.len()));
        }

        fn blocks(&mut self, output: usize, bytes: &mut [u8], terms: &mut [f32]) {
            bytes.copy_from_slice(&self.bytes[output]);
            self.values(output, terms);
        }
    }

    impl Outputs {
        fn terms(&self, output: usize, depth: usize) -> Vec<f32> {
            let mut terms = vec![0.0; depth];
            match self.encodings[output] {
                Encoding::Blocks(format) => format.dequantize(&self.bytes[output], &mut terms),
                encoding @ Encoding::Values(format) => {
                    for (term, code) in terms.iter_mut().zip(self.bytes[output].chunks(encoding.bytes())) {
                        let code = code.iter().rev().fold(0, |code, &byte| code << 8 | u32::from(byte));
                        *term = format.decode(code);
                    }
                }
            }
            terms
        }
    }

    const DEPTH: usize = 768;

    /// The first of them is in the first encoding, and so on.
    fn outputs(encodings: Vec<Encoding>) -> Outputs {
        let bytes = encodings.iter().enumerate().map(|(output, &encoding)| match encoding {
            Encoding::Blocks(format) => {
                let size = DEPTH / format.values() * format.bytes();
                stream(format, (1 + output) * DEPTH / format.values())[output * size..].to_vec()
            }
            // Every format of these has values of many sizes below infinity.
            Encoding::Values(_) => (0..DEPTH * encoding.bytes())
                .map(|at| {
                    if at % encoding.bytes() + 1 == encoding.bytes() {
                        0x3B
                    } else {
                        (at * 97 + output * 31) as u8
                    }
                })
                .collect(),
        });
        Outputs { bytes: bytes.collect(), encodings }
    }

    fn kept(outputs: &mut Outputs) -> Kept {
        let encodings = outputs.encodings.clone();
        let mut kept = Kept::new(&encodings, DEPTH);
        kept.fill(&encodings, DEPTH, outputs, None);
        kept
    }

    fn all() -> impl Iterator<Item = Encoding> {
        let values = [Format::F32, Format::F16, Format::BF16].map(Encoding::Values);
        values.into_iter().chain(BlockFormat::ALL.iter().map(|&format| Encoding::Blocks(format)))
    }

    fn bits(values: &[f32]) -> Vec<u32> {
        values.iter().map(|value| value.to_bits()).collect()
    }

    #[test]
    fn a_panel_of_any_encoding_is_worth_what_its_outputs_are_on_every_instruction_set() {
        for encoding in all() {
            // The last panel is not full.
            let mut outputs = outputs(vec![encoding; PANEL + 5]);
            let kept = kept(&mut outputs);
            for isa in Isa::available() {
                for panel in 0..2 {
                    let mut rows = vec![FloatRow([f32::NAN; PANEL]); DEPTH];
                    kept.widen(isa, panel, &mut rows);
                    for lane in (0..PANEL).filter(|lane| panel * PANEL + lane < PANEL + 5) {
                        let expected = outputs.terms(panel * PANEL + lane, DEPTH);
                        let found: Vec<f32> = rows.iter().map(|row| row.0[lane]).collect();
                        assert_eq!(bits(&found), bits(&expected), "{encoding:?} on {isa}, {panel}, {lane}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_panel_is_multiplied_a_term_after_the_other_on_every_instruction_set() {
        let x: Vec<f32> = (0..DEPTH).map(|term| (term * 37 % 101) as f32 / 64.0 - 0.7).collect();
        let start = FloatRow(std::array::from_fn(|lane| lane as f32 - 7.5));
        for encoding in all() {
            let mut outputs = outputs(vec![encoding; 2 * PANEL]);
            // An infinity and a NaN reach their own output alone.
            if let Encoding::Blocks(_) = encoding {
                outputs.bytes[3].fill(0x7C);
                outputs.bytes[4].fill(0xFF);
            }
            let kept = kept(&mut outputs);
            for isa in Isa::available() {
                for panel in 0..2 {
                    let mut sums = start;
                    kept.multiply(isa, panel, &x, &mut sums);
                    for lane in 0..PANEL {
                        let terms = outputs.terms(panel * PANEL + lane, DEPTH);
                        let sum = x.iter().zip(terms).fold(start.0[lane], |sum, (x, w)| x.mul_add(w, sum));
                        let expected = canonical(sum).to_bits();
                        assert_eq!(
                            sums.0[lane].to_bits(),
                            expected,
                            "{encoding:?} on {isa}, {panel}, {lane}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn an_output_alone_is_worth_what_it_is_in_its_panel() {
        for encoding in all() {
            let mut outputs = outputs(vec![encoding; 3]);
            let kept = kept(&mut outputs);
            for output in 0..3 {
                let mut terms = vec![f32::NAN; DEPTH];
                kept.column(output, &mut terms);
                assert_eq!(bits(&terms), bits(&outputs.terms(output, DEPTH)), "{encoding:?}");
            }
        }
    }

    #[test]
    fn a_panel_takes_the_bytes_of_its_encoding_and_one_that_mixes_them_those_of_f32() {
        let bytes = |encodings| kept(&mut outputs(encodings)).bytes();
        for encoding in all() {
            assert_eq!(bytes(vec![encoding; PANEL]), PANEL * DEPTH / encoding.terms() * encoding.bytes());
        }
        let [first, .., last] = all().collect::<Vec<_>>()[..] else { unreachable!("there are several") };
        let own = bytes(vec![first; PANEL]) + bytes(vec![last; PANEL]);
        assert_eq!(bytes([vec![first; PANEL], vec![last; PANEL]].concat()), own);
        let mut mixed = vec![last; PANEL];
        mixed[7] = Encoding::Blocks(BlockFormat::Q4K);
        assert_eq!(bytes(mixed.clone()), 4 * PANEL * DEPTH);
        let mut outputs = outputs(mixed);
        let kept = kept(&mut outputs);
        for output in 0..PANEL {
            let mut terms = vec![f32::NAN; DEPTH];
            kept.column(output, &mut terms);
            assert_eq!(bits(&terms), bits(&outputs.terms(output, DEPTH)), "{output}");
        }
    }
}
