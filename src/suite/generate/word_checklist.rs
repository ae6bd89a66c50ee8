//! Does who solves a problem also understand it? Four tasks about one problem, each in four forms.
//!
//! | task | the answer |
//! |---|---|
//! | solving | the number |
//! | outcome judging | whether a solution's final number is right; half of the time one step is wrong |
//! | process judging | the first step that is wrong; one always is |
//! | answerable | whether the problem tells enough; half of the time a number gives way to a vague word |
//!
//! The forms are the original, a paraphrase, one with a sentence that changes nothing, and one that is asked backward:
//! the answer is told, and a number is called x. That number is the only one that fits, because the answer is a line
//! over it that is not level. A solution that goes backward tries a number for x and works forward. When x is wrong,
//! one step is wrong, too, in just such a way that the number that was told comes out: so judging means to follow the
//! steps in this form as in the others, and comparing the last number with the one told is not enough.

use std::borrow::Cow;

use super::{
    template::{Instance, Level, Templates},
    word_symbolic::{of_its_template, refuse_what_rarely_fits, until_one_fits, whole},
};
use crate::suite::{
    answer::{Answer, Kind},
    draw::Draw,
    problem::{Generator, Problem},
};

/// Four tasks in four forms about the problems of some templates.
#[derive(Clone, Debug)]
pub struct WordChecklist {
    templates: Templates,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Task {
    Solving,
    OutcomeJudging,
    ProcessJudging,
    Answerable,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Original,
    Paraphrase,
    Distractor,
    Reverse,
}

const TASKS: [(Task, &str); 4] = [
    (Task::Solving, "solving"),
    (Task::OutcomeJudging, "outcome_judging"),
    (Task::ProcessJudging, "process_judging"),
    (Task::Answerable, "answerable"),
];
const FORMS: [(Form, &str); 4] = [
    (Form::Original, "original"),
    (Form::Paraphrase, "paraphrase"),
    (Form::Distractor, "distractor"),
    (Form::Reverse, "reverse"),
];
const KINDS: usize = TASKS.len() * FORMS.len();

/// By how much a number is wrong.
const SLIPS: [i64; 18] = [-9, -8, -7, -6, -5, -4, -3, -2, -1, 1, 2, 3, 4, 5, 6, 7, 8, 9];

/// How far from a number that is not told another one is looked for.
const FARTHEST: i64 = 100;

impl WordChecklist {
    /// About the problems of these templates.
    pub fn new(templates: Templates) -> WordChecklist {
        WordChecklist { templates }
    }

    /// The template and the kind of a cell, a Latin square: rounds go through the templates, and a round begins with
    /// the kind that lies in the widest gap, so that 4 rounds of 24 templates hold each of the 16 kinds 6 times.
    fn cell(&self, cell: usize) -> (usize, usize) {
        let (round, template) = (cell / self.templates.all().len(), cell % self.templates.all().len());
        let shift = (round as u8).reverse_bits() >> 4;
        (template, (template + usize::from(shift)) % KINDS)
    }

    /// A problem from what was drawn, if that makes one.
    fn attempt(&self, template: usize, kind: usize, draw: &mut Draw) -> Option<Problem> {
        let ((task, task_name), (form, form_name)) = (TASKS[kind / FORMS.len()], FORMS[kind % FORMS.len()]);
        let level = if form == Form::Distractor { Level::Noop } else { Level::P0 };
        let instance = self.templates.attempt(template, level, draw)?;
        let x = instance.template().unknown();
        // Without a slope, any number could be x.
        if form == Form::Reverse && instance.line(x, None)?.solve(instance.answer()) != instance.number(x) {
            return None;
        }
        let label = |text: String| Answer { kind: Kind::Label, text };
        // A mistake that cannot be made ends the attempt even where it is not needed: both labels shall have the same
        // problems, and be equally likely.
        let (question, answer, choice) = match task {
            Task::Solving if form == Form::Reverse => {
                (told(&instance, form), whole(instance.number(x)?), None)
            }
            Task::Solving => (told(&instance, form), whole(instance.answer()), None),
            Task::OutcomeJudging => {
                let (right, (_, mistaken)) = (draw.chance(1, 2), mistaken(&instance, form, draw)?);
                let question = with_solution(&instance, if right { &instance } else { &mistaken }, form)
                    + "\n\nIs the final answer of this solution right? Answer with Correct or Incorrect.";
                let answer = label(if right { "Correct" } else { "Incorrect" }.to_owned());
                (question, answer, Some("X\" where X is Correct or Incorrect"))
            }
            Task::ProcessJudging => {
                let (wrong, solution) = mistaken(&instance, form, draw)?;
                let steps: Vec<_> = (1..=solution.results().len()).map(|at| format!("Step {at}")).collect();
                let (last, others) = steps.split_last()?;
                let question = format!(
                    "{}\n\nWhich step of this solution is the first one whose calculation is wrong? \
                     Answer with {} or {last}.",
                    with_solution(&instance, &solution, form),
                    others.join(", ")
                );
                let choice = Some("Step k\" where k is the number of the first wrong step");
                (question, label(steps[wrong].clone()), choice)
            }
            Task::Answerable => {
                let (answerable, vague) = (draw.chance(1, 2), without_a_number(&instance, form, draw)?);
                let question = told(if answerable { &instance } else { &vague }, form)
                    + "\n\nDoes this problem tell enough to be answered? Answer with Answerable or Unanswerable.";
                let answer = label(if answerable { "Answerable" } else { "Unanswerable" }.to_owned());
                (question, answer, Some("X\" where X is Answerable or Unanswerable"))
            }
        };
        let problem = Problem::new(format!("{task_name}/{form_name}"), task_name, question, answer);
        let request = choice.map(|choice| {
            Cow::Owned(format!(
                "Think step by step. The last line of your response must be \"Answer: {choice}."
            ))
        });
        Some(Problem { request, ..of_its_template(problem, &instance) })
    }
}

impl Generator for WordChecklist {
    fn cells(&self) -> usize {
        self.templates.all().len() * KINDS
    }

    /// # Panics
    ///
    /// When `check` refuses the templates.
    fn draw(&self, cell: usize, draw: &mut Draw) -> Vec<Problem> {
        let (template, kind) = self.cell(cell);
        vec![until_one_fits(|| self.attempt(template, kind, draw))]
    }

    fn check(&self) -> Result<(), String> {
        for (at, template) in self.templates.all().iter().enumerate() {
            let mut draw = Draw::new("check", 1, 0, 0, 0);
            let (id, x) = (template.id(), template.unknown());
            let attempt = |draw: &mut Draw| self.templates.attempt(at, Level::P0, draw);
            refuse_what_rarely_fits(id, "p0", |draw| attempt(draw).is_some())?;
            if until_one_fits(|| attempt(&mut draw)).line(x, None).is_none() {
                return Err(format!(
                    "template `{id}`, `unknown`: the steps multiply `{x}` by itself, divide by it or take a remainder \
                     of it: name a number that they only add, subtract and multiply by others"
                ));
            }
            for kind in 0..KINDS {
                let form = format!("{}/{}", TASKS[kind / FORMS.len()].1, FORMS[kind % FORMS.len()].1);
                refuse_what_rarely_fits(id, &form, |draw| self.attempt(at, kind, draw).is_some())?;
            }
        }
        Ok(())
    }
}

/// The problem and its question.
fn told(instance: &Instance, form: Form) -> String {
    match form {
        Form::Original | Form::Distractor => format!("{} {}", instance.text(), instance.ask()),
        Form::Paraphrase => format!("{} {}", instance.again(), instance.ask()),
        Form::Reverse => {
            let backward = instance.hiding(instance.template().unknown(), "x");
            format!("{} {} What is the value of x?", backward.text(), backward.given())
        }
    }
}

/// The problem, its question and a solution, which may be that of other numbers.
fn with_solution(instance: &Instance, solution: &Instance, form: Form) -> String {
    let mut lines = solution.solution();
    if let (Form::Reverse, Some(x)) = (form, solution.number(solution.template().unknown())) {
        lines.insert(0, format!("Let x be {x}."));
        lines.push(format!("This is what the problem says, so x is {x}."));
    } else {
        lines.push(format!("So the answer is {}.", solution.answer()));
    }
    format!("{}\n\nProposed solution:\n{}", told(instance, form), lines.join("\n"))
}

/// A solution with a wrong answer and exactly one wrong step, and which step that is, counted from 0.
fn mistaken<'a>(instance: &Instance<'a>, form: Form, draw: &mut Draw) -> Option<(usize, Instance<'a>)> {
    let (x, truth) = (instance.template().unknown(), instance.results());
    let mut found: Vec<Vec<Instance>> = vec![Vec::new(); truth.len()];
    for slip in SLIPS {
        let wrong_x = match form {
            Form::Reverse => Some((x, instance.number(x)? + slip)),
            _ => None,
        };
        // The steps as this x has them, and what the wrong one says instead.
        let Some(honest) = instance.with(wrong_x, None) else { continue };
        for (at, result) in honest.results().into_iter().enumerate() {
            let says = if form == Form::Reverse { truth[at] } else { truth[at] + slip };
            let Some(other) = instance.with(wrong_x, Some((at, says))) else { continue };
            let hits = other.answer() == instance.answer();
            if says != result && hits == (form == Form::Reverse) {
                found[at].push(other);
            }
        }
    }
    let possible: Vec<_> = (0..truth.len()).filter(|&at| !found[at].is_empty()).collect();
    let at = *possible.get(draw.place(possible.len().max(1)))?;
    Some((at, draw.pick(&found[at]).clone()))
}

/// The problem with vague words for one of its numbers, so that it has more than one answer.
fn without_a_number<'a>(instance: &Instance<'a>, form: Form, draw: &mut Draw) -> Option<Instance<'a>> {
    let x = instance.template().unknown();
    let vague: Vec<_> =
        instance.template().vague().filter(|(name, _)| form != Form::Reverse || *name != x).collect();
    let (name, words) = *draw.pick(&vague);
    // With another number in its place, a problem that is as good must have another answer.
    let leads_elsewhere = |number: i64| {
        if form != Form::Reverse {
            let other = instance.with([(name, number)], None)?;
            return Some(other.answer() != instance.answer());
        }
        let other_x = instance.line(x, Some((name, number)))?.solve(instance.answer())?;
        let other = instance.with([(name, number), (x, other_x)], None)?;
        Some(other.answer() == instance.answer() && Some(other_x) != instance.number(x))
    };
    let truth = instance.number(name)?;
    let mut others = (truth - FARTHEST..=truth + FARTHEST).filter(|number| *number != truth);
    others.any(|number| leads_elsewhere(number) == Some(true)).then(|| instance.hiding(name, words))
}
