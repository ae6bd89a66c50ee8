//! Weights that stay as they are stored: the bytes of 32 outputs side by side, widened to f32 where they are multiplied.
//!
//! Byte j of a block of all outputs of a panel is one row of bytes, so that one formula gives a term of all of them at once:
//! what [`BlockFormat::dequantize`] gives, bit for bit. Only the last product of a term may round, and only with its minimum:
//! so it may be fused.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use pulp::{Simd, WithSimd};

use super::{
    Encoding, Isa, Source,
    panel::{Bound, FloatRow, PANEL},
    tile::prefetch,
};
use crate::numerics::{
    block::{BlockFormat, WORTH, sharing},
    format::{Format, widen_f16},
};

/// One byte of 32 outputs.
#[derive(Clone, Copy, Debug, Pod, Zeroable)]
#[repr(C, align(32))]
struct ByteRow([u8; PANEL]);

/// How many of them the memory brings at once.
const ROWS_OF_A_LINE: usize = 64 / PANEL;

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
                (Encoding::Blocks(format), Encoding::Blocks(_)) => {
                    source.blocks(output, &mut bytes);
                    if bounds.is_some() {
                        format.dequantize(&bytes, &mut terms);
                    }
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

    /// These terms of a panel, which begin and end with whole blocks; `next` is asked of the memory meanwhile, and need not be
    /// there.
    pub(super) fn widen(
        &self,
        isa: Isa,
        (panel, terms): (usize, Range<usize>),
        next: (usize, Range<usize>),
        out: &mut [FloatRow],
    ) {
        let next = if next.0 < self.panels.len() { self.rows(next.0, next.1) } else { &[] };
        isa.dispatch(Widen {
            encoding: self.panels[panel].encoding,
            rows: self.rows(panel, terms),
            next,
            out,
        });
    }

    /// How many terms make whole blocks in each of these panels: blocks have powers of two.
    pub(super) fn together(&self, panels: Range<usize>) -> usize {
        let terms = self.panels[panels].iter().map(|panel| panel.encoding.terms());
        terms.max().unwrap_or(1)
    }

    fn rows(&self, panel: usize, terms: Range<usize>) -> &[ByteRow] {
        let Panel { first, encoding } = self.panels[panel];
        // What is next may end within a block of another panel.
        let whole = |terms: usize| terms / encoding.terms() * encoding.bytes();
        &self.rows[first + whole(terms.start)..first + whole(terms.end)]
    }

    /// One output's terms.
    pub(super) fn column(&self, output: usize, out: &mut [f32]) {
        let Panel { first, encoding } = self.panels[output / PANEL];
        let rows = &self.rows[first..][..rows_of(encoding, out.len())];
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

/// Widens rows of bytes with the vectors of an instruction set.
struct Widen<'a> {
    encoding: Encoding,
    rows: &'a [ByteRow],
    /// What follows, for the memory to begin with: between pieces of several panels it cannot tell itself.
    next: &'a [ByteRow],
    out: &'a mut [FloatRow],
}

impl WithSimd for Widen<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let Widen { encoding, rows, next, out } = self;
        // A formula handed to a function would be called, not become part of this one and its vectors.
        macro_rules! each {
            ($widen:ident) => {
                for (block, (rows, out)) in rows.as_chunks().0.iter().zip(out.as_chunks_mut().0).enumerate() {
                    let next = next.get(block * rows.len()..).unwrap_or_default();
                    $widen(rows, &next[..next.len().min(rows.len())], out);
                }
            };
        }
        match encoding {
            Encoding::Values(Format::F16) => each!(f16),
            Encoding::Values(Format::BF16) => each!(bf16),
            Encoding::Values(Format::F32) => each!(f32),
            Encoding::Values(format) => unreachable!("no weights are stored in {format}"),
            Encoding::Blocks(BlockFormat::Q4_0) => each!(q4_0),
            Encoding::Blocks(BlockFormat::Q4_1) => each!(q4_1),
            Encoding::Blocks(BlockFormat::Q5_0) => each!(q5_0),
            Encoding::Blocks(BlockFormat::Q5_1) => each!(q5_1),
            Encoding::Blocks(BlockFormat::Q8_0) => each!(q8_0),
            Encoding::Blocks(BlockFormat::Q2K) => each!(q2_k),
            Encoding::Blocks(BlockFormat::Q3K) => each!(q3_k),
            Encoding::Blocks(BlockFormat::Q4K) => each!(q4_k),
            Encoding::Blocks(BlockFormat::Q5K) => each!(q5_k),
            Encoding::Blocks(BlockFormat::Q6K) => each!(q6_k),
            Encoding::Blocks(BlockFormat::Iq4Nl) => each!(iq4_nl),
        }
    }
}

/// One value for each output, worked out when it is asked for: a formula is one loop over the outputs, of which the compiler
/// makes vectors. It makes none of several loops with something of each output between them, and slow ones of bytes.
trait Each<T>: Fn(usize) -> T + Copy {}

impl<T, F: Fn(usize) -> T + Copy> Each<T> for F {}

/// The values themselves.
#[inline(always)]
fn all(value: impl Each<f32>) -> [f32; PANEL] {
    let mut lanes = [0.0; PANEL];
    for (lane, out) in lanes.iter_mut().enumerate() {
        *out = value(lane);
    }
    lanes
}

/// Asks the memory for one of so many parts of what comes next: it forgets some of what it is asked for all at once.
#[inline(always)]
fn ask(next: &[ByteRow], part: usize, parts: usize) {
    let end = |part: usize| next.len() * part / parts;
    for line in next[end(part)..end(part + 1)].iter().step_by(ROWS_OF_A_LINE) {
        prefetch(line);
    }
}

/// Values that are known.
#[inline(always)]
fn known(values: &[f32; PANEL]) -> impl Each<f32> {
    move |lane| values[lane]
}

/// The f16 whose bytes these are.
#[inline(always)]
fn half<'a>(first: &'a ByteRow, second: &'a ByteRow) -> impl Each<f32> + 'a {
    move |lane| widen_f16([first.0[lane], second.0[lane]])
}

/// The low four bits.
#[inline(always)]
fn low(row: &ByteRow) -> impl Each<i32> {
    bits(row, 0, 0x0F)
}

/// The high four bits.
#[inline(always)]
fn high(row: &ByteRow) -> impl Each<i32> {
    bits(row, 4, 0x0F)
}

/// Some bits from this place on.
#[inline(always)]
fn bits(row: &ByteRow, place: usize, mask: i32) -> impl Each<i32> {
    move |lane| i32::from(row.0[lane]) >> place & mask
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

/// A scale times whole numbers.
#[inline(always)]
fn times(scale: impl Each<f32>, codes: impl Each<i32>) -> impl Each<f32> {
    move |lane| scale(lane) * codes(lane) as f32
}

/// The same, and something added.
#[inline(always)]
fn times_and(scale: impl Each<f32>, codes: impl Each<i32>, more: impl Each<f32>) -> impl Each<f32> {
    move |lane| scale(lane).mul_add(codes(lane) as f32, more(lane))
}

#[inline(always)]
fn negative(values: impl Each<f32>) -> impl Each<f32> {
    move |lane| -values(lane)
}

#[inline(always)]
fn f32([a, b, c, d]: &[ByteRow; 4], next: &[ByteRow], out: &mut [FloatRow; 1]) {
    ask(next, 0, 1);
    out[0].0 = all(|lane| f32::from_le_bytes([a.0[lane], b.0[lane], c.0[lane], d.0[lane]]));
}

#[inline(always)]
fn f16([first, second]: &[ByteRow; 2], next: &[ByteRow], out: &mut [FloatRow; 1]) {
    ask(next, 0, 1);
    out[0].0 = all(half(first, second));
}

#[inline(always)]
fn bf16([first, second]: &[ByteRow; 2], next: &[ByteRow], out: &mut [FloatRow; 1]) {
    ask(next, 0, 1);
    out[0].0 = all(|lane| f32::from_le_bytes([0, 0, first.0[lane], second.0[lane]]));
}

/// The values of a small block.
const SMALL: usize = 32;
/// The values of a large block.
const LARGE: usize = 256;
/// The bytes that hold the low or high bits of half a small block.
const HALF: usize = SMALL / 2;

#[inline(always)]
fn q4_0(block: &[ByteRow; 18], next: &[ByteRow], out: &mut [FloatRow; SMALL]) {
    ask(next, 0, 1);
    let scale = all(half(&block[0], &block[1]));
    for (i, codes) in block[2..].iter().enumerate() {
        out[i].0 = all(times(known(&scale), from(-8, low(codes))));
        out[i + HALF].0 = all(times(known(&scale), from(-8, high(codes))));
    }
}

#[inline(always)]
fn q4_1(block: &[ByteRow; 20], next: &[ByteRow], out: &mut [FloatRow; SMALL]) {
    ask(next, 0, 1);
    let (scale, minimum) = (all(half(&block[0], &block[1])), all(half(&block[2], &block[3])));
    for (i, codes) in block[4..].iter().enumerate() {
        out[i].0 = all(times_and(known(&scale), low(codes), known(&minimum)));
        out[i + HALF].0 = all(times_and(known(&scale), high(codes), known(&minimum)));
    }
}

/// The fifth bits of a block, of a value each.
#[inline(always)]
fn fifth(fifths: &[ByteRow], value: usize) -> impl Each<i32> {
    bits(&fifths[value / 8], value % 8, 1)
}

#[inline(always)]
fn q5_0(block: &[ByteRow; 22], next: &[ByteRow], out: &mut [FloatRow; SMALL]) {
    ask(next, 0, 1);
    let (scale, fifths) = (all(half(&block[0], &block[1])), &block[2..6]);
    for (i, codes) in block[6..].iter().enumerate() {
        out[i].0 = all(times(known(&scale), from(-16, with(low(codes), fifth(fifths, i), 4))));
        out[i + HALF].0 = all(times(known(&scale), from(-16, with(high(codes), fifth(fifths, i + HALF), 4))));
    }
}

#[inline(always)]
fn q5_1(block: &[ByteRow; 24], next: &[ByteRow], out: &mut [FloatRow; SMALL]) {
    ask(next, 0, 1);
    let (scale, minimum) = (all(half(&block[0], &block[1])), all(half(&block[2], &block[3])));
    let fifths = &block[4..8];
    for (i, codes) in block[8..].iter().enumerate() {
        out[i].0 = all(times_and(known(&scale), with(low(codes), fifth(fifths, i), 4), known(&minimum)));
        out[i + HALF].0 =
            all(times_and(known(&scale), with(high(codes), fifth(fifths, i + HALF), 4), known(&minimum)));
    }
}

#[inline(always)]
fn q8_0(block: &[ByteRow; 34], next: &[ByteRow], out: &mut [FloatRow; SMALL]) {
    ask(next, 0, 1);
    let scale = all(half(&block[0], &block[1]));
    for (out, codes) in out.iter_mut().zip(&block[2..]) {
        out.0 = all(times(known(&scale), signed(codes)));
    }
}

#[inline(always)]
fn iq4_nl(block: &[ByteRow; 18], next: &[ByteRow], out: &mut [FloatRow; SMALL]) {
    ask(next, 0, 1);
    let scale = all(half(&block[0], &block[1]));
    for (i, codes) in block[2..].iter().enumerate() {
        out[i].0 = all(times(known(&scale), worth(low(codes))));
        out[i + HALF].0 = all(times(known(&scale), worth(high(codes))));
    }
}

/// What codes are worth, chosen by a bit at a time: a table of 16 is looked up for one output after the other.
#[inline(always)]
fn worth(codes: impl Each<i32>) -> impl Each<i32> {
    move |lane| {
        let code = codes(lane);
        // Without a condition, which would become a jump.
        let choose = |place: usize, clear: i32, set: i32| clear ^ (clear ^ set) & -(code >> place & 1);
        let two = |at: usize| choose(0, WORTH[at].into(), WORTH[at + 1].into());
        let four = |at: usize| choose(1, two(at), two(at + 2));
        let eight = |at: usize| choose(2, four(at), four(at + 4));
        choose(3, eight(0), eight(8))
    }
}

/// Groups of 16 values each.
const GROUP: usize = 16;

#[inline(always)]
fn q2_k(block: &[ByteRow; 84], next: &[ByteRow], out: &mut [FloatRow; LARGE]) {
    let (scale, minimum) = (half(&block[80], &block[81]), half(&block[82], &block[83]));
    for at in 0..4 {
        for (row, group) in sharing(at).into_iter().enumerate() {
            ask(next, 4 * at + row, 16);
            let groups = &block[group];
            let (scale, minimum) =
                (all(times(scale, low(groups))), all(negative(times(minimum, high(groups)))));
            for i in 0..GROUP {
                let codes = bits(&block[16 + GROUP * at + i], 2 * row, 3);
                out[GROUP * group + i].0 = all(times_and(known(&scale), codes, known(&minimum)));
            }
        }
    }
}

#[inline(always)]
fn q3_k(block: &[ByteRow; 110], next: &[ByteRow], out: &mut [FloatRow; LARGE]) {
    let scale = half(&block[108], &block[109]);
    for at in 0..4 {
        for (row, group) in sharing(at).into_iter().enumerate() {
            ask(next, 4 * at + row, 16);
            let (quarter, rest) = (group / 4, group % 4);
            let four = bits(&block[96 + quarter % 2 * 4 + rest], quarter / 2 * 4, 0x0F);
            let two = bits(&block[96 + 8 + rest], 2 * quarter, 3);
            let scale = all(times(scale, from(-32, with(four, two, 4))));
            for i in 0..GROUP {
                let codes = bits(&block[32 + GROUP * at + i], 2 * row, 3);
                let thirds = bits(&block[at % 2 * GROUP + i], group / 2, 1);
                out[GROUP * group + i].0 = all(times(known(&scale), from(-4, with(codes, thirds, 2))));
            }
        }
    }
}

/// The scale of a group of 32, and its minimum, which is taken away.
#[inline(always)]
fn scale_and_minimum(block: &[ByteRow], group: usize) -> ([f32; PANEL], [f32; PANEL]) {
    let (scale, minimum) = (all(half(&block[0], &block[1])), all(half(&block[2], &block[3])));
    let (scales, minimums, both) = (&block[4..8], &block[8..12], &block[12..16]);
    let at = group % 4;
    let (scale, minimum) = (known(&scale), known(&minimum));
    if group < 4 {
        let (a, b) = (bits(&scales[at], 0, 0x3F), bits(&minimums[at], 0, 0x3F));
        (all(times(scale, a)), all(negative(times(minimum, b))))
    } else {
        let a = with(low(&both[at]), bits(&scales[at], 6, 3), 4);
        let b = with(high(&both[at]), bits(&minimums[at], 6, 3), 4);
        (all(times(scale, a)), all(negative(times(minimum, b))))
    }
}

#[inline(always)]
fn q4_k(block: &[ByteRow; 144], next: &[ByteRow], out: &mut [FloatRow; LARGE]) {
    for (group, out) in out.as_chunks_mut::<{ 2 * GROUP }>().0.iter_mut().enumerate() {
        ask(next, group, 8);
        let (scale, minimum) = scale_and_minimum(block, group);
        let codes = &block[16 + group / 2 * 2 * GROUP..][..2 * GROUP];
        for (out, codes) in out.iter_mut().zip(codes) {
            out.0 = all(times_and(known(&scale), bits(codes, 4 * (group % 2), 0x0F), known(&minimum)));
        }
    }
}

#[inline(always)]
fn q5_k(block: &[ByteRow; 176], next: &[ByteRow], out: &mut [FloatRow; LARGE]) {
    let fifths = &block[16..48];
    for (group, out) in out.as_chunks_mut::<{ 2 * GROUP }>().0.iter_mut().enumerate() {
        ask(next, group, 8);
        let (scale, minimum) = scale_and_minimum(block, group);
        let codes = &block[48 + group / 2 * 2 * GROUP..][..2 * GROUP];
        for (out, (codes, fifths)) in out.iter_mut().zip(codes.iter().zip(fifths)) {
            let codes = with(bits(codes, 4 * (group % 2), 0x0F), bits(fifths, group, 1), 4);
            out.0 = all(times_and(known(&scale), codes, known(&minimum)));
        }
    }
}

#[inline(always)]
fn q6_k(block: &[ByteRow; 210], next: &[ByteRow], out: &mut [FloatRow; LARGE]) {
    let scale = half(&block[208], &block[209]);
    for at in 0..4 {
        for (row, group) in sharing(at).into_iter().enumerate() {
            ask(next, 4 * at + row, 16);
            let scale = all(times(scale, signed(&block[192 + group])));
            let lower = at / 2 * 4 + row % 2 * 2 + at % 2;
            for i in 0..GROUP {
                let four = bits(&block[GROUP * lower + i], row / 2 * 4, 0x0F);
                let two = bits(&block[128 + GROUP * at + i], 2 * row, 3);
                out[GROUP * group + i].0 = all(times(known(&scale), from(-32, with(four, two, 4))));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerics::block::tests::stream;

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

        fn blocks(&mut self, output: usize, bytes: &mut [u8]) {
            bytes.copy_from_slice(&self.bytes[output]);
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
                    // All of it, and from a block in its middle on.
                    for begin in [0, 512] {
                        let mut rows = vec![FloatRow([f32::NAN; PANEL]); DEPTH - begin];
                        kept.widen(isa, (panel, begin..DEPTH), (panel + 1, 0..DEPTH), &mut rows);
                        for lane in (0..PANEL).filter(|lane| panel * PANEL + lane < PANEL + 5) {
                            let expected = &outputs.terms(panel * PANEL + lane, DEPTH)[begin..];
                            let found: Vec<f32> = rows.iter().map(|row| row.0[lane]).collect();
                            assert_eq!(
                                bits(&found),
                                bits(expected),
                                "{encoding:?} on {isa}, {panel}, {lane}"
                            );
                        }
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
