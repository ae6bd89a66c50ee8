//! Questions that a user brings: files of one JSON object a line, in the forms that such files have.
//!
//! Nothing is left out in silence: a file is read whole, or every problem in it is told. Blank lines are no
//! problem, wherever they stand.

mod aime;
mod gsm8k;
mod jsonl;
mod lm_eval;
mod math;

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    fmt,
    path::Path,
};

use serde::{Deserialize, Deserializer, de};
use serde_json::value::RawValue;

use super::answer::{Answer, Kind};
use crate::name::{self, named};
pub use lm_eval::lm_eval_hash;

/// In what form a file is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Format {
    /// `question` and `answer`, which ends in `#### 18`; also GSM-Symbolic.
    Gsm8k,
    /// `problem` and `answer`, or a `solution` with a box; also the older MATH files.
    Math500,
    /// `problem` and an `answer` from 0 to 999.
    Aime,
    /// This project's own: see the fields in [`Loaded`] and [`Finished`].
    Jsonl,
    /// What lm-evaluation-harness writes with `--log_samples`.
    LmEval,
}

impl Format {
    /// The format of a file by the fields of its first line.
    ///
    /// # Errors
    ///
    /// Where that line is no JSON object, or its fields are those of no format or of several.
    pub fn recognize(first_line: &str) -> Result<Format, FormatError> {
        let fields: Fields = serde_json::from_str(first_line.trim()).map_err(|_| FormatError::NoObject)?;
        let find = |field: &str| fields.0.iter().find(|(name, _)| name.eq_ignore_ascii_case(field));
        let has = |field: &str| find(field).is_some();
        let text = |field: &str| find(field).map_or("", |(_, value)| value.get());
        if has("doc_id") && (has("resps") || has("filtered_resps")) {
            Ok(Format::LmEval)
        } else if has("question") && text("answer").contains("####") {
            Ok(Format::Gsm8k)
        } else if has("problem") && (has("subject") || has("level") || has("unique_id")) {
            Ok(Format::Math500)
        } else if has("problem") && aime::is_answer(text("answer").trim_matches('"')) {
            Ok(Format::Aime)
        } else if jsonl::is_exported(has)
            || has("answer")
                && (has("prompt") || has("question"))
                && fields.0.iter().all(|(name, _)| jsonl::FIELDS.contains(&name.as_str()))
        {
            Ok(Format::Jsonl)
        } else {
            let names: Vec<_> =
                fields.0.iter().take(12).map(|(name, _)| format!("`{}`", name::shortened(name))).collect();
            Err(FormatError::Unsure(if names.is_empty() { "none".to_owned() } else { names.join(", ") }))
        }
    }
}

named! {
    Format, "format":
    Gsm8k = "gsm8k",
    Math500 = "math500",
    Aime = "aime",
    Jsonl = "jsonl",
    LmEval = "lm-eval",
}

/// Why a file's format cannot be seen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// The line is something else.
    #[error("the first line is not a JSON object: write one object a line")]
    NoObject,
    /// Its fields do not tell.
    #[error(
        "the fields of the first line ({0}) do not tell the format: correct them, or name it in a suite.toml beside the file, as `format`, one of gsm8k, math500, aime, jsonl, lm-eval"
    )]
    Unsure(String),
}

/// One question of a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Loaded {
    /// The file's own, or else the number of the line.
    pub id: String,
    /// The step of difficulty, or whatever else the results are to be told apart by.
    pub stratum: Option<String>,
    /// What several questions have in common that makes them less than independent.
    pub cluster: Option<String>,
    /// The question alone.
    pub question: String,
    /// What a model is given, to the letter, where the file says so.
    pub prompt: Option<String>,
    /// The right answer.
    pub answer: Answer,
    /// What a model has made of it, where the file says so.
    pub finished: Option<Finished>,
}

/// What a model has made of a question.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finished {
    /// What it wrote. For a log of several texts or of log-likelihoods, their JSON.
    pub output: String,
    /// What each filter of the log made of that, at least one.
    pub filters: Vec<Filtered>,
}

/// What one filter of a log made of an output.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Filtered {
    /// Its name, where it has one.
    pub filter: Option<String>,
    /// The answer it found.
    pub extracted: Option<String>,
    /// Whether that was right, where the log says so in a yes or no.
    pub correct: Option<bool>,
}

/// One problem of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadError {
    /// The file.
    pub file: String,
    /// The line, from 1; 0 for the file itself.
    pub line: usize,
    /// Where in the line, in bytes from 1, where it is not JSON.
    pub column: Option<usize>,
    /// The field, where it is about one.
    pub field: Option<String>,
    /// What is wrong, and what to do.
    pub what: String,
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if self.line > 0 {
            write!(f, ":{}", self.line)?;
        }
        if let Some(column) = self.column {
            write!(f, ":{column}")?;
        }
        if let Some(field) = &self.field {
            write!(f, ": `{field}`")?;
        }
        write!(f, ": {}", self.what)
    }
}

impl std::error::Error for LoadError {}

/// All problems of a file, at least one, in the order of its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadErrors(pub Vec<LoadError>);

impl LoadErrors {
    /// So many are printed.
    pub const PRINTED: usize = 20;
}

impl fmt::Display for LoadErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, error) in self.0.iter().take(Self::PRINTED).enumerate() {
            write!(f, "{}{error}", if at > 0 { "\n" } else { "" })?;
        }
        match self.0.len().saturating_sub(Self::PRINTED) {
            0 => Ok(()),
            more => write!(f, "\nand {more} more"),
        }
    }
}

impl std::error::Error for LoadErrors {}

/// The bytes of a file, for [`load`].
///
/// # Errors
///
/// Where it cannot be read.
pub fn read(path: &Path) -> Result<Vec<u8>, LoadErrors> {
    std::fs::read(path).map_err(|error| {
        let what = format!("cannot be read ({error}): check the path and who may read it");
        LoadErrors(vec![LoadError {
            file: path.display().to_string(),
            line: 0,
            column: None,
            field: None,
            what,
        }])
    })
}

/// The questions of a file of this format, in its order. `name` stands for the file in messages.
///
/// # Errors
///
/// Every problem there is.
pub fn load(format: Format, name: &str, bytes: &[u8]) -> Result<Vec<Loaded>, LoadErrors> {
    let read = match format {
        Format::Gsm8k => gsm8k::item,
        Format::Math500 => math::item,
        Format::Aime => aime::item,
        Format::Jsonl => jsonl::item,
        Format::LmEval => lm_eval::item,
    };
    let mut problems = Vec::new();
    let mut items: Vec<Loaded> = Vec::new();
    // Where the item of an id stands, and in which line it stood.
    let mut places: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let bytes = match bytes.strip_prefix(b"\xEF\xBB\xBF") {
        None => bytes,
        Some(rest) => {
            let what = "begins with a byte order mark: save the file as UTF-8 without one".to_owned();
            problems.push(LoadError { file: name.to_owned(), line: 1, column: Some(1), field: None, what });
            rest
        }
    };
    for (at, bytes) in bytes.split(|&byte| byte == b'\n').enumerate() {
        let mut line = Line { file: name, number: at + 1, fields: Vec::new(), problems: &mut problems };
        if !line.parse(bytes) {
            continue;
        }
        let Some(item) = read(&mut line) else { continue };
        match places.entry(item.id.clone()) {
            Entry::Vacant(entry) => {
                entry.insert((items.len(), line.number));
                items.push(item);
            }
            Entry::Occupied(entry) => {
                let (place, first) = *entry.get();
                if format == Format::LmEval {
                    lm_eval::join(&mut items[place], item, first, &mut line);
                } else {
                    let id = name::shortened(&item.id);
                    line.wrong(
                        "id",
                        format!("`{id}` is the id of line {first} too: give every question its own"),
                    );
                }
            }
        }
    }
    if items.is_empty() && problems.is_empty() {
        let what = "holds no questions: write one JSON object a line".to_owned();
        problems.push(LoadError { file: name.to_owned(), line: 0, column: None, field: None, what });
    }
    if problems.is_empty() { Ok(items) } else { Err(LoadErrors(problems)) }
}

/// The fields of an object as they are written, in order.
struct Fields<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> de::Visitor<'de> for Visitor {
            type Value = Fields<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

/// A line that is being read, and all problems so far.
struct Line<'a, 'p> {
    file: &'a str,
    number: usize,
    fields: Vec<(String, &'a RawValue)>,
    problems: &'p mut Vec<LoadError>,
}

impl<'a> Line<'a, '_> {
    /// Takes the line apart. Whether there is anything to go on with.
    fn parse(&mut self, bytes: &'a [u8]) -> bool {
        let text = match str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                self.at(Some(error.valid_up_to() + 1), "is not UTF-8: save the file as UTF-8".to_owned());
                return false;
            }
        };
        let trimmed = text.trim_matches([' ', '\t', '\r']);
        if trimmed.is_empty() {
            return false;
        }
        if !trimmed.starts_with('{') {
            self.at(None, "is not a JSON object: write one object a line, `{` to `}`".to_owned());
            return false;
        }
        match serde_json::from_str::<Fields>(text) {
            Ok(fields) => self.fields = fields.0,
            Err(error) => {
                let what = error.to_string();
                let what = what.rsplit_once(" at line ").map_or(&*what, |(what, _)| what);
                self.at(Some(error.column()), format!("is not JSON ({what}): correct it there"));
                return false;
            }
        }
        let mut seen = BTreeSet::new();
        if let Some((twice, _)) = self.fields.iter().find(|(name, _)| !seen.insert(name.clone())) {
            let twice = twice.clone();
            self.wrong(&twice, "stands there twice: leave one".to_owned());
            return false;
        }
        true
    }

    fn at(&mut self, column: Option<usize>, what: String) {
        self.problems.push(LoadError {
            file: self.file.to_owned(),
            line: self.number,
            column,
            field: None,
            what,
        });
    }

    /// Notes a problem with a field.
    fn wrong(&mut self, field: &str, what: String) {
        let (file, field) = (self.file.to_owned(), Some(name::shortened(field)));
        self.problems.push(LoadError { file, line: self.number, column: None, field, what });
    }

    /// A field that is there and not null.
    fn get(&self, field: &str) -> Option<&'a RawValue> {
        let found = self.fields.iter().find(|(name, _)| name == field)?;
        Some(found.1).filter(|value| value.get() != "null")
    }

    /// The first of these fields that is there; the first of all if none is.
    fn either<'n>(&self, fields: &[&'n str]) -> &'n str {
        fields.iter().copied().find(|field| self.get(field).is_some()).unwrap_or(fields[0])
    }

    /// A string that need not be there.
    fn string(&mut self, field: &str) -> Option<String> {
        let value = self.get(field)?;
        let text = serde_json::from_str(value.get()).ok();
        if text.is_none() {
            self.wrong(field, format!("is {}: write a string", described(value)));
        }
        text
    }

    /// A string, or a number as it is written, that need not be there.
    fn scalar(&mut self, field: &str) -> Option<String> {
        let value = self.get(field)?;
        let text = scalar(value);
        if text.is_none() {
            self.wrong(field, format!("is {}: write a string or a number", described(value)));
        }
        text
    }

    /// A string of which something is to be seen.
    fn text(&mut self, field: &str) -> Option<String> {
        let text = if self.get(field).is_some() { self.string(field)? } else { return self.missing(field) };
        self.full(field, text)
    }

    /// Such a string, or a number.
    fn value(&mut self, field: &str) -> Option<String> {
        let text = if self.get(field).is_some() { self.scalar(field)? } else { return self.missing(field) };
        self.full(field, text)
    }

    fn missing<T>(&mut self, field: &str) -> Option<T> {
        self.wrong(field, "is missing: every line needs it".to_owned());
        None
    }

    fn full(&mut self, field: &str, text: String) -> Option<String> {
        if text.trim().is_empty() {
            self.wrong(field, "is empty: fill it in".to_owned());
            return None;
        }
        Some(text)
    }

    /// An answer of this kind, if the text can be one.
    fn answer(&mut self, field: &str, kind: Kind, text: &str) -> Option<Answer> {
        let text = text.trim();
        if !kind.admits(text) {
            let article = if kind == Kind::Integer || kind == Kind::Irreducible { "an" } else { "a" };
            let shown = name::shortened(text);
            self.wrong(field, format!("`{shown}` is not {article} {kind} answer: correct it, or the kind"));
            return None;
        }
        Some(Answer { kind, text: text.to_owned() })
    }
}

fn scalar(value: &RawValue) -> Option<String> {
    let number = value.get().starts_with(|c: char| c.is_ascii_digit() || c == '-');
    if number { Some(value.get().to_owned()) } else { serde_json::from_str(value.get()).ok() }
}

fn described(value: &RawValue) -> &'static str {
    match value.get().as_bytes().first() {
        Some(b'"') => "a string",
        Some(b'{') => "an object",
        Some(b'[') => "a list",
        Some(b't' | b'f') => "true or false",
        Some(b'n') => "null",
        _ => "a number",
    }
}
