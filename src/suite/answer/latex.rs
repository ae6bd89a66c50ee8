//! Answers in LaTeX: freed of what does not matter, and evaluated where they are numbers.
//!
//! A small grader that is the same on every machine, and no algebra system: `(x+1)^2` and `x^2+2x+1` are two
//! answers. Dollars, spacing, `\left` and `\right`, units, degrees, percent signs and a prefix such as `x =` do
//! not matter. Numbers, `+ - * /`, fractions, mixed numbers, powers, roots and π are evaluated, exactly as long
//! as they are ratios. Tuples, intervals and lists are compared element by element, sets in any order.

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{One, Signed, ToPrimitive, Zero};
use std::borrow::Cow;

use super::{
    How, Judgment,
    number::{Decimal, Number},
};

/// Longer texts, in bytes, are compared as they are.
const LONG: usize = 2048;
/// How deep braces may nest in what is evaluated.
const DEPTH: usize = 40;
/// The most bits of a numerator or a denominator.
const BITS: u64 = 1 << 13;
/// The most elements of a set that is compared in any order.
const SET: usize = 32;
/// How near two values lie that are taken for one, relative to the larger.
const NEAR: f64 = 1e-9;

/// Are two answers one?
pub fn judge(gold: &str, given: &str) -> Judgment {
    let long = gold.len().max(given.len()) > LONG;
    if let (true, Some(gold), Some(given)) = (long, Number::parse(gold), Number::parse(given)) {
        return Judgment { equal: gold.equals(&given), how: How::Exact };
    }
    let read = |text: &str| if long { text.to_owned() } else { tidy(text) };
    let (gold, given) = (read(gold), read(given));
    let by_value = if long { None } else { Form::of(&gold).compare(&Form::of(&given)) };
    let spaceless = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
    match by_value {
        Some(judgment) if judgment.equal => judgment,
        _ if spaceless(&gold) == spaceless(&given) => Judgment { equal: true, how: How::String },
        other => other.unwrap_or(Judgment { equal: false, how: How::String }),
    }
}

/// Is this a formula whose value can be told, or several?
pub(crate) fn has_value(text: &str) -> bool {
    text.len() <= LONG && Form::of(&tidy(text)).elements.iter().all(|element| evaluate(element).is_some())
}

/// What stands for what, before anything else is looked at.
const SYMBOLS: &[(&str, &str)] = &[
    ("^{\\circ}", ""),
    ("^\\circ", ""),
    ("°", ""),
    ("{,}", ","),
    ("\\(", ""),
    ("\\)", ""),
    ("\\[", ""),
    ("\\]", ""),
    ("\\!", ""),
    ("\\,", ""),
    ("\\$", ""),
    ("\\%", ""),
    ("\\;", " "),
    ("\\:", " "),
    ("\\ ", " "),
    ("~", " "),
    ("$", ""),
    ("%", ""),
    ("\u{2212}", "-"),
    ("×", "*"),
    ("·", "*"),
    ("÷", "/"),
    ("π", "\\pi "),
    ("√", "\\sqrt "),
    ("∞", "\\infty "),
];

/// A text without the LaTeX around a plain number or word: as it is where there is none.
pub(crate) fn plain(text: &str) -> Cow<'_, str> {
    if text.len() > LONG || !text.contains(['\\', '{', '$']) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(slashed(&tidy(text)))
}

/// `\frac{3}{4}` as `3/4`, where both are whole numbers and nothing makes the number a mixed one.
fn slashed(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, fraction)) = rest.split_once("\\frac{") {
        out.push_str(before);
        let mixed = before.trim_end().ends_with(|c: char| c.is_ascii_digit());
        let whole = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if let Some((numerator, behind)) = fraction.split_once("}{")
            && let Some((denominator, behind)) = behind.split_once('}')
            && whole(numerator.trim_start_matches('-'))
            && whole(denominator)
            && !mixed
        {
            out.extend([numerator, "/", denominator]);
            rest = behind;
        } else {
            out.push_str("\\frac{");
            rest = fraction;
        }
    }
    out + rest
}

/// An answer without what does not matter in it. Only for short texts.
fn tidy(text: &str) -> String {
    let mut text = text.trim().to_owned();
    for (from, to) in SYMBOLS {
        text = text.replace(from, to);
    }
    let text = braced(&commands(&text));
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let text = text.trim_matches(|c: char| c.is_whitespace() || "*_`".contains(c));
    let text = text.trim_end_matches(['.', ',', ' ']);
    unnamed(text).to_owned()
}

/// The name after a backslash: letters, or one other character.
fn command(text: &str) -> usize {
    let letters = text[1..].bytes().take_while(u8::is_ascii_alphabetic).count();
    if letters > 0 { 1 + letters } else { 1 + text[1..].chars().next().map_or(0, char::len_utf8) }
}

/// Writes every command in its one way, and drops those that only shape what is seen.
fn commands(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let (name, after) = rest.split_at(command(rest));
        rest = after;
        match name {
            "\\left" | "\\right" | "\\big" | "\\Big" | "\\bigl" | "\\bigr" | "\\displaystyle"
            | "\\degree" => {}
            "\\quad" | "\\qquad" => out.push(' '),
            "\\dfrac" | "\\tfrac" | "\\cfrac" => out.push_str("\\frac"),
            "\\cdot" | "\\times" | "\\ast" => out.push('*'),
            "\\div" => out.push('/'),
            "\\in" => out.push_str("\\in "),
            "\\lbrace" => out.push_str("\\{"),
            "\\rbrace" => out.push_str("\\}"),
            "\\text" | "\\textbf" | "\\textit" | "\\textrm" | "\\mathrm" | "\\mathbf" | "\\mbox"
            | "\\boxed" | "\\fbox" => {
                let Some((content, after)) = group(rest) else { continue };
                rest = after;
                let word = content.trim();
                if matches!(word, "and" | "or") {
                    out.push(',');
                } else if name == "\\boxed" || name == "\\fbox" {
                    out.push_str(content);
                } else if out.trim().is_empty() || !ends_after_power(after) {
                    // Spaces, so that nothing is joined that was apart.
                    out.extend([" ", word, " "]);
                } else {
                    // A unit. Its power goes with it.
                    rest = "";
                }
            }
            _ => out.push_str(name),
        }
    }
    out + rest
}

/// Is there nothing more but, perhaps, a power?
fn ends_after_power(text: &str) -> bool {
    let power = text
        .trim_start()
        .strip_prefix('^')
        .map(|power| power.trim_start_matches(['{', '}', ' ', '0', '1', '2', '3', '-']));
    power.unwrap_or(text).trim_matches(['.', ' ']).is_empty()
}

/// What a pair of braces at the beginning of a text holds, and what follows.
fn group(text: &str) -> Option<(&str, &str)> {
    let inner = text.trim_start().strip_prefix('{')?;
    let mut depth = 1;
    for (at, byte) in inner.bytes().enumerate() {
        depth += i32::from(byte == b'{') - i32::from(byte == b'}');
        if depth == 0 {
            return Some((&inner[..at], &inner[at + 1..]));
        }
    }
    None
}

/// Puts the braces around what `\frac` and `\sqrt` take: `\frac12` is `\frac{1}{2}`, `\sqrt3` is `\sqrt{3}`.
fn braced(text: &str) -> String {
    let mut out = String::new();
    // How many arguments are still to come, at which depth.
    let mut wanted: Vec<(usize, u8)> = Vec::new();
    let mut depth = 0;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = if c == '\\' { command(rest) } else { c.len_utf8() };
        let (token, after) = rest.split_at(length);
        rest = after;
        let awaited = wanted.last().is_some_and(|&(at, _)| at == depth);
        if awaited && c.is_whitespace() {
            continue;
        }
        match token {
            "\\frac" | "\\sqrt" => {
                out.push_str(token);
                wanted.push((depth, if token == "\\frac" { 2 } else { 1 }));
                if token == "\\sqrt"
                    && rest.trim_start().starts_with('[')
                    && let Some((degree, after)) = rest.split_once(']')
                {
                    out.extend([degree.trim_start(), "]"]);
                    rest = after;
                }
                continue;
            }
            "{" => depth += 1,
            "}" => depth = depth.saturating_sub(1),
            _ if awaited => {
                out.extend(["{", token, "}"]);
                taken(&mut wanted);
                continue;
            }
            _ => {}
        }
        out.push_str(token);
        if token == "}" && wanted.last().is_some_and(|&(at, _)| at == depth) {
            taken(&mut wanted);
        }
    }
    out
}

/// One argument has come.
fn taken(wanted: &mut Vec<(usize, u8)>) {
    if let Some((_, count)) = wanted.last_mut() {
        *count -= 1;
        if *count == 0 {
            wanted.pop();
        }
    }
}

/// `x = 5` and `x \in [0, 1]` without what the answer is named.
fn unnamed(text: &str) -> &str {
    let Some((name, value)) = text.split_once("\\in ").or_else(|| text.split_once('=')) else { return text };
    let name = name.trim();
    let named = name.len() <= 12
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '\\')
        && name.chars().all(|c| c.is_ascii_alphanumeric() || "\\_(){}'".contains(c));
    if named && !value.contains('=') && !value.trim().is_empty() { value.trim() } else { text }
}

/// An answer as a number of elements between brackets.
struct Form<'a> {
    /// The opening and the closing bracket, empty for a bare list or a single answer.
    brackets: (&'a str, &'a str),
    elements: Vec<&'a str>,
}

impl<'a> Form<'a> {
    fn of(text: &'a str) -> Form<'a> {
        for open in ["(", "[", "\\{"] {
            for close in [")", "]", "\\}"] {
                let inner = text.strip_prefix(open).and_then(|text| text.strip_suffix(close));
                let Some(elements) = inner.and_then(split) else { continue };
                // One thing in round brackets is that thing.
                if elements.len() > 1 || open != "(" {
                    return Form { brackets: (open, close), elements };
                }
            }
        }
        Form { brackets: ("", ""), elements: split(text).unwrap_or_else(|| vec![text]) }
    }

    /// Nothing where the two are not of one shape, or an element has no value.
    fn compare(&self, other: &Form<'_>) -> Option<Judgment> {
        if self.brackets != other.brackets || self.elements.len() != other.elements.len() {
            return None;
        }
        if self.brackets.0 != "\\{" || self.elements.len() > SET {
            let each = self.elements.iter().zip(&other.elements).map(|(left, right)| same(left, right));
            return each.reduce(all)?;
        }
        let mut left: Vec<&&str> = other.elements.iter().collect();
        let mut judgment = Judgment { equal: true, how: How::Exact };
        for element in &self.elements {
            let found =
                left.iter().position(|other| same(element, other).is_some_and(|found| found.equal))?;
            judgment = all(same(element, left.swap_remove(found)), Some(judgment))?;
        }
        Some(judgment)
    }
}

/// Both.
fn all(left: Option<Judgment>, right: Option<Judgment>) -> Option<Judgment> {
    let (left, right) = (left?, right?);
    Some(Judgment { equal: left.equal && right.equal, how: left.how.max(right.how) })
}

/// Cuts at the commas outside of all brackets; nothing if a bracket is closed that was not opened. A comma
/// between thousands cuts nothing.
fn split(text: &str) -> Option<Vec<&str>> {
    let bytes = text.as_bytes();
    let digits = |from: usize| bytes[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (mut elements, mut start, mut depth) = (Vec::new(), 0, 0_usize);
    for (at, byte) in bytes.iter().enumerate() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.checked_sub(1)?,
            b',' if depth == 0 => {
                let before = bytes[..at].iter().rev().take_while(|byte| byte.is_ascii_digit()).count();
                if !(1..=3).contains(&before) || digits(at + 1) != 3 {
                    elements.push(text[start..at].trim());
                    start = at + 1;
                }
            }
            _ => {}
        }
    }
    elements.push(text[start..].trim());
    Some(elements)
}

/// Are two elements one? Nothing where one has no value and they are not written alike.
fn same(left: &str, right: &str) -> Option<Judgment> {
    match (evaluate(left), evaluate(right)) {
        (Some(Value::Exact(left)), Some(Value::Exact(right))) => {
            Some(Judgment { equal: left == right, how: How::Exact })
        }
        (Some(left), Some(right)) => {
            let (left, right) = (left.near()?, right.near()?);
            let near = (left - right).abs() <= NEAR * left.abs().max(right.abs());
            Some(Judgment { equal: near, how: How::Numeric })
        }
        _ => (left == right).then_some(Judgment { equal: true, how: How::String }),
    }
}

/// The value of a formula without unknowns.
#[derive(Clone, Debug)]
enum Value {
    Exact(BigRational),
    Near(f64),
}

impl Value {
    fn near(&self) -> Option<f64> {
        match self {
            Value::Exact(ratio) => ratio.to_f64().filter(|value| value.is_finite()),
            Value::Near(value) => Some(*value),
        }
    }

    /// Only while it is neither too long to go on with nor infinite.
    fn kept(self) -> Option<Value> {
        let kept = match &self {
            Value::Exact(ratio) => ratio.numer().bits().max(ratio.denom().bits()) <= BITS,
            Value::Near(value) => value.is_finite(),
        };
        kept.then_some(self)
    }

    fn with(
        self,
        other: Value,
        exact: impl Fn(BigRational, BigRational) -> BigRational,
        near: impl Fn(f64, f64) -> f64,
    ) -> Option<Value> {
        match (self, other) {
            (Value::Exact(left), Value::Exact(right)) => Value::Exact(exact(left, right)),
            (left, right) => Value::Near(near(left.near()?, right.near()?)),
        }
        .kept()
    }

    fn plus(self, other: Value) -> Option<Value> {
        self.with(other, |left, right| left + right, |left, right| left + right)
    }

    fn times(self, other: Value) -> Option<Value> {
        self.with(other, |left, right| left * right, |left, right| left * right)
    }

    fn over(self, other: Value) -> Option<Value> {
        if other.near()? == 0.0 {
            return None;
        }
        self.with(other, |left, right| left / right, |left, right| left / right)
    }

    fn negated(self) -> Value {
        match self {
            Value::Exact(ratio) => Value::Exact(-ratio),
            Value::Near(value) => Value::Near(-value),
        }
    }

    /// A power of a whole number or of a ratio, which is a root.
    fn power(self, exponent: &Value) -> Option<Value> {
        let Value::Exact(exponent) = exponent else { return None };
        let root = exponent.denom().to_u32()?;
        let count = exponent.numer().abs().to_u32().filter(|&count| u64::from(count) <= BITS)?;
        let mut power = Value::Exact(BigRational::one());
        let base = if root == 1 { self } else { self.root(root)? };
        for bit in (0..u32::BITS - count.leading_zeros()).rev() {
            power = power.clone().times(power)?;
            if count >> bit & 1 == 1 {
                power = power.times(base.clone())?;
            }
        }
        if exponent.is_negative() { Value::Exact(BigRational::one()).over(power) } else { Some(power) }
    }

    /// The real root, exact where it is a ratio.
    fn root(self, degree: u32) -> Option<Value> {
        if !(2..=64).contains(&degree) {
            return None;
        }
        if let Value::Exact(ratio) = &self {
            if ratio.is_negative() {
                return if degree % 2 == 1 { Some(self.negated().root(degree)?.negated()) } else { None };
            }
            let root = BigRational::new_raw(ratio.numer().nth_root(degree), ratio.denom().nth_root(degree));
            if num_traits::pow(root.clone(), degree as usize) == *ratio {
                return Some(Value::Exact(root));
            }
        }
        let value = self.near().filter(|&value| value >= 0.0)?;
        Value::Near(if degree == 2 { value.sqrt() } else { newton(value, degree) }).kept()
    }
}

/// A root by Newton's iteration from above, which falls until it stands still: nothing but IEEE operations.
fn newton(value: f64, degree: u32) -> f64 {
    let n = f64::from(degree);
    let power = |x: f64| (1..degree).fold(1.0, |power, _| power * x);
    let mut x = value.max(1.0);
    // From 2^1024 on it takes 64 ln(2^1024) steps at most to come near.
    for _ in 0..100_000 {
        let next = ((n - 1.0) * x + value / power(x)) / n;
        if next >= x {
            break;
        }
        x = next;
    }
    x
}

/// What a formula is worth, if it is one of numbers alone.
fn evaluate(text: &str) -> Option<Value> {
    let mut parser = Parser { rest: text, depth: 0 };
    let value = parser.sum()?;
    parser.rest.trim().is_empty().then_some(value)
}

/// Reads a formula from the left. Every method takes what it read off `rest`.
struct Parser<'a> {
    rest: &'a str,
    depth: usize,
}

impl Parser<'_> {
    fn take(&mut self, token: &str) -> bool {
        let rest = self.rest.trim_start().strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn sum(&mut self) -> Option<Value> {
        self.depth += 1;
        if self.depth > DEPTH {
            return None;
        }
        let mut sum = self.product()?;
        loop {
            if self.take("+") {
                sum = sum.plus(self.product()?)?;
            } else if self.take("-") {
                sum = sum.plus(self.product()?.negated())?;
            } else {
                self.depth -= 1;
                return Some(sum);
            }
        }
    }

    fn product(&mut self) -> Option<Value> {
        let mut negative = false;
        while self.take("-") || (negative && self.take("+")) {
            negative = !negative;
        }
        self.take("+");
        let mut product = self.power()?;
        loop {
            if self.take("*") {
                product = product.times(self.signed_power()?)?;
            } else if self.take("/") {
                product = product.over(self.signed_power()?)?;
            } else if ["(", "\\pi", "\\sqrt", "\\frac", "{"]
                .iter()
                .any(|start| self.rest.trim_start().starts_with(start))
            {
                product = product.times(self.power()?)?;
            } else {
                return Some(if negative { product.negated() } else { product });
            }
        }
    }

    fn signed_power(&mut self) -> Option<Value> {
        let negative = self.take("-");
        let power = self.power()?;
        Some(if negative { power.negated() } else { power })
    }

    fn power(&mut self) -> Option<Value> {
        let base = self.atom()?;
        if !self.take("^") {
            return Some(base);
        }
        let negative = self.take("-");
        let exponent = self.atom()?;
        base.power(&if negative { exponent.negated() } else { exponent })
    }

    fn atom(&mut self) -> Option<Value> {
        if self.take("\\pi") {
            return Some(Value::Near(std::f64::consts::PI));
        }
        if self.take("\\frac") {
            let numerator = self.bracketed("{", "}")?;
            return numerator.over(self.bracketed("{", "}")?);
        }
        if self.take("\\sqrt") {
            let degree =
                if self.rest.trim_start().starts_with('[') { self.bracketed("[", "]")? } else { exact(2) };
            let Value::Exact(degree) = degree else { return None };
            let degree = degree.to_integer().to_u32().filter(|_| degree.is_integer())?;
            return self.bracketed("{", "}")?.root(degree);
        }
        match self.rest.trim_start().as_bytes().first()? {
            b'(' => self.bracketed("(", ")"),
            b'{' => self.bracketed("{", "}"),
            _ => self.mixed(),
        }
    }

    fn bracketed(&mut self, open: &str, close: &str) -> Option<Value> {
        let value = if self.take(open) { self.sum()? } else { return None };
        self.take(close).then_some(value)
    }

    /// A number: `5`, `2.5`, `1,000`, or the mixed `1 3/4` and `1\frac{3}{4}`.
    fn mixed(&mut self) -> Option<Value> {
        let whole = self.number()?;
        let saved = self.rest;
        let spaced = saved.starts_with(' ');
        let fraction = if self.take("\\frac{") {
            self.ratio("}{", "}")
        } else if spaced {
            self.ratio("/", "")
        } else {
            None
        };
        let is_whole = matches!(&whole, Value::Exact(ratio) if ratio.is_integer());
        match fraction.filter(|_| is_whole) {
            Some(fraction) => whole.plus(fraction),
            None => {
                self.rest = saved;
                Some(whole)
            }
        }
    }

    /// Two plain numbers with this between and this behind them.
    fn ratio(&mut self, between: &str, behind: &str) -> Option<Value> {
        let numerator = self.number()?;
        let denominator = if self.take(between) { self.number()? } else { return None };
        self.take(behind);
        numerator.over(denominator)
    }

    fn number(&mut self) -> Option<Value> {
        let rest = self.rest.trim_start();
        let length = rest.bytes().take_while(|byte| matches!(byte, b'0'..=b'9' | b'.' | b',')).count();
        let number = Number::parse(&rest[..length])
            .filter(|_| !rest[..length].ends_with([',', '.']) || length == 0)?;
        self.rest = &rest[length..];
        Value::Exact(ratio(&number.numerator)?).kept()
    }
}

fn exact(integer: u32) -> Value {
    Value::Exact(BigRational::from_integer(integer.into()))
}

/// A decimal of few digits and places as a ratio.
pub(super) fn ratio(decimal: &Decimal) -> Option<BigRational> {
    let places = usize::try_from(decimal.exponent.unsigned_abs()).ok().filter(|&places| places <= LONG)?;
    if decimal.digits.len() > LONG {
        return None;
    }
    let digits = BigInt::parse_bytes(decimal.digits.as_bytes(), 10).unwrap_or_else(BigInt::zero);
    let digits = if decimal.negative { -digits } else { digits };
    let scale = num_traits::pow(BigInt::from(10), places);
    Some(if decimal.exponent < 0 {
        BigRational::new(digits, scale)
    } else {
        BigRational::from_integer(digits * scale)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(gold: &str, given: &str) -> String {
        let judgment = judge(gold, given);
        let how = serde_json::to_string(&judgment.how).unwrap();
        format!("{}{}", if judgment.equal { "" } else { "not " }, how.trim_matches('"'))
    }

    /// Which of them are equal was taken from Math-Verify 0.9.0 over SymPy 1.14.0, both texts between dollars.
    #[test]
    fn answers_are_equal_where_math_verify_says_so() {
        for (gold, given, expected) in [
            (r"\frac34", "0.75", "exact"),
            (r"\frac{3}{4}", "3/4", "exact"),
            (r"\dfrac{6}{8}", r"\tfrac34", "exact"),
            ("0.333", r"\frac13", "not exact"),
            (r"1\frac34", "1.75", "exact"),
            (r"\sqrt{8}", r"2\sqrt2", "numeric"),
            (r"\frac{1}{\sqrt2}", r"\frac{\sqrt{2}}{2}", "numeric"),
            (r"\sqrt[3]{27}", "3", "exact"),
            (r"\sqrt[3]{2}", "2^{1/3}", "numeric"),
            (r"\sqrt{\frac49}", r"\frac23", "exact"),
            (r"\sqrt{2}", "1.414", "not numeric"),
            (r"2\pi", r"\pi\cdot2", "numeric"),
            (r"\frac{\pi}{3}", r"\pi/3", "numeric"),
            (r"\pi", "3.14", "not numeric"),
            (r"\pi", "3.141592653589793", "numeric"),
            ("2^{10}", "1024", "exact"),
            ("2^10", "1024", "exact"),
            ("(-2)^3", "-8", "exact"),
            ("-2^2", "-4", "exact"),
            ("2^{-3}", r"\frac18", "exact"),
            ("8^{2/3}", "4", "exact"),
            ("1,000", "1000", "exact"),
            (r"10,\!000", "10000", "exact"),
            ("1{,}234", "1234", "exact"),
            ("5.0", "5", "exact"),
            (".5", r"\frac12", "exact"),
            ("-0", "0", "exact"),
            ("--5", "5", "exact"),
            ("(1,2)", "(1, 2)", "exact"),
            ("(1,2)", "(2,1)", "not exact"),
            ("[0,1)", "[0,1]", "not string"),
            ("[0,1)", r"\left[0,1\right)", "exact"),
            (r"\{1,2\}", r"\{2,1\}", "exact"),
            (r"(\frac12,3)", "(0.5,3)", "exact"),
            (r"(-\infty,3]", r"(-\infty, 3]", "string"),
            ("1,2", "1, 2", "exact"),
            (r"90^\circ", "90", "exact"),
            (r"5\text{ cm}", "5", "exact"),
            (r"5\text{ cm}^2", "5", "exact"),
            ("x=5", "5", "exact"),
            (r"x \in [1,2]", "[1,2]", "exact"),
            (r"50\%", "50", "exact"),
            (r"\text{Monday}", "Monday", "string"),
            ("x^2+1", "x^2 + 1", "string"),
            (r"3\cdot10^8", "300000000", "exact"),
            ("1/0", "1/0", "string"),
            ("2(3+4)", "14", "exact"),
            (r"\frac{1+\sqrt5}{2}", "1.618033988749895", "numeric"),
            (r"\left(\frac{2}{3}\right)^2", r"\frac49", "exact"),
            (r"\sqrt{-1}", "i", "not string"),
            ("6-5i", "6 - 5i", "string"),
            ("2516_8", "2516_8", "string"),
            ("14", "15", "not exact"),
            (r"11\sqrt{2}", "15.556349186104045", "numeric"),
            (r"\frac{270}7\text{ degrees}", r"38\frac47", "exact"),
        ] {
            assert_eq!(shown(gold, given), expected, "{gold} and {given}");
            assert_eq!(shown(given, gold), expected, "{given} and {gold}");
        }
    }

    /// Recorded from SymPy 1.14.0, which evaluated the same formulas: ratios as they are, others to 17 digits.
    #[test]
    fn formulas_have_the_values_that_sympy_gives_them() {
        for (formula, value) in [
            (r"\sqrt{1.0}\cdot \left(17\right)^{3}", "4913/1"),
            (r"\sqrt{4}/6", "1/3"),
            (r"\frac{(6.8\cdot 2.8)^{2}}{\left(16 + \sqrt{9}\right)\cdot (17 + \pi)}", "0.94729769083706064"),
            (r"\sqrt{\left(5.1\right)^{0} + 3\times 12}", "6.0827625302982197"),
            (r"\sqrt{\pi}", "1.7724538509055160"),
            (r"(8.1/4 + \left(17\right)^{2})\times \left(\sqrt[3]{2}\right)^{1}", "366.66852354565546"),
            (r"1.2-19-(-(8\cdot \sqrt{5}))", "0.088543819998317571"),
            (r"17 + \sqrt{3}", "18.732050807568877"),
            (r"-\frac{\pi}{\pi}", "-1/1"),
            (r"(\pi)^{0}\cdot \sqrt[5]{\sqrt{5}}", "1.1746189430880190"),
            (r"\dfrac{\sqrt[5]{17}}{\sqrt{2}\cdot \sqrt{3}}", "0.71947243421803314"),
            (r"\left(8.4\right)^{4} + \sqrt[5]{\sqrt{6}}", "4979.9098311988513"),
            (r"\frac{7}{\sqrt{5}}/(2-19)", "-0.18414677461762974"),
            (r"9.7/4\times \dfrac{\pi}{8.4}", "0.90694787916133912"),
            (r"18/11", "18/11"),
            (r"\dfrac{5/10 + 2*4}{\left(-17\right)/(-7.1)}", "71/20"),
            (r"12/3.3\times \left(20\cdot 15\right)", "12000/11"),
            (r"19-19 + 9/15", "3/5"),
            (r"-8", "-8/1"),
            (r"(3.1)^{1}", "31/10"),
            (r"\frac{\frac{16-8}{\dfrac{20}{1}}}{\frac{11}{16}\cdot \left(2.3\right)^{0}}", "32/55"),
            (r"\left(-3\right)^{4}", "81/1"),
        ] {
            assert!(judge(value, formula).equal, "{formula} and {value}");
        }
    }

    /// Math-Verify reads `1 3/4` as 1, takes the complex cube root of -8, rounds to six places, and knows algebra.
    #[test]
    fn answers_of_which_math_verify_says_otherwise() {
        for (gold, given, expected) in [
            ("1 3/4", r"\frac74", "exact"),
            (r"\sqrt[3]{-8}", "-2", "exact"),
            (r"\sqrt{2}", "1.41421356", "not numeric"),
            (r"\frac92", "4.5000000001", "not exact"),
            ("x^2+1", "1+x^2", "not string"),
            ("3!", "6", "not string"),
        ] {
            assert_eq!(shown(gold, given), expected, "{gold} and {given}");
        }
    }

    #[test]
    fn what_is_apart_is_not_joined() {
        for (gold, given) in [
            ("34", r"3\text{ and }4"),
            ("56", r"5\text{ ft }6\text{ in}"),
            ("12", "{1}{2}3"),
            ("5", "5x"),
            ("5", r"5\pi"),
        ] {
            assert!(!judge(gold, given).equal, "{gold} and {given}");
        }
        assert!(judge("3, 4", r"3\text{ and }4").equal);
    }

    #[test]
    fn nothing_is_too_large_or_too_deep_to_be_refused() {
        let nested = |depth: usize| format!("{}7{}", "(".repeat(depth), ")".repeat(depth));
        assert_eq!(shown("7", &nested(DEPTH - 1)), "exact");
        for text in [
            nested(DEPTH),
            nested(LONG),
            "(".repeat(LONG),
            "{".repeat(LONG),
            "-".repeat(LONG),
            "2^".repeat(500) + "2",
            "9^{9^{9^{9}}}".to_owned(),
            "(9^{999})^{999}".to_owned(),
            "10^{-99999}".to_owned(),
            r"\sqrt[65]{2}".to_owned(),
            r"\sqrt[99999999999999999999]{2}".to_owned(),
            r"\sqrt".repeat(400),
            r"\frac".repeat(400),
            r"\frac{1}{".repeat(200),
            "9".repeat(LONG),
            "1e-".to_owned() + &"9".repeat(9),
        ] {
            let start: String = text.chars().take(30).collect();
            assert!(!judge("7", &text).equal, "{start}");
            assert!(judge(&text, &text).equal, "{start}");
        }
    }

    #[test]
    fn a_root_is_right_to_fifteen_digits() {
        for (value, degree) in [(2.0, 3), (1e300, 7), (1e-300, 3), (0.5, 64), (10.0, 64)] {
            let root = newton(value, degree);
            let back = (1..degree).fold(root, |power, _| power * root);
            assert!(
                (back / value - 1.0).abs() < f64::from(degree) * 4.0 * f64::EPSILON,
                "{value} {degree} {back}"
            );
        }
    }
}
