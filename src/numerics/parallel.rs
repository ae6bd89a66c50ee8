//! Tensor parallelism: products that ranks share along their terms, and the collective that adds what each of them gives.
//!
//! A product whose inputs lie apart on several devices, as heads of attention and gated channels do, is one product a rank, over
//! its own stretch of the terms and with the named order inside. Each rank's result is a partial sum; they are added in a tree
//! that the collective decides, and in a format that is sent between ranks. Every other product is shared by its outputs, which
//! moves no bit.

use std::{fmt, num::NonZeroUsize, ops::Range, str::FromStr};

use super::{
    format::Format,
    precision::{Product, Recipe, Storage},
    quantizer::Span,
};
use crate::name::{did_you_mean, named, nearest};

/// How many ranks share a model, and how their partial sums come together.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Parallel {
    ranks: NonZeroUsize,
    reduce: Reduce,
}

impl Parallel {
    /// One rank, which has nothing to add.
    pub const NONE: Parallel = Parallel { ranks: NonZeroUsize::MIN, reduce: Reduce::USUAL };

    /// So many ranks that reduce so. One rank alone does not reduce: one value stands for all.
    pub fn new(ranks: NonZeroUsize, reduce: Reduce) -> Parallel {
        Parallel { ranks, reduce: if ranks.get() == 1 { Reduce::USUAL } else { reduce } }
    }

    /// How many.
    pub fn ranks(self) -> NonZeroUsize {
        self.ranks
    }

    /// How their partial sums come together.
    pub fn reduce(self) -> Reduce {
        self.reduce
    }

    /// What their partial sums come together in, with names that stand for one sum as one: two ranks add the same two parts,
    /// whichever comes first.
    pub fn sum(self) -> Reduce {
        match self.ranks.get() {
            ..=2 => Reduce { way: Way::Tree, ..self.reduce },
            _ => self.reduce,
        }
    }

    /// Which of so many terms each rank has.
    pub(super) fn stretches(self, terms: usize) -> impl Iterator<Item = Range<usize>> {
        let own = terms / self.ranks;
        assert_eq!(own * self.ranks.get(), terms, "the ranks share the terms alike");
        (0..self.ranks.get()).map(move |rank| rank * own..(rank + 1) * own)
    }

    /// The product of a rank: it hands on what is sent, and not yet the result.
    pub(super) fn of_rank(self, recipe: Recipe) -> Recipe {
        Recipe { result: self.reduce.sent, ..recipe }
    }
}

/// How partial sums come together.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Reduce {
    /// In which tree.
    pub way: Way,
    /// In which format they are sent.
    pub sent: Format,
}

/// In which tree partial sums come together.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Way {
    /// A balanced tree: the first half of the ranks, the second half, then their sum.
    Tree,
    /// From rank to rank, each chunk of a row beginning at another one.
    Ring,
    /// Every rank reads what all have, and adds it from the first to the last.
    OneShot,
}

named! { Way, "reduction": Tree = "tree", Ring = "ring", OneShot = "one-shot" }

/// What may be sent but f32, which goes without saying.
const SENT: [(&str, Format); 2] = [("bf16", Format::BF16), ("f16", Format::F16)];

impl Reduce {
    /// What stands for all where there is nothing to reduce: a tree in f32, with which one rank could be any number of them.
    pub const USUAL: Reduce = Reduce { way: Way::Tree, sent: Format::F32 };

    /// Settings to offer.
    pub const NAMES: [&str; 9] = [
        "tree",
        "ring",
        "one-shot",
        "tree:bf16",
        "ring:bf16",
        "one-shot:bf16",
        "tree:f16",
        "ring:f16",
        "one-shot:f16",
    ];

    /// What a setting looks like: a regular expression without its ends.
    pub(crate) fn pattern() -> String {
        // The usual one stands first, so that it can be left out of the names of cells.
        let (alone, with_sent) =
            (Way::NAMES.join("|"), [Way::NAMES[1..].join("|"), Way::NAMES[0].to_owned()].join("|"));
        format!("({alone}|({with_sent}):({}))", SENT.map(|(name, _)| name).join("|"))
    }

    /// The rank at which the ring begins with an output of so many: those that lie in one chunk begin at the same one.
    pub(super) fn first(output: usize, outputs: usize, ranks: usize) -> usize {
        (output / outputs.div_ceil(ranks).max(1) + 1) % ranks
    }
}

impl fmt::Display for Reduce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.way.fmt(f)?;
        if self.sent == Format::F32 { Ok(()) } else { write!(f, ":{}", self.sent) }
    }
}

impl FromStr for Reduce {
    type Err = String;

    fn from_str(text: &str) -> Result<Reduce, String> {
        let (way, sent) = match text.split_once(':') {
            None => (text, Some(Format::F32)),
            Some((way, name)) => {
                (way, SENT.into_iter().find(|(own, _)| *own == name).map(|(_, format)| format))
            }
        };
        match (way.parse::<Way>(), sent) {
            (Ok(way), Some(sent)) => Ok(Reduce { way, sent }),
            _ => Err(format!(
                "there is no reduction `{text}`: {}write one of {}, alone where f32 is sent, or with what is behind it, such as ring:bf16",
                did_you_mean(nearest(text, Reduce::NAMES.into_iter())),
                Way::NAMES.join(", ")
            )),
        }
    }
}

impl Recipe {
    /// How many terms must stay together where a product is cut along them: those that share a scale. Nothing where it cannot be
    /// cut. What blocks there are in a model's file is not known here.
    pub fn uncut(&self) -> Option<usize> {
        let group = |span: Span| match span {
            Span::Group(count) | Span::Square(count) => count.get().into(),
            Span::Line | Span::Tensor | Span::Measured(_) => 1,
        };
        let weights = if let Storage::Codes(quantizer) = self.weights { group(quantizer.span) } else { 1 };
        match self.product {
            Product::Int8(_) => None,
            Product::Scaled(activations) => Some(weights.max(group(activations.span))),
            Product::Fused | Product::LMul(_) => Some(weights),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reduction_has_one_name() {
        for name in Reduce::NAMES {
            assert_eq!(name.parse::<Reduce>().unwrap().to_string(), name);
        }
        for (name, near) in
            [("rink", "did you mean `ring`? "), ("ring:f32", ""), ("tree:bf61", "did you mean `tree:bf16`? ")]
        {
            let error = name.parse::<Reduce>().unwrap_err();
            assert!(error.contains(near) && error.ends_with("such as ring:bf16"), "{error}");
        }
    }

    #[test]
    fn one_rank_has_one_reduction_and_two_have_one_tree() {
        let of = |ranks, name: &str| Parallel::new(NonZeroUsize::new(ranks).unwrap(), name.parse().unwrap());
        assert_eq!(of(1, "ring:bf16"), Parallel::NONE);
        assert_ne!(of(2, "ring"), of(2, "tree"));
        assert_eq!(of(2, "ring").sum(), of(2, "one-shot").sum());
        assert_ne!(of(2, "ring").sum(), of(2, "ring:bf16").sum());
        assert_ne!(of(3, "ring").sum(), of(3, "tree").sum());
    }

    #[test]
    fn a_chunk_of_the_ring_begins_behind_its_own_rank() {
        let first =
            |outputs, ranks| (0..outputs).map(|at| Reduce::first(at, outputs, ranks)).collect::<Vec<_>>();
        assert_eq!(first(8, 4), [1, 1, 2, 2, 3, 3, 0, 0]);
        // The last chunk is shorter, or there is none.
        assert_eq!(first(5, 4), [1, 1, 2, 2, 3]);
        assert_eq!(first(2, 4), [1, 2]);
    }
}
