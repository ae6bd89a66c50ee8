//! What is known of an order without a number added: its tree, and what stands for a tree of any size.

use std::ops::Range;

use sha2::{Digest, Sha256};

use super::{Adder, Launch, Order, Rule, Schedule, Shape};
use crate::numerics::{tree::Tree, unit::Unit};

impl Order {
    /// The declared tree over so many terms under this launch.
    pub fn tree(self, terms: usize, launch: Launch) -> Tree {
        self.symbol(terms, launch, Tree::Leaf, Tree::node)
    }

    /// Equal where the tree over so many terms and the rule by which it is added are equal, and nowhere else. A running
    /// sum is as deep as it is long, which may be too deep for a [`Tree`] to be walked.
    pub fn fingerprint(self, terms: usize, launch: Launch) -> [u8; 32] {
        let tree = self.symbol(terms, launch, digest_of_leaf, digest_of_node);
        // A rule goes by the name of the order that has nothing but it.
        let rule = Order { shape: Shape::Sequential, ..self }.to_string();
        Sha256::new().chain_update(tree).chain_update(rule).finalize().into()
    }

    fn symbol<S>(self, terms: usize, launch: Launch, leaf: fn(usize) -> S, node: fn(Vec<S>) -> S) -> S {
        let schedule = self.schedule(terms, launch);
        let mut symbols = Symbols { schedule: &schedule, rule: self.rule, leaf, node };
        schedule.reduce(&mut symbols, &mut Vec::new())
    }
}

fn digest_of_leaf(term: usize) -> [u8; 32] {
    Sha256::digest((term as u64).to_le_bytes()).into()
}

/// A single child is itself, as it is to a [`Tree`]. A term has 8 bytes; what is hashed here has none, or 64 and more.
fn digest_of_node(children: Vec<[u8; 32]>) -> [u8; 32] {
    match children[..] {
        [child] => child,
        _ => Sha256::digest(children.concat()).into(),
    }
}

/// Adds symbols.
struct Symbols<'a, S> {
    schedule: &'a Schedule,
    rule: Rule,
    leaf: fn(usize) -> S,
    node: fn(Vec<S>) -> S,
}

impl<S> Symbols<'_, S> {
    /// The running sum of a matrix unit: each block at once, with what was there.
    fn blocks(&self, unit: Unit, leaves: impl Iterator<Item = S>) -> S {
        let mut leaves = leaves.peekable();
        let mut sum = None;
        while leaves.peek().is_some() {
            let mut block: Vec<Option<S>> = leaves.by_ref().take(unit.terms()).map(Some).collect();
            let parts = unit.parts(block.len()).map(|numbers| numbers.collect::<Vec<_>>());
            let mut part = |number: usize, before: Option<S>| {
                let own = parts[number].iter().filter_map(|term| block[*term].take());
                (self.node)(before.into_iter().chain(own).collect())
            };
            sum = Some(if unit.in_two() {
                let one = part(0, None);
                let both = part(1, Some(one));
                (self.node)(sum.into_iter().chain([both]).collect())
            } else {
                part(0, sum)
            });
        }
        sum.unwrap_or_else(|| (self.node)(Vec::new()))
    }
}

impl<S> Adder for Symbols<'_, S> {
    type Sum = S;

    fn run(&mut self, positions: Range<usize>) -> S {
        let mut leaves = positions.map(|position| (self.leaf)(self.schedule.term(position)));
        match self.rule {
            // All at once, with no rounding between them.
            Rule::Exact => (self.node)(leaves.collect()),
            Rule::Mma(gpu) => self.blocks(gpu.of_halves(), leaves),
            Rule::Unit(unit) => self.blocks(unit, leaves),
            Rule::Plain | Rule::Kahan | Rule::Neumaier | Rule::DotBf16 => {
                let first = leaves.next().unwrap_or_else(|| (self.node)(Vec::new()));
                leaves.fold(first, |sum, leaf| (self.node)(vec![sum, leaf]))
            }
        }
    }

    fn join(&mut self, left: S, right: S) -> S {
        (self.node)(vec![left, right])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerics::order::ORDERS;

    #[test]
    fn fingerprints_are_equal_where_tree_and_rule_are() {
        let launch = Launch { rows: 3, threads: 2 };
        let more = ["lanes:1", "lanes:24", "blocks:8", "split-k:3", "shuffled:8"];
        let more = more.map(|name| name.parse::<Order>().unwrap());
        let orders = || ORDERS.iter().map(|entry| entry.example).chain(more);
        for (one, other) in orders().flat_map(|one| orders().map(move |other| (one, other))) {
            for terms in [0, 1, 2, 16, 24] {
                let [alike, same] = [
                    one.tree(terms, launch) == other.tree(terms, launch) && one.rule() == other.rule(),
                    one.fingerprint(terms, launch) == other.fingerprint(terms, launch),
                ];
                assert_eq!(same, alike, "{one} and {other} over {terms} terms");
            }
        }
    }

    #[test]
    fn a_long_sum_has_a_fingerprint() {
        let print = |order: &str| order.parse::<Order>().unwrap().fingerprint(1 << 17, Launch::default());
        assert_ne!(print("sequential"), print("blocks:65537"));
        assert_eq!(print("blocks:65536"), print("split-k:2"));
    }
}
