//! An order spelled out for a number of terms, and what carries it out, whatever is being added.

use std::ops::Range;

use super::{LEAVES, Launch, Leaves, Order, Rule, Shape, tree_of_leaves};

impl Order {
    /// The order in which terms are visited: `walk[position]` is a term. `None` is first to last.
    ///
    /// It never depends on the launch, so weights can be packed in it once.
    pub fn walk(self, terms: usize) -> Option<Vec<u32>> {
        let term = |k: usize| u32::try_from(k).expect("a sum has fewer than 2^32 terms");
        match self.shape() {
            Shape::Reversed => Some((0..terms).rev().map(term).collect()),
            Shape::Lanes(lanes) if lanes.get() > 1 => {
                let lanes = lanes.get().min(terms.max(1));
                Some((0..lanes).flat_map(|lane| (lane..terms).step_by(lanes)).map(term).collect())
            }
            Shape::Shuffled(seed) => Some(shuffle((0..terms).map(term).collect(), seed)),
            shape if self.rule() == Rule::DotBf16 => {
                let block = if let Shape::Blocks(block) = shape { block.get() } else { terms.max(1) };
                let mut walk: Vec<_> = (0..terms).map(term).collect();
                let pairs = walk.chunks_mut(block).flat_map(|block| block.as_chunks_mut::<2>().0);
                pairs.for_each(|pair| pair.reverse());
                Some(walk)
            }
            Shape::Sequential | Shape::Pairwise | Shape::Lanes(_) | Shape::Blocks(_) | Shape::SplitK(_) => {
                None
            }
        }
    }

    /// The schedule for so many terms under this launch.
    pub fn schedule(self, terms: usize, launch: Launch) -> Schedule {
        let mut steps = Vec::new();
        match self.shape() {
            _ if terms == 0 => steps.push(Step::Run(0..0)),
            Shape::Pairwise => balanced_steps(&mut steps, 0..terms),
            Shape::Lanes(lanes) => {
                let lanes = lanes.get().min(terms);
                // Lane l holds the terms l, l + L, …, so the first `terms % lanes` lanes have one more.
                let start = |lane: usize| lane * (terms / lanes) + lane.min(terms % lanes);
                let runs: Vec<_> = (0..lanes).map(|lane| start(lane)..start(lane + 1)).collect();
                join_balanced(&mut steps, &runs);
            }
            Shape::Blocks(block) => join_in_turn(&mut steps, terms, block.get()),
            Shape::SplitK(parts) => {
                join_in_turn(&mut steps, terms, terms.div_ceil(parts.under(launch).get()));
            }
            Shape::Sequential | Shape::Reversed | Shape::Shuffled(_) => {
                steps.push(Step::Run(0..terms));
            }
        }
        Schedule { terms, walk: self.walk(terms), steps }
    }
}

/// A step of a [`Schedule`], for a stack of partial sums.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Step {
    /// Push the running sum over these positions of the walk.
    Run(Range<usize>),
    /// Push the balanced tree over these positions, at most [`LEAVES`] of them: it stays in registers.
    Tree(Range<usize>),
    /// Pop two partial sums, the later one on the right, and push their sum.
    Join,
}

/// An order, spelled out for a number of terms and a launch.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Schedule {
    /// How many terms there are.
    pub terms: usize,
    /// Which term stands at each position; `None` is first to last.
    pub walk: Option<Vec<u32>>,
    /// What to do with the positions.
    pub steps: Vec<Step>,
}

/// What can be added up.
pub trait Adder {
    /// A partial sum.
    type Sum;
    /// The running sum over these positions of the walk. The one that holds position 0 begins at whatever
    /// the sum begins at (a bias, an accumulator's old value), every other at +0.
    fn run(&mut self, positions: Range<usize>) -> Self::Sum;
    /// The sum of two partial sums.
    fn join(&mut self, left: Self::Sum, right: Self::Sum) -> Self::Sum;
    /// The balanced tree over these positions, at most [`LEAVES`] of them.
    #[inline(always)]
    fn tree(&mut self, positions: Range<usize>) -> Self::Sum
    where
        Self: Sized,
    {
        tree_of_leaves(&mut RunsOfOne { adder: self, start: positions.start }, positions.len())
    }
}

impl Schedule {
    /// Which term stands at a position of the walk.
    pub fn term(&self, position: usize) -> usize {
        self.walk.as_ref().map_or(position, |walk| walk[position] as usize)
    }

    /// Are there balanced trees in registers, which take several sums at once?
    pub fn has_trees(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Tree(_)))
    }

    /// Adds everything up: the one place where an order is carried out, whatever is being added.
    ///
    /// `stack` is room for partial sums, handed in so that a hot caller can keep it.
    #[inline(always)]
    pub fn reduce<A: Adder>(&self, adder: &mut A, stack: &mut Vec<A::Sum>) -> A::Sum {
        // The latest partial sum stays in the registers; most orders have no other.
        let (first, rest) = self.steps.split_first().expect("a schedule has a step");
        let mut top = first.begin(adder);
        stack.clear();
        for step in rest {
            if *step == Step::Join {
                let left = stack.pop().expect("a schedule joins only what it has pushed");
                top = adder.join(left, top);
            } else {
                stack.push(top);
                top = step.begin(adder);
            }
        }
        top
    }
}

impl Step {
    /// The partial sum that this step pushes.
    #[inline(always)]
    fn begin<A: Adder>(&self, adder: &mut A) -> A::Sum {
        match self {
            Step::Run(positions) => adder.run(positions.clone()),
            Step::Tree(positions) => adder.tree(positions.clone()),
            Step::Join => unreachable!("a join takes two partial sums and begins none"),
        }
    }
}

/// Leaves that are running sums of one term.
struct RunsOfOne<'a, A> {
    adder: &'a mut A,
    start: usize,
}

impl<A: Adder> Leaves for RunsOfOne<'_, A> {
    type Sum = A::Sum;

    #[inline(always)]
    fn leaf(&mut self, offset: usize) -> A::Sum {
        let position = self.start + offset;
        self.adder.run(position..position + 1)
    }

    #[inline(always)]
    fn join(&mut self, left: A::Sum, right: A::Sum) -> A::Sum {
        self.adder.join(left, right)
    }
}

fn balanced_steps(steps: &mut Vec<Step>, Range { start, end }: Range<usize>) {
    if end - start <= LEAVES {
        return steps.push(Step::Tree(start..end));
    }
    let middle = start + (end - start) / 2;
    balanced_steps(steps, start..middle);
    balanced_steps(steps, middle..end);
    steps.push(Step::Join);
}

fn join_balanced(steps: &mut Vec<Step>, runs: &[Range<usize>]) {
    if let [run] = runs {
        return steps.push(Step::Run(run.clone()));
    }
    let (left, right) = runs.split_at(runs.len() / 2);
    join_balanced(steps, left);
    join_balanced(steps, right);
    steps.push(Step::Join);
}

fn join_in_turn(steps: &mut Vec<Step>, terms: usize, block: usize) {
    for start in (0..terms).step_by(block) {
        steps.push(Step::Run(start..terms.min(start.saturating_add(block))));
        if start > 0 {
            steps.push(Step::Join);
        }
    }
}

/// Fisher and Yates' shuffle, driven by SplitMix64: short, and the same in every version of everything.
pub(crate) fn shuffle<T>(mut items: Vec<T>, seed: u64) -> Vec<T> {
    let mut state = seed;
    for last in (1..items.len()).rev() {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^= mixed >> 31;
        let pick = (u128::from(mixed) * (last as u128 + 1)) >> 64;
        items.swap(last, usize::try_from(pick).expect("smaller than the slice"));
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerics::order::ORDERS;

    fn tree(order: &str, terms: usize) -> String {
        tree_at(order, terms, Launch::default())
    }

    fn tree_at(order: &str, terms: usize, launch: Launch) -> String {
        order.parse::<Order>().unwrap().tree(terms, launch).to_string()
    }

    #[test]
    fn trees_are_what_their_names_say() {
        assert_eq!(tree("sequential", 4), "(((0+1)+2)+3)");
        assert_eq!(tree("reversed", 4), "(((3+2)+1)+0)");
        assert_eq!(tree("pairwise", 5), "((0+1)+(2+(3+4)))");
        assert_eq!(tree("pairwise", 8), "(((0+1)+(2+3))+((4+5)+(6+7)))");
        assert_eq!(tree("lanes:4", 8), "(((0+4)+(1+5))+((2+6)+(3+7)))");
        assert_eq!(tree("lanes:4", 6), "(((0+4)+(1+5))+(2+3))");
        assert_eq!(tree("lanes:3", 2), "(0+1)");
        assert_eq!(tree("blocks:2", 5), "(((0+1)+(2+3))+4)");
        assert_eq!(tree("split-k:2", 5), "(((0+1)+2)+(3+4))");
        assert_eq!(tree("split-k:9", 3), "((0+1)+2)");
        assert_eq!(tree("kahan", 3), "((0+1)+2)");
        assert_eq!(tree("neumaier", 3), "((0+1)+2)");
        assert_eq!(tree("dpbf16", 4), "(((1+0)+3)+2)");
        assert_eq!(tree("dpbf16", 5), "((((1+0)+3)+2)+4)");
        assert_eq!(tree("dpbf16-blocks:2", 5), "(((1+0)+(3+2))+4)");
        assert_eq!(tree("dpbf16-blocks:3", 5), "(((1+0)+2)+(4+3))");
        assert_eq!(tree("exact", 3), "(0+1+2)");
        assert_eq!(tree("shuffled:7", 6), tree("shuffled:7", 6));
        assert_ne!(tree("shuffled:7", 6), tree("shuffled:8", 6));
    }

    #[test]
    fn a_shuffle_is_pinned_forever() {
        assert_eq!(Order::plain(Shape::Shuffled(7)).walk(8).unwrap(), [7, 4, 6, 1, 2, 5, 0, 3]);
    }

    #[test]
    fn split_k_follows_the_launch_it_names() {
        let launch = Launch { rows: 4, threads: 2 };
        assert_eq!(tree_at("split-k:rows", 8, launch), tree("split-k:4", 8));
        assert_eq!(tree_at("split-k:threads", 8, launch), tree("split-k:2", 8));
    }

    #[test]
    fn an_order_depends_on_the_launch_exactly_if_its_tree_does() {
        for entry in ORDERS {
            let trees: Vec<_> = [(1, 1), (2, 1), (1, 2), (8, 4)]
                .map(|(rows, threads)| entry.example.tree(24, Launch { rows, threads }).to_string())
                .into();
            let moves = trees.iter().any(|tree| *tree != trees[0]);
            assert_eq!(moves, entry.example.depends_on_launch(), "{}", entry.name);
        }
    }

    #[test]
    fn every_tree_holds_every_term_once() {
        for entry in ORDERS {
            for terms in [0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 63, 100] {
                let mut leaves = entry.example.tree(terms, Launch { rows: 3, threads: 2 }).leaves();
                leaves.sort_unstable();
                assert!(leaves.iter().copied().eq(0..terms), "{} of {terms}", entry.name);
            }
        }
    }
}
