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

/// How many products an integer can hold. The largest exponent is worth 2^25 units at most, and a product is that
/// times less than (2 - 2^-10)^2: 16 of them are less than 2^31.
const AT_ONCE: usize = 16;

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
    /// The marks of its values, as the bits of floats.
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

/// The mark of a sum is this much and its exponent, biased as in f32: so are those of two factors, added up, that of their product.
const OF_SUM: u32 = 2 * NUMBER + 127;

/// Marks the values of a panel.
struct Mark<'a> {
    rows: &'a [FloatRow],
    least: u32,
    marks: &'a mut [FloatRow],
}

impl WithSimd for Mark<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for (row, marks) in self.rows.iter().zip(self.marks) {
            let own = S::as_mut_simd_f32s(&mut marks.0).0;
            for (value, own) in S::as_simd_f32s(&row.0).0.iter().zip(own) {
                let size = simd.and_u32s(simd.transmute_u32s_f32s(*value), simd.splat_u32s(!SIGN));
                let field = simd.wrapping_dyn_shr_u32s(size, simd.splat_u32s(23));
                let exponent = simd.max_u32s(field, simd.splat_u32s(self.least));
                let number = simd.add_u32s(exponent, simd.splat_u32s(NUMBER));
                let is_zero = simd.equal_u32s(size, simd.splat_u32s(0));
                let finite = simd.select_u32s(is_zero, simd.splat_u32s(0), number);
                let is_endless = simd.equal_u32s(field, simd.splat_u32s(0xFF));
                let mark = simd.select_u32s(is_endless, simd.splat_u32s(ENDLESS), finite);
                *own = simd.transmute_f32s_u32s(mark);
            }
        }
    }
}

/// Is there more than the definition for this instruction set?
fn is_fast(isa: Isa) -> bool {
    matches!(isa, Isa::Avx512 | Isa::Avx2)
}

/// Vectors that round toward zero.
trait Cut: Simd {
    /// The integer part of every number.
    fn cut(self, values: Self::f32s) -> Self::i32s;

    /// Every integer, or the next number of f32 on the way to zero.
    fn float(self, values: Self::i32s) -> Self::f32s;
}

#[cfg(target_arch = "x86_64")]
impl Cut for pulp::x86::V4 {
    #[inline(always)]
    fn cut(self, values: Self::f32s) -> Self::i32s {
        bytemuck::cast(self.convert_f32x16_to_i32x16(values))
    }

    #[inline(always)]
    fn float(self, values: Self::i32s) -> Self::f32s {
        use std::arch::x86_64::{_MM_FROUND_NO_EXC, _MM_FROUND_TO_ZERO};
        const TO_ZERO: i32 = _MM_FROUND_TO_ZERO | _MM_FROUND_NO_EXC;
        bytemuck::cast(self.avx512f._mm512_cvt_roundepi32_ps::<TO_ZERO>(bytemuck::cast(values)))
    }
}

#[cfg(target_arch = "x86_64")]
impl Cut for pulp::x86::V3 {
    #[inline(always)]
    fn cut(self, values: Self::f32s) -> Self::i32s {
        bytemuck::cast(self.convert_f32x8_to_i32x8(values))
    }

    #[inline(always)]
    fn float(self, values: Self::i32s) -> Self::f32s {
        let near = self.avx._mm256_cvtepi32_ps(bytemuck::cast(values));
        // Without their signs, so that 2^31, which no integer is, is more than all of them.
        let size = bytemuck::cast(self.avx2._mm256_abs_epi32(bytemuck::cast(values)));
        let back = self.avx2._mm256_abs_epi32(self.avx._mm256_cvttps_epi32(near));
        let is_too_far = self.greater_than_u32s(bytemuck::cast(back), size);
        let next = self.sub_u32s(bytemuck::cast(near), one_where(self, is_too_far));
        bytemuck::cast(next)
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
        let mut seen = [[0; PANEL]; R];
        for group in 0..groups::<S, V>() {
            let start = FloatRow(panel.start);
            let nothing = [[simd.splat_u32s(0); V]; R];
            let mut tile = Tile { simd, unit, x, marks, panel, group, start, seen: nothing };
            let sums = schedule.reduce(&mut tile, &mut stack);
            store::<S, R, 1, V>(simd, &sums, group, std::array::from_mut(out));
            for (seen, own) in seen.iter_mut().zip(&tile.seen) {
                let vectors = S::as_mut_simd_u32s(seen).0;
                for half in 0..V {
                    vectors[group + half * groups::<S, 2>()] = own[half];
                }
            }
        }
        for (left, seen) in left.as_flattened_mut().iter_mut().zip(seen.as_flattened()) {
            *left = seen & SIGN != 0;
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
    /// Below zero, if it had a sign, where a sum came near the ends of f32 or of an integer.
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
            } else if terms > AT_ONCE {
                let half = block.end.min(first + AT_ONCE);
                let terms = [tile.terms(first..half), tile.terms(half..block.end)];
                tile.fuse(sums, terms)
            } else {
                let terms = [tile.terms(block)];
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
            let terms = [tile.part(block.clone(), part)];
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

    /// One block, no more than [`AT_ONCE`] products in a part, and what was there.
    #[inline(always)]
    fn fuse<const N: usize>(
        &mut self,
        mut sums: [[S::f32s; V]; R],
        terms: [impl Iterator<Item = <Terms<'a, R> as Iterator>::Item> + Clone; N],
    ) -> [[S::f32s; V]; R] {
        let (simd, group, unit) = (self.simd, self.group, self.unit);
        let mut largest = [[simd.splat_u32s(0); V]; R];
        for row in 0..R {
            for half in 0..V {
                largest[row][half] = mark_of_sum(simd, unit, sums[row][half]);
            }
        }
        for terms in &terms {
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
        }
        let mut scales = [[simd.splat_f32s(0.0); V]; R];
        let mut units = [[simd.splat_i32s(0); V]; R];
        for row in 0..R {
            for half in 0..V {
                let scale = scale(simd, unit, largest[row][half], &mut self.seen[row][half]);
                units[row][half] = simd.cut(simd.mul_f32s(sums[row][half], scale));
                scales[row][half] = scale;
            }
        }
        for terms in &terms {
            let mut added = [[simd.splat_i32s(0); V]; R];
            for ((x, _), (values, _)) in terms.clone() {
                let own: [S::f32s; V] = values.load(simd, group);
                for row in 0..R {
                    let x = simd.splat_f32s(x[row]);
                    for half in 0..V {
                        let product = simd.mul_f32s(simd.mul_f32s(x, own[half]), scales[row][half]);
                        added[row][half] = simd.add_i32s(added[row][half], simd.cut(product));
                    }
                }
            }
            for row in 0..R {
                for half in 0..V {
                    let (one, other) = (added[row][half], units[row][half]);
                    let sum = simd.add_i32s(one, other);
                    // Where both have another sign than their sum it did not fit.
                    let overflows = simd.and_i32s(simd.xor_i32s(one, sum), simd.xor_i32s(other, sum));
                    let seen = &mut self.seen[row][half];
                    *seen = simd.or_u32s(*seen, simd.transmute_u32s_i32s(overflows));
                    units[row][half] = sum;
                }
            }
        }
        for row in 0..R {
            for half in 0..V {
                sums[row][half] = end(simd, unit, units[row][half], scales[row][half]);
            }
        }
        sums
    }
}

/// One where it is so, and zero elsewhere.
#[inline(always)]
fn one_where<S: Simd>(simd: S, is_so: S::m32s) -> S::u32s {
    simd.select_u32s(is_so, simd.splat_u32s(1), simd.splat_u32s(0))
}

/// The mark of what was there, as those of two factors are added up.
#[inline(always)]
fn mark_of_sum<S: Simd>(simd: S, unit: Unit, sum: S::f32s) -> S::u32s {
    let size = simd.and_u32s(simd.transmute_u32s_f32s(sum), simd.splat_u32s(!SIGN));
    let mut field = simd.wrapping_dyn_shr_u32s(size, simd.splat_u32s(23));
    if unit.sum() == Format::F16 {
        field = simd.max_u32s(field, simd.splat_u32s(least(Format::F16)));
    }
    let is_zero = simd.equal_u32s(size, simd.splat_u32s(0));
    // What a zero counts as moves nothing: a block without a larger one is left to the definition.
    simd.select_u32s(is_zero, simd.splat_u32s(0), simd.add_u32s(field, simd.splat_u32s(OF_SUM)))
}

/// How many units one is, in a block with marks up to `largest`.
#[inline(always)]
fn scale<S: Simd>(simd: S, unit: Unit, largest: S::u32s, seen: &mut S::u32s) -> S::f32s {
    // From where on one is a normal number of units, and a unit is one; and up to where all products are numbers of f32.
    let (low, high) = (OF_SUM + unit.digits() + 1, OF_SUM + 247);
    let above = simd.sub_u32s(largest, simd.splat_u32s(low));
    let is_beyond = simd.greater_than_u32s(above, simd.splat_u32s(high - low));
    // Where there is nothing but zeros all is well, too.
    let is_some = simd.greater_than_or_equal_u32s(largest, simd.splat_u32s(2 * NUMBER));
    let is_lost = simd.and_m32s(is_beyond, is_some);
    *seen = simd.select_u32s(is_lost, simd.splat_u32s(SIGN), *seen);
    let held = simd.max_u32s(largest, simd.splat_u32s(low));
    let field = simd.sub_u32s(simd.splat_u32s(OF_SUM + 2 * 127 + unit.digits()), held);
    simd.transmute_f32s_u32s(simd.wrapping_dyn_shl_u32s(field, simd.splat_u32s(23)))
}

/// The sum of a block in units, rounded as it is handed on.
#[inline(always)]
fn end<S: Cut>(simd: S, unit: Unit, sum: S::i32s, scale: S::f32s) -> S::f32s {
    let cut = simd.float(sum);
    let bits = simd.transmute_u32s_f32s(cut);
    // What a unit is worth: one divided by a power of two.
    let worth = simd.sub_u32s(simd.splat_u32s((2 * 127) << 23), simd.transmute_u32s_f32s(scale));
    let worth = simd.transmute_f32s_u32s(worth);
    match unit.sum() {
        Format::F32 => simd.mul_f32s(cut, worth),
        Format::F16 => {
            // An odd last digit says that there is more behind it.
            let is_exact = one_where(simd, simd.equal_i32s(simd.cut(cut), sum));
            let bits = simd.or_u32s(bits, simd.xor_u32s(is_exact, simd.splat_u32s(1)));
            FusedF16.round(simd, simd.mul_f32s(simd.transmute_f32s_u32s(bits), worth))
        }
        narrow => {
            let kept = simd.splat_u32s(u32::MAX << (23 - narrow.mantissa_bits()));
            simd.mul_f32s(simd.transmute_f32s_u32s(simd.and_u32s(bits, kept)), worth)
        }
    }
}
