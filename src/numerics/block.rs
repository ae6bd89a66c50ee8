//! The block formats of GGUF: how many values share a scale, where their bits lie, and what each is worth.
//!
//! A value is an f16 scale times small integers, perhaps with an f16 minimum times one of them added or taken away. Each
//! product is exact in f32, because the integers of its factors make less than 2^24 together: 2047 * 128 * 32 is the most.
//! So a value is rounded at most once, where the minimum comes in, and it has ggml's bits in whatever order its factors are
//! multiplied, fused with the sum or not.

use bytemuck::{Pod, Zeroable};
use pulp::{Arch, NullaryFnOnce};

use super::format::widen_f16;
use crate::name::named;

/// How a block of values is stored.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BlockFormat {
    /// 32 values: a scale, and 4 bits each.
    Q4_0,
    /// 32 values: a scale, a minimum, and 4 bits each.
    Q4_1,
    /// 32 values: a scale, and 5 bits each.
    Q5_0,
    /// 32 values: a scale, a minimum, and 5 bits each.
    Q5_1,
    /// 32 values: a scale, and 8 bits each.
    Q8_0,
    /// 256 values: 16 scales and minimums of 4 bits, and 2 bits each.
    Q2K,
    /// 256 values: 16 scales of 6 bits, and 3 bits each.
    Q3K,
    /// 256 values: 8 scales and minimums of 6 bits, and 4 bits each.
    Q4K,
    /// 256 values: 8 scales and minimums of 6 bits, and 5 bits each.
    Q5K,
    /// 256 values: 16 scales of 8 bits, and 6 bits each.
    Q6K,
    /// 32 values: a scale, and 4 bits each that choose from a table.
    Iq4Nl,
}

named! {
    BlockFormat, "block format":
    Q4_0 = "Q4_0",
    Q4_1 = "Q4_1",
    Q5_0 = "Q5_0",
    Q5_1 = "Q5_1",
    Q8_0 = "Q8_0",
    Q2K = "Q2_K",
    Q3K = "Q3_K",
    Q4K = "Q4_K",
    Q5K = "Q5_K",
    Q6K = "Q6_K",
    Iq4Nl = "IQ4_NL",
}

impl BlockFormat {
    /// The format that a tensor of this type number has; none where it is no block format that is known here.
    pub const fn of_ggml_type(number: u32) -> Option<BlockFormat> {
        Some(match number {
            2 => BlockFormat::Q4_0,
            3 => BlockFormat::Q4_1,
            6 => BlockFormat::Q5_0,
            7 => BlockFormat::Q5_1,
            8 => BlockFormat::Q8_0,
            10 => BlockFormat::Q2K,
            11 => BlockFormat::Q3K,
            12 => BlockFormat::Q4K,
            13 => BlockFormat::Q5K,
            14 => BlockFormat::Q6K,
            20 => BlockFormat::Iq4Nl,
            _ => return None,
        })
    }

    /// Its name as GGUF spells it.
    pub const fn name(self) -> &'static str {
        // Both stand in one order: a test asks each for its name.
        BlockFormat::NAMES[self as usize]
    }

    /// How many values a block has.
    pub const fn values(self) -> usize {
        match self {
            BlockFormat::Q4_0
            | BlockFormat::Q4_1
            | BlockFormat::Q5_0
            | BlockFormat::Q5_1
            | BlockFormat::Q8_0
            | BlockFormat::Iq4Nl => SMALL,
            BlockFormat::Q2K | BlockFormat::Q3K | BlockFormat::Q4K | BlockFormat::Q5K | BlockFormat::Q6K => {
                LARGE
            }
        }
    }

    /// How many bytes a block has.
    pub const fn bytes(self) -> usize {
        match self {
            BlockFormat::Q4_0 => size_of::<Q4_0>(),
            BlockFormat::Q4_1 => size_of::<Q4_1>(),
            BlockFormat::Q5_0 => size_of::<Q5_0>(),
            BlockFormat::Q5_1 => size_of::<Q5_1>(),
            BlockFormat::Q8_0 => size_of::<Q8_0>(),
            BlockFormat::Q2K => size_of::<Q2K>(),
            BlockFormat::Q3K => size_of::<Q3K>(),
            BlockFormat::Q4K => size_of::<Q4K>(),
            BlockFormat::Q5K => size_of::<Q5K>(),
            BlockFormat::Q6K => size_of::<Q6K>(),
            BlockFormat::Iq4Nl => size_of::<Iq4Nl>(),
        }
    }

    /// The values of whole blocks. A scale or minimum that is infinite or NaN leaves no value of its block finite.
    ///
    /// # Panics
    ///
    /// When the bytes are not whole blocks, or `out` is not as long as their values.
    pub fn dequantize(self, bytes: &[u8], out: &mut [f32]) {
        Arch::new().dispatch(Dequantize { format: self, bytes, out });
    }

    /// The same, as part of its caller: for one that is compiled for the machine's own vectors already.
    #[inline(always)]
    pub(super) fn dequantize_inlined(self, bytes: &[u8], out: &mut [f32]) {
        match self {
            BlockFormat::Q4_0 => each::<_, Q4_0>(bytes, out),
            BlockFormat::Q4_1 => each::<_, Q4_1>(bytes, out),
            BlockFormat::Q5_0 => each::<_, Q5_0>(bytes, out),
            BlockFormat::Q5_1 => each::<_, Q5_1>(bytes, out),
            BlockFormat::Q8_0 => each::<_, Q8_0>(bytes, out),
            BlockFormat::Q2K => each::<_, Q2K>(bytes, out),
            BlockFormat::Q3K => each::<_, Q3K>(bytes, out),
            BlockFormat::Q4K => each::<_, Q4K>(bytes, out),
            BlockFormat::Q5K => each::<_, Q5K>(bytes, out),
            BlockFormat::Q6K => each::<_, Q6K>(bytes, out),
            BlockFormat::Iq4Nl => each::<_, Iq4Nl>(bytes, out),
        }
    }
}

/// The work of [`BlockFormat::dequantize`]. As a closure it is too long to become part of the function that is compiled for
/// the machine's vectors, and is compiled for the least of all machines.
struct Dequantize<'a> {
    format: BlockFormat,
    bytes: &'a [u8],
    out: &'a mut [f32],
}

impl NullaryFnOnce for Dequantize<'_> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.format.dequantize_inlined(self.bytes, self.out);
    }
}

/// The values of a block with one scale.
const SMALL: usize = 32;
/// The values of a block with a scale for each of its groups.
const LARGE: usize = 256;
/// The values of the smallest group of a large block.
const GROUP: usize = 16;

/// A block as it lies in a file: bytes alone, so that it may begin anywhere.
trait Block<const VALUES: usize>: Pod {
    fn values(self, out: &mut [f32; VALUES]);
}

#[inline(always)]
fn each<const VALUES: usize, B: Block<VALUES>>(bytes: &[u8], out: &mut [f32]) {
    let (out, rest) = out.as_chunks_mut();
    assert!(
        rest.is_empty() && bytes.len() == out.len() * size_of::<B>(),
        "{} bytes are not {} whole blocks, or these have not {VALUES} values each",
        bytes.len(),
        out.len()
    );
    // A copy of each block: what is written cannot be what is read, so the compiler makes vectors of it.
    for (&block, out) in bytemuck::cast_slice::<_, B>(bytes).iter().zip(out) {
        block.values(out);
    }
}

/// An f16.
type Half = [u8; 2];

/// The low four bits.
#[inline(always)]
fn low(byte: u8) -> i32 {
    i32::from(byte & 0x0F)
}

/// The high four bits.
#[inline(always)]
fn high(byte: u8) -> i32 {
    i32::from(byte >> 4)
}

/// The bit of that place, moved to the fifth.
#[inline(always)]
fn fifth(bits: u32, place: usize) -> i32 {
    (bits >> place << 4 & 0x10) as i32
}

/// The value `scale * (code - 8)`. The first half of the codes are the low bits of all bytes, the second the high ones:
/// so it is in every small block of four or five bits.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Q4_0 {
    scale: Half,
    codes: [u8; SMALL / 2],
}

impl Block<SMALL> for Q4_0 {
    #[inline(always)]
    fn values(self, out: &mut [f32; SMALL]) {
        let scale = widen_f16(self.scale);
        for (i, &code) in self.codes.iter().enumerate() {
            out[i] = scale * (low(code) - 8) as f32;
            out[i + SMALL / 2] = scale * (high(code) - 8) as f32;
        }
    }
}

/// The value `scale * code + minimum`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Q4_1 {
    scale: Half,
    minimum: Half,
    codes: [u8; SMALL / 2],
}

impl Block<SMALL> for Q4_1 {
    #[inline(always)]
    fn values(self, out: &mut [f32; SMALL]) {
        let (scale, minimum) = (widen_f16(self.scale), widen_f16(self.minimum));
        for (i, &code) in self.codes.iter().enumerate() {
            out[i] = scale * low(code) as f32 + minimum;
            out[i + SMALL / 2] = scale * high(code) as f32 + minimum;
        }
    }
}

/// The value `scale * (code - 16)`; bit `i` of `fifths` is the fifth bit of code `i`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Q5_0 {
    scale: Half,
    fifths: [u8; 4],
    codes: [u8; SMALL / 2],
}

impl Block<SMALL> for Q5_0 {
    #[inline(always)]
    fn values(self, out: &mut [f32; SMALL]) {
        let (scale, fifths) = (widen_f16(self.scale), u32::from_le_bytes(self.fifths));
        for (i, &code) in self.codes.iter().enumerate() {
            let second = i + SMALL / 2;
            out[i] = scale * ((low(code) | fifth(fifths, i)) - 16) as f32;
            out[second] = scale * ((high(code) | fifth(fifths, second)) - 16) as f32;
        }
    }
}

/// The value `scale * code + minimum`; bit `i` of `fifths` is the fifth bit of code `i`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Q5_1 {
    scale: Half,
    minimum: Half,
    fifths: [u8; 4],
    codes: [u8; SMALL / 2],
}

impl Block<SMALL> for Q5_1 {
    #[inline(always)]
    fn values(self, out: &mut [f32; SMALL]) {
        let (scale, minimum) = (widen_f16(self.scale), widen_f16(self.minimum));
        let fifths = u32::from_le_bytes(self.fifths);
        for (i, &code) in self.codes.iter().enumerate() {
            let second = i + SMALL / 2;
            out[i] = scale * (low(code) | fifth(fifths, i)) as f32 + minimum;
            out[second] = scale * (high(code) | fifth(fifths, second)) as f32 + minimum;
        }
    }
}

/// The value `scale * code`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Q8_0 {
    scale: Half,
    codes: [i8; SMALL],
}

impl Block<SMALL> for Q8_0 {
    #[inline(always)]
    fn values(self, out: &mut [f32; SMALL]) {
        let scale = widen_f16(self.scale);
        for (out, &code) in out.iter_mut().zip(&self.codes) {
            *out = scale * f32::from(code);
        }
    }
}

/// The value `scale * WORTH[code]`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Iq4Nl {
    scale: Half,
    codes: [u8; SMALL / 2],
}

/// What a code of IQ4_NL is worth: denser near zero, as weights are.
pub(super) const WORTH: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

impl Block<SMALL> for Iq4Nl {
    #[inline(always)]
    fn values(self, out: &mut [f32; SMALL]) {
        let scale = widen_f16(self.scale);
        // There are fewer products than values.
        let values = WORTH.map(|worth| scale * f32::from(worth));
        for (i, &code) in self.codes.iter().enumerate() {
            out[i] = values[usize::from(code & 0x0F)];
            out[i + SMALL / 2] = values[usize::from(code >> 4)];
        }
    }
}

/// The groups of 16 of a large block whose codes share 16 bytes, 2 bits of each, from the lowest bits up.
///
/// A half of the block is 32 such bytes: all its lowest codes come first, then all that follow above.
#[inline(always)]
fn sharing(bytes: usize) -> [usize; 4] {
    let first = bytes / 2 * 8 + bytes % 2;
    [first, first + 2, first + 4, first + 6]
}

/// Puts the values of these groups where they belong. To fill the block from its bytes at once would be shorter, but then
/// the compiler has to ask whether the groups overlap.
#[inline(always)]
fn put(rows: [[f32; GROUP]; 4], groups: [usize; 4], out: &mut [f32; LARGE]) {
    let out = out.as_chunks_mut::<GROUP>().0;
    for (row, group) in rows.into_iter().zip(groups) {
        out[group] = row;
    }
}

/// The value `(scale * a) * code - (minimum * b)`; a group's `a` are the low bits of its byte, its `b` the high ones.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Q2K {
    groups: [u8; LARGE / GROUP],
    codes: [[u8; GROUP]; LARGE / GROUP / 4],
    scale: Half,
    minimum: Half,
}

impl Block<LARGE> for Q2K {
    #[inline(always)]
    fn values(self, out: &mut [f32; LARGE]) {
        let (scale, minimum) = (widen_f16(self.scale), widen_f16(self.minimum));
        for (at, codes) in self.codes.iter().enumerate() {
            let groups = sharing(at);
            let scales = groups.map(|group| scale * low(self.groups[group]) as f32);
            let minimums = groups.map(|group| minimum * high(self.groups[group]) as f32);
            let mut rows = [[0.0; GROUP]; 4];
            for (i, code) in codes.iter().enumerate() {
                for row in 0..4 {
                    let code = code >> (2 * row) & 3;
                    rows[row][i] = scales[row] * f32::from(code) - minimums[row];
                }
            }
            put(rows, groups, out);
        }
    }
}

/// The value `(scale * (a - 32)) * (code - 4)`, where the third bit of a code lies in `thirds`: bit `r` of byte `c` is of
/// value `32 r + c`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Q3K {
    thirds: [[u8; GROUP]; 2],
    codes: [[u8; GROUP]; LARGE / GROUP / 4],
    groups: [[u8; 4]; 3],
    scale: Half,
}

impl Q3K {
    /// The groups' scales of six bits: four bits each in the first eight bytes, and two in the last four.
    #[inline(always)]
    fn scales(&self) -> [[u8; 4]; 4] {
        let [first, second, upper] = self.groups.map(u32::from_le_bytes);
        let four = |word: u32| word & 0x0F0F_0F0F;
        let two = |word: u32| (word & 0x0303_0303) << 4;
        [
            four(first) | two(upper),
            four(second) | two(upper >> 2),
            four(first >> 4) | two(upper >> 4),
            four(second >> 4) | two(upper >> 6),
        ]
        .map(u32::to_le_bytes)
    }
}

impl Block<LARGE> for Q3K {
    #[inline(always)]
    fn values(self, out: &mut [f32; LARGE]) {
        let (scale, scales) = (widen_f16(self.scale), self.scales());
        for (at, codes) in self.codes.iter().enumerate() {
            let groups = sharing(at);
            let scales = groups.map(|group| scale * (i32::from(scales[group / 4][group % 4]) - 32) as f32);
            let thirds = &self.thirds[at % 2];
            let mut rows = [[0.0; GROUP]; 4];
            for (i, (code, third)) in codes.iter().zip(thirds).enumerate() {
                for row in 0..4 {
                    let code = code >> (2 * row) & 3 | (third >> (groups[row] / 2) & 1) << 2;
                    rows[row][i] = scales[row] * (i32::from(code) - 4) as f32;
                }
            }
            put(rows, groups, out);
        }
    }
}

/// The scales and the minimums of six bits, of 8 groups of 32: of the first four groups each in its own byte, of the others
/// four bits in the last four bytes, and two on top of the bytes of the first.
#[inline(always)]
fn scales_and_minimums(groups: [[u8; 4]; 3]) -> ([u8; 8], [u8; 8]) {
    let [scales, minimums, both] = groups.map(u32::from_le_bytes);
    let first = |word: u32| word & 0x3F3F_3F3F;
    let second = |four: u32, two: u32| four & 0x0F0F_0F0F | two >> 2 & 0x3030_3030;
    let bytes = |first: u32, second: u32| (u64::from(first) | u64::from(second) << 32).to_le_bytes();
    (bytes(first(scales), second(both, scales)), bytes(first(minimums), second(both >> 4, minimums)))
}

/// The value `(scale * a) * code - (minimum * b)`. Of 32 bytes the low bits are one group's codes, the high ones the next's.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Q4K {
    scale: Half,
    minimum: Half,
    groups: [[u8; 4]; 3],
    codes: [[u8; 2 * GROUP]; 4],
}

impl Block<LARGE> for Q4K {
    #[inline(always)]
    fn values(self, out: &mut [f32; LARGE]) {
        let (scale, minimum) = (widen_f16(self.scale), widen_f16(self.minimum));
        let (scales, minimums) = scales_and_minimums(self.groups);
        let scales = scales.map(|code| scale * f32::from(code));
        let minimums = minimums.map(|code| minimum * f32::from(code));
        for (group, out) in out.as_chunks_mut::<{ 2 * GROUP }>().0.iter_mut().enumerate() {
            let shift = 4 * (group % 2);
            for (out, &code) in out.iter_mut().zip(&self.codes[group / 2]) {
                *out = scales[group] * low(code >> shift) as f32 - minimums[group];
            }
        }
    }
}

/// As Q4_K, with a fifth bit: bit `g` of byte `c` of `fifths` is of value `c` of group `g`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Q5K {
    scale: Half,
    minimum: Half,
    groups: [[u8; 4]; 3],
    fifths: [u8; 2 * GROUP],
    codes: [[u8; 2 * GROUP]; 4],
}

impl Block<LARGE> for Q5K {
    #[inline(always)]
    fn values(self, out: &mut [f32; LARGE]) {
        let (scale, minimum) = (widen_f16(self.scale), widen_f16(self.minimum));
        let (scales, minimums) = scales_and_minimums(self.groups);
        let scales = scales.map(|code| scale * f32::from(code));
        let minimums = minimums.map(|code| minimum * f32::from(code));
        for (group, out) in out.as_chunks_mut::<{ 2 * GROUP }>().0.iter_mut().enumerate() {
            let shift = 4 * (group % 2);
            for (out, (&code, &fifths)) in out.iter_mut().zip(self.codes[group / 2].iter().zip(&self.fifths))
            {
                let code = low(code >> shift) | fifth(u32::from(fifths), group);
                *out = scales[group] * code as f32 - minimums[group];
            }
        }
    }
}

/// The value `(scale * a) * (code - 32)`. Of a half's 64 bytes all low bits come first, then all high ones; two more bits of
/// each code lie in `uppers`.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Q6K {
    codes: [[u8; GROUP]; LARGE / GROUP / 2],
    uppers: [[u8; GROUP]; LARGE / GROUP / 4],
    groups: [i8; LARGE / GROUP],
    scale: Half,
}

impl Block<LARGE> for Q6K {
    #[inline(always)]
    fn values(self, out: &mut [f32; LARGE]) {
        let scale = widen_f16(self.scale);
        for (at, uppers) in self.uppers.iter().enumerate() {
            let groups = sharing(at);
            let scales = groups.map(|group| scale * f32::from(self.groups[group]));
            let codes = [0, 2].map(|row| &self.codes[at / 2 * 4 + row + at % 2]);
            let mut rows = [[0.0; GROUP]; 4];
            for (i, upper) in uppers.iter().enumerate() {
                for row in 0..4 {
                    let code = codes[row % 2][i] >> (row / 2 * 4) & 0x0F | (upper >> (2 * row) & 3) << 4;
                    rows[row][i] = scales[row] * (i32::from(code) - 32) as f32;
                }
            }
            put(rows, groups, out);
        }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;
    use crate::numerics::format::Format;

    /// What gguf says of every format: see `tests/blocks/make_expected.py`.
    const EXPECTED: &str = include_str!("../../tests/blocks/expected.txt");

    /// What is said of this format in lines of this kind, word by word.
    fn expected(format: BlockFormat, kind: &str) -> Option<Vec<&'static str>> {
        let mut lines = EXPECTED.lines().map(|line| line.split(' ').collect::<Vec<_>>());
        lines.find(|line| line[..2] == [format.name(), kind]).map(|line| line[2..].to_vec())
    }

    fn from_hex(text: &str) -> Vec<u8> {
        let digits = text.as_bytes().as_chunks::<2>().0;
        digits.iter().map(|two| u8::from_str_radix(str::from_utf8(two).unwrap(), 16).unwrap()).collect()
    }

    fn to_hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn dequantized(format: BlockFormat, bytes: &[u8]) -> Vec<f32> {
        let mut values = vec![f32::NAN; bytes.len() / format.bytes() * format.values()];
        format.dequantize(bytes, &mut values);
        values
    }

    fn little_endian(values: &[f32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    /// Where the f16 of a block lie.
    fn halves(format: BlockFormat) -> &'static [usize] {
        match format {
            BlockFormat::Q4_0 | BlockFormat::Q5_0 | BlockFormat::Q8_0 | BlockFormat::Iq4Nl => &[0],
            BlockFormat::Q4_1 | BlockFormat::Q5_1 | BlockFormat::Q4K | BlockFormat::Q5K => &[0, 2],
            BlockFormat::Q2K => &[80, 82],
            BlockFormat::Q3K => &[108],
            BlockFormat::Q6K => &[208],
        }
    }

    /// The blocks that the script makes, from the same words.
    pub(in crate::numerics) fn stream(format: BlockFormat, blocks: usize) -> Vec<u8> {
        const EDGES: [u16; 7] = [0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x7BFF, 0xFBFF];
        let number = (0..64).find(|&number| BlockFormat::of_ggml_type(number) == Some(format)).unwrap();
        let mut state = 2026 + u64::from(number);
        let mut word = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut bytes = Vec::new();
        for _ in 0..blocks {
            let begin = bytes.len();
            while bytes.len() < begin + format.bytes() {
                bytes.extend(word().to_le_bytes());
            }
            bytes.truncate(begin + format.bytes());
            for at in halves(format) {
                let word = word();
                let code = EDGES.get((word % 16) as usize).copied().unwrap_or((word >> 32) as u16);
                let code = if code & 0x7C00 == 0x7C00 { code & !0x4000 } else { code };
                bytes[begin + at..][..2].copy_from_slice(&code.to_le_bytes());
            }
        }
        bytes
    }

    #[test]
    fn names_numbers_and_sizes_are_those_of_gguf() {
        for format in BlockFormat::ALL {
            let numbers: Vec<usize> =
                expected(format, "layout").unwrap().iter().map(|word| word.parse().unwrap()).collect();
            assert_eq!(numbers[1..], [format.values(), format.bytes()], "{format}");
            assert_eq!(BlockFormat::of_ggml_type(numbers[0] as u32), Some(format));
            assert_eq!(format.name(), format.to_string());
            assert_eq!(format.name().parse(), Ok(format));
        }
        let known = (0..=u32::from(u16::MAX)).filter_map(BlockFormat::of_ggml_type);
        assert_eq!(known.count(), BlockFormat::ALL.len());
    }

    #[test]
    fn a_block_has_the_values_that_gguf_gives_it() {
        for format in BlockFormat::ALL {
            let [block, values] = expected(format, "block").unwrap()[..] else { panic!("{format}") };
            let dequantized = dequantized(format, &from_hex(block));
            assert_eq!(to_hex(&little_endian(&dequantized)), values, "{format}");
        }
    }

    #[test]
    fn two_thousand_random_blocks_have_the_values_that_gguf_gives_them() {
        for format in BlockFormat::ALL {
            let values = dequantized(format, &stream(format, 2048));
            let digest = Sha256::digest(little_endian(&values));
            assert_eq!(to_hex(&digest), expected(format, "stream").unwrap()[0], "{format}");
        }
    }

    #[test]
    fn what_gguf_quantized_comes_back_near_to_what_it_was() {
        let ramp: Vec<f32> = (0..64).map(|i| (i as f32 - 13.0) / 8.0).collect();
        let mut seen = 0;
        for format in BlockFormat::ALL {
            let Some(words) = expected(format, "quantized") else { continue };
            let values = dequantized(format, &from_hex(words[0]));
            assert_eq!(to_hex(&little_endian(&values)), words[1], "{format}");
            for (values, ramp) in values.chunks(format.values()).zip(ramp.chunks(format.values())) {
                let largest = ramp.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
                let near = values.iter().zip(ramp).all(|(value, was)| (value - was).abs() <= largest / 15.0);
                assert!(near, "{format}: {values:?}");
            }
            seen += 1;
        }
        assert_eq!(seen, 5);
    }

    #[test]
    fn the_values_are_the_same_for_one_block_as_for_many_and_without_the_vectors_of_the_machine() {
        for format in BlockFormat::ALL {
            let bytes = stream(format, 64);
            let together = dequantized(format, &bytes);
            let alone = bytes.chunks(format.bytes()).flat_map(|block| dequantized(format, block));
            assert_eq!(little_endian(&together), little_endian(&alone.collect::<Vec<_>>()), "{format}");
            // Outside a dispatch, this is compiled for the least of all machines.
            let mut least = vec![0.0; together.len()];
            format.dequantize_inlined(&bytes, &mut least);
            assert_eq!(little_endian(&together), little_endian(&least), "{format}");
        }
    }

    #[test]
    fn a_scale_that_is_not_finite_leaves_no_value_finite() {
        for format in BlockFormat::ALL {
            for &at in halves(format) {
                for special in [0x7C00_u16, 0xFC00, 0x7E00, 0x7C01, 0xFFFF] {
                    let mut bytes = stream(format, 16);
                    for block in bytes.chunks_mut(format.bytes()) {
                        block[at..][..2].copy_from_slice(&special.to_le_bytes());
                    }
                    let values = dequantized(format, &bytes);
                    assert!(values.iter().all(|value| !value.is_finite()), "{format} {at} {special:x}");
                }
            }
        }
    }

    #[test]
    fn no_blocks_have_no_values_and_part_of_one_is_refused() {
        for format in BlockFormat::ALL {
            format.dequantize(&[], &mut []);
            let (values, bytes) = (format.values(), format.bytes());
            for (bytes, values) in [(bytes - 1, values), (bytes, values - 1), (bytes, 2 * values), (bytes, 0)]
            {
                let refused = std::panic::catch_unwind(|| {
                    format.dequantize(&vec![0; bytes], &mut vec![0.0; values]);
                });
                assert!(refused.is_err(), "{format}: {bytes} bytes, {values} values");
            }
        }
    }

    #[test]
    fn every_f16_widens_to_the_value_of_its_code() {
        for code in 0..=u16::MAX {
            let (value, defined) = (widen_f16(code.to_le_bytes()), Format::F16.decode(code.into()));
            assert!(value.to_bits() == defined.to_bits() || value.is_nan() && defined.is_nan(), "{code:x}");
        }
    }
}
