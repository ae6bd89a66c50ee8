//! The word problems against calculations that were written by hand, from nothing but the numbers in their texts.

use std::collections::{BTreeMap, BTreeSet};

use reprocheck::suite::{
    answer::Kind,
    draw::Draw,
    generate::{template::Templates, word_checklist::WordChecklist, word_symbolic::WordSymbolic},
    problem::{Generator, Problem},
};

/// A template's answer from the numbers of its text in the order they stand there: the pattern tells the level. Then
/// where the paraphrase has the numbers of the base.
type ByHand = (&'static str, fn(&[f64]) -> Option<f64>, &'static [usize]);

/// Numbers this small have no rounding unless a division is not even, and then the result is not whole.
const BY_HAND: [ByHand; 24] = [
    (
        "tickets",
        |numbers| match *numbers {
            [a, p, f, k] => Some((a - k) * p + f),
            [a, p, f, k, b, q] => Some((a - k) * p + f + b * q),
            [a, p, f, k, b, q, back] => Some((a - k) * p + f + b * q - back),
            _ => None,
        },
        &[2, 1, 0, 3],
    ),
    (
        "bakery",
        |numbers| match *numbers {
            [b, c, s, k] => Some((b * c - s) / k),
            [b, c, s, k, d, e] => Some((b * c - s) / k + d * e),
            [b, c, s, k, d, e, g] => Some((b * c - s) / k + d * e - g),
            _ => None,
        },
        &[2, 0, 1, 3],
    ),
    (
        "drive",
        |numbers| match *numbers {
            [h, v, g, w] => Some(h * v + g * w),
            [h, v, g, w, f] => Some(h * v + g * w + f),
            [h, v, g, w, f, s] => Some(2.0 * (h * v + g * w + f) - s),
            _ => None,
        },
        &[1, 0, 3, 2],
    ),
    (
        "bulbs",
        |numbers| match *numbers {
            [r, c, d, e, m] => Some(r * c + d * e - m),
            // Half of them go at the last level, which tells no number more.
            [r, c, d, e, m, g, h] => Some(r * c + d * e - m + g * h),
            _ => None,
        },
        &[4, 2, 3, 0, 1],
    ),
    (
        "booklets",
        |numbers| match *numbers {
            [c, p, s, q] => Some(c * p * q / s),
            [c, p, s, q, v] => Some(c * (p * q / s + v)),
            [c, p, s, q, v, r] => Some(c * (p * q / s + v) * (100.0 - r) / 100.0),
            _ => None,
        },
        &[3, 2, 0, 1],
    ),
    (
        "library",
        |numbers| match *numbers {
            [a, k, s] => Some(a * (1.0 + k) / s),
            [a, k, s, w] => Some(a * (1.0 + k) / s + w),
            [a, k, s, w, d, e] => Some(a * (1.0 + k) / s + w - d * e),
            _ => None,
        },
        &[2, 0, 1],
    ),
    (
        "phone",
        |numbers| match *numbers {
            [b, g, e, u] => Some(b + (u - g) * e),
            [b, g, e, u, c, t] => Some(b + (u - g) * e + c * t),
            [b, g, e, u, c, t, d] => Some(b + (u - g) * e + c * t - d),
            _ => None,
        },
        &[3, 1, 0, 2],
    ),
    (
        "tank",
        |numbers| match *numbers {
            [w, r, m, c, l] => Some(w + r * m - c * l),
            [w, r, m, c, l, q, h] => Some(w + r * m - c * l + q * h),
            _ => None,
        },
        &[3, 4, 0, 1, 2],
    ),
    (
        "pancakes",
        |numbers| match *numbers {
            [s, f, h, t] => Some(h - t * f / s),
            [s, f, h, t, b, w] => Some(h - t * f / s + b * w),
            [s, f, h, t, b, w, d, c] => Some(h - t * f / s + b * w - d * c),
            _ => None,
        },
        &[3, 2, 1, 0],
    ),
    (
        "excursion",
        |numbers| match *numbers {
            [c, s, m, b, p] => Some((c * s - m) / b * p),
            [c, s, m, b, p, t] => Some((c * s - m) / b * p + (c * s - m) * t),
            [c, s, m, b, p, t, d] => Some((c * s - m) / b * p + (c * s - m) * t - d),
            _ => None,
        },
        &[3, 4, 0, 1, 2],
    ),
    (
        "basketball",
        |numbers| match *numbers {
            [t, d, f] => Some(3.0 * t + 2.0 * d + f),
            [t, d, f, g] => Some(2.0 * (3.0 * t + 2.0 * d + f) + g),
            _ => None,
        },
        &[2, 1, 0],
    ),
    (
        "eggs",
        |numbers| match *numbers {
            [h, e, k, b, p] => Some((h * e - k) / b * p),
            [h, e, k, b, p, g, q] => Some((h * e - k) / b * p + g * q),
            [h, e, k, b, p, g, q, f] => Some((h * e - k) / b * p + g * q - f),
            _ => None,
        },
        &[1, 0, 2, 3, 4],
    ),
    (
        "skateboard",
        |numbers| match *numbers {
            [c, s, e, f] => Some((c - s) / (e - f)),
            [c, s, e, f, m] => Some((c - s) / (e - f) + m),
            [c, s, e, f, m, j] => Some(((c - s) / (e - f) + m) * (1.0 + j)),
            _ => None,
        },
        &[3, 2, 1, 0],
    ),
    (
        "book",
        |numbers| match *numbers {
            [b, p, d, q] => Some(d + (b - d * p) / q),
            [b, p, d, q, k] => Some((d + (b - d * p) / q) * (1.0 + k)),
            [b, p, d, q, k, m] => Some((d + (b - d * p) / q) * (1.0 + k) + m),
            _ => None,
        },
        &[0, 3, 2, 1],
    ),
    (
        "piano",
        |numbers| match *numbers {
            [m, d, s] => Some(m * d + 2.0 * s),
            [m, d, s, k] => Some(2.0 * (m * d + 2.0 * s) - k),
            [m, d, s, k, l, e] => Some(2.0 * (m * d + 2.0 * s) - k + l * e),
            _ => None,
        },
        &[2, 1, 0],
    ),
    (
        "wall",
        |numbers| match *numbers {
            [w, h, k, a, p] => Some((w * h - k * a) * p),
            [w, h, k, a, p, d, q] => Some((w * h - k * a) * p + d * q),
            [w, h, k, a, p, d, q, r] => Some(((w * h - k * a) * p + d * q) * (100.0 - r) / 100.0),
            _ => None,
        },
        &[4, 2, 3, 1, 0],
    ),
    (
        "bus",
        |numbers| match *numbers {
            [a, b, c, d] => Some((a - b + c) / 2.0 + d),
            [a, b, c, d, e, f] => Some((a - b + c) / 2.0 + d + e - f),
            [a, b, c, d, e, f, k, g] => Some((a - b + c) / 2.0 + d + e - f + k * g),
            _ => None,
        },
        &[0, 2, 1, 3],
    ),
    (
        "screws",
        |numbers| match *numbers {
            [m, r, h, d] => Some(m * r * h - d),
            [m, r, h, d, s, t] => Some(m * r * h - d + s * t),
            [m, r, h, d, s, t, u, v] => Some(m * r * h - d + s * t - u * v),
            _ => None,
        },
        &[3, 0, 2, 1],
    ),
    (
        "laps",
        |numbers| match *numbers {
            [l, k, m] => Some((2.0 * l + k) * m),
            [l, k, m, d] => Some((2.0 * l + k) * m + 2.0 * d),
            _ => None,
        },
        &[1, 0, 2],
    ),
    (
        "market",
        |numbers| match *numbers {
            [m, a, p, b, q] => Some(m - a * p - b * q),
            [m, a, p, b, q, c, e] => Some(m - a * p - b * q + c * e),
            _ => None,
        },
        &[4, 2, 0, 3, 1],
    ),
    (
        "stickers",
        |numbers| match *numbers {
            [a, k, l] => Some(a + k * a / 2.0 - l),
            [a, k, l, p, s] => Some(a + k * a / 2.0 - l + p * s),
            [a, k, l, p, s, c, d] => Some(a + k * a / 2.0 - l + p * s - c * d),
            _ => None,
        },
        &[2, 0, 1],
    ),
    (
        "hotel",
        |numbers| match *numbers {
            [f, r, c, p] => Some((f * r - c) * p),
            [f, r, c, p, m, q] => Some((f * r - c) * p + m * q),
            [f, r, c, p, m, q, w, s] => Some((f * r - c) * p + m * q - w * s),
            _ => None,
        },
        &[3, 2, 1, 0],
    ),
    (
        "truck",
        |numbers| match *numbers {
            [p, b, u, w] => Some((p * b - u) * w),
            [p, b, u, w, c, k] => Some((p * b - u) * w + c * k),
            [p, b, u, w, c, k, r] => Some(((p * b - u) * w + c * k) * (100.0 - r) / 100.0),
            _ => None,
        },
        &[3, 0, 1, 2],
    ),
    (
        "album",
        |numbers| match *numbers {
            [t, d, a, k, s] => Some(t + d * a * (k - 1.0) / k / s),
            [t, d, a, k, s, e] => Some(t + d * a * (k - 1.0) / k / s + e),
            [t, d, a, k, s, e, r] => Some(t + d * a * (k - 1.0) / k / s + e - r),
            _ => None,
        },
        &[4, 1, 2, 3, 0],
    ),
];

/// What the last clause does to the sum before it where it tells no number.
fn last_clause(id: &str, sum: f64) -> f64 {
    match id {
        "bulbs" | "tank" | "market" => sum / 2.0,
        "basketball" | "laps" => sum * 1.5,
        _ => sum,
    }
}

fn by_hand(id: &str) -> ByHand {
    *BY_HAND
        .iter()
        .find(|(known, ..)| *known == id)
        .unwrap_or_else(|| panic!("{id}: calculate it by hand, too"))
}

fn parameters(extra: &str) -> Result<Templates, String> {
    let text = if extra.is_empty() { include_str!("../../suites/word_symbolic/suite.toml") } else { extra };
    let mut table: toml::Table = text.parse().map_err(|error| format!("{error}"))?;
    let parameters = table.remove("parameters").ok_or("no parameters")?;
    parameters.try_into().map_err(|error: toml::de::Error| error.message().to_owned())
}

fn symbolic() -> WordSymbolic {
    WordSymbolic::new(parameters("").unwrap())
}

fn checklist() -> WordChecklist {
    WordChecklist::new(parameters("").unwrap())
}

fn one(generator: &dyn Generator, cell: usize, group: u64) -> Problem {
    let mut problems = generator.draw(cell, &mut Draw::new("words", 1, 0, group, 0));
    assert_eq!(problems.len(), 1);
    problems.remove(0)
}

fn numbers(text: &str) -> Vec<f64> {
    let digits = text.split(|c: char| !c.is_ascii_digit()).filter(|digits| !digits.is_empty());
    digits.map(|digits| digits.parse().unwrap()).collect()
}

fn is_good_english(text: &str) {
    assert!(!text.contains(['{', '}', '[', ']']), "{text}");
    assert!(!text.contains("  ") && !text.contains(" .") && !text.contains(" ,"), "{text}");
    assert!(!numbers(text).iter().any(|number| *number < 2.0), "{text}");
    assert!(text.starts_with(char::is_uppercase) && text.ends_with(['?', '.']), "{text}");
}

#[test]
fn the_suite_files_hold_what_the_generators_need() {
    assert_eq!(symbolic().check(), Ok(()));
    assert_eq!(checklist().check(), Ok(()));
    assert_eq!((symbolic().cells(), checklist().cells()), (96, 384));
    let files = [
        include_str!("../../suites/word_symbolic/suite.toml"),
        include_str!("../../suites/word_checklist/suite.toml"),
    ];
    for file in files {
        let table: toml::Table = file.parse().unwrap();
        let measures = table["measures"].as_str().unwrap();
        assert!(!measures.contains(['\n', '\\']) && !measures.contains("  "), "{measures}");
    }
}

#[test]
fn every_answer_follows_from_the_numbers_in_the_text() {
    let symbolic = symbolic();
    for cell in 0..symbolic.cells() {
        for group in 0..500 {
            let problem = one(&symbolic, cell, group);
            is_good_english(&problem.question);
            assert_eq!(problem.answer.kind, Kind::Integer);
            let (id, answer, order) = by_hand(problem.cluster.as_ref().unwrap());
            let mut numbers = numbers(&problem.question);
            if problem.stratum == "noop" {
                assert!(
                    numbers.len() > order.len(),
                    "what changes nothing shall tempt: {}",
                    problem.question
                );
                numbers.truncate(order.len());
            }
            let mut expected = answer(&numbers).unwrap_or_else(|| panic!("{}", problem.question));
            if problem.stratum == "p2" {
                expected = last_clause(id, expected);
            }
            assert_eq!(problem.answer.text, expected.to_string(), "{}", problem.question);
            assert!((2.0..100_000.0).contains(&expected), "{}", problem.question);
        }
    }
}

#[test]
fn any_beginning_holds_every_template_and_every_level_equally_often() {
    let symbolic = symbolic();
    let (mut cells, mut levels) = (BTreeSet::new(), BTreeMap::<_, usize>::new());
    for cell in 0..symbolic.cells() {
        let problem = one(&symbolic, cell, 0);
        *levels.entry(problem.stratum.clone()).or_default() += 1;
        let counts = || levels.values().copied();
        assert!(cell < 4 || counts().max().unwrap() - counts().min().unwrap() <= 1, "{levels:?}");
        cells.insert((problem.cluster, problem.stratum));
        assert_eq!(cells.len(), cell + 1);
        if (cell + 1) % 24 == 0 {
            assert!(counts().all(|count| count == (cell + 1) / 4));
        }
    }
}

#[test]
fn a_million_problems_need_not_repeat_themselves() {
    let symbolic = symbolic();
    for cell in 0..symbolic.cells() {
        let texts: BTreeSet<_> = (0..2000).map(|group| one(&symbolic, cell, group).question).collect();
        // 2000 draws from 80,000 texts repeat 25; a million items are 10,417 of each cell.
        assert!(texts.len() >= 1975, "{} of {cell}: {:?}", texts.len(), texts.first());
    }
}

#[test]
fn the_first_96_items_of_the_checklist_hold_each_kind_six_times_and_each_template_four_times() {
    let checklist = checklist();
    let (mut kinds, mut templates, mut cells) = (BTreeMap::new(), BTreeMap::new(), BTreeSet::new());
    for cell in 0..checklist.cells() {
        let problem = one(&checklist, cell, 0);
        assert_eq!(problem.stratum.split('/').next().unwrap(), problem.task);
        cells.insert((problem.stratum.clone(), problem.cluster.clone()));
        *kinds.entry(problem.stratum).or_insert(0) += 1;
        *templates.entry(problem.cluster).or_insert(0) += 1;
        if (cell + 1) % 96 == 0 {
            assert!(kinds.len() == 16 && kinds.values().all(|&count| count == (cell + 1) / 16));
            assert!(templates.len() == 24 && templates.values().all(|&count| count == (cell + 1) / 24));
        }
    }
    assert_eq!(cells.len(), 384);
}

/// A checklist question taken apart.
struct Parts<'a> {
    problem: &'a str,
    /// The steps of the solution as they are written, and what comes before and after them.
    steps: Vec<&'a str>,
    before: Option<&'a str>,
    after: Option<&'a str>,
    instruction: Option<&'a str>,
}

fn take_apart(question: &str) -> Parts<'_> {
    let blocks: Vec<_> = question.split("\n\n").collect();
    let lines = blocks[1..].iter().find_map(|block| block.strip_prefix("Proposed solution:\n"));
    let lines: Vec<_> = lines.into_iter().flat_map(str::lines).collect();
    Parts {
        problem: blocks[0],
        steps: lines.iter().copied().filter(|line| line.starts_with("Step ")).collect(),
        before: lines.first().copied().filter(|line| !line.starts_with("Step ")),
        after: lines.last().copied(),
        instruction: (blocks.len() > 1).then(|| *blocks.last().unwrap()),
    }
}

/// The steps whose own calculation is wrong, counted from 1. No template has parentheses in its steps.
fn wrong_steps(steps: &[&str]) -> Vec<usize> {
    let is_wrong = |line: &str| {
        let (left, right) = line.split_once(" = ").unwrap();
        let is_math = |word: &&str| word.chars().all(|c| c.is_ascii_digit() || "+-*/".contains(c));
        let words: Vec<_> = left.split(' ').rev().take_while(is_math).collect();
        let result = numbers(right)[0];
        let value = match *words.into_iter().rev().collect::<Vec<_>>() {
            [a, sign, b] => of(a, sign, b),
            [a, "*", b, "/", c] => of(&of(a, "*", b).to_string(), "/", c),
            _ => panic!("{line}"),
        };
        value != result
    };
    for (at, line) in steps.iter().enumerate() {
        is_good_english(line.strip_prefix(&format!("Step {}: ", at + 1)).unwrap_or_else(|| panic!("{line}")));
    }
    (1..=steps.len()).filter(|at| is_wrong(steps[at - 1].split_once(": ").unwrap().1)).collect()
}

fn of(a: &str, sign: &str, b: &str) -> f64 {
    let (a, b): (f64, f64) = (a.parse().unwrap(), b.parse().unwrap());
    match sign {
        "+" => a + b,
        "-" => a - b,
        "*" => a * b,
        "/" => a / b,
        _ => panic!("{sign}"),
    }
}

/// The last number of a text.
fn last_number(text: &str) -> f64 {
    *numbers(text).last().unwrap_or_else(|| panic!("{text}"))
}

/// Every whole number that x may be, from nothing to far beyond what it is ever drawn from, and the last number of the
/// problem comes out.
fn fits_for_x(id: &str, problem: &str) -> Vec<f64> {
    const X: f64 = 987_654_321.0;
    let (_, answer, order) = by_hand(id);
    let mut numbers = numbers(&problem.replace(" x ", &format!(" {X} ")));
    let (given, place) = (*numbers.last().unwrap(), numbers.iter().position(|number| *number == X).unwrap());
    let fits = |x: &f64| {
        numbers[place] = *x;
        answer(&numbers[..order.len()]) == Some(given)
    };
    (0..3000).map(f64::from).filter(fits).collect()
}

/// What the calculation by hand makes of a problem with this number in the place of its vague words.
fn with_a_guess(id: &str, problem: &str, guess: i64) -> Option<f64> {
    let vague = ["a certain number of", "several hundred", "several", "some", "a few", "many"];
    let words = vague.into_iter().find(|words| problem.contains(&format!(" {words} "))).unwrap();
    let (_, answer, order) = by_hand(id);
    let numbers = numbers(&problem.replacen(words, &guess.to_string(), 1));
    assert_eq!(numbers.len(), order.len(), "{problem}");
    answer(&numbers)
}

#[test]
fn every_label_of_the_checklist_is_true() {
    let checklist = checklist();
    let mut counts: BTreeMap<(String, String), usize> = BTreeMap::new();
    for cell in 0..checklist.cells() {
        for group in 0..60 {
            let problem = one(&checklist, cell, group);
            let id = problem.cluster.as_deref().unwrap();
            let (_, by_hand, order) = by_hand(id);
            let parts = take_apart(&problem.question);
            is_good_english(parts.problem);
            let (task, form) = problem.stratum.split_once('/').unwrap();
            // A number that is not told leaves a gap, and then there is nothing to calculate.
            let told = numbers(parts.problem);
            let forward = || match form {
                "paraphrase" => {
                    assert_eq!(told.len(), order.len(), "{}", parts.problem);
                    let mut sorted = told.clone();
                    order.iter().zip(&told).for_each(|(&place, &number)| sorted[place] = number);
                    by_hand(&sorted).unwrap()
                }
                _ => by_hand(&told[..order.len()]).unwrap(),
            };
            let truth = || match form {
                "reverse" => {
                    let all = fits_for_x(id, parts.problem);
                    assert_eq!(all.len(), 1, "{}", parts.problem);
                    all[0]
                }
                _ => forward(),
            };
            let wrong = wrong_steps(&parts.steps);
            let labeled = problem.answer.text.as_str();
            let mut allowed = vec![];
            if task.ends_with("judging") {
                let (is_right, truth) = (problem.answer.text == "Correct", truth());
                let claims = last_number(parts.after.unwrap());
                assert_eq!(claims == truth, is_right, "{}", problem.question);
                assert_eq!(wrong.is_empty(), is_right, "{}", problem.question);
                let result = last_number(parts.steps.last().unwrap());
                if form == "reverse" {
                    assert_eq!(parts.before.map(last_number), Some(claims));
                    assert_eq!(result, last_number(parts.problem), "{}", problem.question);
                    assert!((claims - truth).abs() <= 9.0);
                } else {
                    assert_eq!(result, claims, "{}", problem.question);
                }
                assert!(wrong.len() <= 1, "{}", problem.question);
            }
            match task {
                "solving" => assert_eq!(problem.answer.text, truth().to_string(), "{}", problem.question),
                "outcome_judging" => allowed.extend(["Correct".to_owned(), "Incorrect".to_owned()]),
                "process_judging" => {
                    allowed.extend((1..=parts.steps.len()).map(|at| format!("Step {at}")));
                    assert_eq!(labeled, format!("Step {}", wrong[0]), "{}", problem.question);
                }
                _ => {
                    allowed.extend(["Answerable".to_owned(), "Unanswerable".to_owned()]);
                    let blanks = usize::from(form == "reverse") + usize::from(labeled == "Unanswerable");
                    let without = match form {
                        "distractor" => told.len().min(order.len()) == order.len(),
                        "reverse" => told.len() - 1 == order.len() - blanks,
                        _ => told.len() == order.len() - blanks,
                    };
                    assert!(without, "{}", problem.question);
                    if labeled == "Unanswerable" && form == "original" {
                        assert_ne!(with_a_guess(id, parts.problem, 12), with_a_guess(id, parts.problem, 24));
                    }
                }
            }
            if task == "solving" {
                assert_eq!((problem.answer.kind, &problem.request), (Kind::Integer, &None));
                continue;
            }
            assert_eq!(problem.answer.kind, Kind::Label);
            assert!(allowed.iter().any(|label| label == labeled));
            let instruction = parts.instruction.unwrap();
            assert!(allowed.iter().all(|label| instruction.contains(label)), "{instruction}");
            assert!(problem.request.as_ref().unwrap().contains(allowed[0].split(' ').next().unwrap()));
            *counts.entry((problem.stratum.clone(), problem.answer.text)).or_default() += 1;
        }
    }
    // 1440 coins: three in four standard deviations of the half.
    for ((stratum, label), count) in counts {
        assert!(stratum.starts_with("process") || (644..=796).contains(&count), "{stratum} {label}: {count}");
    }
}

/// A suite file of one good template: the example in the documentation of the language.
fn example() -> String {
    let source = include_str!("../../src/suite/generate/template/mod.rs");
    let block = source.split("```").nth(1).unwrap().trim_start_matches("toml");
    let lines: Vec<_> = block.lines().map(|line| line.trim_start_matches("//!")).collect();
    format!("[parameters]\nnames = [\"Aisha\", \"Ben\"]\n[[parameters.template]]{}", lines.join("\n"))
}

#[test]
fn the_documented_example_makes_problems() {
    let templates = parameters(&example()).unwrap();
    assert_eq!(WordSymbolic::new(templates.clone()).check(), Ok(()));
    let checklist = WordChecklist::new(templates.clone());
    assert_eq!((checklist.check(), checklist.cells()), (Ok(()), 16));
    let problem = one(&WordSymbolic::new(templates), 2, 0);
    let [a, p, k, b, v] = numbers(&problem.question)[..] else { panic!("{}", problem.question) };
    assert_eq!(problem.answer.text, ((a - k) * p + b - v).to_string());
    assert_eq!(problem.operands, [a, p, k, b, v].map(|number| number.to_string()));
}

#[test]
fn a_mistake_in_a_template_is_told_with_its_place_and_the_way_out() {
    let way_out = "write numbers and names with + - * / % and parentheses";
    for (good, bad, sentence) in [
        (r#"id = "tickets""#, r#"id = "My Tickets""#, "template `My Tickets`, `id`: write small letters, digits and underscores, a letter first".to_owned()),
        ("kept = a - k", "kept = a - q", "template `tickets`, `steps`: nothing before it declares `q`: correct the name or add it to `draw`".to_owned()),
        ("kept = a - k", "kept = a - n", "template `tickets`, `steps`: `n` is a word and cannot be calculated with: name a number".to_owned()),
        ("kept = a - k", "kept = a -", format!("template `tickets`, `steps`: `a -` ends too early: {way_out}")),
        ("kept = a - k", "a = a - k", "template `tickets`, `steps`: `a` has a value already: take another name".to_owned()),
        ("[kept = a - k] tickets", "a - k tickets", "template `tickets`, `steps`: `{n} keeps a - k tickets.` calculates nothing: write [name = a + b] into it".to_owned()),
        ("sum = spent + b", "sum = spent + a + c", "template `tickets`, `more.1.steps`: nothing before it declares `c`: correct the name or add it to `draw`".to_owned()),
        ("sum = spent + b", "sum = b + b", "template `tickets`, `more.1.steps`: nothing uses `spent`: use it or remove it".to_owned()),
        ("A drink costs {b} dollars", "A drink is not free", "template `tickets`, `more.1.text`: it does not tell `b`, which a step needs: add {b}".to_owned()),
        (r#"steps = ["{n} pays [rest = sum - v]."]"#, "steps = []", "template `tickets`, `more.2.steps`: there is none: write how the answer is calculated".to_owned()),
        ("which were {p} dollars each", "", "template `tickets`, `again`: it does not tell `p`, which a step needs: add {p}".to_owned()),
        ("{n} buys {a}", "{n} buys {a", "template `tickets`, `text`: nothing before it declares `a {t`: correct the name or add it to `draw`".to_owned()),
        ("sells {k} of them at cost.\"\n", "sells {k of them at cost.\"\n", "template `tickets`, `text`: `{k of them at cost.` is not a slot: write {name}, and [name = a + b] in a step".to_owned()),
        ("has been there {z} times", "has been there {y} times", "template `tickets`, `noop.text`: nothing before it declares `y`: correct the name or add it to `draw`".to_owned()),
        ("has been there {z} times", "has been there", "template `tickets`, `noop.draw`: nothing uses `z`: use it or remove it".to_owned()),
        ("\"a = 8..60\"", "\"a = 8..60\", \"c = 2..9\"", "template `tickets`, `draw`: nothing uses `c`: use it or remove it".to_owned()),
        ("\"a = 8..60\"", "\"a\"", "template `tickets`, `draw`: `a` gives no value: write `a = 2..9`, `= name` or `= apples | pears`".to_owned()),
        ("\"a = 8..60\"", "\"A = 8..60\"", "template `tickets`, `draw`: `A` names no value: write small letters and digits, a letter first, but not `name`".to_owned()),
        ("\"a = 8..60\"", "\"a = 8..k\"", "template `tickets`, `draw`: nothing before it declares `k`: correct the name or add it to `draw`".to_owned()),
        ("ask = ", "when = [\"a + k\"]\nask = ", "template `tickets`, `when`: `a + k` compares nothing: write two sides with <, <=, >, >=, == or !=".to_owned()),
        ("spent {spent} dollars", "spent all of it", "template `tickets`, `given`: it does not tell the result of the last step: add it in braces".to_owned()),
        ("unknown = \"k\"", "unknown = \"kept\"", "template `tickets`, `unknown`: no step calculates with a drawn `kept`: name a number that `steps` need".to_owned()),
        ("a = \"several\"", "n = \"several\"", "template `tickets`, `vague`: no step calculates with a drawn `n`: name a number that `steps` need".to_owned()),
        ("a = \"several\", ", "", "template `tickets`, `vague`: x cannot be missing: add a number other than `unknown`".to_owned()),
        (", \"They cost [spent = kept * p] dollars.\"", "", "template `tickets`, `steps`: there is one step, and judging needs a choice: write two or more".to_owned()),
        ("\"Aisha\", \"Ben\"", "\"Ben\", \"Ben\"", "`names` has `Ben` twice: remove one of them".to_owned()),
        ("\"Aisha\", \"Ben\"", "", "`names` has 0 and a template draws 1: add some".to_owned()),
        ("ask = ", "question = ", "unknown field `question`, expected one of `id`, `draw`, `when`, `text`, `again`, `ask`, `steps`, `given`, `unknown`, `vague`, `noop`, `more`".to_owned()),
    ] {
        let text = example();
        assert_eq!(text.matches(good).count(), 1, "{good}");
        assert_eq!(parameters(&text.replace(good, bad)).unwrap_err(), sentence, "{bad}");
    }
    let example = example();
    let (head, template) = example.split_once("[[").unwrap();
    assert_eq!(
        parameters(&format!("{example}\n[[{template}")).unwrap_err(),
        "template `tickets` stands there twice: give one of them another `id`"
    );
    assert_eq!(
        parameters(&format!("{head}template = []")).unwrap_err(),
        "there is no template: write a [[parameters.template]]"
    );
}

#[test]
fn a_template_that_rarely_makes_a_problem_is_refused() {
    let check = |good: &str, bad: &str| {
        let templates = parameters(&example().replace(good, bad)).unwrap();
        [WordSymbolic::new(templates.clone()).check(), WordChecklist::new(templates).check()]
    };
    let sentence = |level: &str| {
        Err(format!(
            "template `tickets`: only 0 of 100 attempts at `{level}` have even divisions, numbers from 2 to a billion and what \
             `when` asks for: choose bounds that fit, such as `c = a * b` where c is divided by a"
        ))
    };
    // Never; never even; always too small; not even a choice.
    assert_eq!(check("ask = ", "when = [\"a > 60\"]\nask = "), [sentence("p0"), sentence("p0")]);
    assert_eq!(check("kept * p]", "kept * p / 10007]"), [sentence("p0"), sentence("p0")]);
    assert_eq!(check("k = 2..a-4", "k = 1"), [sentence("p0"), sentence("p0")]);
    assert_eq!(check("p = 10..90 step 5", "p = 90..10"), [sentence("p0"), sentence("p0")]);
    // The checklist does not use what comes after the base.
    assert_eq!(check("v = 2..9", "v = 9999"), [sentence("p2"), Ok(())]);
    let square = "template `tickets`, `unknown`: the steps multiply `k` by itself, divide by it or take a remainder of \
                  it: name a number that they only add, subtract and multiply by others";
    assert_eq!(check("kept * p]", "kept * p * k]"), [Ok(()), Err(square.to_owned())]);
    // Every x fits.
    assert_eq!(check("kept * p]", "(kept + k) * p]"), [Ok(()), sentence("solving/reverse")]);
}
