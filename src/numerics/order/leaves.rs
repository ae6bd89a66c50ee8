//! The balanced tree over a few terms, spelled out for every number of them: it stays in registers.

/// The most terms of one [`Step::Tree`](super::Step::Tree): as many partial sums as the vector code can hold in
/// registers.
pub const LEAVES: usize = 16;

/// What a balanced tree of few terms is built from.
pub trait Leaves {
    /// A partial sum.
    type Sum;
    /// The sum of one term, so many behind the first: a constant, once all is inlined.
    fn leaf(&mut self, offset: usize) -> Self::Sum;
    /// The sum of two partial sums.
    fn join(&mut self, left: Self::Sum, right: Self::Sum) -> Self::Sum;
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
