//! Products of codes: what both sides are on their grids is multiplied and added up, and scales bring the sums back.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::{
    Isa,
    codes::Codes,
    float::{PanelRows, Piece, SINGLE},
    packed::Store,
    panel::{FloatRow, PANEL},
    task::{Activations, Block, Out, Task},
    tile::groups,
};
use crate::numerics::{
    exact,
    format::Format,
    order::{Rule, Step},
    precision::{CodeSums, Recipe, Storage},
    product::rescale_codes,
    quantizer::{Quantized, Quantizer, Scale},
};

/// Terms that are widened together: they stay in the nearest memory while all rows meet them.
const TOGETHER: usize = 256;
/// Rows that meet them together.
const ROWS: usize = 8;
/// The same where the sums are doubles, and vectors of each.
const WIDE: (usize, usize) = (4, 2);
/// Vectors of a row that is alone, whose sums would wait for each other.
const WIDE_ALONE: usize = 4;

/// The codes of rows of activations.
pub(super) fn quantized(isa: Isa, quantizer: Quantizer, activations: &Activations<'_, '_>) -> Vec<Quantized> {
    struct Quantize<'a>(Quantizer, &'a [f32]);

    impl WithSimd for Quantize<'_> {
        type Output = Quantized;

        #[inline(always)]
        fn with_simd<S: Simd>(self, _: S) -> Quantized {
            self.0.quantize(&[self.1]).remove(0)
        }
    }

    (0..activations.rows).map(|row| isa.dispatch(Quantize(quantizer, activations.row(row)))).collect()
}

/// What brings finished sums back, where one scale a row and one an output do.
pub(super) struct Rescaled<'a> {
    /// What multiplies each row.
    pub(super) rows: Vec<f32>,
    /// What each output begins at, instead of +0.
    pub(super) start: Option<&'a [f32]>,
    /// What a result rounds to.
    pub(super) result: Format,
}

impl Rescaled<'_> {
    /// Scales the sums of these panels back, where they stand.
    pub(super) fn apply(&self, task: &Task<'_>, panels: Range<usize>, out: &mut Out<'_>) {
        let Store::Codes(codes) = &task.weights.store else { unreachable!("{CODES}") };
        for panel in panels {
            let scales = codes.whole(panel);
            let begin = lanes(self.start.unwrap_or_default(), panel);
            for (row, &scale) in self.rows.iter().enumerate() {
                let mut values = FloatRow([0.0; PANEL]);
                out.get(row, panel, &mut values.0);
                let sums = values.0.map(f64::from);
                task.isa.dispatch(Rescale {
                    sums: &sums,
                    row: scale,
                    scales: &scales,
                    begin: &begin,
                    out: &mut values,
                });
                task.round(self.result, std::slice::from_mut(&mut values.0));
                out.put(row, panel, &values.0);
            }
        }
    }
}

/// Whatever multiplies codes has some.
const CODES: &str = "a matrix for products of codes is packed as codes";

/// What belongs to a panel's outputs; zeros behind the last of them.
fn lanes(values: &[f32], panel: usize) -> FloatRow {
    let mut row = FloatRow([0.0; PANEL]);
    row.0.iter_mut().zip(values.iter().skip(panel * PANEL)).for_each(|(lane, value)| *lane = *value);
    row
}

struct Rescale<'a> {
    sums: &'a [f64; PANEL],
    row: f32,
    scales: &'a FloatRow,
    begin: &'a FloatRow,
    out: &'a mut FloatRow,
}

impl WithSimd for Rescale<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for (((out, sum), scale), begin) in
            self.out.0.iter_mut().zip(self.sums).zip(&self.scales.0).zip(&self.begin.0)
        {
            *out = rescale_codes(*sum, self.row, *scale, *begin);
        }
    }
}

/// Rows of codes whose products are added up exactly within groups.
pub(super) struct GroupRows {
    rows: Vec<Quantized>,
    blocks: Vec<Packed>,
    /// Terms of a group of activations.
    own_group: usize,
    /// Terms of a group of either: as far as sums are exact.
    group: usize,
    /// Does an f32 hold the sums of as many terms as are taken together?
    narrow: bool,
    /// Does it hold them times both scales, too, as long as these are not extreme?
    scaled_narrow: bool,
    /// Are there sums of groups to add up, or is there one alone?
    grouped: bool,
}

/// Rows that are taken together, term after term, in what holds the sums of their products.
struct Packed {
    first: usize,
    rows: usize,
    x: Rows,
}

enum Rows {
    Narrow(Vec<[f32; ROWS]>),
    Wide(Vec<[f64; ROWS]>),
}

/// Rows of codes, term after term.
fn in_turn<T: Copy + Default + From<f32>>(rows: &[Quantized], depth: usize) -> Vec<[T; ROWS]> {
    let mut x = vec![[T::default(); ROWS]; depth];
    for (row, quantized) in rows.iter().enumerate() {
        x.iter_mut().zip(&quantized.codes).for_each(|(x, &code)| x[row] = code.into());
    }
    x
}

/// The group that sums of these two are exact in.
fn common_group(one: Quantizer, other: Quantizer, terms: usize) -> usize {
    one.group(terms).min(other.group(terms))
}

impl GroupRows {
    pub(super) fn new(
        isa: Isa,
        quantizer: Quantizer,
        recipe: &Recipe,
        activations: &Activations<'_, '_>,
    ) -> GroupRows {
        let Storage::Codes(weights) = recipe.weights else { unreachable!("{CODES}") };
        let depth = activations.depth;
        let rows = quantized(isa, quantizer, activations);
        let group = common_group(quantizer, weights, depth);
        let bits = quantizer.bits_of_sum(weights, group.min(TOGETHER));
        let scale_bits = |quantizer: Quantizer| match quantizer.scale {
            _ if quantizer.is_whole() => 0,
            Scale::PowerBelow | Scale::PowerAbove => 0,
            Scale::Nested => Format::E4M3.mantissa_bits() + 1,
            Scale::F16 => Format::F16.mantissa_bits() + 1,
            Scale::F32 | Scale::Fitted => Format::F32.mantissa_bits() + 1,
        };
        let scaled_bits = bits + scale_bits(quantizer) + scale_bits(weights);
        let narrow = bits <= f32::MANTISSA_DIGITS;
        let blocks = rows.chunks(ROWS).enumerate().map(|(block, rows)| {
            let x =
                if narrow { Rows::Narrow(in_turn(rows, depth)) } else { Rows::Wide(in_turn(rows, depth)) };
            Packed { first: block * ROWS, rows: rows.len(), x }
        });
        let blocks = blocks.collect();
        GroupRows {
            rows,
            blocks,
            own_group: quantizer.group(depth),
            group,
            narrow,
            scaled_narrow: scaled_bits <= f32::MANTISSA_DIGITS,
            grouped: recipe.code_sums() == Some(CodeSums::Groups),
        }
    }

    /// The groups of a row.
    pub(super) fn groups(depth: usize, quantizer: Quantizer, recipe: &Recipe) -> usize {
        let Storage::Codes(weights) = recipe.weights else { unreachable!("{CODES}") };
        depth.div_ceil(common_group(quantizer, weights, depth))
    }

    pub(super) fn multiply(&self, task: &Task<'_>, panels: Range<usize>, out: &mut Out<'_>) {
        let Store::Codes(codes) = &task.weights.store else { unreachable!("{CODES}") };
        let count = task.depth.div_ceil(self.group);
        let in_turn = task.rule == Rule::Plain
            && task.schedule.walk.is_none()
            && matches!(task.schedule.steps.as_slice(), [Step::Run(_)]);
        // Where each group's sum stands in the walk.
        let mut places: Vec<usize> = (0..count).collect();
        for (place, &group) in task.schedule.walk.iter().flatten().enumerate().filter(|_| self.grouped) {
            places[group as usize] = place;
        }
        let mut sums = vec![[0.0_f64; PANEL]; self.rows.len()];
        let each = if in_turn || !self.grouped { 1 } else { count };
        let mut terms = vec![FloatRow([0.0; PANEL]); self.rows.len() * each];
        let together = TOGETHER.min(task.depth);
        let several = (TOGETHER / self.group).max(1);
        let mut room = Room {
            narrow: vec![FloatRow([0.0; PANEL]); together],
            wide: vec![[0.0; PANEL]; if self.narrow { 0 } else { together }],
        };
        let mut scales = Vec::with_capacity(several);
        for panel in panels {
            sums.fill([0.0; PANEL]);
            if !self.grouped {
                self.add_all(task, codes, panel, 0..task.depth, &mut room, &mut sums);
                self.finish(task, codes, panel, &sums, out);
                continue;
            }
            terms.fill(FloatRow([0.0; PANEL]));
            for first in (0..count).step_by(several) {
                let groups = first..count.min(first + several);
                let within = groups.start * self.group..task.depth.min(groups.end * self.group);
                scales.clear();
                let of_weights = groups.clone().map(|group| group * self.group / codes.group());
                codes.scales(task.isa, panel, of_weights, &mut scales);
                // A group longer than what is widened together comes in parts.
                let parts = self.group > TOGETHER;
                if parts {
                    sums.fill([0.0; PANEL]);
                    self.add_all(task, codes, panel, within.clone(), &mut room, &mut sums);
                }
                let w = (!parts).then(|| self.factors(task.isa, codes, panel, within.clone(), &mut room));
                for block in &self.blocks {
                    let rows = block.first..block.first + block.rows;
                    task.isa.dispatch(Groups {
                        all: self,
                        rows: &self.rows[rows.clone()],
                        factors: w.map(|w| block.x.beside(within.clone(), w)),
                        depth: within.len(),
                        sums: if parts { &sums[rows.clone()] } else { &[] },
                        first: groups.start,
                        scales: &scales,
                        places: if in_turn { None } else { Some(&places) },
                        out: &mut terms[rows.start * each..rows.end * each],
                    });
                }
            }
            if in_turn {
                sums.iter_mut().zip(&terms).for_each(|(sums, terms)| *sums = terms.0.map(f64::from));
            } else {
                self.add_groups(task, &terms, count, &mut sums);
            }
            self.finish(task, codes, panel, &sums, out);
        }
    }

    /// Adds the products of these terms of a panel to the sums of all rows, exactly.
    fn add_all(
        &self,
        task: &Task<'_>,
        codes: &Codes,
        panel: usize,
        terms: Range<usize>,
        room: &mut Room,
        sums: &mut [[f64; PANEL]],
    ) {
        for first in terms.clone().step_by(TOGETHER) {
            let terms = first..terms.end.min(first + TOGETHER);
            let w = self.factors(task.isa, codes, panel, terms.clone(), room);
            for block in &self.blocks {
                let sums = &mut sums[block.first..][..block.rows];
                task.isa.dispatch(Products { factors: block.x.beside(terms.clone(), w), sums });
            }
        }
    }

    /// Widens some terms of a panel.
    fn factors<'r>(
        &self,
        isa: Isa,
        codes: &Codes,
        panel: usize,
        terms: Range<usize>,
        room: &'r mut Room,
    ) -> &'r Room {
        let narrow = &mut room.narrow[..terms.len()];
        codes.widen(isa, panel, terms.start, narrow);
        if !self.narrow {
            isa.dispatch(Doubled { terms: narrow, out: &mut room.wide[..terms.len()] });
        }
        room
    }

    /// Adds up the groups of every row in the order's way.
    fn add_groups(&self, task: &Task<'_>, terms: &[FloatRow], count: usize, sums: &mut [[f64; PANEL]]) {
        if count == 0 {
            return;
        }
        if task.rule == Rule::Exact {
            for (terms, sums) in terms.chunks_exact(count).zip(sums) {
                for (lane, sum) in sums.iter_mut().enumerate() {
                    *sum = exact::dot(terms.iter().map(|term| (term.0[lane], 1.0))).into();
                }
            }
            return;
        }
        let block = Block { first: 0, rows: 1, height: 1, x: vec![1.0; count].into() };
        let rows: Vec<&[FloatRow]> = terms.chunks_exact(count).collect();
        for (rows, sums) in rows.chunks(SINGLE).zip(sums.chunks_mut(SINGLE)) {
            let piece = Piece {
                task,
                block: &block,
                // Where rows are missing the last one stands in, and its sums are not kept.
                rows: PanelRows::Float(std::array::from_fn(|slot| rows[slot.min(rows.len() - 1)])),
                begin: &[FloatRow([0.0; PANEL]); SINGLE],
                words: None,
                result: Format::F32,
            };
            piece.fused(&task.schedule, |slot, _, values| {
                if let Some(sums) = sums.get_mut(slot) {
                    *sums = values.map(f64::from);
                }
            });
        }
    }

    fn finish(&self, task: &Task<'_>, codes: &Codes, panel: usize, sums: &[[f64; PANEL]], out: &mut Out<'_>) {
        let (scales, begin) = (codes.whole(panel), task.begin(panel));
        for (row, (sums, quantized)) in sums.iter().zip(&self.rows).enumerate() {
            let mut values = FloatRow([0.0; PANEL]);
            let rescale =
                Rescale { sums, row: quantized.whole, scales: &scales, begin: &begin, out: &mut values };
            task.isa.dispatch(rescale);
            task.round(task.recipe.result, std::slice::from_mut(&mut values.0));
            out.put(row, panel, &values.0);
        }
    }
}

/// Some terms of rows and of a panel, in what holds the sums of their products.
#[derive(Clone, Copy)]
enum Factors<'a> {
    Narrow(&'a [[f32; ROWS]], &'a [FloatRow]),
    Wide(&'a [[f64; ROWS]], &'a [[f64; PANEL]]),
}

impl Rows {
    /// These terms, beside those of a panel.
    fn beside<'a>(&'a self, terms: Range<usize>, panel: &'a Room) -> Factors<'a> {
        match self {
            Rows::Narrow(x) => Factors::Narrow(&x[terms.clone()], &panel.narrow[..terms.len()]),
            Rows::Wide(x) => Factors::Wide(&x[terms.clone()], &panel.wide[..terms.len()]),
        }
    }
}

impl<'a> Factors<'a> {
    /// Some of them.
    #[inline(always)]
    fn part(self, terms: Range<usize>) -> Factors<'a> {
        match self {
            Factors::Narrow(x, w) => Factors::Narrow(&x[terms.clone()], &w[terms]),
            Factors::Wide(x, w) => Factors::Wide(&x[terms.clone()], &w[terms]),
        }
    }
}

/// Room for terms that are widened together.
struct Room {
    narrow: Vec<FloatRow>,
    wide: Vec<[f64; PANEL]>,
}

/// The products of rows with some terms of a panel, added to their sums.
struct Products<'a> {
    factors: Factors<'a>,
    sums: &'a mut [[f64; PANEL]],
}

impl WithSimd for Products<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Products { factors, sums } = self;
        match (factors, sums.len()) {
            (Factors::Narrow(x, w), 1) => add::<S, 1>(simd, x, w, sums),
            (Factors::Narrow(x, w), 2..=4) => add::<S, 4>(simd, x, w, sums),
            (Factors::Narrow(x, w), _) => add::<S, ROWS>(simd, x, w, sums),
            (Factors::Wide(x, w), _) => add_wide(simd, x, w, sums),
        }
    }
}

#[inline(always)]
fn add<S: Simd, const R: usize>(simd: S, x: &[[f32; ROWS]], w: &[FloatRow], sums: &mut [[f64; PANEL]]) {
    for pair in 0..groups::<S, 2>() {
        let tile = tile::<S, R>(simd, x, w, pair);
        for (sums, tile) in sums.iter_mut().zip(tile) {
            let lanes = bytemuck::cast_slice::<_, f32>(&tile);
            let sums = &mut sums[pair * lanes.len()..][..lanes.len()];
            sums.iter_mut().zip(lanes).for_each(|(sum, &lane)| *sum += f64::from(lane));
        }
    }
}

/// The sums of rows over all of these terms, in two vectors of the panel.
#[inline(always)]
fn tile<S: Simd, const R: usize>(
    simd: S,
    x: &[[f32; ROWS]],
    w: &[FloatRow],
    pair: usize,
) -> [[S::f32s; 2]; R] {
    let mut tile = [[simd.splat_f32s(0.0); 2]; R];
    for (x, w) in x.iter().zip(w) {
        let vectors = &S::as_simd_f32s(&w.0).0[2 * pair..][..2];
        for (sums, &x) in tile.iter_mut().zip(x) {
            let x = simd.splat_f32s(x);
            sums[0] = simd.mul_add_f32s(x, vectors[0], sums[0]);
            sums[1] = simd.mul_add_f32s(x, vectors[1], sums[1]);
        }
    }
    tile
}

/// The same in doubles, added to what there is.
#[inline(always)]
fn add_wide<S: Simd>(simd: S, x: &[[f64; ROWS]], w: &[[f64; PANEL]], sums: &mut [[f64; PANEL]]) {
    const { assert!(ROWS.is_multiple_of(WIDE.0)) };
    if let [_] = sums {
        return wide_tiles::<S, 1, WIDE_ALONE>(simd, x, 0, w, sums);
    }
    for (block, sums) in sums.chunks_mut(WIDE.0).enumerate() {
        wide_tiles::<S, { WIDE.0 }, { WIDE.1 }>(simd, x, block * WIDE.0, w, sums);
    }
}

/// The rows from one of these on.
#[inline(always)]
fn wide_tiles<S: Simd, const R: usize, const V: usize>(
    simd: S,
    x: &[[f64; ROWS]],
    first: usize,
    w: &[[f64; PANEL]],
    sums: &mut [[f64; PANEL]],
) {
    let vectors = S::as_simd_f64s(&[0.0; PANEL]).0.len();
    for group in 0..vectors / V {
        let mut tile = [[simd.splat_f64s(0.0); V]; R];
        for (x, w) in x.iter().zip(w) {
            let w = &S::as_simd_f64s(w).0[V * group..][..V];
            let x = x[first..].first_chunk::<R>().expect("as many rows stand together as are packed");
            for (sums, &x) in tile.iter_mut().zip(x) {
                let x = simd.splat_f64s(x);
                sums.iter_mut().zip(w).for_each(|(sum, &w)| *sum = simd.mul_add_f64s(x, w, *sum));
            }
        }
        for (sums, tile) in sums.iter_mut().zip(tile) {
            let sums = &mut S::as_mut_simd_f64s(sums).0[V * group..][..V];
            sums.iter_mut().zip(tile).for_each(|(sum, own)| *sum = simd.add_f64s(*sum, own));
        }
    }
}

/// The terms of a panel in doubles.
struct Doubled<'a> {
    terms: &'a [FloatRow],
    out: &'a mut [[f64; PANEL]],
}

impl WithSimd for Doubled<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        // As one long row: of rows of rows the compiler makes gathers.
        let terms = bytemuck::cast_slice::<_, f32>(self.terms);
        self.out.as_flattened_mut().iter_mut().zip(terms).for_each(|(out, &term)| *out = term.into());
    }
}

/// Sums of some groups of rows, times their scales.
struct Groups<'a> {
    all: &'a GroupRows,
    rows: &'a [Quantized],
    /// The groups' terms; none where their sums are there already.
    factors: Option<Factors<'a>>,
    /// How many terms there are.
    depth: usize,
    sums: &'a [[f64; PANEL]],
    /// The first group's number.
    first: usize,
    /// The scales of each group.
    scales: &'a [FloatRow],
    /// Where the sum of each group of a row goes; to the others at once where there are none.
    places: Option<&'a [usize]>,
    out: &'a mut [FloatRow],
}

impl WithSimd for Groups<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        match self.rows.len() {
            1 => self.of_rows::<S, 1>(simd),
            2..=4 => self.of_rows::<S, 4>(simd),
            _ => self.of_rows::<S, ROWS>(simd),
        }
    }
}

impl Groups<'_> {
    #[inline(always)]
    fn of_rows<S: Simd, const R: usize>(self, simd: S) {
        let Groups { all, rows, factors, depth, sums, first, scales, places, out } = self;
        let room = out.len() / rows.len();
        // A product of two scales between these is no subnormal number, nor is what it multiplies too large.
        let is_moderate = |scale: f32| (1e-9..1e9).contains(&scale);
        for (index, scales) in scales.iter().enumerate() {
            let terms = index * all.group..depth.min((index + 1) * all.group);
            let own = (first + index) * all.group / all.own_group;
            let place = places.map_or(0, |places| places[first + index]);
            let row_scales: [f32; R] =
                std::array::from_fn(|row| rows.get(row).map_or(1.0, |row| row.scales[own]));
            let is_plain = all.scaled_narrow
                && row_scales.iter().all(|&scale| is_moderate(scale))
                && scales.0.iter().all(|&scale| is_moderate(scale));
            let factors = factors.map(|factors| factors.part(terms));
            if let (true, Some(Factors::Narrow(x, w))) = (is_plain, factors) {
                for pair in 0..groups::<S, 2>() {
                    let tile = tile::<S, R>(simd, x, w, pair);
                    let scales = &S::as_simd_f32s(&scales.0).0[2 * pair..][..2];
                    for (row, tile) in tile.iter().enumerate().take(rows.len()) {
                        let own = simd.splat_f32s(row_scales[row]);
                        let out = &mut S::as_mut_simd_f32s(&mut out[row * room + place].0).0[2 * pair..][..2];
                        // Both products are exact, so that the sum rounds once.
                        out[0] = simd.mul_add_f32s(tile[0], simd.mul_f32s(own, scales[0]), out[0]);
                        out[1] = simd.mul_add_f32s(tile[1], simd.mul_f32s(own, scales[1]), out[1]);
                    }
                }
                continue;
            }
            let mut inner = [[0.0_f64; PANEL]; R];
            match factors {
                None => inner.iter_mut().zip(sums).for_each(|(inner, sums)| *inner = *sums),
                Some(Factors::Narrow(x, w)) => add::<S, R>(simd, x, w, &mut inner),
                Some(Factors::Wide(x, w)) => add_wide(simd, x, w, &mut inner[..rows.len()]),
            }
            for (row, inner) in inner.iter().enumerate().take(rows.len()) {
                let (own, out) = (f64::from(row_scales[row]), &mut out[row * room + place].0);
                for ((out, inner), &scale) in out.iter_mut().zip(inner).zip(&scales.0) {
                    // A sum of its own begins at 0.
                    *out += (inner * (own * f64::from(scale))) as f32;
                }
            }
        }
    }
}
