//! What a cell leaves behind, on disk: a folder named by the digest of its files, so that equal traces lie there once.
//!
//! | file | what it holds |
//! |---|---|
//! | `samples.jsonl` | a [`Line`] for each item: tokens, text, scores, and the root of its chain |
//! | `tokens.safetensors` | for every token of every item, one after the other: `digest` of the logits `[tokens, 32]`, `candidate` and `logit` `[tokens, k]`, `margin` and `probability` `[tokens]`; of an engine that shows the best log-probabilities alone `candidate` and `logit`, of one that shows nothing none of these |
//! | `tree.bin` | the Merkle tree over the roots of the items, 32 bytes a node: the leaves, then level by level up to the root |
//!
//! Nothing here depends on time, machine or launch: items stand in the order of their numbers, however they were grouped,
//! and the batch and the threads that really ran stand with the cell. A writer holds one sample in memory and a few numbers of
//! every item, a reader one item.

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, BufWriter, Read as _, Seek as _, SeekFrom, Write},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use super::{
    StoreError, folder_for_others,
    lines::{Lines, LinesError},
};
use crate::{
    digest::{Digest, MerkleTree},
    numerics::choice::Candidate,
    suite::score::Scores,
    trace::{Finish, Sample, Seen, Sight, Step, Token},
};

/// The folder of all traces in a store.
pub(super) const TRACES: &str = "traces";
const SAMPLES: &str = "samples.jsonl";
const TOKENS: &str = "tokens.safetensors";
const TREE: &str = "tree.bin";
const FILES: [&str; 3] = [SAMPLES, TOKENS, TREE];
/// How the name of a trace that is being written begins.
pub(super) const UNFINISHED: &str = ".unfinished-";
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

/// The columns that there are where so much is seen, each with how many numbers a token has in it.
fn columns(
    sight: Sight,
    candidates: usize,
) -> impl Iterator<Item = (&'static str, &'static str, usize, usize)> {
    let there = match sight {
        Sight::Logits => 0..5,
        Sight::Top => 1..3,
        Sight::Tokens | Sight::Text => 0..0,
    };
    let all = COLUMNS.iter().zip([32, candidates, candidates, 1, 1]);
    all.skip(there.start).take(there.len()).map(|((name, kind, size), width)| (*name, *kind, *size, width))
}

/// Writes a trace; nothing of it is in the store before it is whole.
pub struct Writer {
    /// Where it is written.
    own: PathBuf,
    folder: TempDir,
    samples: BufWriter<File>,
    sight: Sight,
    columns: Vec<BufWriter<File>>,
    candidates: Option<usize>,
    /// In the order in which they came.
    entries: Vec<Entry>,
    /// Where the next one begins: its line, its tokens.
    next: (u64, u64),
}

/// What a trace is known by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Written {
    /// Of its files: the name of its folder.
    pub digest: Digest,
    /// Of its tree: equal if and only if all tokens and logits are.
    pub root: Digest,
}

/// Where an item lies in the files that are written first.
#[derive(Clone, Copy)]
struct Entry {
    item: u64,
    /// Of its chain.
    root: Digest,
    /// Its line: the first byte, and how many.
    line: (u64, u64),
    /// Its tokens: the first, and how many.
    tokens: (u64, u64),
}

impl Writer {
    /// A trace to be, of an engine that shows so much, written in a folder that nobody else writes to.
    ///
    /// # Errors
    ///
    /// When the folder cannot be written.
    pub fn new(own: &Path, sight: Sight) -> Result<Writer, StoreError> {
        let open = || {
            let folder = folder_for_others().prefix(UNFINISHED).tempdir_in(own)?;
            let create = |name: &str| File::create(folder.path().join(name)).map(BufWriter::new);
            let columns = columns(sight, 0).map(|(name, ..)| create(name)).collect::<io::Result<_>>()?;
            Ok((create(LINES)?, columns, folder))
        };
        let (samples, columns, folder) =
            open().map_err(|error| StoreError::Write { path: own.to_owned(), error })?;
        Ok(Writer {
            own: own.to_owned(),
            folder,
            samples,
            sight,
            columns,
            candidates: None,
            entries: Vec::new(),
            next: (0, 0),
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
            tokens: sample.steps.iter().map(|step| step.token.id).collect(),
            text: sample.text.clone(),
            finish: sample.finish,
            scores,
            root: sample.root(self.sight),
        };
        let written = self.write(&line, sample);
        written.map_err(|error| self.failed(error))
    }

    fn write(&mut self, line: &Line, sample: &Sample) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        self.samples.write_all(&text)?;
        let (start, first) = self.next;
        let (bytes, tokens) = (text.len() as u64, sample.steps.len() as u64);
        let Line { item, root, .. } = *line;
        self.entries.push(Entry { item, root, line: (start, bytes), tokens: (first, tokens) });
        self.next = (start + bytes, first + tokens);
        let (sight, item) = (self.sight, sample.item);
        for Step { token, .. } in &sample.steps {
            let kept = token.kept().len();
            let candidates = *self.candidates.get_or_insert(kept);
            if kept != candidates || !token.seen.is_of(sight) {
                return Err(io::Error::other(format!(
                    "the engine shows {} with {kept} candidates of a token of item {item}, and of others {sight} with \
                     {candidates}",
                    token.sight()
                )));
            }
            let candidates = |tokens: &mut BufWriter<File>, logits: &mut BufWriter<File>| {
                token.kept().iter().try_for_each(|Candidate { token, logit }| {
                    tokens.write_all(&token.to_le_bytes())?;
                    logits.write_all(&logit.to_le_bytes())
                })
            };
            match (&token.seen, &mut self.columns[..]) {
                (
                    Seen::Logits { digest, margin, probability, .. },
                    [digests, tokens, logits, margins, probabilities],
                ) => {
                    digests.write_all(&digest.0)?;
                    candidates(tokens, logits)?;
                    margins.write_all(&margin.to_le_bytes())?;
                    probabilities.write_all(&probability.to_le_bytes())?;
                }
                (Seen::Top(_), [tokens, logits]) => candidates(tokens, logits)?,
                (Seen::Nothing, []) => {}
                _ => unreachable!("there are the columns of what is seen"),
            }
        }
        Ok(())
    }

    /// Puts the trace into a store on the same file system, and says what it is known by.
    ///
    /// # Errors
    ///
    /// When the store cannot be written.
    pub fn finish(mut self, store: &Path) -> Result<Written, StoreError> {
        let written = self.join().map_err(|error| self.failed(error))?;
        place(self.folder.path(), &self.own, store, written.digest)?;
        Ok(written)
    }

    /// The folder that is written to goes with the writer: it is named by the one that it lies in.
    fn failed(&self, error: io::Error) -> StoreError {
        StoreError::Write { path: self.own.clone(), error }
    }

    fn join(&mut self) -> io::Result<Written> {
        self.entries.sort_by_key(|entry| entry.item);
        let folder = self.folder.path();
        let candidates = self.candidates.unwrap_or(0);
        let mut file = BufWriter::new(File::create(folder.join(TOKENS))?);
        file.write_all(&header(self.sight, self.next.1 as usize, candidates))?;
        for ((name, _, size, width), column) in columns(self.sight, candidates).zip(&mut self.columns) {
            column.flush()?;
            let of_token = (size * width) as u64;
            let pieces =
                self.entries.iter().map(|entry| (entry.tokens.0 * of_token, entry.tokens.1 * of_token));
            rearrange(&folder.join(name), pieces, &mut file)?;
        }
        whole(file)?;
        self.samples.flush()?;
        let mut file = BufWriter::new(File::create(folder.join(SAMPLES))?);
        rearrange(&folder.join(LINES), self.entries.iter().map(|entry| entry.line), &mut file)?;
        whole(file)?;
        let tree = MerkleTree::over(self.entries.iter().map(|entry| entry.root).collect());
        let mut file = BufWriter::new(File::create(folder.join(TREE))?);
        tree.nodes().try_for_each(|node| file.write_all(&node.0))?;
        whole(file)?;

        Ok(Written { digest: digest(folder)?, root: tree.root() })
    }
}

/// Moves a whole trace to its place in a store, which others may write to at the same time, unless it is there. What is damaged
/// there goes by way of a folder that nobody else writes to.
fn place(whole: &Path, own: &Path, store: &Path, trace: Digest) -> Result<(), StoreError> {
    /// So often somebody else may be faster.
    const TRIES: usize = 8;
    let (traces, place) = (store.join(TRACES), folder(store, trace));
    let moved = || {
        fs::create_dir_all(&traces)?;
        let mut tries = 0;
        // An equal trace may be there, of another cell, another part or an earlier try, unless something has befallen it since.
        while verify(store, trace).is_err() {
            match fs::rename(whole, &place) {
                Ok(()) => break,
                Err(error) if tries == TRIES => return Err(error),
                Err(_) => tries += 1,
            }
            // Somebody else was faster, or a server has lost its answer and not the trace: what is there decides.
            if verify(store, trace).is_err() && place.exists() {
                // In one step: a sound trace that somebody else puts there meanwhile must not go with it.
                let aside = folder_for_others().prefix(UNFINISHED).tempdir_in(own)?;
                match fs::rename(&place, aside.path().join(TRACES)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
        }
        Ok(())
    };
    moved().map_err(|error| StoreError::Write { path: traces.clone(), error })
}

/// Writes what is left of a file. Whether it reaches the disk before the power fails is not waited for: what did not is
/// seen by its digest, and made again.
fn whole(file: BufWriter<File>) -> io::Result<()> {
    file.into_inner().map(drop).map_err(io::IntoInnerError::into_error)
}

/// Removes what runs that were killed have left half-written in a folder.
///
/// # Errors
///
/// When it cannot be removed.
pub fn sweep(folder: &Path) -> Result<(), StoreError> {
    let sweep = || {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            if !entry.file_name().to_string_lossy().starts_with(UNFINISHED) {
                continue;
            }
            if entry.file_type()?.is_dir() {
                fs::remove_dir_all(entry.path())?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        io::Result::Ok(())
    };
    match sweep() {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::Write { path: folder.to_owned(), error })
        }
        _ => Ok(()),
    }
}

/// The file of a trace's tokens.
pub(super) fn tokens_file(store: &Path, trace: Digest) -> PathBuf {
    folder(store, trace).join(TOKENS)
}

/// Copies a trace into another store by way of a folder that nobody else writes to, unless it is there.
///
/// # Errors
///
/// When it is not what was written, or cannot be copied.
pub fn copy(from: &Path, own: &Path, to: &Path, trace: Digest) -> Result<(), CopyError> {
    if verify(to, trace).is_ok() {
        return Ok(());
    }
    let source = folder(from, trace);
    let copy = || {
        let copied = folder_for_others().prefix(UNFINISHED).tempdir_in(own)?;
        for name in FILES {
            fs::copy(source.join(name), copied.path().join(name))?;
        }
        Ok((digest(copied.path())?, copied))
    };
    let copied = copy().map_err(|error| StoreError::Write { path: own.to_owned(), error });
    let (found, copied) = copied.map_err(CopyError::Write)?;
    if found != trace {
        return Err(TraceError::Changed { path: source, found }.into());
    }
    place(copied.path(), own, to, trace).map_err(CopyError::Write)
}

/// Why a trace cannot be copied.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// It is not what was written.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// The other store cannot be written.
    #[error(transparent)]
    Write(StoreError),
}

impl crate::source::Blame for CopyError {
    fn is_environment(&self) -> bool {
        matches!(self, CopyError::Write(_))
    }
}

fn folder(store: &Path, trace: Digest) -> PathBuf {
    store.join(TRACES).join(trace.to_string())
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
fn header(sight: Sight, tokens: usize, candidates: usize) -> Vec<u8> {
    let mut tensors = Map::new();
    if sight != Sight::Logits {
        tensors.insert("__metadata__".to_owned(), json!({ "sight": sight, "tokens": tokens.to_string() }));
    }
    let mut end = 0;
    for (name, kind, size, width) in columns(sight, candidates) {
        let shape = if matches!(name, "margin" | "probability") { vec![tokens] } else { vec![tokens, width] };
        let start = end;
        end += tokens * width * size;
        tensors
            .insert(name.to_owned(), json!({ "dtype": kind, "shape": shape, "data_offsets": [start, end] }));
    }
    let mut json = Value::Object(tensors).to_string();
    // Readers map the file: its numbers begin where 8 divides the place.
    json.extend(std::iter::repeat_n(' ', json.len().next_multiple_of(8) - json.len()));
    [&(json.len() as u64).to_le_bytes()[..], json.as_bytes()].concat()
}

/// Of a trace's files: of the lines that `sha256sum` prints for them.
fn digest(folder: &Path) -> io::Result<Digest> {
    let mut lines = String::new();
    for name in FILES {
        lines += &format!("{}  {name}\n", super::file_digest(&folder.join(name))?);
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
    let path = folder(store, expected);
    match digest(&path) {
        Ok(found) if found == expected => Ok(()),
        Ok(found) => Err(TraceError::Changed { path, found }),
        Err(error) => Err(TraceError::Read { path, error }),
    }
}

/// The lines of a trace, any of which can be read.
///
/// # Errors
///
/// When they cannot be read.
pub fn lines(store: &Path, trace: Digest) -> Result<Lines<Line>, LinesError> {
    Lines::open(&folder(store, trace).join(SAMPLES))
}

/// Reads a trace item by item, each with what its tokens were chosen from.
pub struct Reader {
    path: PathBuf,
    /// How many tokens the file has, how much is seen of each, how many candidates, and where each column begins.
    tokens: usize,
    sight: Sight,
    candidates: usize,
    columns: Vec<u64>,
    /// What is read next: the line's number, and its first token.
    line: usize,
    token: usize,
    /// The two files that are read side by side.
    samples: BufReader<Again>,
    table: Again,
}

/// A file that can be closed between two reads, and goes on where it was: what is buffered of it is not read again.
struct Again {
    path: PathBuf,
    place: u64,
    file: Option<File>,
}

impl Again {
    fn new(path: PathBuf) -> Again {
        Again { path, place: 0, file: None }
    }

    fn read_at(&mut self, place: u64, bytes: &mut [u8]) -> io::Result<()> {
        let file = self.open()?;
        file.seek(SeekFrom::Start(place))?;
        file.read_exact(bytes)
    }

    /// The file, which is at its place if it has been closed.
    fn open(&mut self) -> io::Result<&mut File> {
        if self.file.is_none() {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(self.place))?;
            self.file = Some(file);
        }
        Ok(self.file.as_mut().expect("it has just been opened"))
    }
}

impl io::Read for Again {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        let read = self.open()?.read(bytes)?;
        self.place += read as u64;
        Ok(read)
    }
}

impl Reader {
    /// Of the trace of this digest in a store. Whether it is what was written [`verify`] tells.
    ///
    /// # Errors
    ///
    /// When it is not there, or the file of tokens has another form.
    pub fn open(store: &Path, digest: Digest) -> Result<Reader, TraceError> {
        let path = folder(store, digest);
        let file = path.join(TOKENS);
        let read = |error| TraceError::Read { path: file.clone(), error };
        let Shape { begin, sight, tokens, candidates } = form(&mut File::open(&file).map_err(read)?)
            .map_err(|error| match error {
                Form::Io(error) => read(error),
                Form::Wrong(problem) => TraceError::Wrong { path: file.clone(), problem },
            })?;
        let mut place = begin;
        let starts = columns(sight, candidates).map(|(_, _, size, width)| {
            let start = place;
            place += (tokens * width * size) as u64;
            start
        });
        let columns = starts.collect();
        let samples = BufReader::new(Again::new(path.join(SAMPLES)));
        let table = Again::new(file);
        Ok(Reader { path, tokens, sight, candidates, columns, line: 0, token: 0, samples, table })
    }

    /// How much its engine showed.
    pub fn sight(&self) -> Sight {
        self.sight
    }

    /// Closes its files until the next item is asked for: more traces may be read side by side than a process may have
    /// files open.
    pub fn pause(&mut self) {
        self.samples.get_mut().file = None;
        self.table.file = None;
    }

    /// The next item, which must have this number.
    ///
    /// # Errors
    ///
    /// When it has another one, or cannot be read.
    pub fn expect(&mut self, item: u64) -> Result<(Line, Vec<Token>), TraceError> {
        match self.item()? {
            Some(found) if found.0.item == item => Ok(found),
            Some((found, _)) => Err(self.wrong(item, &format!("item {} stands in its place", found.item))),
            None => Err(self.wrong(item, "it ends before this")),
        }
    }

    /// The end of the trace, which must have been reached.
    ///
    /// # Errors
    ///
    /// When another item follows.
    pub fn end(&mut self) -> Result<(), TraceError> {
        match self.item()? {
            None => Ok(()),
            Some((line, _)) => Err(self.wrong(line.item, "there is no such question")),
        }
    }

    /// What is said of an item that cannot be believed.
    pub fn wrong(&self, item: u64, problem: &str) -> TraceError {
        TraceError::Wrong { path: self.path.join(SAMPLES), problem: format!("item {item}: {problem}") }
    }

    fn item(&mut self) -> Result<Option<(Line, Vec<Token>)>, TraceError> {
        let path = self.path.join(SAMPLES);
        let mut text = String::new();
        let read = self.samples.read_line(&mut text);
        read.map_err(|error| TraceError::Read { path: path.clone(), error })?;
        self.line += 1;
        let left = self.tokens - self.token;
        if text.is_empty() {
            return match left {
                0 => Ok(None),
                left => {
                    let problem = format!("it ends {left} tokens before {TOKENS} does");
                    Err(TraceError::Wrong { path, problem })
                }
            };
        }
        let line: Line = serde_json::from_str(&text).map_err(|error| TraceError::Wrong {
            path: path.clone(),
            problem: format!("line {}: {error}", self.line),
        })?;
        if line.tokens.len() > left {
            let problem = format!("line {}: it has more tokens than {TOKENS}", self.line);
            return Err(TraceError::Wrong { path, problem });
        }
        let tokens = self
            .chosen(&line.tokens)
            .map_err(|error| TraceError::Read { path: self.path.join(TOKENS), error })?;
        self.token += tokens.len();
        Ok(Some((line, tokens)))
    }

    /// These tokens, which are the next ones, with what each was chosen from.
    fn chosen(&mut self, tokens: &[u32]) -> io::Result<Vec<Token>> {
        let mut read = Vec::new();
        for ((_, _, size, width), start) in columns(self.sight, self.candidates).zip(&self.columns) {
            let of_token = size * width;
            let mut bytes = vec![0; tokens.len() * of_token];
            self.table.read_at(start + (self.token * of_token) as u64, &mut bytes)?;
            read.push(bytes);
        }
        let width = self.candidates;
        let candidates = |ids: &[u8], logits: &[u8], at: usize| {
            let kept = word_at(ids, at * width, width).zip(word_at(logits, at * width, width));
            kept.map(|(token, logit)| Candidate { token, logit: f32::from_bits(logit) }).collect()
        };
        let number = |column: &[u8], at| word_at(column, at, 1).next().map_or(0.0, f32::from_bits);
        let seen = |at: usize| match &read[..] {
            [digests, ids, logits, margins, probabilities] => Seen::Logits {
                digest: Digest(digests[32 * at..][..32].try_into().expect("a digest has 32 bytes")),
                candidates: candidates(ids, logits, at),
                margin: number(margins, at),
                probability: number(probabilities, at),
            },
            [ids, logits] => Seen::Top(candidates(ids, logits, at)),
            _ => Seen::Nothing,
        };
        Ok(tokens.iter().enumerate().map(|(at, &id)| Token { id, seen: seen(at) }).collect())
    }
}

/// So many words of a column, from one on.
fn word_at(column: &[u8], first: usize, count: usize) -> impl Iterator<Item = u32> {
    let (words, _) = column.as_chunks::<4>();
    words[first..][..count].iter().map(|word| u32::from_le_bytes(*word))
}

impl Iterator for Reader {
    type Item = Result<(Line, Vec<Token>), TraceError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.item().transpose()
    }
}

/// The tree of a trace on disk, of which only those nodes are read that are asked for.
pub struct TreeFile {
    path: PathBuf,
    file: File,
    /// How many nodes each level has, the leaves first.
    levels: Vec<u64>,
}

impl TreeFile {
    /// Of the trace of this digest in a store.
    ///
    /// # Errors
    ///
    /// When it is not there, or has not the size of a tree.
    pub fn open(store: &Path, digest: Digest) -> Result<TreeFile, TraceError> {
        let path = folder(store, digest).join(TREE);
        let read = |error| TraceError::Read { path: path.clone(), error };
        let file = File::open(&path).map_err(read)?;
        let nodes = file.metadata().map_err(read)?.len() / 32;
        // Above its leaves a tree has one node less than leaves, and a few that have risen as they are.
        let mut leaves = nodes.saturating_sub(64) / 2..=nodes.div_ceil(2);
        let leaves = leaves.find(|&leaves| MerkleTree::levels_over(leaves).iter().sum::<u64>() == nodes);
        match leaves {
            Some(leaves) => Ok(TreeFile { levels: MerkleTree::levels_over(leaves), path, file }),
            None => Err(TraceError::Wrong { path, problem: format!("no tree has {nodes} nodes") }),
        }
    }

    /// One value for all items.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn root(&mut self) -> Result<Digest, TraceError> {
        match self.levels[0] {
            0 => Ok(MerkleTree::over(Vec::new()).root()),
            _ => self.node(self.levels.len() - 1, 0),
        }
    }

    fn node(&mut self, level: usize, at: u64) -> Result<Digest, TraceError> {
        let before: u64 = self.levels[..level].iter().sum();
        let mut node = [0; 32];
        let read = self.file.seek(SeekFrom::Start(32 * (before + at)));
        read.and_then(|_| self.file.read_exact(&mut node))
            .map_err(|error| TraceError::Read { path: self.path.clone(), error })?;
        Ok(Digest(node))
    }

    /// The first item, counted from 0, whose tokens or logits differ from those in another tree, and how many nodes of
    /// each were read to find it.
    ///
    /// # Errors
    ///
    /// When a node cannot be read.
    pub fn first_difference(&mut self, other: &mut TreeFile) -> Result<Option<(u64, usize)>, TraceError> {
        if self.levels != other.levels {
            // Trees of several sizes share no nodes but leaves: they are compared one by one.
            let shared = self.levels[0].min(other.levels[0]);
            for at in 0..shared {
                if self.node(0, at)? != other.node(0, at)? {
                    return Ok(Some((at, at as usize + 1)));
                }
            }
            return Ok(Some((shared, shared as usize)));
        }
        let (mut level, mut at, mut read) = (self.levels.len() - 1, 0, 1);
        if self.levels[0] == 0 || self.node(level, 0)? == other.node(level, 0)? {
            return Ok(None);
        }
        while level > 0 {
            level -= 1;
            // If the left child is the same, the right one is not.
            let left = 2 * at;
            let is_left = left + 1 == self.levels[level] || {
                read += 1;
                self.node(level, left)? != other.node(level, left)?
            };
            at = if is_left { left } else { left + 1 };
        }
        Ok(Some((at, read)))
    }
}

enum Form {
    Io(io::Error),
    Wrong(String),
}

/// What a file of tokens holds.
struct Shape {
    /// Where its numbers begin.
    begin: u64,
    sight: Sight,
    tokens: usize,
    candidates: usize,
}

/// Reads the header of a file of tokens.
fn form(file: &mut File) -> Result<Shape, Form> {
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
    let told = &json["__metadata__"];
    let (sight, tokens, candidates) = if told.is_null() {
        (Some(Sight::Logits), shape(0), shape(1))
    } else {
        let tokens = told["tokens"].as_str().and_then(|tokens| tokens.parse().ok());
        (Sight::deserialize(&told["sight"]).ok(), tokens, shape(1).or(Some(0)))
    };
    let (Some(sight), Some(tokens), Some(candidates)) = (sight, tokens, candidates) else {
        return Err(Form::Wrong(
            "it does not say how many tokens it holds, or what is seen of them".to_owned(),
        ));
    };
    // So large a number fits into no file, and must not be reckoned with.
    let per_token = candidates.saturating_mul(8).saturating_add(40);
    if tokens.checked_mul(per_token).is_none_or(|bytes| bytes > isize::MAX as usize) {
        return Err(Form::Wrong(format!("it would have {tokens} tokens")));
    }
    if start != header(sight, tokens, candidates) {
        return Err(Form::Wrong("its tensors have other forms than this version writes".to_owned()));
    }
    Ok(Shape { begin: start.len() as u64, sight, tokens, candidates })
}
