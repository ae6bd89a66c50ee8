//! Codes of a few bits, packed at their own width: those of 32 outputs side by side, behind the scales of their group.

use std::ops::Range;

use bytemuck::{Pod, Zeroable};
use pulp::{Simd, WithSimd};

use super::{
    Isa,
    blocks::{ByteRow, Each, Out, Sums, Take, all, prefetch_rows},
    panel::{FloatRow, PANEL},
};
use crate::numerics::{
    NAN,
    format::{Format, Lanes},
    quantizer::{Grid, Quantized, Quantizer, Scale},
};

/// Terms whose codes share whole bytes, whatever their width.
const UNIT: usize = 8;

/// Panels of codes.
#[derive(Clone, Debug)]
pub(super) struct Codes {
    pub(super) quantizer: Quantizer,
    depth: usize,
    /// Is a weight multiplied as a value, which is what its code is worth?
    valued: bool,
    rows: Vec<ByteRow>,
    columns: usize,
    /// What multiplies all of an output; where groups have scales, what multiplies all of all.
    whole: Vec<f32>,
}

impl Codes {
    /// Room for so many outputs.
    pub(super) fn new(quantizer: Quantizer, valued: bool, columns: usize, depth: usize) -> Codes {
        let mut codes = Codes { quantizer, depth, valued, rows: Vec::new(), columns: 0, whole: Vec::new() };
        codes.rows = vec![ByteRow::zeroed(); columns.div_ceil(PANEL) * codes.rows_of_panel()];
        codes
    }

    /// Terms of a group.
    pub(super) fn group(&self) -> usize {
        self.quantizer.group(self.depth)
    }

    /// The rows before a group's codes: of its scale, and of its zero.
    fn rows_before(&self) -> usize {
        let scale = if self.quantizer.is_whole() { 0 } else { self.quantizer.scale_bytes() };
        scale + usize::from(self.quantizer.has_byte())
    }

    /// The rows of so many terms' codes.
    fn rows_of(&self, terms: usize) -> usize {
        terms.div_ceil(UNIT) * self.quantizer.grid.bits() as usize
    }

    fn rows_of_group(&self) -> usize {
        self.rows_before() + self.rows_of(self.group())
    }

    fn rows_of_panel(&self) -> usize {
        let (whole, rest) = (self.depth / self.group(), self.depth % self.group());
        let last = if rest > 0 { self.rows_before() + self.rows_of(rest) } else { 0 };
        whole * self.rows_of_group() + last
    }

    /// Quantizes one more output and takes it; tells what it is worth.
    pub(super) fn take(&mut self, values: &[f32]) -> Vec<f32> {
        let quantized = self.quantizer.quantize(&[values]).remove(0);
        self.push(&quantized);
        quantized.values(self.group()).collect()
    }

    /// Takes one more output.
    pub(super) fn push(&mut self, output: &Quantized) {
        let (panel, lane) = (self.columns / PANEL, self.columns % PANEL);
        let rows = (panel + 1) * self.rows_of_panel();
        if rows > self.rows.len() {
            self.rows.resize(rows, ByteRow::zeroed());
        }
        let Quantizer { grid, scale, .. } = self.quantizer;
        let has_byte = self.quantizer.has_byte();
        let (group, bits) = (self.group(), grid.bits() as usize);
        let groups = output.codes.chunks(group).zip(output.zeros.iter().zip(&output.scales));
        for (index, (codes, (&zero, &worth))) in groups.enumerate() {
            let first = panel * self.rows_of_panel() + index * self.rows_of_group();
            let rows_before = self.rows_before();
            let (before, own) = self.rows[first..].split_at_mut(rows_before);
            let scale = match scale {
                _ if self.quantizer.is_whole() => 0,
                Scale::F32 | Scale::Fitted => worth.to_bits(),
                Scale::F16 => Format::F16.encode(worth),
                Scale::PowerBelow | Scale::PowerAbove => encode_power(worth),
                Scale::Nested => Format::E4M3.encode(worth),
            }
            .to_le_bytes();
            let byte = match grid {
                Grid::Lists(_) => grid.extras().iter().position(|extra| *extra == zero).unwrap_or(0) as u8,
                _ => zero as u8,
            };
            let byte = has_byte.then_some(byte);
            let shared = scale[..before.len() - usize::from(has_byte)].iter().copied().chain(byte);
            before.iter_mut().zip(shared).for_each(|(row, byte)| row.0[lane] = byte);
            for (unit, codes) in own.chunks_mut(bits).zip(codes.chunks(UNIT)) {
                for (term, &code) in codes.iter().enumerate() {
                    // A float keeps the sign of its zero.
                    let counted = matches!(grid, Grid::Integers(_) | Grid::Twice { .. });
                    let code = if counted { code + zero } else { code };
                    put(unit, lane, term, bits, grid.encode(code));
                }
            }
        }
        if self.quantizer.is_whole() || self.whole.is_empty() {
            self.whole.push(output.whole);
        }
        self.columns += 1;
    }

    /// What multiplies all of each output of a panel.
    pub(super) fn whole(&self, panel: usize) -> FloatRow {
        match self.whole.as_slice() {
            [one] if !self.quantizer.is_whole() => FloatRow([*one; PANEL]),
            each => {
                let mut row = FloatRow([0.0; PANEL]);
                row.0.iter_mut().zip(each.iter().skip(panel * PANEL)).for_each(|(lane, own)| *lane = *own);
                row
            }
        }
    }

    /// Writes what some terms of a panel are, from a multiple of 8 terms of a group on.
    pub(super) fn widen(&self, isa: Isa, panel: usize, first: usize, out: &mut [FloatRow]) {
        let terms = out.len();
        self.dispatch(isa, [panel], first..first + terms, Out(out));
    }

    /// The same of a matrix whose terms are the outputs here, and its outputs the terms, from a term on that begins a panel here.
    pub(super) fn widen_turned(&self, isa: Isa, panel: usize, from: usize, out: &mut [FloatRow]) {
        let first = panel * PANEL;
        let mut turned = [FloatRow([0.0; PANEL]); PANEL];
        let turned = &mut turned[..PANEL.min(self.depth - first)];
        for (own, out) in (from / PANEL..).zip(out.chunks_mut(PANEL)) {
            self.widen(isa, own, first, turned);
            for (term, row) in out.iter_mut().enumerate() {
                row.0.iter_mut().zip(&*turned).for_each(|(value, turned)| *value = turned.0[term]);
            }
        }
    }

    /// Adds the products of a row of activations with the terms of panels to their sums, one after the other.
    pub(super) fn multiply<const P: usize>(
        &self,
        isa: Isa,
        panels: [usize; P],
        x: &[f32],
        sums: &mut [FloatRow; P],
    ) {
        self.dispatch(isa, panels, 0..self.depth, Adding { x, sums });
    }

    /// Adds the scales of groups of a panel to these.
    pub(super) fn scales(
        &self,
        isa: Isa,
        panel: usize,
        groups: impl Iterator<Item = usize>,
        scales: &mut Vec<FloatRow>,
    ) {
        struct Read<'a, I>(&'a Codes, usize, I, &'a mut Vec<FloatRow>);

        impl<I: Iterator<Item = usize>> WithSimd for Read<'_, I> {
            type Output = ();

            #[inline(always)]
            fn with_simd<S: Simd>(self, _: S) {
                let Read(codes, first, groups, scales) = self;
                for group in groups {
                    scales.push(codes.scales_before(&codes.rows[first + group * codes.rows_of_group()..]));
                }
            }
        }

        isa.dispatch(Read(self, panel * self.rows_of_panel(), groups, scales));
    }

    #[inline(always)]
    fn scales_before(&self, rows: &[ByteRow]) -> FloatRow {
        if self.quantizer.is_whole() {
            return FloatRow([1.0; PANEL]);
        }
        let row = |at: usize| move |lane: usize| u32::from(rows[at].0[lane]);
        match self.quantizer.scale {
            Scale::F32 | Scale::Fitted => all(move |lane| {
                f32::from_bits(row(0)(lane) | row(1)(lane) << 8 | row(2)(lane) << 16 | row(3)(lane) << 24)
            }),
            Scale::F16 => all(move |lane| Format::F16.decode(row(0)(lane) | row(1)(lane) << 8)),
            Scale::PowerBelow | Scale::PowerAbove => all(move |lane| decode_power(row(0)(lane))),
            Scale::Nested => all(move |lane| Format::E4M3.decode(row(0)(lane))),
        }
    }

    pub(super) fn bytes(&self) -> usize {
        size_of_val(self.rows.as_slice()) + size_of_val(self.whole.as_slice())
    }

    /// Chooses once what is the same for every term.
    fn dispatch<const P: usize>(
        &self,
        isa: Isa,
        panels: [usize; P],
        terms: Range<usize>,
        to: impl Receive<P>,
    ) {
        macro_rules! widths {
            ($kind:expr, $of:expr; $($bits:literal)*) => {
                match self.quantizer.grid.bits() {
                    $($bits => {
                        let grid = ($kind)($of);
                        isa.dispatch(Walk::<_, _, $bits, P> { terms: Terms { codes: self, panels, terms, grid }, to })
                    })*
                    bits => unreachable!("no code has {bits} bits"),
                }
            };
        }
        match self.quantizer.grid {
            Grid::Integers(bits) | Grid::Twice { bits, .. } => {
                widths!(Whole::<1>::from, -(1 << (bits - 1)); 2 3 4 5 6 7 8)
            }
            Grid::Odd(bits) => widths!(Whole::<2>::from, 1 - (1 << bits); 1 2 3 4 5 6 7),
            Grid::Floats(format) => widths!(Floats, Lanes::of(format); 3 4 5 6 7 8),
            Grid::Lists(bits) => widths!(Listed::of, (self.quantizer.grid, bits); 3 4),
        }
    }
}

/// The code that is no power.
const NO_POWER: u32 = 255;

/// The biased exponent of a power of two.
fn encode_power(power: f32) -> u32 {
    if power.is_nan() {
        return NO_POWER;
    }
    let exponent = (f64::from(power).to_bits() >> 52) as u32;
    exponent - 1023 + 127
}

/// The power of two with this biased exponent, 2^-127 with 0.
#[inline(always)]
fn decode_power(code: u32) -> f32 {
    let power = if code == 0 { 1 << 22 } else { code << 23 };
    f32::from_bits(if code == NO_POWER { NAN.to_bits() } else { power })
}

/// The parts of a code's bits that stand side by side with others of their kind: of 8, 4, 2 or 1 bits. Those of an output's terms
/// in a unit are one word, of as many bytes; of the first they are two.
const PLANES: [usize; 4] = [8, 4, 2, 1];
/// The largest word.
const WORD: usize = size_of::<u32>();

/// Puts a code among the rows of its unit.
fn put(rows: &mut [ByteRow], lane: usize, term: usize, bits: usize, code: u8) {
    let bytes: &mut [u8] = bytemuck::cast_slice_mut(rows);
    let (mut place, mut first) = (0, 0);
    for plane in PLANES.into_iter().filter(|plane| bits & plane != 0) {
        let part = code >> place & (u8::MAX >> (8 - plane));
        let (word, bit) = (term * plane / (8 * WORD), term * plane % (8 * WORD));
        bytes[first + (word * PANEL + lane) * plane.min(WORD) + bit / 8] |= part << (bit % 8);
        (place, first) = (place + plane, first + plane * PANEL);
    }
}

/// The words of a panel's outputs.
#[inline(always)]
fn words<W: Pod>(rows: &[ByteRow], first: usize) -> &[W] {
    bytemuck::cast_slice(&rows[first..first + size_of::<W>()])
}

/// The codes of a term: shifts of whole words, which cost less than to gather bytes.
#[inline(always)]
fn code<const BITS: usize>(rows: &[ByteRow], term: usize) -> impl Each<u32> {
    // One closure whatever the width: what is no part of a code is nothing.
    let part = move |plane: usize, first: usize, place: usize| {
        move |lane: usize| {
            if BITS & plane == 0 {
                return 0;
            }
            let word = match plane {
                1 => words::<u8>(rows, first)[lane].into(),
                2 => u16::from_le(words(rows, first)[lane]).into(),
                _ => u32::from_le(words(rows, first + term * plane / (8 * WORD) * WORD)[lane]),
            };
            (word >> (term * plane % (8 * WORD)) & ((1 << plane) - 1)) << place
        }
    };
    move |lane| {
        part(8, 0, 0)(lane)
            | part(4, 0, 0)(lane)
            | part(2, BITS & 4, BITS & 4)(lane)
            | part(1, BITS & 6, BITS & 6)(lane)
    }
}

/// What a code is on its grid.
trait Worth: Copy {
    /// What is taken away from codes whose output has no zero of its own.
    fn origin(self) -> f32;
    fn of(self, code: u32, origin: f32) -> f32;
}

/// Where the last bit of an f32 is worth one: a whole number in these bits is one without a conversion.
const UNITS: f32 = (1 << (f32::MANTISSA_DIGITS - 1)) as f32;

/// A multiple of the code, from a number on: what is taken away.
#[derive(Clone, Copy)]
struct Whole<const STEP: u32>(f32);

impl<const STEP: u32> Whole<STEP> {
    fn from(first: i32) -> Self {
        Whole(UNITS - first as f32)
    }
}

impl<const STEP: u32> Worth for Whole<STEP> {
    #[inline(always)]
    fn origin(self) -> f32 {
        self.0
    }

    #[inline(always)]
    fn of(self, code: u32, origin: f32) -> f32 {
        f32::from_bits(UNITS.to_bits() | (STEP * code)) - origin
    }
}

/// The value of a float.
#[derive(Clone, Copy)]
struct Floats(Lanes);

impl Worth for Floats {
    #[inline(always)]
    fn origin(self) -> f32 {
        0.0
    }

    #[inline(always)]
    fn of(self, code: u32, _: f32) -> f32 {
        self.0.number(code)
    }
}

/// The value of a float, but of negative zero: the extra number of its group.
#[derive(Clone, Copy)]
struct Listed {
    common: Lanes,
    extra: u32,
}

impl Listed {
    fn of((grid, bits): (Grid, u8)) -> Listed {
        Listed { common: Lanes::of(grid.common()), extra: 1 << (bits - 1) }
    }
}

impl Worth for Listed {
    #[inline(always)]
    fn origin(self) -> f32 {
        0.0
    }

    #[inline(always)]
    fn of(self, code: u32, origin: f32) -> f32 {
        if code == self.extra { origin } else { self.common.number(code) }
    }
}

/// Some terms of panels, one after the other.
struct Terms<'a, G, const BITS: usize, const P: usize> {
    codes: &'a Codes,
    panels: [usize; P],
    terms: Range<usize>,
    grid: G,
}

/// What becomes of them, on the vectors of an instruction set.
trait Receive<const P: usize> {
    fn receive<S: Simd, G: Worth, const BITS: usize>(self, simd: S, terms: Terms<'_, G, BITS, P>);
}

impl Receive<1> for Out<'_> {
    #[inline(always)]
    fn receive<S: Simd, G: Worth, const BITS: usize>(self, _: S, terms: Terms<'_, G, BITS, 1>) {
        terms.give(&mut [self]);
    }
}

/// Adds their products to sums.
struct Adding<'a, const P: usize> {
    x: &'a [f32],
    sums: &'a mut [FloatRow; P],
}

impl<const P: usize> Receive<P> for Adding<'_, P> {
    #[inline(always)]
    fn receive<S: Simd, G: Worth, const BITS: usize>(self, simd: S, terms: Terms<'_, G, BITS, P>) {
        let mut sums = self.sums.each_ref().map(|sums| Sums::begin(simd, self.x, sums));
        terms.give(&mut sums);
        self.sums.iter_mut().zip(sums).for_each(|(out, sums)| *out = sums.end());
    }
}

/// The work of [`Codes::dispatch`].
struct Walk<'a, G, T, const BITS: usize, const P: usize> {
    terms: Terms<'a, G, BITS, P>,
    to: T,
}

impl<G: Worth, T: Receive<P>, const BITS: usize, const P: usize> WithSimd for Walk<'_, G, T, BITS, P> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        self.to.receive(simd, self.terms);
    }
}

/// What the terms of a group of a panel share.
struct Shared<G> {
    grid: G,
    factors: FloatRow,
    origins: FloatRow,
}

impl<G: Worth> Shared<G> {
    /// What the terms behind these rows share.
    #[inline(always)]
    fn of(codes: &Codes, grid: G, rows: &[ByteRow], whole: &FloatRow) -> Shared<G> {
        let scales = if codes.valued { codes.scales_before(rows) } else { FloatRow([1.0; PANEL]) };
        let origins = if codes.quantizer.zero {
            let zeros = &rows[codes.rows_before() - 1];
            all(|lane| UNITS + f32::from(zeros.0[lane]))
        } else if let Grid::Lists(_) = codes.quantizer.grid {
            let (which, extras) = (&rows[codes.rows_before() - 1], codes.quantizer.grid.extras());
            all(|lane| extras[usize::from(which.0[lane] & 3)])
        } else {
            FloatRow([grid.origin(); PANEL])
        };
        Shared { grid, factors: all(|lane| scales.0[lane] * whole.0[lane]), origins }
    }

    /// Hands over a term of a unit whose first has this number. Not a closure: not inlined, that would be compiled for the least of
    /// all machines.
    #[inline(always)]
    fn give<const BITS: usize>(&self, rows: &[ByteRow], place: usize, first: usize, to: &mut impl Take) {
        let (code, grid) = (code::<BITS>(rows, place), self.grid);
        to.take(first + place, |lane| self.factors.0[lane] * grid.of(code(lane), self.origins.0[lane]));
    }
}

impl<G: Worth, const BITS: usize, const P: usize> Terms<'_, G, BITS, P> {
    #[inline(always)]
    fn give(self, to: &mut [impl Take; P]) {
        const { assert!(P <= 2, "one or two panels are walked together") };
        let Terms { codes, panels, terms, grid } = self;
        let (group, before, each) = (codes.group(), codes.rows_before(), codes.rows_of_panel());
        let whole =
            panels.map(|panel| if codes.valued { codes.whole(panel) } else { FloatRow([1.0; PANEL]) });
        let start = terms.start;
        let mut term = start;
        while term < terms.end {
            let (index, within) = (term / group, term % group);
            let end = terms.end.min((index + 1) * group);
            let rows =
                panels.map(|panel| &codes.rows[panel * each..][..each][index * codes.rows_of_group()..]);
            let shared: [_; P] = std::array::from_fn(|p| Shared::of(codes, grid, rows[p], &whole[p]));
            let mut units = rows.map(|rows| rows[before + within / UNIT * BITS..].chunks_exact(BITS));
            while term + UNIT <= end {
                // Each of eight on its own: so it is known to the compiler which bits of a word are a term's. And each panel on its
                // own: so its sums stay in registers. The sums of one wait for each other while those of the next go on.
                macro_rules! eight {
                    ($panel:literal: $($place:literal)*) => {
                        if $panel < P {
                            let rows = units[$panel].next().expect("there is a unit for every 8 terms");
                            prefetch_rows(rows);
                            $(shared[$panel].give::<BITS>(rows, $place, term - start, &mut to[$panel]);)*
                        }
                    };
                }
                eight!(0: 0 1 2 3 4 5 6 7);
                eight!(1: 0 1 2 3 4 5 6 7);
                term += UNIT;
            }
            if term < end {
                macro_rules! last {
                    ($panel:literal) => {
                        if $panel < P {
                            let rows = units[$panel].next().expect("the last terms have a unit");
                            for place in 0..end - term {
                                shared[$panel].give::<BITS>(rows, place, term - start, &mut to[$panel]);
                            }
                        }
                    };
                }
                last!(0);
                last!(1);
            }
            term = end;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerics::quantizer::Side;

    const NAMES: [&str; 24] = [
        "int2-f32-channel",
        "int3-f16-g24",
        "int4-f16-g128",
        "int5-f32-g8-zero",
        "int6-f16-channel-zero",
        "int7-e8m0-g32",
        "int8-e8m0up-g32-zero",
        "odd1-f32-g16",
        "odd3-f32-channel",
        "odd6-f16-s16",
        "e2m1-e8m0-g32",
        "e2m1-e4m3-g16",
        "e2m2-f32-tensor",
        "e2m3-e8m0-g32",
        "e3m3-f16-channel",
        "e4m3-f32-channel",
        "e5m2-e8m0-g8",
        "e2m0-f32-channel",
        "e4m0-f16-g16",
        "int4of8-f16-g24",
        "bitmod3-f16-g16",
        "bitmod4-f32-channel",
        "bitmod4-e8m0up-g8",
        "e2m1-fit-g16",
    ];

    fn values(columns: usize, depth: usize) -> Vec<Vec<f32>> {
        let value = |column: usize, term: usize| {
            let hash = (column * 7919 + term * 104_729) as u32 % 4001;
            (hash as f32 - 2000.0) / 700.0 * [0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0][column % 7]
        };
        (0..columns).map(|column| (0..depth).map(|term| value(column, term)).collect()).collect()
    }

    fn packed(name: &str, valued: bool, columns: &[Vec<f32>]) -> (Codes, Vec<Quantized>) {
        let quantizer = Quantizer::named(name, Side::Weights).unwrap();
        let outputs = quantizer.quantize(&columns.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let mut codes = Codes::new(quantizer, valued, columns.len(), columns[0].len());
        outputs.iter().for_each(|output| codes.push(output));
        (codes, outputs)
    }

    #[test]
    fn packed_codes_are_what_was_quantized_on_every_instruction_set() {
        // Neither the last panel nor the last group is full, nor the last unit of codes.
        let columns = values(PANEL + 5, 77);
        for name in NAMES {
            for valued in [false, true] {
                let (codes, outputs) = packed(name, valued, &columns);
                for isa in Isa::available() {
                    for (column, output) in outputs.iter().enumerate() {
                        let mut rows = vec![FloatRow([f32::NAN; PANEL]); 77];
                        codes.widen(isa, column / PANEL, 0, &mut rows);
                        let found: Vec<f32> = rows.iter().map(|row| row.0[column % PANEL]).collect();
                        let expected: Vec<f32> = match valued {
                            true => output.values(codes.group()).collect(),
                            false => output.codes.clone(),
                        };
                        assert_eq!(found, expected, "{name} on {isa}, output {column}");
                        let mut scales = Vec::new();
                        codes.scales(isa, column / PANEL, std::iter::once(0), &mut scales);
                        assert_eq!(
                            scales[0].0[column % PANEL],
                            output.scales[0],
                            "{name} on {isa}, output {column}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_stretch_of_terms_is_what_it_is_among_all() {
        for name in NAMES {
            let (codes, outputs) = packed(name, false, &values(3, 160));
            for (first, end) in [(0, 8), (16, 160), (24, 59), (128, 160)] {
                let mut rows = vec![FloatRow([f32::NAN; PANEL]); end - first];
                codes.widen(Isa::best(), 0, first, &mut rows);
                let found: Vec<f32> = rows.iter().map(|row| row.0[2]).collect();
                assert_eq!(found, outputs[2].codes[first..end], "{name}, {first} to {end}");
            }
        }
    }

    #[test]
    fn codes_take_their_own_bits_and_their_scales() {
        for (name, bits) in [
            ("int4-f16-g128", 4.125),
            ("int3-f16-g128", 3.125),
            ("int4-f16-g128-zero", 4.1875),
            ("e2m1-e8m0-g32", 4.25),
            ("e2m1-e4m3-g16", 4.5),
            ("e4m3-e8m0-g32", 8.25),
            ("odd1-f32-g32", 2.0),
        ] {
            let (codes, _) = packed(name, true, &values(PANEL, 1024));
            let shared = if codes.whole.len() == 1 { 4 } else { 0 };
            assert_eq!((codes.bytes() - shared) as f64 * 8.0 / (PANEL * 1024) as f64, bits, "{name}");
        }
    }

    #[test]
    fn a_power_of_two_has_a_byte_and_what_is_none_the_last() {
        for code in 0..NO_POWER {
            assert_eq!(encode_power(decode_power(code)), code);
        }
        assert!(decode_power(encode_power(f32::NAN)).is_nan());
    }
}
