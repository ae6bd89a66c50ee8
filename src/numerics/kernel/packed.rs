//! A matrix laid out for the fast kernel: panels of 32 outputs, term after term, in the precision's own type.
//!
//! Weights and keys stand in the order's own walk, so that every order reads its terms one after the other. Values,
//! whose terms grow in number, stand as they came, and are put in walking order when they are read.

use std::ops::Range;

use pulp::{Simd, WithSimd};

use super::{
    Encoding, Isa, Source,
    blocks::{self, Kept},
    codes::Codes,
    panel::{Bf16Row, Bound, FloatRow, HALF, PANEL},
    source::Held,
    tile::{Row, groups},
};
use crate::numerics::{
    format::{Format, Lanes, SIGN, SMALLEST_NORMAL},
    order::{Order, Rule},
    parallel::Parallel,
    precision::{CodeSums, Product, Recipe, Storage},
    product::quantize_int8,
    quantizer::{Grid, Quantized, Quantizer},
};

/// Terms that one step of the integer kernel takes.
pub(super) const QUAD: usize = 4;

/// One term of 32 outputs as 16-bit codes.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct CodeRow16(pub(super) [u16; PANEL]);

/// One term of 32 outputs as 8-bit codes.
#[derive(Clone, Copy, Debug)]
#[repr(align(32))]
pub(super) struct CodeRow8(pub(super) [u8; PANEL]);

/// Four terms of 32 outputs as 8-bit integers, stored with [`QuadRow::ZERO`] added.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct QuadRow(pub(super) [[u8; QUAD]; PANEL]);

impl QuadRow {
    /// What 0 is stored as: the vector code multiplies unsigned by signed.
    pub(super) const ZERO: u8 = 128;

    /// One integer.
    pub(super) fn get(&self, lane: usize, term: usize) -> i8 {
        (self.0[lane][term] ^ Self::ZERO).cast_signed()
    }
}

/// The rows of one panel after another, all panels in one piece of memory: whoever reads ahead past the end of
/// a panel reads the next.
#[derive(Clone, Debug)]
pub(super) struct Panels<R> {
    rows: Vec<R>,
    /// Rows that each panel has room for; a cache that grows has more than it uses.
    room: usize,
}

impl<R: Copy> Panels<R> {
    fn new() -> Panels<R> {
        Panels { rows: Vec::new(), room: 0 }
    }

    /// The rows of a panel that are in use, of `depth`.
    pub(super) fn panel(&self, panel: usize, depth: usize) -> &[R] {
        &self.rows[panel * self.room..][..depth]
    }

    /// Makes room for so many rows in each of so many panels.
    fn make_room(&mut self, depth: usize, panels: usize, empty: R) {
        if depth > self.room {
            // Not twice as much: half of what texts take of the memory would stand empty.
            let room = depth.max(self.room + self.room.div_ceil(4));
            let mut rows = vec![empty; room * panels];
            if self.room > 0 {
                for (old, new) in self.rows.chunks_exact(self.room).zip(rows.chunks_exact_mut(room)) {
                    new[..old.len()].copy_from_slice(old);
                }
            }
            (self.rows, self.room) = (rows, room);
        }
        self.rows.resize(self.room * panels, empty);
    }

    fn row(&mut self, panel: usize, row: usize) -> &mut R {
        &mut self.rows[panel * self.room + row]
    }

    fn bytes(&self) -> usize {
        size_of_val(self.rows.as_slice())
    }
}

/// The entries, in the narrowest type that holds the format's codes.
#[derive(Clone, Debug)]
pub(super) enum Store {
    /// f32.
    Float(Panels<FloatRow>),
    /// bfloat16.
    Bf16(Panels<Bf16Row>),
    /// Formats of 9 to 16 bits.
    Code16(Format, Panels<CodeRow16>),
    /// Formats of up to 8 bits.
    Code8(Format, Panels<CodeRow8>),
    /// Integers, and what scales each output back.
    Integer(Panels<QuadRow>, Vec<f32>),
    /// What the source had, in its own order.
    Kept(Kept),
    /// Codes of few bits and their scales, in their own order.
    Codes(Codes),
    /// The same of a matrix that grows by a term: each term stands as an output, because its scales are its own.
    Turned(Codes),
    /// A matrix of its own for every rank, of the terms that it has.
    Ranks(Vec<Packed>),
}

/// Are these codes 8-bit integers on both sides, one scale each? Then they are multiplied as such.
pub(super) fn are_integers(recipe: &Recipe) -> bool {
    let is_eight = |quantizer: Quantizer| quantizer.grid == Grid::Integers(8) && !quantizer.zero;
    match (recipe.weights, recipe.product) {
        (Storage::Codes(weights), Product::Scaled(activations)) => {
            is_eight(weights) && is_eight(activations) && recipe.code_sums() == Some(CodeSums::Exact)
        }
        _ => false,
    }
}

/// Whether a matrix grows: one that begins without outputs or without terms does.
#[derive(Clone, Debug)]
enum Growth {
    /// All of it was packed at once.
    None,
    /// By an output at a time, in this walk.
    Columns(Option<Vec<u32>>),
    /// By a term at a time.
    Rows,
}

impl Growth {
    /// Of so many outputs of so many terms to begin with.
    fn of(columns: usize, depth: usize, walk: Option<Vec<u32>>) -> Growth {
        match (depth, columns) {
            (0, _) => Growth::Rows,
            (_, 0) => Growth::Columns(walk),
            _ => Growth::None,
        }
    }
}

/// The right-hand side of the fast kernel's products.
#[derive(Clone, Debug)]
pub struct Packed {
    pub(super) columns: usize,
    pub(super) depth: usize,
    /// How products with it are formed, and in which order their terms are added: what it was packed for.
    recipe: Recipe,
    order: Order,
    /// Do the rows stand in walking order?
    pub(super) walked: bool,
    growth: Growth,
    pub(super) store: Store,
    /// For exact sums, what is known of each output.
    pub(super) bounds: Option<Vec<Bound>>,
    /// What is known of each panel, where it may spare sums a look at their edges.
    pub(super) magnitudes: Option<Vec<Magnitudes>>,
}

impl Packed {
    /// Packs `columns` outputs of `depth` terms. Only one panel is ever held in f32 beside the packed ones.
    pub(super) fn new(
        recipe: Recipe,
        order: Order,
        columns: usize,
        depth: usize,
        source: &mut dyn Source,
    ) -> Packed {
        assert!(
            depth <= recipe.most_terms(),
            "{depth} products of 8-bit integers may overflow a sum of 32 bits"
        );
        if let Storage::Codes(quantizer) = recipe.weights {
            return Packed::of_codes(recipe, quantizer, order, columns, depth, source);
        }
        let kept = if recipe.weights == Storage::Kept { columns } else { 0 };
        let encodings: Vec<_> = (0..kept).map(|column| source.encoding(column)).collect();
        // The format of its own store, unless there are blocks, or values of several formats.
        let format = match blocks::common(&encodings) {
            None if kept == 0 => Some(recipe.weights.format()),
            Some(Encoding::Values(format)) => Some(format),
            Some(Encoding::Blocks(_)) | None => None,
        };
        let walk = order.walk(depth);
        let panels = columns.div_ceil(PANEL);
        let mut packed = Packed {
            columns,
            depth,
            recipe,
            order,
            // How many terms there will be decides how they are walked.
            walked: depth > 0 && format.is_some(),
            growth: Growth::None,
            store: match format {
                Some(format) => Store::new(recipe.product, format, depth, panels),
                None => Store::Kept(Kept::new(&encodings, depth)),
            },
            bounds: (order.rule() == Rule::Exact).then(|| vec![Bound::of(&[]); columns]),
            // Blocks are not looked through for them.
            magnitudes: (format.is_some() && has_edges(&recipe, order)).then(Vec::new),
        };
        if let Store::Kept(kept) = &mut packed.store {
            kept.fill(&encodings, depth, source, packed.bounds.as_deref_mut());
            return packed;
        }
        let mut panel = vec![0.0; PANEL * depth];
        for start in (0..columns).step_by(PANEL) {
            let width = PANEL.min(columns - start);
            for index in 0..width {
                let terms = &mut panel[index * depth..][..depth];
                source.values(start + index, terms);
                recipe.weights.format().round_slice(terms);
                if let Some(bounds) = &mut packed.bounds {
                    bounds[start + index] = Bound::of(terms);
                }
            }
            if let Some(magnitudes) = &mut packed.magnitudes {
                magnitudes.push(Magnitudes::NONE.and(&panel[..width * depth]));
            }
            packed.store.set_panel(start / PANEL, &panel[..width * depth], width, walk.as_deref());
        }
        packed.growth = Growth::of(columns, depth, walk);
        packed
    }

    /// The same for ranks, each of which has a stretch of the terms: of what the whole matrix would hold.
    pub(super) fn shared(
        recipe: Recipe,
        order: Order,
        parallel: Parallel,
        columns: usize,
        depth: usize,
        source: &mut dyn Source,
    ) -> Packed {
        let of_rank = parallel.of_rank(recipe);
        let stretches = parallel.stretches(depth);
        let ranks = if let Storage::Codes(quantizer) = recipe.weights {
            let mut ranks: Vec<(Range<usize>, Packed)> = stretches
                .map(|terms| {
                    let packed = Packed::empty_codes(of_rank, quantizer, order, columns, terms.len());
                    (terms, packed)
                })
                .collect();
            // Scales are those of the whole matrix, whoever has a part of it.
            let group = quantizer.group(depth);
            quantize_outputs(quantizer, columns, depth, source, |output, codes| {
                for (terms, packed) in &mut ranks {
                    packed.set_codes(output, &codes.stretch(terms.clone(), group));
                }
            });
            ranks.into_iter().map(|(_, packed)| packed).collect()
        } else {
            let held = Held::read(source, columns, depth, recipe.weights == Storage::Kept);
            let packed = |terms: Range<usize>| {
                Packed::new(of_rank, order, columns, terms.len(), &mut held.stretch(terms))
            };
            stretches.map(packed).collect()
        };
        let (store, growth) = (Store::Ranks(ranks), Growth::None);
        Packed { columns, depth, recipe, order, walked: false, growth, store, bounds: None, magnitudes: None }
    }

    /// What each rank has of it, if it was packed for several.
    pub(super) fn ranks(&self) -> Option<&[Packed]> {
        if let Store::Ranks(ranks) = &self.store { Some(ranks) } else { None }
    }

    /// Quantizes a panel after the other, or all of the matrix at once where its outputs share scales.
    fn of_codes(
        recipe: Recipe,
        quantizer: Quantizer,
        order: Order,
        columns: usize,
        depth: usize,
        source: &mut dyn Source,
    ) -> Packed {
        let mut packed = Packed::empty_codes(recipe, quantizer, order, columns, depth);
        if depth > 0 || recipe.product != Product::Fused {
            quantize_outputs(quantizer, columns, depth, source, |output, codes| {
                packed.set_codes(output, codes);
            });
        }
        packed
    }

    /// Room for the codes of so many outputs.
    fn empty_codes(
        recipe: Recipe,
        quantizer: Quantizer,
        order: Order,
        columns: usize,
        depth: usize,
    ) -> Packed {
        let valued = recipe.product == Product::Fused;
        let growth = Growth::of(columns, depth, None);
        let grows_by_terms = valued && depth == 0;
        let store = if grows_by_terms {
            Store::Turned(Codes::new(quantizer, valued, 0, columns))
        } else if are_integers(&recipe) {
            let mut rows = Panels::new();
            let panels = columns.div_ceil(PANEL);
            rows.make_room(depth.div_ceil(QUAD), panels, QuadRow([[QuadRow::ZERO; QUAD]; PANEL]));
            Store::Integer(rows, Vec::with_capacity(columns))
        } else {
            Store::Codes(Codes::new(quantizer, valued, columns, depth))
        };
        let is_exact = order.rule() == Rule::Exact && recipe.code_sums() != Some(CodeSums::Groups);
        let bounds = is_exact.then(|| match grows_by_terms {
            true => vec![Bound::of(&[]); columns],
            false => Vec::with_capacity(columns),
        });
        Packed { columns, depth, recipe, order, walked: false, growth, store, bounds, magnitudes: None }
    }

    /// Sets one output after the other.
    fn set_codes(&mut self, output: usize, codes: &Quantized) {
        if let (Some(bounds), Storage::Codes(quantizer)) = (&mut self.bounds, self.recipe.weights) {
            bounds.push(match self.recipe.product {
                Product::Fused => Bound::of(&codes.values(quantizer.group(self.depth)).collect::<Vec<_>>()),
                _ => Bound::of(&codes.codes),
            });
        }
        match &mut self.store {
            Store::Integer(rows, scales) => {
                set_integers(rows, output / PANEL, output % PANEL, &codes.codes);
                scales.push(codes.whole);
            }
            Store::Codes(own) => own.push(codes),
            _ => unreachable!("codes are stored as such"),
        }
    }

    /// Panics unless this is what it was packed for: the terms stand in one order's walk, in one recipe's codes.
    pub(super) fn must_be_for(&self, recipe: &Recipe, order: Order) {
        self.must_walk(order);
        assert!(
            // What a finished sum rounds to is nothing to what is summed.
            self.recipe == Recipe { result: self.recipe.result, ..*recipe },
            "a matrix packed for {:?} is not one for {recipe:?}: pack it at the place where it is multiplied",
            self.recipe
        );
    }

    /// Panics unless its terms stand as this order walks them.
    pub(super) fn must_walk(&self, order: Order) {
        assert!(
            self.order == order,
            "a matrix packed for the order {} is not one for {order}: pack it with the kernel that multiplies",
            self.order
        );
    }

    /// Outputs.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Terms of each output.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Bytes that the entries, scales and bounds take, with the room for more that a cache keeps.
    pub fn bytes(&self) -> usize {
        let entries = match &self.store {
            Store::Float(panels) => panels.bytes(),
            Store::Bf16(panels) => panels.bytes(),
            Store::Code16(_, panels) => panels.bytes(),
            Store::Code8(_, panels) => panels.bytes(),
            Store::Integer(panels, scales) => panels.bytes() + size_of_val(scales.as_slice()),
            Store::Kept(kept) => kept.bytes(),
            Store::Codes(codes) | Store::Turned(codes) => codes.bytes(),
            Store::Ranks(ranks) => ranks.iter().map(Packed::bytes).sum(),
        };
        entries
            + self.bounds.as_deref().map_or(0, size_of_val)
            + self.magnitudes.as_deref().map_or(0, size_of_val)
    }

    /// One output as it is stored, its terms in their own order again. `walk` is that of the matrix's order.
    pub(super) fn column(&self, column: usize, walk: Option<&[u32]>, out: &mut [f32]) {
        assert!(column < self.columns, "output {column} is one of {}", self.columns);
        assert_eq!(out.len(), self.depth, "there is room for every term");
        let (panel, lane) = (column / PANEL, column % PANEL);
        match &self.store {
            Store::Float(panels) => out_of(panels.panel(panel, self.depth), |row| row.0[lane], out),
            Store::Bf16(panels) => out_of(panels.panel(panel, self.depth), |row| row.get(lane), out),
            Store::Code16(format, panels) => {
                out_of(panels.panel(panel, self.depth), |row| format.decode(row.0[lane].into()), out);
            }
            Store::Code8(format, panels) => {
                out_of(panels.panel(panel, self.depth), |row| format.decode(row.0[lane].into()), out);
            }
            Store::Integer(..) => unreachable!("no table and no head is stored as integers"),
            Store::Kept(kept) => kept.column(column, out),
            Store::Codes(_) | Store::Turned(_) => unreachable!("no table and no head is stored as codes"),
            Store::Ranks(_) => unreachable!("no table and no head is cut along its terms"),
        }
        if let Some(walk) = walk.filter(|_| self.walked) {
            let walked = out.to_vec();
            walk.iter().zip(walked).for_each(|(&term, value)| out[term as usize] = value);
        }
    }

    /// Appends one output.
    pub(super) fn push_column(&mut self, terms: &[f32]) {
        assert_eq!(terms.len(), self.depth, "a key is as long as the others");
        let Growth::Columns(walk) = &self.growth else {
            panic!("only a matrix that began without outputs grows by one");
        };
        let mut terms = match walk {
            Some(walk) => walk.iter().map(|&term| terms[term as usize]).collect(),
            None => terms.to_vec(),
        };
        let (panel, lane) = (self.columns / PANEL, self.columns % PANEL);
        if let Store::Codes(codes) = &mut self.store {
            terms = codes.take(&terms);
        } else {
            self.recipe.weights.format().round_slice(&mut terms);
            self.store.make_room(self.depth, panel + 1);
            self.store.set_column(panel, lane, &terms);
        }
        if let Some(bounds) = &mut self.bounds {
            bounds.push(Bound::of(&terms));
        }
        if let Some(magnitudes) = &mut self.magnitudes {
            magnitudes.resize(panel + 1, Magnitudes::NONE);
            magnitudes[panel] = magnitudes[panel].and(&terms);
        }
        self.columns += 1;
    }

    /// Appends one term to every output.
    pub(super) fn push_row(&mut self, terms: &[f32]) {
        assert_eq!(terms.len(), self.columns, "a value is as long as the others");
        assert!(matches!(self.growth, Growth::Rows), "only a matrix that began without terms grows by one");
        let mut terms = terms.to_vec();
        if let Store::Turned(codes) = &mut self.store {
            terms = codes.take(&terms);
        } else {
            self.recipe.weights.format().round_slice(&mut terms);
            self.store.make_room(self.depth + 1, self.columns.div_ceil(PANEL));
            for (panel, terms) in terms.chunks(PANEL).enumerate() {
                self.store.set_row(panel, self.depth, terms);
            }
        }
        for (panel, terms) in terms.chunks(PANEL).enumerate() {
            if let Some(magnitudes) = &mut self.magnitudes {
                magnitudes.resize(magnitudes.len().max(panel + 1), Magnitudes::NONE);
                magnitudes[panel] = magnitudes[panel].and(terms);
            }
        }
        for (bound, term) in self.bounds.iter_mut().flatten().zip(&terms) {
            *bound = bound.and(Bound::of(&[*term]));
        }
        self.depth += 1;
    }
}

/// What is known of the magnitudes of some values, as words: these are ordered as the numbers are, NaN on top.
#[derive(Clone, Copy, Debug)]
pub(super) struct Magnitudes {
    /// The smallest that is not zero, less one.
    before_smallest: u32,
    /// The largest.
    pub(super) largest: u32,
    /// Is any of them zero?
    pub(super) zeros: bool,
}

impl Magnitudes {
    /// Of no values.
    pub(super) const NONE: Magnitudes = Magnitudes { before_smallest: u32::MAX, largest: 0, zeros: false };

    /// Of these values, on the vectors of an instruction set.
    pub(super) fn of(isa: Isa, values: &[f32]) -> Magnitudes {
        isa.dispatch(Scan(values))
    }

    /// Of these values too.
    #[inline(always)]
    pub(super) fn and(self, values: &[f32]) -> Magnitudes {
        values.iter().fold(self, |known, value| {
            let magnitude = value.to_bits() & !SIGN;
            Magnitudes {
                // Zero wraps to the largest word of all.
                before_smallest: known.before_smallest.min(magnitude.wrapping_sub(1)),
                largest: known.largest.max(magnitude),
                zeros: known.zeros | (magnitude == 0),
            }
        })
    }
}

/// Looks at all values.
struct Scan<'a>(&'a [f32]);

impl WithSimd for Scan<'_> {
    type Output = Magnitudes;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Magnitudes {
        Magnitudes::NONE.and(self.0)
    }
}

/// Codes take a key or a value by themselves.
const NEVER_GROWS: &str =
    "what is kept as it was stored does not grow, and codes take what comes by themselves";

impl Store {
    /// Room for so many rows in each of so many panels, all zero.
    fn new(product: Product, format: Format, depth: usize, panels: usize) -> Store {
        let mut store = match product {
            Product::Int8(_) => Store::Integer(Panels::new(), Vec::new()),
            _ if format == Format::BF16 => Store::Bf16(Panels::new()),
            _ => match format.bits() {
                ..=8 => Store::Code8(format, Panels::new()),
                9..=16 => Store::Code16(format, Panels::new()),
                _ => Store::Float(Panels::new()),
            },
        };
        store.make_room(depth, panels);
        store
    }

    /// Makes room for so many terms in each of so many panels.
    fn make_room(&mut self, depth: usize, panels: usize) {
        match self {
            Store::Float(rows) => rows.make_room(depth, panels, FloatRow([0.0; PANEL])),
            Store::Bf16(rows) => rows.make_room(depth, panels, Bf16Row([0; HALF])),
            Store::Code16(_, rows) => rows.make_room(depth, panels, CodeRow16([0; PANEL])),
            Store::Code8(_, rows) => rows.make_room(depth, panels, CodeRow8([0; PANEL])),
            Store::Integer(rows, _) => {
                rows.make_room(depth.div_ceil(QUAD), panels, QuadRow([[QuadRow::ZERO; QUAD]; PANEL]));
            }
            Store::Kept(_) | Store::Codes(_) | Store::Turned(_) | Store::Ranks(_) => {
                unreachable!("{NEVER_GROWS}")
            }
        }
    }

    /// Sets a panel to up to 32 outputs, given one after the other.
    fn set_panel(&mut self, panel: usize, outputs: &[f32], width: usize, walk: Option<&[u32]>) {
        let depth = outputs.len() / width;
        if let Store::Integer(rows, scales) = self {
            for lane in 0..width {
                let terms = &outputs[lane * depth..][..depth];
                let quantized = quantize_int8(terms, f32::INFINITY);
                set_integers(
                    rows,
                    panel,
                    lane,
                    &quantized.codes.into_iter().map(f32::from).collect::<Vec<_>>(),
                );
                scales.push(quantized.scale);
            }
            return;
        }
        let mut terms = [0.0; PANEL];
        for position in 0..depth {
            let term = walk.map_or(position, |walk| walk[position] as usize);
            for (lane, value) in terms[..width].iter_mut().enumerate() {
                *value = outputs[lane * depth + term];
            }
            self.set_row(panel, position, &terms);
        }
    }

    /// Sets one term of up to 32 outputs, already rounded.
    fn set_row(&mut self, panel: usize, row: usize, terms: &[f32]) {
        match self {
            Store::Float(rows) => rows.row(panel, row).0 = lanes(terms, |value| value),
            Store::Bf16(rows) => {
                let row = rows.row(panel, row);
                terms.iter().enumerate().for_each(|(lane, &value)| row.set(lane, value));
            }
            Store::Code16(format, rows) => {
                rows.row(panel, row).0 = lanes(terms, |value| format.encode(value) as u16);
            }
            Store::Code8(format, rows) => {
                rows.row(panel, row).0 = lanes(terms, |value| format.encode(value) as u8);
            }
            Store::Integer(..) => unreachable!("no cache is stored as integers"),
            Store::Kept(_) | Store::Codes(_) | Store::Turned(_) | Store::Ranks(_) => {
                unreachable!("{NEVER_GROWS}")
            }
        }
    }

    /// Sets one output, already rounded.
    fn set_column(&mut self, panel: usize, lane: usize, terms: &[f32]) {
        for (row, &value) in terms.iter().enumerate() {
            match self {
                Store::Float(rows) => rows.row(panel, row).0[lane] = value,
                Store::Bf16(rows) => rows.row(panel, row).set(lane, value),
                Store::Code16(format, rows) => rows.row(panel, row).0[lane] = format.encode(value) as u16,
                Store::Code8(format, rows) => rows.row(panel, row).0[lane] = format.encode(value) as u8,
                Store::Integer(..) => unreachable!("no cache is stored as integers"),
                Store::Kept(_) | Store::Codes(_) | Store::Turned(_) | Store::Ranks(_) => {
                    unreachable!("{NEVER_GROWS}")
                }
            }
        }
    }
}

impl Magnitudes {
    /// A power of two, given by its exponent, that divides all of them if they have so many digits behind the first one;
    /// none where subnormal numbers are among them.
    pub(super) fn grid(self, digits: u32) -> Option<i64> {
        let smallest = self.smallest();
        (smallest >= SMALLEST_NORMAL.into()).then(|| (smallest >> 23).cast_signed() - 127 - i64::from(digits))
    }

    /// Of both.
    pub(super) fn or(self, other: Magnitudes) -> Magnitudes {
        Magnitudes {
            before_smallest: self.before_smallest.min(other.before_smallest),
            largest: self.largest.max(other.largest),
            zeros: self.zeros | other.zeros,
        }
    }

    /// The smallest that is not zero.
    pub(super) fn smallest(self) -> u64 {
        u64::from(self.before_smallest) + 1
    }
}

/// Do products or sums have edges that plain numbers stay away from?
fn has_edges(recipe: &Recipe, order: Order) -> bool {
    match recipe.product {
        Product::LMul(_) => true,
        Product::Fused => order.rule() == Rule::DotBf16,
        Product::Int8(_) | Product::Scaled(_) => false,
    }
}

/// Hands out the codes of one output after the other: of a panel at a time, or of all at once where they share scales.
fn quantize_outputs(
    quantizer: Quantizer,
    columns: usize,
    depth: usize,
    source: &mut dyn Source,
    mut set: impl FnMut(usize, &Quantized),
) {
    let together = if quantizer.looks_across() { columns.max(1) } else { PANEL };
    let mut terms = vec![0.0; together.min(columns) * depth];
    for start in (0..columns).step_by(together) {
        let width = together.min(columns - start);
        let terms = &mut terms[..width * depth];
        for (index, terms) in terms.chunks_exact_mut(depth.max(1)).enumerate() {
            source.values(start + index, terms);
        }
        let outputs: Vec<&[f32]> = (0..width).map(|index| &terms[index * depth..][..depth]).collect();
        for (index, output) in quantizer.quantize(&outputs).iter().enumerate() {
            set(start + index, output);
        }
    }
}

/// Sets an output to whole numbers.
fn set_integers(rows: &mut Panels<QuadRow>, panel: usize, lane: usize, codes: &[f32]) {
    for (term, &code) in codes.iter().enumerate() {
        rows.row(panel, term / QUAD).0[lane][term % QUAD] = (code as i8).cast_unsigned() ^ QuadRow::ZERO;
    }
}

/// What one lane of every row holds.
fn out_of<R>(rows: &[R], get: impl Fn(&R) -> f32, out: &mut [f32]) {
    out.iter_mut().zip(rows).for_each(|(out, row)| *out = get(row));
}

/// A row of 32, zeros behind the last term.
fn lanes<T: Copy + Default>(terms: &[f32], code: impl Fn(f32) -> T) -> [T; PANEL] {
    let mut row = [T::default(); PANEL];
    for (lane, &value) in row.iter_mut().zip(terms) {
        *lane = code(value);
    }
    row
}

/// Rows that are widened to f32; loops, because arrays' own `map` does not become vectors.
pub(super) trait Widen {
    /// The 32 outputs in f32, given the constants of their format.
    fn widen<S: Simd>(&self, simd: S, lanes: Lanes, out: &mut [f32; PANEL]);
}

impl Widen for FloatRow {
    #[inline(always)]
    fn widen<S: Simd>(&self, _: S, _: Lanes, out: &mut [f32; PANEL]) {
        *out = self.0;
    }
}

impl Widen for Bf16Row {
    #[inline(always)]
    fn widen<S: Simd>(&self, simd: S, _: Lanes, out: &mut [f32; PANEL]) {
        // Of a loop the compiler makes gathers, at ten times the time.
        let out = S::as_mut_simd_f32s(out).0;
        for group in 0..groups::<S, 2>() {
            [out[group], out[group + groups::<S, 2>()]] = self.load::<S, 2>(simd, group);
        }
    }
}

impl Widen for CodeRow16 {
    #[inline(always)]
    fn widen<S: Simd>(&self, _: S, lanes: Lanes, out: &mut [f32; PANEL]) {
        for (out, &code) in out.iter_mut().zip(&self.0) {
            *out = lanes.decode(code.into());
        }
    }
}

impl Widen for CodeRow8 {
    #[inline(always)]
    fn widen<S: Simd>(&self, _: S, lanes: Lanes, out: &mut [f32; PANEL]) {
        for (out, &code) in out.iter_mut().zip(&self.0) {
            *out = lanes.decode(code.into());
        }
    }
}
