//! Answers computed a second way, from what a model is shown: by schoolbook, by search, by another interpreter.

use std::collections::BTreeMap;

use num_bigint::{BigInt, BigUint};
use reprocheck::suite::{Suite, answer::Kind, problem::Problem, style::Style};

/// Items of a suite that every cell has a share of.
const ITEMS: usize = 8_000;

fn each(suite: &str, check: impl Fn(&Problem)) {
    let suite = Suite::open(suite).unwrap();
    for seed in [0, 1] {
        for item in suite.items(seed).take(ITEMS / 2) {
            check(&item.problem);
        }
    }
}

/// The whole numbers in a text, with their signs.
fn numbers(text: &str) -> Vec<String> {
    let mut found = vec![String::new()];
    let mut before = ' ';
    for c in text.chars() {
        let last = found.last_mut().unwrap();
        match c {
            '0'..='9' => last.push(c),
            _ => {
                if !last.is_empty() && last != "-" {
                    found.push(String::new());
                } else {
                    last.clear();
                }
                if c == '-' && !before.is_ascii_alphanumeric() {
                    found.last_mut().unwrap().push('-');
                }
            }
        }
        before = c;
    }
    found.retain(|number| !number.is_empty() && number != "-");
    found
}

fn integers(text: &str) -> Vec<i64> {
    numbers(text).iter().map(|number| number.parse().unwrap()).collect()
}

/// Digits, the lowest first.
fn digits(number: &str) -> Vec<u32> {
    number.chars().rev().map(|digit| digit.to_digit(10).unwrap()).collect()
}

fn number(mut digits: Vec<u32>) -> String {
    while digits.len() > 1 && digits.last() == Some(&0) {
        digits.pop();
    }
    digits.iter().rev().map(|digit| char::from_digit(*digit, 10).unwrap()).collect()
}

fn schoolbook_sum(a: &str, b: &str) -> String {
    let (a, b) = (digits(a), digits(b));
    let mut sum = vec![0; a.len().max(b.len()) + 1];
    for place in 0..sum.len() {
        sum[place] += a.get(place).unwrap_or(&0) + b.get(place).unwrap_or(&0);
        if sum[place] > 9 {
            sum[place] -= 10;
            sum[place + 1] += 1;
        }
    }
    number(sum)
}

fn schoolbook_product(a: &str, b: &str) -> String {
    let (a, b) = (digits(a), digits(b));
    let mut product = vec![0; a.len() + b.len()];
    for (i, p) in a.iter().enumerate() {
        for (j, q) in b.iter().enumerate() {
            product[i + j] += p * q;
        }
    }
    for place in 0..product.len() - 1 {
        product[place + 1] += product[place] / 10;
        product[place] %= 10;
    }
    number(product)
}

/// A sum, a difference or a product in words.
fn check_pair(problem: &Problem) {
    let [a, b] = <[String; 2]>::try_from(numbers(&problem.question)).unwrap();
    let answer = problem.answer.text.as_str();
    match &*problem.task {
        "add" => assert_eq!(schoolbook_sum(&a, &b), answer, "{}", problem.question),
        "multiply" => assert_eq!(schoolbook_product(&a, &b), answer, "{}", problem.question),
        // What was taken away, put back.
        "subtract" => match answer.strip_prefix('-') {
            Some(size) => assert_eq!(schoolbook_sum(&a, size), b, "{}", problem.question),
            None => assert_eq!(schoolbook_sum(answer, &b), a, "{}", problem.question),
        },
        task => panic!("{task}"),
    }
}

/// The value of an expression in parentheses, read from the left; what is left of the text comes back too.
fn value(text: &str) -> (i64, &str) {
    fn operand(text: &str) -> (i64, &str) {
        if let Some(inside) = text.strip_prefix('(') {
            let (value, rest) = value(inside);
            return (value, rest.strip_prefix(')').unwrap());
        }
        let end = text[1..].find(|c: char| !c.is_ascii_digit()).map_or(text.len(), |end| end + 1);
        (text[..end].parse().unwrap(), &text[end..])
    }
    let (left, rest) = operand(text);
    let Some(sign) = rest.chars().next().filter(|sign| "+-*".contains(*sign)) else { return (left, rest) };
    let (right, rest) = operand(&rest[1..]);
    let value = match sign {
        '+' => left + right,
        '-' => left - right,
        _ => left * right,
    };
    (value, rest)
}

fn check_expression(problem: &Problem) {
    let words = problem.question.trim_end_matches(['?', '.']).replace(' ', "");
    let expression = words.trim_start_matches(|c: char| c.is_ascii_alphabetic());
    let compact = problem.compact.as_ref().unwrap();
    assert_eq!(format!("{expression}="), compact.prompt);
    let mut before = None;
    let steps = [expression].into_iter().chain(compact.scratchpad.split(';')).filter(|step| !step.is_empty());
    for step in steps.clone().chain([problem.answer.text.as_str()]) {
        let (value, rest) = value(step);
        assert_eq!((value.to_string(), rest), (problem.answer.text.clone(), ""), "{step}");
        // A step is one operation: two operands and what is around them become one number.
        let operands = integers(&step.replace('-', " - ")).len();
        assert!(before.is_none_or(|before| before == operands + 1), "{step}");
        before = Some(operands);
    }
    assert_eq!(before, Some(1));
}

#[test]
fn sums_differences_and_products_are_those_of_schoolbook() {
    each("carry_chain", check_pair);
    each("mul_ladder", check_pair);
    each("gpt3_arith", |problem| {
        if problem.stratum == "1dc" { check_expression(problem) } else { check_pair(problem) }
    });
}

#[test]
fn every_step_of_an_expression_has_its_value_and_one_operation_less() {
    each("expr_chain", check_expression);
    each("expr_chain", |problem| {
        let operations: usize = problem.stratum.split(' ').next().unwrap().parse().unwrap();
        assert_eq!(problem.operands.len(), operations + 1);
    });
}

#[test]
fn the_longest_chain_is_the_one_of_the_stratum() {
    each("carry_chain", |problem| {
        let Some((kind, chain)) = problem.stratum.split_once(' ') else { return };
        let [a, b] =
            <[u64; 2]>::try_from(integers(&problem.question).iter().map(|&n| n as u64).collect::<Vec<_>>())
                .unwrap();
        assert_eq!((a.ilog10(), b.ilog10()), (7, 7), "{}", problem.question);
        // A place is carried out of exactly if all below it and itself run over.
        let carries = (1..=8).map(|places| {
            let end = 10_u64.pow(places);
            if kind == "carry" { a % end + b % end >= end } else { a % end < b % end }
        });
        let (mut longest, mut run) = (0, 0);
        for carry in carries {
            run = if carry { run + 1 } else { 0 };
            longest = longest.max(run);
        }
        assert_eq!(longest.to_string(), chain, "{}", problem.question);
    });
}

#[test]
fn lengths_and_strata_are_as_named() {
    each("mul_ladder", |problem| {
        let [a, b] = <[String; 2]>::try_from(problem.operands.clone()).unwrap();
        assert_eq!(problem.stratum, format!("{}x{}", a.len(), b.len()));
    });
    each("gpt3_arith", |problem| {
        if let Some(digits) =
            problem.stratum.chars().next().and_then(|digit| digit.to_digit(10)).filter(|digit| *digit > 1)
        {
            assert!(problem.operands.iter().all(|operand| operand.len() <= digits as usize));
        }
    });
    each("divmod", |problem| {
        let (task, digits) = problem.stratum.split_once(' ').unwrap();
        assert_eq!((task, digits), (&*problem.task, problem.operands[0].len().to_string().as_str()));
    });
}

#[test]
fn divisions_multiply_back() {
    each("divmod", |problem| {
        let [a, b] =
            <[u64; 2]>::try_from(problem.operands.iter().map(|n| n.parse().unwrap()).collect::<Vec<u64>>())
                .unwrap();
        let shown = integers(&problem.question).into_iter().map(|n| n as u64);
        assert!(shown.clone().eq([a, b]) || shown.eq([b, a]), "{}", problem.question);
        assert!(b >= 2 && b <= a);
        if problem.task == "fraction" {
            let [numerator, denominator] = <[u64; 2]>::try_from(
                problem.answer.text.split('/').map(|n| n.parse().unwrap()).collect::<Vec<_>>(),
            )
            .unwrap();
            assert_eq!(u128::from(numerator) * u128::from(b), u128::from(denominator) * u128::from(a));
            // Divisors are at most 999, so whatever both share is found.
            assert!((2..=denominator).all(|d| numerator % d != 0 || denominator % d != 0));
            assert!(denominator > 1);
        } else {
            let answer: u64 = problem.answer.text.parse().unwrap();
            let (quotient, rest) =
                if problem.task == "mod" { ((a - answer) / b, answer) } else { (answer, a - answer * b) };
            assert!(quotient * b + rest == a && rest < b, "{}", problem.question);
        }
    });
}

#[test]
fn what_lists_have_is_found_by_other_means() {
    each("list_stats", |problem| {
        let list: Vec<i64> = problem.operands.iter().map(|n| n.parse().unwrap()).collect();
        let in_words = integers(&problem.question.replace("Counting from 0,", ""));
        assert_eq!(in_words, list, "{}", problem.question);
        let mut often = BTreeMap::new();
        for number in &list {
            *often.entry(*number).or_insert(0) += 1;
        }
        // In ascending order: every number as often as it comes up.
        let ascending: Vec<i64> = often.iter().flat_map(|(number, often)| vec![*number; *often]).collect();
        let (low, high) = (ascending[0], *ascending.last().unwrap());
        let steps = || list.iter().zip(&list[1..]).map(|(before, after)| after - before);
        let expected = match &*problem.task {
            "sum" => {
                let above: i64 = ascending.iter().filter(|n| **n > 0).sum();
                above - ascending.iter().filter(|n| **n < 0).map(|n| n.abs()).sum::<i64>()
            }
            "alternating_sum" => {
                let even: i64 = list.iter().step_by(2).sum();
                even - list.iter().skip(1).step_by(2).sum::<i64>()
            }
            "product" => {
                let size = ascending
                    .iter()
                    .fold("1".to_owned(), |size, n| schoolbook_product(&size, &n.abs().to_string()));
                let negative = ascending.iter().filter(|n| **n < 0).count() % 2 == 1;
                if negative { -size.parse::<i64>().unwrap() } else { size.parse().unwrap() }
            }
            "subtraction" => -list[1] + list[0],
            "absolute_difference" => high - low,
            "find_maximum" => high,
            "find_minimum" => low,
            "second_maximum" => **often.keys().rev().nth(1).as_ref().unwrap(),
            "range" => (low..high).count() as i64,
            "index_of_maximum" => list.iter().position(|n| *n == high).unwrap() as i64,
            "median" => {
                let middle = |n: &&i64| {
                    let (below, above) =
                        (list.iter().filter(|m| m < n).count(), list.iter().filter(|m| m > n).count());
                    below == above
                };
                *list.iter().find(middle).unwrap()
            }
            "mode" => {
                let most = often.values().max().unwrap();
                let modes: Vec<_> = often.iter().filter(|(_, often)| *often == most).collect();
                assert_eq!(modes.len(), 1, "{}", problem.question);
                *modes[0].0
            }
            "odd_count" => list.iter().map(|n| n & 1).sum(),
            "even_count" => list.iter().map(|n| !n & 1).sum(),
            "count_negative" => list.iter().filter(|n| n.to_string().starts_with('-')).count() as i64,
            "count_unique" => often.len() as i64,
            "count_greater_than_previous" => steps().filter(|step| *step > 0).count() as i64,
            "max_adjacent_difference" => steps().map(i64::abs).max().unwrap(),
            "sum_of_digits" => {
                let decimals = problem.operands.concat();
                decimals.chars().filter_map(|c| c.to_digit(10)).map(i64::from).sum()
            }
            "local_maxima_count" => {
                let signs: Vec<_> = steps().map(i64::signum).collect();
                signs.windows(2).filter(|pair| **pair == [1, -1]).count() as i64
            }
            task => panic!("{task}"),
        };
        assert_eq!(problem.answer.text, expected.to_string(), "{}", problem.question);
        assert_eq!(problem.stratum, format!("{} {}", problem.task, list.len()));
    });
}

#[test]
fn number_theory_is_confirmed_by_search_and_by_other_code() {
    each("number_theory", |problem| {
        let answer = problem.answer.text.as_str();
        let operands = || problem.operands.iter().map(|n| n.parse::<u64>().unwrap()).collect::<Vec<_>>();
        let question = &problem.question;
        match &*problem.task {
            "gcd" => {
                let [a, b] = operands()[..] else { panic!() };
                let largest = (1..=a.min(b)).rev().find(|d| a.is_multiple_of(*d) && b.is_multiple_of(*d));
                assert_eq!(largest.unwrap().to_string(), answer, "{question}");
            }
            "lcm" => {
                let operands = operands();
                let first = *operands.iter().max().unwrap();
                let least = (1..).map(|n| n * first).find(|m| operands.iter().all(|n| m.is_multiple_of(*n)));
                assert_eq!(least.unwrap().to_string(), answer, "{question}");
            }
            "crt" => {
                let operands = operands();
                let number: u64 = answer.parse().unwrap();
                let modulus: u64 = operands.chunks(2).map(|pair| pair[1]).product();
                // The one number below the product that leaves them all.
                assert!(
                    number < modulus && operands.chunks(2).all(|pair| number % pair[1] == pair[0]),
                    "{question}"
                );
            }
            "bin" => assert_eq!(u64::from_str_radix(answer, 2).unwrap(), operands()[0], "{question}"),
            "hex" => {
                assert_eq!(u64::from_str_radix(answer, 16).unwrap(), operands()[0], "{question}");
                assert_eq!(answer, answer.to_uppercase());
            }
            "unbin" | "unhex" => {
                let base = if problem.task == "unbin" { 2 } else { 16 };
                let value = BigUint::parse_bytes(problem.operands[0].as_bytes(), base).unwrap();
                assert_eq!(value.to_string(), answer, "{question}");
            }
            "modpow" => {
                let [base, exponent, modulus] = operands()[..] else { panic!() };
                let power = BigUint::from(base).pow(exponent as u32) % modulus;
                assert_eq!(power.to_string(), answer, "{question}");
            }
            "poly" => {
                let values: Vec<i64> = problem.operands.iter().map(|n| n.parse().unwrap()).collect();
                // As written: every term on its own.
                let text = question.split(" of ").nth(1).unwrap().split(" at ").next().unwrap();
                let x = *values.last().unwrap();
                let mut sum = BigInt::ZERO;
                for term in text.replace("- ", "-").replace("+ ", "").split(' ') {
                    let (coefficient, power) = match term.split_once('x') {
                        None => (term, 0),
                        Some((coefficient, power)) => {
                            (coefficient, power.strip_prefix('^').map_or(1, |p| p.parse().unwrap()))
                        }
                    };
                    let coefficient: i64 = match coefficient {
                        "" => 1,
                        "-" => -1,
                        number => number.parse().unwrap(),
                    };
                    sum += BigInt::from(coefficient) * BigInt::from(x).pow(power);
                }
                assert_eq!(sum.to_string(), answer, "{question}");
            }
            task => panic!("{task}"),
        }
    });
}

#[test]
fn digits_are_found_by_other_means() {
    each("digit_ops", |problem| {
        let answer = problem.answer.text.as_str();
        let [first, second] = match &problem.operands[..] {
            [first] => [first.as_str(), ""],
            [first, second] => [first.as_str(), second.as_str()],
            _ => panic!(),
        };
        let padded = format!("{}{second}", "0".repeat(first.len() - second.len().min(first.len())));
        let columns = |of: fn(u32, u32) -> u32| -> String {
            let digit = |c: char| c.to_digit(10).unwrap();
            first.chars().zip(padded.chars()).map(|(p, q)| of(digit(p), digit(q)).to_string()).collect()
        };
        let values = || [first, second].map(|n| n.parse::<BigUint>().unwrap());
        let expected = match &*problem.task {
            "get_digit" => first.chars().nth(second.parse().unwrap()).unwrap().to_string(),
            "length" => (0..).take_while(|&length| first.len() > length).count().to_string(),
            "count" => (first.split(second).count() - 1).to_string(),
            "digit_add" => columns(|p, q| (p + q) % 10),
            "digit_max" => columns(|p, q| if p > q { p } else { q }),
            "digit_min" => columns(|p, q| if p > q { q } else { p }),
            "max_hard" => values().into_iter().max().unwrap().to_string(),
            "min_hard" => values().into_iter().min().unwrap().to_string(),
            task => panic!("{task}"),
        };
        assert_eq!(answer, expected, "{}", problem.question);
        let range = match first.len() {
            1..=10 => "S",
            11..=20 => "M",
            _ => "L",
        };
        assert_eq!(problem.stratum, format!("{} {range}", problem.task));
    });
}

/// What such a Python program prints, and the values it assigns: line by line, with a counter for each loop.
fn interpret(code: &str) -> (String, Vec<(String, i64)>) {
    let lines: Vec<&str> = code.lines().collect();
    let mut variables: BTreeMap<String, i64> = BTreeMap::new();
    let mut list: Vec<i64> = Vec::new();
    let mut assigned = Vec::new();
    let mut printed = String::new();
    run(&lines, &mut variables, &mut list, &mut assigned, &mut printed);
    return (printed, assigned);

    fn run(
        lines: &[&str],
        variables: &mut BTreeMap<String, i64>,
        list: &mut Vec<i64>,
        assigned: &mut Vec<(String, i64)>,
        printed: &mut String,
    ) {
        let mut at = 0;
        while at < lines.len() {
            let words: Vec<&str> = lines[at].split_whitespace().collect();
            let body_end =
                (at + 1..lines.len()).find(|&line| !lines[line].starts_with("    ")).unwrap_or(lines.len());
            let body: Vec<&str> =
                lines[at + 1..body_end].iter().map(|line| line.strip_prefix("    ").unwrap()).collect();
            let term = |word: &str, variables: &BTreeMap<String, i64>| {
                word.trim_end_matches(':').parse().unwrap_or_else(|_| variables[word])
            };
            match words[..] {
                ["for", "_", "in", range] => {
                    let times: usize = range["range(".len()..range.len() - 2].parse().unwrap();
                    for _ in 0..times {
                        run(&body, variables, list, assigned, printed);
                    }
                    at = body_end;
                }
                ["while", name, "<", bound] => {
                    while variables[name] < term(bound, variables) {
                        run(&body, variables, list, assigned, printed);
                    }
                    at = body_end;
                }
                ["if", name, sign, bound] => {
                    let (value, bound) = (variables[name], term(bound, variables));
                    let holds = if sign == "<" { value < bound } else { value > bound };
                    let other: Vec<&str> = vec![lines[body_end + 1].strip_prefix("    ").unwrap()];
                    run(if holds { &body } else { &other }, variables, list, assigned, printed);
                    assert_eq!(lines[body_end], "else:");
                    at = body_end + 2;
                }
                ["xs", "=", "[]"] => at += 1,
                [name, "=", ref expression @ ..] => {
                    let value = match *expression {
                        [left] => term(left, variables),
                        [left, sign, right] => {
                            let (left, right) = (term(left, variables), term(right, variables));
                            match sign {
                                "+" => left + right,
                                "-" => left - right,
                                "*" => left * right,
                                "//" => left.div_euclid(right),
                                "%" => left.rem_euclid(right),
                                sign => panic!("{sign}"),
                            }
                        }
                        _ => panic!("{}", lines[at]),
                    };
                    variables.insert(name.to_owned(), value);
                    assigned.push((name.to_owned(), value));
                    at += 1;
                }
                [call] => {
                    let (function, argument) = call.trim_end_matches(')').split_once('(').unwrap();
                    match (function, argument) {
                        ("print", "xs") => *printed = format!("{list:?}"),
                        ("print", name) => *printed = variables[name].to_string(),
                        ("xs.append", name) => list.push(variables[name]),
                        _ => panic!("{call}"),
                    }
                    at += 1;
                }
                _ => panic!("{}", lines[at]),
            }
        }
    }
}

#[test]
fn programs_print_what_another_interpreter_prints() {
    each("exec_trace", |problem| {
        let code = problem.question.split_once("\n\n").unwrap().1;
        let (printed, assigned) = interpret(code);
        assert_eq!(printed, problem.answer.text, "{code}");
        assert!(problem.stratum.starts_with(&format!("{} steps", assigned.len())), "{code}");
        assert!(assigned.iter().all(|(_, value)| value.abs() <= 9999), "{code}");
        if let Some(compact) = &problem.compact {
            let trace: Vec<_> = assigned.iter().map(|(name, value)| format!("{name}={value}")).collect();
            assert_eq!(compact.scratchpad, trace.join(";"), "{code}");
        } else {
            assert_eq!(problem.answer.kind, Kind::List);
        }
    });
}

/// What the steps of a scratchpad lead to, read off them alone.
fn read_off(prompt: &str, scratchpad: &str) -> Option<String> {
    let steps = || scratchpad.trim_start_matches('-').split(';');
    let last = || steps().next_back().unwrap();
    let backward = |digits: &str| number(digits.chars().map(|digit| digit.to_digit(10).unwrap()).collect());
    let result = || backward(&steps().map(|step| &step[3..]).collect::<String>());
    let name = prompt.split(|c: char| !(c.is_ascii_alphabetic() || c == '_')).next().unwrap();
    let behind = |step: &str, separator| step.rsplit(separator).next().unwrap().to_owned();
    Some(match name {
        "" if prompt.contains("//") => number(
            digits(&steps().map(|s| &s[s.find(':').unwrap() + 1..s.find(',').unwrap()]).collect::<String>())
                .into_iter()
                .collect(),
        ),
        "" if prompt.contains('%') => behind(last(), ':'),
        "" if prompt.contains('/') => {
            // The last divisor but 0 goes out of both.
            let euclid = integers(&scratchpad.replace(',', " "));
            let divisor = euclid[euclid.len() - 2];
            let [a, b] = integers(prompt)[..] else { panic!() };
            format!("{}/{}", a / divisor, b / divisor)
        }
        "" if prompt.contains('(') || integers(&prompt.replace(['-', '+', '*'], " ")).len() > 2 => {
            return None;
        }
        "" if prompt.contains('*') => backward(&behind(last(), ',')),
        "" if prompt.contains('+') => {
            let carried = last().chars().nth(2).unwrap();
            let all =
                steps().map(|step| &step[3..]).chain([carried.to_string().as_str()]).collect::<String>();
            backward(&all)
        }
        "" => format!("{}{}", if scratchpad.starts_with('-') { "-" } else { "" }, result()),
        "gcd" => {
            let euclid = integers(&scratchpad.replace(',', " "));
            euclid[euclid.len() - 2].to_string()
        }
        "sum" | "max" | "min" | "odd" | "even" | "negative" | "int" => behind(scratchpad, ','),
        "bin" | "hex" => {
            let rests: Vec<_> = steps().map(|step| behind(step, ',').parse::<u32>().unwrap()).collect();
            rests.iter().rev().map(|rest| char::from_digit(*rest, 16).unwrap().to_ascii_uppercase()).collect()
        }
        "digit" | "length" | "count" => behind(scratchpad, ':'),
        "digit_add" | "digit_max" | "digit_min" => steps().map(|step| &step[2..]).rev().collect(),
        "larger" | "smaller" => {
            let (p, q) = scratchpad.rsplit(',').next().unwrap().split_at(1);
            let numbers = numbers(prompt);
            numbers[usize::from((p > q) != (name == "larger"))].clone()
        }
        // A program: the last value of what is printed.
        _ => {
            let printed = prompt.rsplit(';').next().unwrap().trim_end_matches("?=");
            let last =
                scratchpad.split(';').rev().find_map(|step| step.strip_prefix(printed)?.strip_prefix('='));
            last.unwrap().to_owned()
        }
    })
}

#[test]
fn the_answer_can_be_read_off_the_scratchpad() {
    for suite in Suite::all() {
        let Some(limit) = suite.limits.of(Style::Compact) else { continue };
        let mut read = 0;
        for item in suite.items(2).take(ITEMS / 2) {
            let Some(compact) = &item.problem.compact else { continue };
            if let Some(answer) = read_off(&compact.prompt, &compact.scratchpad) {
                assert_eq!(answer, item.problem.answer.text, "{}{}", compact.prompt, compact.scratchpad);
                read += 1;
            }
            let whole = item.problem.shown(Style::Compact) + "\n";
            assert!(whole.len() <= limit, "{} needs {} of {limit}: {whole}", item.id, whole.len());
            assert!(whole.chars().all(|c| c == '\n' || (' '..='~').contains(&c)), "{whole}");
        }
        assert!(read > 0 || suite.name == "expr_chain", "{}", suite.name);
    }
}
