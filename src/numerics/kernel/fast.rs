//! The fast twin: the definition's bits, on vectors, by as many threads as asked for.

use std::{
    collections::HashMap,
    marker::PhantomData,
    ops::Range,
    sync::{Arc, RwLock},
};

use pulp::{Simd, WithSimd};
use rayon::{ThreadPool, ThreadPoolBuildError, ThreadPoolBuilder, prelude::*};

use super::{
    Isa, Job, Kernel, Packed,
    certified::{Certify, TermSums, WideRow, WideSums, WidenMore},
    definition::sum_of_products,
    integer,
    packed::{Bf16Row, Bound, FloatRow, Magnitudes, PANEL, QUAD, QuadRow, Store, Widen},
    tile::{
        Arithmetic, Fused, FusedBf16, FusedF16, Kahan, LMulEdges, LMulFormula, LMulWords, Neumaier, Plain,
        Row, Running, Tile, groups, store,
    },
};
use crate::numerics::{
    Numerics,
    exact::Superaccumulator,
    format::{Format, Lanes},
    order::{Launch, Order, Rule, Schedule},
    precision::{Product, Recipe, Site},
    product::{
        LMul, Quantized, Variant, outlier_columns, outlier_weight, quantize_int8, quantize_w8a8,
        rescale_int8, rescale_w8a8,
    },
};

/// Multiply-adds below which waking a second thread costs more than it brings.
const WORTH_SHARING: usize = 1 << 18;

/// The fast kernel.
#[derive(Debug)]
pub struct Fast {
    numerics: Numerics,
    isa: Isa,
    /// As many threads as the numerics ask for; one is the caller's own.
    pool: Option<ThreadPool>,
    schedules: RwLock<HashMap<(Order, usize), Arc<Schedule>>>,
    fault: Option<Fault>,
}

/// A defect to put into the kernel, for showing that an audit would have seen it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Fault {
    /// The terms come in the opposite order.
    Reversed,
    /// The last term of the walk is left out.
    Dropped,
}

impl Fast {
    /// A kernel for these numerics on the widest vectors of this machine.
    ///
    /// # Errors
    ///
    /// When the threads cannot be started.
    pub fn new(numerics: Numerics) -> Result<Fast, ThreadPoolBuildError> {
        Fast::on(Isa::best(), numerics)
    }

    /// A kernel for these numerics on a given instruction set, which the machine must have.
    ///
    /// # Errors
    ///
    /// When the threads cannot be started.
    ///
    /// # Panics
    ///
    /// If the machine lacks the instruction set.
    pub fn on(isa: Isa, numerics: Numerics) -> Result<Fast, ThreadPoolBuildError> {
        assert!(isa.is_available(), "this machine has no {isa}");
        let threads = numerics.threads.get();
        let pool = match threads {
            1 => None,
            _ => Some(ThreadPoolBuilder::new().num_threads(threads).build()?),
        };
        Ok(Fast { numerics, isa, pool, schedules: RwLock::default(), fault: None })
    }

    /// The same kernel with a defect.
    pub fn with_fault(self, fault: Fault) -> Fast {
        Fast { fault: Some(fault), ..self }
    }

    /// The instruction set in use.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    fn schedule(&self, terms: usize, launch: Launch) -> Arc<Schedule> {
        let key = (self.numerics.order.under(launch), terms);
        const POISONED: &str = "nothing panics while it holds the schedules";
        if let Some(schedule) = self.schedules.read().expect(POISONED).get(&key) {
            return Arc::clone(schedule);
        }
        let schedule = Arc::new(key.0.schedule(terms, launch));
        Arc::clone(self.schedules.write().expect(POISONED).entry(key).or_insert(schedule))
    }
}

impl Kernel for Fast {
    type Weights = Packed;

    fn numerics(&self) -> Numerics {
        self.numerics
    }

    fn pack(
        &self,
        site: Site,
        columns: usize,
        depth: usize,
        fill: &mut dyn FnMut(usize, &mut [f32]),
    ) -> Packed {
        Packed::new(self.numerics, site, columns, depth, fill)
    }

    fn push_column(&self, weights: &mut Packed, terms: &[f32]) {
        weights.push_column(terms);
    }

    fn push_row(&self, weights: &mut Packed, terms: &[f32]) {
        weights.push_row(terms);
    }

    fn run(&self, site: Site, launch: Launch, jobs: Vec<Job<'_, Packed>>) {
        let recipe = self.numerics.precision.recipe(site);
        let cost = |job: &Job<'_, Packed>| job.activations.len() * job.weights.columns;
        let pool = self.pool.as_ref().filter(|_| jobs.iter().map(cost).sum::<usize>() >= WORTH_SHARING);
        let Some(pool) = pool else {
            for job in jobs {
                let whole = 0..job.weights.columns.div_ceil(PANEL);
                let (product, out) = Prepared::new(self, recipe, launch, job);
                product.panels(whole, out);
            }
            return;
        };
        let threads = self.numerics.threads.get();
        pool.install(|| {
            // Few jobs are shared by their outputs, many by their number.
            let shares = if jobs.len() >= 4 * threads { 1 } else { threads };
            jobs.into_par_iter().with_max_len(1).for_each(|job| {
                let panels = job.weights.columns.div_ceil(PANEL);
                let bounds: Vec<usize> = (0..=shares).map(|share| panels * share / shares).collect();
                let columns = job.weights.columns;
                let (product, out) = Prepared::new(self, recipe, launch, job);
                let ends = bounds[1..].iter().map(|&panel| columns.min(panel * PANEL));
                split_columns(out, columns, ends)
                    .into_par_iter()
                    .with_max_len(1)
                    .zip(bounds.par_windows(2))
                    .for_each(|(out, bounds)| product.panels(bounds[0]..bounds[1], out));
            });
        });
    }

    fn sum(&self, launch: Launch, terms: &[f32]) -> f32 {
        sum_of_products(self.numerics.order, launch, terms.len(), |term| (terms[term], 1.0))
    }

    fn sum_of_squares(&self, launch: Launch, terms: &[f32]) -> f32 {
        sum_of_products(self.numerics.order, launch, terms.len(), |term| (terms[term], terms[term]))
    }
}

/// Every row's outputs up to each end, as the rows of one share.
fn split_columns<'a>(
    out: Vec<&'a mut [f32]>,
    columns: usize,
    ends: impl Iterator<Item = usize> + Clone,
) -> Vec<Vec<&'a mut [f32]>> {
    let mut shares: Vec<_> = ends.clone().map(|_| Vec::with_capacity(out.len())).collect();
    for mut row in out {
        let mut start = 0;
        for (share, end) in shares.iter_mut().zip(ends.clone()) {
            let (this, rest) = row.split_at_mut(end - start);
            share.push(this);
            (row, start) = (rest, end);
        }
        debug_assert_eq!(start, columns);
    }
    shares
}

/// Rows that one tile takes together, packed term after term in walking order.
struct Block {
    /// The first row, and how many rows there are; a tile taller than that repeats the last one.
    first: usize,
    rows: usize,
    height: usize,
    x: Vec<f32>,
    magnitudes: Magnitudes,
}

/// A job with its activations packed, ready for any share of its panels.
struct Prepared<'a> {
    isa: Isa,
    recipe: Recipe,
    rule: Rule,
    depth: usize,
    weights: &'a Packed,
    schedule: Arc<Schedule>,
    start: Option<&'a [f32]>,
    /// In which order the panels' stored rows are visited, if not as they stand.
    visit: Option<Vec<u32>>,
    rows: Rows,
}

/// The activations, as the product takes them.
enum Rows {
    Float(Vec<Block>),
    Exact { blocks: Vec<Block>, bounds: Vec<Bound> },
    Integer { rows: Vec<Quantized>, outliers: Option<Outliers> },
}

/// What LLM.int8() keeps in 16 bit.
struct Outliers {
    /// Their columns, in walking order.
    columns: Vec<usize>,
    schedule: Arc<Schedule>,
    blocks: Vec<Block>,
}

impl<'a> Prepared<'a> {
    fn new(
        kernel: &Fast,
        recipe: Recipe,
        launch: Launch,
        job: Job<'a, Packed>,
    ) -> (Self, Vec<&'a mut [f32]>) {
        let Job { activations, rows, weights, start, out } = job;
        let depth = activations.len().checked_div(rows).unwrap_or(0);
        assert_eq!(activations.len(), rows * depth, "every row of activations has the same length");
        assert_eq!(out.len(), rows * weights.columns, "there is room for every result");
        if weights.walked {
            assert_eq!(depth, weights.depth, "the activations are as long as the weights are deep");
        }
        assert!(depth <= weights.depth, "the activations are no longer than the matrix is deep");
        assert!(
            start.is_none_or(|start| start.len() == weights.columns),
            "there is a start for every output"
        );

        let rule = kernel.numerics.order.rule();
        let schedule = kernel.schedule(depth, launch);
        // Positions of the walk: which activation stands there, and which stored row of the panels.
        let mut terms = schedule.walk.clone();
        let mut visit = schedule.walk.clone().filter(|_| !weights.walked);
        if kernel.fault == Some(Fault::Reversed) {
            for list in [&mut terms, &mut visit] {
                let forward = list.take().unwrap_or_else(|| (0..depth as u32).collect());
                *list = Some(forward.into_iter().rev().collect());
            }
        }
        let mut activations = activations.to_vec();
        recipe.activations.round_slice(&mut activations);
        if kernel.fault == Some(Fault::Dropped) && depth > 0 {
            let last = terms.as_ref().map_or(depth - 1, |terms| terms[depth - 1] as usize);
            activations.iter_mut().skip(last).step_by(depth).for_each(|value| *value = 0.0);
        }

        let each_row = || (0..rows).map(|row| &activations[row * depth..][..depth]);
        let tallest = match (kernel.isa, rule) {
            (Isa::Avx512 | Isa::Neon, Rule::Plain | Rule::Exact) => 8,
            _ => 4,
        };
        let blocks = |activations: &[f32], depth, terms: Option<&[u32]>| {
            pack_rows(activations, rows, depth, terms, tallest)
        };
        let packed_rows = match recipe.product {
            Product::Int8(threshold) => {
                let columns = outlier_columns(&activations, depth, threshold);
                let mut quantized: Vec<_> =
                    each_row().map(|row| quantize_int8(row, threshold.value())).collect();
                for row in &mut quantized {
                    columns.iter().for_each(|&column| row.codes[column] = 0);
                }
                let outliers = (!columns.is_empty()).then(|| {
                    let schedule = kernel.schedule(columns.len(), launch);
                    let columns: Vec<usize> =
                        (0..columns.len()).map(|position| columns[schedule.term(position)]).collect();
                    let gathered: Vec<f32> =
                        each_row().flat_map(|row| columns.iter().map(|&k| row[k])).collect();
                    Outliers { blocks: blocks(&gathered, columns.len(), None), columns, schedule }
                });
                Rows::Integer { rows: quantized, outliers }
            }
            Product::W8A8 => Rows::Integer { rows: each_row().map(quantize_w8a8).collect(), outliers: None },
            _ if rule == Rule::Exact => Rows::Exact {
                bounds: each_row().map(Bound::of).collect(),
                blocks: blocks(&activations, depth, terms.as_deref()),
            },
            _ => Rows::Float(blocks(&activations, depth, terms.as_deref())),
        };
        let columns = weights.columns;
        let prepared = Prepared {
            isa: kernel.isa,
            recipe,
            rule,
            depth,
            weights,
            schedule,
            start,
            visit,
            rows: packed_rows,
        };
        (prepared, if columns == 0 { Vec::new() } else { out.chunks_exact_mut(columns).collect() })
    }

    /// Computes these panels; `out` holds their outputs, row by row.
    fn panels(&self, panels: Range<usize>, mut out: Vec<&mut [f32]>) {
        let first = panels.start * PANEL;
        match &self.rows {
            Rows::Float(blocks) => self.float_panels(blocks, panels, first, &mut out),
            Rows::Exact { blocks, bounds } => self.exact_panels(blocks, bounds, panels, first, &mut out),
            Rows::Integer { rows, outliers } => {
                self.integer_panels(rows, outliers.as_ref(), panels, first, &mut out);
            }
        }
        for row in out {
            self.recipe.sum.round_slice(row);
            self.recipe.result.round_slice(row);
        }
    }

    fn float_panels(&self, blocks: &[Block], panels: Range<usize>, first: usize, out: &mut [&mut [f32]]) {
        // A single row leaves a tile's registers empty: it takes several panels at once.
        let together = if blocks.iter().all(|block| block.height == 1) { SINGLE } else { 1 };
        // Only the plain fused product widens bfloat16 in its registers; everything else is widened once.
        let direct = self.visit.is_none()
            && matches!(self.recipe.product, Product::Fused)
            && self.recipe.sum == Format::F32
            && self.rule == Rule::Plain;
        let mut scratch: [Vec<FloatRow>; SINGLE] = Default::default();
        for start in panels.clone().step_by(together) {
            let width = together.min(panels.end - start);
            // Where panels are missing the last one stands in, and its results are not kept.
            let panel = |slot: usize| start + slot.min(width - 1);
            let begin: [FloatRow; SINGLE] = std::array::from_fn(|slot| self.begin(panel(slot)));
            let magnitudes: [Magnitudes; SINGLE] = std::array::from_fn(|slot| {
                self.weights.magnitudes.as_ref().map_or(Magnitudes::NONE, |known| known[panel(slot)])
            });
            let rows = match &self.weights.store {
                Store::Bf16(panels) if direct => {
                    PanelRows::Bf16(std::array::from_fn(|slot| &panels[panel(slot)][..self.depth]))
                }
                Store::Float(panels) if self.visit.is_none() => {
                    PanelRows::Float(std::array::from_fn(|slot| &panels[panel(slot)][..self.depth]))
                }
                _ => {
                    for (slot, scratch) in scratch.iter_mut().enumerate().take(width) {
                        self.widen(panel(slot), scratch);
                    }
                    PanelRows::Float(std::array::from_fn(|slot| scratch[slot.min(width - 1)].as_slice()))
                }
            };
            for block in blocks {
                let tile = Piece { product: self, block, rows, begin: &begin, magnitudes: &magnitudes };
                tile.multiply(|slot, row, values| {
                    if slot < width && row < block.rows {
                        let column = (start + slot) * PANEL - first;
                        let out = &mut out[block.first + row][column..];
                        let width = out.len().min(PANEL);
                        out[..width].copy_from_slice(&values[..width]);
                    }
                });
            }
        }
    }

    fn exact_panels(
        &self,
        blocks: &[Block],
        bounds: &[Bound],
        panels: Range<usize>,
        first: usize,
        out: &mut [&mut [f32]],
    ) {
        let known = self.weights.bounds.as_deref().expect("a matrix packed for exact sums has its bounds");
        let (mut floats, mut wide) = (Vec::new(), Vec::new());
        let lmul = match self.recipe.product {
            Product::LMul(product) => Some(product),
            _ => None,
        };
        for panel in panels {
            self.widen(panel, &mut floats);
            if lmul.is_none() {
                self.isa.dispatch(WidenMore { panel: &floats, wide: &mut wide });
            }
            let begin = self.begin(panel).0.map(|start| self.recipe.sum.round(start));
            let column = panel * PANEL;
            let width = PANEL.min(self.weights.columns - column);
            let mut columns = [Bound::of(&[]); PANEL];
            for ((bound, known), start) in columns.iter_mut().zip(&known[column..]).zip(begin) {
                *bound = if start == 0.0 { *known } else { known.and(Bound::of(&[start])) };
            }
            let begins = begin.iter().any(|&start| start != 0.0);
            for block in blocks {
                let mut sums = [begin.map(f64::from); 8];
                match lmul {
                    Some(product) => {
                        for (row, sums) in sums.iter_mut().enumerate().take(block.rows) {
                            let x: Vec<f32> =
                                block.x.iter().skip(row).step_by(block.height).copied().collect();
                            match product.variant {
                                Variant::Bits => self.term_sums(lmul_edges(product), &x, &floats, sums),
                                Variant::Formula => self.term_sums(lmul_formula(product), &x, &floats, sums),
                            }
                        }
                    }
                    None => {
                        let x: Vec<f64> = block.x.iter().copied().map(f64::from).collect();
                        match block.height {
                            1 => self.wide_sums::<1, 4>(&x, &wide, &mut sums),
                            4 => self.wide_sums::<4, 2>(&x, &wide, &mut sums),
                            _ => self.wide_sums::<8, 2>(&x, &wide, &mut sums),
                        }
                    }
                }
                for row in 0..block.rows {
                    let bound = bounds[block.first + row];
                    let bound = if begins { bound.and(Bound::of(&[1.0])) } else { bound };
                    let certified = self.isa.dispatch(Certify {
                        terms: self.depth + 1,
                        row: bound,
                        columns: &columns,
                        sums: &sums[row],
                        product: lmul,
                    });
                    let out = &mut out[block.first + row][column - first..][..width];
                    for (lane, (out, (value, certain))) in out.iter_mut().zip(certified).enumerate() {
                        let x = block.x.iter().skip(row).step_by(block.height);
                        *out = if certain {
                            value
                        } else {
                            let w = floats.iter().map(|w| w.0[lane]);
                            exactly(lmul, begin[lane], x.copied().zip(w))
                        };
                    }
                }
            }
        }
    }

    fn wide_sums<const R: usize, const V: usize>(
        &self,
        x: &[f64],
        panel: &[WideRow],
        sums: &mut [[f64; PANEL]; 8],
    ) {
        let sums = sums.first_chunk_mut::<R>().expect("a block has at most 8 rows");
        self.isa.dispatch(WideSums::<R, V> { x: x.as_chunks().0, panel, sums });
    }

    fn term_sums(&self, arithmetic: impl Arithmetic, x: &[f32], panel: &[FloatRow], sums: &mut [f64; PANEL]) {
        self.isa.dispatch(TermSums { arithmetic, x, panel, sums });
    }

    fn integer_panels(
        &self,
        rows: &[Quantized],
        outliers: Option<&Outliers>,
        panels: Range<usize>,
        first: usize,
        out: &mut [&mut [f32]],
    ) {
        let Store::Integer(stored, scales) = &self.weights.store else {
            unreachable!("a matrix for integer products is packed as integers");
        };
        let int8 = matches!(self.recipe.product, Product::Int8(_));
        let single = rows.len() == 1;
        let tall: Vec<_> = if single { Vec::new() } else { rows.chunks(integer::ROWS).map(quads).collect() };
        let flat: Vec<_> = if single { vec![quads(rows)] } else { Vec::new() };
        for panel in panels {
            let column = panel * PANEL;
            let begin = self.begin(panel);
            let mut sums = Vec::with_capacity(rows.len());
            for x in &flat {
                sums.extend(integer::sums::<1>(self.isa, x, &stored[panel]));
            }
            for x in &tall {
                sums.extend(integer::sums::<{ integer::ROWS }>(self.isa, x, &stored[panel]));
            }
            for ((row, sums), out) in rows.iter().zip(&sums).zip(out.iter_mut()) {
                let out = &mut out[column - first..];
                let width = out.len().min(PANEL);
                self.isa.dispatch(Rescale {
                    int8,
                    sums: &sums[..width],
                    row: row.scale,
                    columns: &scales[column..][..width],
                    start: &begin.0[..width],
                    out: &mut out[..width],
                });
            }
            if let Some(outliers) = outliers {
                self.add_outliers(outliers, &stored[panel], &scales[column..], |row, lane, value| {
                    let out = &mut out[row][column - first + lane];
                    *out = Format::F16.round(*out) + value;
                });
            }
        }
    }

    /// The 16-bit part of LLM.int8() for one panel.
    fn add_outliers(
        &self,
        outliers: &Outliers,
        panel: &[QuadRow],
        scales: &[f32],
        mut add: impl FnMut(usize, usize, f32),
    ) {
        let width = scales.len().min(PANEL);
        let weight = |column: usize, lane: usize| {
            outlier_weight(panel[column / QUAD].get(lane, column % QUAD), scales[lane])
        };
        if self.rule == Rule::Exact {
            for block in &outliers.blocks {
                for row in 0..block.rows {
                    for lane in 0..width {
                        let x = block.x.iter().skip(row).step_by(block.height).copied();
                        let w = outliers.columns.iter().map(|&column| weight(column, lane));
                        add(block.first + row, lane, exactly(None, 0.0, x.zip(w)));
                    }
                }
            }
            return;
        }
        let rows: Vec<FloatRow> = outliers
            .columns
            .iter()
            .map(|&column| {
                FloatRow(std::array::from_fn(|lane| if lane < width { weight(column, lane) } else { 0.0 }))
            })
            .collect();
        let zero = [FloatRow([0.0; PANEL]); SINGLE];
        for block in &outliers.blocks {
            let piece = Piece {
                product: self,
                block,
                rows: PanelRows::Float([&rows; SINGLE]),
                begin: &zero,
                magnitudes: &[Magnitudes::NONE; SINGLE],
            };
            piece.fused(&outliers.schedule, |slot, row, values| {
                if slot == 0 && row < block.rows {
                    for (lane, &value) in values[..width].iter().enumerate() {
                        add(block.first + row, lane, value);
                    }
                }
            });
        }
    }

    /// What the sums of a panel begin at.
    fn begin(&self, panel: usize) -> FloatRow {
        let mut begin = FloatRow([0.0; PANEL]);
        if let Some(start) = self.start {
            for (begin, start) in begin.0.iter_mut().zip(&start[panel * PANEL..]) {
                *begin = *start;
            }
        }
        begin
    }

    /// A panel in f32, in walking order.
    fn widen(&self, panel: usize, floats: &mut Vec<FloatRow>) {
        floats.clear();
        match &self.weights.store {
            Store::Float(panels) => self.widen_rows(&panels[panel], Lanes::of(Format::F32), floats),
            Store::Bf16(panels) => self.widen_rows(&panels[panel], Lanes::of(Format::BF16), floats),
            Store::Code16(format, panels) => self.widen_rows(&panels[panel], Lanes::of(*format), floats),
            Store::Code8(format, panels) => self.widen_rows(&panels[panel], Lanes::of(*format), floats),
            Store::Integer(..) => unreachable!("integers are multiplied as integers"),
        }
    }

    fn widen_rows<R: Widen>(&self, rows: &[R], lanes: Lanes, floats: &mut Vec<FloatRow>) {
        let rows = &rows[..self.weights.depth];
        match &self.visit {
            None => self.isa.dispatch(WidenRows { rows: rows[..self.depth].iter(), lanes, floats }),
            Some(visit) => {
                let rows = visit.iter().map(|&row| &rows[row as usize]);
                self.isa.dispatch(WidenRows { rows, lanes, floats });
            }
        }
    }
}

/// Scales one row's integer sums back.
struct Rescale<'a> {
    int8: bool,
    sums: &'a [i32],
    row: f32,
    columns: &'a [f32],
    start: &'a [f32],
    out: &'a mut [f32],
}

impl WithSimd for Rescale<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        let sums = self.out.iter_mut().zip(self.sums).zip(self.columns).zip(self.start);
        if self.int8 {
            sums.for_each(|(((out, &sum), &column), &start)| {
                *out = rescale_int8(sum, self.row, column, start)
            });
        } else {
            sums.for_each(|(((out, &sum), &column), &start)| {
                *out = rescale_w8a8(sum, self.row, column, start)
            });
        }
    }
}

/// Widens rows with the vectors of an instruction set.
struct WidenRows<'a, I> {
    rows: I,
    lanes: Lanes,
    floats: &'a mut Vec<FloatRow>,
}

impl<'r, R: Widen + 'r, I: Iterator<Item = &'r R>> WithSimd for WidenRows<'_, I> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for row in self.rows {
            let mut float = FloatRow([0.0; PANEL]);
            row.widen(self.lanes, &mut float.0);
            self.floats.push(float);
        }
    }
}

fn exactly(lmul: Option<LMul>, start: f32, pairs: impl Iterator<Item = (f32, f32)>) -> f32 {
    let mut sum = Superaccumulator::new();
    sum.add(start);
    for (x, w) in pairs {
        match lmul {
            Some(product) => sum.add(product.multiply(x, w)),
            None => sum.add_product(x, w),
        }
    }
    sum.round()
}

/// Rows of integers, four terms after four terms; missing rows and terms are zero.
fn quads<const R: usize>(rows: &[Quantized]) -> Vec<[[i8; QUAD]; R]> {
    let depth = rows.first().map_or(0, |row| row.codes.len());
    let mut packed = vec![[[0; QUAD]; R]; depth.div_ceil(QUAD)];
    for (index, row) in rows.iter().enumerate() {
        for (term, &code) in row.codes.iter().enumerate() {
            packed[term / QUAD][index][term % QUAD] = code;
        }
    }
    packed
}

fn pack_rows(
    activations: &[f32],
    rows: usize,
    depth: usize,
    terms: Option<&[u32]>,
    tallest: usize,
) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut first = 0;
    while first < rows {
        let height = match rows - first {
            _ if rows == 1 => 1,
            ..=4 => 4,
            _ => tallest,
        };
        let taken = height.min(rows - first);
        let block = &activations[first * depth..][..taken * depth];
        let mut x = vec![0.0; depth * height];
        for row in 0..height {
            let source = &block[row.min(taken - 1) * depth..][..depth];
            for (position, x) in x.iter_mut().skip(row).step_by(height).enumerate() {
                *x = source[terms.map_or(position, |terms| terms[position] as usize)];
            }
        }
        blocks.push(Block { first, rows: taken, height, x, magnitudes: Magnitudes::NONE.and(block) });
        first += taken;
    }
    blocks
}

/// Panels that a single row takes at once.
const SINGLE: usize = 4;

/// The rows of a panel, or of several.
#[derive(Clone, Copy)]
enum PanelRows<'a> {
    Float([&'a [FloatRow]; SINGLE]),
    Bf16([&'a [Bf16Row]; SINGLE]),
}

/// One block of rows times one panel, or one row times several: where everything that is chosen once is chosen.
struct Piece<'a> {
    product: &'a Prepared<'a>,
    block: &'a Block,
    rows: PanelRows<'a>,
    begin: &'a [FloatRow; SINGLE],
    magnitudes: &'a [Magnitudes; SINGLE],
}

impl Piece<'_> {
    /// Calls `put(panel, row, outputs)` for every row of every panel.
    fn multiply(&self, put: impl FnMut(usize, usize, &[f32; PANEL])) {
        let recipe = &self.product.recipe;
        let schedule = &self.product.schedule;
        match recipe.product {
            Product::LMul(product) if product.variant == Variant::Formula => {
                self.running(lmul_formula(product), schedule, put);
            }
            Product::LMul(product) => match self.plain_words(product) {
                Some(true) => {
                    self.shapes::<_, Plain>(LMulWords::<true> { offset: product.offset() }, schedule, put)
                }
                Some(false) => {
                    self.shapes::<_, Plain>(LMulWords::<false> { offset: product.offset() }, schedule, put)
                }
                None => self.running(lmul_edges(product), schedule, put),
            },
            _ if recipe.sum == Format::BF16 => self.running(FusedBf16, schedule, put),
            _ if recipe.sum == Format::F16 => self.running(FusedF16, schedule, put),
            _ => self.fused(schedule, put),
        }
    }

    fn fused(&self, schedule: &Schedule, put: impl FnMut(usize, usize, &[f32; PANEL])) {
        match (self.rows, self.product.rule) {
            (PanelRows::Bf16(rows), Rule::Plain) => self.shape::<_, Plain, _>(Fused, rows, schedule, put),
            _ => self.running(Fused, schedule, put),
        }
    }

    fn running<A: Arithmetic>(
        &self,
        arithmetic: A,
        schedule: &Schedule,
        put: impl FnMut(usize, usize, &[f32; PANEL]),
    ) {
        match self.product.rule {
            Rule::Plain => self.shapes::<A, Plain>(arithmetic, schedule, put),
            Rule::Kahan => self.shapes::<A, Kahan>(arithmetic, schedule, put),
            Rule::Neumaier => self.shapes::<A, Neumaier>(arithmetic, schedule, put),
            Rule::Exact => unreachable!("exact sums are certified"),
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
            1 => self.tile::<A, U, W, 1, SINGLE>(arithmetic, rows, schedule, put),
            4 => self.tile::<A, U, W, 4, 1>(arithmetic, rows, schedule, put),
            _ => self.tile::<A, U, W, 8, 1>(arithmetic, rows, schedule, put),
        }
    }

    fn tile<A: Arithmetic, U: Running, W: Row, const R: usize, const P: usize>(
        &self,
        arithmetic: A,
        rows: [&[W]; SINGLE],
        schedule: &Schedule,
        mut put: impl FnMut(usize, usize, &[f32; PANEL]),
    ) {
        let mut out = [[[0.0; PANEL]; R]; P];
        self.product.isa.dispatch(Tiles::<A, U, W, R, P> {
            arithmetic,
            schedule,
            x: self.block.x.as_chunks().0,
            panels: *rows.first_chunk().expect("no tile takes more panels than a single row does"),
            start: self.begin.first_chunk().expect("no tile takes more panels than a single row does"),
            out: &mut out,
            running: PhantomData,
        });
        for (slot, rows) in out.iter().enumerate() {
            for (row, values) in rows.iter().enumerate() {
                put(slot, row, values);
            }
        }
    }

    /// Is L-Mul free of its edges here, and if so, are there zeros among the weights?
    fn plain_words(&self, product: LMul) -> Option<bool> {
        let x = self.block.magnitudes;
        let w = self.magnitudes.iter().fold(Magnitudes::NONE, |w, other| Magnitudes {
            smallest: w.smallest.min(other.smallest),
            largest: w.largest.max(other.largest),
            zeros: w.zeros | other.zeros,
        });
        let no_start = self.begin.iter().flat_map(|begin| begin.0).all(|start| start.to_bits() == 0);
        (self.product.rule == Rule::Plain && no_start && product.is_plain(x, w)).then_some(w.zeros)
    }
}

fn lmul_edges(product: LMul) -> LMulEdges {
    LMulEdges { offset: product.offset() }
}

fn lmul_formula(product: LMul) -> LMulFormula {
    LMulFormula { correction: f32::from_bits(0x3F80_0000 - (product.correction_exponent() << 23)) }
}

impl LMul {
    /// Can the words of all these factors be added without a look at the edges?
    fn is_plain(self, x: Magnitudes, w: Magnitudes) -> bool {
        const NORMAL: std::ops::RangeInclusive<u64> = 0x0080_0000..=0x7F7F_FFFF;
        let all = |values: Magnitudes| {
            NORMAL.contains(&(u64::from(values.smallest) + 1)) && NORMAL.contains(&u64::from(values.largest))
        };
        let offset = u64::from(self.offset());
        let smallest = u64::from(x.smallest) + 1 + u64::from(w.smallest) + 1;
        let largest = u64::from(x.largest) + u64::from(w.largest);
        !x.zeros
            && all(x)
            && all(w)
            && smallest >= offset + NORMAL.start()
            && largest <= offset + NORMAL.end()
    }
}

/// The vectors of a panel's row, one tile after another.
struct Tiles<'a, A, U, W, const R: usize, const P: usize> {
    arithmetic: A,
    schedule: &'a Schedule,
    x: &'a [[f32; R]],
    panels: [&'a [W]; P],
    start: &'a [FloatRow; P],
    out: &'a mut [[[f32; PANEL]; R]; P],
    running: PhantomData<U>,
}

impl<A: Arithmetic, U: Running, W: Row, const R: usize, const P: usize> WithSimd
    for Tiles<'_, A, U, W, R, P>
{
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Tiles { arithmetic, schedule, x, panels, start, out, running } = self;
        let mut stack = Vec::new();
        for group in 0..groups::<S>() {
            let mut tile = Tile { simd, arithmetic, x, panels, group, start, running };
            let sums = schedule.reduce(&mut tile, &mut stack);
            store::<S, R, P>(&sums, group, out);
        }
    }
}
