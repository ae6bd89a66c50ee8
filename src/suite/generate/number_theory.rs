//! Divisors, remainders, bases, powers and polynomials of whole numbers.

use serde::Deserialize;

use crate::suite::{
    answer::{Answer, Kind},
    compact,
    draw::Draw,
    problem::{Generator, Problem},
};

/// Nine tasks, each in three sizes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NumberTheory {}

/// The primes that remainders are taken of.
const PRIMES: [i64; 15] = [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47];
const TASKS: [fn(usize, &mut Draw) -> Problem; 9] =
    [gcd, lcm, remainders, to_binary, from_binary, to_hex, from_hex, power, polynomial];
const SIZES: usize = 3;

impl Generator for NumberTheory {
    fn cells(&self) -> usize {
        TASKS.len() * SIZES
    }

    fn draw(&self, cell: usize, draw: &mut Draw) -> Vec<Problem> {
        vec![TASKS[cell % TASKS.len()](cell / TASKS.len(), draw)]
    }
}

/// `2, 3 and 5`.
fn listed(numbers: &[i64]) -> String {
    match numbers {
        [] => String::new(),
        [number] => number.to_string(),
        [first @ .., last] => {
            let first: Vec<_> = first.iter().map(i64::to_string).collect();
            format!("{} and {last}", first.join(", "))
        }
    }
}

fn gcd(size: usize, draw: &mut Draw) -> Problem {
    let largest = [60, 1_000, 10_000][size];
    // A factor in common every other time: most numbers have none.
    let factor = if draw.chance(1, 2) { draw.between(2, 20) } else { 1 };
    let mut number = || draw.between(2, largest / factor) * factor;
    let (a, b) = (number(), number());
    Problem::new(
        format!("gcd {largest}"),
        "gcd",
        format!("What is the greatest common divisor of {a} and {b}?"),
        Answer::integer(num_integer::gcd(a, b)),
    )
    .of([a, b])
    .with_compact(compact::gcd(a.unsigned_abs(), b.unsigned_abs()))
}

fn lcm(size: usize, draw: &mut Draw) -> Problem {
    let (count, largest, limit) = [(2, 60, 10_000), (3, 60, 10_000), (2, 1_000, 1_000_000)][size];
    loop {
        let numbers: Vec<_> = (0..count).map(|_| draw.between(2, largest)).collect();
        let multiple = numbers.iter().fold(1, |multiple, &number| num_integer::lcm(multiple, number));
        if multiple <= limit {
            return Problem::new(
                format!("lcm {count} to {largest}"),
                "lcm",
                format!("What is the least common multiple of {}?", listed(&numbers)),
                Answer::integer(multiple),
            )
            .of(numbers);
        }
    }
}

fn remainders(size: usize, draw: &mut Draw) -> Problem {
    let count = size + 2;
    let mut primes = PRIMES;
    draw.shuffle(&mut primes);
    let (mut number, mut modulus) = (0, 1);
    let mut conditions = Vec::new();
    let mut operands = Vec::new();
    for prime in &primes[..count] {
        let remainder = draw.between(0, prime - 1);
        // The next number that leaves all remainders so far and this one.
        while number % prime != remainder {
            number += modulus;
        }
        modulus *= prime;
        conditions.push(format!("{remainder} when divided by {prime}"));
        operands.extend([remainder, *prime]);
    }
    let (last, first) = conditions.split_last().expect("there are at least two");
    Problem::new(
        format!("crt {count}"),
        "crt",
        format!(
            "What is the smallest non-negative whole number that leaves remainder {} and {last}?",
            first.join(", ")
        ),
        Answer::integer(number),
    )
    .of(operands)
}

/// The largest number of bits whose binary digits a scratchpad has room for.
const BITS_IN_STEPS: u32 = 16;

/// A number that is written with the bits of this size.
fn of_bits(size: usize, draw: &mut Draw) -> (u32, u64) {
    let bits = [8, 16, 32][size];
    (bits, draw.between(1, (1 << bits) - 1).unsigned_abs())
}

fn to_binary(size: usize, draw: &mut Draw) -> Problem {
    let (bits, number) = of_bits(size, draw);
    let problem = Problem::new(
        format!("bin {bits}"),
        "bin",
        format!("How is the decimal number {number} written in binary, without a prefix?"),
        Answer::new(Kind::Digits, format!("{number:b}")),
    )
    .of([number]);
    if bits <= BITS_IN_STEPS { problem.with_compact(compact::to_base("bin", number, 2)) } else { problem }
}

fn from_binary(size: usize, draw: &mut Draw) -> Problem {
    let (bits, number) = of_bits(size, draw);
    let written = format!("{number:b}");
    let problem = Problem::new(
        format!("unbin {bits}"),
        "unbin",
        format!("How is the binary number {written} written in decimal?"),
        Answer::integer(number),
    )
    .of([&written]);
    if bits <= BITS_IN_STEPS { problem.with_compact(compact::from_base(&written, "0b", 2)) } else { problem }
}

fn to_hex(size: usize, draw: &mut Draw) -> Problem {
    let (bits, number) = of_bits(size, draw);
    Problem::new(
        format!("hex {bits}"),
        "hex",
        format!(
            "How is the decimal number {number} written in hexadecimal, in capital letters and without a prefix?"
        ),
        // Not digits: it may be letters alone.
        Answer::new(Kind::Label, format!("{number:X}")),
    )
    .of([number])
    .with_compact(compact::to_base("hex", number, 16))
}

fn from_hex(size: usize, draw: &mut Draw) -> Problem {
    let (bits, number) = of_bits(size, draw);
    let written = format!("{number:X}");
    Problem::new(
        format!("unhex {bits}"),
        "unhex",
        format!("How is the hexadecimal number {written} written in decimal?"),
        Answer::integer(number),
    )
    .of([&written])
    .with_compact(compact::from_base(&written, "0x", 16))
}

fn power(size: usize, draw: &mut Draw) -> Problem {
    let largest = [5, 10, 20][size];
    let (base, exponent, modulus) = (draw.between(2, 97), draw.between(2, largest), draw.between(2, 97));
    let result = (0..exponent).fold(1, |result, _| result * base % modulus);
    Problem::new(
        format!("modpow {largest}"),
        "modpow",
        format!("What is the remainder when {base} to the power of {exponent} is divided by {modulus}?"),
        Answer::integer(result),
    )
    .of([base, exponent, modulus])
}

fn polynomial(size: usize, draw: &mut Draw) -> Problem {
    let degree = size + 2;
    let lead = draw.between(1, 4) * if draw.chance(1, 2) { -1 } else { 1 };
    let mut coefficients = vec![lead];
    coefficients.extend((0..degree).map(|_| draw.between(-5, 5)));
    let x = draw.between(-6, 6);
    let value = coefficients.iter().fold(0, |value, coefficient| value * x + coefficient);
    Problem::new(
        format!("poly {degree}"),
        "poly",
        format!("What is the value of {} at x = {x}?", written(&coefficients)),
        Answer::integer(value),
    )
    .of(coefficients.into_iter().chain([x]))
}

/// `-3x^2 + x - 5`, from the coefficient of the highest power down.
fn written(coefficients: &[i64]) -> String {
    let mut text = String::new();
    for (at, &coefficient) in coefficients.iter().enumerate().filter(|(_, coefficient)| **coefficient != 0) {
        let power = coefficients.len() - 1 - at;
        text += match (coefficient < 0, text.is_empty()) {
            (true, true) => "-",
            (true, false) => " - ",
            (false, true) => "",
            (false, false) => " + ",
        };
        let size = coefficient.abs();
        if size != 1 || power == 0 {
            text += &size.to_string();
        }
        match power {
            0 => {}
            1 => text.push('x'),
            _ => text += &format!("x^{power}"),
        }
    }
    text
}
