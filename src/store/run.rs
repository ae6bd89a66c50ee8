//! A run's folder: what the run is about, its questions, and every cell that is done.
//!
//! | file | what it holds |
//! |---|---|
//! | `run.json` | [`About`]: what runs and what must hold, written before the first cell |
//! | `items.jsonl` | a [`Question`] a line |
//! | `vocabulary.json` | the text of every token |
//! | `calibrations/NAME.jsonl` | what a cell's name calls `calibration=NAME`, as its file said it |
//! | `programs/NAME.txt` | what a cell's name calls `program:NAME`, as its file said it |
//! | `cells/CELL.json` | [`Record`]: what became of a cell, written after its trace |
//! | `cells/CELL.partial` | what is done of a cell that still runs, see [`super::partial`] |
//! | `traces/DIGEST/` | what cells left behind, see [`super::trace`] |
//! | `part.json` | [`PartOf`], where it is a part of a run: its traces lie in the folder that it lies in, with those of all others |
//! | `part-*/` | the parts of the run, each a run's folder |
//! | `jobs/` | what a scheduler runs of it, and what that said |
//!
//! Nothing is believed that cannot be checked: `run.json` and the cells hold the SHA-256 of what they say, `run.json` those
//! of the questions and the vocabulary, and a cell that of its trace.

use std::{
    collections::HashSet,
    fmt,
    fs::{self, File},
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::value::RawValue;
use sha2::{Digest as _, Sha256};

use super::{
    StoreError,
    lines::{Lines, LinesError},
    trace::{self, TreeFile, UNFINISHED},
};
use crate::{
    cell::{Cell, calibration, program},
    digest::Digest,
    numerics::{
        functions::{Functions, program::Program},
        precision::{Calibration, Precision},
    },
    record::{About, Explained, PART, PROGRAM, Part, Record, SelfTested, Took},
    source::{Blame, Problems},
    suite::question::Question,
};

/// Of the form of all files.
const FORM: u32 = 2;

/// What runs, and what must hold.
pub const RUN: &str = "run.json";
/// Why two cells part, if that was found out.
const CAUSE: &str = "cause.json";
const SELFTEST: &str = "selftest.json";
/// Every question.
pub const ITEMS: &str = "items.jsonl";
const VOCABULARY: &str = "vocabulary.json";
const CELLS: &str = "cells";
const PARTIAL: &str = ".partial";
const SERVERS: &str = "servers";
const CALIBRATIONS: &str = "calibrations";
const PROGRAMS: &str = "programs";
const PART_OF: &str = "part.json";
/// What a scheduler runs, and what that said.
pub const JOBS: &str = "jobs";
const LOCK: &str = ".lock";
/// How the names of all files begin that are written of a run when it has been judged.
const REPORT: &str = "report.";

/// A file that holds the digest of what it says.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Sealed<'a> {
    form: u32,
    program: String,
    /// As text: a digest in other letters is another byte on the disk.
    sha256: String,
    #[serde(borrow)]
    content: &'a RawValue,
}

/// Why a run's folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// There is none.
    #[error("there is no run in {}: name the folder that `reprocheck run` wrote, which holds a {RUN}", .0.display())]
    None(PathBuf),
    /// There is one where another was to begin.
    #[error(
        "{} holds a run already: continue it with --resume, replace it with --fresh, or name another folder with --out",
        .0.display()
    )]
    Exists(PathBuf),
    /// Files that no run has written.
    #[error(
        "{} holds {file}, which no run has written: name an empty folder with --out, or one that is not there",
        .folder.display()
    )]
    Foreign {
        /// Where.
        folder: PathBuf,
        /// What.
        file: String,
    },
    /// Somebody else is at it.
    #[error("another process is writing to {}: let it finish, or name another folder with --out", .0.display())]
    Busy(PathBuf),
    /// A file that is not what was written.
    #[error("{}: {problem}; {way_out}", .path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// What to do.
        way_out: &'static str,
    },
    /// A run of something else.
    #[error("{} holds another run: {difference}; replace it with --fresh, or name another folder with --out", .folder.display())]
    Other {
        /// The folder.
        folder: PathBuf,
        /// What is other.
        difference: String,
    },
    /// The file system would not.
    #[error("cannot read {}: {error}; see that it may be read", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
    /// A trace that is not what was written.
    #[error(transparent)]
    Trace(#[from] trace::TraceError),
    /// Its questions cannot be read.
    #[error(transparent)]
    Lines(#[from] LinesError),
    /// The file system would not.
    #[error(transparent)]
    Write(#[from] StoreError),
}

impl Blame for RunError {
    fn is_environment(&self) -> bool {
        matches!(self, RunError::Read { .. } | RunError::Write(_) | RunError::Busy(_))
    }
}

const AGAIN: &str = "replace the run with --fresh";
const CELL_AGAIN: &str = "run it again with --resume";

/// A run's folder, open for reading.
#[derive(Debug)]
pub struct Run {
    /// Where.
    pub folder: PathBuf,
    /// The folder whose traces are its own: the same, or the one that a part lies in.
    pub store: PathBuf,
    /// What it is about.
    pub about: About,
}

/// Which part of a run it is, and what that took.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartOf {
    /// Which.
    pub part: Part,
    /// So far.
    pub took: Took,
}

/// A run's folder that nobody else writes to meanwhile.
#[derive(Debug)]
pub struct Locked {
    folder: PathBuf,
    store: PathBuf,
    /// Held until it is dropped.
    _lock: File,
}

/// Questions on their way into a folder: what a run asks is known before it is known whether the run is the one there.
pub struct Draft {
    file: tempfile::NamedTempFile,
    /// Of the file.
    pub items: Digest,
    /// How many there are.
    pub questions: u64,
}

impl Locked {
    /// A folder, which is made if it is not there, and freed of what a killed run has left half-written.
    ///
    /// # Errors
    ///
    /// When it cannot be written, or somebody else writes there.
    pub fn new(folder: &Path) -> Result<Locked, RunError> {
        let write = |error| StoreError::Write { path: folder.to_owned(), error };
        fs::create_dir_all(folder).map_err(write)?;
        // A run that was killed before it had begun has left no more than this, and its parts may have.
        let is_ours = |name: &str| {
            [LOCK, ITEMS, VOCABULARY, PART_OF, JOBS].contains(&name)
                || [UNFINISHED, PART].iter().any(|start| name.starts_with(start))
                || name == trace::TRACES && !parts(folder).is_empty()
        };
        if !folder.join(RUN).exists() {
            for entry in fs::read_dir(folder).map_err(write)? {
                let file = entry.map_err(write)?.file_name().to_string_lossy().into_owned();
                if !is_ours(&file) {
                    return Err(RunError::Foreign { folder: folder.to_owned(), file });
                }
            }
        }
        let lock = File::create(folder.join(LOCK)).map_err(write)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return Err(RunError::Busy(folder.to_owned())),
            Err(fs::TryLockError::Error(error)) => return Err(write(error).into()),
        }
        trace::sweep(folder)?;
        Ok(Locked { folder: folder.to_owned(), store: store_of(folder), _lock: lock })
    }

    /// The folder of a part of the run in this one.
    ///
    /// # Errors
    ///
    /// As [`Locked::new`].
    pub fn part(whole: &Path, part: Part) -> Result<Locked, RunError> {
        let locked = Locked::new(&whole.join(part.folder()))?;
        if locked.part_of()?.is_none() {
            write_sealed(&locked.folder.join(PART_OF), &PartOf { part, took: Took::default() })?;
        }
        Ok(Locked { store: store_of(&locked.folder), ..locked })
    }

    /// Which part it is, if it is one.
    ///
    /// # Errors
    ///
    /// When that is not what was written.
    pub fn part_of(&self) -> Result<Option<PartOf>, RunError> {
        kept_in(&self.folder, PART_OF, AGAIN)
    }

    /// Writes what a part has taken so far.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn took(&self, part: PartOf) -> Result<(), StoreError> {
        write_sealed(&self.folder.join(PART_OF), &part)
    }

    /// Writes questions to a file that is not the run's yet.
    ///
    /// # Errors
    ///
    /// When it cannot be written, or a question cannot be made.
    pub fn draft<E: From<StoreError>>(
        &self,
        questions: impl Iterator<Item = Result<Question, E>>,
    ) -> Result<Draft, E> {
        let write = |error| E::from(StoreError::Write { path: self.folder.join(ITEMS), error });
        let mut file = super::temporary().prefix(UNFINISHED).tempfile_in(&self.folder).map_err(write)?;
        let (mut hasher, mut count) = (Sha256::new(), 0);
        let mut out = BufWriter::new(&mut file);
        for question in questions {
            let mut line = serde_json::to_vec(&question?).map_err(|error| write(error.into()))?;
            line.push(b'\n');
            hasher.update(&line);
            out.write_all(&line).map_err(write)?;
            count += 1;
        }
        out.flush().map_err(write)?;
        drop(out);
        Ok(Draft { file, items: Digest(hasher.finalize().into()), questions: count })
    }

    /// Is there a run?
    pub fn holds_a_run(&self) -> bool {
        self.folder.join(RUN).exists()
    }

    /// Begins a run. What another one has left there is removed.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn begin(&self, about: About, draft: Draft, vocabulary: Option<&[u8]>) -> Result<Run, RunError> {
        self.clear()?;
        let path = self.folder.join(ITEMS);
        draft.file.persist(&path).map_err(|error| StoreError::Write { path, error: error.error })?;
        if let Some(vocabulary) = vocabulary {
            super::write(&self.folder.join(VOCABULARY), vocabulary)?;
        }
        self.about(about)
    }

    /// Begins a run about the same as another one, in a folder that is clear.
    ///
    /// # Errors
    ///
    /// When the one cannot be read, or the other not be written.
    pub fn adopt(&self, run: &Run) -> Result<Run, RunError> {
        for name in [ITEMS, VOCABULARY] {
            let (from, to) = (run.folder.join(name), self.folder.join(name));
            match fs::read(&from) {
                Ok(bytes) => super::write(&to, &bytes)?,
                Err(error) if name == VOCABULARY && error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(RunError::Read { path: from, error }),
            }
        }
        self.about(run.about.clone())
    }

    /// Removes what a run has left there, but for traces that others may need.
    ///
    /// # Errors
    ///
    /// When it cannot be removed.
    pub fn clear(&self) -> Result<(), StoreError> {
        // The file that makes it a run goes first and comes last.
        remove(&self.folder.join(RUN))?;
        self.forget_reports()?;
        remove(&self.folder.join(CAUSE))?;
        remove(&self.folder.join(SELFTEST))?;
        let is_cell = |name: &str| name.ends_with(".json") || name.ends_with(PARTIAL);
        let is_trace = |name: &str| name.parse::<Digest>().is_ok();
        self.remove_all(CELLS, &is_cell)?;
        self.remove_all(SERVERS, &|name| name.ends_with(".log"))?;
        self.remove_all(CALIBRATIONS, &|name| name.ends_with(".jsonl"))?;
        // Those of parts are not this run's alone.
        if self.store != self.folder || !parts(&self.folder).is_empty() {
            return Ok(());
        }
        self.remove_all(trace::TRACES, &is_trace)
    }

    /// A report of what was there is none of what will be.
    fn forget_reports(&self) -> Result<(), StoreError> {
        self.remove_all("", &|name| name.starts_with(REPORT))
    }

    /// Removes what runs write to one of their folders, and the folder if nothing else is there.
    fn remove_all(&self, folder: &str, is_ours: &dyn Fn(&str) -> bool) -> Result<(), StoreError> {
        let folder = self.folder.join(folder);
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries.map_err(|error| StoreError::Write { path: folder.clone(), error })?,
        };
        for entry in entries {
            let path = entry.map_err(|error| StoreError::Write { path: folder.clone(), error })?.path();
            if path.file_name().is_some_and(|name| is_ours(&name.to_string_lossy())) {
                remove(&path)?;
            }
        }
        // Whoever has put something else there keeps it; the run's own folder holds the lock.
        let _ = fs::remove_dir(&folder);
        Ok(())
    }

    /// Goes on with the run that is there, if it does this work; what must hold may have changed.
    ///
    /// # Errors
    ///
    /// When it is another run, or damaged.
    pub fn resume(&self, about: About) -> Result<Run, RunError> {
        let old = Run::open(&self.folder)?;
        if let Some(difference) = old.about.difference(&about) {
            return Err(RunError::Other { folder: self.folder.clone(), difference });
        }
        self.forget_reports()?;
        self.about(about)
    }

    fn about(&self, about: About) -> Result<Run, RunError> {
        write_sealed(&self.folder.join(RUN), &about)?;
        // Whoever computes a cell again needs them, wherever the folder is then.
        for kept in kept(&about.cells) {
            if let Some(text) = kept.text() {
                super::write(&kept.path(&self.folder), text.as_bytes())?;
            }
        }
        Ok(Run { folder: self.folder.clone(), store: self.store.clone(), about })
    }

    /// Writes why two cells part.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn explain(&self, explained: &Explained) -> Result<(), StoreError> {
        write_sealed(&self.folder.join(CAUSE), explained)
    }

    /// Writes what its gates see of seeded faults.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn tested(&self, tested: &SelfTested) -> Result<(), StoreError> {
        write_sealed(&self.folder.join(SELFTEST), tested)
    }

    /// Writes what became of a cell, whose trace is there if it is done.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn record(&self, record: &Record) -> Result<(), StoreError> {
        write_sealed(&cell_file(&self.folder, record.cell()), record)?;
        self.forget_partial(record.cell())
    }

    /// Removes what is kept of a cell while it runs.
    ///
    /// # Errors
    ///
    /// When it cannot be removed.
    pub fn forget_partial(&self, cell: Cell) -> Result<(), StoreError> {
        remove(&partial_file(&self.folder, cell))
    }
}

impl Run {
    /// The run in a folder, whose files are what was written there.
    ///
    /// # Errors
    ///
    /// When there is none, or one of its files is damaged or of another version.
    pub fn open(folder: &Path) -> Result<Run, RunError> {
        let path = folder.join(RUN);
        if !path.exists() {
            return Err(RunError::None(folder.to_owned()));
        }
        let about: About = read_sealed(&path, AGAIN)?;
        for (name, expected) in [(ITEMS, Some(about.items)), (VOCABULARY, about.vocabulary)] {
            let Some(expected) = expected else { continue };
            let path = folder.join(name);
            let found =
                super::file_digest(&path).map_err(|error| RunError::Read { path: path.clone(), error })?;
            if found != expected {
                let problem = format!("it is not what was written: its digest is {found}");
                return Err(RunError::Damaged { path, problem, way_out: AGAIN });
            }
        }
        for kept in kept(&about.cells).into_iter().filter(|kept| kept.text().is_none()) {
            let path = kept.path(folder);
            let text = match fs::read_to_string(&path) {
                // Nothing but an engine needs it, and that says so.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                read => read.map_err(|error| RunError::Read { path: path.clone(), error })?,
            };
            let problem = match kept.read(&path.display().to_string(), &text) {
                Ok(read) if read == kept => continue,
                Ok(read) => format!("it is not what was written: it is {read}"),
                Err(problems) => format!("it is not what was written: {problems}"),
            };
            return Err(RunError::Damaged { path, problem, way_out: AGAIN });
        }
        Ok(Run { folder: folder.to_owned(), store: store_of(folder), about })
    }

    /// Of the file that says what it is about.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn digest(&self) -> Result<Digest, RunError> {
        let path = self.folder.join(RUN);
        super::file_digest(&path).map_err(|error| RunError::Read { path, error })
    }

    /// What became of cells: nothing where one has not run, and an error where its file or its trace is not what was
    /// written.
    pub fn records(&self, cells: &[Cell]) -> Vec<(Cell, Result<Option<Record>, RunError>)> {
        // Many cells may have one trace, which is read once.
        let mut sound = HashSet::new();
        cells.iter().map(|cell| (*cell, self.record(*cell, &mut sound))).collect()
    }

    fn record(&self, cell: Cell, sound: &mut HashSet<Digest>) -> Result<Option<Record>, RunError> {
        let path = cell_file(&self.folder, cell);
        if !path.exists() {
            return Ok(None);
        }
        let record: Record = read_sealed(&path, CELL_AGAIN)?;
        if record.cell() != cell {
            let problem = format!("it is about {}", record.cell());
            return Err(RunError::Damaged { path, problem, way_out: CELL_AGAIN });
        }
        if let Record::Done(done) = &record {
            if !sound.contains(&done.trace) {
                trace::verify(&self.store, done.trace)?;
                sound.insert(done.trace);
            }
            let root = TreeFile::open(&self.store, done.trace)?.root()?;
            if root != done.root {
                let problem = format!("it is not what was written: its trace has the root {root}");
                return Err(RunError::Damaged { path, problem, way_out: CELL_AGAIN });
            }
        }
        Ok(Some(record))
    }

    /// All questions, any of which can be read.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub fn questions(&self) -> Result<Lines<Question>, RunError> {
        Lines::open(&self.folder.join(ITEMS)).map_err(Into::into)
    }

    /// Why two cells part, if that was found out.
    ///
    /// # Errors
    ///
    /// When it is not what was written.
    pub fn explained(&self) -> Result<Option<Explained>, RunError> {
        kept_in(&self.folder, CAUSE, "remove it, or run `reprocheck bisect` again")
    }

    /// What its gates see of seeded faults, if that was found out.
    ///
    /// # Errors
    ///
    /// When it is not what was written.
    pub fn tested(&self) -> Result<Option<SelfTested>, RunError> {
        kept_in(&self.folder, SELFTEST, "remove it, or run with --selftest again")
    }

    /// Which part of a run it is, if it is one.
    ///
    /// # Errors
    ///
    /// When that is not what was written.
    pub fn part_of(&self) -> Result<Option<PartOf>, RunError> {
        kept_in(&self.folder, PART_OF, AGAIN)
    }

    /// The text of every token.
    ///
    /// # Errors
    ///
    /// When the vocabulary cannot be read.
    pub fn vocabulary(&self) -> Result<Vec<String>, RunError> {
        if self.about.vocabulary.is_none() {
            return Ok(Vec::new());
        }
        let path = self.folder.join(VOCABULARY);
        let read = fs::read(&path).and_then(|bytes| Ok(serde_json::from_slice(&bytes)?));
        read.map_err(|error| RunError::Read { path, error })
    }
}

/// What is kept beside the cells of a run, if it is.
fn kept_in<T: DeserializeOwned>(
    folder: &Path,
    name: &str,
    way_out: &'static str,
) -> Result<Option<T>, RunError> {
    match read_sealed(&folder.join(name), way_out) {
        Err(RunError::Read { error, .. }) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        read => read.map(Some),
    }
}

/// The folder whose traces are those of the run in a folder.
fn store_of(folder: &Path) -> PathBuf {
    if folder.join(PART_OF).exists() { folder.join("..") } else { folder.to_owned() }
}

/// The folders of the parts of the run in a folder, in the order of their numbers.
pub fn parts(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let is_part = |path: &PathBuf| {
        path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PART)) && path.is_dir()
    };
    let number = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let first = name[PART.len()..].split('-').next().and_then(|number| number.parse::<usize>().ok());
        (first, name)
    };
    let mut parts: Vec<_> = entries.filter(is_part).collect();
    parts.sort_by_cached_key(number);
    parts
}

/// The folder for what servers say that a run has started: it is nobody's evidence.
pub fn servers(folder: &Path) -> PathBuf {
    folder.join(SERVERS)
}

/// A file that is part of what a cell is, and is kept with its run.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum Kept {
    Calibration(Calibration),
    Program(Program),
}

impl Kept {
    fn path(self, folder: &Path) -> PathBuf {
        match self {
            Kept::Calibration(calibration) => folder.join(CALIBRATIONS).join(format!("{calibration}.jsonl")),
            Kept::Program(program) => folder.join(PROGRAMS).join(format!("{program}.txt")),
        }
    }

    fn text(self) -> Option<&'static str> {
        match self {
            Kept::Calibration(calibration) => calibration.text(),
            Kept::Program(program) => program.text(),
        }
    }

    /// What a text of its kind is.
    fn read(self, file: &str, text: &str) -> Result<Kept, Problems> {
        match self {
            Kept::Calibration(_) => calibration::read(file, text).map(Kept::Calibration),
            Kept::Program(_) => program::read(file, text).map(Kept::Program),
        }
    }
}

/// As the names of cells have it.
impl fmt::Display for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kept::Calibration(calibration) => write!(f, "calibration={calibration}"),
            Kept::Program(program) => Functions::Program(*program).fmt(f),
        }
    }
}

/// What is kept of these cells.
fn kept(cells: &[Cell]) -> Vec<Kept> {
    let of_cell = |cell: &Cell| {
        let calibrations = cell.compute.precision().map(Precision::calibrations).unwrap_or_default();
        let program = cell.compute.functions().program();
        calibrations.into_iter().map(Kept::Calibration).chain(program.map(Kept::Program)).collect::<Vec<_>>()
    };
    let mut seen = HashSet::new();
    cells.iter().flat_map(of_cell).filter(|kept| seen.insert(*kept)).collect()
}

/// The file of a cell.
pub fn cell_file(folder: &Path, cell: Cell) -> PathBuf {
    folder.join(CELLS).join(format!("{}.json", cell_name(cell)))
}

/// The file of what is done of a cell.
pub(super) fn partial_file(folder: &Path, cell: Cell) -> PathBuf {
    folder.join(CELLS).join(cell_name(cell) + PARTIAL)
}

/// The name of a cell, with what no file system minds; one that is too long for a file ends in the digest of all of it.
pub fn cell_name(cell: Cell) -> String {
    /// The name of a file may have 255 bytes.
    const MOST: usize = 255 - PARTIAL.len();
    let mut name = cell.to_string().replace('/', "_").replace(':', "~");
    if name.len() > MOST {
        let digest = Digest::of(name.as_bytes()).to_string();
        name.truncate(name.floor_char_boundary(MOST - digest.len() - 1));
        name = format!("{name}~{digest}");
    }
    name
}

/// The cell in a file, and the folder of its run.
///
/// # Errors
///
/// When it cannot be read.
pub fn cell_of_file(path: &Path) -> Result<(PathBuf, Cell), RunError> {
    let record: Record = read_sealed(path, CELL_AGAIN)?;
    let path = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let run = path.parent().and_then(Path::parent).map(Path::to_owned).unwrap_or_default();
    Ok((run, record.cell()))
}

/// Removes a file or a folder, if it is there.
fn remove(path: &Path) -> Result<(), StoreError> {
    let is_folder = path.symlink_metadata().is_ok_and(|about| about.is_dir());
    match if is_folder { fs::remove_dir_all(path) } else { fs::remove_file(path) } {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(StoreError::Write { path: path.to_owned(), error })
        }
        _ => Ok(()),
    }
}

fn write_sealed(path: &Path, content: &impl Serialize) -> Result<(), StoreError> {
    let bytes =
        sealed(content).map_err(|error| StoreError::Write { path: path.to_owned(), error: error.into() })?;
    super::write(path, &bytes)
}

/// A line that holds the digest of what it says.
pub(super) fn sealed(content: &impl Serialize) -> serde_json::Result<Vec<u8>> {
    let content = serde_json::value::to_raw_value(content)?;
    let sealed = Sealed {
        form: FORM,
        program: PROGRAM.to_owned(),
        sha256: Digest::of(content.get().as_bytes()).to_string(),
        content: &content,
    };
    let mut bytes = serde_json::to_vec(&sealed)?;
    bytes.push(b'\n');
    Ok(bytes)
}

fn read_sealed<T: DeserializeOwned>(path: &Path, way_out: &'static str) -> Result<T, RunError> {
    let bytes = fs::read(path).map_err(|error| RunError::Read { path: path.to_owned(), error })?;
    unsealed(&bytes).map_err(|problem| RunError::Damaged { path: path.to_owned(), problem, way_out })
}

/// What a line says, or why it is not believed.
pub(super) fn unsealed<T: DeserializeOwned>(line: &[u8]) -> Result<T, String> {
    let sealed: Sealed<'_> = serde_json::from_slice(line)
        .map_err(|error| format!("it is not what was written: it does not read ({error})"))?;
    if sealed.form != FORM || sealed.program != PROGRAM {
        return Err(format!(
            "{} wrote it, in form {}, and can read it; this is {PROGRAM}, which reads form {FORM}",
            sealed.program, sealed.form
        ));
    }
    let found = Digest::of(sealed.content.get().as_bytes()).to_string();
    if found != sealed.sha256 {
        return Err(format!(
            "it is not what was written: its content has the digest {found}, and it says {}",
            sealed.sha256
        ));
    }
    serde_json::from_str(sealed.content.get()).map_err(|error| format!("it does not read ({error})"))
}
