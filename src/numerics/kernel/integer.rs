//! Products of 8-bit integers: exact sums, four terms a step, scaled back; order is no matter here, speed is.

use std::{ops::Range, sync::Arc};

use pulp::{Simd, WithSimd};

use super::{
    float::{PanelRows, Piece, SINGLE},
    isa::Isa,
    packed::{QUAD, QuadRow, Store},
    panel::{FloatRow, PANEL},
    scaled::quantized,
    task::{Activations, Block, Out, Task},
};
use crate::numerics::{
    exact,
    format::Format,
    order::{Rule, Schedule},
    precision::Product,
    product::{
        Integers, Threshold, outlier_columns, outlier_weight, quantize_int8, rescale_codes, rescale_int8,
    },
    quantizer::Quantized,
};

/// Rows that one step takes together.
const ROWS: usize = 8;

/// The activations as integers.
pub(super) struct IntegerRows {
    blocks: Vec<Quads<ROWS>>,
    /// A single row goes alone.
    single: Option<Quads<1>>,
    scales: Vec<f32>,
    outliers: Option<Outliers>,
}

/// Rows of integers, four terms after four terms; missing rows and terms are zero.
struct Quads<const R: usize> {
    x: Vec<[[i8; QUAD]; R]>,
    sums: [i32; R],
}

/// What LLM.int8() keeps in 16 bit.
struct Outliers {
    /// Their columns, in walking order.
    columns: Vec<usize>,
    schedule: Arc<Schedule>,
    blocks: Vec<Block<'static>>,
}

impl IntegerRows {
    pub(super) fn new(
        isa: Isa,
        product: Product,
        activations: &Activations<'_, '_>,
        tallest: usize,
        schedule: impl Fn(usize) -> Arc<Schedule>,
    ) -> IntegerRows {
        let columns = match product {
            Product::Int8(threshold) => outlier_columns(&activations.values, activations.depth, threshold),
            _ => Vec::new(),
        };
        let mut rows: Vec<Integers> = match product {
            Product::Scaled(quantizer) => {
                let integers = |row: Quantized| Integers {
                    codes: row.codes.into_iter().map(|code| code as i8).collect(),
                    scale: row.whole,
                };
                quantized(isa, quantizer, activations).into_iter().map(integers).collect()
            }
            Product::Int8(threshold) => {
                let quantize = |row| isa.dispatch(Quantize { threshold, values: activations.row(row) });
                (0..activations.rows).map(quantize).collect()
            }
            Product::Fused | Product::LMul(_) => unreachable!("these are not products of integers"),
        };
        for row in &mut rows {
            columns.iter().for_each(|&column| row.codes[column] = 0);
        }
        let outliers = (!columns.is_empty()).then(|| {
            let schedule = schedule(columns.len());
            let columns: Vec<usize> =
                (0..columns.len()).map(|position| columns[schedule.term(position)]).collect();
            let rows = 0..activations.rows;
            let values: Vec<f32> =
                rows.flat_map(|row| columns.iter().map(move |&k| activations.row(row)[k])).collect();
            let gathered = Activations {
                values: values.into(),
                rows: activations.rows,
                depth: columns.len(),
                terms: None,
            };
            Outliers { blocks: Block::all(gathered, tallest), columns, schedule }
        });
        let single = match rows.as_slice() {
            [row] => Some(Quads::new(std::slice::from_ref(row))),
            _ => None,
        };
        IntegerRows {
            blocks: if single.is_some() { Vec::new() } else { rows.chunks(ROWS).map(Quads::new).collect() },
            single,
            scales: rows.iter().map(|row| row.scale).collect(),
            outliers,
        }
    }

    pub(super) fn multiply(&self, task: &Task<'_>, panels: Range<usize>, out: &mut Out<'_>) {
        let Store::Integer(stored, scales) = &task.weights.store else {
            unreachable!("a matrix for integer products is packed as integers");
        };
        for panel in panels {
            let weights = stored.panel(panel, task.depth.div_ceil(QUAD));
            let columns = &scales[panel * PANEL..];
            let columns = &columns[..columns.len().min(PANEL)];
            let outliers = self.outliers.as_ref().map(|outliers| outliers.multiply(task, weights, columns));
            let side =
                Side { task, panel, columns, outliers: outliers.as_deref(), begin: task.begin(panel).0 };
            if let Some(single) = &self.single {
                side.put(0, &self.scales, single.sums(task.isa, weights), out);
            }
            for (block, rows) in self.blocks.iter().zip(self.scales.chunks(ROWS)).enumerate() {
                side.put(block * ROWS, rows.1, rows.0.sums(task.isa, weights), out);
            }
        }
    }
}

/// Everything that scales a panel's integer sums back.
struct Side<'a> {
    task: &'a Task<'a>,
    panel: usize,
    columns: &'a [f32],
    outliers: Option<&'a [[f32; PANEL]]>,
    begin: [f32; PANEL],
}

impl Side<'_> {
    /// Scales the sums of the rows from `first` back and writes them.
    fn put<const R: usize>(&self, first: usize, rows: &[f32], sums: [[i32; PANEL]; R], out: &mut Out<'_>) {
        let mut values = [[0.0; PANEL]; R];
        let values = &mut values[..rows.len()];
        let int8 = matches!(self.task.recipe.product, Product::Int8(_));
        let (columns, begin) = (self.columns, &self.begin);
        self.task.isa.dispatch(Rescale { int8, sums: &sums, rows, columns, begin, values });
        if let Some(outliers) = self.outliers {
            self.task.round(Format::F16, values);
            for (values, outliers) in values.iter_mut().zip(&outliers[first..]) {
                for (value, outlier) in values.iter_mut().zip(outliers) {
                    *value += outlier;
                }
            }
        }
        self.task.round(self.task.recipe.result, values);
        for (row, values) in values.iter().enumerate() {
            out.put(first + row, self.panel, values);
        }
    }
}

impl Outliers {
    /// The 16-bit part of every row's sums for one panel.
    fn multiply(&self, task: &Task<'_>, panel: &[QuadRow], scales: &[f32]) -> Vec<[f32; PANEL]> {
        let weights = |&column: &usize| {
            let mut row = FloatRow([0.0; PANEL]);
            for (lane, (weight, &scale)) in row.0.iter_mut().zip(scales).enumerate() {
                *weight = outlier_weight(panel[column / QUAD].get(lane, column % QUAD), scale);
            }
            row
        };
        let weights: Vec<FloatRow> = self.columns.iter().map(weights).collect();
        let mut sums = vec![[0.0; PANEL]; task.rows];
        for block in &self.blocks {
            if task.rule == Rule::Exact {
                for row in 0..block.rows {
                    for (lane, sum) in sums[block.first + row].iter_mut().enumerate() {
                        *sum = exact::dot(block.row(row).zip(weights.iter().map(|w| w.0[lane])));
                    }
                }
            } else {
                let piece = Piece {
                    task,
                    block,
                    rows: PanelRows::Float([&weights; SINGLE]),
                    begin: &[FloatRow([0.0; PANEL]); SINGLE],
                    words: None,
                    result: Format::F32,
                };
                piece.fused(&self.schedule, |slot, row, values| {
                    if slot == 0 {
                        sums[block.first + row] = *values;
                    }
                });
            }
        }
        sums
    }
}

impl<const R: usize> Quads<R> {
    fn new(rows: &[Integers]) -> Quads<R> {
        let depth = rows.first().map_or(0, |row| row.codes.len());
        let (mut x, mut sums) = (vec![[[0; QUAD]; R]; depth.div_ceil(QUAD)], [0; R]);
        for (index, row) in rows.iter().enumerate() {
            for (x, codes) in x.iter_mut().zip(row.codes.chunks(QUAD)) {
                x[index][..codes.len()].copy_from_slice(codes);
            }
            sums[index] = row.codes.iter().map(|&code| i32::from(code)).sum();
        }
        Quads { x, sums }
    }

    /// The sums of the rows with a panel.
    fn sums(&self, isa: Isa, panel: &[QuadRow]) -> [[i32; PANEL]; R] {
        #[cfg(target_arch = "x86_64")]
        if isa == Isa::Avx512 && std::arch::is_x86_feature_detected!("avx512vnni") {
            let mut sums = vnni::sums(&self.x, panel);
            for (sums, &row) in sums.iter_mut().zip(&self.sums) {
                for sum in sums {
                    // Wrapping, as the instruction's own sums: only the end result is sure to fit.
                    *sum = sum.wrapping_sub(row.wrapping_mul(i32::from(QuadRow::ZERO)));
                }
            }
            return sums;
        }
        isa.dispatch(Widening { x: &self.x, panel })
    }
}

/// A row as integers.
struct Quantize<'a> {
    threshold: Threshold,
    values: &'a [f32],
}

impl WithSimd for Quantize<'_> {
    type Output = Integers;

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Integers {
        quantize_int8(self.values, self.threshold.value())
    }
}

/// Scales integer sums back.
struct Rescale<'a> {
    int8: bool,
    sums: &'a [[i32; PANEL]],
    rows: &'a [f32],
    columns: &'a [f32],
    begin: &'a [f32; PANEL],
    values: &'a mut [[f32; PANEL]],
}

impl WithSimd for Rescale<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) {
        for ((values, sums), &row) in self.values.iter_mut().zip(self.sums).zip(self.rows) {
            let outputs = values.iter_mut().zip(sums).zip(self.columns).zip(self.begin);
            if self.int8 {
                outputs.for_each(|(((value, &sum), &column), &begin)| {
                    *value = rescale_int8(sum, row, column, begin)
                });
            } else {
                outputs.for_each(|(((value, &sum), &column), &begin)| {
                    *value = rescale_codes(sum.into(), row, column, begin)
                });
            }
        }
    }
}

/// The portable form: widened, multiplied and added in i32.
struct Widening<'a, const R: usize> {
    x: &'a [[[i8; QUAD]; R]],
    panel: &'a [QuadRow],
}

impl<const R: usize> WithSimd for Widening<'_, R> {
    type Output = [[i32; PANEL]; R];

    #[inline(always)]
    fn with_simd<S: Simd>(self, _: S) -> Self::Output {
        let mut sums = [[0; PANEL]; R];
        for (x, w) in self.x.iter().zip(self.panel) {
            for (sums, x) in sums.iter_mut().zip(x) {
                for (sum, w) in sums.iter_mut().zip(&w.0) {
                    for term in 0..QUAD {
                        *sum += i32::from(x[term]) * (i32::from(w[term]) - i32::from(QuadRow::ZERO));
                    }
                }
            }
        }
        sums
    }
}

#[cfg(target_arch = "x86_64")]
mod vnni {
    #![allow(
        unsafe_code,
        reason = "the library of vectors has no instruction for products of 8-bit integers"
    )]

    use std::arch::x86_64::{
        __m512i, _mm512_dpbusd_epi32, _mm512_loadu_si512, _mm512_set1_epi32, _mm512_setzero_si512,
        _mm512_storeu_si512,
    };

    use super::{PANEL, QUAD, QuadRow};

    /// Half a row of outputs, 16 sums of 32 bits.
    const LANES: usize = PANEL / 2;

    /// The sums as the panel stores its integers, with [`QuadRow::ZERO`] in every weight.
    pub(super) fn sums<const R: usize>(x: &[[[i8; QUAD]; R]], panel: &[QuadRow]) -> [[i32; PANEL]; R] {
        // SAFETY: the caller has seen that the machine has the instructions.
        unsafe { sums_vnni(x, panel) }
    }

    #[target_feature(enable = "avx512f,avx512vnni")]
    fn sums_vnni<const R: usize>(x: &[[[i8; QUAD]; R]], panel: &[QuadRow]) -> [[i32; PANEL]; R] {
        let mut sums = [[_mm512_setzero_si512(); 2]; R];
        for (x, w) in x.iter().zip(panel) {
            let w = [load(&w.0[..LANES]), load(&w.0[LANES..])];
            for (sums, &x) in sums.iter_mut().zip(x) {
                let x = _mm512_set1_epi32(i32::from_le_bytes(x.map(i8::cast_unsigned)));
                sums[0] = _mm512_dpbusd_epi32(sums[0], w[0], x);
                sums[1] = _mm512_dpbusd_epi32(sums[1], w[1], x);
            }
        }
        let mut out = [[0; PANEL]; R];
        for (out, sums) in out.iter_mut().zip(sums) {
            store(&mut out[..LANES], sums[0]);
            store(&mut out[LANES..], sums[1]);
        }
        out
    }

    #[target_feature(enable = "avx512f")]
    fn load(terms: &[[u8; QUAD]]) -> __m512i {
        assert_eq!(size_of_val(terms), size_of::<__m512i>());
        // SAFETY: the slice is as long as the vector, and the load asks for no alignment.
        unsafe { _mm512_loadu_si512(terms.as_ptr().cast()) }
    }

    #[target_feature(enable = "avx512f")]
    fn store(out: &mut [i32], sums: __m512i) {
        assert_eq!(size_of_val(out), size_of::<__m512i>());
        // SAFETY: the slice is as long as the vector, and the store asks for no alignment.
        unsafe { _mm512_storeu_si512(out.as_mut_ptr().cast(), sums) }
    }
}
