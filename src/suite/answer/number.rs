//! Numbers as they are written, compared exactly, in time that is linear in their length.

use num_bigint::BigUint;

/// Above this many digits a ratio is compared part by part: products of long numbers are not linear, and no
/// gold answer is that long.
const LONG: usize = 4096;

/// A decimal in its one normal form: `± digits · 10^exponent`, no zero at either end of the digits.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Decimal {
    /// Zero is not negative.
    pub negative: bool,
    /// Empty for zero.
    pub digits: String,
    /// 0 for zero.
    pub exponent: i64,
}

impl Decimal {
    /// Reads digits with at most one point, thousands separated by commas or not at all.
    fn unsigned(text: &str) -> Option<Decimal> {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        let mut digits = ungrouped(whole)?;
        digits.push_str(fraction);
        if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let significant = digits.trim_end_matches('0');
        let zeros = digits.len() - significant.len();
        let significant = significant.trim_start_matches('0');
        let exponent = if significant.is_empty() { 0 } else { zeros as i64 - fraction.len() as i64 };
        Some(Decimal { negative: false, digits: significant.to_owned(), exponent })
    }

    /// Is this a whole number?
    pub fn is_integer(&self) -> bool {
        self.exponent >= 0
    }

    fn is_one(&self) -> bool {
        !self.negative && self.digits == "1" && self.exponent == 0
    }

    /// The product's magnitude.
    fn times(&self, other: Option<&Decimal>) -> (String, i64) {
        let Some(other) = other else { return (self.digits.clone(), self.exponent) };
        let integer = |digits: &str| BigUint::parse_bytes(digits.as_bytes(), 10).unwrap_or_default();
        let product = (integer(&self.digits) * integer(&other.digits)).to_string();
        let significant = product.trim_end_matches('0');
        let zeros = (product.len() - significant.len()) as i64;
        let exponent = if significant.is_empty() { 0 } else { self.exponent + other.exponent + zeros };
        (significant.to_owned(), exponent)
    }
}

/// The digits of `1,234,567`, or of `1234567`; nothing where a comma separates anything else, as in `1,2,3` or
/// `0,123`.
fn ungrouped(text: &str) -> Option<String> {
    let Some((first, rest)) = text.split_once(',') else { return Some(text.to_owned()) };
    let thousands = (1..=3).contains(&first.len())
        && !first.starts_with('0')
        && rest.split(',').all(|group| group.len() == 3);
    thousands.then(|| text.replace(',', ""))
}

/// A decimal, or a ratio of two, and how it was written.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Number {
    /// What stands before the `/`.
    pub numerator: Decimal,
    /// What stands behind it: positive.
    pub denominator: Option<Decimal>,
    /// Was there an `e` or a `10^`?
    pub scientific: bool,
}

impl Number {
    /// Reads all of a text: `-1,234.50`, `+.5`, `6.02e23`, `6.02 × 10^23`, `-3/4`, `$5`, `50%`. A currency
    /// sign and a percent sign are units, which say nothing about the number.
    pub fn parse(text: &str) -> Option<Number> {
        let text = trimmed(text);
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text).trim_start_matches([' ', '$']);
        let (numerator, denominator) = match unsigned.split_once('/') {
            Some((left, right)) => (left.trim_end(), Some(right.trim_start())),
            None => (unsigned, None),
        };
        let (mut numerator, scientific) = scientific(numerator)?;
        let denominator = match denominator {
            Some(text) => Some(Decimal::unsigned(text).filter(|decimal| !decimal.digits.is_empty())?),
            None => None,
        };
        numerator.negative = text.starts_with('-') && !numerator.digits.is_empty();
        Some(Number { numerator, denominator, scientific })
    }

    /// Do both have one value?
    pub fn equals(&self, other: &Number) -> bool {
        if self.denominator.is_none() && other.denominator.is_none() {
            return self.numerator == other.numerator;
        }
        let parts = [
            Some(&self.numerator),
            Some(&other.numerator),
            self.denominator.as_ref(),
            other.denominator.as_ref(),
        ];
        if parts.into_iter().flatten().any(|decimal| decimal.digits.len() > LONG) {
            return self.numerator == other.numerator && self.denominator == other.denominator;
        }
        // a / b = c / d exactly if ad = cb.
        self.numerator.negative == other.numerator.negative
            && self.numerator.times(other.denominator.as_ref())
                == other.numerator.times(self.denominator.as_ref())
    }

    /// Are both written as the same ratio of whole numbers? One of denominator 1 may go without.
    pub fn is_ratio(&self, other: &Number) -> bool {
        let denominator = |number: &Number| number.denominator.clone().filter(|decimal| !decimal.is_one());
        !(self.scientific || other.scientific)
            && self.numerator.is_integer()
            && self.numerator == other.numerator
            && denominator(self) == denominator(other)
    }
}

/// What may stand around an answer and is no part of it.
pub(crate) fn trimmed(text: &str) -> &str {
    let decoration = |c: char| c.is_whitespace() || "*_`\"'$“”‘’".contains(c);
    let end = |c: char| decoration(c) || ".,;:!?%".contains(c);
    text.trim_start_matches(decoration).trim_end_matches(end)
}

/// A decimal with or without an exponent, and whether there was one.
fn scientific(text: &str) -> Option<(Decimal, bool)> {
    let Some((mantissa, exponent)) = split_exponent(text) else {
        return Some((Decimal::unsigned(text)?, false));
    };
    let mut decimal = Decimal::unsigned(mantissa)?;
    let digits = exponent.strip_prefix(['-', '+']).unwrap_or(exponent);
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    // Room for any sum of exponents and lengths in an i64. Nothing larger is anybody's answer.
    let size = digits.trim_start_matches('0');
    let size: i64 = if size.is_empty() { 0 } else { size.parse().ok().filter(|&size| size < 1 << 50)? };
    if !decimal.digits.is_empty() {
        decimal.exponent += if exponent.starts_with('-') { -size } else { size };
    }
    Some((decimal, true))
}

/// What stands before and behind `e`, or before `· 10` and behind its `^`.
fn split_exponent(text: &str) -> Option<(&str, &str)> {
    if let Some(split) = text.split_once(['e', 'E']) {
        return Some(split);
    }
    let (mantissa, power) = text.split_once(['*', '×', '·', 'x'])?;
    let exponent = power.trim_start().strip_prefix("10^")?;
    let braced = exponent.strip_prefix('{').and_then(|exponent| exponent.strip_suffix('}'));
    Some((mantissa.trim_end(), braced.unwrap_or(exponent)))
}

/// The numbers in a text, in turn: a longest run of digits, points and commas that holds a digit, with the sign
/// before it, and the exponent and the denominator behind it.
///
/// The run is taken whole, so `1,2,3`, `1.234,56` and `3.14.15` are found and then are no number: half of
/// something is never an answer. A minus is a sign unless it stands behind a letter, a digit or a bracket.
pub(crate) fn numbers(text: &str) -> impl Iterator<Item = &str> {
    let bytes = text.as_bytes();
    let mut from = 0;
    std::iter::from_fn(move || {
        let digit = from + bytes[from..].iter().position(u8::is_ascii_digit)?;
        // `.5` begins with its point, `..5` does not.
        let point = digit > from && bytes[digit - 1] == b'.' && (digit < 2 || bytes[digit - 2] != b'.');
        let start = signed(bytes, digit - usize::from(point));
        let end = tail(text, digit + run(&bytes[digit..]));
        from = end;
        Some(&text[start..end])
    })
}

/// How long a run of digits, points and commas is that ends in a digit.
fn run(bytes: &[u8]) -> usize {
    let all = bytes.iter().take_while(|byte| matches!(byte, b'0'..=b'9' | b'.' | b',')).count();
    bytes[..all].iter().rposition(u8::is_ascii_digit).map_or(0, |last| last + 1)
}

/// Where a number begins whose first digit or point stands here: with its sign.
fn signed(bytes: &[u8], start: usize) -> usize {
    let dollar = start - usize::from(start > 0 && bytes[start - 1] == b'$');
    if dollar == 0 || !matches!(bytes[dollar - 1], b'-' | b'+') {
        return start;
    }
    let binary =
        dollar > 1 && (bytes[dollar - 2].is_ascii_alphanumeric() || b")]}".contains(&bytes[dollar - 2]));
    if binary { start } else { dollar - 1 }
}

/// Where a number ends whose digits end here: behind its exponent and its denominator.
fn tail(text: &str, mut end: usize) -> usize {
    let digits =
        |from: usize| text.as_bytes()[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let skip = |from: usize, choices: &[&str]| {
        choices.iter().find(|choice| text[from..].starts_with(**choice)).map(|choice| from + choice.len())
    };
    let power = skip(end, &[" * 10^", " × 10^", " x 10^", " · 10^", "*10^", "×10^", "x10^", "·10^"]);
    if let Some(start) = power.or_else(|| skip(end, &["e", "E"])) {
        let open = skip(start, &["{"]).filter(|_| power.is_some());
        let start = open.unwrap_or(start);
        let start = skip(start, &["-", "+"]).unwrap_or(start);
        let exponent = start + digits(start);
        let close = if open.is_some() { skip(exponent, &["}"]) } else { Some(exponent) };
        let glued = text.as_bytes().get(exponent).is_some_and(u8::is_ascii_alphanumeric);
        if let Some(close) = close.filter(|_| exponent > start && !glued) {
            end = close;
        }
    }
    let denominator = skip(end, &[" / ", "/"]).map(|start| (start, run(&text.as_bytes()[start..])));
    denominator.filter(|&(_, length)| length > 0).map_or(end, |(start, length)| start + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn equal(left: &str, right: &str) -> bool {
        Number::parse(left).unwrap().equals(&Number::parse(right).unwrap())
    }

    #[test]
    fn a_number_is_one_number_however_it_is_written() {
        for number in [
            "1234.5",
            "+1,234.50",
            "01234.5",
            "$1,234.5",
            "1.2345e3",
            "12345E-1",
            "1.2345 × 10^3",
            "2469/2",
            "1.2345*10^{3}",
        ] {
            assert!(equal("1234.5", number), "{number}");
            assert!(!equal("1234.5", &format!("-{}", number.trim_start_matches('+'))), "{number}");
        }
        assert!(equal("0", "-0.000") && equal("0", "0e5") && equal("0", "0/7") && equal("1/3", "2/6"));
        assert!(!equal("1/3", "0.333") && !equal("10", "1") && !equal("0.1", "1") && !equal("1/3", "-1/3"));
    }

    #[test]
    fn what_is_half_a_number_is_none() {
        for text in [
            "",
            "-",
            ".",
            "$",
            "1.2.3",
            "1,23",
            "12,34,567",
            "0,123",
            "1.234,56",
            "1e",
            "1e+",
            "1/0",
            "1/",
            "/2",
            "1/2/3",
        ] {
            assert_eq!(Number::parse(text), None, "{text}");
        }
        for text in
            ["1 2", "--5", "1e5e5", "(5)", "5 apples", "٣", "1e9999999999999999999", "1/-2", "0x1f", "NaN"]
        {
            assert_eq!(Number::parse(text), None, "{text}");
        }
    }

    #[test]
    fn numbers_in_a_text_are_taken_whole_and_with_their_signs() {
        let found = |text: &str| numbers(text).map(str::to_owned).collect::<Vec<_>>();
        assert_eq!(found("10-5 is -5, not +.5: (2)-3."), ["10", "5", "-5", "+.5", "2", "3"]);
        assert_eq!(
            found("(-3) x-3 -$4 5... 1,234, 1,2,3; 1.234,56"),
            ["-3", "3", "-$4", "5", "1,234", "1,2,3", "1.234,56"]
        );
        assert_eq!(
            found("1e5 1e 2e-3x 3 * 10^{-4} 3 * 4 2/3 2 / 3 2/x"),
            ["1e5", "1", "2", "3", "3 * 10^{-4}", "3", "4", "2/3", "2 / 3", "2"]
        );
    }

    #[test]
    fn a_ratio_in_lowest_terms_is_that_ratio_alone() {
        let ratio =
            |left: &str, right: &str| Number::parse(left).unwrap().is_ratio(&Number::parse(right).unwrap());
        assert!(ratio("-3/4", "-03/4.0") && ratio("5", "5/1") && ratio("5/1", "5"));
        assert!(!ratio("3/4", "6/8") && !ratio("3/4", "0.75") && !ratio("3/4", "-3/4"));
    }
}
