//! Word problems whose names and numbers change while their structure stays: how much of a score is luck?
//!
//! Each template comes at four levels, see [`Level`]: with one and two clauses more, and with one that changes nothing.

use serde::Deserialize;

use super::template::{Instance, Level, Templates};
use crate::suite::{
    answer::{Answer, Kind},
    draw::Draw,
    problem::{Generator, Problem},
};

const LEVELS: [(Level, &str); 4] =
    [(Level::P0, "p0"), (Level::P1, "p1"), (Level::P2, "p2"), (Level::Noop, "noop")];

/// Every template that is not refused has a problem within so many attempts.
const ATTEMPTS: u32 = 3000;

/// The problems of some templates. Its parameters are the templates.
#[derive(Clone, Debug, Deserialize)]
#[serde(transparent)]
pub struct WordSymbolic {
    templates: Templates,
}

impl WordSymbolic {
    /// Of these templates.
    pub fn new(templates: Templates) -> WordSymbolic {
        WordSymbolic { templates }
    }

    /// The template and the level of a cell: every template before the next level of any, all levels equally often.
    fn cell(&self, cell: usize) -> (usize, (Level, &'static str)) {
        let (round, template) = (cell / self.templates.all().len(), cell % self.templates.all().len());
        (template, LEVELS[(template + round) % LEVELS.len()])
    }
}

impl Generator for WordSymbolic {
    fn cells(&self) -> usize {
        self.templates.all().len() * LEVELS.len()
    }

    /// # Panics
    ///
    /// When `check` refuses the templates.
    fn draw(&self, cell: usize, draw: &mut Draw) -> Vec<Problem> {
        let (template, (level, stratum)) = self.cell(cell);
        let instance = until_one_fits(|| self.templates.attempt(template, level, draw));
        let question = format!("{} {}", instance.text(), instance.ask());
        let problem = Problem::new(stratum, "word", question, whole(instance.answer()));
        vec![of_its_template(problem, &instance)]
    }

    fn check(&self) -> Result<(), String> {
        for cell in 0..self.cells() {
            let (template, (level, stratum)) = self.cell(cell);
            let attempt = |draw: &mut Draw| self.templates.attempt(template, level, draw).is_some();
            refuse_what_rarely_fits(self.templates.all()[template].id(), stratum, attempt)?;
        }
        Ok(())
    }
}

/// A whole number as an answer.
pub(super) fn whole(number: i64) -> Answer {
    Answer { kind: Kind::Integer, text: number.to_string() }
}

/// With the numbers of its instance, in the cluster of its template.
pub(super) fn of_its_template(problem: Problem, instance: &Instance) -> Problem {
    let cluster = Some(instance.template().id().to_owned());
    Problem { cluster, ..problem.of(instance.drawn()) }
}

/// Attempts until one succeeds.
pub(super) fn until_one_fits<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    (0..ATTEMPTS).find_map(|_| attempt()).expect("`check` refuses templates that fit so rarely")
}

/// Refuses a template of which fewer than one in 20 attempts succeed: 3000 in a row do not fail then.
pub(super) fn refuse_what_rarely_fits(
    template: &str,
    form: &str,
    attempt: impl Fn(&mut Draw) -> bool,
) -> Result<(), String> {
    const TRIED: u32 = 100;
    const ENOUGH: usize = 5;
    let hits = (0..TRIED).filter(|&number| attempt(&mut Draw::new("check", 1, 0, 0, number)));
    let hits = hits.take(ENOUGH).count();
    if hits == ENOUGH {
        return Ok(());
    }
    Err(format!(
        "template `{template}`: only {hits} of {TRIED} attempts at `{form}` have even divisions, numbers from 2 to a \
         billion and what `when` asks for: choose bounds that fit, such as `c = a * b` where c is divided by a"
    ))
}
