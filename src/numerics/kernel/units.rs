//! Sums as a GPU's matrix unit adds them, on vectors: one lane an output, a block of products at once.
//!
//! A product of the formats that such units multiply is exact in f32. So a block is two passes over its products: the largest
//! exponent, then each product times a power of two, cut off to an integer and added. What lies where f32 ends (infinities, sums of
//! nothing but the tiniest products) is seen on the way and left to the definition.

use std::{iter::Zip, ops::Range, slice::Iter};

use pulp::{NullaryFnOnce, Simd, WithSimd};

use super::{
    isa::Isa,
    panel::{FloatRow, PANEL},
    task::{Activations, Block, Out, Task},
    tile::{Arithmetic, FusedF16, Row, Sums, groups, store},
};
use crate::numerics::{
    format::{Format, SIGN},
    order::{Adder, Schedule},
    unit::Unit,
};

/// How many rows a tile takes at most.
const ROWS: usize = 4;

/// The activations, in blocks of rows, and the exponents of each.
pub(super) struct UnitRows<'a> {
    unit: Unit,
    blocks: Vec<(Block<'a>, Vec<u32>)>,
}

impl<'a> UnitRows<'a> {
    pub(super) fn new(unit: Unit, activations: Activations<'a, '_>) -> UnitRows<'a> {
        let blocks = Block::all(activations, ROWS).into_iter().map(|block| {
            let marks = block.x.iter().map(|x| mark(*x, least(unit.operands()))).collect();
            (block, marks)
        });
        UnitRows { unit, blocks: blocks.collect() }
    }

    pub(super) fn multiply(&self, task: &Task<'_>, panels: Range<usize>, out: &mut Out<'_>) {
        let (mut widened, mut marks) = (Vec::new(), Vec::new());
        for panel in panels {
            let rows = task.widened(panel, &mut widened);
            if is_fast(task.isa) {
                marks.resize(rows.len(), FloatRow([0.0; PANEL]));
                task.isa.dispatch(Mark { rows, least: least(self.unit.operands()), marks: &mut marks });
            }
            let panel = Panel {
                number: panel,
                rows,
                marks: &marks,
                start: task.begin(panel).0.map(|start| self.unit.begin(start)),
            };
            for (block, marks) in &self.blocks {
                let mut piece =
                    Piece { task, unit: self.unit, block, marks, panel: &panel, out: [[0.0; PANEL]; ROWS] };
                match block.height {
                    1 => piece.multiply::<1>(),
                    _ => piece.multiply::<ROWS>(),
                }
                task.round(task.recipe.result, &mut piece.out[..block.rows]);
                for (row, values) in piece.out.iter().enumerate().take(block.rows) {
                    out.put(block.first + row, panel.number, values);
                }
            }
        }
    }
}

/// A panel that is multiplied.
struct Panel<'a> {
    number: usize,
    rows: &'a [FloatRow],
    /// The exponents of its values, as the bits of a float.
    marks: &'a [FloatRow],
    start: [f32; PANEL],
}

/// One block of rows times one panel.
struct Piece<'a> {
    task: &'a Task<'a>,
    unit: Unit,
    block: &'a Block<'a>,
    marks: &'a [u32],
    panel: &'a Panel<'a>,
    out: [[f32; PANEL]; ROWS],
}

impl Piece<'_> {
    fn multiply<const R: usize>(&mut self) {
        let mut left = [[true; PANEL]; R];
        let (x, marks) = (self.block.x.as_chunks().0, self.marks.as_chunks().0);
        let schedule: &Schedule = &self.task.schedule;
        let tiles = Tiles::<R> {
            unit: self.unit,
            schedule,
            x,
            marks,
            panel: self.panel,
            out: self.out.first_chunk_mut().expect("no tile takes more rows than there is room for"),
            left: &mut left,
        };
        tiles.run(self.task.isa);
        for (row, left) in left.iter().enumerate().take(self.block.rows) {
            for lane in left.iter().enumerate().filter_map(|(lane, left)| left.then_some(lane)) {
                let pair = |position: usize| (x[position][row], self.panel.rows[position].0[lane]);
                let sum = &mut ByDefinition {
                    unit: self.unit,
                    start: self.panel.start[lane],
                    pair,
                    task: self.task,
                };
                self.out[row][lane] = schedule.reduce(sum, &mut Vec::new());
            }
        }
    }
}

/// Adds one output's terms as it is defined.
struct ByDefinition<'a, P> {
    unit: Unit,
    start: f32,
    pair: P,
    task: &'a Task<'a>,
}

impl<P: Fn(usize) -> (f32, f32)> Adder for ByDefinition<'_, P> {
    type Sum = f32;

    fn run(&mut self, positions: Range<usize>) -> f32 {
        let start = if positions.start == 0 { self.start } else { 0.0 };
        self.unit.run(start, positions.len(), |term| (self.pair)(positions.start + term))
    }

    fn join(&mut self, left: f32, right: f32) -> f32 {
        self.task.recipe.sum.round(left + right)
    }
}

/// What marks the exponent of a factor that is not zero; two of them are more than any mark of a zero and of a number.
const NUMBER: u32 = 1 << 12;
/// The mark of what is not finite: more than all others, even beside a zero.
const ENDLESS: u32 = 3 * NUMBER;

/// The smallest exponent of a format's own, biased as in f32.
fn least(format: Format) -> u32 {
    format.min_normal().to_bits() >> 23
}

/// The exponent of a factor, as it is added to another's.
fn mark(value: f32, least: u32) -> u32 {
    match (value.to_bits() & !SIGN, (value.to_bits() >> 23) & 0xFF) {
        (0, _) => 0,
        (_, 0xFF) => ENDLESS,
        (_, field) => NUMBER + field.max(least),
    }
}

/// The exponent of a product whose marks add up to this much, and that of a sum.
const BIAS: u32 = 2 * NUMBER + 2 * 127;

/// Marks the values of a panel.
struct Mark<'a> {
    rows: &'a [FloatRow],
    least: u32,
    marks: &'a mut [FloatRow],
}

impl WithSimd for Mark<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (row, marks) in self.rows.iter().zip(self.marks) {
            for (value, own) in row.0.iter().zip(&mut marks.0) {
                let (magnitude, field) = (value.to_bits() & !SIGN, (value.to_bits() >> 23) & 0xFF);
                let number = NUMBER + field.max(self.least);
                let number = if field == 0xFF { ENDLESS } else { number };
                *own = f32::from_bits(if magnitude == 0 { 0 } else { number });
            }
        }
    }
}

/// Is there more than the definition for this instruction set?
fn is_fast(isa: Isa) -> bool {
    matches!(isa, Isa::Avx512 | Isa::Avx2)
}

/// Vectors that cut off to integers.
trait Cut: Simd {
    /// The integer part of every number, in two's complement.
    fn cut(self, values: Self::f32s) -> Self::u32s;
}

#[cfg(target_arch = "x86_64")]
impl Cut for pulp::x86::V4 {
    #[inline(always)]
    fn cut(self, values: Self::f32s) -> Self::u32s {
        bytemuck::cast(self.convert_f32x16_to_i32x16(values))
    }
}

#[cfg(target_arch = "x86_64")]
impl Cut for pulp::x86::V3 {
    #[inline(always)]
    fn cut(self, values: Self::f32s) -> Self::u32s {
        bytemuck::cast(self.convert_f32x8_to_i32x8(values))
    }
}

/// The vectors of a panel's row, one tile after another.
struct Tiles<'a, const R: usize> {
    unit: Unit,
    schedule: &'a Schedule,
    x: &'a [[f32; R]],
    marks: &'a [[u32; R]],
    panel: &'a Panel<'a>,
    out: &'a mut [[f32; PANEL]; R],
    /// Which outputs are left to the definition.
    left: &'a mut [[bool; PANEL]; R],
}

/// These, on such vectors.
struct On<S, T>(S, T);

#[cfg(target_arch = "x86_64")]
impl<const R: usize> NullaryFnOnce for On<pulp::x86::V4, Tiles<'_, R>> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.1.along::<_, 2>(self.0);
    }
}

#[cfg(target_arch = "x86_64")]
impl<const R: usize> NullaryFnOnce for On<pulp::x86::V3, Tiles<'_, R>> {
    type Output = ();

    #[inline(always)]
    fn call(self) {
        self.1.along::<_, 1>(self.0);
    }
}

impl<const R: usize> Tiles<'_, R> {
    fn run(self, isa: Isa) {
        #[cfg(target_arch = "x86_64")]
        match isa {
            Isa::Avx512 => {
                let simd = pulp::x86::V4::try_new().expect("a kernel is made for what the machine has");
                simd.vectorize(On(simd, self));
            }
            Isa::Avx2 => {
                let simd = pulp::x86::V3::try_new().expect("a kernel is made for what the machine has");
                simd.vectorize(On(simd, self));
            }
            _ => {}
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = isa;
    }

    #[inline(always)]
    fn along<S: Cut, const V: usize>(self, simd: S) {
        let Tiles { unit, schedule, x, marks, panel, out, left } = self;
        let mut stack = Vec::new();
        let mut seen = [[0.0; PANEL]; R];
        for group in 0..groups::<S, V>() {
            let start = FloatRow(panel.start);
            let nothing = [[simd.splat_u32s(0); V]; R];
            let mut tile = Tile { simd, unit, x, marks, panel, group, start, seen: nothing };
            let sums = schedule.reduce(&mut tile, &mut stack);
            let mut flags = Sums([[[simd.splat_f32s(0.0); V]; R]]);
            for row in 0..R {
                for half in 0..V {
                    flags.0[0][row][half] = simd.transmute_f32s_u32s(tile.seen[row][half]);
                }
            }
            store::<S, R, 1, V>(simd, &sums, group, std::array::from_mut(out));
            store::<S, R, 1, V>(simd, &flags, group, std::array::from_mut(&mut seen));
        }
        for (left, seen) in left.as_flattened_mut().iter_mut().zip(seen.as_flattened()) {
            *left = seen.to_bits() != 0;
        }
    }
}

/// `R` rows times one group of a panel.
struct Tile<'a, S: Simd, const R: usize, const V: usize> {
    simd: S,
    unit: Unit,
    x: &'a [[f32; R]],
    marks: &'a [[u32; R]],
    panel: &'a Panel<'a>,
    group: usize,
    start: FloatRow,
    /// Not zero where a sum came near the ends of f32.
    seen: [[S::u32s; V]; R],
}

/// The terms of a block: factors and their marks.
type Terms<'a, const R: usize> =
    Zip<Zip<Iter<'a, [f32; R]>, Iter<'a, [u32; R]>>, Zip<Iter<'a, FloatRow>, Iter<'a, FloatRow>>>;

impl<S: Cut, const R: usize, const V: usize> Adder for Tile<'_, S, R, V> {
    type Sum = Sums<S, R, 1, V>;

    #[inline(always)]
    fn run(&mut self, positions: Range<usize>) -> Self::Sum {
        self.simd.vectorize(Run { tile: self, positions })
    }

    fn tree(&mut self, _: Range<usize>) -> Self::Sum {
        unreachable!("a matrix unit is given no order with trees")
    }

    #[inline(always)]
    fn join(&mut self, left: Self::Sum, right: Self::Sum) -> Self::Sum {
        Sums([self.each(left.0[0], right.0[0])])
    }
}

/// A running sum: a function of its own, since what surrounds it calls it in many places.
struct Run<'t, 'a, S: Simd, const R: usize, const V: usize> {
    tile: &'t mut Tile<'a, S, R, V>,
    positions: Range<usize>,
}

impl<S: Cut, const R: usize, const V: usize> WithSimd for Run<'_, '_, S, R, V> {
    type Output = Sums<S, R, 1, V>;

    #[inline(always)]
    fn with_simd<T: Simd>(self, _: T) -> Self::Output {
        let Run { tile, positions } = self;
        let mut sums = [[tile.simd.splat_f32s(0.0); V]; R];
        if positions.start == 0 {
            sums = [tile.start.load::<S, V>(tile.simd, tile.group); R];
        }
        let (terms, in_two) = (tile.unit.terms(), tile.unit.in_two());
        for first in positions.clone().step_by(terms) {
            let block = first..positions.end.min(first + terms);
            sums = if in_two {
                tile.simd.vectorize(Halves { tile, sums, block })
            } else {
                let terms = tile.terms(block);
                tile.fuse(sums, terms)
            };
        }
        Sums([sums])
    }
}

/// A block that is added in two, and then to what was there.
struct Halves<'t, 'a, S: Simd, const R: usize, const V: usize> {
    tile: &'t mut Tile<'a, S, R, V>,
    sums: [[S::f32s; V]; R],
    block: Range<usize>,
}

impl<S: Cut, const R: usize, const V: usize> WithSimd for Halves<'_, '_, S, R, V> {
    type Output = [[S::f32s; V]; R];

    #[inline(always)]
    fn with_simd<T: Simd>(self, _: T) -> Self::Output {
        let Halves { tile, sums, block } = self;
        let mut both = [[tile.simd.splat_f32s(0.0); V]; R];
        for part in 0..2 {
            let terms = tile.part(block.clone(), part);
            both = tile.fuse(both, terms);
        }
        tile.each(both, sums)
    }
}

impl<'a, S: Cut, const R: usize, const V: usize> Tile<'a, S, R, V> {
    #[inline(always)]
    fn terms(&self, block: Range<usize>) -> Terms<'a, R> {
        let factors = self.x[block.clone()].iter().zip(&self.marks[block.clone()]);
        factors.zip(self.panel.rows[block.clone()].iter().zip(&self.panel.marks[block]))
    }

    /// The terms of a block that are added first, or those that are added to them.
    #[inline(always)]
    fn part(
        &self,
        block: Range<usize>,
        part: usize,
    ) -> impl Iterator<Item = <Terms<'a, R> as Iterator>::Item> + Clone + use<'a, S, R, V> {
        let terms = self.terms(block).enumerate();
        terms.filter(move |(term, _)| usize::from(term % 4 > 1) == part).map(|(_, term)| term)
    }

    /// The sums of two sums each.
    #[inline(always)]
    fn each(&self, one: [[S::f32s; V]; R], other: [[S::f32s; V]; R]) -> [[S::f32s; V]; R] {
        let mut sums = one;
        for row in 0..R {
            for half in 0..V {
                let sum = self.simd.add_f32s(one[row][half], other[row][half]);
                sums[row][half] =
                    if self.unit.sum() == Format::F16 { FusedF16.round(self.simd, sum) } else { sum };
            }
        }
        sums
    }

    /// One block, and what was there.
    #[inline(always)]
    fn fuse(
        &mut self,
        sums: [[S::f32s; V]; R],
        terms: impl Iterator<Item = <Terms<'a, R> as Iterator>::Item> + Clone,
    ) -> [[S::f32s; V]; R] {
        let (simd, group, unit) = (self.simd, self.group, self.unit);
        let mut largest = [[simd.splat_u32s(0); V]; R];
        for ((_, marks), (_, marks_of_row)) in terms.clone() {
            let own: [S::f32s; V] = marks_of_row.load(simd, group);
            for row in 0..R {
                let mark = simd.splat_u32s(marks[row]);
                for half in 0..V {
                    let both = simd.add_u32s(mark, simd.transmute_u32s_f32s(own[half]));
                    largest[row][half] = simd.max_u32s(largest[row][half], both);
                }
            }
        }
        let mut aligned = [[Aligned::nought(simd); V]; R];
        for row in 0..R {
            for half in 0..V {
                let seen = &mut self.seen[row][half];
                aligned[row][half] = Aligned::new(simd, unit, sums[row][half], largest[row][half], seen);
            }
        }
        for ((x, _), (values, _)) in terms {
            let own: [S::f32s; V] = values.load(simd, group);
            for row in 0..R {
                let x = simd.splat_f32s(x[row]);
                for half in 0..V {
                    let aligned = &mut aligned[row][half];
                    let units = simd.mul_f32s(simd.mul_f32s(x, own[half]), aligned.scale);
                    aligned.sum = simd.add_u32s(aligned.sum, simd.cut(units));
                }
            }
        }
        let mut sums = sums;
        for row in 0..R {
            for half in 0..V {
                sums[row][half] = aligned[row][half].end(simd, unit);
            }
        }
        sums
    }
}

/// The power of two with this exponent, biased as in f32.
#[inline(always)]
fn power<S: Simd>(simd: S, field: S::u32s) -> S::f32s {
    simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(field, simd.splat_u32s(23)))
}

/// One where it is so, and zero elsewhere.
#[inline(always)]
fn one_where<S: Simd>(simd: S, is_so: S::m32s) -> S::u32s {
    simd.select_u32s(is_so, simd.splat_u32s(1), simd.splat_u32s(0))
}

/// An integer below 2^23, less this much: behind the leading bit of 2^23 an integer is the end of a float.
#[inline(always)]
fn float<S: Simd>(simd: S, value: S::u32s, less: f32) -> S::f32s {
    let shifted = simd.or_u32s(value, simd.splat_u32s(0x4B00_0000));
    simd.sub_f32s(simd.transmute_f32s_u32s(shifted), simd.splat_f32s(8_388_608.0 + less))
}

/// The sums of a block in units of their last digit.
#[derive(Clone, Copy)]
struct Aligned<S: Simd> {
    /// How many units one is.
    scale: S::f32s,
    /// The products, in two's complement.
    sum: S::u32s,
    /// What was there before, in two's complement.
    before: S::u32s,
    /// What a unit is worth.
    unit: S::f32s,
}

impl<S: Cut> Aligned<S> {
    #[inline(always)]
    fn nought(simd: S) -> Self {
        let (number, word) = (simd.splat_f32s(0.0), simd.splat_u32s(0));
        Aligned { scale: number, sum: word, before: word, unit: number }
    }

    /// A block whose products have the marks up to `largest`, before any of them is added to `sum`.
    #[inline(always)]
    fn new(simd: S, unit: Unit, sum: S::f32s, largest: S::u32s, seen: &mut S::u32s) -> Self {
        /// The exponent of a sum that is zero, biased as in f32.
        const OF_ZERO: u32 = (Unit::OF_ZERO + 127).cast_unsigned();
        let digits = unit.digits();
        let magnitude = simd.and_u32s(simd.transmute_u32s_f32s(sum), simd.splat_u32s(!SIGN));
        let is_zero = simd.equal_u32s(magnitude, simd.splat_u32s(0));
        let of_zero = simd.splat_u32s(OF_ZERO);
        let mut own = simd.max_u32s(simd.wrapping_dyn_shr_u32s(magnitude, simd.splat_u32s(23)), of_zero);
        if unit.sum() == Format::F16 {
            own = simd.max_u32s(own, simd.splat_u32s(least(Format::F16)));
            own = simd.select_u32s(is_zero, of_zero, own);
        }
        let all = simd.max_u32s(largest, simd.add_u32s(own, simd.splat_u32s(BIAS - 127)));
        // From where on one is a normal number of units, and a unit is one; and up to where all products are numbers of f32.
        let low = simd.splat_u32s(BIAS + digits - 126);
        let high = simd.splat_u32s(BIAS + 120);
        let held = simd.min_u32s(simd.max_u32s(all, low), high);
        // Where there is nothing but zeros all is well, too.
        let has_none = one_where(simd, simd.less_than_u32s(largest, simd.splat_u32s(2 * NUMBER)));
        let is_nothing = simd.and_u32s(one_where(simd, is_zero), has_none);
        let is_beyond = simd.xor_u32s(one_where(simd, simd.equal_u32s(all, held)), simd.splat_u32s(1));
        let is_lost = simd.and_u32s(is_beyond, simd.xor_u32s(is_nothing, simd.splat_u32s(1)));
        *seen = simd.or_u32s(*seen, is_lost);
        let scale = power(simd, simd.sub_u32s(simd.splat_u32s(127 + digits + BIAS), held));
        let worth = power(simd, simd.sub_u32s(held, simd.splat_u32s(BIAS + digits - 127)));
        let before = simd.cut(simd.mul_f32s(sum, scale));
        Aligned { scale, sum: simd.splat_u32s(0), before, unit: worth }
    }

    /// Their sum, rounded as it is handed on.
    #[inline(always)]
    fn end(self, simd: S, unit: Unit) -> S::f32s {
        // Both in two halves, so that their sum fits: 2^16 times an upper one, which has a sign, and a lower one, which has none.
        let (sign, by, low) = (simd.splat_u32s(SIGN), simd.splat_u32s(16), simd.splat_u32s(0xFFFF));
        let upper = simd.wrapping_dyn_shr_u32s(simd.xor_u32s(self.sum, sign), by);
        let upper_before = simd.wrapping_dyn_shr_u32s(simd.xor_u32s(self.before, sign), by);
        let lower = simd.add_u32s(simd.and_u32s(self.sum, low), simd.and_u32s(self.before, low));
        let upper = float(simd, simd.add_u32s(upper, upper_before), 65_536.0);
        let upper = simd.mul_f32s(upper, simd.splat_f32s(65_536.0));
        let lower = float(simd, lower, 0.0);
        let near = simd.add_f32s(upper, lower);
        // What the nearest lacks, exactly: if it goes the other way, the nearest is too far from zero.
        let lacking = simd.sub_f32s(lower, simd.sub_f32s(near, upper));
        let is_too_far = simd.less_than_f32s(simd.mul_f32s(lacking, near), simd.splat_f32s(0.0));
        let bits = simd.sub_u32s(simd.transmute_u32s_f32s(near), one_where(simd, is_too_far));
        if unit.sum() == Format::F16 {
            // An odd last digit says that there is more behind it.
            let is_exact = one_where(simd, simd.equal_f32s(lacking, simd.splat_f32s(0.0)));
            let bits = simd.or_u32s(bits, simd.xor_u32s(is_exact, simd.splat_u32s(1)));
            return FusedF16.round(simd, simd.mul_f32s(simd.transmute_f32s_u32s(bits), self.unit));
        }
        // All digits of f32, or as many as there are.
        let kept = simd.splat_u32s(u32::MAX << (23 - unit.sum().mantissa_bits()));
        simd.mul_f32s(simd.transmute_f32s_u32s(simd.and_u32s(bits, kept)), self.unit)
    }
}
