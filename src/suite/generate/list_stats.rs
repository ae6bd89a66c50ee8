//! Whole numbers that a list of numbers has: sums, extremes, counts.

use serde::Deserialize;

use crate::suite::{
    answer::Answer,
    compact,
    draw::Draw,
    problem::{Generator, Problem},
};

/// Tasks on lists, by their length.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ListStats {
    /// How long the lists are.
    lengths: Vec<usize>,
    /// The largest number of a list; the smallest is as far below 0.
    largest: i64,
    /// Lists up to this long have a compact form too, for the tasks that have one.
    compact_length: usize,
}

/// What is asked of a list.
struct Task {
    name: &'static str,
    /// After "What is …" or alike; `{}` stands for the list.
    question: &'static str,
    lists: Lists,
    of: fn(&[i64]) -> i64,
    /// The name in the compact form.
    compact: Option<&'static str>,
}

/// Which lists a task takes.
#[derive(Clone, Copy, PartialEq)]
enum Lists {
    /// Different numbers.
    Distinct,
    /// One more number than asked for, so that there is one in the middle.
    Odd,
    /// One number more often than any other.
    WithMode,
    /// Numbers that come up again.
    Repeating,
    /// Exactly so many.
    Of(usize),
}

const fn task(name: &'static str, question: &'static str, lists: Lists, of: fn(&[i64]) -> i64) -> Task {
    Task { name, question, lists, of, compact: None }
}

const fn compact(
    name: &'static str,
    question: &'static str,
    short: &'static str,
    of: fn(&[i64]) -> i64,
) -> Task {
    Task { name, question, lists: Lists::Distinct, of, compact: Some(short) }
}

/// How many of its neighbors satisfy something.
fn pairs(list: &[i64], holds: impl Fn(i64, i64) -> bool) -> i64 {
    list.windows(2).filter(|pair| holds(pair[0], pair[1])).count() as i64
}

fn count(list: &[i64], holds: impl Fn(i64) -> bool) -> i64 {
    list.iter().filter(|&&number| holds(number)).count() as i64
}

fn sorted(list: &[i64]) -> Vec<i64> {
    let mut sorted = list.to_vec();
    sorted.sort_unstable();
    sorted
}

fn largest(list: &[i64]) -> i64 {
    list.iter().copied().max().unwrap_or(0)
}

fn smallest(list: &[i64]) -> i64 {
    list.iter().copied().min().unwrap_or(0)
}

fn signed(list: &[i64]) -> impl Iterator<Item = i64> {
    list.iter().enumerate().map(|(at, &number)| if at.is_multiple_of(2) { number } else { -number })
}

const TASKS: [Task; 21] = [
    compact("sum", "What is the sum of {}?", "sum", |list| list.iter().sum()),
    task(
        "alternating_sum",
        "Take the first number of {}, subtract the second, add the third, and so on in turn. What results?",
        Lists::Distinct,
        |list| signed(list).sum(),
    ),
    task("product", "What is the product of {}?", Lists::Of(2), |list| list.iter().product()),
    task("product", "What is the product of {}?", Lists::Of(3), |list| list.iter().product()),
    task("subtraction", "Of {}, what is the first number minus the second?", Lists::Of(2), |list| {
        list[0] - list[1]
    }),
    task("absolute_difference", "How far apart are the two numbers {}?", Lists::Of(2), |list| {
        (list[0] - list[1]).abs()
    }),
    compact("find_maximum", "What is the largest number of {}?", "max", largest),
    compact("find_minimum", "What is the smallest number of {}?", "min", smallest),
    task("second_maximum", "What is the second largest number of {}?", Lists::Distinct, |list| {
        sorted(list)[list.len() - 2]
    }),
    task("range", "What is the largest number minus the smallest number of {}?", Lists::Distinct, |list| {
        largest(list) - smallest(list)
    }),
    task(
        "index_of_maximum",
        "Counting from 0, at which position of {} does the largest number stand?",
        Lists::Distinct,
        |list| list.iter().take_while(|&&number| number != largest(list)).count() as i64,
    ),
    task("median", "What is the median of {}?", Lists::Odd, |list| sorted(list)[list.len() / 2]),
    task("mode", "Which number occurs most often in {}?", Lists::WithMode, |list| {
        let often = |number: &i64| (count(list, |other| other == *number), *number);
        list.iter().copied().max_by_key(often).unwrap_or(0)
    }),
    compact("odd_count", "How many odd numbers are there in {}?", "odd", |list| {
        count(list, |number| number % 2 != 0)
    }),
    compact("even_count", "How many even numbers are there in {}?", "even", |list| {
        count(list, |number| number % 2 == 0)
    }),
    compact("count_negative", "How many negative numbers are there in {}?", "negative", |list| {
        count(list, |number| number < 0)
    }),
    task("count_unique", "How many different numbers are there in {}?", Lists::Repeating, |list| {
        let mut sorted = sorted(list);
        sorted.dedup();
        sorted.len() as i64
    }),
    task(
        "count_greater_than_previous",
        "How many numbers of {} are larger than the number just before them?",
        Lists::Distinct,
        |list| pairs(list, |before, after| after > before),
    ),
    task(
        "max_adjacent_difference",
        "What is the largest distance between two neighbors in {}?",
        Lists::Distinct,
        |list| list.windows(2).map(|pair| (pair[0] - pair[1]).abs()).max().unwrap_or(0),
    ),
    task(
        "sum_of_digits",
        "What is the sum of all decimal digits of the numbers {}?",
        Lists::Distinct,
        |list| {
            let digits = |number: &i64| {
                number.abs().to_string().bytes().map(|digit| i64::from(digit - b'0')).sum::<i64>()
            };
            list.iter().map(digits).sum()
        },
    ),
    task(
        "local_maxima_count",
        "How many numbers of {} are larger than both their neighbors? The first and the last number do not count.",
        Lists::Distinct,
        |list| list.windows(3).filter(|three| three[1] > three[0] && three[1] > three[2]).count() as i64,
    ),
];

impl ListStats {
    /// Each task with each of its lengths, the lengths in the outer turn.
    fn cell(&self, cell: usize) -> (&'static Task, usize) {
        let first = TASKS.len();
        if cell < first {
            return (&TASKS[cell], self.lengths[0]);
        }
        let mut varied = TASKS.iter().filter(|task| !matches!(task.lists, Lists::Of(_)));
        let of = varied.clone().count();
        let task = varied.nth((cell - first) % of).expect("a remainder is smaller than the count");
        (task, self.lengths[1 + (cell - first) / of])
    }
}

impl Generator for ListStats {
    fn cells(&self) -> usize {
        let varied = TASKS.iter().filter(|task| !matches!(task.lists, Lists::Of(_))).count();
        TASKS.len() + (self.lengths.len() - 1) * varied
    }

    fn draw(&self, cell: usize, draw: &mut Draw) -> Vec<Problem> {
        let (task, length) = self.cell(cell);
        let list = self.list(task.lists, length, draw);
        let written = list.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
        let question = task.question.replace("{}", &written);
        let stratum = format!("{} {}", task.name, list.len());
        let problem = Problem::new(stratum, task.name, question, Answer::integer((task.of)(&list))).of(&list);
        let compact = task.compact.filter(|_| list.len() <= self.compact_length);
        vec![match compact {
            Some(name) => {
                let so_far = (1..=list.len()).map(|end| (task.of)(&list[..end]));
                problem.with_compact(compact::running(name, &list, so_far))
            }
            None => problem,
        }]
    }

    fn check(&self) -> Result<(), String> {
        let largest = self.largest;
        if !(10..=1_000_000).contains(&largest) {
            return Err(format!("`largest` is {largest}: take a number from 10 to 1000000"));
        }
        let most = 2 * largest as usize;
        match self.lengths.iter().find(|&&length| !(3..=1000.min(most)).contains(&length)) {
            _ if self.lengths.is_empty() => {
                Err("`lengths` is empty: give at least one, such as 8".to_owned())
            }
            Some(length) => Err(format!(
                "`lengths` holds {length}: a list has at least 3 numbers, at most 1000, and no number twice"
            )),
            None => Ok(()),
        }
    }
}

impl ListStats {
    fn list(&self, lists: Lists, length: usize, draw: &mut Draw) -> Vec<i64> {
        let largest = self.largest;
        let distinct = |length, draw: &mut Draw| draw.distinct(length, -largest, largest);
        match lists {
            Lists::Distinct => distinct(length, draw),
            Lists::Odd => distinct(length / 2 * 2 + 1, draw),
            Lists::Of(length) => distinct(length, draw),
            Lists::WithMode => {
                // Half as many numbers, one of them three times, some twice.
                let numbers = distinct(length.div_ceil(2), draw);
                let mut list = vec![numbers[0]; 2];
                list.extend(&numbers);
                let twice = numbers[1..].iter().copied().chain(distinct(length, draw));
                for number in twice {
                    let often = list.iter().filter(|&&other| other == number).count();
                    if list.len() < length && number != numbers[0] && often < 2 {
                        list.push(number);
                    }
                }
                list.truncate(length);
                draw.shuffle(&mut list);
                list
            }
            Lists::Repeating => {
                let numbers = distinct(length.div_ceil(2), draw);
                let mut list = numbers.clone();
                while list.len() < length {
                    list.push(if draw.chance(2, 3) {
                        *draw.pick(&numbers)
                    } else {
                        draw.between(-largest, largest)
                    });
                }
                draw.shuffle(&mut list);
                list
            }
        }
    }
}
