//! What every bit must be, in plain scalar code: slow, obvious, and what the fast twin is held to.

use std::ops::Range;

use super::{Job, Kernel};
use crate::numerics::{
    Numerics, Reduction,
    exact::Superaccumulator,
    format::Format,
    order::{Adder, Launch, Order, Rule, Schedule},
    precision::{Precision, Product, Recipe, Site, Threshold},
    product::{
        Quantized, outlier_columns, outlier_weight, quantize_int8, quantize_w8a8, rescale_int8, rescale_w8a8,
    },
};

/// The executable definition.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    /// What it computes.
    pub numerics: Numerics,
}

/// A matrix as it is, output after output.
#[derive(Clone, Debug)]
pub struct Plain {
    site: Site,
    depth: usize,
    columns: Vec<Vec<f32>>,
}

impl Kernel for Definition {
    type Weights = Plain;

    fn numerics(&self) -> Numerics {
        self.numerics
    }

    fn pack(
        &self,
        site: Site,
        columns: usize,
        depth: usize,
        fill: &mut dyn FnMut(usize, &mut [f32]),
    ) -> Plain {
        let most = self.numerics.precision.recipe(site).most_terms();
        assert!(depth <= most, "{depth} products of 8-bit integers may overflow a sum of 32 bits");
        let mut plain = Plain { site, depth, columns: vec![vec![0.0; depth]; columns] };
        for (column, terms) in plain.columns.iter_mut().enumerate() {
            fill(column, terms);
            self.round(site, terms);
        }
        plain
    }

    fn push_column(&self, weights: &mut Plain, terms: &[f32]) {
        assert_eq!(terms.len(), weights.depth, "a key is as long as the others");
        let mut terms = terms.to_vec();
        self.round(weights.site, &mut terms);
        weights.columns.push(terms);
    }

    fn push_row(&self, weights: &mut Plain, terms: &[f32]) {
        assert_eq!(terms.len(), weights.columns.len(), "a value is as long as the others");
        let mut terms = terms.to_vec();
        self.round(weights.site, &mut terms);
        for (column, term) in weights.columns.iter_mut().zip(terms) {
            column.push(term);
        }
        weights.depth += 1;
    }

    fn lookup(&self, weights: &Plain, column: usize, out: &mut [f32]) {
        out.copy_from_slice(&weights.columns[column]);
    }

    fn run(&self, site: Site, launch: Launch, jobs: Vec<Job<'_, Plain>>) {
        let recipe = self.numerics.precision.recipe(site);
        let order = self.numerics.order_of(Reduction::Product(site));
        for job in jobs {
            let columns = job.weights.columns.len();
            let depth = job.activations.len().checked_div(job.rows).unwrap_or(0);
            let activations: Vec<f32> =
                job.activations.iter().map(|&value| recipe.activations.round(value)).collect();
            let outliers = match recipe.product {
                Product::Int8(threshold) => outlier_columns(&activations, depth, threshold),
                _ => Vec::new(),
            };
            for row in 0..job.rows {
                let x = &activations[row * depth..][..depth];
                for column in 0..columns {
                    let w = &job.weights.columns[column][..depth];
                    let start = job.start.map_or(0.0, |start| start[column]);
                    let sum = match recipe.product {
                        Product::Int8(threshold) => {
                            int8(&recipe, order, launch, threshold, &outliers, start, x, w)
                        }
                        Product::W8A8 => w8a8(start, x, w),
                        _ => {
                            let schedule = order.schedule(depth, launch);
                            reduce(&recipe, order.rule(), &schedule, start, |term| (x[term], w[term]))
                        }
                    };
                    job.out[row * columns + column] = recipe.result.round(sum);
                }
            }
        }
    }

    fn sum(&self, launch: Launch, terms: &[f32]) -> f32 {
        sum_of_products(self.numerics.order_of(Reduction::Row), launch, terms.len(), |term| {
            (terms[term], 1.0)
        })
    }

    fn sum_of_squares(&self, launch: Launch, terms: &[f32]) -> f32 {
        sum_of_products(self.numerics.order_of(Reduction::Row), launch, terms.len(), |term| {
            (terms[term], terms[term])
        })
    }
}

impl Definition {
    fn round(&self, site: Site, terms: &mut [f32]) {
        let format = self.numerics.precision.recipe(site).weights;
        for term in terms {
            *term = format.round(*term);
        }
    }
}

/// A sum of products in f32.
pub(super) fn sum_of_products(
    order: Order,
    launch: Launch,
    terms: usize,
    pair: impl Fn(usize) -> (f32, f32),
) -> f32 {
    let recipe = Precision::Fp32.recipe(Site::Linear);
    reduce(&recipe, order.rule(), &order.schedule(terms, launch), 0.0, pair)
}

/// One sum of products that begins at `start`; `pair(term)` gives the factors.
pub(super) fn reduce(
    recipe: &Recipe,
    rule: Rule,
    schedule: &Schedule,
    start: f32,
    pair: impl Fn(usize) -> (f32, f32),
) -> f32 {
    if rule == Rule::Exact {
        let mut sum = Superaccumulator::new();
        sum.add(recipe.sum.round(start));
        for (x, w) in (0..schedule.terms).map(pair) {
            match recipe.product {
                Product::LMul(product) => sum.add(product.multiply(x, w)),
                _ => sum.add_product(x, w),
            }
        }
        return recipe.sum.round(sum.round());
    }
    schedule.reduce(&mut Scalar { recipe, rule, schedule, start, pair }, &mut Vec::new())
}

/// Adds `f32`.
struct Scalar<'a, P> {
    recipe: &'a Recipe,
    rule: Rule,
    schedule: &'a Schedule,
    start: f32,
    pair: P,
}

impl<P: Fn(usize) -> (f32, f32)> Scalar<'_, P> {
    fn round(&self, value: f32) -> f32 {
        self.recipe.sum.round(value)
    }

    /// A running sum's step: fused, where the product is a real one.
    fn step(&self, sum: f32, (x, w): (f32, f32)) -> f32 {
        self.round(match self.recipe.product {
            Product::LMul(product) => sum + product.multiply(x, w),
            _ => x.mul_add(w, sum),
        })
    }

    /// A term on its own: compensation needs it as a number.
    fn term(&self, (x, w): (f32, f32)) -> f32 {
        self.round(match self.recipe.product {
            Product::LMul(product) => product.multiply(x, w),
            _ => x * w,
        })
    }
}

impl<P: Fn(usize) -> (f32, f32)> Adder for Scalar<'_, P> {
    type Sum = f32;

    fn run(&mut self, positions: Range<usize>) -> f32 {
        let mut sum = if positions.start == 0 { self.round(self.start) } else { 0.0 };
        let mut lost = 0.0;
        for position in positions {
            let pair = (self.pair)(self.schedule.term(position));
            match self.rule {
                Rule::Plain | Rule::Exact => sum = self.step(sum, pair),
                Rule::Kahan => {
                    let term = self.round(self.term(pair) - lost);
                    let next = self.round(sum + term);
                    lost = self.round(self.round(next - sum) - term);
                    sum = next;
                }
                Rule::Neumaier => {
                    // The exact loss of one addition, without asking which operand is larger.
                    let term = self.term(pair);
                    let next = self.round(sum + term);
                    let added = self.round(next - sum);
                    let lost_sum = self.round(sum - self.round(next - added));
                    let lost_term = self.round(term - added);
                    lost = self.round(lost + self.round(lost_sum + lost_term));
                    sum = next;
                }
            }
        }
        if self.rule == Rule::Neumaier { self.round(sum + lost) } else { sum }
    }

    fn join(&mut self, left: f32, right: f32) -> f32 {
        self.round(left + right)
    }
}

/// The exact integer sum.
fn integer_sum(x: &Quantized, w: &Quantized) -> i32 {
    x.codes.iter().zip(&w.codes).map(|(&x, &w)| i32::from(x) * i32::from(w)).sum()
}

#[expect(clippy::too_many_arguments, reason = "the definition of int8 names all that it depends on")]
fn int8(
    recipe: &Recipe,
    order: Order,
    launch: Launch,
    threshold: Threshold,
    outliers: &[usize],
    start: f32,
    x: &[f32],
    w: &[f32],
) -> f32 {
    let mut row = quantize_int8(x, threshold.value());
    for &column in outliers {
        row.codes[column] = 0;
    }
    let column = quantize_int8(w, f32::INFINITY);
    let inside = rescale_int8(integer_sum(&row, &column), row.scale, column.scale, start);
    if outliers.is_empty() {
        return inside;
    }
    let schedule = order.schedule(outliers.len(), launch);
    let outside = reduce(recipe, order.rule(), &schedule, 0.0, |term| {
        let k = outliers[term];
        (x[k], outlier_weight(column.codes[k], column.scale))
    });
    Format::F16.round(inside) + outside
}

fn w8a8(start: f32, x: &[f32], w: &[f32]) -> f32 {
    let (row, column) = (quantize_w8a8(x), quantize_w8a8(w));
    rescale_w8a8(integer_sum(&row, &column), row.scale, column.scale, start)
}
