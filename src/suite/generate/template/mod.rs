//! Word problems as data: what is drawn, what is told, what is asked, and the steps to the answer.
//!
//! A template is a table of a suite's file:
//!
//! ```toml
//! id = "tickets"
//! draw = ["n = name", "t = opera | cinema", "a = 8..60", "p = 10..90 step 5", "k = 2..a-4"]
//! text = "{n} buys {a} {t} tickets at {p} dollars each and sells {k} of them at cost."
//! again = "At cost, {n} sells {k} of {a} {t} tickets, which were {p} dollars each."
//! ask = "How many dollars has {n} spent in the end?"
//! steps = ["{n} keeps [kept = a - k] tickets.", "They cost [spent = kept * p] dollars."]
//! given = "In the end, {n} has spent {spent} dollars."
//! unknown = "k"
//! vague = { a = "several", k = "some" }
//! noop = { draw = ["z = 2..9"], text = "{n} has been there {z} times before." }
//! more = [
//!     { draw = ["b = 2..9"], text = "A drink costs {b} dollars.", steps = ["That makes [sum = spent + b]."] },
//!     { draw = ["v = 2..9"], text = "A voucher is worth {v} dollars.", steps = ["{n} pays [rest = sum - v]."] },
//! ]
//! ```
//!
//! Names are drawn from the suite's list, never the same twice in a problem; words from a list of their own; numbers
//! from bounds, both included, that may use what was drawn before, or by a single calculation (`c = a * b`). Braces
//! hold what a name stands for. The brackets of a step hold its calculation, which later steps may use by its name;
//! the last step's is the answer. `when` lists conditions for what is drawn and calculated. Two conditions need no
//! words: every division comes out even, and every number is from 2 to a billion, so that every noun is a plural.
//!
//! `again` tells the same in other words. `noop` changes nothing, and each of `more` goes on from the last step. For
//! questions that are asked backward, `unknown` is the number that is called x, and `given` tells the answer. `vague`
//! has words that can stand in a number's place when the problem shall not tell it.

mod expression;
mod written;

use std::{collections::BTreeMap, ops::RangeInclusive};

use serde::Deserialize;

pub use self::expression::Line;
use self::expression::{Expression, Value, Values};
use crate::suite::draw::Draw;

/// The numbers that a problem may have: a noun after any of them is a plural, and no slip leaves 64 bits.
const NUMBERS: RangeInclusive<i64> = 2..=1_000_000_000;

/// The templates of a suite and the names of the people in them.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "written::Templates")]
pub struct Templates {
    names: Vec<String>,
    templates: Vec<Template>,
}

/// One problem in all its forms.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "written::Template")]
pub struct Template {
    id: String,
    base: Part,
    again: Text,
    ask: Text,
    given: Text,
    unknown: String,
    vague: BTreeMap<String, String>,
    more: [Part; 2],
    noop: Part,
}

/// How much of a template a problem holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Level {
    /// Its base.
    P0,
    /// One clause more.
    P1,
    /// Two clauses more.
    P2,
    /// The base and a clause that changes nothing.
    Noop,
}

/// What a clause draws, tells and calculates.
#[derive(Clone, Debug)]
struct Part {
    draws: Vec<Variable>,
    conditions: Vec<Expression>,
    text: Text,
    steps: Vec<Step>,
}

#[derive(Clone, Debug)]
struct Variable {
    name: String,
    from: Source,
}

#[derive(Clone, Debug)]
enum Source {
    Names,
    Words(Vec<String>),
    Numbers { low: Expression, high: Expression, step: Expression },
}

/// A sentence about one calculation, whose result has a name.
#[derive(Clone, Debug)]
struct Step {
    before: Text,
    name: String,
    calculation: Expression,
    after: Text,
}

#[derive(Clone, Debug)]
struct Text(Vec<Piece>);

#[derive(Clone, Debug)]
enum Piece {
    Words(String),
    Slot(String),
}

impl Templates {
    /// All of them, in order.
    pub fn all(&self) -> &[Template] {
        &self.templates
    }

    /// Draws an instance of the template at this place. None when what was drawn fits no problem.
    ///
    /// # Panics
    ///
    /// When no template stands there.
    pub fn attempt(&self, at: usize, level: Level, draw: &mut Draw) -> Option<Instance<'_>> {
        let template = &self.templates[at];
        let mut instance = Instance { template, parts: template.parts(level), values: Values::new() };
        let mut names: Vec<&str> = self.names.iter().map(String::as_str).collect();
        for variable in instance.parts.iter().flat_map(|part| &part.draws) {
            let value = variable.from.draw(&mut names, &instance.values, draw)?;
            instance.values.insert(&variable.name, value);
        }
        instance.work(None)
    }
}

impl Source {
    fn draw<'a>(&'a self, names: &mut Vec<&'a str>, values: &Values, draw: &mut Draw) -> Option<Value<'a>> {
        let (low, high, step) = match self {
            Source::Names => return Some(Value::Word(names.swap_remove(draw.place(names.len())))),
            Source::Words(words) => return Some(Value::Word(draw.pick::<String>(words))),
            Source::Numbers { low, high, step } => {
                (low.value(values)?, high.value(values)?, step.value(values)?)
            }
        };
        let fits = step >= 1 && low <= high && NUMBERS.contains(&low) && NUMBERS.contains(&high);
        fits.then(|| Value::Number(low + step * draw.between(0, (high - low) / step)))
    }
}

impl Template {
    /// What it is called.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The number that is called x where the question is asked backward.
    pub fn unknown(&self) -> &str {
        &self.unknown
    }

    /// The numbers that need not be told, each with the words in its place.
    pub fn vague(&self) -> impl Iterator<Item = (&str, &str)> {
        self.vague.iter().map(|(name, words)| (name.as_str(), words.as_str()))
    }

    fn parts(&self, level: Level) -> Vec<&Part> {
        let [first, second] = &self.more;
        match level {
            Level::P0 => vec![&self.base],
            Level::P1 => vec![&self.base, first],
            Level::P2 => vec![&self.base, first, second],
            Level::Noop => vec![&self.base, &self.noop],
        }
    }
}

/// A template with a value for every name.
#[derive(Clone, Debug)]
pub struct Instance<'a> {
    template: &'a Template,
    parts: Vec<&'a Part>,
    values: Values<'a>,
}

impl<'a> Instance<'a> {
    /// What it is an instance of.
    pub fn template(&self) -> &'a Template {
        self.template
    }

    /// The same with other values in these places, and every step worked again. A result may be forced upon one of
    /// the steps, counted from 0, for the others to build on. None when the values fit no problem.
    pub fn with(
        &self,
        values: impl IntoIterator<Item = (&'a str, i64)>,
        forced: Option<(usize, i64)>,
    ) -> Option<Instance<'a>> {
        let mut other = self.clone();
        other.values.extend(values.into_iter().map(|(name, number)| (name, Value::Number(number))));
        let fits = |value: &Value| !matches!(value, Value::Number(number) if !NUMBERS.contains(number));
        if other.values.values().all(fits) { other.work(forced) } else { None }
    }

    /// The same to be read only: words stand in the place of a number.
    #[must_use]
    pub fn hiding(&self, name: &'a str, words: &'a str) -> Instance<'a> {
        let mut other = self.clone();
        other.values.insert(name, Value::Word(words));
        other
    }

    /// A step that was forced breaks rules anyway, so conditions hold for honest work only.
    fn work(mut self, forced: Option<(usize, i64)>) -> Option<Instance<'a>> {
        for (at, step) in self.parts.iter().flat_map(|part| &part.steps).enumerate() {
            let result = match forced {
                Some((place, result)) if place == at => result,
                _ => step.calculation.value(&self.values)?,
            };
            if !NUMBERS.contains(&result) {
                return None;
            }
            self.values.insert(&step.name, Value::Number(result));
        }
        let mut conditions = self.parts.iter().flat_map(|part| &part.conditions);
        let holds = forced.is_some() || conditions.all(|condition| condition.value(&self.values) == Some(1));
        holds.then_some(self)
    }

    fn worked(&self) -> impl Iterator<Item = &'a Step> {
        self.parts.clone().into_iter().flat_map(|part| &part.steps)
    }

    /// What a name stands for, where it is a number.
    pub fn number(&self, name: &str) -> Option<i64> {
        match self.values.get(name)? {
            Value::Number(number) => Some(*number),
            Value::Word(_) => None,
        }
    }

    /// The results of the steps, in order.
    pub fn results(&self) -> Vec<i64> {
        self.worked().filter_map(|step| self.number(&step.name)).collect()
    }

    /// The result of the last step.
    pub fn answer(&self) -> i64 {
        *self.results().last().expect("a template without steps is refused")
    }

    /// The numbers that were drawn, in order.
    pub fn drawn(&self) -> Vec<i64> {
        let draws = self.parts.iter().flat_map(|part| &part.draws);
        draws.filter_map(|variable| self.number(&variable.name)).collect()
    }

    /// The answer as a line over one of the numbers, if it is one; another number may have another value.
    pub fn line(&self, x: &str, other: Option<(&str, i64)>) -> Option<Line> {
        let other = other.map(|(name, value)| (name, Line::level(value)));
        let mut lines: BTreeMap<&str, Line> = other.into_iter().chain([(x, Line::x())]).collect();
        let mut last = None;
        for step in self.worked() {
            let of = |name: &str| match lines.get(name) {
                Some(line) => Some(*line),
                None => self.number(name).map(Line::level),
            };
            let line = step.calculation.line(&of)?;
            last = Some(line);
            lines.insert(&step.name, line);
        }
        last
    }

    /// Everything that is told, without the question.
    pub fn text(&self) -> String {
        let told: Vec<_> = self.parts.iter().map(|part| part.text.fill(&self.values)).collect();
        told.join(" ")
    }

    /// What the base tells, in other words.
    pub fn again(&self) -> String {
        self.template.again.fill(&self.values)
    }

    /// The question.
    pub fn ask(&self) -> String {
        self.template.ask.fill(&self.values)
    }

    /// The answer of the base as a sentence.
    pub fn given(&self) -> String {
        self.template.given.fill(&self.values)
    }

    /// The way to the answer, a line for every step.
    pub fn solution(&self) -> Vec<String> {
        let sentence = |(at, step): (usize, &Step)| {
            let [before, after] = [&step.before, &step.after].map(|text| text.fill(&self.values));
            let (calculation, result) =
                (step.calculation.written(&self.values), self.values[step.name.as_str()]);
            format!("Step {}: {before}{calculation} = {result}{after}", at + 1)
        };
        self.worked().enumerate().map(sentence).collect()
    }
}

impl Text {
    fn fill(&self, values: &Values) -> String {
        let fill = |piece: &Piece| match piece {
            Piece::Words(words) => words.clone(),
            Piece::Slot(name) => values.get(name.as_str()).map(Value::to_string).unwrap_or_default(),
        };
        self.0.iter().map(fill).collect()
    }

    fn slots(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Words(_) => None,
            Piece::Slot(name) => Some(name.as_str()),
        })
    }
}
