//! Suites: families of problems, each with its one answer.

pub mod answer;
pub mod compact;
pub mod cut;
pub mod definition;
pub mod draw;
pub mod embedded;
pub mod export;
pub mod extract;
pub mod generate;
pub mod item;
pub mod load;
pub mod problem;
pub mod question;
pub mod score;
pub mod style;

use std::{
    borrow::Cow,
    fs, io,
    path::{Path, PathBuf},
};

use self::{
    compact::Compact,
    definition::{Definition, DefinitionError, Limits, Origin, Sizes},
    embedded::SUITES,
    item::Item,
    load::{Format, LoadErrors, Loaded},
    problem::{Generator, Problem},
    score::{Scores, score},
    style::Style,
};
use crate::name::{did_you_mean, nearest, shortened};

/// A family of problems.
pub struct Suite {
    /// Its name; of one that was brought, the name of its folder or file.
    pub name: String,
    /// Another one wherever an item, a prompt or the scoring changes.
    pub version: u32,
    /// What it is, in one line.
    pub title: String,
    /// What it measures, and why.
    pub measures: String,
    /// Whose ideas it rests on.
    pub sources: Vec<String>,
    /// How many items to take.
    pub sizes: Sizes,
    /// How many tokens may follow a prompt.
    pub limits: Limits,
    source: Source,
}

/// Where problems come from.
enum Source {
    Generated { name: &'static str, generator: Box<dyn Generator> },
    Brought { format: Format, items: Vec<Item>, shots: Vec<Problem> },
}

/// Why there is no such suite.
#[derive(Debug, thiserror::Error)]
pub enum SuiteError {
    /// No suite of this name is in the binary.
    #[error(
        "there is no suite `{name}`: {suggestion}`reprocheck list suites` names them, and a path to your own has a \
         slash, such as `./{name}`"
    )]
    Unknown {
        /// What was asked for.
        name: String,
        /// The nearest name, as a question before the rest, or nothing.
        suggestion: String,
    },
    /// A file that cannot be read.
    #[error("cannot read {}: {error}; a suite is a folder with a suite.toml, or a file of JSON lines", .path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// A suite's file that says something wrong, with the place.
    #[error("{0}")]
    Definition(String),
    /// Lines that are no items.
    #[error(transparent)]
    Load(#[from] LoadErrors),
}

impl Suite {
    /// The suite of a name in this binary, or of a path, which has a slash: a folder, its suite.toml, or a file of JSON
    /// lines alone.
    ///
    /// # Errors
    ///
    /// When there is none, or when its file is wrong.
    pub fn open(name: &str) -> Result<Suite, SuiteError> {
        let path = Path::new(name);
        let named = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if is_path(name) && path.extension().is_some_and(|extension| extension == "jsonl") {
            return Suite::of_lines(named(path), path);
        }
        let (file, text) = Suite::file(name)?;
        // A suite has the name of its folder, whatever that is called from here.
        let name = match file.parent().map(Path::canonicalize) {
            Some(Ok(folder)) if is_path(name) => named(&folder),
            _ => name.to_owned(),
        };
        Suite::read(&name, &file, &text)
    }

    /// The file of a suite, and its text.
    fn file(name: &str) -> Result<(PathBuf, Cow<'static, str>), SuiteError> {
        if is_path(name) {
            let path = Path::new(name);
            let file = if path.is_dir() { path.join("suite.toml") } else { path.to_owned() };
            return match fs::read_to_string(&file) {
                Ok(text) => Ok((file, text.into())),
                Err(error) => Err(SuiteError::Read { path: file, error }),
            };
        }
        if let Some((name, text)) = SUITES.iter().find(|(known, _)| *known == name) {
            return Ok((format!("suites/{name}/suite.toml").into(), (*text).into()));
        }
        let suggestion = did_you_mean(nearest(name, SUITES.iter().map(|(name, _)| *name)));
        Err(SuiteError::Unknown { name: shortened(name), suggestion })
    }

    /// Every suite in this binary.
    pub fn all() -> impl Iterator<Item = Suite> {
        SUITES.iter().map(|(name, _)| Suite::open(name).expect("the tests open every suite"))
    }

    fn read(name: &str, file: &Path, text: &str) -> Result<Suite, SuiteError> {
        let wrong =
            |error: DefinitionError| SuiteError::Definition(error.in_file(&file.display().to_string(), text));
        let definition = Definition::read(text).map_err(wrong)?;
        let (source, sizes) = match definition.origin().map_err(wrong)? {
            Origin::Generator { name, sizes } => {
                let (name, make) = generate::find(&name).map_err(wrong)?;
                (Source::Generated { name, generator: make(text).map_err(wrong)? }, sizes)
            }
            Origin::File { file: lines, format, shots } => {
                let beside = |lines: &str| file.parent().unwrap_or(file).join(lines);
                let (format, items) = brought(&beside(&lines), format)?;
                let shots = match shots {
                    Some(shots) => brought(&beside(&shots), Some(format))?.1,
                    None => Vec::new(),
                };
                let shots = shots.into_iter().map(|item| item.problem).collect();
                let sizes = Sizes::all(items.len());
                (Source::Brought { format, items, shots }, sizes)
            }
        };
        let Definition { version, title, measures, sources, limits, .. } = definition;
        let measures = measures.split_whitespace().collect::<Vec<_>>().join(" ");
        Ok(Suite { name: name.to_owned(), version, title, measures, sources, sizes, limits, source })
    }

    /// A suite of nothing but lines, whose format their fields tell.
    fn of_lines(name: String, path: &Path) -> Result<Suite, SuiteError> {
        let (format, items) = brought(path, None)?;
        Ok(Suite {
            name,
            version: 1,
            title: format!("the questions of {}", path.display()),
            measures: format!(
                "Your own {} questions: reprocheck does not know what they measure.",
                items.len()
            ),
            sources: Vec::new(),
            sizes: Sizes::all(items.len()),
            limits: Limits::for_lines_of(format),
            source: Source::Brought { format, items, shots: Vec::new() },
        })
    }

    /// What makes its items: a generator, or a file of this format.
    pub fn maker(&self) -> String {
        match &self.source {
            Source::Generated { name, .. } => format!("generator {name}"),
            Source::Brought { format, .. } => format!("lines of format {format}"),
        }
    }

    /// How many items there are, where they were brought; a generator makes as many as anybody asks for.
    pub fn count(&self) -> Option<u64> {
        match &self.source {
            Source::Generated { .. } => None,
            Source::Brought { items, .. } => Some(items.len() as u64),
        }
    }

    /// The strata of its first items, in the order in which they come up.
    pub fn strata(&self, seed: u64) -> Vec<String> {
        let mut strata: Vec<String> = Vec::new();
        for item in self.items(seed).take(self.sizes.std as usize) {
            if !strata.contains(&item.problem.stratum) {
                strata.push(item.problem.stratum);
            }
        }
        strata
    }

    /// The styles that it is asked in.
    pub fn styles(&self) -> Vec<Style> {
        Style::ALL.iter().copied().filter(|style| self.limits.of(*style).is_some()).collect()
    }

    /// What ends an answer in this style.
    pub fn stop(&self, style: Style) -> &'static [&'static str] {
        match (style, &self.source) {
            (Style::Compact, _) => &["\n"],
            (Style::Completion, Source::Generated { .. }) => &["\n", "Question:"],
            // A solution has several lines.
            (Style::Completion, Source::Brought { .. }) => &["Question:"],
            (Style::Chat, _) => &[],
        }
    }

    /// In which style an answer to this one is read.
    pub fn read_as(&self, style: Style) -> Style {
        match (style, &self.source) {
            // Its answer stands at the end of a solution, as in a chat.
            (Style::Completion, Source::Brought { .. }) => Style::Chat,
            _ => style,
        }
    }

    /// What became of an item, from the text that followed its prompt. `cut` says that the text ended at its limit.
    pub fn score(&self, item: &Item, style: Style, text: &str, cut: bool) -> Scores {
        score(&item.problem.answer, self.read_as(style), text, cut)
    }
}

/// A name has no slash.
fn is_path(name: &str) -> bool {
    name.contains(['/', '\\'])
}

/// The questions of a file; where no format is given, its first line tells.
fn brought(path: &Path, format: Option<Format>) -> Result<(Format, Vec<Item>), SuiteError> {
    let bytes = load::read(path)?;
    let name = path.display().to_string();
    let format = match format {
        Some(format) => format,
        None => {
            let text = bytes.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(&bytes);
            let first = text.split(|&byte| byte == b'\n').find(|line| !line.trim_ascii().is_empty());
            Format::recognize(&String::from_utf8_lossy(first.unwrap_or_default()))
                .map_err(|error| SuiteError::Definition(format!("{name}: {error}")))?
        }
    };
    let problems = load::load(format, &name, &bytes)?
        .into_iter()
        .map(|loaded| (loaded.id.clone(), Problem::from(loaded)));
    let items = problems.zip(0..).map(|((id, problem), index)| Item { index, id, duplicate: false, problem });
    Ok((format, items.collect()))
}

/// A question that was brought; a prompt of its own stands for itself in every style.
impl From<Loaded> for Problem {
    fn from(loaded: Loaded) -> Problem {
        let stratum = loaded.stratum.unwrap_or_else(|| "all".to_owned());
        let mut problem = Problem::new(stratum, "brought", loaded.question, loaded.answer);
        problem.cluster = loaded.cluster;
        if let Some(prompt) = loaded.prompt {
            problem.request = Some("".into());
            problem.compact = Some(Compact { prompt: prompt.clone(), scratchpad: String::new() });
            problem.completion = Some(prompt.clone());
            problem.question = prompt;
        }
        problem
    }
}
