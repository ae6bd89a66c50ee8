//! A job made ready for the fast kernel: its rows packed once, its panels computed in any number of shares.

use std::{borrow::Cow, ops::Range};

use super::{
    Isa, Job, Packed,
    certified::ExactRows,
    float::FloatRows,
    integer::IntegerRows,
    packed::{Magnitudes, are_integers},
    pairs::{self, PairRows},
    scaled::{GroupRows, Rescaled, quantized},
    schedules::Schedules,
    task::{Activations, Out, Task},
    units::UnitRows,
};
use crate::numerics::{
    format::Format,
    order::{Launch, Order, Rule},
    precision::{CodeSums, Product, Recipe},
    product::{LMul, Variant},
};

/// Everything that a share of a job's panels is computed from.
pub(super) struct Prepared<'a> {
    task: Task<'a>,
    rows: Rows<'a>,
    /// What is left to do with the sums, where these are of codes in the order's way.
    rescaled: Option<Rescaled<'a>>,
}

/// The activations, as the product takes them.
enum Rows<'a> {
    Float(FloatRows<'a>),
    Pairs(PairRows),
    Exact(ExactRows<'a>),
    Integer(IntegerRows),
    Groups(GroupRows),
    Units(UnitRows<'a>),
}

impl<'a> Prepared<'a> {
    /// Packs the activations, which meet the matrix from its term `first` on; what is left of the job are the rows of its output.
    pub(super) fn new(
        isa: Isa,
        recipe: Recipe,
        order: Order,
        launch: Launch,
        schedules: &Schedules,
        first: usize,
        job: Job<'a, Packed>,
    ) -> (Self, Vec<&'a mut [f32]>) {
        let Job { activations, rows, weights, start, out } = job;
        let depth = activations.len().checked_div(rows).unwrap_or(0);
        let columns = weights.columns;
        assert_eq!(activations.len(), rows * depth, "every row of activations has the same length");
        assert_eq!(out.len(), rows * columns, "there is room for every result");
        assert!(first + depth <= weights.depth, "the activations are no longer than the matrix is deep");
        assert!(
            !weights.walked || depth == weights.depth,
            "weights are met from their first term to their last"
        );
        assert!(start.is_none_or(|start| start.len() == columns), "there is a start for every output");
        weights.must_be_for(&recipe, order);
        let out = if columns == 0 { Vec::new() } else { out.chunks_exact_mut(columns).collect() };

        let groups = match (recipe.product, recipe.code_sums()) {
            (Product::Scaled(quantizer), Some(CodeSums::Groups)) => {
                GroupRows::groups(depth, quantizer, &recipe)
            }
            _ => depth,
        };
        let schedule = schedules.of(order, groups, launch);
        let mut values = Cow::Borrowed(activations);
        if recipe.activations != Format::F32 {
            recipe.activations.round_slice(values.to_mut());
        }
        let mut activations = Activations { values, rows, depth, terms: schedule.walk.as_deref() };
        let (mut recipe, mut start, mut rescaled) = (recipe, start, None);
        if let (Product::Scaled(quantizer), Some(CodeSums::InOrder)) = (recipe.product, recipe.code_sums()) {
            let quantized = quantized(isa, quantizer, &activations);
            let rows = quantized.iter().map(|row| row.whole).collect();
            rescaled = Some(Rescaled { rows, start: start.take(), result: recipe.result });
            let codes: Vec<f32> = quantized.into_iter().flat_map(|row| row.codes).collect();
            activations.values = codes.into();
            // What is left is a product of numbers.
            recipe = Recipe { product: Product::Fused, result: Format::F32, ..recipe };
        }
        let rule = match order.rule() {
            Rule::DotBf16 if is_never_tiny(isa, &recipe, &activations.values, weights, start) => Rule::Plain,
            rule => rule,
        };
        let tallest = tallest_tile(isa, &recipe, rule, schedule.has_trees());
        let packed = match recipe.product {
            Product::Scaled(quantizer) if !are_integers(&recipe) => {
                Rows::Groups(GroupRows::new(isa, quantizer, &recipe, &activations))
            }
            Product::Int8(_) | Product::Scaled(_) => {
                Rows::Integer(IntegerRows::new(isa, recipe.product, &activations, tallest, |terms| {
                    schedules.of(order, terms, launch)
                }))
            }
            Product::Fused | Product::LMul(_) if rule == Rule::Exact => {
                Rows::Exact(ExactRows::new(activations, tallest))
            }
            Product::Fused | Product::LMul(_)
                if rule == Rule::DotBf16 && schedule.steps.len() == 1 && pairs::does(isa, &recipe) =>
            {
                Rows::Pairs(PairRows::new(&activations))
            }
            Product::Fused | Product::LMul(_) if let Rule::Unit(unit) = rule => {
                Rows::Units(UnitRows::new(unit, activations))
            }
            Product::Fused | Product::LMul(_) => Rows::Float(FloatRows::new(activations, tallest)),
        };
        let task = Task { isa, recipe, rule, rows, depth, first, weights, schedule, start };
        (Prepared { task, rows: packed, rescaled }, out)
    }

    /// Computes these panels; `out` holds their outputs, row by row.
    pub(super) fn panels(&self, panels: Range<usize>, rows: Vec<&mut [f32]>) {
        let mut out = Out::new(panels.start, rows);
        match &self.rows {
            Rows::Float(rows) if rows.multiply_kept(&self.task, panels.clone(), &mut out) => {}
            Rows::Float(rows) => rows.multiply(&self.task, panels.clone(), &mut out),
            Rows::Pairs(rows) => rows.multiply(&self.task, panels.clone(), &mut out),
            Rows::Exact(rows) => rows.multiply(&self.task, panels.clone(), &mut out),
            Rows::Integer(rows) => rows.multiply(&self.task, panels.clone(), &mut out),
            Rows::Groups(rows) => rows.multiply(&self.task, panels.clone(), &mut out),
            Rows::Units(rows) => rows.multiply(&self.task, panels.clone(), &mut out),
        }
        if let Some(rescaled) = &self.rescaled {
            rescaled.apply(&self.task, panels, &mut out);
        }
    }
}

/// Is no sum of these products a subnormal number, nor so close to it that flushing it would show? Then a sum by the rule
/// of VDPBF16PS is a plain one over the same walk.
///
/// So it is where the smallest normal number divides the starts and all products: it divides their sums too, however
/// they round, and what it divides is zero or not less.
fn is_never_tiny(isa: Isa, recipe: &Recipe, x: &[f32], weights: &Packed, start: Option<&[f32]>) -> bool {
    const LEAST: i64 = -126;
    let (Product::Fused, Some(known)) = (recipe.product, &weights.magnitudes) else { return false };
    let digits = |format: Format| format.mantissa_bits();
    let x = Magnitudes::of(isa, x).grid(digits(recipe.activations));
    let w =
        known.iter().fold(Magnitudes::NONE, |all, one| all.or(*one)).grid(digits(recipe.weights.format()));
    let start = Magnitudes::of(isa, start.unwrap_or_default()).grid(digits(Format::F32));
    let products = x.zip(w).map(|(x, w)| x + w);
    products.zip(start).is_some_and(|(products, start)| products.min(start) >= LEAST)
}

/// How many rows a tile takes at most: what its sums leave of the registers decides, and whether it pays to load the
/// weights once for several rows. Where a step takes ten instructions it does not.
fn tallest_tile(isa: Isa, recipe: &Recipe, rule: Rule, trees: bool) -> usize {
    let one_sum_each = matches!(rule, Rule::Plain | Rule::Exact) && !trees;
    let long_step = match recipe.product {
        Product::LMul(LMul { variant: Variant::Formula, .. }) => rule != Rule::Exact,
        Product::Fused if recipe.sum == Format::F32 => false,
        Product::Fused | Product::LMul(_) => !one_sum_each,
        Product::Int8(_) | Product::Scaled(_) => false,
    };
    match one_sum_each && isa.has_many_registers() {
        _ if long_step => 1,
        true => 8,
        false => 4,
    }
}
