//! Calculations and comparisons of whole numbers, as a template writes them.

use std::collections::BTreeMap;

use num_rational::Ratio;
use num_traits::{CheckedAdd as _, CheckedMul as _, CheckedSub as _, ToPrimitive as _, Zero as _};

/// What the names of a template stand for in one problem.
pub(super) type Values<'a> = BTreeMap<&'a str, Value<'a>>;

/// What a name stands for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Value<'a> {
    /// A number, which can be calculated with.
    Number(i64),
    /// A person, a thing, or what stands in a number's place.
    Word(&'a str),
}

impl std::fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Number(number) => write!(f, "{number}"),
            Value::Word(word) => f.write_str(word),
        }
    }
}

/// A number, a name, or what an operator makes of two of them.
#[derive(Clone, Debug)]
pub(super) enum Expression {
    /// A number as written.
    Number(i64),
    /// Whatever the name stands for.
    Name(String),
    /// An operator between two expressions.
    Pair(Box<Expression>, &'static Operator, Box<Expression>),
}

/// What may stand between two expressions.
#[derive(Debug)]
pub(super) struct Operator {
    sign: &'static str,
    /// A higher rank binds more tightly.
    rank: u8,
    /// None where there is no whole result, and for one that 64 bits do not hold.
    apply: fn(i64, i64) -> Option<i64>,
}

const COMPARISON: u8 = 0;
const SUM: u8 = 1;
const PRODUCT: u8 = 2;

/// A sign stands before those that it begins with.
static OPERATORS: [Operator; 11] = [
    Operator { sign: "<=", rank: COMPARISON, apply: |a, b| Some((a <= b).into()) },
    Operator { sign: ">=", rank: COMPARISON, apply: |a, b| Some((a >= b).into()) },
    Operator { sign: "==", rank: COMPARISON, apply: |a, b| Some((a == b).into()) },
    Operator { sign: "!=", rank: COMPARISON, apply: |a, b| Some((a != b).into()) },
    Operator { sign: "<", rank: COMPARISON, apply: |a, b| Some((a < b).into()) },
    Operator { sign: ">", rank: COMPARISON, apply: |a, b| Some((a > b).into()) },
    Operator { sign: "+", rank: SUM, apply: i64::checked_add },
    Operator { sign: "-", rank: SUM, apply: i64::checked_sub },
    Operator { sign: "*", rank: PRODUCT, apply: i64::checked_mul },
    Operator { sign: "/", rank: PRODUCT, apply: |a, b| (a.checked_rem(b)? == 0).then(|| a / b) },
    Operator { sign: "%", rank: PRODUCT, apply: i64::checked_rem_euclid },
];

/// No calculation of a word problem is longer, and none this long is nested too deeply to be read.
const LONGEST: usize = 200;

impl Expression {
    /// Reads a calculation, which compares nothing.
    ///
    /// # Errors
    ///
    /// Where it stops being one.
    pub(super) fn calculation(text: &str) -> Result<Expression, String> {
        read(text, SUM)
    }

    /// Reads a comparison of two calculations.
    ///
    /// # Errors
    ///
    /// Where it stops being one, and when it compares nothing.
    pub(super) fn condition(text: &str) -> Result<Expression, String> {
        match read(text, COMPARISON)? {
            condition @ Expression::Pair(_, Operator { rank: COMPARISON, .. }, _) => Ok(condition),
            _ => Err(format!("`{text}` compares nothing: write two sides with <, <=, >, >=, == or !=")),
        }
    }

    /// The names in it, left to right.
    pub(super) fn names(&self) -> Vec<&str> {
        match self {
            Expression::Number(_) => Vec::new(),
            Expression::Name(name) => vec![name],
            Expression::Pair(left, _, right) => [left.names(), right.names()].concat(),
        }
    }

    /// Its value, 1 for a true comparison. None where a division leaves a remainder, or without numbers.
    pub(super) fn value(&self, values: &Values) -> Option<i64> {
        match self {
            Expression::Number(number) => Some(*number),
            Expression::Name(name) => match values.get(name.as_str())? {
                Value::Number(number) => Some(*number),
                Value::Word(_) => None,
            },
            Expression::Pair(left, operator, right) => {
                (operator.apply)(left.value(values)?, right.value(values)?)
            }
        }
    }

    /// The line that it is when each of its names is one. None where it is no line.
    pub(super) fn line(&self, line_of: &impl Fn(&str) -> Option<Line>) -> Option<Line> {
        let (left, operator, right) = match self {
            Expression::Number(number) => return Some(Line::level(*number)),
            Expression::Name(name) => return line_of(name),
            Expression::Pair(left, operator, right) => (left.line(line_of)?, operator, right.line(line_of)?),
        };
        let of_both = |of: fn(&Ratio<i128>, &Ratio<i128>) -> Option<Ratio<i128>>| {
            Some(Line { slope: of(&left.slope, &right.slope)?, start: of(&left.start, &right.start)? })
        };
        match operator.sign {
            "+" => of_both(Ratio::checked_add),
            "-" => of_both(Ratio::checked_sub),
            "*" if right.slope.is_zero() => left.times(right.start),
            "*" if left.slope.is_zero() => right.times(left.start),
            "/" if right.slope.is_zero() && !right.start.is_zero() => left.times(right.start.recip()),
            _ => Some(Line::level((operator.apply)(left.as_level()?, right.as_level()?)?)),
        }
    }

    /// The calculation with numbers for its names.
    pub(super) fn written(&self, values: &Values) -> String {
        match self {
            Expression::Number(number) => number.to_string(),
            Expression::Name(name) => values.get(name.as_str()).map(Value::to_string).unwrap_or_default(),
            Expression::Pair(left, operator, right) => {
                let side = |side: &Expression, least: u8| match side {
                    Expression::Pair(_, inner, _) if inner.rank < least => {
                        format!("({})", side.written(values))
                    }
                    _ => side.written(values),
                };
                // What binds as tightly is read from the left.
                format!("{} {} {}", side(left, operator.rank), operator.sign, side(right, operator.rank + 1))
            }
        }
    }
}

/// `slope * x + start`, exactly; where that takes more than 128 bits there is no line.
#[derive(Clone, Copy, Debug)]
pub struct Line {
    /// By how much it rises when x does by 1.
    pub slope: Ratio<i128>,
    /// Its height where x is 0.
    pub start: Ratio<i128>,
}

impl Line {
    /// As high everywhere.
    pub fn level(height: i64) -> Line {
        Line { slope: Ratio::zero(), start: i128::from(height).into() }
    }

    /// As high as x.
    pub fn x() -> Line {
        Line { slope: 1.into(), start: Ratio::zero() }
    }

    /// The one x where it is so high. None where there is none, where every x is, and for no whole number.
    pub fn solve(&self, height: i64) -> Option<i64> {
        if self.slope.is_zero() {
            return None;
        }
        let rise = Ratio::from(i128::from(height)).checked_sub(&self.start)?;
        let x = rise.checked_mul(&self.slope.recip())?;
        if x.is_integer() { x.to_integer().to_i64() } else { None }
    }

    fn times(self, factor: Ratio<i128>) -> Option<Line> {
        Some(Line { slope: self.slope.checked_mul(&factor)?, start: self.start.checked_mul(&factor)? })
    }

    fn as_level(&self) -> Option<i64> {
        let whole = self.slope.is_zero() && self.start.is_integer();
        if whole { self.start.to_integer().to_i64() } else { None }
    }
}

fn read(text: &str, rank: u8) -> Result<Expression, String> {
    if text.len() > LONGEST {
        return Err(format!("`{text}` is longer than {LONGEST} characters: calculate a part of it before"));
    }
    let mut reader = Reader { text, rest: text };
    let expression = reader.expression(rank)?;
    if reader.peek().is_some() { Err(reader.stuck()) } else { Ok(expression) }
}

struct Reader<'a> {
    text: &'a str,
    rest: &'a str,
}

impl Reader<'_> {
    fn peek(&mut self) -> Option<char> {
        self.rest = self.rest.trim_start();
        self.rest.chars().next()
    }

    fn take(&mut self, sign: &str) -> bool {
        self.rest = self.rest.trim_start();
        let rest = self.rest.strip_prefix(sign);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn stuck(&self) -> String {
        let what = if self.rest.is_empty() {
            "ends too early".to_owned()
        } else {
            format!("is not understood from `{}` on", self.rest)
        };
        format!("`{}` {what}: write numbers and names with + - * / % and parentheses", self.text)
    }

    fn expression(&mut self, rank: u8) -> Result<Expression, String> {
        if rank > PRODUCT {
            return self.atom();
        }
        let mut left = self.expression(rank + 1)?;
        while let Some(operator) = OPERATORS.iter().find(|known| known.rank == rank && self.take(known.sign))
        {
            let right = self.expression(rank + 1)?;
            left = Expression::Pair(left.into(), operator, right.into());
            // `a < b < c` would compare c with 0 or 1.
            if rank == COMPARISON {
                break;
            }
        }
        Ok(left)
    }

    fn atom(&mut self) -> Result<Expression, String> {
        let first = self.peek();
        if self.take("(") {
            let inner = self.expression(SUM)?;
            return if self.take(")") { Ok(inner) } else { Err(self.stuck()) };
        }
        let end = self.rest.find(|c: char| !is_in_a_name(c)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        let atom = match first {
            Some('0'..='9') => word.parse().ok().map(Expression::Number),
            Some(_) if is_a_name(word) => Some(Expression::Name(word.to_owned())),
            _ => None,
        };
        let atom = atom.ok_or_else(|| self.stuck())?;
        self.rest = rest;
        Ok(atom)
    }
}

/// Small letters, digits and underscores, with a letter first.
pub(super) fn is_a_name(word: &str) -> bool {
    word.starts_with(|c: char| c.is_ascii_lowercase()) && word.chars().all(is_in_a_name)
}

fn is_in_a_name(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Values<'static> {
        let numbers = [("a", 7), ("b", 3), ("zero", 0), ("huge", i64::MAX)];
        let mut values: Values = numbers.map(|(name, number)| (name, Value::Number(number))).into();
        values.insert("n", Value::Word("Omar"));
        values
    }

    #[test]
    fn products_bind_more_tightly_than_sums_and_both_go_from_left_to_right() {
        for (text, value, written) in [
            ("a+b*2", Some(13), "7 + 3 * 2"),
            ("(a + b) * 2", Some(20), "(7 + 3) * 2"),
            ("a - b - 2", Some(2), "7 - 3 - 2"),
            ("a - (b - 2)", Some(6), "7 - (3 - 2)"),
            ("24 / 4 / 2", Some(3), "24 / 4 / 2"),
            ("24 / (4 / 2)", Some(12), "24 / (4 / 2)"),
            ("a * b % 4", Some(1), "7 * 3 % 4"),
            ("((a))", Some(7), "7"),
            ("a / b", None, "7 / 3"),
            ("a / zero", None, "7 / 0"),
            ("a % zero", None, "7 % 0"),
            ("huge + 1", None, "9223372036854775807 + 1"),
            ("n + 1", None, "Omar + 1"),
            ("missing", None, ""),
        ] {
            let expression = Expression::calculation(text).unwrap();
            assert_eq!(expression.value(&values()), value, "{text}");
            assert_eq!(expression.written(&values()), written, "{text}");
        }
    }

    #[test]
    fn a_comparison_is_one_or_zero() {
        for (text, value) in [
            ("a < b", 0),
            ("a > b", 1),
            ("a <= 7", 1),
            ("a >= 8", 0),
            ("a == b + 4", 1),
            ("a != 7", 0),
            ("a % b == 1", 1),
        ] {
            assert_eq!(Expression::condition(text).unwrap().value(&values()), Some(value), "{text}");
        }
    }

    #[test]
    fn what_is_no_expression_is_refused_with_the_place() {
        let way_out = "write numbers and names with + - * / % and parentheses";
        for (text, what) in [
            ("", "`` ends too early"),
            ("a +", "`a +` ends too early"),
            ("(a + b", "`(a + b` ends too early"),
            ("a b", "`a b` is not understood from `b` on"),
            ("a $ b", "`a $ b` is not understood from `$ b` on"),
            ("-a", "`-a` is not understood from `-a` on"),
            ("2x", "`2x` is not understood from `2x` on"),
            ("a < b", "`a < b` is not understood from `< b` on"),
            (
                "99999999999999999999",
                "`99999999999999999999` is not understood from `99999999999999999999` on",
            ),
        ] {
            assert_eq!(Expression::calculation(text).unwrap_err(), format!("{what}: {way_out}"));
        }
        assert_eq!(
            Expression::condition("a + b").unwrap_err(),
            "`a + b` compares nothing: write two sides with <, <=, >, >=, == or !="
        );
        let chain = "`a < b < 3` is not understood from `< 3` on";
        assert_eq!(Expression::condition("a < b < 3").unwrap_err(), format!("{chain}: {way_out}"));
        let deep = "(".repeat(100_000);
        assert!(Expression::calculation(&deep).unwrap_err().contains("longer than 200 characters"));
    }

    #[test]
    fn a_line_is_solved_exactly_or_not_at_all() {
        let line = |text: &str| {
            let of = |name: &str| Some(if name == "x" { Line::x() } else { Line::level(6) });
            Expression::calculation(text).unwrap().line(&of)
        };
        let solve = |text: &str, height| line(text).unwrap().solve(height);
        assert_eq!(solve("a * (x - 2) / 4", 9), Some(8));
        assert_eq!(solve("x / 4 + x / 4", 3), Some(6));
        assert_eq!(solve("2 * x + 1", 4), None);
        assert_eq!(solve("x - x", 0), None);
        assert_eq!(solve("x + a % 4", 3), Some(1));
        for text in ["x * x", "a / x", "x % 2", "x / (a - 6)", "a / 4 % 2"] {
            assert!(line(text).is_none(), "{text}");
        }
    }
}
