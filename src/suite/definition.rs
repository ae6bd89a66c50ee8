//! A suite's file: what it measures, how large it is, and where its problems come from.

use std::ops;

use serde::{
    Deserialize,
    de::{DeserializeOwned, IgnoredAny},
};
use toml::Spanned;

use super::{load::Format, problem::Generator, style::Style};
use crate::source::Problems;

/// What a suite's file holds.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Definition {
    pub(super) version: u32,
    pub(super) title: String,
    pub(super) measures: String,
    #[serde(default)]
    pub(super) sources: Vec<String>,
    pub(super) limits: Limits,
    generator: Option<Spanned<String>>,
    items: Option<Sizes>,
    /// Read with [`parameters`] once the generator is known.
    #[serde(rename = "parameters")]
    _parameters: Option<IgnoredAny>,
    file: Option<Spanned<String>>,
    format: Option<Format>,
    shots: Option<String>,
}

/// Where a suite's problems come from, as its file says.
pub(super) enum Origin {
    Generator {
        name: Spanned<String>,
        sizes: Sizes,
    },
    /// JSON lines beside the suite's file, and others to show examples from.
    File {
        file: String,
        format: Option<Format>,
        shots: Option<String>,
    },
}

/// How many items a run takes.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub struct Sizes {
    /// For a first look.
    pub quick: u64,
    /// For most purposes.
    pub std: u64,
    /// For small differences.
    pub full: u64,
}

impl Sizes {
    /// All there are, for whatever purpose.
    pub(super) fn all(count: usize) -> Sizes {
        let count = count as u64;
        Sizes { quick: count, std: count, full: count }
    }
}

/// How many tokens may follow a prompt, for each style that a suite has.
#[derive(Deserialize, Clone, Copy, PartialEq, Eq, Debug)]
#[serde(deny_unknown_fields)]
pub struct Limits {
    compact: Option<usize>,
    completion: Option<usize>,
    chat: Option<usize>,
}

impl Limits {
    /// The limit of a style, where the suite has it.
    pub fn of(&self, style: Style) -> Option<usize> {
        match style {
            Style::Compact => self.compact,
            Style::Completion => self.completion,
            Style::Chat => self.chat,
        }
    }

    /// So much for solutions of this format; nobody writes them in the compact style.
    pub(super) fn for_lines_of(format: Format) -> Limits {
        let most = match format {
            Format::Gsm8k | Format::Jsonl | Format::LmEval => 1024,
            Format::Math500 => 4096,
            Format::Aime => 32768,
        };
        Limits { compact: None, completion: Some(most), chat: Some(most) }
    }
}

/// What is wrong with a suite's file, and where.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DefinitionError {
    span: Option<ops::Range<usize>>,
    problem: String,
}

impl DefinitionError {
    pub(super) fn new(span: Option<ops::Range<usize>>, problem: impl Into<String>) -> DefinitionError {
        DefinitionError { span, problem: problem.into() }
    }

    /// With the name of the file, the line, and a mark below the place.
    pub(super) fn in_file(&self, file: &str, text: &str) -> String {
        let mut problems = Problems::new(file, text);
        problems.add(self.span.clone(), &self.problem);
        problems.to_string()
    }
}

impl From<toml::de::Error> for DefinitionError {
    fn from(error: toml::de::Error) -> DefinitionError {
        DefinitionError::new(error.span(), error.message())
    }
}

impl Definition {
    pub(super) fn read(text: &str) -> Result<Definition, DefinitionError> {
        Ok(toml::from_str(text)?)
    }

    pub(super) fn origin(&self) -> Result<Origin, DefinitionError> {
        let wrong = |span, problem: &str| Err(DefinitionError::new(span, problem));
        match (&self.generator, &self.file) {
            (Some(generator), None) => match self.items {
                Some(_) if self.format.is_some() || self.shots.is_some() => {
                    wrong(None, "`format` and `shots` belong to a suite with a `file`: take them out")
                }
                Some(sizes) => Ok(Origin::Generator { name: generator.clone(), sizes }),
                None => wrong(
                    None,
                    "`items` is missing: say how many, such as items = { quick = 60, std = 500, full = 4000 }",
                ),
            },
            (None, Some(file)) if self.items.is_some() || self._parameters.is_some() => wrong(
                Some(file.span()),
                "`items` and `parameters` belong to a suite with a `generator`, and all lines of a file are items: \
                 take them out",
            ),
            (None, Some(file)) => Ok(Origin::File {
                file: file.get_ref().clone(),
                format: self.format,
                shots: self.shots.clone(),
            }),
            (Some(_), Some(file)) => {
                wrong(Some(file.span()), "a suite has a `generator` or a `file`: take one of them out")
            }
            (None, None) => wrong(
                None,
                "nothing says where the items come from: name a `generator`, or the `file` beside this one that \
                 holds them",
            ),
        }
    }
}

/// The parameters in a suite's file, and where they stand; no table is an empty one.
pub(super) fn table<P: DeserializeOwned>(
    text: &str,
) -> Result<(Option<ops::Range<usize>>, P), DefinitionError> {
    #[derive(Deserialize)]
    struct Parameters<P> {
        parameters: Option<Spanned<P>>,
    }
    match toml::from_str::<Parameters<P>>(text)?.parameters {
        Some(parameters) => Ok((Some(parameters.span()), parameters.into_inner())),
        None => match toml::from_str("") {
            Ok(parameters) => Ok((None, parameters)),
            Err(error) => Err(DefinitionError::new(None, format!("[parameters]: {}", error.message()))),
        },
    }
}

/// The parameters in a suite's file as the generator they make.
pub(super) fn parameters<G: Generator + DeserializeOwned>(text: &str) -> Result<G, DefinitionError> {
    let (span, generator) = table::<G>(text)?;
    generator.check().map_err(|problem| DefinitionError::new(span, problem))?;
    Ok(generator)
}
