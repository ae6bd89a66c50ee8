//! The tree that a kernel really adds by, found from outside with masks (the FPRev method).
//!
//! All terms are one small unit, but for a huge number at `i` and its negative at `j`. Until the two meet, the
//! huge one swallows every unit it is added to; what survives are the units that join after the place where
//! they cancel. So the number of survivors tells how large the smallest subtree is that holds both, and that
//! number for enough pairs gives the tree. Nothing of the kernel is known but its results.

use std::{cmp::Ordering, num::NonZeroUsize};

use super::{
    Reduction,
    format::Format,
    kernel::{At, Job, Kernel, Op},
    order::{Launch, Order, Rule, Shape},
    precision::{Precision, Product, Recipe, Site, Storage},
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
    let (precision, at) = (kernel.numerics().precision, At::alone(site));
    let order = kernel.numerics().order_of(Reduction::Product(at));
    let masks =
        Masks::new(&precision.recipe(at), order, terms).ok_or(RevealError::NoRoom { precision, terms })?;
    let mut probes = Probes { kernel, site, launch, terms, masks };
    if terms == 0 {
        return Ok(Tree::node(Vec::new()));
    }
    Ok(probes.build(&(0..terms).collect::<Vec<_>>())?.canonical())
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
}

impl Masks {
    fn new(recipe: &Recipe, order: Order, terms: usize) -> Option<Masks> {
        // A scale that a mask has leaves nothing of the units beside it.
        if let Storage::Codes(_) = recipe.weights {
            return None;
        }
        // By the bits, since a logarithm rounds up just below a power of two; f64 holds f32's subnormals.
        let exponent = |value: f32| (f64::from(value).to_bits() >> 52) as i32 - 1023;
        let power = |exponent: i32| f64::from_bits(((exponent + 1023) as u64) << 52) as f32;
        // Far from where f32 itself ends; L-Mul knows no subnormal numbers.
        let largest = |format: Format| exponent(format.max_finite()).min(50);
        let smallest = |format: Format| exponent(format.min_normal()).max(-50);
        let digits = |format: Format| format.mantissa_bits() as i32 + 1;
        // What of the mask is kept where both meet: a matrix unit keeps its own number of digits, and what its sums round to is
        // what two of them are added in.
        let kept = match order.rule() {
            Rule::Unit(unit) if order.shape() == Shape::Sequential => {
                digits(unit.sum()).max(unit.digits() as i32 + 1)
            }
            Rule::Unit(unit) => digits(recipe.sum).max(unit.digits() as i32 + 1),
            _ => digits(recipe.sum),
        };
        let (x, w, sum, result) = (recipe.activations, recipe.weights.format(), recipe.sum, recipe.result);
        let mask = (largest(x) + largest(w)).min(exponent(sum.max_finite()) - 1);
        let unit = (smallest(x) + smallest(w))
            .max(exponent(sum.min_subnormal()))
            .max(exponent(result.min_subnormal()));
        // Every number of units is exact on its way and at the end, and all of them, were they twice as large,
        // stay below half of the mask's last digit.
        let bits = (usize::BITS - terms.leading_zeros()) as i32;
        if bits > digits(sum).min(digits(result)).min(kept) || unit + bits + 1 >= mask - kept {
            return None;
        }
        let factors = |total: i32| {
            // Each in the range of its own format, which may be the narrower one.
            let least = smallest(x).max(total - largest(w));
            let first = (total / 2).clamp(least, largest(x).min(total - smallest(w)));
            (power(first), power(total - first))
        };
        let unit = factors(unit);
        let unit_product = match recipe.product {
            Product::Fused => unit.0 * unit.1,
            Product::LMul(product) => product.multiply(unit.0, unit.1),
            // Integers are added exactly, in no order that could show.
            Product::Int8(_) | Product::Scaled(_) => return None,
        };
        Some(Masks { mask: factors(mask), unit, unit_product })
    }
}

struct Probes<'a, K> {
    kernel: &'a K,
    site: Site,
    launch: Launch,
    terms: usize,
    masks: Masks,
}

impl<K: Kernel> Probes<'_, K> {
    /// The tree over these terms, the only ones below some node.
    fn build(&mut self, terms: &[usize]) -> Result<Tree, RevealError> {
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

    /// For each of `others`, how many terms the smallest subtree has that holds it and `i`. As many masks go
    /// into one call as the launch has rows, since that shape may be what decides the order.
    fn sizes_of_common_subtrees(&self, i: usize, others: &[usize]) -> Result<Vec<usize>, RevealError> {
        let Masks { mask, unit, unit_product } = self.masks;
        let rows = NonZeroUsize::new(self.launch.rows).unwrap_or(NonZeroUsize::MIN).get();
        let mut sizes = Vec::with_capacity(others.len());
        for others in others.chunks(rows) {
            // Row r and column r belong together: they mask i and the r-th of the others.
            let place = |row: usize, term: usize| match others.get(row) {
                Some(&j) if term == j => (-mask.0, mask.1),
                Some(_) if term == i => mask,
                _ => unit,
            };
            let mut x = vec![0.0; rows * self.terms];
            for (index, x) in x.iter_mut().enumerate() {
                *x = place(index / self.terms, index % self.terms).0;
            }
            let weights = self.kernel.pack(
                At::alone(self.site),
                others.len(),
                self.terms,
                &mut |column: usize, terms: &mut [f32]| {
                    for (term, w) in terms.iter_mut().enumerate() {
                        *w = place(column, term).1;
                    }
                },
            );
            // No kernel may leave it at that: zero would be the answer of a sum that swallows nothing.
            let mut out = vec![f32::NAN; rows * others.len()];
            let job = Job { activations: &x, rows, weights: &weights, start: None, out: &mut out };
            self.kernel.apply(At::alone(self.site), self.launch, Op::Product(vec![job]));
            for (row, &j) in others.iter().enumerate() {
                let survivors = out[row * others.len() + row] / unit_product;
                if survivors.fract() != 0.0 || !(0.0..self.terms as f32).contains(&survivors) {
                    return Err(RevealError::NoTree { i, j });
                }
                sizes.push(self.terms - survivors as usize);
            }
        }
        Ok(sizes)
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
