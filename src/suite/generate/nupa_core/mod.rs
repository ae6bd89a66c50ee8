//! Understanding of numbers and operations on them: 17 tasks over integers, floats, fractions and scientific
//! notation.

use serde::Deserialize;

use self::number::{Decimal, Form, finite_fraction, fraction, fraction_text};
use crate::suite::{
    answer::Answer,
    draw::Draw,
    problem::{Generator, Problem},
};

mod number;

/// The steps of difficulty.
const RANGES: [&str; 4] = ["S", "M", "L", "XL"];
/// No calculation here is made for longer numbers.
const LENGTH_MAX: usize = 1000;

/// The 41 combinations of a task and a form of its numbers, each in four ranges of lengths.
///
/// The length of an integer is its count of digits, that of a float or in scientific notation its count of
/// decimals, and that of a fraction its denominator's count of digits. A second number has from half the
/// length of the first to the whole, and stands first as often as not; but no difference is negative, and the
/// longer integer is divided by the shorter one where the quotient is an integer.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NupaCore {
    /// The largest length in each range, where there is something to calculate.
    arithmetic: [usize; 4],
    /// The largest length in each range, where numbers are compared, read or rewritten.
    reading: [usize; 4],
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Task {
    Add,
    Sub,
    Multiply,
    Truediv,
    Floordiv,
    Mod,
    Max,
    Min,
    DigitMax,
    DigitMin,
    DigitAdd,
    GetDigit,
    Length,
    Count,
    ToFloat,
    ToScient,
    Sig,
}

use Form::{Float, Fraction, Integer, Scientific};

/// A task, its name, what is to be done, what stands between two operands and after them, and the forms it is
/// asked in.
type Row = (Task, &'static str, &'static str, [&'static str; 2], &'static [Form]);

#[rustfmt::skip]
const TASKS: [Row; 17] = [
    (Task::Add, "add", "Add", [" + ", ""], &[Integer, Float, Fraction, Scientific]),
    (Task::Sub, "sub", "Subtract", [" - ", ""], &[Integer, Float, Fraction, Scientific]),
    (Task::Multiply, "multiply", "Multiply", [" * ", ""], &[Integer, Float, Fraction, Scientific]),
    (Task::Truediv, "truediv", "Divide", [" / ", ""], &[Integer, Fraction]),
    (Task::Floordiv, "floordiv", "Divide and drop the remainder", [" // ", ""], &[Integer]),
    (Task::Mod, "mod", "Divide and keep only the remainder", [" % ", ""], &[Integer]),
    (Task::Max, "max", "Choose the larger number", [" or ", ""], &[Integer, Float, Fraction, Scientific]),
    (Task::Min, "min", "Choose the smaller number", [" or ", ""], &[Integer, Float, Fraction, Scientific]),
    (Task::DigitMax, "digit_max",
        "At every place take the larger of the two digits, where a missing digit is 0",
        [" and ", ""], &[Integer, Float]),
    (Task::DigitMin, "digit_min",
        "At every place take the smaller of the two digits, where a missing digit is 0",
        [" and ", ""], &[Integer, Float]),
    (Task::DigitAdd, "digit_add",
        "At every place add the two digits without a carry, where a missing digit is 0",
        [" and ", ""], &[Integer, Float]),
    (Task::GetDigit, "get_digit", "Find a digit, with position 1 on the left", [" at position ", ""],
        &[Integer, Float]),
    (Task::Length, "length", "Count the digits", ["", ""], &[Integer, Float]),
    (Task::Count, "count", "Count how often a digit occurs", [" and the digit ", ""], &[Integer]),
    (Task::ToFloat, "to_float", "Write as a decimal number", ["", ""], &[Fraction, Scientific]),
    (Task::ToScient, "to_scient", "Write in scientific notation", ["", ""], &[Integer, Float]),
    (Task::Sig, "sig", "Write in scientific notation, rounded half up", [" to ", " significant figures"],
        &[Integer, Float]),
];
/// How many pairs of a task and a form there are.
const COMBOS: usize = 41;
/// From one cell to the next the combos go on by so many, which has them all come up before one comes up
/// again, and tasks and forms take turns: 41 divided by the golden ratio.
const STRIDE: usize = 25;

/// What was drawn: the operands as written, the right answer and its form.
type Drawn = (Vec<String>, String, Form);

impl Generator for NupaCore {
    fn cells(&self) -> usize {
        COMBOS * RANGES.len()
    }

    fn draw(&self, cell: usize, draw: &mut Draw) -> Vec<Problem> {
        let (&(task, name, todo, [between, after], _), form) = combo(cell * STRIDE % COMBOS);
        let range = (cell % COMBOS + cell / COMBOS) % RANGES.len();
        let (low, high) = self.lengths(task, form, range);
        let length = draw.between(low as i64, high as i64) as usize;
        let (operands, answer, to) = match (form, task) {
            (Fraction, _) => of_fractions(task, length, draw),
            (_, Task::GetDigit | Task::Length | Task::Count | Task::ToFloat | Task::ToScient | Task::Sig) => {
                of_one(task, form, length, draw)
            }
            _ => of_two(task, form, length, draw),
        };
        let written = match (task, form) {
            (Task::Truediv, Fraction) => operands.iter().map(|operand| format!("({operand})")).collect(),
            _ => operands.clone(),
        };
        let expression = written.join(between) + after;
        // Nobody can know whether a point takes a place, unless it is said.
        let point = match (task, form) {
            (Task::GetDigit | Task::Length, Float) => ", leaving out the point",
            _ => "",
        };
        let task = format!("{name}/{}", form.name());
        let question = format!("{todo}{point}: {expression}");
        let completion = Some(format!("Give only {}. {question} =", to.looks()));
        let request =
            format!("Show no work. Reply with a single line \"Answer: N\", where N is {}.", to.looks());
        let answer = Answer::new(to.kind(), answer);
        let problem = Problem::new(format!("{task}/{}", RANGES[range]), task, question, answer).of(operands);
        vec![Problem { completion, request: Some(request.into()), ..problem }]
    }

    fn check(&self) -> Result<(), String> {
        for (name, lengths, least) in [("arithmetic", self.arithmetic, 3), ("reading", self.reading, 5)] {
            let ascending = lengths.is_sorted_by(|low, high| low < high);
            if !ascending || lengths[0] < least || lengths[3] > LENGTH_MAX {
                return Err(format!(
                    "{name} holds the largest lengths of S, M, L and XL, and {lengths:?} cannot be: give \
                     four ascending numbers from {least} to {LENGTH_MAX}"
                ));
            }
        }
        Ok(())
    }
}

impl NupaCore {
    /// The shortest and the longest length of a range.
    fn lengths(&self, task: Task, form: Form, range: usize) -> (usize, usize) {
        use Task::{Add, Floordiv, Mod, Multiply, Sub, ToFloat, Truediv};
        let calculated = matches!(task, Add | Sub | Multiply | Truediv | Floordiv | Mod);
        // A fraction is made a float by a division.
        let (lengths, least) = match form {
            Fraction if calculated || task == ToFloat => (&self.arithmetic, 1),
            _ if calculated => (&self.arithmetic, 3),
            Integer => (&self.reading, 5),
            _ => (&self.reading, 3),
        };
        (if range == 0 { least } else { lengths[range - 1] + 1 }, lengths[range])
    }
}

/// The pair of a task and a form at this place.
fn combo(mut at: usize) -> (&'static Row, Form) {
    for row in &TASKS {
        match row.4.get(at) {
            Some(&form) => return (row, form),
            None => at -= row.4.len(),
        }
    }
    unreachable!("the forms of all tasks are {COMBOS}")
}

fn of_fractions(task: Task, length: usize, draw: &mut Draw) -> Drawn {
    if task == Task::ToFloat {
        let (fraction, value) = finite_fraction(length, draw);
        return (vec![fraction_text(&fraction)], value.text(Float), Float);
    }
    let proper = matches!(task, Task::Max | Task::Min);
    let (a, b) = loop {
        let a = fraction(length, proper, draw);
        let b = fraction(shorter(length, draw), proper, draw);
        if a != b {
            break if draw.chance(1, 2) { (a, b) } else { (b, a) };
        }
    };
    // Without the divisions by which fractions are compared elsewhere.
    let less = a.numer() * b.denom() < b.numer() * a.denom();
    let (larger, smaller) = if less { (&b, &a) } else { (&a, &b) };
    let answer = match task {
        Task::Add => &a + &b,
        Task::Sub => larger - smaller,
        Task::Multiply => &a * &b,
        Task::Truediv => &a / &b,
        Task::Max => larger.clone(),
        Task::Min => smaller.clone(),
        _ => unreachable!("{task:?} is not asked of two fractions"),
    };
    let operands = if task == Task::Sub { [larger, smaller] } else { [&a, &b] };
    (operands.map(fraction_text).to_vec(), fraction_text(&answer), Fraction)
}

fn of_one(task: Task, form: Form, length: usize, draw: &mut Draw) -> Drawn {
    let number = match (task, form) {
        (Task::ToScient, Integer) => {
            let zeros = draw.between(0, length as i64 / 2);
            Decimal::integer(length - zeros as usize, draw).times(&Decimal::ten_to(zeros))
        }
        // Half of them are below 1, or hardly an exponent would be negative.
        (Task::ToScient, _) => {
            let whole = if draw.chance(1, 2) { 0 } else { draw.between(1, length as i64) as usize };
            let zeros = draw.between(0, length as i64 / 2) as usize;
            Decimal::float(whole, length, zeros, draw)
        }
        (Task::Sig, _) => loop {
            let number = decimal(form, length, draw);
            if number.figures() >= 2 {
                break number;
            }
        },
        _ => decimal(form, length, draw),
    };
    let text = number.text(form);
    let digits = || text.bytes().filter(u8::is_ascii_digit);
    let (second, answer, to) = match task {
        Task::GetDigit => {
            let place = draw.place(digits().count());
            let digit = digits().nth(place).map(char::from).expect("the place is one of them");
            (Some((place + 1).to_string()), digit.to_string(), Integer)
        }
        Task::Length => (None, digits().count().to_string(), Integer),
        Task::Count => {
            let wanted = draw.between(0, 9) as u8;
            let count = digits().filter(|&digit| digit - b'0' == wanted).count();
            (Some(wanted.to_string()), count.to_string(), Integer)
        }
        Task::ToFloat => (None, number.text(Float), Float),
        Task::ToScient => (None, number.text(Scientific), Scientific),
        Task::Sig => {
            let figures = draw.between(2, number.figures() as i64) as usize;
            (Some(figures.to_string()), number.significant(figures), Scientific)
        }
        _ => unreachable!("{task:?} is asked of two numbers"),
    };
    (std::iter::once(text).chain(second).collect(), answer, to)
}

fn of_two(task: Task, form: Form, length: usize, draw: &mut Draw) -> Drawn {
    let (a, b) = two(task, form, length, draw);
    let answer = match task {
        Task::Add => a.plus(&b),
        Task::Sub => a.minus(&b),
        Task::Multiply => a.times(&b),
        Task::Floordiv => a.div_rem(&b).0,
        Task::Mod => a.div_rem(&b).1,
        Task::Max => (&a).max(&b).clone(),
        Task::Min => (&a).min(&b).clone(),
        Task::DigitMax => a.by_digit(&b, u8::max),
        Task::DigitMin => a.by_digit(&b, u8::min),
        Task::DigitAdd => a.by_digit(&b, |a, b| (a + b) % 10),
        Task::Truediv => {
            let quotient = fraction_text(&a.ratio(&b));
            return (vec![a.text(form), b.text(form)], quotient, Fraction);
        }
        _ => unreachable!("{task:?} is asked of one number"),
    };
    (vec![a.text(form), b.text(form)], answer.text(form), form)
}

/// Two numbers that differ, in the order in which they are asked about.
fn two(task: Task, form: Form, length: usize, draw: &mut Draw) -> (Decimal, Decimal) {
    loop {
        let second = shorter(length, draw);
        let (a, b) = if form == Scientific && matches!(task, Task::Add | Task::Sub) {
            // Digits so far apart that they do not meet would leave nothing to calculate.
            let gap = draw.between(i64::from(task == Task::Sub), 5);
            let exponent = draw.between(gap, 99);
            let a = Decimal::scientific(length, exponent, draw);
            (a, Decimal::scientific(second, exponent - gap, draw))
        } else {
            (decimal(form, length, draw), decimal(form, second, draw))
        };
        // A difference below 1 would have a negative exponent, which is another task's.
        let small = task == Task::Sub && form == Scientific && a.minus(&b) <= Decimal::ten_to(0);
        if a == b || small {
            continue;
        }
        let swapped = match task {
            // The dividend is the longer one: a quotient of 0 would ask nothing.
            Task::Floordiv | Task::Mod => false,
            Task::Sub => a < b,
            _ => draw.chance(1, 2),
        };
        return if swapped { (b, a) } else { (a, b) };
    }
}

/// A number of this form and length.
fn decimal(form: Form, length: usize, draw: &mut Draw) -> Decimal {
    match form {
        Scientific => {
            let exponent = draw.between(0, 99);
            Decimal::scientific(length, exponent, draw)
        }
        Float => {
            let whole = draw.between(1, length as i64) as usize;
            Decimal::float(whole, length, 0, draw)
        }
        _ => Decimal::integer(length, draw),
    }
}

/// From half this length to the whole.
fn shorter(length: usize, draw: &mut Draw) -> usize {
    draw.between(length.div_ceil(2) as i64, length as i64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_is_asked_in_each_of_its_forms() {
        let pairs: usize = TASKS.iter().map(|row| row.4.len()).sum();
        assert_eq!(pairs, COMBOS);
        let of = |form| TASKS.iter().filter(|row| row.4.contains(&form)).count();
        assert_eq!([of(Integer), of(Float), of(Fraction), of(Scientific)], [16, 12, 7, 6]);
        let (row, form) = combo(COMBOS - 1);
        assert_eq!((row.0, form), (Task::Sig, Float));
    }

    #[test]
    fn lengths_that_do_not_ascend_are_refused() {
        let of = |arithmetic, reading| NupaCore { arithmetic, reading }.check();
        assert!(of([4, 8, 14, 20], [10, 20, 60, 100]).is_ok());
        assert!(
            of([4, 8, 8, 20], [10, 20, 60, 100]).is_err_and(|sentence| sentence.starts_with("arithmetic"))
        );
        assert!(of([2, 8, 14, 20], [10, 20, 60, 100]).is_err());
        assert!(
            of([4, 8, 14, 20], [10, 20, 60, 1001]).is_err_and(|sentence| sentence.starts_with("reading"))
        );
    }
}
