//! The open trace: what any engine showed after tokens that it read, in two files that anyone can write.
//!
//! `NAME.jsonl` begins with a line that says who showed what, and has a line for each item:
//!
//! ```json
//! {"open-trace": 1, "shows": "logits", "environment": {"engine": "transformers 5.24.0", "facts": {"dtype": "float32"}}}
//! {"item": "0", "prompt": [1, 504, 3575], "tokens": [282, 4649], "rows": [0, 1]}
//! ```
//!
//! A row is what was shown before one of the tokens: the first of them after the whole prompt. `rows` are their numbers in
//! `NAME.safetensors`, where `null` stands for one that the engine did not show; without `rows` they follow those of the
//! item before. What `shows` names lies there as `numbers`, F32 `[rows, width]`:
//!
//! | `shows` | a row |
//! |---|---|
//! | `logits` | all logits, by the numbers of their tokens |
//! | `log-probabilities` | all log-probabilities, likewise |
//! | `top` | the best log-probabilities, and beside them `tokens`, U32 or I64 `[rows, width]`, the numbers of their tokens |
//!
//! A log-probability of -9999 or less is a floor: the engine says that it is no higher.

use std::{
    collections::HashSet,
    fs::File,
    io::{self, BufRead as _, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use safetensors::{
    Dtype,
    tensor::{Metadata, TensorInfo},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tempfile::NamedTempFile;

use super::{StoreError, folder_of, temporary};
use crate::{
    engine::environment::Environment,
    numerics::{apart::Row, choice::Candidate},
};

const VERSION: u32 = 1;
const NUMBERS: &str = "numbers";
const TOKENS: &str = "tokens";
/// The beginning of a file of numbers that is written here: its length, and a JSON with room for any shape.
const HEADER: usize = 512;
/// The longest beginning of a file by others.
const LONGEST_HEADER: u64 = 1 << 20;
/// At and below it a log-probability says no more than that it is no higher.
const FLOOR: f32 = -9999.0;

/// What a row is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Shows {
    /// All logits.
    Logits,
    /// All log-probabilities.
    LogProbabilities,
    /// The best log-probabilities.
    Top,
}

/// The first line.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The version of the format.
    #[serde(rename = "open-trace")]
    pub version: u32,
    /// What a row is.
    pub shows: Shows,
    /// Who showed it, and where.
    pub environment: Environment,
}

/// The tokens of one item, and where the rows lie that were shown before each.
#[derive(Clone, PartialEq, Debug)]
pub struct Item {
    /// Its name.
    pub item: String,
    /// The tokens that were read first.
    pub prompt: Vec<u32>,
    /// Those that followed.
    pub tokens: Vec<u32>,
    /// Which row was shown before each of them, if one was.
    pub rows: Vec<Option<u64>>,
}

/// A line of an item, as it is written.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line<'l> {
    item: String,
    prompt: Tokens<'l>,
    tokens: Tokens<'l>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    rows: Option<Vec<Option<u64>>>,
}

type Tokens<'l> = std::borrow::Cow<'l, [u32]>;

/// Why an open trace cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The file system would not.
    #[error("cannot read {}: {error}; a trace is a file NAME.jsonl with NAME.safetensors beside it", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// A line that says something else.
    #[error("{}:{line}: {problem}", .path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// What is wrong, and the way out.
        problem: String,
    },
    /// Numbers that are not as they should be.
    #[error("{}: {problem}", .path.display())]
    Numbers {
        /// The file.
        path: PathBuf,
        /// What is wrong, and the way out.
        problem: String,
    },
}

impl crate::source::Blame for OpenError {
    fn is_environment(&self) -> bool {
        matches!(self, OpenError::Read { error, .. } if error.kind() != io::ErrorKind::NotFound)
    }
}

/// A trace that is open for reading: rows are read one at a time.
#[derive(Debug)]
pub struct OpenTrace {
    /// Who showed what.
    pub head: Head,
    /// The items, in the order of their lines.
    pub items: Vec<Item>,
    path: PathBuf,
    file: File,
    /// How many numbers a row has.
    pub width: usize,
    numbers: u64,
    /// Where the tokens' numbers begin, and how many bytes each has.
    tokens: Option<(u64, usize)>,
}

/// What a row was read into.
#[derive(Debug, Default)]
pub struct Shown {
    numbers: Vec<f32>,
    best: Vec<Candidate>,
}

impl Shown {
    /// The row.
    pub fn row(&self, shows: Shows) -> Row<'_> {
        match shows {
            Shows::Logits => Row::Logits(&self.numbers),
            Shows::LogProbabilities => Row::LogProbabilities(&self.numbers),
            Shows::Top => Row::Top(&self.best),
        }
    }
}

/// The file of numbers beside a trace.
fn beside(path: &Path) -> PathBuf {
    path.with_extension("safetensors")
}

impl OpenTrace {
    /// Opens a trace, and holds its lines to its numbers.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is no such trace: the line and what is wrong with it.
    pub fn open(path: &Path) -> Result<OpenTrace, OpenError> {
        let read = |error| OpenError::Read { path: path.to_owned(), error };
        let wrong = |line, problem| OpenError::Line { path: path.to_owned(), line, problem };
        let mut head = None;
        let mut lines = Vec::new();
        for (text, number) in BufReader::new(File::open(path).map_err(read)?).lines().zip(1..) {
            let text = text.map_err(read)?;
            if head.is_none() {
                head = Some(first_line(&text).map_err(|problem| wrong(number, problem))?);
            } else if !text.trim().is_empty() {
                let line: Line<'_> = serde_json::from_str(&text).map_err(|error| {
                    wrong(number, format!("{error}: write an item with its `prompt` and `tokens`"))
                })?;
                lines.push((number, line));
            }
        }
        let Some(head) = head else {
            return Err(wrong(1, "there is no line: begin with {\"open-trace\": 1, …}".to_owned()));
        };
        let numbers = beside(path);
        let (file, shape) = layout(&numbers, head.shows)?;
        let (mut items, mut names, mut next) = (Vec::new(), HashSet::new(), 0);
        for (number, Line { item, prompt, tokens, rows }) in lines {
            let rows = rows.unwrap_or_else(|| (next..).take(tokens.len()).map(Some).collect());
            if rows.len() != tokens.len() {
                let problem =
                    format!("{} rows for {} tokens: give each its row, or null", rows.len(), tokens.len());
                return Err(wrong(number, problem));
            }
            if prompt.is_empty() {
                return Err(wrong(number, "a prompt of no tokens: nothing can follow nothing".to_owned()));
            }
            if let Some(row) = rows.iter().flatten().find(|row| **row >= shape.rows) {
                let problem =
                    format!("row {row} of {}, which has {}: count from 0", numbers.display(), shape.rows);
                return Err(wrong(number, problem));
            }
            // Below the number of rows, so that one more is a number too.
            next = rows.iter().flatten().last().map_or(next, |row| row + 1);
            if !names.insert(item.clone()) {
                return Err(wrong(number, format!("item {item} again: give each its own name")));
            }
            items.push(Item { item, prompt: prompt.into_owned(), tokens: tokens.into_owned(), rows });
        }
        let Shape { width, numbers: at, tokens, .. } = shape;
        Ok(OpenTrace { head, items, path: numbers, file, width, numbers: at, tokens })
    }

    /// Reads a row.
    ///
    /// # Errors
    ///
    /// When it cannot be read, or is none: NaN, or plus infinity.
    pub fn read(&mut self, row: u64, shown: &mut Shown) -> Result<(), OpenError> {
        let OpenTrace { file, width, numbers, tokens, .. } = self;
        shown.numbers.resize(*width, 0.0);
        let mut bytes = |at: u64, out: &mut [u8]| {
            let place = at + row * out.len() as u64;
            file.seek(SeekFrom::Start(place)).and_then(|_| file.read_exact(out))
        };
        let mut read = || {
            bytes(*numbers, bytemuck::cast_slice_mut(&mut shown.numbers))?;
            let Some((at, size)) = *tokens else { return Ok(Vec::new()) };
            let mut codes = vec![0; *width * size];
            bytes(at, &mut codes)?;
            Ok(codes)
        };
        let codes = read().map_err(|error| OpenError::Read { path: self.path.clone(), error })?;
        let problem = |problem: String| OpenError::Numbers { path: self.path.clone(), problem };
        for (place, number) in shown.numbers.iter_mut().enumerate() {
            *number = f32::from_bits(u32::from_le(number.to_bits()));
            if number.is_nan() || *number == f32::INFINITY {
                return Err(problem(format!(
                    "row {row} holds {number} at {place}: an engine that shows this has lost its numbers, so mend it first"
                )));
            }
            if self.head.shows != Shows::Logits && *number <= FLOOR {
                *number = f32::NEG_INFINITY;
            }
        }
        shown.best.clear();
        if let Some((_, size)) = self.tokens {
            for (code, &logit) in codes.chunks_exact(size).zip(&shown.numbers) {
                let code = code.iter().rev().fold(0, |code, &byte| code << 8 | u64::from(byte));
                let token = u32::try_from(code).map_err(|_| {
                    problem(format!(
                        "row {row} holds token {}: give the numbers of tokens",
                        code.cast_signed()
                    ))
                })?;
                shown.best.push(Candidate { token, logit });
            }
            shown.best.sort_by(Candidate::best_first);
            if let Some([one, _]) = shown.best.array_windows().find(|[one, other]| one.token == other.token) {
                return Err(problem(format!("row {row} holds token {} twice: show each once", one.token)));
            }
        }
        Ok(())
    }
}

fn first_line(text: &str) -> Result<Head, String> {
    let head: Head = serde_json::from_str(text).map_err(|error| {
        format!(
            "{error}: an open trace begins with a line such as {{\"open-trace\": 1, \"shows\": \"logits\", \
             \"environment\": {{\"engine\": \"vllm 0.32.0\", \"facts\": {{}}}}}}"
        )
    })?;
    if head.version != VERSION {
        return Err(format!(
            "version {} of the format, and {VERSION} is read here: write that",
            head.version
        ));
    }
    Ok(head)
}

/// Where the numbers lie.
struct Shape {
    rows: u64,
    width: usize,
    numbers: u64,
    tokens: Option<(u64, usize)>,
}

fn layout(path: &Path, shows: Shows) -> Result<(File, Shape), OpenError> {
    let read = |error| OpenError::Read { path: path.to_owned(), error };
    let wrong = |problem: String| OpenError::Numbers { path: path.to_owned(), problem };
    let mut file = File::open(path).map_err(read)?;
    let size = file.metadata().map_err(read)?.len();
    let mut length = [0; 8];
    if size < length.len() as u64 {
        return Err(wrong(format!("it ends after {size} bytes: copy it again")));
    }
    file.read_exact(&mut length).map_err(read)?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER.min(size - 8) {
        return Err(wrong(format!("its header has {length} bytes: write it with the library safetensors")));
    }
    let mut header = vec![0; length as usize];
    file.read_exact(&mut header).map_err(read)?;
    let tensors: Metadata = serde_json::from_slice(&header)
        .map_err(|error| wrong(format!("{error}: write it with the library safetensors")))?;
    let find = |name: &str, types: &[Dtype]| {
        let tensor = tensors.info(name).filter(|info| types.contains(&info.dtype) && info.shape.len() == 2);
        tensor.ok_or_else(|| {
            let types: Vec<_> = types.iter().map(|dtype| format!("{dtype:?}")).collect();
            wrong(format!("there is no tensor `{name}` [rows, width] in {}: add it", types.join(" or ")))
        })
    };
    let numbers = find(NUMBERS, &[Dtype::F32])?;
    let end = |info: &TensorInfo| 8 + length + info.data_offsets.1 as u64;
    let [rows, width] = [numbers.shape[0], numbers.shape[1]];
    let mut tokens = None;
    let mut last = end(numbers);
    if shows == Shows::Top {
        let info = find(TOKENS, &[Dtype::U32, Dtype::I64])?;
        if info.shape != numbers.shape {
            return Err(wrong(format!(
                "`{TOKENS}` is {:?} and `{NUMBERS}` is {:?}: give every number its token",
                info.shape, numbers.shape
            )));
        }
        tokens =
            Some((8 + length + info.data_offsets.0 as u64, if info.dtype == Dtype::I64 { 8 } else { 4 }));
        last = last.max(end(info));
    }
    if last > size {
        return Err(wrong(format!("it ends after {size} of {last} bytes: copy it again")));
    }
    if width == 0 {
        return Err(wrong("its rows are empty: show at least the best token".to_owned()));
    }
    let numbers = 8 + length + numbers.data_offsets.0 as u64;
    Ok((file, Shape { rows: rows as u64, width, numbers, tokens }))
}

/// Writes an open trace; nothing of it is there before it is whole.
pub struct OpenWriter {
    path: PathBuf,
    lines: BufWriter<NamedTempFile>,
    numbers: BufWriter<NamedTempFile>,
    /// The numbers of tokens, where the best alone are shown.
    tokens: Vec<u32>,
    rows: u64,
    width: usize,
}

impl OpenWriter {
    /// A trace to be.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written.
    pub fn new(path: &Path, shows: Shows, environment: Environment) -> Result<OpenWriter, StoreError> {
        let open = || {
            let folder = folder_of(path)?;
            let mut lines = BufWriter::new(temporary().tempfile_in(folder)?);
            let mut numbers = BufWriter::new(temporary().tempfile_in(folder)?);
            let head = Head { version: VERSION, shows, environment };
            writeln!(lines, "{}", serde_json::to_string(&head)?)?;
            // What stands here is known at the end.
            numbers.write_all(&[b' '; HEADER])?;
            Ok((lines, numbers))
        };
        let (lines, numbers) = open().map_err(|error| failed(path, error))?;
        Ok(OpenWriter { path: path.to_owned(), lines, numbers, tokens: Vec::new(), rows: 0, width: 0 })
    }

    /// Adds a row, as wide as those before it, and tells its number.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn row(&mut self, row: Row<'_>) -> Result<u64, StoreError> {
        let best: Vec<f32>;
        let numbers = match row {
            Row::Logits(all) | Row::LogProbabilities(all) => all,
            Row::Top(candidates) => {
                self.tokens.extend(candidates.iter().map(|candidate| candidate.token));
                best = candidates.iter().map(|candidate| candidate.logit).collect();
                &best
            }
        };
        assert!(self.rows == 0 || self.width == numbers.len(), "every row of a trace has the same width");
        self.width = numbers.len();
        let written = numbers.chunks(1024).try_for_each(|numbers| {
            let words: Vec<_> = numbers.iter().map(|number| number.to_le_bytes()).collect();
            self.numbers.write_all(words.as_flattened())
        });
        written.map_err(|error| failed(&self.path, error))?;
        self.rows += 1;
        Ok(self.rows - 1)
    }

    /// Adds an item, whose rows have been added.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn item(&mut self, Item { item, prompt, tokens, rows }: Item) -> Result<(), StoreError> {
        let line = Line { item, prompt: prompt.into(), tokens: tokens.into(), rows: Some(rows) };
        let written = serde_json::to_string(&line).map_err(io::Error::from);
        let written = written.and_then(|line| writeln!(self.lines, "{line}"));
        written.map_err(|error| failed(&self.path, error))
    }

    /// Puts both files where they belong.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub fn finish(mut self) -> Result<(), StoreError> {
        let finish = || {
            let shape = [self.rows, self.width as u64];
            let end = self.rows * self.width as u64 * 4;
            let tensor = |kind: &str, begin: u64, bytes: u64| json!({ "dtype": kind, "shape": shape, "data_offsets": [begin, begin + bytes] });
            let mut header = json!({ NUMBERS: tensor("F32", 0, end) });
            if !self.tokens.is_empty() {
                header[TOKENS] = tensor("U32", end, self.tokens.len() as u64 * 4);
                for token in &self.tokens {
                    self.numbers.write_all(&token.to_le_bytes())?;
                }
            }
            self.numbers.seek(SeekFrom::Start(0))?;
            self.numbers.write_all(&(HEADER as u64 - 8).to_le_bytes())?;
            self.numbers.write_all(header.to_string().as_bytes())?;
            let whole =
                |file: BufWriter<NamedTempFile>| file.into_inner().map_err(io::IntoInnerError::into_error);
            whole(self.numbers)?.persist(beside(&self.path))?;
            whole(self.lines)?.persist(&self.path)?;
            Ok(())
        };
        let path = self.path.clone();
        finish().map_err(|error| failed(&path, error))
    }
}

fn failed(path: &Path, error: io::Error) -> StoreError {
    StoreError::Write { path: path.to_owned(), error }
}
