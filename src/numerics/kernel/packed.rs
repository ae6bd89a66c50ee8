//! A matrix laid out for the fast kernel: panels of 32 outputs, term after term, in the precision's own type.
//!
//! Weights stand in the order's own walk, so that every order reads its terms one after the other. A cache
//! that grows stands as it came, and is put in walking order when it is read.

use super::integer::DEPTH_LIMIT;
use crate::numerics::{
    Numerics,
    exact::{grid, norm_bound},
    format::{Format, Lanes},
    order::Rule,
    precision::{Product, Recipe, Site},
    product::{quantize_int8, quantize_w8a8},
};

/// Outputs of one panel.
pub(super) const PANEL: usize = 32;
/// A panel's row is two halves of this many outputs; a tile takes one vector of each.
pub(super) const HALF: usize = PANEL / 2;
/// Terms that one step of the integer kernel takes.
pub(super) const QUAD: usize = 4;

/// One term of 32 outputs, in f32.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct FloatRow(pub(super) [f32; PANEL]);

/// One term of 32 outputs in bfloat16: output i in the low half of word i, output i + 16 in the high half, so
/// that a shift and a mask widen them.
#[derive(Clone, Copy, Debug)]
#[repr(align(64))]
pub(super) struct Bf16Row(pub(super) [u32; HALF]);

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

/// The rows of one panel after another.
pub(super) type Panels<R> = Vec<Vec<R>>;

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
}

/// What certifies a sum of products without adding it up exactly.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    /// An upper bound of the Euclidean norm.
    pub(super) norm: f64,
    /// A power of two that divides every value.
    pub(super) grid: f64,
}

impl Bound {
    pub(super) fn of(values: &[f32]) -> Bound {
        Bound { norm: norm_bound(values), grid: grid(values) }
    }

    /// The bound of the joint values.
    pub(super) fn and(self, other: Bound) -> Bound {
        // The norm is rounded up by far more than the sum and the root can lose.
        let norm = (self.norm * self.norm + other.norm * other.norm).sqrt() * (1.0 + 8.0 * f64::EPSILON);
        Bound { norm, grid: self.grid.min(other.grid) }
    }
}

/// The right-hand side of the fast kernel's products.
#[derive(Clone, Debug)]
pub struct Packed {
    pub(super) columns: usize,
    pub(super) depth: usize,
    /// What entries round to.
    format: Format,
    /// Do the rows stand in walking order?
    pub(super) walked: bool,
    pub(super) store: Store,
    /// For exact sums, what is known of each output.
    pub(super) bounds: Option<Vec<Bound>>,
    /// For L-Mul, what is known of each panel.
    pub(super) magnitudes: Option<Vec<Magnitudes>>,
}

impl Packed {
    /// Packs `columns` outputs of `depth` terms, which `fill` writes one output at a time. Only one panel is
    /// ever held in f32 beside the packed ones.
    pub(super) fn new(
        numerics: Numerics,
        site: Site,
        columns: usize,
        depth: usize,
        fill: &mut dyn FnMut(usize, &mut [f32]),
    ) -> Packed {
        let recipe = numerics.precision.recipe(site);
        // A matrix without outputs or terms is a cache about to grow.
        let grows = columns == 0 || depth == 0;
        let walk = numerics.order.walk(depth).filter(|_| !grows);
        let mut packed = Packed {
            columns,
            depth,
            format: recipe.weights,
            walked: !grows,
            store: Store::new(&recipe),
            bounds: (numerics.order.rule() == Rule::Exact).then(|| vec![Bound::of(&[]); columns]),
            magnitudes: matches!(recipe.product, Product::LMul(_)).then(Vec::new),
        };
        let mut panel = vec![0.0; PANEL * depth];
        for start in (0..columns).step_by(PANEL) {
            let width = PANEL.min(columns - start);
            for index in 0..width {
                let terms = &mut panel[index * depth..][..depth];
                fill(start + index, terms);
                recipe.weights.round_slice(terms);
                if let Some(bounds) = &mut packed.bounds {
                    bounds[start + index] = Bound::of(terms);
                }
            }
            if let Some(magnitudes) = &mut packed.magnitudes {
                magnitudes.push(Magnitudes::NONE.and(&panel[..width * depth]));
            }
            packed.store.push_panel(&recipe, &panel[..width * depth], width, walk.as_deref());
        }
        packed
    }

    /// Outputs.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Terms of each output.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// Bytes that the entries, scales and bounds take.
    pub fn bytes(&self) -> usize {
        fn rows<R>(panels: &Panels<R>) -> usize {
            panels.iter().map(|panel| size_of_val(panel.as_slice())).sum()
        }
        let entries = match &self.store {
            Store::Float(panels) => rows(panels),
            Store::Bf16(panels) => rows(panels),
            Store::Code16(_, panels) => rows(panels),
            Store::Code8(_, panels) => rows(panels),
            Store::Integer(panels, scales) => rows(panels) + size_of_val(scales.as_slice()),
        };
        entries
            + self.bounds.as_deref().map_or(0, size_of_val)
            + self.magnitudes.as_deref().map_or(0, size_of_val)
    }

    /// Appends one output.
    pub(super) fn push_column(&mut self, terms: &[f32]) {
        assert_eq!(terms.len(), self.depth, "a key is as long as the others");
        assert!(!self.walked, "only a matrix that began empty grows");
        let mut terms = terms.to_vec();
        self.format.round_slice(&mut terms);
        let (panel, lane) = (self.columns / PANEL, self.columns % PANEL);
        self.store.set_column(panel, lane, &terms);
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
        assert!(!self.walked, "only a matrix that began empty grows");
        let mut terms = terms.to_vec();
        self.format.round_slice(&mut terms);
        for (panel, terms) in terms.chunks(PANEL).enumerate() {
            self.store.push_row(panel, terms);
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
    pub(super) smallest: u32,
    /// The largest.
    pub(super) largest: u32,
    /// Is any of them zero?
    pub(super) zeros: bool,
}

impl Magnitudes {
    /// Of no values.
    pub(super) const NONE: Magnitudes = Magnitudes { smallest: u32::MAX, largest: 0, zeros: false };

    /// Of these values too.
    pub(super) fn and(self, values: &[f32]) -> Magnitudes {
        values.iter().fold(self, |known, value| {
            let magnitude = value.to_bits() & 0x7FFF_FFFF;
            Magnitudes {
                // Zero wraps to the largest word of all.
                smallest: known.smallest.min(magnitude.wrapping_sub(1)),
                largest: known.largest.max(magnitude),
                zeros: known.zeros | (magnitude == 0),
            }
        })
    }
}

impl Store {
    fn new(recipe: &Recipe) -> Store {
        match recipe.product {
            Product::Int8(_) | Product::W8A8 => Store::Integer(Vec::new(), Vec::new()),
            _ if recipe.weights == Format::BF16 => Store::Bf16(Vec::new()),
            _ => match recipe.weights.bits() {
                ..=8 => Store::Code8(recipe.weights, Vec::new()),
                9..=16 => Store::Code16(recipe.weights, Vec::new()),
                _ => Store::Float(Vec::new()),
            },
        }
    }

    /// Appends a panel of up to 32 outputs, given one after the other, with their terms in walking order.
    fn push_panel(&mut self, recipe: &Recipe, outputs: &[f32], width: usize, walk: Option<&[u32]>) {
        let depth = outputs.len() / width;
        if let Store::Integer(panels, scales) = self {
            assert!(depth <= DEPTH_LIMIT, "a sum of {depth} products of 8-bit integers may overflow 32 bits");
            let mut rows = vec![QuadRow([[QuadRow::ZERO; QUAD]; PANEL]); depth.div_ceil(QUAD)];
            for lane in 0..width {
                let terms = &outputs[lane * depth..][..depth];
                let quantized = match recipe.product {
                    Product::Int8(_) => quantize_int8(terms, f32::INFINITY),
                    _ => quantize_w8a8(terms),
                };
                for (term, &code) in quantized.codes.iter().enumerate() {
                    rows[term / QUAD].0[lane][term % QUAD] = code.cast_unsigned() ^ QuadRow::ZERO;
                }
                scales.push(quantized.scale);
            }
            return panels.push(rows);
        }
        let panel = self.push_empty_panel();
        let mut terms = [0.0; PANEL];
        for position in 0..depth {
            let term = walk.map_or(position, |walk| walk[position] as usize);
            for (lane, value) in terms[..width].iter_mut().enumerate() {
                *value = outputs[lane * depth + term];
            }
            self.push_row(panel, &terms);
        }
    }

    /// Appends a panel without terms, and returns its number.
    fn push_empty_panel(&mut self) -> usize {
        fn push<R>(panels: &mut Panels<R>) -> usize {
            panels.push(Vec::new());
            panels.len() - 1
        }
        match self {
            Store::Float(panels) => push(panels),
            Store::Bf16(panels) => push(panels),
            Store::Code16(_, panels) => push(panels),
            Store::Code8(_, panels) => push(panels),
            Store::Integer(panels, _) => push(panels),
        }
    }

    /// Appends one term of up to 32 outputs to a panel.
    fn push_row(&mut self, panel: usize, terms: &[f32]) {
        match self {
            Store::Float(panels) => panels[panel].push(FloatRow(lanes(terms, |value| value))),
            Store::Bf16(panels) => {
                let mut row = Bf16Row([0; HALF]);
                for (lane, &value) in terms.iter().enumerate() {
                    row.set(lane, value);
                }
                panels[panel].push(row);
            }
            Store::Code16(format, panels) => {
                panels[panel].push(CodeRow16(lanes(terms, |value| format.encode(value) as u16)));
            }
            Store::Code8(format, panels) => {
                panels[panel].push(CodeRow8(lanes(terms, |value| format.encode(value) as u8)));
            }
            Store::Integer(..) => unreachable!("no cache is stored as integers"),
        }
    }

    /// Sets one output of a panel, which is a new one if it is the first.
    fn set_column(&mut self, panel: usize, lane: usize, terms: &[f32]) {
        if lane == 0 {
            self.push_empty_panel();
            terms.iter().for_each(|_| self.push_row(panel, &[]));
        }
        for (row, &value) in terms.iter().enumerate() {
            match self {
                Store::Float(panels) => panels[panel][row].0[lane] = value,
                Store::Bf16(panels) => panels[panel][row].set(lane, value),
                Store::Code16(format, panels) => panels[panel][row].0[lane] = format.encode(value) as u16,
                Store::Code8(format, panels) => panels[panel][row].0[lane] = format.encode(value) as u8,
                Store::Integer(..) => unreachable!("no cache is stored as integers"),
            }
        }
    }
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
    fn widen(&self, lanes: Lanes, out: &mut [f32; PANEL]);
}

impl Widen for FloatRow {
    #[inline(always)]
    fn widen(&self, _: Lanes, out: &mut [f32; PANEL]) {
        *out = self.0;
    }
}

impl Widen for Bf16Row {
    #[inline(always)]
    fn widen(&self, _: Lanes, out: &mut [f32; PANEL]) {
        let (low, high) = out.split_at_mut(HALF);
        for ((low, high), word) in low.iter_mut().zip(high).zip(self.0) {
            *low = f32::from_bits(word << 16);
            *high = f32::from_bits(word & 0xFFFF_0000);
        }
    }
}

impl Widen for CodeRow16 {
    #[inline(always)]
    fn widen(&self, lanes: Lanes, out: &mut [f32; PANEL]) {
        for (out, &code) in out.iter_mut().zip(&self.0) {
            *out = lanes.decode(code.into());
        }
    }
}

impl Widen for CodeRow8 {
    #[inline(always)]
    fn widen(&self, lanes: Lanes, out: &mut [f32; PANEL]) {
        for (out, &code) in out.iter_mut().zip(&self.0) {
            *out = lanes.decode(code.into());
        }
    }
}

impl Bf16Row {
    /// Sets one output to a value that is a bfloat16.
    fn set(&mut self, lane: usize, value: f32) {
        let word = &mut self.0[lane % HALF];
        let code = value.to_bits() >> 16;
        *word = if lane < HALF { (*word & 0xFFFF_0000) | code } else { (*word & 0xFFFF) | (code << 16) };
    }
}
