//! What every share of a job reads: the matrix, the schedule, and rows of activations in walking order.

use std::{borrow::Cow, ops::Range, sync::Arc};

use pulp::{Simd, WithSimd};

use super::{
    Isa, Packed,
    packed::{Panels, Store, Widen},
    panel::{FloatRow, PANEL},
    tile::{AHEAD, prefetch},
};
use crate::numerics::{
    format::{Format, Lanes, Rounding},
    order::{Rule, Schedule},
    precision::Recipe,
};

/// A job, but for its activations and results.
pub(super) struct Task<'a> {
    pub(super) isa: Isa,
    pub(super) recipe: Recipe,
    pub(super) rule: Rule,
    pub(super) rows: usize,
    pub(super) depth: usize,
    /// The term of the matrix that is the first here.
    pub(super) first: usize,
    pub(super) weights: &'a Packed,
    pub(super) schedule: Arc<Schedule>,
    /// What each output's sum begins at, instead of +0.
    pub(super) start: Option<&'a [f32]>,
}

impl Task<'_> {
    /// What the sums of a panel begin at.
    pub(super) fn begin(&self, panel: usize) -> FloatRow {
        let mut begin = FloatRow([0.0; PANEL]);
        if let Some(start) = self.start {
            for (begin, start) in begin.0.iter_mut().zip(&start[panel * PANEL..]) {
                *begin = *start;
            }
        }
        begin
    }

    /// Do the panels' rows stand in the order in which they are visited?
    pub(super) fn in_order(&self) -> bool {
        self.visit().is_none()
    }

    /// In which order the panels' stored rows are visited, unless they stand in it.
    fn visit(&self) -> Option<&[u32]> {
        if self.weights.walked { None } else { self.schedule.walk.as_deref() }
    }

    /// A panel in f32, in walking order, written to `scratch` unless it stands there like that.
    pub(super) fn widened<'s>(&'s self, panel: usize, scratch: &'s mut Vec<FloatRow>) -> &'s [FloatRow] {
        let depth = self.weights.depth;
        match &self.weights.store {
            Store::Float(panels) if self.in_order() => return self.rows_of(panels, panel),
            Store::Float(panels) => self.widen(self.rows_of(panels, panel), Format::F32, scratch),
            Store::Bf16(panels) => self.widen(self.rows_of(panels, panel), Format::BF16, scratch),
            Store::Code16(format, panels) => self.widen(self.rows_of(panels, panel), *format, scratch),
            Store::Code8(format, panels) => self.widen(self.rows_of(panels, panel), *format, scratch),
            Store::Integer(..) => unreachable!("integers are multiplied as integers"),
            Store::Ranks(_) => unreachable!("every rank has a product of its own"),
            Store::Kept(kept) => {
                return self.in_walk(scratch, 0..depth, |own| kept.widen(self.isa, panel, own));
            }
            Store::Codes(codes) => {
                return self.in_walk(scratch, 0..depth, |own| codes.widen(self.isa, panel, 0, own));
            }
            Store::Turned(codes) => {
                // Terms are outputs there: whole panels of them.
                let terms = self.first / PANEL * PANEL..self.first + self.depth;
                let first = terms.start;
                return self.in_walk(scratch, terms, |own| codes.widen_turned(self.isa, panel, first, own));
            }
        }
        scratch
    }

    fn widen<R: Widen>(&self, rows: &[R], format: Format, floats: &mut Vec<FloatRow>) {
        floats.resize(self.depth, FloatRow([0.0; PANEL]));
        let lanes = Lanes::of(format);
        match self.visit() {
            None => self.isa.dispatch(WidenRows { rows: rows.iter(), lanes, floats }),
            Some(visit) => {
                let rows = visit.iter().map(|&row| &rows[row as usize]);
                self.isa.dispatch(WidenRows { rows, lanes, floats });
            }
        }
    }

    /// The rows of a panel that stand as they came, or in walking order.
    pub(super) fn rows_of<'s, R: Copy>(&self, panels: &'s Panels<R>, panel: usize) -> &'s [R] {
        &panels.panel(panel, self.first + self.depth)[self.first..]
    }

    /// Behind the panel in walking order, if that is another, is room for these terms in their own.
    fn in_walk<'s>(
        &self,
        scratch: &'s mut Vec<FloatRow>,
        terms: Range<usize>,
        widen: impl FnOnce(&mut [FloatRow]),
    ) -> &'s [FloatRow] {
        let visit = self.visit();
        let walked = visit.map_or(0, <[u32]>::len);
        scratch.resize(walked + terms.len(), FloatRow([0.0; PANEL]));
        let (in_walk, own) = scratch.split_at_mut(walked);
        widen(own);
        let own = &own[self.first - terms.start..][..self.depth];
        match visit {
            None => own,
            Some(visit) => {
                in_walk.iter_mut().zip(visit).for_each(|(row, &term)| *row = own[term as usize]);
                in_walk
            }
        }
    }

    /// Rounds finished sums to what the recipe stores.
    pub(super) fn round(&self, format: Format, values: &mut [[f32; PANEL]]) {
        self.isa.dispatch(RoundAll { format, values });
    }
}

/// Rows of activations, already rounded, and the walk through them.
pub(super) struct Activations<'a, 'w> {
    pub(super) values: Cow<'a, [f32]>,
    pub(super) rows: usize,
    pub(super) depth: usize,
    pub(super) terms: Option<&'w [u32]>,
}

impl Activations<'_, '_> {
    /// One row.
    pub(super) fn row(&self, row: usize) -> &[f32] {
        &self.values[row * self.depth..][..self.depth]
    }
}

/// Rows that one tile takes together, packed term after term in walking order.
pub(super) struct Block<'a> {
    /// The first row, and how many rows there are; a tile taller than that repeats the last one.
    pub(super) first: usize,
    pub(super) rows: usize,
    pub(super) height: usize,
    pub(super) x: Cow<'a, [f32]>,
}

impl<'a> Block<'a> {
    /// All rows, in blocks no taller than that.
    pub(super) fn all(activations: Activations<'a, '_>, tallest: usize) -> Vec<Block<'a>> {
        if activations.rows == 1 && activations.terms.is_none() {
            return vec![Block { first: 0, rows: 1, height: 1, x: activations.values }];
        }
        let mut blocks = Vec::new();
        let mut first = 0;
        while first < activations.rows {
            let left = activations.rows - first;
            blocks.push(match left {
                _ if activations.rows == 1 || tallest == 1 => Block::of::<1>(&activations, first),
                _ if left > 4 && tallest > 4 => Block::of::<8>(&activations, first),
                _ => Block::of::<4>(&activations, first),
            });
            first += blocks.last().map_or(left, |block| block.rows);
        }
        blocks
    }

    fn of<const R: usize>(activations: &Activations<'_, '_>, first: usize) -> Block<'a> {
        let rows = R.min(activations.rows - first);
        let sources: [&[f32]; R] = std::array::from_fn(|row| activations.row(first + row.min(rows - 1)));
        let mut x = vec![0.0; activations.depth * R];
        for (position, x) in x.as_chunks_mut::<R>().0.iter_mut().enumerate() {
            let term = activations.terms.map_or(position, |terms| terms[position] as usize);
            for (x, source) in x.iter_mut().zip(&sources) {
                *x = source[term];
            }
        }
        Block { first, rows, height: R, x: x.into() }
    }

    /// One row, in walking order.
    pub(super) fn row(&self, row: usize) -> impl Iterator<Item = f32> {
        self.x.iter().skip(row).step_by(self.height).copied()
    }
}

/// The outputs of one share of the panels, row by row.
pub(super) struct Out<'a> {
    /// The first of them, counted from the first panel's.
    first: usize,
    rows: Vec<&'a mut [f32]>,
}

impl<'a> Out<'a> {
    /// The rows of a share whose first panel is this one.
    pub(super) fn new(panel: usize, rows: Vec<&'a mut [f32]>) -> Out<'a> {
        Out { first: panel * PANEL, rows }
    }

    /// Reads what was written of a row of a panel.
    pub(super) fn get(&self, row: usize, panel: usize, values: &mut [f32; PANEL]) {
        let own = &self.rows[row][panel * PANEL - self.first..];
        values.iter_mut().zip(own).for_each(|(value, own)| *value = *own);
    }

    /// Writes one row of a panel.
    pub(super) fn put(&mut self, row: usize, panel: usize, values: &[f32; PANEL]) {
        let out = &mut self.rows[row][panel * PANEL - self.first..];
        match out.first_chunk_mut() {
            Some(out) => *out = *values,
            None => out.copy_from_slice(&values[..out.len()]),
        }
    }
}

/// Widens rows with the vectors of an instruction set.
struct WidenRows<'a, I> {
    rows: I,
    lanes: Lanes,
    floats: &'a mut [FloatRow],
}

impl<'r, R: Widen + 'r, I: Iterator<Item = &'r R>> WithSimd for WidenRows<'_, I> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        for (row, float) in self.rows.zip(self.floats) {
            // This takes less time a row than what comes after.
            prefetch(std::ptr::from_ref(row).wrapping_add(4 * AHEAD));
            row.widen(simd, self.lanes, &mut float.0);
        }
    }
}

/// Rounds values with the vectors of an instruction set.
struct RoundAll<'a> {
    format: Format,
    values: &'a mut [[f32; PANEL]],
}

impl WithSimd for RoundAll<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let values = self.values.as_flattened_mut();
        if self.format.rounding() == Rounding::NearestEven {
            let lanes = Lanes::of(self.format);
            values.iter_mut().for_each(|value| *value = lanes.round(*value));
        } else {
            values.iter_mut().for_each(|value| *value = self.format.round(*value));
        }
    }
}
