//! What every bit must be, in plain scalar code: slow, obvious, and what the fast twin is held to.

use std::ops::Range;

use super::{At, Attended, End, Job, Kernel, Op, Source, Workers, op::pairs};
use crate::numerics::{
    Numerics, Reduction,
    attention::{Attention, base, times_power, without_power},
    exact, flush,
    format::Format,
    functions::Called,
    order::{Adder, Launch, Order, Rule, Schedule},
    parallel::{Parallel, Reduce, Way},
    precision::{CodeSums, Elementwise, Precision, Product, Recipe, Site, Storage},
    product::{Threshold, outlier_columns, outlier_weight, quantize_int8, rescale_codes, rescale_int8},
    quantizer::{Quantized, Quantizer},
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
    stored: Storage,
    depth: usize,
    /// What each output is worth.
    columns: Vec<Vec<f32>>,
    /// Its codes, where it has some.
    codes: Vec<Quantized>,
}

impl Plain {
    /// What a rank has of it: these terms, quantized as all of them are.
    fn stretch(&self, terms: Range<usize>) -> Plain {
        let codes = |own: &Quantized| match self.stored {
            Storage::Codes(quantizer) => own.stretch(terms.clone(), quantizer.group(self.depth)),
            _ => unreachable!("only codes are stored as codes"),
        };
        Plain { codes: self.codes.iter().map(codes).collect(), ..self.worth(terms.clone()) }
    }

    /// What these terms are worth: a cache is multiplied as that.
    fn worth(&self, terms: Range<usize>) -> Plain {
        let columns = self.columns.iter().map(|column| column[terms.clone()].to_vec());
        Plain { stored: self.stored, depth: terms.len(), columns: columns.collect(), codes: Vec::new() }
    }

    /// What a key or a value is worth once it is kept.
    fn stored(&self, vector: &[f32]) -> Vec<f32> {
        match self.stored {
            Storage::Codes(quantizer) => {
                quantizer.quantize(&[vector]).remove(0).values(quantizer.group(vector.len())).collect()
            }
            stored => vector.iter().map(|&term| stored.format().round(term)).collect(),
        }
    }
}

static ALONE: Workers = Workers::alone();

impl Kernel for Definition {
    type Weights = Plain;

    fn numerics(&self) -> Numerics {
        self.numerics
    }

    fn workers(&self) -> &Workers {
        &ALONE
    }

    fn pack(&self, at: At, columns: usize, depth: usize, source: &mut dyn Source) -> Plain {
        let recipe = self.numerics.recipe(at);
        let most = recipe.most_terms();
        assert!(depth <= most, "{depth} products of 8-bit integers may overflow a sum of 32 bits");
        let (stored, codes) = (recipe.weights, Vec::new());
        let mut plain = Plain { stored, depth, columns: vec![vec![0.0; depth]; columns], codes };
        for (column, terms) in plain.columns.iter_mut().enumerate() {
            source.values(column, terms);
            terms.iter_mut().for_each(|term| *term = stored.format().round(*term));
        }
        if let Storage::Codes(quantizer) = stored {
            plain.codes = quantizer.quantize(&plain.columns.iter().map(Vec::as_slice).collect::<Vec<_>>());
            for (column, codes) in plain.columns.iter_mut().zip(&plain.codes) {
                *column = codes.values(quantizer.group(depth)).collect();
            }
        }
        plain
    }

    fn push(&self, weights: &mut Plain, end: End<'_>) {
        match end {
            End::Column(terms) => {
                assert_eq!(terms.len(), weights.depth, "a key is as long as the others");
                weights.columns.push(weights.stored(terms));
            }
            End::Row(terms) => {
                assert_eq!(terms.len(), weights.columns.len(), "a value is as long as the others");
                let terms = weights.stored(terms);
                weights.columns.iter_mut().zip(terms).for_each(|(column, term)| column.push(term));
                weights.depth += 1;
            }
        }
    }

    fn apply(&self, at: At, launch: Launch, op: Op<'_, Plain>) {
        op.check();
        let precision = self.numerics.precision();
        let Elementwise { product: lmul, result: format } = precision.elementwise(at);
        let order = self.numerics.order_of(Reduction::Row);
        // A product of two values, on its own and as a term of a sum.
        let times = |x: f32, y: f32| lmul.map_or(x * y, |lmul| lmul.times(x, y));
        let square = |x: f32| lmul.map_or((x, x), |lmul| (lmul.times(x, x), 1.0));
        let functions = self.numerics.functions();
        match op {
            Op::Product(jobs) => {
                let recipe = self.numerics.recipe(at);
                let order = self.numerics.order_of(Reduction::Product(at));
                jobs.into_iter().for_each(|job| match self.numerics.ranks(at) {
                    None => product(&recipe, order, launch, job),
                    Some(parallel) => shared(&recipe, order, launch, parallel, job),
                });
            }
            Op::Lookup { table, columns, out } => {
                let terms: Vec<f32> =
                    columns.iter().flat_map(|&column| &table.columns[column as usize]).copied().collect();
                out.copy_from_slice(&terms);
            }
            Op::Norm { rows, weight, epsilon, out } => {
                let width = weight.len().max(1);
                for (row, out) in rows.chunks_exact(width).zip(out.chunks_exact_mut(width)) {
                    let squares = sum_of_products(order, launch, width, |term| square(row[term]));
                    let scale = functions.of(Called::Rsqrt, squares / width as f32 + epsilon);
                    for ((out, x), weight) in out.iter_mut().zip(row).zip(weight) {
                        *out = format.round(times(*weight, format.round(times(*x, scale))));
                    }
                }
            }
            Op::Softmax { scores, width, seen, scale } => {
                for (row, seen) in scores.chunks_exact_mut(width.max(1)).zip(seen) {
                    self.softmax(precision.elementwise(at), launch, &mut row[..seen.end], seen.start, scale);
                }
            }
            Op::Attend { rows, scale } => {
                rows.into_iter().for_each(|own| self.attend(at, launch, own, scale));
            }
            Op::Rotate { values, heads, turns } => {
                let half = pairs(turns);
                for (token, turn) in values.chunks_exact_mut((2 * half * heads).max(1)).zip(turns) {
                    let turn = turn.by(functions);
                    for head in token.chunks_exact_mut(2 * half) {
                        let (first, second) = head.split_at_mut(half);
                        for (((first, second), cos), sin) in
                            first.iter_mut().zip(second).zip(&turn.cos).zip(&turn.sin)
                        {
                            let (x, y) = (*first, *second);
                            *first = format.round(times(x, *cos) - times(y, *sin));
                            *second = format.round(times(y, *cos) + times(x, *sin));
                        }
                    }
                }
            }
            Op::Gate { activation, gate_up, width, out } => {
                let width = width.max(1);
                for (row, out) in gate_up.chunks_exact(2 * width).zip(out.chunks_exact_mut(width)) {
                    let (gate, up) = row.split_at(width);
                    for ((out, &gate), up) in out.iter_mut().zip(gate).zip(up) {
                        *out = format.round(times(format.round(activation.apply(functions, gate)), *up));
                    }
                }
            }
            Op::Add { stream, update } => {
                for (value, update) in stream.iter_mut().zip(update) {
                    *value = format.round(*value + update);
                }
            }
        }
    }
}

impl Definition {
    /// The softmax of a row; the keys before the first that is seen have a probability of 0.
    fn softmax(&self, by: Elementwise, launch: Launch, terms: &mut [f32], first: usize, scale: f32) {
        let (order, functions) = (self.numerics.order_of(Reduction::Row), self.numerics.functions());
        let format = by.result;
        let times = |x: f32, y: f32| by.product.map_or(x * y, |lmul| lmul.times(x, y));
        terms[..first].fill(0.0);
        terms[first..].iter_mut().for_each(|score| *score = format.round(times(scale, *score)));
        let width = terms.len();
        if self.numerics.attention() == Attention::TwoPass {
            let (left, powers): (Vec<_>, Vec<_>) = terms[first..].iter().copied().map(without_power).unzip();
            let largest = powers.iter().fold(f32::NEG_INFINITY, |largest: f32, power| largest.max(*power));
            for (term, left) in terms[first..].iter_mut().zip(left) {
                *term = functions.of(Called::Exp, left);
            }
            let term = |term: usize| match term.checked_sub(first) {
                Some(seen) => times_power(terms[term], powers[seen] - largest),
                None => 0.0,
            };
            let reciprocal = 1.0 / sum_of_products(order, launch, width, |at| (term(at), 1.0));
            for (term, power) in terms[first..].iter_mut().zip(&powers) {
                *term = format.round(times_power(times(*term, reciprocal), power - largest));
            }
            return;
        }
        let largest = terms[first..].iter().fold(f32::NEG_INFINITY, |largest, score| largest.max(*score));
        terms[first..].iter_mut().for_each(|score| *score = functions.of(Called::Exp, *score - largest));
        let sum = sum_of_products(order, launch, width, |term| (terms[term], 1.0));
        terms[first..].iter_mut().for_each(|term| *term = format.round(*term / sum));
    }

    /// What rows of scores make of the values.
    fn attend(&self, at: At, launch: Launch, attended: Attended<'_, Plain>, scale: f32) {
        let by = self.numerics.precision().elementwise(at.weighing());
        let recipe = self.numerics.recipe(at);
        let order = self.numerics.order_of(Reduction::Product(at));
        let parts = self.numerics.attention().parts(&attended.seen, launch);
        let width = attended.values.columns.len();
        let rows: Vec<Vec<f32>> = attended.seen_rows().map(<[f32]>::to_vec).collect();
        let Attended { seen, values, out, .. } = attended;
        for (mut row, out) in rows.into_iter().zip(out.chunks_exact_mut(width.max(1))) {
            let Some(parts) = &parts else {
                self.softmax(by, launch, &mut row, seen.start, scale);
                let job = Job { activations: &row, rows: 1, weights: values, start: None, out };
                product(&recipe, order, launch, job);
                continue;
            };
            let times = |x: f32, y: f32| by.product.map_or(x * y, |lmul| lmul.times(x, y));
            row.iter_mut().for_each(|score| *score = by.result.round(times(scale, *score)));
            let part = |blocks: &Vec<Range<usize>>| {
                let mut largest = f32::NEG_INFINITY;
                let block = |keys: &Range<usize>| {
                    let hidden = seen.start.saturating_sub(keys.start);
                    let mut weights = row[keys.clone()].to_vec();
                    largest = weights[hidden..].iter().fold(largest, |largest, score| largest.max(*score));
                    weights[..hidden].fill(0.0);
                    weights[hidden..].iter_mut().for_each(|weight| *weight = self.fade(*weight, largest));
                    let order_of_row = self.numerics.order_of(Reduction::Row);
                    let sum = sum_of_products(order_of_row, launch, keys.len(), |term| (weights[term], 1.0));
                    let (values, mut context) = (values.worth(keys.clone()), vec![0.0; width]);
                    let out = &mut context;
                    let job = Job { activations: &weights, rows: 1, weights: &values, start: None, out };
                    // What is not brought together yet is not rounded yet.
                    product(&Recipe { result: Format::F32, ..recipe }, order, launch, job);
                    Stretch { largest, sum, context }
                };
                let joined = blocks.iter().map(block).reduce(|before, block| {
                    // Its weights are already those of the largest score as far as its end.
                    let (largest, fade) = (block.largest, self.fade(before.largest, block.largest));
                    before.join(largest, block, |before, own| times(before, fade) + own)
                });
                joined.expect("a part has a block")
            };
            let joined = parts.iter().map(part).reduce(|before, part| {
                let largest = before.largest.max(part.largest);
                let [fade, own_fade] = [before.largest, part.largest].map(|own| self.fade(own, largest));
                before.join(largest, part, |before, own| times(before, fade) + times(own, own_fade))
            });
            let Stretch { sum, context, .. } = joined.expect("a row sees a key");
            for (out, context) in out.iter_mut().zip(context) {
                *out = recipe.result.round(context / sum);
            }
        }
    }

    /// What a score weighs where this is the largest one; what all is multiplied by whose largest one it was.
    fn fade(&self, score: f32, largest: f32) -> f32 {
        self.numerics.functions().of(Called::Exp, score - base(largest))
    }
}

/// What is known of a row over a stretch of keys.
struct Stretch {
    largest: f32,
    sum: f32,
    context: Vec<f32>,
}

impl Stretch {
    /// Both together, each number of the one and of the other as `add` has it.
    fn join(self, largest: f32, other: Stretch, add: impl Fn(f32, f32) -> f32) -> Stretch {
        let context = self.context.into_iter().zip(other.context).map(|(before, own)| add(before, own));
        Stretch { largest, sum: add(self.sum, other.sum), context: context.collect() }
    }
}

/// Rows of activations times a matrix.
fn product(recipe: &Recipe, order: Order, launch: Launch, job: Job<'_, Plain>) {
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
        let codes = match recipe.product {
            Product::Scaled(quantizer) => quantizer.quantize(&[x]).pop(),
            _ => None,
        };
        for column in 0..columns {
            let w = &job.weights.columns[column][..depth];
            let start = job.start.map_or(0.0, |start| start[column]);
            let sum = match recipe.product {
                Product::Int8(threshold) => int8(recipe, order, launch, threshold, &outliers, start, x, w),
                Product::Scaled(_) => {
                    let x = codes.as_ref().expect("a row of activations has its codes");
                    scaled(recipe, order, launch, start, x, &job.weights.codes[column])
                }
                _ => {
                    let schedule = order.schedule(depth, launch);
                    reduce(recipe, order.rule(), &schedule, start, |term| (x[term], w[term]))
                }
            };
            job.out[row * columns + column] = recipe.result.round(sum);
        }
    }
}

/// The same by ranks, each of which has a stretch of the terms: its own product, which rounds to what is sent. The sum of the
/// first begins where the whole one would. What comes together is rounded to the result.
fn shared(recipe: &Recipe, order: Order, launch: Launch, parallel: Parallel, job: Job<'_, Plain>) {
    let Job { activations, rows, weights, start, out } = job;
    let (columns, depth) = (weights.columns.len(), weights.depth);
    let parts = parallel.stretches(depth).enumerate().map(|(rank, terms)| {
        let activations: Vec<f32> =
            activations.chunks(depth.max(1)).flat_map(|row| &row[terms.clone()]).copied().collect();
        let (weights, start) = (weights.stretch(terms), start.filter(|_| rank == 0));
        let mut out = vec![0.0; rows * columns];
        let job = Job { activations: &activations, rows, weights: &weights, start, out: &mut out };
        product(&parallel.of_rank(*recipe), order, launch, job);
        out
    });
    let parts: Vec<Vec<f32>> = parts.collect();
    for (index, out) in out.iter_mut().enumerate() {
        let parts: Vec<f32> = parts.iter().map(|part| part[index]).collect();
        *out = recipe.result.round(reduce_parts(parallel.reduce(), index % columns, columns, &parts));
    }
}

/// The sum of what every rank has of an output.
fn reduce_parts(Reduce { way, sent }: Reduce, output: usize, outputs: usize, parts: &[f32]) -> f32 {
    match way {
        Way::Tree if parts.len() == 1 => parts[0],
        Way::Tree => {
            let (first, second) = parts.split_at(parts.len() / 2);
            let half = |parts| reduce_parts(Reduce { way, sent }, output, outputs, parts);
            sent.round(half(first) + half(second))
        }
        // The sum is sent on after every addition.
        Way::Ring => {
            let first = Reduce::first(output, outputs, parts.len());
            let others = (first + 1..first + parts.len()).map(|rank| parts[rank % parts.len()]);
            others.fold(parts[first], |sum, part| sent.round(sum + part))
        }
        // The sum is nobody's but the one's who adds.
        Way::OneShot => sent.round(parts[1..].iter().fold(parts[0], |sum, part| sum + part)),
    }
}

/// A sum of products in f32.
fn sum_of_products(order: Order, launch: Launch, terms: usize, pair: impl Fn(usize) -> (f32, f32)) -> f32 {
    let recipe = Precision::Fp32.recipe(At::alone(Site::Linear));
    reduce(&recipe, order.rule(), &order.schedule(terms, launch), 0.0, pair)
}

/// One sum of products that begins at `start`; `pair(term)` gives the factors.
fn reduce(
    recipe: &Recipe,
    rule: Rule,
    schedule: &Schedule,
    start: f32,
    pair: impl Fn(usize) -> (f32, f32),
) -> f32 {
    if rule == Rule::Exact {
        let lmul = match recipe.product {
            Product::LMul(product) => Some(product),
            _ => None,
        };
        let sum = exact::sum(lmul, recipe.sum.round(start), (0..schedule.terms).map(pair));
        return recipe.sum.round(sum);
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

    /// The same without subnormal numbers, as VDPBF16PS takes it.
    fn step_of_dot(&self, sum: f32, (x, w): (f32, f32)) -> f32 {
        self.round(match self.recipe.product {
            Product::LMul(product) => flush::flush(sum + product.multiply(x, w)),
            _ => flush::fused(x, w, sum),
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
        if let Rule::Unit(unit) = self.rule {
            let start = if positions.start == 0 { self.start } else { 0.0 };
            let pair = |term: usize| (self.pair)(self.schedule.term(positions.start + term));
            return unit.run(start, positions.len(), pair);
        }
        let mut sum = if positions.start == 0 { self.round(self.start) } else { 0.0 };
        if self.rule == Rule::DotBf16 {
            sum = flush::flush(sum);
        }
        let mut lost = 0.0;
        for position in positions {
            let pair = (self.pair)(self.schedule.term(position));
            match self.rule {
                Rule::Plain | Rule::Exact => sum = self.step(sum, pair),
                Rule::DotBf16 => sum = self.step_of_dot(sum, pair),
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
                Rule::Mma(_) | Rule::Unit(_) => unreachable!("a matrix unit adds more than one at once"),
            }
        }
        if self.rule == Rule::Neumaier { self.round(sum + lost) } else { sum }
    }

    fn join(&mut self, left: f32, right: f32) -> f32 {
        self.round(left + right)
    }
}

/// The exact integer sum.
fn integer_sum(x: &[i8], w: &[i8]) -> i32 {
    x.iter().zip(w).map(|(&x, &w)| i32::from(x) * i32::from(w)).sum()
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
    let inside = rescale_int8(integer_sum(&row.codes, &column.codes), row.scale, column.scale, start);
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

/// Sums of products of codes, scaled back.
fn scaled(recipe: &Recipe, order: Order, launch: Launch, start: f32, x: &Quantized, w: &Quantized) -> f32 {
    let (Storage::Codes(weights), Product::Scaled(activations)) = (recipe.weights, recipe.product) else {
        unreachable!("codes meet codes");
    };
    let terms = x.codes.len();
    let exact = |terms: Range<usize>| -> f64 {
        // Within 53 bits, so that no addition rounds.
        let product = |term: usize| f64::from(x.codes[term]) * f64::from(w.codes[term]);
        terms.fold(0.0, |sum, term| sum + product(term))
    };
    let sum = match recipe.code_sums().expect("codes meet codes") {
        CodeSums::Exact => exact(0..terms),
        CodeSums::InOrder => {
            let recipe = Recipe { product: Product::Fused, ..*recipe };
            let schedule = order.schedule(terms, launch);
            reduce(&recipe, order.rule(), &schedule, 0.0, |term| (x.codes[term], w.codes[term])).into()
        }
        CodeSums::Groups => {
            let groups = [activations, weights].map(|quantizer: Quantizer| quantizer.group(terms));
            let group = groups[0].min(groups[1]);
            let sum_of_group = |index: usize| {
                let first = index * group;
                let scale = f64::from(x.scales[first / groups[0]]) * f64::from(w.scales[first / groups[1]]);
                (exact(first..terms.min(first + group)) * scale) as f32
            };
            sum_of_products(order, launch, terms.div_ceil(group), |index| (sum_of_group(index), 1.0)).into()
        }
    };
    rescale_codes(sum, x.whole, w.whole, start)
}
