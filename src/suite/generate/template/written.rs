//! Templates as they stand in a file, and everything that can be wrong with them there.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use super::{
    Part, Piece, Source, Step, Text, Variable,
    expression::{Expression, is_a_name},
};

/// The names and templates of a suite.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Templates {
    names: Vec<String>,
    template: Vec<super::Template>,
}

/// A template.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Template {
    id: String,
    draw: Vec<String>,
    #[serde(default)]
    when: Vec<String>,
    text: String,
    again: String,
    ask: String,
    steps: Vec<String>,
    given: String,
    unknown: String,
    vague: BTreeMap<String, String>,
    noop: Noop,
    more: [More; 2],
}

/// A clause that goes on from the last step.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct More {
    #[serde(default)]
    draw: Vec<String>,
    #[serde(default)]
    when: Vec<String>,
    text: String,
    steps: Vec<String>,
}

/// A clause that changes nothing.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Noop {
    #[serde(default)]
    draw: Vec<String>,
    #[serde(default)]
    when: Vec<String>,
    text: String,
}

impl TryFrom<Templates> for super::Templates {
    type Error = String;

    fn try_from(written: Templates) -> Result<super::Templates, String> {
        let Templates { names, template: templates } = written;
        let mut ids = BTreeSet::new();
        if let Some(twice) = templates.iter().find(|template| !ids.insert(&template.id)) {
            return Err(format!("template `{}` stands there twice: give one of them another `id`", twice.id));
        }
        if let Some(twice) = names.iter().enumerate().find(|(at, name)| names[..*at].contains(name)) {
            return Err(format!("`names` has `{}` twice: remove one of them", twice.1));
        }
        let people = |template: &super::Template| {
            let [first, second] = &template.more;
            let parts = [&template.base, first, second, &template.noop];
            let draws = parts.into_iter().flat_map(|part| &part.draws);
            draws.filter(|variable| matches!(variable.from, Source::Names)).count()
        };
        let Some(most) = templates.iter().map(people).max() else {
            return Err("there is no template: write a [[parameters.template]]".to_owned());
        };
        if names.len() < most {
            return Err(format!("`names` has {} and a template draws {most}: add some", names.len()));
        }
        Ok(super::Templates { names, templates })
    }
}

impl TryFrom<Template> for super::Template {
    type Error = String;

    fn try_from(written: Template) -> Result<super::Template, String> {
        let id = &written.id;
        if !is_a_name(id) {
            let what = "write small letters, digits and underscores, a letter first";
            return Err(format!("template `{id}`, `id`: {what}"));
        }
        let mut scope = Scope { id, ..Scope::default() };
        let base = scope.part("", &written.draw, &written.when, &written.text, &written.steps)?;
        if base.steps.len() < 2 {
            let what = "there is one step, and judging needs a choice: write two or more";
            return Err(scope.refuse("steps", what));
        }
        let again = scope.text("again", &written.again)?;
        let ask = scope.text("ask", &written.ask)?;
        let given = scope.text("given", &written.given)?;
        for (field, text) in [("text", &base.text), ("again", &again)] {
            scope.told(field, &base, text.slots().collect())?;
        }
        if !given.slots().any(|name| base.steps.last().is_some_and(|step| step.name == name)) {
            let what = "it does not tell the result of the last step: add it in braces";
            return Err(scope.refuse("given", what));
        }
        let needed: BTreeSet<_> = base.steps.iter().flat_map(|step| step.calculation.names()).collect();
        let vague = written.vague.keys().map(|name| ("vague", name));
        for (field, name) in vague.chain([("unknown", &written.unknown)]) {
            let is_drawn = base.draws.iter().any(|variable| &variable.name == name);
            if !is_drawn || !needed.contains(name.as_str()) {
                let what =
                    format!("no step calculates with a drawn `{name}`: name a number that `steps` need");
                return Err(scope.refuse(field, &what));
            }
        }
        if written.vague.keys().all(|name| *name == written.unknown) {
            return Err(scope.refuse("vague", "x cannot be missing: add a number other than `unknown`"));
        }
        scope.all_used("")?;

        let mut aside = scope.clone();
        let Noop { draw, when, text } = &written.noop;
        let noop = aside.part("noop.", draw, when, text, &[])?;
        aside.all_used("noop.")?;
        let mut more = |prefix, clause: &More| {
            // Others may have used the answer so far, but this clause must go on from it.
            if let Some(last) = scope.steps.last() {
                scope.used.remove(last);
            }
            let part = scope.part(prefix, &clause.draw, &clause.when, &clause.text, &clause.steps)?;
            let told = base.text.slots().chain(part.text.slots()).collect();
            scope.told(&format!("{prefix}text"), &part, told)?;
            scope.all_used(prefix)?;
            Ok::<_, String>(part)
        };
        let more = [more("more.1.", &written.more[0])?, more("more.2.", &written.more[1])?];
        let Template { id, unknown, vague, .. } = written;
        Ok(super::Template { id, base, again, ask, given, unknown, vague, more, noop })
    }
}

/// What the fields that were read so far have declared and used.
#[derive(Clone, Default)]
struct Scope<'a> {
    id: &'a str,
    /// Whether it is a number.
    declared: BTreeMap<String, bool>,
    /// Every step's result, in order.
    steps: Vec<String>,
    used: BTreeSet<String>,
}

impl Scope<'_> {
    fn refuse(&self, field: &str, what: &str) -> String {
        format!("template `{}`, `{field}`: {what}", self.id)
    }

    fn part(
        &mut self,
        prefix: &str,
        draw: &[String],
        when: &[String],
        text: &str,
        steps: &[String],
    ) -> Result<Part, String> {
        let field = |name: &str| format!("{prefix}{name}");
        let draws = draw.iter().map(|text| self.variable(&field("draw"), text)).collect::<Result<_, _>>()?;
        let text = self.text(&field("text"), text)?;
        let read =
            steps.iter().map(|text| self.step(&field("steps"), text)).collect::<Result<Vec<_>, _>>()?;
        if read.is_empty() && prefix != "noop." {
            return Err(self.refuse(&field("steps"), "there is none: write how the answer is calculated"));
        }
        let condition = |text: &String| self.expression(&field("when"), Expression::condition(text));
        let conditions = when.iter().map(condition).collect::<Result<_, _>>()?;
        Ok(Part { draws, conditions, text, steps: read })
    }

    fn declare(&mut self, field: &str, name: &str, is_number: bool) -> Result<(), String> {
        if !is_a_name(name) || name == "name" {
            let what = format!(
                "`{name}` names no value: write small letters and digits, a letter first, but not `name`"
            );
            return Err(self.refuse(field, &what));
        }
        match self.declared.insert(name.to_owned(), is_number) {
            None => Ok(()),
            Some(_) => Err(self.refuse(field, &format!("`{name}` has a value already: take another name"))),
        }
    }

    fn variable(&mut self, field: &str, text: &str) -> Result<Variable, String> {
        let Some((name, from)) = text.split_once('=').map(|(name, from)| (name.trim(), from.trim())) else {
            let what =
                format!("`{text}` gives no value: write `{text} = 2..9`, `= name` or `= apples | pears`");
            return Err(self.refuse(field, &what));
        };
        let from = if from == "name" {
            Source::Names
        } else if from.contains('|') {
            Source::Words(from.split('|').map(|word| word.trim().to_owned()).collect())
        } else {
            let (range, step) = from.split_once(" step ").unwrap_or((from, "1"));
            let (low, high) = range.split_once("..").unwrap_or((range, range));
            let mut bound = |text: &str| self.expression(field, Expression::calculation(text.trim()));
            Source::Numbers { low: bound(low)?, high: bound(high)?, step: bound(step)? }
        };
        self.declare(field, name, matches!(from, Source::Numbers { .. }))?;
        Ok(Variable { name: name.to_owned(), from })
    }

    fn expression(&mut self, field: &str, read: Result<Expression, String>) -> Result<Expression, String> {
        let expression = read.map_err(|what| self.refuse(field, &what))?;
        for name in expression.names() {
            self.uses(field, name)?;
            if !self.declared[name] {
                let what = format!("`{name}` is a word and cannot be calculated with: name a number");
                return Err(self.refuse(field, &what));
            }
        }
        Ok(expression)
    }

    fn uses(&mut self, field: &str, name: &str) -> Result<(), String> {
        if !self.declared.contains_key(name) {
            let what = format!("nothing before it declares `{name}`: correct the name or add it to `draw`");
            return Err(self.refuse(field, &what));
        }
        self.used.insert(name.to_owned());
        Ok(())
    }

    fn text(&mut self, field: &str, text: &str) -> Result<Text, String> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}', '[', ']']) {
            let (words, slot) = rest.split_at(at);
            let Some((name, after)) = slot.strip_prefix('{').and_then(|slot| slot.split_once('}')) else {
                let what = format!("`{slot}` is not a slot: write {{name}}, and [name = a + b] in a step");
                return Err(self.refuse(field, &what));
            };
            self.uses(field, name)?;
            pieces.extend([Piece::Words(words.to_owned()), Piece::Slot(name.to_owned())]);
            rest = after;
        }
        pieces.push(Piece::Words(rest.to_owned()));
        Ok(Text(pieces))
    }

    fn step(&mut self, field: &str, text: &str) -> Result<Step, String> {
        let parts = text.split_once('[').and_then(|(before, rest)| {
            let (inside, after) = rest.split_once(']')?;
            let (name, calculation) = inside.split_once('=')?;
            Some((before, name.trim(), calculation.trim(), after))
        });
        let Some((before, name, calculation, after)) = parts else {
            let what = format!("`{text}` calculates nothing: write [name = a + b] into it");
            return Err(self.refuse(field, &what));
        };
        let calculation = self.expression(field, Expression::calculation(calculation))?;
        self.declare(field, name, true)?;
        self.steps.push(name.to_owned());
        let [before, after] = [self.text(field, before)?, self.text(field, after)?];
        Ok(Step { before, name: name.to_owned(), calculation, after })
    }

    /// Steps may use nothing that a reader does not know.
    fn told(&self, field: &str, part: &Part, told: BTreeSet<&str>) -> Result<(), String> {
        let mut needed = part.steps.iter().flat_map(|step| step.calculation.names());
        match needed.find(|name| !told.contains(name) && !self.steps.iter().any(|step| step == name)) {
            None => Ok(()),
            Some(name) => {
                let what = format!("it does not tell `{name}`, which a step needs: add {{{name}}}");
                Err(self.refuse(field, &what))
            }
        }
    }

    /// Only the last step may be for nobody but who asked.
    fn all_used(&self, prefix: &str) -> Result<(), String> {
        let is_idle = |name: &&String| !self.used.contains(*name) && self.steps.last() != Some(name);
        match self.declared.keys().find(is_idle) {
            None => Ok(()),
            Some(name) => {
                let field = if self.steps.contains(name) { "steps" } else { "draw" };
                let what = format!("nothing uses `{name}`: use it or remove it");
                Err(self.refuse(&format!("{prefix}{field}"), &what))
            }
        }
    }
}
