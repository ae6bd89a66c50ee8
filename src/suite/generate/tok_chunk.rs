//! The same sums with separators at different places, which a tokenizer cuts into different pieces.

use serde::Deserialize;

use crate::suite::{
    answer::{Answer, Kind},
    draw::Draw,
    problem::{Generator, Problem},
};

/// With more digits a sum of two numbers would not fit.
const LENGTH_MAX: u32 = 18;

const REQUEST: &str = "Show no work. Reply with a single line \"Answer: N\", where N is the sum.";

/// Sums whose operands and result have given lengths. Each is asked three times, once in each format.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokChunk {
    /// How many digits the first number, the second and their sum have.
    lengths: Vec<[u32; 3]>,
}

/// Where the separators of a number stand.
#[derive(Clone, Copy, Debug)]
enum Format {
    /// Nowhere: `1234567`.
    None,
    /// After every three digits from the right: `1,234,567`.
    FromRight,
    /// After every three digits from the left: `123,456,7`.
    FromLeft,
}

const FORMATS: [(Format, &str); 3] =
    [(Format::None, "nosep"), (Format::FromRight, "comma_r2l"), (Format::FromLeft, "comma_l2r")];

impl Generator for TokChunk {
    fn cells(&self) -> usize {
        self.lengths.len()
    }

    fn group(&self) -> usize {
        FORMATS.len()
    }

    fn draw(&self, cell: usize, draw: &mut Draw) -> Vec<Problem> {
        let lengths @ [first, second, sum] = self.lengths[cell];
        let [a, b] = operands(lengths, draw);
        FORMATS
            .map(|(format, name)| {
                let [left, right] = [a, b].map(|number| written(number, format));
                let stratum = format!("{name}/{first}+{second}={sum}");
                let question = format!("What is {left} + {right}?");
                Problem {
                    cluster: Some(format!("{a}+{b}")),
                    completion: Some(format!("{left}+{right}=")),
                    request: Some(REQUEST.into()),
                    shown: Some(written(a + b, format)),
                    // Digits, because their separators do not count wherever they stand.
                    ..Problem::new(stratum, name, question, Answer::new(Kind::Digits, a + b))
                        .of([left, right])
                }
            })
            .into()
    }

    fn check(&self) -> Result<(), String> {
        if self.lengths.is_empty() {
            return Err("lengths is empty: give at least one, such as [7, 8, 9]".to_owned());
        }
        for (at, lengths) in self.lengths.iter().enumerate() {
            if lengths.iter().any(|length| !(1..=LENGTH_MAX).contains(length)) {
                return Err(format!(
                    "{lengths:?} in lengths has a number not in 1..={LENGTH_MAX}: give one that is"
                ));
            }
            let (low, high) = shorter_one(*lengths);
            if low > high {
                return Err(format!(
                    "{lengths:?} in lengths is not a sum: give the longer operand's length or one more as the \
                     third"
                ));
            }
            if self.lengths[..at].contains(lengths) {
                return Err(format!("{lengths:?} stands in lengths twice: leave one out"));
            }
        }
        Ok(())
    }
}

/// The smallest and the largest number of so many digits.
fn ends(length: u32) -> (i64, i64) {
    (if length == 1 { 0 } else { 10_i64.pow(length - 1) }, 10_i64.pow(length) - 1)
}

/// What the shorter operand lies between, so that there is a longer one and a sum.
fn shorter_one([first, second, sum]: [u32; 3]) -> (i64, i64) {
    let (short, long, sum) = (ends(first.min(second)), ends(first.max(second)), ends(sum));
    (short.0.max(sum.0 - long.1), short.1.min(sum.1 - long.0))
}

/// The shorter operand comes first, then the sum, any that is possible being as likely as any other.
fn operands(lengths: [u32; 3], draw: &mut Draw) -> [i64; 2] {
    let [first, second, sum] = lengths;
    let (low, high) = shorter_one(lengths);
    let short = draw.between(low, high);
    let (long, sum) = (ends(first.max(second)), ends(sum));
    let sum = draw.between(sum.0.max(long.0 + short), sum.1.min(long.1 + short));
    if first <= second { [short, sum - short] } else { [sum - short, short] }
}

fn written(number: i64, format: Format) -> String {
    let digits = number.to_string();
    let before = |at: usize| match format {
        Format::None => false,
        Format::FromRight => (digits.len() - at).is_multiple_of(3),
        Format::FromLeft => at.is_multiple_of(3),
    };
    let mut text = String::with_capacity(digits.len() * 2);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && before(at) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn separators_stand_after_every_three_digits_from_either_side() {
        let of = |number| FORMATS.map(|(format, _)| written(number, format));
        assert_eq!(of(1_234_567), ["1234567", "1,234,567", "123,456,7"]);
        assert_eq!(of(123_456), ["123456", "123,456", "123,456"]);
        assert_eq!(of(12), ["12", "12", "12"]);
    }

    #[test]
    fn lengths_that_no_sum_has_are_refused() {
        let of = |lengths: &[[u32; 3]]| TokChunk { lengths: lengths.to_vec() }.check();
        assert!(of(&[[7, 7, 7], [7, 9, 10], [1, 1, 1], [18, 1, 18]]).is_ok());
        for lengths in [[7, 7, 6], [7, 7, 9], [7, 9, 9 + 2], [0, 7, 7], [19, 7, 19]] {
            assert!(of(&[lengths]).is_err(), "{lengths:?}");
        }
        assert!(of(&[]).is_err());
        assert!(of(&[[7, 7, 7], [7, 7, 7]]).is_err());
    }
}
