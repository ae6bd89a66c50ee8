//! Products in floating point: everything that is chosen once is chosen here, before a tile runs.

use std::{
    marker::PhantomData,
    ops::{Range, RangeInclusive},
};

use pulp::{Simd, WithSimd};

use super::{
    packed::{Magnitudes, Store},
    panel::{Bf16Row, FloatRow, PANEL},
    task::{Activations, Block, Out, Task},
    tile::{
        Arithmetic, DotBf16, Fused, FusedBf16, FusedF16, FusedRounded, Kahan, LMulEdges, LMulFormula,
        LMulWords, Neumaier, Plain, Row, Running, Tile, Trees, groups, store,
    },
};
use crate::numerics::{
    format::{Format, LARGEST_FINITE, Lanes, SMALLEST_NORMAL},
    order::{Rule, Schedule, Step},
    precision::Product,
    product::{LMul, Variant},
};

/// Panels that a single row takes at once: alone it would leave a tile's registers empty.
pub(super) const SINGLE: usize = 4;

/// The activations, in blocks of rows.
pub(super) struct FloatRows<'a> {
    blocks: Vec<Block<'a>>,
}

impl<'a> FloatRows<'a> {
    pub(super) fn new(activations: Activations<'a, '_>, tallest: usize) -> FloatRows<'a> {
        FloatRows { blocks: Block::all(activations, tallest) }
    }

    /// One running sum of one row over what is kept as it was stored: it is widened in the registers. Tells whether this was
    /// one.
    pub(super) fn multiply_kept(&self, task: &Task<'_>, panels: Range<usize>, out: &mut Out<'_>) -> bool {
        let ([block], [Step::Run(_)]) = (self.blocks.as_slice(), task.schedule.steps.as_slice()) else {
            return false;
        };
        let plain = task.rule == Rule::Plain && task.in_order() && task.recipe.product == Product::Fused;
        // Blocks are whole where they are multiplied to their end.
        let whole = task.depth == task.weights.depth;
        if !plain || !whole || task.recipe.sum != Format::F32 || block.height > 1 {
            return false;
        }
        let mut put = |panel, mut sums: FloatRow| {
            if task.recipe.result != Format::F32 {
                task.round(task.recipe.result, std::slice::from_mut(&mut sums.0));
            }
            out.put(block.first, panel, &sums.0);
        };
        match &task.weights.store {
            Store::Kept(kept) => {
                for panel in panels {
                    let mut sums = task.begin(panel);
                    kept.multiply(task.isa, panel, &block.x, &mut sums);
                    put(panel, sums);
                }
            }
            Store::Codes(codes) => {
                // Two together: the sums of one alone would wait for each other. The last one may stand in for its neighbor.
                for first in panels.clone().step_by(2) {
                    let both = [first, panels.end.min(first + 2) - 1];
                    let mut sums = both.map(|panel| task.begin(panel));
                    codes.multiply(task.isa, both, &block.x, &mut sums);
                    both.into_iter().zip(sums).for_each(|(panel, sums)| put(panel, sums));
                }
            }
            _ => return false,
        }
        true
    }

    pub(super) fn multiply(&self, task: &Task<'_>, panels: Range<usize>, out: &mut Out<'_>) {
        let together = if self.blocks.iter().all(|block| block.height == 1) { SINGLE } else { 1 };
        // Only the plain fused product widens bfloat16 in its registers; everything else is widened once.
        let plain = task.rule == Rule::Plain && !task.schedule.has_trees();
        let direct = plain
            && task.in_order()
            && task.recipe.product == Product::Fused
            && task.recipe.sum == Format::F32;
        let lmul = match task.recipe.product {
            Product::LMul(product) if plain => Some(product),
            _ => None,
        };
        let known: Vec<_> = match lmul {
            Some(_) => self.blocks.iter().map(|block| Magnitudes::NONE.and(&block.x)).collect(),
            None => Vec::new(),
        };
        let mut scratch: [Vec<FloatRow>; SINGLE] = Default::default();
        for first in panels.clone().step_by(together) {
            let width = together.min(panels.end - first);
            // Where panels are missing the last one stands in, and its results are not kept.
            let panel = |slot: usize| first + slot.min(width - 1);
            let begin = std::array::from_fn(|slot| task.begin(panel(slot)));
            let rows = match &task.weights.store {
                Store::Bf16(panels) if direct => {
                    PanelRows::Bf16(std::array::from_fn(|slot| task.rows_of(panels, panel(slot))))
                }
                _ => {
                    let mut scratch = scratch.iter_mut();
                    let mut widened: [&[FloatRow]; SINGLE] = [&[]; SINGLE];
                    for (slot, (widened, scratch)) in
                        widened.iter_mut().zip(&mut scratch).take(width).enumerate()
                    {
                        *widened = task.widened(panel(slot), scratch);
                    }
                    PanelRows::Float(std::array::from_fn(|slot| widened[slot.min(width - 1)]))
                }
            };
            for (index, block) in self.blocks.iter().enumerate() {
                let words = lmul.and_then(|product| {
                    let panels = task.weights.magnitudes.as_ref()?[first..first + width].iter();
                    product.plain_words(
                        known[index],
                        panels.fold(Magnitudes::NONE, |all, one| all.or(*one)),
                        &begin,
                    )
                });
                let piece = Piece { task, block, rows, begin: &begin, words, result: task.recipe.result };
                piece.multiply(|slot, row, values| {
                    if slot < width {
                        out.put(block.first + row, first + slot, values);
                    }
                });
            }
        }
    }
}

/// The rows of a panel, or of several.
#[derive(Clone, Copy)]
pub(super) enum PanelRows<'a> {
    Float([&'a [FloatRow]; SINGLE]),
    Bf16([&'a [Bf16Row]; SINGLE]),
}

/// One block of rows times one panel, or one row times several.
pub(super) struct Piece<'a> {
    pub(super) task: &'a Task<'a>,
    pub(super) block: &'a Block<'a>,
    pub(super) rows: PanelRows<'a>,
    pub(super) begin: &'a [FloatRow; SINGLE],
    /// Is L-Mul free of its edges here, and if so, are there zeros among the weights?
    pub(super) words: Option<bool>,
    /// What a finished sum rounds to.
    pub(super) result: Format,
}

impl Piece<'_> {
    /// Calls `put(panel, row, outputs)` for every row of every panel.
    fn multiply(&self, put: impl FnMut(usize, usize, &[f32; PANEL])) {
        let schedule = &self.task.schedule;
        match (self.task.recipe.product, self.task.recipe.sum) {
            (Product::LMul(product), _) => match (product.variant, self.words) {
                (Variant::Formula, _) => self.running(LMulFormula::of(product), schedule, put),
                (Variant::Bits, None) => self.running(LMulEdges::of(product), schedule, put),
                (Variant::Bits, Some(true)) => {
                    self.shapes::<_, Plain>(LMulWords::<true>::of(product), schedule, put);
                }
                (Variant::Bits, Some(false)) => {
                    self.shapes::<_, Plain>(LMulWords::<false>::of(product), schedule, put);
                }
            },
            (_, Format::BF16) => self.running(FusedBf16, schedule, put),
            (_, Format::F16) => self.running(FusedF16, schedule, put),
            (_, Format::F32) => self.fused(schedule, put),
            (_, sum) => self.running(FusedRounded(Lanes::of(sum)), schedule, put),
        }
    }

    /// The fused product with f32 sums, by this schedule.
    pub(super) fn fused(&self, schedule: &Schedule, put: impl FnMut(usize, usize, &[f32; PANEL])) {
        match self.rows {
            PanelRows::Bf16(rows) => self.shape::<_, Plain, _>(Fused, rows, schedule, put),
            PanelRows::Float(_) => self.running(Fused, schedule, put),
        }
    }

    fn running<A: Arithmetic>(
        &self,
        arithmetic: A,
        schedule: &Schedule,
        put: impl FnMut(usize, usize, &[f32; PANEL]),
    ) {
        match self.task.rule {
            Rule::Plain if schedule.has_trees() => self.shapes::<A, Trees>(arithmetic, schedule, put),
            Rule::Plain => self.shapes::<A, Plain>(arithmetic, schedule, put),
            Rule::Kahan => self.shapes::<A, Kahan>(arithmetic, schedule, put),
            Rule::Neumaier => self.shapes::<A, Neumaier>(arithmetic, schedule, put),
            Rule::DotBf16 => self.shapes::<A, DotBf16>(arithmetic, schedule, put),
            Rule::Exact => unreachable!("exact sums are certified"),
            Rule::Mma(_) | Rule::Unit(_) => unreachable!("what a matrix unit adds has rows of its own"),
        }
    }

    fn shapes<A: Arithmetic, U: Running>(
        &self,
        arithmetic: A,
        schedule: &Schedule,
        put: impl FnMut(usize, usize, &[f32; PANEL]),
    ) {
        let PanelRows::Float(rows) = self.rows else {
            unreachable!("only the plain fused product reads bfloat16 directly");
        };
        self.shape::<A, U, FloatRow>(arithmetic, rows, schedule, put);
    }

    fn shape<A: Arithmetic, U: Running, W: Row>(
        &self,
        arithmetic: A,
        rows: [&[W]; SINGLE],
        schedule: &Schedule,
        put: impl FnMut(usize, usize, &[f32; PANEL]),
    ) {
        match self.block.height {
            1 if U::TREES => self.tile::<A, U, W, 1, SINGLE, 1>(arithmetic, rows, schedule, put),
            1 => self.tile::<A, U, W, 1, SINGLE, 2>(arithmetic, rows, schedule, put),
            4 if U::TREES && const { A::STEPS.are_shared(U::TALL) } => {
                self.tile::<A, U, W, 4, 1, 1>(arithmetic, rows, schedule, put)
            }
            4 if const { A::STEPS.are_shared(U::TALL) } => {
                self.tile::<A, U, W, 4, 1, 2>(arithmetic, rows, schedule, put)
            }
            8 if U::TALL && const { A::STEPS.are_shared(U::TALL) } => {
                self.tile::<A, U, W, 8, 1, 2>(arithmetic, rows, schedule, put)
            }
            height => unreachable!("no tile of {height} rows is made for this order"),
        }
    }

    fn tile<A: Arithmetic, U: Running, W: Row, const R: usize, const P: usize, const V: usize>(
        &self,
        arithmetic: A,
        rows: [&[W]; SINGLE],
        schedule: &Schedule,
        mut put: impl FnMut(usize, usize, &[f32; PANEL]),
    ) {
        const FITS: &str = "no tile takes more panels than a single row does";
        let mut out = [[[0.0; PANEL]; R]; P];
        let tiles = Tiles::<A, U, W, R, P, V> {
            arithmetic,
            schedule,
            x: self.block.x.as_chunks().0,
            panels: *rows.first_chunk().expect(FITS),
            start: self.begin.first_chunk().expect(FITS),
            out: &mut out,
            running: PhantomData,
        };
        if const { R > 4 } {
            let done = self.task.isa.dispatch_tall(tiles);
            assert!(done.is_ok(), "blocks of {R} rows are made where there are many registers");
        } else {
            self.task.isa.dispatch(tiles);
        }
        // The tile leaves every NaN as the one there is, which is all that f32 asks.
        if self.result != Format::F32 {
            self.task.round(self.result, out.as_flattened_mut());
        }
        for (slot, rows) in out.iter().enumerate() {
            for (row, values) in rows.iter().enumerate().take(self.block.rows) {
                put(slot, row, values);
            }
        }
    }
}

impl LMul {
    /// Can the words of all these factors be added without a look at the edges? If so, are there zeros in w?
    fn plain_words(self, x: Magnitudes, w: Magnitudes, begin: &[FloatRow; SINGLE]) -> Option<bool> {
        const NORMAL: RangeInclusive<u64> = SMALLEST_NORMAL as u64..=LARGEST_FINITE as u64;
        let normal = |values: Magnitudes| {
            NORMAL.contains(&values.smallest()) && NORMAL.contains(&u64::from(values.largest))
        };
        let offset = u64::from(self.offset());
        let from_zero = begin.iter().flat_map(|begin| begin.0).all(|start| start.to_bits() == 0);
        let plain = from_zero
            && !x.zeros
            && normal(x)
            && normal(w)
            && x.smallest() + w.smallest() >= offset + NORMAL.start()
            && u64::from(x.largest) + u64::from(w.largest) <= offset + NORMAL.end();
        plain.then_some(w.zeros)
    }
}

/// The vectors of a panel's row, one tile after another.
struct Tiles<'a, A, U, W, const R: usize, const P: usize, const V: usize> {
    arithmetic: A,
    schedule: &'a Schedule,
    x: &'a [[f32; R]],
    panels: [&'a [W]; P],
    start: &'a [FloatRow; P],
    out: &'a mut [[[f32; PANEL]; R]; P],
    running: PhantomData<U>,
}

impl<A: Arithmetic, U: Running, W: Row, const R: usize, const P: usize, const V: usize> WithSimd
    for Tiles<'_, A, U, W, R, P, V>
{
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Tiles { arithmetic, schedule, x, panels, start, out, running } = self;
        let mut stack = Vec::new();
        for group in 0..groups::<S, V>() {
            let mut tile = Tile { simd, arithmetic, x, panels, group, start, running };
            let sums = schedule.reduce(&mut tile, &mut stack);
            store::<S, R, P, V>(simd, &sums, group, out);
        }
    }
}
