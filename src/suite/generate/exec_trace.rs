//! What a small program prints: assignments, branches and loops over whole numbers.

use std::fmt::{self, Write as _};

use serde::Deserialize;

use crate::suite::{
    answer::{Answer, Kind},
    compact::Compact,
    draw::Draw,
    problem::{Generator, Problem},
};

/// Programs by how many assignments they execute.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecTrace {
    /// Assignments executed.
    executed: Vec<usize>,
    /// No variable grows beyond this, nor below its negative.
    limit: i64,
}

const NAMES: [char; 3] = ['a', 'b', 'c'];
/// Places in the list of variables.
type Name = usize;

/// A variable or a constant.
#[derive(Clone, Copy)]
enum Term {
    Variable(Name),
    Constant(i64),
}

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match *self {
            Term::Variable(name) => f.write_char(NAMES[name]),
            Term::Constant(number) => write!(f, "{number}"),
        }
    }
}

/// `target = left sign right`; the left side alone, where there is no right one.
#[derive(Clone, Copy)]
struct Assignment {
    target: Name,
    left: Term,
    right: Option<(&'static str, Term)>,
}

enum Statement {
    Assign(Assignment),
    /// `if variable comparison constant`, and what is done if so and if not.
    If(Name, &'static str, i64, [Assignment; 2]),
    /// So many times.
    For(i64, Vec<Assignment>),
    /// As long as a variable is below a constant.
    While(Name, i64, Assignment),
    /// A variable is put at the end of the list, so many times, after an assignment.
    Append(i64, Assignment),
}

/// What the variables are, and every assignment so far.
struct Machine {
    variables: [i64; NAMES.len()],
    list: Vec<i64>,
    trace: Vec<(Name, i64)>,
    limit: i64,
}

impl Machine {
    fn term(&self, term: Term) -> i64 {
        match term {
            Term::Variable(name) => self.variables[name],
            Term::Constant(number) => number,
        }
    }

    /// Nothing where a number grows too large or a negative one is divided.
    fn assign(&mut self, assignment: Assignment) -> Option<()> {
        let left = self.term(assignment.left);
        let value = match assignment.right.map(|(sign, right)| (sign, self.term(right))) {
            None => left,
            Some(("+", right)) => left + right,
            Some(("-", right)) => left - right,
            Some(("*", right)) => left * right,
            // Languages disagree about the rest.
            Some(_) if left < 0 => return None,
            Some(("//", right)) => left.checked_div(right)?,
            Some((_, right)) => left.checked_rem(right)?,
        };
        self.variables[assignment.target] = value;
        self.trace.push((assignment.target, value));
        (value.abs() <= self.limit).then_some(())
    }

    /// Nothing where an assignment is refused, or where more than `most` have been executed.
    fn run(&mut self, statement: &Statement, most: usize) -> Option<()> {
        match statement {
            Statement::Assign(assignment) => self.assign(*assignment)?,
            Statement::If(name, comparison, constant, branches) => {
                let value = self.variables[*name];
                let holds = if *comparison == "<" { value < *constant } else { value > *constant };
                self.assign(branches[usize::from(!holds)])?;
            }
            Statement::For(times, body) => {
                for _ in 0..*times {
                    body.iter().try_for_each(|assignment| self.assign(*assignment))?;
                }
            }
            Statement::While(name, bound, assignment) => {
                while self.variables[*name] < *bound {
                    if self.trace.len() > most {
                        return None;
                    }
                    self.assign(*assignment)?;
                }
            }
            Statement::Append(times, assignment) => {
                for _ in 0..*times {
                    self.assign(*assignment)?;
                    self.list.push(self.variables[assignment.target]);
                }
            }
        }
        (self.trace.len() <= most).then_some(())
    }
}

fn assignment(draw: &mut Draw) -> Assignment {
    let sign = *draw.pick(&["+", "+", "-", "*", "//", "%"]);
    // Nothing is divided by 0, for one divides by constants only.
    let right = match sign {
        "*" | "//" | "%" => Term::Constant(draw.between(2, 9)),
        _ if draw.chance(1, 2) => Term::Constant(draw.between(1, 20)),
        _ => Term::Variable(draw.place(NAMES.len())),
    };
    let (target, left) = (draw.place(NAMES.len()), draw.place(NAMES.len()));
    Assignment { target, left: Term::Variable(left), right: Some((sign, right)) }
}

fn statement(with_list: bool, draw: &mut Draw) -> Statement {
    match draw.between(0, 5) {
        0 => Statement::For(draw.between(2, 4), (0..draw.between(1, 2)).map(|_| assignment(draw)).collect()),
        1 => {
            // It ends, since it goes up.
            let name = draw.place(NAMES.len());
            let step = Term::Constant(draw.between(2, 15));
            let up = Assignment { target: name, left: Term::Variable(name), right: Some(("+", step)) };
            Statement::While(name, draw.between(10, 60), up)
        }
        2 => {
            let (name, comparison) = (draw.place(NAMES.len()), *draw.pick(&["<", ">"]));
            Statement::If(name, comparison, draw.between(2, 30), [assignment(draw), assignment(draw)])
        }
        3 | 4 if with_list => Statement::Append(draw.between(1, 3), assignment(draw)),
        _ => Statement::Assign(assignment(draw)),
    }
}

impl Generator for ExecTrace {
    fn cells(&self) -> usize {
        2 * self.executed.len()
    }

    fn draw(&self, cell: usize, draw: &mut Draw) -> Vec<Problem> {
        let (executed, with_list) = (self.executed[cell / 2], !cell.is_multiple_of(2));
        let mut machine =
            Machine { variables: [0; NAMES.len()], list: Vec::new(), trace: Vec::new(), limit: self.limit };
        let mut program = Vec::new();
        for target in 0..NAMES.len() {
            let first = Assignment { target, left: Term::Constant(draw.between(1, 20)), right: None };
            program.push(Statement::Assign(first));
            machine.assign(first).expect("no constant reaches the smallest limit");
        }
        while machine.trace.len() < executed || with_list && machine.list.is_empty() {
            // A list that is still empty at the end takes the last place.
            let last = machine.trace.len() + 1 >= executed && with_list && machine.list.is_empty();
            let next = if last { Statement::Append(1, assignment(draw)) } else { statement(with_list, draw) };
            let (variables, steps, length) = (machine.variables, machine.trace.len(), machine.list.len());
            let runs = machine.run(&next, executed).is_some();
            // A list needs room for one element at least, and a loop that is never entered does nothing.
            let room = machine.trace.len() < executed || !with_list || !machine.list.is_empty();
            if runs && room && machine.trace.len() > steps {
                program.push(next);
            } else {
                machine.variables = variables;
                machine.trace.truncate(steps);
                machine.list.truncate(length);
            }
        }
        let kind = if with_list { "list" } else { "number" };
        let printed = (!with_list).then(|| machine.trace.last().map_or(0, |(name, _)| *name));
        let code = written(&program, printed);
        let answer = match printed {
            Some(name) => Answer::integer(machine.variables[name]),
            None => {
                let list: Vec<_> = machine.list.iter().map(i64::to_string).collect();
                Answer::new(Kind::List, format!("[{}]", list.join(", ")))
            }
        };
        let question = format!("What does this Python program print?\n\n{code}");
        let mut problem = Problem::new(format!("{executed} steps, {kind}"), kind, question, answer);
        if let Some(name) = printed {
            let trace = machine.trace.iter().map(|(name, value)| format!("{}={value}", NAMES[*name]));
            let scratchpad = trace.collect::<Vec<_>>().join(";");
            let lines: Vec<_> = program.iter().map(Statement::to_string).collect();
            problem.compact =
                Some(Compact { prompt: format!("{};{}?=", lines.join(";"), NAMES[name]), scratchpad });
        }
        vec![problem]
    }

    fn check(&self) -> Result<(), String> {
        if let Some(executed) = self.executed.iter().find(|&&executed| !(4..=64).contains(&executed)) {
            return Err(format!("`executed` holds {executed}: take numbers from 4 to 64"));
        }
        if self.executed.is_empty() {
            return Err("`executed` is empty: give at least one number, such as 8".to_owned());
        }
        if !(100..=1_000_000).contains(&self.limit) {
            return Err(format!("`limit` is {}: take a number from 100 to 1000000", self.limit));
        }
        Ok(())
    }
}

/// As Python has it; what is printed is a variable, or else the list.
fn written(program: &[Statement], printed: Option<Name>) -> String {
    let mut code = String::new();
    let mut line = |indent: usize, text: String| {
        code += &"    ".repeat(indent);
        code += &text;
        code.push('\n');
    };
    if printed.is_none() {
        line(0, "xs = []".to_owned());
    }
    for statement in program {
        match statement {
            Statement::Assign(assignment) => line(0, assignment.spaced()),
            Statement::If(name, comparison, constant, [then, otherwise]) => {
                line(0, format!("if {} {comparison} {constant}:", NAMES[*name]));
                line(1, then.spaced());
                line(0, "else:".to_owned());
                line(1, otherwise.spaced());
            }
            Statement::For(times, body) => {
                line(0, format!("for _ in range({times}):"));
                body.iter().for_each(|assignment| line(1, assignment.spaced()));
            }
            Statement::While(name, bound, assignment) => {
                line(0, format!("while {} < {bound}:", NAMES[*name]));
                line(1, assignment.spaced());
            }
            Statement::Append(times, assignment) => {
                // Once is no loop.
                let indent = usize::from(*times > 1);
                if *times > 1 {
                    line(0, format!("for _ in range({times}):"));
                }
                line(indent, assignment.spaced());
                line(indent, format!("xs.append({})", NAMES[assignment.target]));
            }
        }
    }
    match printed {
        Some(name) => line(0, format!("print({})", NAMES[name])),
        None => line(0, "print(xs)".to_owned()),
    }
    code.truncate(code.trim_end().len());
    code
}

impl Assignment {
    fn spaced(&self) -> String {
        let Assignment { target, left, right } = self;
        let right = right.map(|(sign, right)| format!(" {sign} {right}")).unwrap_or_default();
        format!("{} = {left}{right}", NAMES[*target])
    }
}

/// Without blanks, and with braces around what is repeated or chosen.
impl fmt::Display for Assignment {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.spaced().replace(' ', ""))
    }
}

impl fmt::Display for Statement {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Statement::Assign(assignment) => write!(f, "{assignment}"),
            Statement::If(name, comparison, constant, [then, otherwise]) => {
                write!(f, "{}{comparison}{constant}{{{then}}}{{{otherwise}}}", NAMES[*name])
            }
            Statement::For(times, body) => {
                let body: Vec<_> = body.iter().map(Assignment::to_string).collect();
                write!(f, "{times}{{{}}}", body.join(";"))
            }
            Statement::While(name, bound, assignment) => {
                write!(f, "{}<{bound}*{{{assignment}}}", NAMES[*name])
            }
            Statement::Append(times, assignment) => write!(f, "{times}{{{assignment};!}}"),
        }
    }
}
