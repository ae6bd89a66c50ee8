//! The forms of what stands in a matrix file: how each is checked, and what the JSON Schema says of it.

use std::{ops::Range, str::FromStr};

use serde_json::{Map, Value, json};
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::cluster::{Limit, Memory};
use crate::{
    cell::{AXES, Axis, Cache, ENGINES, Name, Rebuild, server},
    name::{did_you_mean, nearest},
    numerics::{
        attention::Attention, choice::Choice, functions::Functions, kv::Kv, order::ORDERS, parallel::Reduce,
        precision::PRECISIONS,
    },
    source::{Problems, misleads},
};

/// What the file as a whole is called, in which a message names no table.
pub(super) const WHOLE: &str = "the file";

/// What stands for itself in the command of a server.
pub(super) const PLACEHOLDERS: &[&str] = &["model", "port"];

/// A table of the file.
pub struct Section {
    /// What a message calls it.
    pub name: &'static str,
    /// What it is for.
    pub sentence: &'static str,
    /// What may stand in it.
    pub keys: &'static [Key],
    /// May settings of axes stand in it, and in which form?
    pub axes: Option<AxisForm>,
}

/// How a section writes the settings of an axis.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum AxisForm {
    /// One of them.
    One,
    /// One of them, or a list.
    OneOrMore,
}

/// What may stand at one place.
#[derive(Clone, Copy)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// Its form.
    pub form: Form,
    /// What it says, in one sentence.
    pub sentence: &'static str,
}

/// The form of a value.
#[derive(Clone, Copy)]
pub enum Form {
    /// Any text.
    Text,
    /// One of these words.
    Word(&'static [&'static str]),
    /// One of these words, or a whole number from 1 up.
    WordOrCount(&'static [&'static str]),
    /// A whole number from here up.
    Count(u64),
    /// Yes or no.
    Flag,
    /// A part of a whole: 0.01, "1%" or "1pp".
    Share,
    /// A number from 0 up.
    Number,
    /// How much memory, such as "64G".
    Memory,
    /// How long, such as "12h".
    Limit,
    /// How a token is chosen.
    Choice,
    /// Names of axes.
    Axes,
    /// A list of texts or tables.
    Suites(&'static Section),
    /// A table.
    Table(&'static Section),
    /// A list of tables.
    Tables(&'static Section),
    /// Tables, each under a name that the user gives it.
    Named(&'static Section),
    /// A list of texts.
    Texts,
    /// Texts, each under a name that the user gives it.
    Variables,
    /// Axes of a server, each under a name that the user gives it: its settings as a list of words, or as a table that says
    /// which arguments each of its words stands for.
    Declared,
}

pub(super) const fn key(name: &'static str, form: Form, sentence: &'static str) -> Key {
    Key { name, form, sentence }
}

impl Section {
    /// Checks a table, and all in it: what has no meaning, and what has another form. `declared` are the axes of servers.
    pub fn check(&self, table: &DeTable<'_>, declared: &[Name], problems: &mut Problems) {
        for (name, value) in table.iter() {
            let text = name.get_ref().as_ref();
            let axis = self.axes.and_then(|form| Some((axis(text, declared)?, form)));
            if let Some(key) = self.keys.iter().find(|key| key.name == text) {
                key.form.check(key.name, value, declared, problems);
            } else if let (Some((Axis::Server(_), _)), "matrix") = (axis, self.name) {
                problems.add(
                    name.span(),
                    format!(
                        "all settings of `{text}` are in the matrix, as its server declares them: take this out, and leave \
                         some out with `exclude`"
                    ),
                );
            } else if let Some((axis, form)) = axis {
                check_axis(axis, form, value, problems);
            } else {
                let here = if self.name == WHOLE { String::new() } else { format!(" in `{}`", self.name) };
                let mut names = self.names();
                if self.axes.is_some() && self.name != "matrix" {
                    names.extend(declared.iter().map(|name| name.as_str()));
                }
                let near = did_you_mean(nearest(text, names.iter().copied()));
                problems.add(
                    name.span(),
                    format!("there is no `{text}`{here}: {near}{}", all_of("known are", &names)),
                );
            }
        }
    }

    /// What may stand in it.
    fn names(&self) -> Vec<&'static str> {
        let axes = AXES.iter().filter(|_| self.axes.is_some()).map(|entry| entry.name);
        self.keys.iter().map(|key| key.name).chain(axes).collect()
    }

    /// Its part of the JSON Schema.
    pub(super) fn schema(&self) -> Value {
        let mut properties = Map::new();
        for Key { name, form, sentence } in self.keys {
            let mut schema = form.schema();
            schema["description"] = json!(sentence);
            properties.insert((*name).to_owned(), schema);
        }
        for entry in AXES.iter().filter(|_| self.axes.is_some()) {
            let mut schema = axis_schema(entry.axis, self.axes == Some(AxisForm::OneOrMore));
            schema["description"] = json!(entry.sentence);
            properties.insert(entry.name.to_owned(), schema);
        }
        let mut schema = json!({
            "type": "object",
            "description": self.sentence,
            "properties": properties,
            "additionalProperties": false,
        });
        if self.axes.is_some() && self.name != "matrix" {
            // What a file declares for its servers.
            let word = json!({ "type": ["string", "integer"] });
            let words = json!({ "anyOf": [word, { "type": "array", "items": word, "minItems": 1 }] });
            let settings = if self.axes == Some(AxisForm::One) { word } else { words };
            schema["patternProperties"] = json!({ format!("^{}$", server::AXIS): settings });
        }
        schema
    }
}

/// The axis of a name: one of ours, or one of those that the file declares.
pub(super) fn axis(name: &str, declared: &[Name]) -> Option<Axis> {
    let declared = || declared.iter().find(|axis| axis.as_str() == name).copied().map(Axis::Server);
    Axis::named(name).or_else(declared)
}

/// Names in a sentence, after words of ours.
pub(super) fn all_of(words: &str, names: &[&str]) -> String {
    let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{words} {} and {last}", rest.join(", ")),
        _ => format!("{words} {}", names.join("")),
    }
}

/// The same where only one is wanted.
fn any_of(words: &str, names: &[&str]) -> String {
    all_of(words, names).replace(" and ", " or ")
}

/// What a value is, for a sentence.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a decimal number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// A whole number from 0 up.
pub(super) fn count(value: &DeValue<'_>) -> Option<u64> {
    let DeValue::Integer(number) = value else { return None };
    u64::from_str_radix(number.as_str(), number.radix()).ok()
}

/// A part of a whole, as a number or as a text in percent.
pub(super) fn share(value: &DeValue<'_>) -> Option<f64> {
    let share = match value {
        DeValue::Integer(_) => count(value)? as f64,
        DeValue::Float(number) => number.as_str().parse().ok()?,
        DeValue::String(text) => {
            let number = text.strip_suffix("pp").or_else(|| text.strip_suffix('%'))?;
            number.trim_end().parse::<f64>().ok()? / 100.0
        }
        _ => return None,
    };
    (0.0..=1.0).contains(&share).then_some(share)
}

/// A number from 0 up.
pub(super) fn number(value: &DeValue<'_>) -> Option<f64> {
    let number = match value {
        DeValue::Integer(_) => count(value)? as f64,
        DeValue::Float(number) => number.as_str().parse().ok()?,
        _ => return None,
    };
    (0.0..f64::INFINITY).contains(&number).then_some(number)
}

/// How a token is chosen. A draw has no seed here, for that is an axis.
pub(super) fn choice(text: &str) -> Result<Choice, String> {
    let Some(parameters) = text.strip_prefix("sampled") else {
        return text.parse().map_err(|_| {
            format!("`{text}` is not a way to choose a token: write `greedy`, or for example `sampled:temperature=0.7`")
        });
    };
    let parameters = parameters.trim_start_matches(':');
    if parameters.contains("seed=") {
        return Err(
            "the seed of a draw is an axis: take it out here, and write seed = [0, 1] in [matrix]".to_owned()
        );
    }
    let all = if parameters.is_empty() { "seed=0".to_owned() } else { format!("seed=0,{parameters}") };
    format!("sampled:{all}").parse().map_err(|error| format!("{error}"))
}

/// A setting as it is written: a text, or a number where the axis has numbers.
pub(super) fn setting_text(axis: Axis, value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::Float(number) if axis.is_decimal() => Some(number.as_str().to_owned()),
        _ => word(value),
    }
}

/// A text or a whole number.
fn word(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::String(text) => Some(text.as_ref().to_owned()),
        DeValue::Integer(number) => {
            Some(i128::from_str_radix(number.as_str(), number.radix()).ok()?.to_string())
        }
        _ => None,
    }
}

fn check_axis(axis: Axis, form: AxisForm, value: &Spanned<DeValue<'_>>, problems: &mut Problems) {
    let example = axis.entry().example;
    if let DeValue::Array(list) = value.get_ref() {
        if form == AxisForm::One {
            return problems
                .add(value.span(), format!("`{axis}` is one value here: take one out of the list"));
        }
        if list.is_empty() {
            problems.add(
                value.span(),
                format!("`{axis}` has no values: give it some, such as {example}, or leave it out"),
            );
        }
        for value in list.iter() {
            check_setting(axis, value, problems);
        }
        return;
    }
    check_setting(axis, value, problems);
}

fn check_setting(axis: Axis, value: &Spanned<DeValue<'_>>, problems: &mut Problems) {
    let example = axis.entry().example;
    let is_text = matches!(value.get_ref(), DeValue::String(_));
    match setting_text(axis, value.get_ref()) {
        // Only the word for all of something is a text among numbers.
        Some(text)
            if is_text
                && (axis.is_number() && text.parse::<i128>().is_ok()
                    || axis.is_decimal() && text.parse::<f64>().is_ok()) =>
        {
            problems.add(value.span(), format!("`{axis}` is a number: write it without quotes"));
        }
        Some(text) => {
            if let Err(sentence) = axis.parse(&text) {
                problems.add(value.span(), sentence);
            }
        }
        None => problems
            .add(value.span(), format!("`{axis}` is not {}: write it as {example}", kind(value.get_ref()))),
    }
}

/// Settings of an axis that has no numbers.
fn names(axis: Axis) -> Vec<String> {
    match axis {
        Axis::Engine => {
            ENGINES.iter().flat_map(|entry| entry.offered).map(|name| (*name).to_owned()).collect()
        }
        Axis::Precision => PRECISIONS.iter().map(|entry| entry.example.to_string()).collect(),
        Axis::Order => ORDERS.iter().map(|entry| entry.example.to_string()).collect(),
        Axis::KvFormat => Kv::NAMES.map(str::to_owned).to_vec(),
        Axis::Attention => Attention::NAMES.map(str::to_owned).to_vec(),
        Axis::Reduce => Reduce::NAMES.map(str::to_owned).to_vec(),
        Axis::Functions => Functions::NAMES.map(str::to_owned).to_vec(),
        Axis::Grouping => ["in-order", "by-length", "shuffled:0"].map(str::to_owned).to_vec(),
        Axis::Neighbors => ["own", "copies", "noise:0"].map(str::to_owned).to_vec(),
        Axis::Arrival => ["together", "staggered:0"].map(str::to_owned).to_vec(),
        Axis::Cache => Cache::NAMES.map(str::to_owned).to_vec(),
        Axis::Rebuild => Rebuild::NAMES.map(str::to_owned).to_vec(),
        _ => Vec::new(),
    }
}

fn axis_schema(axis: Axis, many: bool) -> Value {
    let one = match axis {
        Axis::PrefillChunk | Axis::TopK => {
            json!({ "anyOf": [{ "type": "integer", "minimum": 1 }, { "const": "all" }] })
        }
        Axis::Verify => json!({ "anyOf": [{ "type": "integer", "minimum": 1 }, { "const": "off" }] }),
        Axis::Temperature => json!({ "type": "number", "exclusiveMinimum": 0 }),
        Axis::TopP => json!({ "type": "number", "exclusiveMinimum": 0, "maximum": 1 }),
        Axis::Seed => json!({ "type": "integer", "minimum": 0 }),
        axis if axis.is_number() => json!({ "type": "integer", "minimum": 1 }),
        // The names are there for completion: most of them take parameters.
        axis => json!({ "anyOf": [{ "enum": names(axis) }, { "type": "string", "minLength": 1 }] }),
    };
    if !many {
        return one;
    }
    json!({ "anyOf": [one, { "type": "array", "items": one, "minItems": 1 }] })
}

impl Form {
    fn check(self, name: &str, value: &Spanned<DeValue<'_>>, declared: &[Name], problems: &mut Problems) {
        let span = value.span();
        let wrong = |what: &str| Some(format!("`{name}` is not {}: {what}", kind(value.get_ref())));
        let text = match value.get_ref() {
            DeValue::String(text) => Some(text.as_ref()),
            _ => None,
        };
        let problem = match (self, value.get_ref()) {
            (Form::Text, DeValue::String(text)) if text.trim().is_empty() => {
                Some(format!("`{name}` is empty: write something, or leave it out"))
            }
            (Form::Text, _) if text.is_some_and(|text| text.chars().any(misleads)) => Some(format!(
                "`{name}` has characters that hide or that a terminal acts on: write it in plain ones, on one line"
            )),
            (Form::Text, _) if text.is_some() => None,
            (Form::Text, _) => wrong("write a text in quotes"),
            (Form::Word(words), _) | (Form::WordOrCount(words), DeValue::String(_)) => match text {
                Some(text) if words.contains(&text) => None,
                Some(text) => {
                    let near = did_you_mean(nearest(text, words.iter().copied()));
                    Some(format!("`{name}` cannot be `{text}`: {near}{}", any_of("write", words)))
                }
                None => wrong(&any_of("write", words)),
            },
            (Form::WordOrCount(words), value) => match count(value) {
                Some(1..) => None,
                _ => Some(format!(
                    "`{name}` counts from 1 up: write a whole number, or one of {}",
                    words.join(", ")
                )),
            },
            (Form::Count(least), value) => match count(value) {
                Some(number) if number >= least => None,
                _ if matches!(value, DeValue::Integer(_)) => {
                    Some(format!("`{name}` counts from {least} up: write such a number"))
                }
                _ => wrong(&format!("write a whole number from {least} up")),
            },
            (Form::Flag, DeValue::Boolean(_)) => None,
            (Form::Flag, _) => wrong("write true or false"),
            (Form::Share, value) => match share(value) {
                Some(_) => None,
                None => Some(format!("`{name}` is a share: write it as 0.01, \"1%\" or \"1pp\"")),
            },
            (Form::Number, value) => match number(value) {
                Some(_) => None,
                None => Some(format!("`{name}` is a number from 0 up: write it as 2 or 0.25")),
            },
            (Form::Memory, _) => match text.map(Memory::from_str) {
                Some(Ok(_)) => None,
                _ => Some(format!("`{name}` is a size of memory: write it as \"512M\", \"64G\" or \"2T\"")),
            },
            (Form::Limit, _) => match text.map(Limit::from_str) {
                Some(Ok(_)) => None,
                _ => Some(format!("`{name}` is a time: write it as \"90m\", \"12h\" or \"2d\"")),
            },
            (Form::Choice, _) => match text.map(choice) {
                Some(Ok(_)) => None,
                Some(Err(sentence)) => Some(sentence),
                None => wrong("write `greedy`, or `sampled:temperature=0.8`"),
            },
            (Form::Axes, DeValue::Array(list)) => {
                if list.is_empty() {
                    Some(format!("`{name}` names no axis: name one, such as [\"batch\", \"threads\"]"))
                } else {
                    for value in list.iter() {
                        check_axis_name(name, value, declared, problems);
                    }
                    None
                }
            }
            (Form::Axes, DeValue::String(_)) => {
                check_axis_name(name, value, declared, problems);
                None
            }
            (Form::Axes, _) => wrong("name axes, such as [\"batch\", \"threads\"]"),
            (Form::Suites(section), DeValue::Array(list)) => {
                for entry in list.iter() {
                    match entry.get_ref() {
                        DeValue::String(_) => Form::Text.check(name, entry, declared, problems),
                        DeValue::Table(table) => {
                            section.check(table, declared, problems);
                            if !table.contains_key("name") {
                                problems.add(entry.span(), "this suite has no `name`: give it one");
                            }
                        }
                        other => problems.add(
                            entry.span(),
                            format!("a suite is not {}: write its name, or {{ name = \"…\" }}", kind(other)),
                        ),
                    }
                }
                list.is_empty().then(|| {
                    format!("`{name}` names no suite: name some; `reprocheck list suites` shows them")
                })
            }
            (Form::Suites(_), _) => wrong("write a list of names, such as [\"carry_chain\"]"),
            (Form::Table(section), DeValue::Table(table)) => {
                section.check(table, declared, problems);
                None
            }
            (Form::Table(_), _) => wrong(&format!("write it as a table, [{name}]")),
            (Form::Tables(section), DeValue::Array(list)) => {
                for entry in list.iter() {
                    match entry.get_ref() {
                        DeValue::Table(table) => section.check(table, declared, problems),
                        other => problems
                            .add(entry.span(), format!("`{name}` is not {}: write [[{name}]]", kind(other))),
                    }
                }
                None
            }
            (Form::Tables(_), _) => wrong(&format!("write it with two brackets, [[{name}]]")),
            (Form::Named(section), DeValue::Table(table)) => {
                for (given, entry) in table.iter() {
                    match entry.get_ref() {
                        DeValue::Table(table) => section.check(table, declared, problems),
                        other => problems.add(
                            given.span(),
                            format!(
                                "`{name}` holds tables, and this is {}: write [{name}.NAME]",
                                kind(other)
                            ),
                        ),
                    }
                }
                None
            }
            (Form::Named(_), _) => wrong(&format!("write it as a table, [{name}.NAME]")),
            (Form::Texts, DeValue::Array(list)) if !list.is_empty() => {
                list.iter().for_each(|entry| Form::Text.check(name, entry, declared, problems));
                None
            }
            (Form::Texts, _) => {
                wrong("write a list of texts, such as [\"llama-server\", \"--port\", \"{port}\"]")
            }
            (Form::Variables, DeValue::Table(table)) => {
                for (given, entry) in table.iter() {
                    if !matches!(entry.get_ref(), DeValue::String(_)) {
                        let sentence = format!(
                            "`{}` is not {}: write a text in quotes",
                            given.get_ref(),
                            kind(entry.get_ref())
                        );
                        problems.add(entry.span(), sentence);
                    }
                }
                None
            }
            (Form::Variables, _) => wrong(&format!(
                "write it as a table of texts, such as {name} = {{ OMP_NUM_THREADS = \"1\" }}"
            )),
            (Form::Declared, DeValue::Table(table)) => {
                for (given, settings) in table.iter() {
                    check_declared(given, settings, problems);
                }
                None
            }
            (Form::Declared, _) => wrong("write a table of axes, such as { parallel = [1, 4] }"),
        };
        if let Some(sentence) = problem {
            problems.add(span, sentence);
        }
    }

    fn schema(self) -> Value {
        let axes: Vec<_> = AXES.iter().map(|entry| entry.name).collect();
        // A file may declare more.
        let axis = json!({ "anyOf": [{ "enum": axes }, { "type": "string", "pattern": format!("^{}$", server::AXIS) }] });
        match self {
            Form::Text => json!({ "type": "string", "minLength": 1 }),
            Form::Memory => json!({ "type": "string", "pattern": "^[0-9]+[MGT]$" }),
            Form::Limit => json!({ "type": "string", "pattern": "^[0-9]+[mhd]$" }),
            Form::Choice => json!({ "type": "string", "pattern": "^(greedy|sampled(:.+)?)$" }),
            Form::Word(words) => json!({ "enum": words }),
            Form::WordOrCount(words) => {
                json!({ "anyOf": [{ "enum": words }, { "type": "integer", "minimum": 1 }] })
            }
            Form::Count(least) => json!({ "type": "integer", "minimum": least }),
            Form::Flag => json!({ "type": "boolean" }),
            Form::Share => json!({ "anyOf": [
                { "type": "number", "minimum": 0, "maximum": 1 },
                { "type": "string", "pattern": "^[0-9.]+ *(%|pp)$" },
            ] }),
            Form::Number => json!({ "type": "number", "minimum": 0 }),
            Form::Axes => json!({ "anyOf": [
                axis,
                { "type": "array", "items": axis, "minItems": 1 },
            ] }),
            Form::Suites(section) => {
                let mut table = section.schema();
                table["required"] = json!(["name"]);
                let one = json!({ "anyOf": [{ "type": "string", "minLength": 1 }, table] });
                json!({ "type": "array", "items": one, "minItems": 1 })
            }
            Form::Table(section) => section.schema(),
            Form::Tables(section) => json!({ "type": "array", "items": section.schema() }),
            Form::Named(section) => json!({ "type": "object", "additionalProperties": section.schema() }),
            Form::Texts => texts(),
            Form::Variables => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
            Form::Declared => json!({
                "type": "object",
                "propertyNames": { "pattern": format!("^{}$", server::AXIS) },
                "additionalProperties": { "anyOf": [
                    { "type": "array", "items": { "type": ["string", "integer"] }, "minItems": 1 },
                    { "type": "object", "additionalProperties": { "type": "array", "items": { "type": "string" } } },
                ] },
            }),
        }
    }
}

/// A list of texts, in the JSON Schema.
fn texts() -> Value {
    json!({ "type": "array", "items": { "type": "string", "minLength": 1 }, "minItems": 1 })
}

/// A word on an axis that a file declares.
pub(super) struct Word {
    pub(super) place: Range<usize>,
    pub(super) text: String,
    /// What it stands for: itself alone where the file says no more.
    pub(super) arguments: Vec<String>,
}

/// The words of an axis that a file declares.
pub(super) fn declared(settings: &Spanned<DeValue<'_>>) -> Vec<Word> {
    match settings.get_ref() {
        DeValue::Table(table) => {
            let words = table.iter().map(|(word, arguments)| {
                let list = arguments.get_ref().as_array().into_iter().flat_map(|list| list.iter());
                let arguments = list.filter_map(|text| text.get_ref().as_str().map(str::to_owned)).collect();
                Word { place: word.span(), text: word.get_ref().as_ref().to_owned(), arguments }
            });
            words.collect()
        }
        DeValue::Array(list) => {
            let words = list.iter().filter_map(|word| {
                let text = self::word(word.get_ref())?;
                Some(Word { place: word.span(), arguments: vec![text.clone()], text })
            });
            words.collect()
        }
        _ => Vec::new(),
    }
}

fn check_declared(
    axis: &Spanned<std::borrow::Cow<'_, str>>,
    settings: &Spanned<DeValue<'_>>,
    problems: &mut Problems,
) {
    let name = axis.get_ref().as_ref();
    if !server::is_axis(name) {
        let sentence =
            format!("`{name}` is not a name for an axis: write it in small letters, digits and `-`");
        return problems.add(axis.span(), sentence);
    }
    if Axis::named(name).is_some() || PLACEHOLDERS.contains(&name) {
        return problems.add(
            axis.span(),
            format!("`{name}` has a meaning of its own: choose another name for this axis"),
        );
    }
    let is_right = match settings.get_ref() {
        DeValue::Array(list) => list.iter().all(|value| word(value.get_ref()).is_some()),
        DeValue::Table(table) => table.iter().all(|(_, arguments)| {
            let texts = arguments.get_ref().as_array();
            texts.is_some_and(|texts| texts.iter().all(|text| text.get_ref().as_str().is_some()))
        }),
        _ => false,
    };
    let words = declared(settings);
    if !is_right || words.is_empty() {
        let sentence = format!(
            "`{name}` has no settings of this form: write words, such as [\"on\", \"off\"], or a table of words with \
             their arguments, such as {{ split = [\"-np\", \"4\"] }}"
        );
        return problems.add(settings.span(), sentence);
    }
    for (at, Word { place, text, .. }) in words.iter().enumerate() {
        if let Err(sentence) = Axis::Server(Name::new(name)).parse(text) {
            problems.add(place.clone(), sentence);
        } else if words[..at].iter().any(|other| other.text == *text) {
            problems.add(place.clone(), format!("`{text}` comes up twice: take one out"));
        }
    }
}

fn check_axis_name(key: &str, value: &Spanned<DeValue<'_>>, declared: &[Name], problems: &mut Problems) {
    let names: Vec<_> =
        AXES.iter().map(|entry| entry.name).chain(declared.iter().map(|name| name.as_str())).collect();
    let sentence = match value.get_ref() {
        DeValue::String(text) if axis(text, declared).is_some() => return,
        DeValue::String(text) => {
            let near = did_you_mean(nearest(text, names.iter().copied()));
            format!("there is no axis `{text}`: {near}{}", all_of("there are", &names))
        }
        other => format!("`{key}` is not {}: {}", kind(other), all_of("name axes:", &names)),
    };
    let span: Range<usize> = value.span();
    problems.add(span, sentence);
}
