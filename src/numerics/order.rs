//! The reduction trees: in which order terms are added, as values, and the one generic `reduce`.
//!
//! An [`Order`] together with the number of terms and the [`Launch`] gives a [`Schedule`]: which term comes
//! when (the *walk*), which stretches of the walk are running sums, and how partial sums are joined. Whoever
//! can add two partial sums implements [`Adder`] and has every order: fed with `f32` it is the executable
//! definition, fed with vectors the fast kernel, fed with symbols the [`Tree`] that `explain` prints.

use std::{fmt, num::NonZeroUsize, ops::Range, str::FromStr};

use super::tree::Tree;

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

/// In which order terms are added.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Order {
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
    /// One running sum that carries what the last addition lost.
    Kahan,
    /// One running sum beside the sum of all that its additions lost.
    Neumaier,
    /// The exact sum, rounded once.
    Exact,
}

/// Into how many parts `split-k` cuts a sum.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Parts {
    /// Always so many.
    Fixed(NonZeroUsize),
    /// As many as the launch has threads.
    Threads,
    /// As many as the launch has rows.
    Rows,
}

/// How one addition is carried out along a running sum.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Rule {
    /// Add and round.
    Plain,
    /// Kahan's compensated addition.
    Kahan,
    /// Neumaier's: the losses are summed apart and added at the end.
    Neumaier,
    /// No rounding before the end.
    Exact,
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

const fn count(n: usize) -> NonZeroUsize {
    match NonZeroUsize::new(n) {
        Some(n) => n,
        None => NonZeroUsize::MIN,
    }
}

/// Every order there is. `list`, `explain`, the conformance tests and the benchmark walk this table.
pub const ORDERS: &[OrderEntry] = &[
    OrderEntry {
        name: "sequential",
        sentence: "one running sum, first term to last",
        found_in: "the textbook loop; a GPU thread's own accumulator",
        example: Order::Sequential,
    },
    OrderEntry {
        name: "reversed",
        sentence: "one running sum, last term to first",
        found_in: "a loop that counts down; the cheapest other order to test against",
        example: Order::Reversed,
    },
    OrderEntry {
        name: "pairwise",
        sentence: "a balanced tree: the first half of the terms, the second half, then their sum",
        found_in: "NumPy's sum, tree reductions on GPUs",
        example: Order::Pairwise,
    },
    OrderEntry {
        name: "lanes:L",
        sentence: "L interleaved running sums (term k in lane k mod L), joined by a balanced tree",
        found_in: "SIMD dot products, warp reductions",
        example: Order::Lanes(count(16)),
    },
    OrderEntry {
        name: "blocks:B",
        sentence: "running sums over contiguous blocks of B terms, joined in turn",
        found_in: "matrix products tiled along K",
        example: Order::Blocks(count(64)),
    },
    OrderEntry {
        name: "split-k:S",
        sentence: "S contiguous parts of ceil(n/S) terms, the last one shorter, joined in turn",
        found_in: "split-K matrix products with a pinned number of parts",
        example: Order::SplitK(Parts::Fixed(count(4))),
    },
    OrderEntry {
        name: "split-k:threads",
        sentence: "split-k with as many parts as the launch has threads",
        found_in: "libraries that share K among threads: the thread count moves bits",
        example: Order::SplitK(Parts::Threads),
    },
    OrderEntry {
        name: "split-k:rows",
        sentence: "split-k with as many parts as the launch has rows",
        found_in: "libraries that pick the split from the shape of the call: the batch size moves bits",
        example: Order::SplitK(Parts::Rows),
    },
    OrderEntry {
        name: "shuffled:SEED",
        sentence: "one running sum in an order drawn from SEED",
        found_in: "atomic adds, which arrive in whatever order they arrive",
        example: Order::Shuffled(7),
    },
    OrderEntry {
        name: "kahan",
        sentence: "one running sum that feeds what each addition lost into the next",
        found_in: "careful host code",
        example: Order::Kahan,
    },
    OrderEntry {
        name: "neumaier",
        sentence: "one running sum, the losses summed beside it and added once at the end",
        found_in: "careful host code; Python's sum since 3.12",
        example: Order::Neumaier,
    },
    OrderEntry {
        name: "exact",
        sentence: "the exact sum of the exact products, rounded once: the same for every order of terms",
        found_in: "the reference that the others are held against",
        example: Order::Exact,
    },
];

impl Order {
    /// The row of [`ORDERS`] that this order belongs to.
    pub fn entry(self) -> &'static OrderEntry {
        let name = match self {
            Order::Sequential => "sequential",
            Order::Reversed => "reversed",
            Order::Pairwise => "pairwise",
            Order::Lanes(_) => "lanes:L",
            Order::Blocks(_) => "blocks:B",
            Order::SplitK(Parts::Fixed(_)) => "split-k:S",
            Order::SplitK(Parts::Threads) => "split-k:threads",
            Order::SplitK(Parts::Rows) => "split-k:rows",
            Order::Shuffled(_) => "shuffled:SEED",
            Order::Kahan => "kahan",
            Order::Neumaier => "neumaier",
            Order::Exact => "exact",
        };
        ORDERS.iter().find(|entry| entry.name == name).expect("every order has a row in ORDERS")
    }

    /// How each addition of a running sum is carried out.
    pub fn rule(self) -> Rule {
        match self {
            Order::Kahan => Rule::Kahan,
            Order::Neumaier => Rule::Neumaier,
            Order::Exact => Rule::Exact,
            _ => Rule::Plain,
        }
    }

    /// Which order this is under `launch`: a split that follows the launch becomes a split with a number.
    pub fn under(self, launch: Launch) -> Order {
        let parts = match self {
            Order::SplitK(Parts::Threads) => launch.threads,
            Order::SplitK(Parts::Rows) => launch.rows,
            other => return other,
        };
        Order::SplitK(Parts::Fixed(count(parts)))
    }

    /// Does the tree change with the launch?
    pub fn depends_on_launch(self) -> bool {
        self.under(Launch { rows: 2, threads: 2 }) != self
    }

    /// The order in which terms are visited: `walk[position]` is a term. `None` is first to last.
    ///
    /// It never depends on the launch, so weights can be packed in it once.
    pub fn walk(self, terms: usize) -> Option<Vec<u32>> {
        let term = |k: usize| u32::try_from(k).expect("a sum has fewer than 2^32 terms");
        match self {
            Order::Reversed => Some((0..terms).rev().map(term).collect()),
            Order::Lanes(lanes) if lanes.get() > 1 => {
                let lanes = lanes.get().min(terms.max(1));
                Some((0..lanes).flat_map(|lane| (lane..terms).step_by(lanes)).map(term).collect())
            }
            Order::Shuffled(seed) => Some(shuffle((0..terms).map(term).collect(), seed)),
            _ => None,
        }
    }

    /// The schedule for so many terms under this launch.
    pub fn schedule(self, terms: usize, launch: Launch) -> Schedule {
        let mut steps = Vec::new();
        match self.under(launch) {
            _ if terms == 0 => steps.push(Step::Run(0..0)),
            Order::Pairwise => balanced_steps(&mut steps, 0..terms),
            Order::Lanes(lanes) => {
                let lanes = lanes.get().min(terms);
                // Lane l holds the terms l, l + L, …, so the first `terms % lanes` lanes have one more.
                let start = |lane: usize| lane * (terms / lanes) + lane.min(terms % lanes);
                let runs: Vec<_> = (0..lanes).map(|lane| start(lane)..start(lane + 1)).collect();
                join_balanced(&mut steps, &runs);
            }
            Order::Blocks(block) => join_in_turn(&mut steps, terms, block.get()),
            Order::SplitK(Parts::Fixed(parts)) => {
                join_in_turn(&mut steps, terms, terms.div_ceil(parts.get()));
            }
            _ => steps.push(Step::Run(0..terms)),
        }
        Schedule { terms, walk: self.walk(terms), steps }
    }

    /// The declared tree over so many terms under this launch.
    pub fn tree(self, terms: usize, launch: Launch) -> Tree {
        if self.rule() == Rule::Exact {
            return Tree::node((0..terms).map(Tree::Leaf).collect());
        }
        let schedule = self.schedule(terms, launch);
        schedule.reduce(&mut Symbols { schedule: &schedule }, &mut Vec::new())
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

/// The most terms of one [`Step::Tree`]: as many partial sums as the vector code can hold in registers.
pub const LEAVES: usize = 16;

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

/// What a balanced tree of few terms is built from.
pub trait Leaves {
    /// A partial sum.
    type Sum;
    /// The sum of one term, so many behind the first: a constant, once all is inlined.
    fn leaf(&mut self, offset: usize) -> Self::Sum;
    /// The sum of two partial sums.
    fn join(&mut self, left: Self::Sum, right: Self::Sum) -> Self::Sum;
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

/// The balanced tree over this many leaves, at most [`LEAVES`]. Each size is spelled out, because what is not
/// known when the vector code is compiled costs it more than the additions.
#[inline(always)]
pub fn tree_of_leaves<L: Leaves>(leaves: &mut L, count: usize) -> L::Sum {
    match count {
        1 => one(leaves, 0),
        2 => two(leaves, 0),
        3 => three(leaves, 0),
        4 => four(leaves, 0),
        5 => five(leaves, 0),
        6 => six(leaves, 0),
        7 => seven(leaves, 0),
        8 => eight(leaves, 0),
        9 => nine(leaves, 0),
        10 => ten(leaves, 0),
        11 => eleven(leaves, 0),
        12 => twelve(leaves, 0),
        13 => thirteen(leaves, 0),
        14 => fourteen(leaves, 0),
        15 => fifteen(leaves, 0),
        _ => sixteen(leaves, 0),
    }
}

#[inline(always)]
fn one<L: Leaves>(leaves: &mut L, offset: usize) -> L::Sum {
    leaves.leaf(offset)
}

macro_rules! trees {
    ($($name:ident $leaves:literal = $left:ident $half:literal + $right:ident;)*) => {$(
        #[inline(always)]
        fn $name<L: Leaves>(leaves: &mut L, offset: usize) -> L::Sum {
            let left = $left(leaves, offset);
            let right = $right(leaves, offset + $half);
            leaves.join(left, right)
        }
    )*};
}

trees! {
    two 2 = one 1 + one;
    three 3 = one 1 + two;
    four 4 = two 2 + two;
    five 5 = two 2 + three;
    six 6 = three 3 + three;
    seven 7 = three 3 + four;
    eight 8 = four 4 + four;
    nine 9 = four 4 + five;
    ten 10 = five 5 + five;
    eleven 11 = five 5 + six;
    twelve 12 = six 6 + six;
    thirteen 13 = six 6 + seven;
    fourteen 14 = seven 7 + seven;
    fifteen 15 = seven 7 + eight;
    sixteen 16 = eight 8 + eight;
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

/// Adds symbols: what comes out is the tree itself.
struct Symbols<'a> {
    schedule: &'a Schedule,
}

impl Adder for Symbols<'_> {
    type Sum = Tree;

    fn run(&mut self, positions: Range<usize>) -> Tree {
        let mut leaves = positions.map(|position| Tree::Leaf(self.schedule.term(position)));
        let first = leaves.next().unwrap_or_else(|| Tree::node(Vec::new()));
        leaves.fold(first, |sum, leaf| Tree::node(vec![sum, leaf]))
    }

    fn join(&mut self, left: Tree, right: Tree) -> Tree {
        Tree::node(vec![left, right])
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let family = self.entry().name.split(':').next().unwrap_or_default();
        match self {
            Order::Lanes(n) | Order::Blocks(n) | Order::SplitK(Parts::Fixed(n)) => write!(f, "{family}:{n}"),
            Order::Shuffled(seed) => write!(f, "{family}:{seed}"),
            _ => f.write_str(self.entry().name),
        }
    }
}

/// What a name looks like, for a schema: a regular expression without its ends.
pub(crate) fn pattern() -> String {
    let of_entry = |entry: &OrderEntry| match entry.name.split_once(':') {
        // What is written in capitals stands for a number.
        Some((family, number)) if number.chars().all(char::is_uppercase) => format!("{family}:[0-9]+"),
        _ => entry.name.to_owned(),
    };
    format!("({})", ORDERS.iter().map(of_entry).collect::<Vec<_>>().join("|"))
}

/// Why a text is not the name of an order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// No such family.
    #[error("unknown order `{name}`: {}see `reprocheck list orders`", super::did_you_mean(.nearest.as_deref()))]
    Unknown {
        /// What was given.
        name: String,
        /// The nearest name there is.
        nearest: Option<String>,
    },
    /// The family needs a parameter.
    #[error("order `{family}` needs a number: write `{example}`")]
    Missing {
        /// The family.
        family: String,
        /// A valid name.
        example: Order,
    },
    /// The family takes no parameter.
    #[error("order `{family}` takes no parameter: write `{family}` instead of `{family}:{parameter}`")]
    Superfluous {
        /// The family.
        family: String,
        /// What was given.
        parameter: String,
    },
    /// The parameter does not read.
    #[error("`{parameter}` is not {wanted}: write for example `{example}`")]
    Parameter {
        /// What was given.
        parameter: String,
        /// What would do.
        wanted: &'static str,
        /// A valid name.
        example: Order,
    },
}

impl FromStr for Order {
    type Err = OrderError;

    fn from_str(name: &str) -> Result<Self, OrderError> {
        let (family, parameter) = match name.split_once(':') {
            Some((family, parameter)) => (family, Some(parameter)),
            None => (name, None),
        };
        let of_family = |entry: &&OrderEntry| entry.name.split(':').next() == Some(family);
        let Some(entry) = ORDERS.iter().find(of_family) else {
            let families = ORDERS.iter().filter_map(|entry| entry.name.split(':').next());
            let nearest = super::nearest(family, families).map(str::to_owned);
            return Err(OrderError::Unknown { name: name.to_owned(), nearest });
        };
        let takes_parameter = entry.name.contains(':');
        let parameter = match (takes_parameter, parameter) {
            (false, None) => return Ok(entry.example),
            (false, Some(parameter)) => {
                return Err(OrderError::Superfluous {
                    family: family.to_owned(),
                    parameter: parameter.to_owned(),
                });
            }
            (true, None) => {
                return Err(OrderError::Missing { family: family.to_owned(), example: entry.example });
            }
            (true, Some(parameter)) => parameter,
        };
        let unreadable = |wanted| OrderError::Parameter {
            parameter: parameter.to_owned(),
            wanted,
            example: entry.example,
        };
        let count = |wanted| plain_number::<NonZeroUsize>(parameter).ok_or_else(|| unreadable(wanted));
        Ok(match entry.example {
            Order::Lanes(_) => Order::Lanes(count("a number of lanes from 1 up")?),
            Order::Blocks(_) => Order::Blocks(count("a block length from 1 up")?),
            Order::SplitK(_) => Order::SplitK(match parameter {
                "threads" => Parts::Threads,
                "rows" => Parts::Rows,
                _ => Parts::Fixed(count("a number of parts from 1 up, `threads` or `rows`")?),
            }),
            Order::Shuffled(_) => Order::Shuffled(
                plain_number(parameter).ok_or_else(|| unreadable("a seed from 0 to 2^64 - 1"))?,
            ),
            other => other,
        })
    }
}

/// A number without sign or leading zeros, so that one value has one name.
fn plain_number<T: FromStr + fmt::Display>(text: &str) -> Option<T> {
    text.parse::<T>().ok().filter(|value| value.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(tree("exact", 3), "(0+1+2)");
        assert_eq!(tree("shuffled:7", 6), tree("shuffled:7", 6));
        assert_ne!(tree("shuffled:7", 6), tree("shuffled:8", 6));
    }

    #[test]
    fn a_shuffle_is_pinned_forever() {
        assert_eq!(Order::Shuffled(7).walk(8).unwrap(), [7, 4, 6, 1, 2, 5, 0, 3]);
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

    #[test]
    fn a_name_parses_back_to_its_value() {
        for entry in ORDERS {
            assert_eq!(entry.example.to_string().parse(), Ok(entry.example));
            assert_eq!(entry.example.entry().name, entry.name);
        }
    }

    #[test]
    fn a_bad_name_says_what_to_write_instead() {
        let error = |name: &str| name.parse::<Order>().unwrap_err().to_string();
        assert_eq!(
            error("pairwize"),
            "unknown order `pairwize`: did you mean `pairwise`? see `reprocheck list orders`"
        );
        assert_eq!(error("lanes"), "order `lanes` needs a number: write `lanes:16`");
        assert_eq!(error("exact:2"), "order `exact` takes no parameter: write `exact` instead of `exact:2`");
        assert_eq!(error("blocks:0"), "`0` is not a block length from 1 up: write for example `blocks:64`");
        assert_eq!(
            error("split-k:+4"),
            "`+4` is not a number of parts from 1 up, `threads` or `rows`: write for example `split-k:4`"
        );
        assert_eq!(
            error("shuffled:x"),
            "`x` is not a seed from 0 to 2^64 - 1: write for example `shuffled:7`"
        );
    }
}
