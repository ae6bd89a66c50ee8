//! The reduction trees: in which order terms are added, as values, and the one generic `reduce`.
//!
//! An [`Order`] together with the number of terms and the [`Launch`] gives a [`Schedule`]: which term comes
//! when (the *walk*), which stretches of the walk are running sums, and how partial sums are joined. What
//! can add two partial sums implements [`Adder`] and has every order: fed with `f32` it is the executable
//! definition, fed with vectors the fast kernel, fed with symbols the [`Tree`](super::tree::Tree) that `explain`
//! prints.

mod leaves;
mod name;
mod schedule;
mod symbols;

use std::{mem::discriminant, num::NonZeroUsize};

pub(crate) use self::name::plain_number;
pub use self::{
    leaves::{LEAVES, Leaves, tree_of_leaves},
    name::OrderError,
    schedule::{Adder, Schedule, Step},
};
pub(crate) use self::{name::pattern, schedule::shuffle};
use super::{
    precision::Recipe,
    unit::{Gpu, NoUnit, Unit},
};

/// The shape of one call. An order may depend on it, and that is how a batch size comes to move bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Launch {
    /// Rows of activations in the call: tokens times sequences.
    pub rows: usize,
    /// Threads that share the call.
    pub threads: usize,
}

impl Default for Launch {
    fn default() -> Self {
        Launch { rows: 1, threads: 1 }
    }
}

/// In which order terms are added: who meets whom, and how each two are added.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Order {
    shape: Shape,
    rule: Rule,
}

/// Which terms meet, and when.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Shape {
    /// First to last, one running sum.
    Sequential,
    /// Last to first, one running sum.
    Reversed,
    /// A balanced tree: split in two halves, add each half, join.
    Pairwise,
    /// Interleaved running sums, joined by a balanced tree.
    Lanes(NonZeroUsize),
    /// Contiguous blocks of so many terms, joined in turn.
    Blocks(NonZeroUsize),
    /// So many contiguous parts, joined in turn.
    SplitK(Parts),
    /// One running sum in an order drawn from the seed.
    Shuffled(u64),
}

/// Into how many parts a sum is cut, or what attention sees.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Parts {
    /// Always so many.
    Fixed(NonZeroUsize),
    /// As many as the launch has threads.
    Threads,
    /// As many as the launch has rows.
    Rows,
}

/// How the additions along a running sum are carried out.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Rule {
    /// Add and round.
    Plain,
    /// Kahan's: each addition makes up for what the last one lost.
    Kahan,
    /// Neumaier's: the losses are summed apart and added at the end.
    Neumaier,
    /// That of VDPBF16PS: terms come in pairs, the second of a pair first, and subnormal numbers are zero.
    DotBf16,
    /// No rounding before the end.
    Exact,
    /// That of a GPU's matrix unit, whichever goes with what is multiplied.
    Mma(Gpu),
    /// That of this unit.
    Unit(Unit),
}

/// One row of the table of orders.
#[derive(Debug)]
pub struct OrderEntry {
    /// The name with its parameter as a letter, as `list` shows it.
    pub name: &'static str,
    /// What it does, in a sentence.
    pub sentence: &'static str,
    /// Who adds like this.
    pub found_in: &'static str,
    /// A value of it, ready to run: tests and benchmarks walk these.
    pub example: Order,
}

impl OrderEntry {
    /// The name without its parameter.
    fn family(&self) -> &'static str {
        self.name.split(':').next().unwrap_or_default()
    }
}

const fn count(n: usize) -> NonZeroUsize {
    match NonZeroUsize::new(n) {
        Some(n) => n,
        None => NonZeroUsize::MIN,
    }
}

/// The row of the matrix units of GPUs, which other shapes may stand before.
const MMA: &str = "mma:GPU";

/// Every order there is. `list`, `explain`, the conformance tests and the benchmark walk this table.
pub const ORDERS: &[OrderEntry] = &[
    OrderEntry {
        name: "sequential",
        sentence: "one running sum, first term to last",
        found_in: "the textbook loop; a GPU thread's own accumulator",
        example: Order::SEQUENTIAL,
    },
    OrderEntry {
        name: "reversed",
        sentence: "one running sum, last term to first",
        found_in: "a loop that counts down; the cheapest other order to test against",
        example: Order::REVERSED,
    },
    OrderEntry {
        name: "pairwise",
        sentence: "a balanced tree: the first half of the terms, the second half, then their sum",
        found_in: "NumPy's sum, tree reductions on GPUs",
        example: Order::PAIRWISE,
    },
    OrderEntry {
        name: "lanes:L",
        sentence: "L interleaved running sums (term k in lane k mod L), joined by a balanced tree",
        found_in: "SIMD dot products, warp reductions",
        example: Order::plain(Shape::Lanes(count(16))),
    },
    OrderEntry {
        name: "blocks:B",
        sentence: "running sums over contiguous blocks of B terms, joined in turn",
        found_in: "matrix products tiled along K",
        example: Order::plain(Shape::Blocks(count(64))),
    },
    OrderEntry {
        name: "split-k:S",
        sentence: "S contiguous parts of ceil(n/S) terms, the last one shorter, joined in turn",
        found_in: "split-K matrix products with a pinned number of parts",
        example: Order::plain(Shape::SplitK(Parts::Fixed(count(4)))),
    },
    OrderEntry {
        name: "split-k:threads",
        sentence: "split-k with as many parts as the launch has threads",
        found_in: "libraries that share K among threads: the thread count moves bits",
        example: Order::plain(Shape::SplitK(Parts::Threads)),
    },
    OrderEntry {
        name: "split-k:rows",
        sentence: "split-k with as many parts as the launch has rows",
        found_in: "libraries that pick the split from the shape of the call: the batch size moves bits",
        example: Order::plain(Shape::SplitK(Parts::Rows)),
    },
    OrderEntry {
        name: "shuffled:SEED",
        sentence: "one running sum in an order drawn from SEED",
        found_in: "atomic adds, which arrive in whatever order they arrive",
        example: Order::plain(Shape::Shuffled(7)),
    },
    OrderEntry {
        name: "kahan",
        sentence: "one running sum that feeds what each addition lost into the next",
        found_in: "careful host code",
        example: Order::KAHAN,
    },
    OrderEntry {
        name: "neumaier",
        sentence: "one running sum, the losses summed beside it and added once at the end",
        found_in: "careful host code; Python's sum since 3.12",
        example: Order::NEUMAIER,
    },
    OrderEntry {
        name: "dpbf16",
        sentence: "one running sum over pairs of terms, the second of each pair first; subnormal numbers are zero",
        found_in: "VDPBF16PS, the dot product of bf16 that CPUs with AVX512-BF16 have",
        example: Order::DPBF16,
    },
    OrderEntry {
        name: "dpbf16-blocks:B",
        sentence: "dpbf16 over contiguous blocks of B terms, joined in turn",
        found_in: "matrix products of bf16 on CPUs with AVX512-BF16, tiled along K",
        example: Order { shape: Shape::Blocks(count(64)), rule: Rule::DotBf16 },
    },
    OrderEntry {
        name: MMA,
        sentence: "blocks of 4 to 32 products and the sum so far, aligned, cut off and added at once, as the matrix unit of GPU does; \
                   after blocks:B+ or split-k:S+ each block or part begins anew, and they are joined in turn; norms and \
                   softmax add as a warp does, by lanes:32",
        found_in: "matrix products on NVIDIA's GPUs: v100, turing, a100, ada, h100, b200, and b200-tcgen05, which differs in 8-bit floats",
        example: Order { shape: Shape::Sequential, rule: Rule::Mma(Gpu::H100) },
    },
    OrderEntry {
        name: "exact",
        sentence: "the exact sum of the exact products, rounded once: the same for every order of terms",
        found_in: "the reference that the others are held against",
        example: Order::EXACT,
    },
];

/// Why there is no order of this shape and this rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{rule}` {why} `{shape}`: {way_out}", why = self.why(), way_out = self.way_out())]
pub struct Unmatched {
    /// The order of this shape that adds and rounds.
    pub shape: Order,
    /// The order of this rule.
    pub rule: Order,
}

impl Unmatched {
    fn why(&self) -> &'static str {
        match self.rule.is_of_unit() {
            true => "adds along a sum and cannot be combined with",
            false => "has a shape of its own and cannot be combined with",
        }
    }

    fn way_out(&self) -> &'static str {
        match self.rule.is_of_unit() {
            true => "write it alone, or behind blocks:64+ or split-k:4+ with any number",
            false => "choose one of the two",
        }
    }
}

impl Order {
    /// One running sum, first term to last.
    pub const SEQUENTIAL: Order = Order::plain(Shape::Sequential);
    /// One running sum, last term to first.
    pub const REVERSED: Order = Order::plain(Shape::Reversed);
    /// A balanced tree.
    pub const PAIRWISE: Order = Order::plain(Shape::Pairwise);
    /// One running sum that carries what the last addition lost.
    pub const KAHAN: Order = Order { shape: Shape::Sequential, rule: Rule::Kahan };
    /// One running sum beside the sum of all that its additions lost.
    pub const NEUMAIER: Order = Order { shape: Shape::Sequential, rule: Rule::Neumaier };
    /// One running sum as VDPBF16PS adds it.
    pub const DPBF16: Order = Order { shape: Shape::Sequential, rule: Rule::DotBf16 };
    /// The exact sum, rounded once.
    pub const EXACT: Order = Order { shape: Shape::Sequential, rule: Rule::Exact };

    /// Any shape, every addition rounded.
    pub const fn plain(shape: Shape) -> Order {
        Order { shape, rule: Rule::Plain }
    }

    /// A shape whose running sums go by a rule.
    ///
    /// # Errors
    ///
    /// When there is no such order.
    pub fn new(shape: Shape, rule: Rule) -> Result<Order, Unmatched> {
        let there_is = match rule {
            Rule::Plain => true,
            // What compensation keeps belongs to one sum and is lost where two are joined. An exact sum is the same
            // for every shape, and one value has one name.
            Rule::Kahan | Rule::Neumaier | Rule::Exact => shape == Shape::Sequential,
            // An instruction adds as it does, and what calls it may begin anew.
            Rule::DotBf16 => matches!(shape, Shape::Sequential | Shape::Blocks(_)),
            Rule::Mma(_) | Rule::Unit(_) => {
                matches!(shape, Shape::Sequential | Shape::Blocks(_) | Shape::SplitK(_))
            }
        };
        if there_is {
            return Ok(Order { shape, rule });
        }
        Err(Unmatched { shape: Order::plain(shape), rule: Order { shape: Shape::Sequential, rule } })
    }

    /// Which terms meet, and when.
    pub fn shape(self) -> Shape {
        self.shape
    }

    /// How each addition of a running sum is carried out.
    pub fn rule(self) -> Rule {
        self.rule
    }

    /// The row of [`ORDERS`] that this order belongs to: that of its shape and its rule, whatever the number.
    pub fn entry(self) -> &'static OrderEntry {
        let same_shape = |shape| match (shape, self.shape) {
            (Shape::SplitK(one), Shape::SplitK(other)) => discriminant(&one) == discriminant(&other),
            (one, other) => discriminant(&one) == discriminant(&other),
        };
        if self.is_of_unit() {
            return ORDERS.iter().find(|entry| entry.name == MMA).expect("matrix units have a row in ORDERS");
        }
        let own = |entry: &&OrderEntry| entry.example.rule == self.rule && same_shape(entry.example.shape);
        ORDERS.iter().find(own).expect("every order has a row in ORDERS")
    }

    /// Which order this is under `launch`: a split that follows the launch becomes a split with a number.
    pub fn under(self, launch: Launch) -> Order {
        match self.shape {
            Shape::SplitK(parts) => Order { shape: Shape::SplitK(Parts::Fixed(parts.under(launch))), ..self },
            _ => self,
        }
    }

    /// Which order this is for products of this kind: that of a GPU becomes that of its unit for them.
    ///
    /// # Errors
    ///
    /// Where the GPU has none.
    pub fn of(self, recipe: &Recipe) -> Result<Order, NoUnit> {
        Ok(match self.rule {
            Rule::Mma(gpu) => match gpu.unit_for(recipe)? {
                Some(unit) => Order { rule: Rule::Unit(unit), ..self },
                // Whole numbers have no order.
                None => Order::plain(self.shape),
            },
            _ => self,
        })
    }

    /// The order in which the values of a row are added, where products are added in this one.
    pub fn of_rows(self) -> Order {
        const WARP: NonZeroUsize = count(32);
        if self.is_of_unit() { Order::plain(Shape::Lanes(WARP)) } else { self }
    }

    /// Is it that of a matrix unit, which multiplies only some formats, and cuts off where others round to the nearest?
    pub fn is_of_unit(self) -> bool {
        matches!(self.rule, Rule::Mma(_) | Rule::Unit(_))
    }

    /// Does the tree change with the launch?
    pub fn depends_on_launch(self) -> bool {
        self.under(Launch { rows: 2, threads: 2 }) != self
    }
}

impl Parts {
    /// How many these are under `launch`.
    pub(super) fn under(self, launch: Launch) -> NonZeroUsize {
        match self {
            Parts::Fixed(parts) => parts,
            Parts::Threads => count(launch.threads),
            Parts::Rows => count(launch.rows),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_made_of_a_shape_and_a_rule_exactly_where_the_table_has_them() {
        for Order { shape, .. } in ORDERS.iter().map(|entry| entry.example) {
            for rule in [Rule::Plain, Rule::Kahan, Rule::Neumaier, Rule::DotBf16, Rule::Exact] {
                let in_table = ORDERS.iter().find(|entry| entry.example == Order { shape, rule });
                assert_eq!(Order::new(shape, rule).ok(), in_table.map(|entry| entry.example));
            }
            let in_turn = matches!(shape, Shape::Sequential | Shape::Blocks(_) | Shape::SplitK(_));
            assert_eq!(Order::new(shape, Rule::Mma(Gpu::A100)).is_ok(), in_turn);
        }
        assert_eq!(
            Order::new(Shape::Pairwise, Rule::Kahan).unwrap_err().to_string(),
            "`kahan` has a shape of its own and cannot be combined with `pairwise`: choose one of the two"
        );
        assert_eq!(
            "pairwise+mma:a100".parse::<Order>().unwrap_err().to_string(),
            "`mma:a100` adds along a sum and cannot be combined with `pairwise`: write it alone, or behind blocks:64+ or split-k:4+ with \
             any number"
        );
    }
}
