//! The tree that a kernel really adds by, found from outside with masks (the FPRev method).
//!
//! All terms are one small unit, but for a huge number at `i` and its negative at `j`. Until the two meet, the
//! huge one swallows every unit it is added to; what survives are the units that join after the place where
//! they cancel. So the number of survivors tells how large the smallest subtree is that holds both, and that
//! number for enough pairs gives the tree. Nothing of the kernel is known but its results.
//!
//! Where codes of both sides meet, a huge number changes what shares its scale. So it is found first which terms
//! share both scales: one of them is huge where the other factor is 0, and what is left of another tells. Then the
//! terms of each group are masked within what their codes reach, and of each group one, the others being 0, by its scale.
//! A group whose codes leave no room for masks looks flat: its sum is exact.

use std::{cmp::Ordering, num::NonZeroUsize};

use super::{
    Numerics, Reduction,
    format::Format,
    kernel::{At, Job, Kernel, Op},
    order::{Launch, Order, Rule, Shape},
    precision::{CodeSums, Precision, Product, Recipe, Site, Storage},
    quantizer::{Grid, Quantizer, Scale, Span},
    tree::Tree,
};

/// Why no tree comes out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RevealError {
    /// The formats leave no room between what is swallowed and what is counted.
    #[error("masks do not fit {terms} terms of {precision}: probe fewer terms or a wider precision")]
    NoRoom {
        /// The precision.
        precision: Precision,
        /// The terms.
        terms: usize,
    },
    /// The answers contradict each other.
    #[error(
        "the answers to the masks at terms {i} and {j} belong to no tree: the sum is not a fixed tree of additions"
    )]
    NoTree {
        /// A term.
        i: usize,
        /// Another.
        j: usize,
    },
}

/// The tree by which `kernel` adds so many terms in a call of this shape, in canonical form.
///
/// # Errors
///
/// When the precision leaves no room for masks, or the answers fit no tree.
pub fn reveal<K: Kernel>(kernel: &K, site: Site, launch: Launch, terms: usize) -> Result<Tree, RevealError> {
    let precision = kernel.numerics().precision;
    let order = kernel.numerics().order_of(Reduction::Product(At::alone(site)));
    let probe = Probe { kernel, site, launch, terms, recipe: precision.recipe(At::alone(site)) };
    let tree = match (probe.recipe.code_sums(), probe.recipe.weights, probe.recipe.product) {
        // What masks of codes leave of a matrix unit's digits was not worked out.
        (Some(_), ..) if order.is_of_unit() => Err(None),
        (Some(sums), Storage::Codes(weights), Product::Scaled(activations)) => {
            probe.tree_of_codes(sums, activations, weights)
        }
        _ => match Masks::new(&probe.recipe, order, terms) {
            None => Err(None),
            Some(masks) => probe.tree(masks, &(0..terms).collect::<Vec<_>>()).map_err(Some),
        },
    };
    tree.map(Tree::canonical).map_err(|error| error.unwrap_or(RevealError::NoRoom { precision, terms }))
}

impl Numerics {
    /// The tree by which products of so many terms are added at a place: what is added exactly is one node.
    pub fn tree(self, at: At, launch: Launch, terms: usize) -> Tree {
        self.over_exact_sums(at, terms, |order, sums| order.tree(sums, launch))
    }

    /// What masks see of it, in canonical form.
    pub fn tree_seen_by_masks(self, at: At, launch: Launch, terms: usize) -> Tree {
        self.over_exact_sums(at, terms, |order, sums| order.tree_seen_by_masks(sums, launch)).canonical()
    }

    fn over_exact_sums(self, at: At, terms: usize, tree: impl Fn(Order, usize) -> Tree) -> Tree {
        let exact = self.recipe(at).exact_terms(terms);
        let order = self.order_of(Reduction::Product(at));
        tree(order, terms.div_ceil(exact)).grown(&|sum| {
            let leaves = sum * exact..terms.min((sum + 1) * exact);
            Tree::node(leaves.map(Tree::Leaf).collect())
        })
    }
}

impl Order {
    /// What masks see of this order. Compensation keeps what a mask would swallow: Neumaier's sum looks as flat
    /// as the exact one, while Kahan's forgets its correction when the masks cancel.
    pub fn tree_seen_by_masks(self, terms: usize, launch: Launch) -> Tree {
        match self.rule() {
            Rule::Neumaier => Order::EXACT.tree(terms, launch),
            _ => self.tree(terms, launch),
        }
        .canonical()
    }
}

/// Factors whose products are the mask and the unit.
#[derive(Clone, Copy, Debug)]
struct Masks {
    mask: (f32, f32),
    unit: (f32, f32),
    /// The product of the unit's factors, as the precision forms it.
    unit_product: f32,
    /// How far from a whole number a count of them may be: a scale that is no power of two costs a little.
    slack: f32,
}

/// The bits of a number of terms.
fn bits(terms: usize) -> i32 {
    (usize::BITS - terms.leading_zeros()) as i32
}

/// The exponent of the power of two that is not larger: by the bits, since a logarithm rounds up just below one; f64 holds f32's
/// subnormals.
fn exponent(value: f32) -> i32 {
    (f64::from(value).to_bits() >> 52) as i32 - 1023
}

fn power(exponent: i32) -> f32 {
    f64::from_bits(((exponent + 1023) as u64) << 52) as f32
}

fn digits(format: Format) -> i32 {
    format.mantissa_bits() as i32 + 1
}

/// How many digits of a mask are kept where it meets another: a matrix unit keeps its own number of them, and what its sums round to
/// is what two of them are added in.
fn kept(recipe: &Recipe, order: Order) -> i32 {
    match order.rule() {
        Rule::Unit(unit) if order.shape() == Shape::Sequential => {
            digits(unit.sum()).max(unit.digits() as i32 + 1)
        }
        Rule::Unit(unit) => digits(recipe.sum).max(unit.digits() as i32 + 1),
        _ => digits(recipe.sum),
    }
}

/// As many digits as a number has.
fn digits_of(value: f32) -> i32 {
    digits(Format::F32) - (value.to_bits() | 1 << f32::MANTISSA_DIGITS).trailing_zeros().min(23) as i32
}

/// The value under which a scale is 1, or the largest one beside the 1 of the whole.
fn full(quantizer: Quantizer) -> f32 {
    quantizer.reach() * if quantizer.scale == Scale::Nested { Format::E4M3.max_finite() } else { 1.0 }
}

/// Where counts of codes' products are taken for whole numbers.
const SLACK: f32 = 0.125;

impl Masks {
    fn new(recipe: &Recipe, order: Order, terms: usize) -> Option<Masks> {
        // Far from where f32 itself ends; L-Mul knows no subnormal numbers.
        let ends =
            |format: Format| (exponent(format.min_normal()).max(-50), exponent(format.max_finite()).min(50));
        let (sum, result) = (recipe.sum, recipe.result);
        // A scale that a mask has leaves nothing of the units beside it: so all weights are alike where they are codes, and worth what
        // they are.
        let code = match recipe.weights {
            Storage::Codes(Quantizer { grid: Grid::Twice { .. }, .. }) => return None,
            // Nor was it worked out what a narrower sum keeps of a count of codes.
            Storage::Codes(_) if sum != Format::F32 => return None,
            Storage::Codes(quantizer) => Some(full(quantizer)),
            _ => None,
        };
        let ends_of_code = |code| (exponent(code), exponent(code));
        let of_weights = code.map_or_else(|| ends(recipe.weights.format()), ends_of_code);
        let ((smallest_x, largest_x), (smallest_w, largest_w)) = (ends(recipe.activations), of_weights);
        let kept = kept(recipe, order);
        let mask = (largest_x + largest_w).min(exponent(sum.max_finite()) - 1);
        let unit = (smallest_x + smallest_w)
            .max(exponent(sum.min_subnormal()))
            .max(exponent(result.min_subnormal()));
        // Every number of units is exact on its way and at the end, and all of them, were they twice as large,
        // stay below half of the mask's last digit.
        // So many more digits has a count of what is worth a code; none, where that is a power of two.
        let own = code.map_or(0, |code| if digits_of(code) > 1 { digits_of(code) } else { 0 });
        let bits = bits(terms);
        if bits + own > digits(sum).min(kept).min(digits(result)) || unit + bits + 1 >= mask - kept {
            return None;
        }
        let factors = |total: i32| {
            // Each in the range of its own format, which may be the narrower one.
            let least = smallest_x.max(total - largest_w);
            let first = (total / 2).clamp(least, largest_x.min(total - smallest_w));
            (power(first), code.unwrap_or_else(|| power(total - first)))
        };
        let unit = factors(unit);
        let unit_product = match recipe.product {
            Product::Fused => unit.0 * unit.1,
            Product::LMul(product) => product.multiply(unit.0, unit.1),
            // Integers are added exactly, in no order that could show.
            Product::Int8(_) | Product::Scaled(_) => return None,
        };
        Some(Masks {
            mask: factors(mask),
            unit,
            unit_product,
            slack: if code.is_some() { SLACK } else { 0.0 },
        })
    }

    /// Those within what codes under one scale reach, for so many terms of it.
    fn of_codes(recipe: &Recipe, sides: [Quantizer; 2], terms: usize) -> Option<Masks> {
        let unit = |own: Quantizer| own.grid.unit() * (full(own) / own.reach());
        let (mask, unit) = (sides.map(full), sides.map(unit));
        let (sum, result, bits) = (recipe.sum, recipe.result, bits(terms));
        let (largest, smallest) = (exponent(mask[0] * mask[1]), exponent(unit[0] * unit[1]));
        let fits = bits <= digits(sum).min(digits(result))
            && smallest + bits + 1 < largest - digits(sum)
            && largest < exponent(sum.max_finite())
            && smallest >= exponent(sum.min_subnormal()).max(exponent(result.min_subnormal()))
            && recipe.activations.round(mask[0]) == mask[0];
        let [mask, unit] = [mask, unit].map(|[x, w]| (x, w));
        fits.then_some(Masks { mask, unit, unit_product: unit.0 * unit.1, slack: SLACK })
    }

    /// Those by the scales of groups, for one term of each of so many.
    fn of_groups(recipe: &Recipe, spreads: [i32; 2], groups: usize) -> Option<Masks> {
        let needed = digits(recipe.sum) + bits(groups) + 1;
        let x = spreads[0].min(needed);
        let w = spreads[1].min(needed - x);
        let fits = x + w == needed && bits(groups) <= digits(recipe.result);
        fits.then_some(Masks {
            mask: (power(x), power(w)),
            unit: (1.0, 1.0),
            unit_product: 1.0,
            slack: SLACK,
        })
    }
}

/// How many powers of two may lie between a mask and a unit in groups of their own.
fn spread(quantizer: Quantizer, format: Format) -> i32 {
    let of_scale = match quantizer.scale {
        Scale::F32 | Scale::PowerBelow | Scale::PowerAbove => 60,
        // It is chosen by what it loses, and a mask has nothing to lose.
        Scale::Fitted => 0,
        // Where the smaller scale keeps its digits: 448 times 2^-15 is an e4m3.
        Scale::F16 => 14,
        Scale::Nested => 15,
    };
    of_scale.min(exponent(format.max_finite()))
}

/// Something that products are asked.
struct Probe<'a, K> {
    kernel: &'a K,
    site: Site,
    launch: Launch,
    terms: usize,
    recipe: Recipe,
}

impl<K: Kernel> Probe<'_, K> {
    /// The tree over these terms where all others are 0.
    fn tree(&self, masks: Masks, among: &[usize]) -> Result<Tree, RevealError> {
        Masked { probe: self, masks, among }.build(among)
    }

    /// The same of all terms where codes meet codes; without an error of its own where there is no room.
    fn tree_of_codes(
        &self,
        sums: CodeSums,
        activations: Quantizer,
        weights: Quantizer,
    ) -> Result<Tree, Option<RevealError>> {
        let sides = [activations, weights];
        let formats = [self.recipe.activations, Format::F32];
        let spreads = [0, 1].map(|side| spread(sides[side], formats[side]));
        // What shares a scale with a mask is to be seen, so the mask has to reach beyond the grid. With a zero the negative of a
        // mask is not as far from it. Odd numbers have no 0, and what is rounded twice has no largest value that stays what it is.
        // Limits that were measured say nothing of scales.
        let beyond = |(own, spread): (Quantizer, i32)| exponent(own.reach() / own.grid.unit()) + 2 <= spread;
        let odd = |own: Quantizer| matches!(own.grid, Grid::Odd(_));
        if activations.zero
            || sides.into_iter().any(odd)
            || sides.iter().any(|own| matches!(own.grid, Grid::Twice { .. }))
            || matches!(activations.span, Span::Measured(_))
            || !sides.into_iter().zip(spreads).all(beyond)
        {
            return Err(None);
        }
        let groups = self.groups(spreads)?;
        let flat = |group: &[usize]| Tree::node(group.iter().copied().map(Tree::Leaf).collect());
        let tree_of = |group: &Vec<usize>| match Masks::of_codes(&self.recipe, sides, group.len()) {
            Some(masks) => Ok(self.tree(masks, group)?),
            None if sums == CodeSums::InOrder && group.len() > 1 => Err(None),
            None => Ok(flat(group)),
        };
        let mut trees = groups.iter().map(tree_of).collect::<Result<Vec<_>, _>>()?;
        if trees.len() < 2 {
            return Ok(trees.pop().unwrap_or_else(|| flat(&[])));
        }
        // A scale that several groups share cannot tell them apart.
        let own = [0, 1].map(|side| {
            let finest = sides.map(|side| side.group(self.terms)).into_iter().min();
            if Some(sides[side].group(self.terms)) == finest { spreads[side] } else { 0 }
        });
        let masks = Masks::of_groups(&self.recipe, own, groups.len()).ok_or(None)?;
        let firsts: Vec<usize> = groups.iter().map(|group| group[0]).collect();
        let outer = self.tree(masks, &firsts)?;
        let tree =
            |first: usize| firsts.iter().position(|own| *own == first).map(|group| trees[group].clone());
        Ok(outer.grown(&|first| tree(first).unwrap_or(Tree::Leaf(first))))
    }

    /// The terms that share the scales of both sides, group by group.
    fn groups(&self, spreads: [i32; 2]) -> Result<Vec<Vec<usize>>, RevealError> {
        let mut groups: Vec<Vec<usize>> = Vec::new();
        let mut left: Vec<usize> = (0..self.terms).collect();
        while let Some((&first, others)) = left.split_first() {
            let mut shares = vec![true; others.len()];
            for (side, spread) in spreads.into_iter().enumerate() {
                let huge = if side == 0 { (power(spread), 0.0) } else { (0.0, power(spread)) };
                let place = |other: usize, term: usize| match term {
                    _ if term == first => huge,
                    _ if term == other => (1.0, 1.0),
                    _ => (0.0, 0.0),
                };
                let found = self.ask(others, place);
                shares
                    .iter_mut()
                    .zip(found)
                    .for_each(|(shares, found)| *shares &= (found - 1.0).abs() > SLACK);
            }
            let (mut group, mut apart) = (vec![first], Vec::new());
            for (&term, shares) in others.iter().zip(shares) {
                if shares { group.push(term) } else { apart.push(term) }
            }
            groups.push(group);
            left = apart;
        }
        Ok(groups)
    }

    /// The sums of as many probes as there are others; `place` gives the factors of a term where one of these is asked about. As many
    /// probes go into one call as the launch has rows, since that shape may be what decides the order.
    fn ask(&self, others: &[usize], place: impl Fn(usize, usize) -> (f32, f32)) -> Vec<f32> {
        let at = At::alone(self.site);
        let rows = NonZeroUsize::new(self.launch.rows).unwrap_or(NonZeroUsize::MIN).get();
        // A probe must not change another's scales.
        let alone = matches!(self.recipe.weights, Storage::Codes(weights) if weights.looks_across());
        let mut sums = Vec::with_capacity(others.len());
        for others in others.chunks(if alone { 1 } else { rows }) {
            // Row r and column r belong together: they are the r-th probe. Rows beyond are like the last.
            let probe = |row: usize| others[row.min(others.len() - 1)];
            let mut x = vec![0.0; rows * self.terms];
            for (index, x) in x.iter_mut().enumerate() {
                *x = place(probe(index / self.terms), index % self.terms).0;
            }
            let weights =
                self.kernel.pack(at, others.len(), self.terms, &mut |column: usize, terms: &mut [f32]| {
                    for (term, w) in terms.iter_mut().enumerate() {
                        *w = place(probe(column), term).1;
                    }
                });
            // No kernel may leave it at that: zero would be the answer of a sum that swallows nothing.
            let mut out = vec![f32::NAN; rows * others.len()];
            let job = Job { activations: &x, rows, weights: &weights, start: None, out: &mut out };
            self.kernel.apply(at, self.launch, Op::Product(vec![job]));
            sums.extend((0..others.len()).map(|probe| out[probe * others.len() + probe]));
        }
        sums
    }
}

/// Terms, of which two at a time are masked.
struct Masked<'a, K> {
    probe: &'a Probe<'a, K>,
    masks: Masks,
    /// Those that are not 0.
    among: &'a [usize],
}

impl<K: Kernel> Masked<'_, K> {
    /// The tree over these terms, the only ones below some node.
    fn build(&self, terms: &[usize]) -> Result<Tree, RevealError> {
        let Some((&first, others)) = terms.split_first() else { return Ok(Tree::node(Vec::new())) };
        let mut sizes: Vec<_> =
            others.iter().copied().zip(self.sizes_of_common_subtrees(first, others)?).collect();
        sizes.sort_by_key(|&(term, size)| (size, term));
        let (mut tree, mut leaves) = (Tree::Leaf(first), 1);
        // Up from the first term: at each size, those that join there.
        for level in sizes.chunk_by(|a, b| a.1 == b.1) {
            let mut joining: Vec<usize> = level.iter().map(|&(term, _)| term).collect();
            let (size, last) = (level[0].1, *joining.last().expect("a chunk is not empty"));
            leaves += joining.len();
            // Where nothing is ever swallowed, any two terms look as if they met first: an exact sum of all.
            if leaves != size && size != 2 {
                return Err(RevealError::NoTree { i: first, j: last });
            }
            let mut children = vec![tree];
            // Usually they are one subtree; where all are added at once they are several.
            while let Some((&one, rest)) = joining.split_first() {
                let below = self.sizes_of_common_subtrees(one, rest)?;
                let (mut child, mut apart) = (vec![one], Vec::new());
                for (&term, common) in rest.iter().zip(below) {
                    match common.cmp(&size) {
                        Ordering::Less => child.push(term),
                        Ordering::Equal => apart.push(term),
                        Ordering::Greater => return Err(RevealError::NoTree { i: one, j: term }),
                    }
                }
                children.push(self.build(&child)?);
                joining = apart;
            }
            tree = Tree::node(children);
        }
        Ok(tree)
    }

    /// For each of `others`, how many terms the smallest subtree has that holds it and `i`.
    fn sizes_of_common_subtrees(&self, i: usize, others: &[usize]) -> Result<Vec<usize>, RevealError> {
        let Masks { mask, unit, unit_product, slack } = self.masks;
        let place = |j: usize, term: usize| match term {
            _ if term == j => (-mask.0, mask.1),
            _ if term == i => mask,
            _ if self.among.binary_search(&term).is_ok() => unit,
            _ => (0.0, 0.0),
        };
        let size = |(&j, sum): (&usize, f32)| {
            let survivors = sum / unit_product;
            let whole = survivors.round();
            let is_count =
                (survivors - whole).abs() <= slack && (0.0..self.among.len() as f32).contains(&whole);
            if is_count { Ok(self.among.len() - whole as usize) } else { Err(RevealError::NoTree { i, j }) }
        };
        others.iter().zip(self.probe.ask(others, place)).map(size).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerics::precision::PRECISIONS;

    #[test]
    fn masks_and_units_are_numbers_of_the_formats_that_they_pass_through() {
        let formats: Vec<Format> = PRECISIONS
            .iter()
            .map(|entry| entry.example.recipe(At::alone(Site::Linear)).weights.format())
            .collect();
        let mut fitting = 0;
        for (&activations, &weights) in formats.iter().flat_map(|x| formats.iter().map(move |w| (x, w))) {
            let weights = Storage::Values(weights);
            let recipe = Recipe { activations, weights, ..Precision::Fp32.recipe(At::alone(Site::Linear)) };
            let Some(Masks { mask, unit, .. }) = Masks::new(&recipe, Order::SEQUENTIAL, 41) else { continue };
            for (x, w) in [mask, unit] {
                let kept = (activations.round(x), weights.format().round(w));
                assert_eq!(kept, (x, w), "{activations:?} times {weights:?}");
            }
            fitting += 1;
        }
        assert!(fitting > formats.len(), "only {fitting} pairs had room for masks");
    }
}
