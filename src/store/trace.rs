//! What a cell leaves behind, on disk: a folder named by the digest of its files, so that equal traces lie there once.
//!
//! | file | what it holds |
//! |---|---|
//! | `samples.jsonl` | a [`Line`] for each item: tokens, text, scores, and the root of its chain |
//! | `tokens.safetensors` | for every token of every item, one after the other: `digest` of the logits `[tokens, 32]`, `candidate` and `logit` `[tokens, k]`, `margin` and `probability` `[tokens]` |
//!
//! Nothing here depends on time, machine or launch: items stand in the order of their numbers, however they were grouped,
//! and the batch and the threads that really ran stand with the cell. A writer holds one sample in memory, a reader too.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, BufWriter, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

use super::StoreError;
use crate::{
    numerics::choice::Candidate,
    suite::score::Scores,
    trace::{Digest, Finish, Sample, Token},
};

/// The folder of all traces in a store.
const TRACES: &str = "traces";
const SAMPLES: &str = "samples.jsonl";
const TOKENS: &str = "tokens.safetensors";
/// The lines in the order in which they came.
const LINES: &str = "lines";

/// What one item left behind.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Its number among the items of the run.
    pub item: u64,
    /// The tokens that followed its prompt, a stop token included.
    pub tokens: Vec<u32>,
    /// Their text, without a stop token and from a stop string on.
    pub text: String,
    /// Why it ended.
    pub finish: Finish,
    /// What became of the question.
    pub scores: Scores,
    /// Of the chain of tokens and logits: [`Sample::root`].
    pub root: Digest,
}

/// The columns of the file of tokens, in the order in which they lie there: name, type, bytes of a number.
const COLUMNS: [(&str, &str, usize); 5] = [
    ("digest", "U8", 1),
    ("candidate", "U32", 4),
    ("logit", "F32", 4),
    ("margin", "F32", 4),
    ("probability", "F32", 4),
];

/// How many numbers a token has in each column.
fn widths(candidates: usize) -> [usize; 5] {
    [32, candidates, candidates, 1, 1]
}

/// Writes a trace; nothing of it is in the store before it is whole.
pub struct Writer {
    store: PathBuf,
    folder: TempDir,
    samples: BufWriter<File>,
    columns: Vec<BufWriter<File>>,
    candidates: Option<usize>,
    /// In the order in which they came.
    entries: Vec<Entry>,
    /// Where the next one begins.
    next: Entry,
}

/// Where an item lies in the files that are written first.
#[derive(Clone, Copy, Default)]
struct Entry {
    item: u64,
    /// Its line: the first byte, and how many.
    line: (u64, u64),
    /// Its tokens: the first, and how many.
    tokens: (u64, u64),
}

impl Writer {
    /// A trace to be, in a store.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub fn new(store: &Path) -> Result<Writer, StoreError> {
        let traces = store.join(TRACES);
        let open = || {
            fs::create_dir_all(&traces)?;
            let folder = tempfile::Builder::new().prefix(".unfinished-").tempdir_in(&traces)?;
            let create = |name: &str| File::create(folder.path().join(name)).map(BufWriter::new);
            let columns = COLUMNS.iter().map(|(name, ..)| create(name)).collect::<io::Result<_>>()?;
            Ok((create(LINES)?, columns, folder))
        };
        let (samples, columns, folder) =
            open().map_err(|error| StoreError::Write { path: traces.clone(), error })?;
        Ok(Writer {
            store: store.to_owned(),
            folder,
            samples,
            columns,
            candidates: None,
            entries: Vec::new(),
            next: Entry::default(),
        })
    }

    /// Adds what an engine made of an item, and what became of its question. Items may come in any order.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub fn add(&mut self, sample: &Sample, scores: Scores) -> Result<(), StoreError> {
        let line = Line {
            item: sample.item,
            tokens: sample.steps.iter().map(|step| step.token).collect(),
            text: sample.text.clone(),
            finish: sample.finish,
            scores,
            root: sample.root(),
        };
        let written = self.write(&line, sample);
        written.map_err(|error| StoreError::Write { path: self.folder.path().to_owned(), error })
    }

    fn write(&mut self, line: &Line, sample: &Sample) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.samples.write_all(&text)?;
        let Entry { line: (line_start, _), tokens: (tokens_start, _), .. } = self.next;
        let (bytes, tokens) = (text.len() as u64, sample.steps.len() as u64);
        self.entries.push(Entry {
            item: line.item,
            line: (line_start, bytes),
            tokens: (tokens_start, tokens),
        });
        self.next = Entry { item: 0, line: (line_start + bytes, 0), tokens: (tokens_start + tokens, 0) };
        for step in &sample.steps {
            let candidates = *self.candidates.get_or_insert(step.candidates.len());
            assert_eq!(
                step.candidates.len(),
                candidates,
                "an engine keeps as many candidates of every token"
            );
            let [digest, tokens, logits, margin, probability] = &mut self.columns[..] else {
                unreachable!("there are as many files as columns")
            };
            digest.write_all(&step.digest.0)?;
            for Candidate { token, logit } in &step.candidates {
                tokens.write_all(&token.to_le_bytes())?;
                logits.write_all(&logit.to_le_bytes())?;
            }
            margin.write_all(&step.margin.to_le_bytes())?;
            probability.write_all(&step.probability.to_le_bytes())?;
        }
        Ok(())
    }

    /// Puts the trace into the store, under the digest that comes back.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub fn finish(mut self) -> Result<Digest, StoreError> {
        let folder = self.folder.path().to_owned();
        self.join().map_err(|error| StoreError::Write { path: folder, error })
    }

    fn join(&mut self) -> io::Result<Digest> {
        self.entries.sort_by_key(|entry| entry.item);
        let folder = self.folder.path();
        let candidates = self.candidates.unwrap_or(0);
        let mut file = BufWriter::new(File::create(folder.join(TOKENS))?);
        file.write_all(&header(self.next.tokens.0 as usize, candidates))?;
        for (((name, _, size), width), column) in
            COLUMNS.iter().zip(widths(candidates)).zip(&mut self.columns)
        {
            column.flush()?;
            let of_token = (size * width) as u64;
            let pieces =
                self.entries.iter().map(|entry| (entry.tokens.0 * of_token, entry.tokens.1 * of_token));
            rearrange(&folder.join(name), pieces, &mut file)?;
        }
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        self.samples.flush()?;
        let mut file = BufWriter::new(File::create(folder.join(SAMPLES))?);
        rearrange(&folder.join(LINES), self.entries.iter().map(|entry| entry.line), &mut file)?;
        file.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        let digest = digest(folder)?;
        let place = self.store.join(TRACES).join(digest.to_string());
        let made = place.with_extension("new");
        fs::create_dir_all(&made)?;
        for name in [SAMPLES, TOKENS] {
            fs::rename(folder.join(name), made.join(name))?;
        }
        if place.exists() {
            // An equal trace, from another cell or an earlier try, unless something has befallen it since.
            if self::digest(&place).is_ok_and(|found| found == digest) {
                fs::remove_dir_all(&made)?;
                return Ok(digest);
            }
            fs::remove_dir_all(&place)?;
        }
        fs::rename(&made, &place)?;
        Ok(digest)
    }
}

/// Copies pieces of a file, each from its first byte on and so many, one after the other, and removes the file.
fn rearrange(from: &Path, pieces: impl Iterator<Item = (u64, u64)>, to: &mut impl Write) -> io::Result<()> {
    let mut file = BufReader::new(File::open(from)?);
    let mut place = 0;
    for (start, length) in pieces {
        // Relative, so that what is in the buffer stays there where items came in their order.
        file.seek_relative(start as i64 - place)?;
        io::copy(&mut (&mut file).take(length), to)?;
        place = (start + length) as i64;
    }
    fs::remove_file(from)
}

/// The beginning of the file of tokens: the length of a JSON, and the JSON.
fn header(tokens: usize, candidates: usize) -> Vec<u8> {
    let mut tensors = Map::new();
    let mut end = 0;
    for ((name, kind, size), width) in COLUMNS.iter().zip(widths(candidates)) {
        let shape =
            if matches!(*name, "margin" | "probability") { vec![tokens] } else { vec![tokens, width] };
        let start = end;
        end += tokens * width * size;
        tensors.insert(
            (*name).to_owned(),
            json!({ "dtype": kind, "shape": shape, "data_offsets": [start, end] }),
        );
    }
    let mut json = Value::Object(tensors).to_string();
    // Readers map the file: its numbers begin where 8 divides the place.
    json.extend(std::iter::repeat_n(' ', json.len().next_multiple_of(8) - json.len()));
    [&(json.len() as u64).to_le_bytes()[..], json.as_bytes()].concat()
}

/// Of a trace's files: of the lines that `sha256sum` prints for them.
fn digest(folder: &Path) -> io::Result<Digest> {
    let mut lines = String::new();
    for name in [SAMPLES, TOKENS] {
        let mut hasher = Sha256::new();
        let mut file = BufReader::with_capacity(1 << 20, File::open(folder.join(name))?);
        loop {
            let piece = file.fill_buf()?;
            if piece.is_empty() {
                break;
            }
            hasher.update(piece);
            let read = piece.len();
            file.consume(read);
        }
        lines += &format!("{}  {name}\n", Digest(hasher.finalize().into()));
    }
    Ok(Digest::of(lines.as_bytes()))
}

/// Why a trace cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file system would not.
    #[error("cannot read {}: {error}; run it again with --resume", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// Other bytes than those that were written.
    #[error(
        "{} is not what was written there: its files have the digest {found}; remove the folder and run again with \
         --resume",
        .path.display()
    )]
    Changed {
        /// The trace.
        path: PathBuf,
        /// What they have.
        found: Digest,
    },
    /// Files that do not fit together.
    #[error("{}: {problem}; remove its folder and run again with --resume", .path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

/// Is there a trace of this digest in a store, and is it what was written?
///
/// # Errors
///
/// When it is not there, or not that.
pub fn verify(store: &Path, expected: Digest) -> Result<(), TraceError> {
    let path = store.join(TRACES).join(expected.to_string());
    match digest(&path) {
        Ok(found) if found == expected => Ok(()),
        Ok(found) => Err(TraceError::Changed { path, found }),
        Err(error) => Err(TraceError::Read { path, error }),
    }
}

/// Reads a trace item by item, each with what its tokens were chosen from.
pub struct Reader {
    path: PathBuf,
    samples: BufReader<File>,
    number: usize,
    /// Each at the token after the last one that was read.
    columns: Vec<BufReader<File>>,
    candidates: usize,
    /// Tokens that are left.
    left: usize,
}

impl Reader {
    /// Of the trace of this digest in a store. Whether it is what was written [`verify`] tells.
    ///
    /// # Errors
    ///
    /// When it is not there, or the file of tokens has another form.
    pub fn open(store: &Path, digest: Digest) -> Result<Reader, TraceError> {
        let path = store.join(TRACES).join(digest.to_string());
        let open = |name: &str| {
            let path = path.join(name);
            File::open(&path).map_err(|error| TraceError::Read { path, error })
        };
        let samples = BufReader::new(open(SAMPLES)?);
        let file = path.join(TOKENS);
        let (begin, tokens, candidates) = form(&mut open(TOKENS)?).map_err(|error| match error {
            Form::Io(error) => TraceError::Read { path: file.clone(), error },
            Form::Wrong(problem) => TraceError::Wrong { path: file.clone(), problem },
        })?;
        let mut columns = Vec::new();
        let mut place = begin;
        for ((_, _, size), width) in COLUMNS.iter().zip(widths(candidates)) {
            let mut column = open(TOKENS)?;
            column
                .seek(SeekFrom::Start(place))
                .map_err(|error| TraceError::Read { path: file.clone(), error })?;
            columns.push(BufReader::new(column));
            place += (tokens * width * size) as u64;
        }
        Ok(Reader { path, samples, number: 0, columns, candidates, left: tokens })
    }

    fn item(&mut self) -> Result<Option<(Line, Vec<Token>)>, TraceError> {
        let path = self.path.join(SAMPLES);
        let mut text = String::new();
        self.samples.read_line(&mut text).map_err(|error| TraceError::Read { path: path.clone(), error })?;
        self.number += 1;
        if text.is_empty() {
            return match self.left {
                0 => Ok(None),
                left => {
                    let problem = format!("it ends {left} tokens before {TOKENS} does");
                    Err(TraceError::Wrong { path, problem })
                }
            };
        }
        let line: Line = serde_json::from_str(&text).map_err(|error| TraceError::Wrong {
            path: path.clone(),
            problem: format!("line {}: {error}", self.number),
        })?;
        if line.tokens.len() > self.left {
            let problem = format!("line {}: it has more tokens than {TOKENS}", self.number);
            return Err(TraceError::Wrong { path, problem });
        }
        self.left -= line.tokens.len();
        let tokens = line.tokens.iter().map(|&token| self.token(token)).collect::<io::Result<_>>();
        let tokens = tokens.map_err(|error| TraceError::Read { path: self.path.join(TOKENS), error })?;
        Ok(Some((line, tokens)))
    }

    fn token(&mut self, token: u32) -> io::Result<Token> {
        fn word(column: &mut impl Read) -> io::Result<u32> {
            let mut word = [0; 4];
            column.read_exact(&mut word)?;
            Ok(u32::from_le_bytes(word))
        }
        let [digest, tokens, logits, margin, probability] = &mut self.columns[..] else {
            unreachable!("there are as many readers as columns")
        };
        let mut of_logits = [0; 32];
        digest.read_exact(&mut of_logits)?;
        let candidate = |_| Ok(Candidate { token: word(tokens)?, logit: f32::from_bits(word(logits)?) });
        let candidates = (0..self.candidates).map(candidate).collect::<io::Result<_>>()?;
        Ok(Token {
            token,
            digest: Digest(of_logits),
            candidates,
            margin: f32::from_bits(word(margin)?),
            probability: f32::from_bits(word(probability)?),
        })
    }
}

impl Iterator for Reader {
    type Item = Result<(Line, Vec<Token>), TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.item().transpose()
    }
}

enum Form {
    Io(io::Error),
    Wrong(String),
}

/// Where the numbers of a file of tokens begin, how many tokens it has, and how many candidates each.
fn form(file: &mut File) -> Result<(u64, usize, usize), Form> {
    // A header names five tensors: it has some hundred bytes.
    const LARGEST: u64 = 4096;
    let mut length = [0; 8];
    file.read_exact(&mut length).map_err(Form::Io)?;
    let length = u64::from_le_bytes(length);
    if length > LARGEST {
        return Err(Form::Wrong(format!("its header has {length} bytes")));
    }
    let mut start = vec![0; 8 + length as usize];
    file.seek(SeekFrom::Start(0)).and_then(|_| file.read_exact(&mut start)).map_err(Form::Io)?;
    let json: Value = serde_json::from_slice(&start[8..])
        .map_err(|error| Form::Wrong(format!("its header does not read ({error})")))?;
    let shape = |at: usize| json["candidate"]["shape"][at].as_u64().map(|length| length as usize);
    let (Some(tokens), Some(candidates)) = (shape(0), shape(1)) else {
        return Err(Form::Wrong("it has no tensor `candidate`".to_owned()));
    };
    // So large a number fits into no file, and must not be reckoned with.
    let per_token = candidates.saturating_mul(8).saturating_add(40);
    if tokens.checked_mul(per_token).is_none_or(|bytes| bytes > isize::MAX as usize) {
        return Err(Form::Wrong(format!("it would have {tokens} tokens")));
    }
    if start != header(tokens, candidates) {
        return Err(Form::Wrong("its tensors have other forms than this version writes".to_owned()));
    }
    Ok((start.len() as u64, tokens, candidates))
}
