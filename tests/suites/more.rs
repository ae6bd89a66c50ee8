//! Number understanding, tokenization, sequences, longer coefficients and estimates: every answer is found a
//! second time, from the text of its question and another way.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    sync::LazyLock,
};

use num_bigint::BigInt;
use num_rational::BigRational;
use num_traits::{FromPrimitive, Num, One as _, Signed as _, ToPrimitive as _, Zero as _};
use reprocheck::suite::{
    answer::Kind,
    draw::Draw,
    generate::{
        nupa_core::NupaCore, perturb_num::PerturbNum, sequence_next::SequenceNext,
        street_approx::StreetApprox, tok_chunk::TokChunk,
    },
    problem::{Generator, Problem},
};
use serde::{Deserialize, de::DeserializeOwned};

/// A suite's file, as far as it matters here.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Suite<G> {
    version: u32,
    title: String,
    measures: String,
    sources: Vec<String>,
    generator: String,
    items: BTreeMap<String, usize>,
    limits: BTreeMap<String, usize>,
    parameters: G,
}

fn text(name: &str) -> String {
    std::fs::read_to_string(format!("{}/suites/{name}/suite.toml", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

fn load<G: Generator + DeserializeOwned>(name: &str) -> G {
    let suite: Suite<G> = toml::from_str(&text(name)).unwrap();
    suite.parameters.check().unwrap();
    suite.parameters
}

/// The problems of so many rounds through all cells.
fn rounds<G: Generator>(generator: &G, name: &str, seed: u64, count: usize) -> Vec<Problem> {
    let groups = 0..(generator.cells() * count) as u64;
    let draw = |group: u64| {
        let cell = group as usize % generator.cells();
        generator.draw(cell, &mut Draw::new(name, 1, seed, group, 0))
    };
    groups.flat_map(draw).collect()
}

fn counts<K: Ord>(keys: impl IntoIterator<Item = K>) -> BTreeMap<K, usize> {
    let mut counts = BTreeMap::new();
    for key in keys {
        *counts.entry(key).or_default() += 1;
    }
    counts
}

/// How many of 2,000 draws of each cell are no repetition, with a cell's stratum and task.
fn different<G: Generator>(generator: &G, name: &str) -> Vec<(String, usize)> {
    let cell = |cell| {
        let mut seen = HashSet::new();
        let mut key = String::new();
        for group in 0..2000 {
            let problem = generator.draw(cell, &mut Draw::new(name, 1, 7, group, 0)).swap_remove(0);
            key = format!("{} {}", problem.stratum, problem.task);
            seen.insert(problem.question);
        }
        (key, seen.len())
    };
    (0..generator.cells()).map(cell).collect()
}

fn ten_to(power: i64) -> BigRational {
    BigRational::from_integer(10.into()).pow(power as i32)
}

/// The value of any of the four forms.
fn value(text: &str) -> BigRational {
    if let Some((mantissa, exponent)) = text.split_once('e') {
        return value(mantissa) * ten_to(exponent.parse().unwrap());
    }
    if let Some((numerator, denominator)) = text.split_once('/') {
        return value(numerator) / value(denominator);
    }
    let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
    let digits: BigInt = format!("{whole}{decimals}").parse().unwrap();
    BigRational::from_integer(digits) * ten_to(-(decimals.len() as i64))
}

fn integer(text: &str) -> BigInt {
    text.parse().unwrap()
}

#[test]
fn a_file_says_what_its_suite_is_and_refuses_what_it_does_not_know() {
    fn check<G: Generator + DeserializeOwned>(name: &str, [quick, std, full]: [usize; 3]) {
        let suite: Suite<G> = toml::from_str(&text(name)).unwrap();
        assert_eq!((suite.version, suite.generator.as_str()), (1, name));
        assert!(!suite.title.contains('\n') && !suite.measures.is_empty() && !suite.sources.is_empty());
        let sizes = [("full", full), ("quick", quick), ("std", std)];
        assert_eq!(suite.items.iter().map(|(key, &n)| (key.as_str(), n)).collect::<Vec<_>>(), sizes);
        assert_eq!(suite.limits.keys().collect::<Vec<_>>(), ["chat", "completion"]);
        assert!(toml::from_str::<Suite<G>>(&(text(name) + "\nmisspelt = 1\n")).is_err());
    }
    check::<NupaCore>("nupa_core", [164, 1640, 16_400]);
    check::<TokChunk>("tok_chunk", [117, 780, 3900]);
    check::<SequenceNext>("sequence_next", [50, 400, 3000]);
    check::<PerturbNum>("perturb_num", [60, 600, 6000]);
    check::<StreetApprox>("street_approx", [80, 500, 1000]);
}

#[test]
fn the_same_draw_is_the_same_problem_and_another_seed_is_another() {
    fn check<G: Generator + DeserializeOwned>(name: &str) {
        let generator: G = load(name);
        assert_eq!(rounds(&generator, name, 3, 2), rounds(&load::<G>(name), name, 3, 2));
        assert_ne!(rounds(&generator, name, 3, 2), rounds(&generator, name, 4, 2));
        assert_eq!(rounds(&generator, name, 3, 1).len(), generator.cells() * generator.group());
    }
    check::<NupaCore>("nupa_core");
    check::<TokChunk>("tok_chunk");
    check::<SequenceNext>("sequence_next");
    check::<PerturbNum>("perturb_num");
    check::<StreetApprox>("street_approx");
}

#[test]
fn problems_seldom_repeat_where_there_are_enough_of_them() {
    for (key, different) in different(&load::<NupaCore>("nupa_core"), "nupa_core") {
        // Fractions of one digit are few.
        let least = if key.contains("to_float/fraction/S") { 1200 } else { 1830 };
        assert!(different >= if key.contains("/S ") { least } else { 2000 }, "{key}: {different}");
    }
    for (key, different) in different(&load::<TokChunk>("tok_chunk"), "tok_chunk") {
        assert_eq!(different, 2000, "{key}");
    }
    for (key, different) in different(&load::<SequenceNext>("sequence_next"), "sequence_next") {
        // There are 21 primes of two digits and 143 of three.
        assert!(different >= if key.contains("prime") { 1350 } else { 1970 }, "{key}: {different}");
    }
    for (key, different) in different(&load::<PerturbNum>("perturb_num"), "perturb_num") {
        let digits: usize = key.split(' ').next().unwrap().parse().unwrap();
        // Short coefficients are few, and fewer where only one of them may be other than 1.
        let least = if key.contains("one-d") { 5 } else { 3 };
        assert!(different >= if digits >= least { 1980 } else { 20 }, "{key}: {different}");
    }
    for (key, different) in different(&load::<StreetApprox>("street_approx"), "street_approx") {
        assert!(different >= 1970, "{key}: {different}");
    }
}

mod nupa_core {
    use super::*;

    /// The operands as a reader finds them in the prompt.
    fn read(problem: &Problem) -> Vec<String> {
        let prompt = problem.completion.as_ref().unwrap().strip_suffix(" =").unwrap();
        let (_, expression) = prompt.rsplit_once(": ").unwrap();
        let is_number = |word: &&str| word.starts_with(|first: char| first.is_ascii_digit());
        let words = expression.split(' ').map(|word| word.trim_matches(['(', ')']));
        words.filter(is_number).map(str::to_owned).collect()
    }

    /// Addition and multiplication as they are taught at school, digit by digit from the right.
    fn at_school(a: &str, b: &str, multiply: bool) -> String {
        let reversed =
            |text: &str| -> Vec<u32> { text.bytes().rev().map(|digit| u32::from(digit - b'0')).collect() };
        let (a, b) = (reversed(a), reversed(b));
        let mut sums = vec![0; a.len() + b.len() + 1];
        if multiply {
            for (i, x) in a.iter().enumerate() {
                for (j, y) in b.iter().enumerate() {
                    sums[i + j] += x * y;
                }
            }
        } else {
            for number in [&a, &b] {
                for (sum, digit) in sums.iter_mut().zip(number) {
                    *sum += digit;
                }
            }
        }
        let mut carry = 0;
        for sum in &mut sums {
            carry += *sum;
            (*sum, carry) = (carry % 10, carry / 10);
        }
        let text: String = sums.iter().rev().map(u32::to_string).collect();
        text.trim_start_matches('0').to_owned()
    }

    /// Place by place over texts that zeros bring to the same length on both sides of the point.
    fn by_place(a: &str, b: &str, of: fn(u8, u8) -> u8) -> BigRational {
        let parts = |text: &str| {
            let (whole, decimals) = text.split_once('.').unwrap_or((text, ""));
            (whole.to_owned(), decimals.to_owned())
        };
        let ((a, a_decimals), (b, b_decimals)) = (parts(a), parts(b));
        let (whole, places) = (a.len().max(b.len()), a_decimals.len().max(b_decimals.len()));
        let a = format!("{a:0>whole$}{a_decimals:0<places$}");
        let b = format!("{b:0>whole$}{b_decimals:0<places$}");
        let digits = a.bytes().zip(b.bytes()).map(|(a, b)| char::from(b'0' + of(a - b'0', b - b'0')));
        BigRational::from_integer(digits.collect::<String>().parse().unwrap()) * ten_to(-(places as i64))
    }

    /// To so many figures, half up, by arithmetic alone.
    fn rounded(number: &BigRational, figures: i64) -> BigRational {
        let mut exponent = 0;
        while *number >= ten_to(exponent + 1) {
            exponent += 1;
        }
        while *number < ten_to(exponent) {
            exponent -= 1;
        }
        let unit = ten_to(exponent - figures + 1);
        let half = BigRational::new(1.into(), 2.into());
        (number / &unit + half).floor() * unit
    }

    fn right(task: &str, operands: &[String]) -> BigRational {
        let (a, b) = (&operands[0], operands.get(1).map_or("", String::as_str));
        let (x, y) = (value(a), if b.is_empty() { BigRational::zero() } else { value(b) });
        let digits: Vec<char> = a.chars().filter(char::is_ascii_digit).collect();
        let count = |count: usize| BigRational::from_usize(count).unwrap();
        match task {
            "add" => x + y,
            "sub" => x - y,
            "multiply" => x * y,
            "truediv" => x / y,
            "floordiv" => (x / y).floor(),
            "mod" => &x - &y * (&x / &y).floor(),
            "max" => x.max(y),
            "min" => x.min(y),
            "digit_max" => by_place(a, b, |a, b| if a > b { a } else { b }),
            "digit_min" => by_place(a, b, |a, b| if a > b { b } else { a }),
            "digit_add" => by_place(a, b, |a, b| if a + b > 9 { a + b - 10 } else { a + b }),
            "get_digit" => value(&digits[b.parse::<usize>().unwrap() - 1].to_string()),
            "length" => count(digits.len()),
            "count" => count(a.matches(b).count()),
            "to_float" | "to_scient" => x,
            "sig" => rounded(&x, b.parse().unwrap()),
            _ => panic!("{task}"),
        }
    }

    /// Is this the one way to write an answer in its form?
    fn canonical(problem: &Problem, operands: &[String]) -> bool {
        let plain = |text: &str| {
            let (whole, decimals) = text.split_once('.').unwrap();
            let no_zeros = whole == "0" || !whole.starts_with('0');
            no_zeros && !decimals.is_empty() && (decimals == "0" || !decimals.ends_with('0'))
        };
        let answer = problem.answer.text.as_str();
        match problem.answer.kind {
            Kind::Integer => answer == integer(answer).to_string(),
            Kind::Decimal => plain(answer),
            Kind::Irreducible => {
                let value = value(answer);
                answer == format!("{}/{}", value.numer(), value.denom())
            }
            Kind::Scientific => {
                let (mantissa, exponent) = answer.split_once('e').unwrap();
                let (whole, decimals) = mantissa.split_once('.').unwrap();
                let figures = if problem.task.starts_with("sig") {
                    decimals.len() + 1 == operands[1].parse::<usize>().unwrap()
                } else {
                    plain(mantissa)
                };
                let exact = exponent.parse::<i64>().unwrap().to_string() == exponent;
                whole.len() == 1 && whole != "0" && figures && exact
            }
            _ => false,
        }
    }

    /// The length of an operand as the ranges mean it.
    fn length(form: &str, operand: &str) -> usize {
        let decimals = |text: &str| text.split_once('.').unwrap().1.len();
        match form {
            "integer" => operand.len(),
            "float" => decimals(operand),
            "fraction" => operand.split_once('/').unwrap().1.len(),
            _ => decimals(operand.split_once('e').unwrap().0),
        }
    }

    #[test]
    fn every_answer_is_found_again_with_rationals_and_at_school() {
        let mut negative_exponents = 0;
        for problem in rounds(&load::<NupaCore>("nupa_core"), "nupa_core", 1, 60) {
            let operands = read(&problem);
            assert_eq!(operands, problem.operands, "{problem:?}");
            assert!(problem.question.contains(&operands[0]), "{problem:?}");
            let (task, form) = problem.task.split_once('/').unwrap();
            let answer = &problem.answer.text;
            assert_eq!(value(answer), right(task, &operands), "{problem:?}");
            assert!(canonical(&problem, &operands), "{problem:?}");
            assert!(!answer.starts_with('-'), "{problem:?}");
            if form == "integer" && (task == "add" || task == "multiply") {
                assert_eq!(*answer, at_school(&operands[0], &operands[1], task == "multiply"), "{problem:?}");
            }
            negative_exponents += usize::from(answer.contains("e-"));
        }
        assert!(negative_exponents > 100, "{negative_exponents}");
    }

    #[test]
    fn lengths_lie_in_their_range() {
        let arithmetic = [(3, 4), (5, 8), (9, 14), (15, 20)];
        let reading = [(5, 10), (11, 20), (21, 60), (61, 100)];
        let mut met = BTreeMap::<String, BTreeSet<usize>>::new();
        for problem in rounds(&load::<NupaCore>("nupa_core"), "nupa_core", 2, 60) {
            let [task, form, range] = problem.stratum.split('/').collect::<Vec<_>>()[..] else { panic!() };
            let calculated = ["add", "sub", "multiply", "truediv", "floordiv", "mod"].contains(&task);
            let range = ["S", "M", "L", "XL"].iter().position(|name| *name == range).unwrap();
            let (mut low, high) = match (task, form) {
                ("to_float", "fraction") => arithmetic[range],
                _ if calculated => arithmetic[range],
                _ => reading[range],
            };
            match form {
                "fraction" if high == 4 => low = 1,
                "float" | "scientific" | "fraction" if range == 0 => low = 3,
                _ => {}
            }
            let alone = ["get_digit", "count", "sig"].contains(&task);
            let operands = &problem.operands[..if alone { 1 } else { problem.operands.len() }];
            let lengths = || operands.iter().map(|operand| length(form, operand));
            let (longest, shortest) = (lengths().max().unwrap(), lengths().min().unwrap());
            assert!((low..=high).contains(&longest), "{problem:?}");
            assert!(shortest * 2 >= longest, "{problem:?}");
            met.entry(problem.stratum.clone()).or_default().insert(longest);
        }
        let all = |stratum: &str| met[stratum].iter().copied().collect::<Vec<_>>();
        assert_eq!(all("add/integer/S"), [3, 4]);
        assert_eq!(all("sub/fraction/S"), [1, 2, 3, 4]);
        assert_eq!(all("max/float/S"), [3, 4, 5, 6, 7, 8, 9, 10]);
        assert_eq!(all("sig/integer/M"), (11..=20).collect::<Vec<_>>());
    }

    #[test]
    fn any_round_has_each_combination_and_each_range_alike() {
        let problems = rounds(&load::<NupaCore>("nupa_core"), "nupa_core", 0, 3);
        assert!(counts(problems.iter().map(|problem| &problem.stratum)).values().all(|&count| count == 3));
        for quarter in problems.chunks(41) {
            assert_eq!(counts(quarter.iter().map(|problem| &problem.task)).len(), 41);
            let ranges = counts(quarter.iter().map(|problem| problem.stratum.rsplit_once('/').unwrap().1));
            assert!(ranges.values().all(|&count| count == 10 || count == 11), "{ranges:?}");
        }
        let forms = counts(problems[..20].iter().map(|problem| problem.task.split_once('/').unwrap().1));
        assert!(forms.values().all(|&count| count >= 2), "{forms:?}");
    }
}

mod tok_chunk {
    use super::*;

    fn separated(digits: &str, from_left: bool) -> String {
        let mut digits: Vec<char> = digits.chars().collect();
        if !from_left {
            digits.reverse();
        }
        let pieces: Vec<String> = digits.chunks(3).map(|piece| piece.iter().collect()).collect();
        let text = pieces.join(",");
        if from_left { text } else { text.chars().rev().collect() }
    }

    #[test]
    fn three_formats_ask_for_one_sum_of_the_lengths_in_their_stratum() {
        let mut places = Vec::new();
        for group in rounds(&load::<TokChunk>("tok_chunk"), "tok_chunk", 1, 400).chunks(3) {
            assert!(group.iter().all(|problem| problem.cluster == group[0].cluster), "{group:?}");
            let [a, b] = [&group[0].operands[0], &group[0].operands[1]];
            assert_eq!(group[0].cluster.as_ref().unwrap(), &format!("{a}+{b}"));
            let sum = integer(a) + integer(b);
            for problem in group {
                assert_eq!(problem.answer.text, sum.to_string(), "{problem:?}");
                let (format, lengths) = problem.stratum.split_once('/').unwrap();
                assert_eq!(
                    lengths,
                    format!("{}+{}={}", a.len(), b.len(), sum.to_string().len()),
                    "{problem:?}"
                );
                assert_eq!(format, problem.task);
                let [a, b] = [a, b].map(|digits| match format {
                    "nosep" => digits.clone(),
                    "comma_r2l" => separated(digits, false),
                    _ => separated(digits, true),
                });
                assert_eq!(problem.completion.as_ref().unwrap(), &format!("{a}+{b}="));
                assert_eq!(problem.question, format!("What is {a} + {b}?"));
            }
            // Where the sum lies between the smallest and the largest that the shorter number admits.
            let least = |digits: usize| 10_f64.powi(digits as i32 - 1);
            let (short, long) = if a.len() <= b.len() { (a, b) } else { (b, a) };
            let (short, digits) = (short.parse::<f64>().unwrap(), sum.to_string().len());
            let low = least(digits).max(least(long.len()) + short);
            let high = (10.0 * least(digits) - 1.0).min(10.0 * least(long.len()) - 1.0 + short);
            places.push((sum.to_f64().unwrap() - low) / (high - low));
        }
        let mean = places.iter().sum::<f64>() / places.len() as f64;
        assert!(places.iter().all(|place| (0.0..=1.0).contains(place)));
        // Five standard deviations of the mean of so many uniform numbers.
        assert!((mean - 0.5).abs() < 5.0 * (1.0 / 12.0_f64).sqrt() / (places.len() as f64).sqrt(), "{mean}");
    }

    #[test]
    fn every_stratum_comes_up_alike() {
        let strata =
            counts(rounds(&load::<TokChunk>("tok_chunk"), "tok_chunk", 0, 3).into_iter().map(|p| p.stratum));
        assert_eq!(strata.len(), 39);
        assert!(strata.values().all(|&count| count == 3));
    }
}

mod sequence_next {
    use super::*;

    static PRIMES: LazyLock<Vec<i128>> = LazyLock::new(|| {
        let mut composite = vec![false; 1_010_000];
        for factor in 2..1005 {
            for multiple in (factor * factor..composite.len()).step_by(factor) {
                composite[multiple] = true;
            }
        }
        (2..composite.len() as i128).filter(|&number| !composite[number as usize]).collect()
    });

    /// The terms as far as so many steps beyond those shown, from what the question tells and shows.
    fn continued(told: &str, shown: &[i128], steps: usize) -> Vec<i128> {
        let mut terms = shown.to_vec();
        let prime = |apart: usize| {
            let first = PRIMES.binary_search(&shown[0]).unwrap();
            (0..shown.len() + steps).map(|at| PRIMES[first + at * apart]).collect()
        };
        if told.contains("left out") {
            return prime(2);
        }
        if told.contains("consecutive prime") {
            return prime(1);
        }
        for _ in 0..steps {
            let [.., w, x, y, z] = terms[..] else { panic!("too few terms") };
            let next = if told.contains("two before it") {
                y + z
            } else if told.contains("three before it") {
                x + y + z
            } else if told.contains("It is an arithmetic") {
                z + (z - y)
            } else if told.contains("degree 2") {
                // Second differences are all the same.
                z + (z - y) + ((z - y) - (y - x))
            } else if told.contains("geometric") {
                z * (z / y)
            } else if told.contains("times a fixed whole number, plus") {
                z + (z - y) * ((z - y) / (y - x))
            } else if told.contains("at odd places") {
                y + (y - w)
            } else if told.contains("take turns") {
                let summand = shown[1] - shown[0];
                // A product may be of 0, but then the next one is not.
                let factor = if shown[1] == 0 { shown[4] / shown[3] } else { shown[2] / shown[1] };
                if terms.len() % 2 == 1 { z + summand } else { z * factor }
            } else {
                panic!("{told}")
            };
            terms.push(next);
        }
        terms
    }

    #[test]
    fn a_rule_as_told_leads_from_the_terms_shown_to_the_answer() {
        let farthest: SequenceNext = toml::from_str("steps = [10]").unwrap();
        farthest.check().unwrap();
        let mut problems = rounds(&load::<SequenceNext>("sequence_next"), "sequence_next", 1, 200);
        problems.extend(rounds(&farthest, "sequence_next", 2, 200));
        for problem in problems {
            let (list, rest) =
                problem.question.strip_prefix("A sequence begins ").unwrap().split_once(". ").unwrap();
            let shown: Vec<i128> = list.split(", ").map(|term| term.parse().unwrap()).collect();
            let (told, asked) = rest.rsplit_once(". ").unwrap();
            let word = asked.split(' ').find_map(|word| word.parse().ok());
            let steps = word.unwrap_or(1);
            assert_eq!(word.is_none(), asked == "What is the next term?");
            assert_eq!(problem.stratum.split_once('/').unwrap().1, steps.to_string());
            // The rule must fit all that is shown, too.
            for given in 4..shown.len() {
                let enough = !told.contains("take turns") || given > 4;
                if enough {
                    let all = continued(told, &shown[..given], shown.len() - given);
                    assert_eq!(all, shown, "{problem:?}");
                }
            }
            let all = continued(told, &shown, steps);
            assert_eq!(problem.answer.text, all[shown.len() + steps - 1].to_string(), "{problem:?}");
            assert_eq!(problem.operands.join(", "), list);
        }
    }

    #[test]
    fn every_family_and_every_number_of_steps_come_up_alike() {
        let problems = rounds(&load::<SequenceNext>("sequence_next"), "sequence_next", 0, 1);
        let strata = counts(problems.iter().map(|problem| &problem.stratum));
        assert_eq!((strata.len(), strata.values().all(|&count| count == 2)), (20, true));
        assert_eq!(counts(problems.iter().map(|problem| &problem.task)).len(), 10);
        // The beginning of a round, too.
        let families =
            counts(problems[..10].iter().map(|problem| problem.stratum.split_once('/').unwrap().0));
        assert!(families.values().all(|&count| count == 2), "{families:?}");
    }
}

mod perturb_num {
    use super::*;

    /// The coefficients of a polynomial, by their power.
    fn polynomial(text: &str, variable: char) -> [BigInt; 4] {
        let mut coefficients: [BigInt; 4] = Default::default();
        for term in text.split(" + ") {
            let (factor, power) = term.split_once(variable).map_or((term, 0), |(factor, power)| {
                (factor, power.strip_prefix('^').map_or(1, |power| power.parse().unwrap()))
            });
            coefficients[power] = if factor.is_empty() { BigInt::one() } else { integer(factor) };
        }
        coefficients
    }

    fn at(coefficients: &[BigInt; 4], x: impl Into<BigInt>) -> BigInt {
        let x = x.into();
        coefficients.iter().rev().fold(BigInt::zero(), |value, coefficient| value * &x + coefficient)
    }

    fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
        let (_, rest) = text.split_once(before).unwrap();
        rest.split_once(after).unwrap().0
    }

    fn right(structure: &str, question: &str) -> BigInt {
        let last = || question.split(|c: char| !c.is_ascii_digit()).rfind(|word| !word.is_empty()).unwrap();
        let k = || last().parse::<i64>().unwrap();
        match structure {
            "derivative" => {
                let f = polynomial(between(question, "f(x) = ", ". "), 'x');
                let k: i64 = between(question, "f'(", ")").parse().unwrap();
                // The central difference of five points is exact up to the fourth power.
                let numerator: BigInt = at(&f, k - 2) - 8 * at(&f, k - 1) + 8 * at(&f, k + 1) - at(&f, k + 2);
                assert!((&numerator % 12_i32).is_zero());
                numerator / 12
            }
            "integral" => {
                let f = polynomial(between(question, "integral of ", " from"), 'x');
                // The trapezoid is exact for a line.
                let twice: BigInt = k() * (at(&f, 0) + at(&f, k()));
                assert!((&twice % 2_i32).is_zero());
                twice / 2
            }
            "equation" => {
                let f = polynomial(between(question, "x is ", " equal"), 'x');
                // The secant through two points of a line meets the value where the line does.
                let (start, slope) = (at(&f, 0), at(&f, 1) - at(&f, 0));
                let rise: BigInt = integer(last()) - start;
                assert!((&rise % &slope).is_zero());
                rise / slope
            }
            "determinant" => {
                let numbers: Vec<BigRational> =
                    between(question, "[[", "]]").replace("], [", ", ").split(", ").map(value).collect();
                let [a, b, c, d] = &numbers[..] else { panic!() };
                // By elimination.
                (a * (d - c / a * b)).to_integer()
            }
            "composition" => {
                let f = polynomial(between(question, "f(x) = ", " and"), 'x');
                let g = polynomial(between(question, "g(x) = ", ". "), 'x');
                at(&f, at(&g, k()))
            }
            _ => {
                let f = polynomial(between(question, "sum of ", " over"), 'i');
                (1..=k()).map(|i| at(&f, i)).sum()
            }
        }
    }

    #[test]
    fn every_answer_is_found_again_without_its_formula() {
        let generator: PerturbNum = load("perturb_num");
        let fixed = generator.fixed();
        assert_eq!(fixed.len(), 6);
        let longest: PerturbNum = toml::from_str("digits = 18").unwrap();
        longest.check().unwrap();
        let drawn = [(generator, 100), (longest, 20)]
            .map(|(generator, count)| rounds(&generator, "perturb_num", 1, count));
        for problem in fixed.into_iter().chain(drawn.into_iter().flatten()) {
            let (structure, variant) = problem.task.split_once('/').unwrap();
            assert_eq!(problem.cluster.as_deref(), Some(structure));
            assert_eq!(problem.answer.text, right(structure, &problem.question).to_string(), "{problem:?}");
            let point = !["equation", "determinant"].contains(&structure);
            let slots = &problem.operands[..problem.operands.len() - usize::from(point)];
            let digits = |slot: &&String| slot.len().to_string() == problem.stratum;
            let others = |slot: &&String| **slot == "1" || structure == "integral" && **slot == "2";
            match variant {
                "all-d" => assert!(slots.iter().all(|slot| digits(&slot)), "{problem:?}"),
                "one-d" => {
                    assert!(slots.iter().filter(others).count() >= slots.len() - 1, "{problem:?}");
                    assert!(slots.iter().any(|slot| digits(&slot)), "{problem:?}");
                }
                _ => assert!(slots.iter().all(|slot| others(&slot)), "{problem:?}"),
            }
            assert!(!slots.iter().any(|slot| integer(slot).is_negative()));
        }
    }

    #[test]
    fn sixty_items_have_every_structure_at_every_number_of_digits() {
        let generator: PerturbNum = load("perturb_num");
        let mut problems = generator.fixed();
        problems.extend(rounds(&generator, "perturb_num", 0, 1));
        let of = |problems: &[Problem]| {
            counts(problems.iter().map(|problem| (problem.stratum.clone(), problem.cluster.clone())))
        };
        let first = of(&problems[..60]);
        assert_eq!((first.len(), first.values().all(|&count| count == 1)), (60, true));
        let variants =
            counts(problems[6..].iter().map(|problem| (problem.stratum.clone(), problem.task.clone())));
        assert_eq!((variants.len(), variants.values().all(|&count| count == 1)), (120, true));
    }
}

mod street_approx {
    use super::*;

    /// Every number in a text, as written.
    fn numbers(text: &str) -> Vec<&str> {
        let words =
            text.split(|c: char| !c.is_ascii_digit() && c != '.').map(|word| word.trim_end_matches('.'));
        words.filter(|word| !word.is_empty()).collect()
    }

    /// What is right, over any kind of number.
    fn right<N: Num + Clone + PartialOrd + FromPrimitive>(stratum: &str, numbers: &[N]) -> N {
        let whole = |number: i64| N::from_i64(number).unwrap();
        let sum = |numbers: &[N]| numbers.iter().cloned().fold(N::zero(), |sum, number| sum + number);
        let share = |percent: &N| percent.clone() / whole(100);
        let left = |percent: &N| N::one() - share(percent);
        let first = numbers[0].clone();
        match (stratum, numbers) {
            ("basket_sum", [_, prices @ ..]) => sum(prices),
            ("discounts/percent", [price, off]) => price.clone() * left(off),
            ("discounts/bogo", prices) => {
                let mut prices = prices.to_vec();
                prices.sort_by(|a, b| b.partial_cmp(a).unwrap());
                prices.chunks(2).fold(N::zero(), |sum, pair| sum + pair[0].clone())
            }
            ("discounts/buy_n_get_m", [price, paid, free, count]) => {
                // Taken one by one.
                let (mut taken, mut total, mut in_set) = (N::zero(), N::zero(), N::zero());
                while taken < *count {
                    if in_set < *paid {
                        total = total + price.clone();
                    }
                    in_set = in_set + N::one();
                    if in_set == paid.clone() + free.clone() {
                        in_set = N::zero();
                    }
                    taken = taken + N::one();
                }
                total
            }
            ("discounts/threshold", [off, from, prices @ ..]) => {
                let sum = sum(prices);
                if sum >= *from { sum - off.clone() } else { sum }
            }
            ("discounts/stacked", [price, one, other]) => price.clone() * left(one) * left(other),
            ("taxes/after_discount", [price, tax]) => price.clone() + price.clone() * share(tax),
            ("taxes/after_discount", [price, off, tax]) => {
                let reduced = price.clone() * left(off);
                reduced.clone() + reduced * share(tax)
            }
            ("taxes/before_discount", [price, off, tax]) => {
                price.clone() * left(off) + price.clone() * share(tax)
            }
            ("units/pound", [price, pounds]) => price.clone() * pounds.clone(),
            ("units/kilogram", [price, grams]) => price.clone() * (grams.clone() / whole(1000)),
            ("tips", [_, percents @ ..]) => {
                percents.iter().fold(first.clone(), |sum, percent| sum + first.clone() * share(percent))
            }
            ("fermi", [length, width, density]) => length.clone() * width.clone() * density.clone(),
            ("travel_time", [miles, speed]) => miles.clone() / speed.clone() * whole(60),
            ("physics_estimate", [liters, flow]) => liters.clone() / flow.clone(),
            _ => panic!("{stratum} with {} numbers", numbers.len()),
        }
    }

    #[test]
    fn every_answer_is_found_again_from_the_numbers_shown() {
        let mut halves = 0;
        for problem in rounds(&load::<StreetApprox>("street_approx"), "street_approx", 1, 300) {
            let shown = numbers(&problem.question);
            let exact: Vec<BigRational> = shown.iter().map(|number| value(number)).collect();
            let exact = right(&problem.stratum, &exact);
            // By halves, which is another way to round them up than adding one.
            let twice = (&exact * BigInt::from(200)).floor().to_integer();
            let cents: BigInt = (&twice + 1) / 2;
            let answer = &problem.answer.text;
            assert_eq!(value(answer) * BigInt::from(100), BigRational::from_integer(cents), "{problem:?}");
            halves += usize::from((&exact * BigInt::from(200)).is_integer() && (twice % 2_i32).is_one());
            let about: Vec<f64> = shown.iter().map(|number| number.parse().unwrap()).collect();
            let about = right(&problem.stratum, &about);
            let difference = (answer.parse::<f64>().unwrap() - about).abs();
            // Half a hundredth, and what floating point loses.
            assert!(difference <= 0.005 + 1e-9, "{problem:?}: {about}");
            assert_eq!(answer.split_once('.').unwrap().1.len(), 2);
            assert_eq!(problem.answer.kind, Kind::Estimate);
        }
        assert!(halves > 50, "ties have to be met: {halves}");
    }

    #[test]
    fn topics_weigh_what_they_should_and_take_turns() {
        let problems = rounds(&load::<StreetApprox>("street_approx"), "street_approx", 0, 1);
        let topics = counts(problems.iter().map(|problem| problem.task.as_ref()));
        for (topic, weight) in [
            ("basket_sum", 1.4),
            ("discounts", 1.4),
            ("taxes", 1.0),
            ("units", 1.0),
            ("tips", 1.0),
            ("fermi", 0.8),
            ("travel_time", 0.8),
            ("physics_estimate", 0.8),
        ] {
            assert_eq!(topics[topic] as f64, 5.0 * weight, "{topic}");
        }
        assert_eq!(counts(problems.iter().map(|problem| &problem.stratum)).len(), 14);
        assert_eq!(counts(problems[..20].iter().map(|problem| problem.task.as_ref())).len(), 8);
    }

    #[test]
    fn a_chat_is_told_that_an_estimate_is_enough_only_if_the_file_says_so() {
        let of = |hint: bool| -> Problem {
            let generator: StreetApprox = toml::from_str(&format!("hint = {hint}")).unwrap();
            rounds(&generator, "street_approx", 0, 1).swap_remove(0)
        };
        assert!(of(true).request.unwrap().contains("estimate"));
        assert_eq!(of(false).request, None);
    }
}
