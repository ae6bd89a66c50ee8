//! How a sequence goes on whose rule is told.

use serde::Deserialize;

use crate::suite::{
    answer::Answer,
    draw::Draw,
    problem::{Generator, Problem},
};

/// Terms of a geometric sequence this far ahead still fit.
const STEPS_MAX: usize = 10;
/// How many terms may be shown: any fewer would leave a rule's numbers open.
const SHOWN: (i64, i64) = (5, 7);

/// Sequences of ten rules in five families; asked for is the term so many places after the last one shown.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SequenceNext {
    /// How many places after the last one.
    steps: Vec<usize>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rule {
    SumOfTwo,
    SumOfThree,
    Arithmetic,
    Quadratic,
    Geometric,
    Affine,
    Primes,
    EveryOtherPrime,
    Interleaved,
    Alternating,
}

/// A rule, its family, its name and what is told of it. Families take turns.
#[rustfmt::skip]
const RULES: [(Rule, &str, &str, &str); 10] = [
    (Rule::SumOfTwo, "fibonacci", "sum_of_two",
        "From the third term on, each is the sum of the two before it."),
    (Rule::Arithmetic, "algebraic", "arithmetic",
        "It is an arithmetic progression."),
    (Rule::Geometric, "geometric", "geometric",
        "It is a geometric progression with a whole number as its ratio."),
    (Rule::Primes, "prime", "primes",
        "The terms are consecutive prime numbers."),
    (Rule::Interleaved, "complex", "interleaved",
        "The terms at odd places form an arithmetic progression, and those at even places form another one."),
    (Rule::SumOfThree, "fibonacci", "sum_of_three",
        "From the fourth term on, each is the sum of the three before it."),
    (Rule::Quadratic, "algebraic", "quadratic",
        "The term at place n is a polynomial of degree 2 in n."),
    (Rule::Affine, "geometric", "affine",
        "Each term is the one before it times a fixed whole number, plus another fixed whole number."),
    (Rule::EveryOtherPrime, "prime", "every_other_prime",
        "The terms are prime numbers in ascending order, with exactly one prime number left out between \
         neighbors."),
    (Rule::Alternating, "complex", "alternating",
        "Two steps take turns: adding a fixed number, then multiplying by another fixed number."),
];

impl Generator for SequenceNext {
    fn cells(&self) -> usize {
        RULES.len() * self.steps.len()
    }

    fn draw(&self, cell: usize, draw: &mut Draw) -> Vec<Problem> {
        let (rule, family, name, told) = RULES[cell % RULES.len()];
        // Each round of the rules begins with other steps.
        let steps = self.steps[(cell % RULES.len() + cell / RULES.len()) % self.steps.len()];
        let shown = draw.between(SHOWN.0, SHOWN.1) as usize;
        let terms = terms(rule, shown + steps, draw);
        let list: Vec<String> = terms[..shown].iter().map(i64::to_string).collect();
        let ask = match steps {
            1 => "What is the next term?".to_owned(),
            _ => format!("Which term stands {steps} places after the last one shown?"),
        };
        let question = format!("A sequence begins {}. {told} {ask}", list.join(", "));
        let answer = Answer::integer(terms[shown + steps - 1]);
        vec![Problem::new(format!("{family}/{steps}"), name, question, answer).of(list)]
    }

    fn check(&self) -> Result<(), String> {
        let steps = &self.steps;
        let ascending = steps.is_sorted_by(|low, high| low < high);
        match (steps.first(), steps.last()) {
            (Some(1..), Some(..=STEPS_MAX)) if ascending => Ok(()),
            _ => Err(format!(
                "steps cannot be {steps:?}: give ascending numbers from 1 to {STEPS_MAX}, such as [1, 2, 4, \
                 8]"
            )),
        }
    }
}

/// So many terms of a sequence under this rule.
fn terms(rule: Rule, count: usize, draw: &mut Draw) -> Vec<i64> {
    match rule {
        Rule::SumOfTwo => sums(2, count, draw),
        Rule::SumOfThree => sums(3, count, draw),
        Rule::Arithmetic => progression(draw).take(count).collect(),
        Rule::Quadratic => {
            let (square, linear) = (signed(1, 9, draw), draw.between(-20, 20));
            let constant = draw.between(-99, 99);
            (1..=count as i64).map(|place| square * place * place + linear * place + constant).collect()
        }
        Rule::Geometric => {
            let (first, ratio) = (signed(1, 2000, draw), signed(2, 9, draw));
            iterate(first, count, |_, term| term * ratio)
        }
        Rule::Affine => {
            let (first, factor, summand) = (draw.between(1, 200), draw.between(2, 6), draw.between(1, 99));
            iterate(first, count, |_, term| term * factor + summand)
        }
        Rule::Primes => primes(draw).take(count).collect(),
        Rule::EveryOtherPrime => primes(draw).step_by(2).take(count).collect(),
        Rule::Interleaved => {
            let mut both = [progression(draw), progression(draw)];
            (0..count).filter_map(|at| both[at % 2].next()).collect()
        }
        Rule::Alternating => {
            let (first, summand, factor) = (draw.between(1, 200), signed(2, 50, draw), draw.between(2, 5));
            iterate(first, count, |at, term| if at % 2 == 1 { term + summand } else { term * factor })
        }
    }
}

/// From the first term on; the function is told the place of the term it makes, the first one's being 0.
fn iterate(first: i64, count: usize, mut next: impl FnMut(usize, i64) -> i64) -> Vec<i64> {
    let mut terms = vec![first];
    for at in 1..count {
        terms.push(next(at, terms[at - 1]));
    }
    terms
}

/// Terms that are the sum of so many before them.
fn sums(before: usize, count: usize, draw: &mut Draw) -> Vec<i64> {
    let mut terms: Vec<i64> = (0..before).map(|_| draw.between(1, 999)).collect();
    while terms.len() < count {
        terms.push(terms[terms.len() - before..].iter().sum());
    }
    terms
}

/// Terms of an arithmetic progression without an end.
fn progression(draw: &mut Draw) -> impl Iterator<Item = i64> + use<> {
    let (first, difference) = (draw.between(-999, 999), signed(2, 199, draw));
    (0..).map(move |at| first + at * difference)
}

/// The primes after a number of 2 to 6 digits.
fn primes(draw: &mut Draw) -> impl Iterator<Item = i64> + use<> {
    let length = draw.between(2, 6) as u32;
    let after = draw.number(length);
    (after + 1..).filter(|&number| is_prime(number))
}

fn is_prime(number: i64) -> bool {
    // Seven digits at most, where 32 bits divide faster.
    let number = number as u32;
    let candidates = (3_u32..).step_by(2).take_while(|factor| factor * factor <= number);
    number == 2
        || number > 2 && number % 2 == 1 && !{ candidates }.any(|factor| number.is_multiple_of(factor))
}

/// A number of this size and either sign.
fn signed(low: i64, high: i64, draw: &mut Draw) -> i64 {
    let size = draw.between(low, high);
    if draw.chance(1, 2) { size } else { -size }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn primes_are_told_from_other_numbers() {
        let primes: Vec<i64> = (0..50).filter(|&number| is_prime(number)).collect();
        assert_eq!(primes, [2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47]);
        assert!(is_prime(1_000_003) && !is_prime(999 * 1001) && !is_prime(997 * 997));
    }

    #[test]
    fn steps_that_lead_nowhere_or_too_far_are_refused() {
        let of = |steps: &[usize]| SequenceNext { steps: steps.to_vec() }.check();
        assert!(of(&[1, 2, 4, 8]).is_ok() && of(&[3]).is_ok());
        for steps in [&[][..], &[0, 1], &[2, 1], &[1, 1], &[1, 11]] {
            assert!(of(steps).is_err(), "{steps:?}");
        }
    }
}
