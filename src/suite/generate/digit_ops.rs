//! What can be read off the digits of long numbers.

use serde::Deserialize;

use crate::suite::{
    answer::{Answer, Kind},
    compact::Compact,
    draw::Draw,
    problem::{Generator, Problem},
};

/// Tasks on single digits, by the length of the numbers.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DigitOps {
    /// Numbers up to this long have a compact form too.
    compact_digits: usize,
}

/// The lengths of the steps of difficulty.
const RANGES: [(&str, usize, usize); 3] = [("S", 1, 10), ("M", 11, 20), ("L", 21, 60)];
const TASKS: [Task; 8] = [
    Task::Digit,
    Task::Length,
    Task::Count,
    Task::Pairwise("digit_add", "add", |p, q| (p + q) % 10),
    Task::Pairwise("digit_max", "take the larger of", u8::max),
    Task::Pairwise("digit_min", "take the smaller of", u8::min),
    Task::Compare("max_hard", "larger"),
    Task::Compare("min_hard", "smaller"),
];

/// What is asked of the digits.
#[derive(Clone, Copy)]
enum Task {
    Digit,
    Length,
    Count,
    /// Something of both digits of every place: its name, its words, what it is.
    Pairwise(&'static str, &'static str, fn(u8, u8) -> u8),
    /// Which of two numbers that begin alike.
    Compare(&'static str, &'static str),
}

fn text(digits: &[u8]) -> String {
    digits.iter().map(|digit| char::from(b'0' + digit)).collect()
}

impl Generator for DigitOps {
    fn cells(&self) -> usize {
        TASKS.len() * RANGES.len()
    }

    fn draw(&self, cell: usize, draw: &mut Draw) -> Vec<Problem> {
        let task = TASKS[cell % TASKS.len()];
        let (range, shortest, longest) = RANGES[cell / TASKS.len()];
        let length = draw.between(shortest as i64, longest as i64) as usize;
        let digits = draw.digits(length);
        let number = text(&digits);
        let (name, operands, question, answer, compact) = match task {
            Task::Digit => {
                let at = draw.place(length);
                (
                    "get_digit",
                    vec![number.clone(), at.to_string()],
                    format!("Counting from 0 on the left, which digit of {number} stands at position {at}?"),
                    Answer::integer(digits[at]),
                    Compact {
                        prompt: format!("digit({number},{at})="),
                        scratchpad: each(&digits[..=at], |place, digit| format!("{place}:{digit}")),
                    },
                )
            }
            Task::Length => (
                "length",
                vec![number.clone()],
                format!("How many digits does {number} have?"),
                Answer::integer(length),
                Compact {
                    prompt: format!("length({number})="),
                    scratchpad: each(&digits, |place, digit| format!("{digit}:{}", place + 1)),
                },
            ),
            Task::Count => {
                let wanted = if draw.chance(4, 5) { *draw.pick(&digits) } else { draw.between(0, 9) as u8 };
                let so_far = |place| digits[..=place].iter().filter(|&&digit| digit == wanted).count();
                (
                    "count",
                    vec![number.clone(), wanted.to_string()],
                    format!("How many times does the digit {wanted} occur in {number}?"),
                    Answer::integer(so_far(length - 1)),
                    Compact {
                        prompt: format!("count({number},{wanted})="),
                        scratchpad: each(&digits, |place, digit| format!("{digit}:{}", so_far(place))),
                    },
                )
            }
            Task::Pairwise(name, words, of) => {
                let second = draw.between(length.div_ceil(2) as i64, length as i64) as usize;
                let mut shorter = draw.digits(second);
                let other = text(&shorter);
                shorter.splice(..0, vec![0; length - second]);
                let result: Vec<_> = digits.iter().zip(&shorter).map(|(&p, &q)| of(p, q)).collect();
                let steps = (0..length).rev().map(|at| text(&[digits[at], shorter[at], result[at]]));
                let question = format!(
                    "Write {number} and {other} below each other, the last digits aligned and missing digits as 0, \
                     and {words} the two digits of every column, {}. Which digits result, from left to right?",
                    if name == "digit_add" {
                        "keeping only the last digit of each sum"
                    } else {
                        "one by one"
                    }
                );
                let compact = Compact {
                    prompt: format!("{name}({number},{other})="),
                    scratchpad: steps.collect::<Vec<_>>().join(";"),
                };
                let answer = Answer::new(Kind::Digits, text(&result));
                (name, vec![number, other], question, answer, compact)
            }
            Task::Compare(name, word) => {
                // Alike for a while, then not: of one digit there is nothing to be alike.
                let alike = draw.place(length);
                let mut other = digits.clone();
                while other[alike] == digits[alike] {
                    let low = i64::from(alike == 0 && length > 1);
                    for (at, digit) in other.iter_mut().enumerate().skip(alike) {
                        *digit = draw.between(if at == alike { low } else { 0 }, 9) as u8;
                    }
                }
                let compact = Compact {
                    prompt: format!("{word}({number},{})=", text(&other)),
                    scratchpad: each(&digits[..=alike], |place, digit| format!("{digit}{}", other[place])),
                };
                let wanted = if word == "larger" {
                    digits.clone().max(other.clone())
                } else {
                    digits.clone().min(other.clone())
                };
                let other = text(&other);
                let question = format!("Which number is {word}, {number} or {other}?");
                (name, vec![number, other], question, Answer::integer(text(&wanted)), compact)
            }
        };
        let mut problem = Problem::new(format!("{name} {range}"), name, question, answer).of(operands);
        if length <= self.compact_digits {
            problem.compact = Some(compact);
        }
        vec![problem]
    }

    fn check(&self) -> Result<(), String> {
        if self.compact_digits > 100 {
            let digits = self.compact_digits;
            return Err(format!(
                "`compact_digits` is {digits}: no number has more than 60, take one from 0 to 60"
            ));
        }
        Ok(())
    }
}

/// A step for each digit, from the left.
fn each(digits: &[u8], step: impl Fn(usize, u8) -> String) -> String {
    digits.iter().enumerate().map(|(place, &digit)| step(place, digit)).collect::<Vec<_>>().join(",")
}
