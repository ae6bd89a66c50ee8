//! A reduction tree as a value: printed, drawn, measured and compared.

use std::fmt;

/// Which terms meet where. A node with more than two children adds them all at once, without rounding
/// between them.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Tree {
    /// A term, by its index.
    Leaf(usize),
    /// The sum of these.
    Node(Vec<Tree>),
}

impl Tree {
    /// The sum of `children`; a single child is itself.
    pub fn node(mut children: Vec<Tree>) -> Tree {
        if children.len() == 1 { children.remove(0) } else { Tree::Node(children) }
    }

    /// The terms, left to right.
    pub fn leaves(&self) -> Vec<usize> {
        match self {
            Tree::Leaf(term) => vec![*term],
            Tree::Node(children) => children.iter().flat_map(Tree::leaves).collect(),
        }
    }

    /// How many additions the most unlucky term goes through: the constant of the error bound.
    pub fn depth(&self) -> usize {
        match self {
            Tree::Leaf(_) => 0,
            Tree::Node(children) => children.iter().map(Tree::depth).max().map_or(0, |depth| depth + 1),
        }
    }

    /// The same tree with another in place of each term.
    #[must_use]
    pub fn grown(self, leaf: &impl Fn(usize) -> Tree) -> Tree {
        match self {
            Tree::Leaf(term) => leaf(term),
            Tree::Node(children) => Tree::Node(children.into_iter().map(|child| child.grown(leaf)).collect()),
        }
    }

    /// The same tree with the children of every node sorted by their first term: addition commutes, so trees
    /// with one canonical form give the same bits.
    pub fn canonical(self) -> Tree {
        match self {
            Tree::Leaf(_) => self,
            Tree::Node(children) => {
                let mut children: Vec<_> = children.into_iter().map(Tree::canonical).collect();
                children.sort_by_key(Tree::first);
                Tree::Node(children)
            }
        }
    }

    /// The smallest term of a canonical tree.
    fn first(&self) -> Option<usize> {
        match self {
            Tree::Leaf(term) => Some(*term),
            Tree::Node(children) => children.first().and_then(Tree::first),
        }
    }

    /// The tree drawn with its terms on the left and time running to the right.
    pub fn picture(&self) -> String {
        let mut canvas = Canvas { lines: Vec::new(), label: self.label_width() };
        let end = canvas.draw(self);
        if let Some((line, column)) = end {
            canvas.stroke(line, column, column + 2);
        }
        let lines = canvas.lines.into_iter();
        lines.map(|line| line.into_iter().collect::<String>().trim_end().to_owned() + "\n").collect()
    }

    fn label_width(&self) -> usize {
        self.leaves().into_iter().max().map_or(0, |term| term.to_string().len())
    }
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Tree::Leaf(term) => write!(f, "{term}"),
            Tree::Node(children) => {
                f.write_str("(")?;
                for (index, child) in children.iter().enumerate() {
                    if index > 0 {
                        f.write_str("+")?;
                    }
                    write!(f, "{child}")?;
                }
                f.write_str(")")
            }
        }
    }
}

struct Canvas {
    lines: Vec<Vec<char>>,
    label: usize,
}

impl Canvas {
    /// Draws a tree below what is there; returns the line and column where its sum comes out.
    fn draw(&mut self, tree: &Tree) -> Option<(usize, usize)> {
        match tree {
            Tree::Leaf(term) => {
                let line = format!("{term:>width$} ", width = self.label);
                self.lines.push(line.chars().collect());
                Some((self.lines.len() - 1, self.label + 1))
            }
            Tree::Node(children) => {
                let ends: Vec<_> = children.iter().filter_map(|child| self.draw(child)).collect();
                let (&(first, _), &(last, _)) = (ends.first()?, ends.last()?);
                let column = ends.iter().map(|&(_, column)| column).max()? + 1;
                for line in first..=last {
                    match ends.iter().find(|&&(end, _)| end == line) {
                        Some(&(_, from)) => {
                            self.stroke(line, from, column);
                            let corner = match line {
                                _ if line == last => '┴',
                                _ if line == first => '┐',
                                _ => '┤',
                            };
                            self.put(line, column, corner);
                        }
                        None => self.put(line, column, '│'),
                    }
                }
                Some((last, column + 1))
            }
        }
    }

    fn stroke(&mut self, line: usize, from: usize, to: usize) {
        for column in from..to {
            self.put(line, column, '─');
        }
    }

    fn put(&mut self, line: usize, column: usize, mark: char) {
        let line = &mut self.lines[line];
        if line.len() <= column {
            line.resize(column + 1, ' ');
        }
        line[column] = mark;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::numerics::order::{Launch, Order};

    #[test]
    fn a_picture_shows_who_meets_whom() {
        let picture =
            |order: &str, terms| order.parse::<Order>().unwrap().tree(terms, Launch::default()).picture();
        let expected = "
0 ─┐
1 ─┴─┐
2 ─┐ │
3 ─┴─┴──
";
        assert_eq!(picture("pairwise", 4), expected.trim_start_matches('\n'));
        let expected = "
2 ─┐
1 ─┴─┐
0 ───┴──
";
        assert_eq!(picture("reversed", 3), expected.trim_start_matches('\n'));
        let expected = "
0 ─┐
1 ─┤
2 ─┴──
";
        assert_eq!(picture("exact", 3), expected.trim_start_matches('\n'));
    }

    #[test]
    fn canonical_trees_forget_left_and_right_but_not_who_meets_whom() {
        let tree = |order: Order| order.tree(3, Launch::default()).canonical();
        assert_ne!(tree(Order::SEQUENTIAL), tree(Order::REVERSED));
        let swapped = Tree::node(vec![Tree::Leaf(2), Tree::node(vec![Tree::Leaf(1), Tree::Leaf(0)])]);
        assert_eq!(swapped.canonical(), tree(Order::SEQUENTIAL));
    }

    #[test]
    fn depth_counts_the_additions_of_the_deepest_term() {
        let depth = |order: &str| order.parse::<Order>().unwrap().tree(64, Launch::default()).depth();
        assert_eq!(
            [depth("sequential"), depth("pairwise"), depth("lanes:8"), depth("exact")],
            [63, 6, 10, 1]
        );
    }
}
