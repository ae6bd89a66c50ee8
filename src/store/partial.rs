//! What is done of a cell that still runs: a line for each group of items.
//!
//! A line outlives the process as soon as it is written, because the system has it then. It is not waited for until the disk has
//! it too: when the power fails, the last lines may be lost or damaged, and the items of those run again.
//!
//! The cell alone decides which groups there are and in which order they run, so the lines of a file are the first groups of its
//! cell, and whoever goes on begins behind them. Each line is sealed as the files of a run are, and says what made it. From the first
//! line on that is not what was written nothing is believed: those groups run again.

use std::{
    borrow::Cow,
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use serde_json::value::{RawValue, to_raw_value};

use super::{
    StoreError,
    run::{RunError, partial_file, sealed, unsealed},
};
use crate::{
    cell::Cell,
    digest::Digest,
    engine::environment::Environment,
    model::Cost,
    suite::question::Question,
    trace::{Sample, Sight},
};

/// What makes samples: those of another maker are no part of the same cell.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Maker {
    /// The cell.
    pub cell: Cell,
    /// What the run asks of whom.
    pub work: Digest,
    /// The trace whose tokens the cell reads, if it reads any.
    pub replays: Option<Digest>,
    /// Who answers, and where.
    pub environment: Environment,
    /// How much it shows.
    pub sight: Sight,
    /// What of the model stands with the cell when it is done, whoever joins what several have done of it.
    pub traits: Traits,
}

/// What of a model stands with a cell that is done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Traits {
    /// How many terms the sums have that its weights are part of.
    pub sums: [usize; 4],
    /// What its elementary functions are, where they are not exact.
    pub functions: Option<Digest>,
    /// What its precision costs, where that is known.
    pub cost: Option<Cost>,
}

/// A line.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Group<'a> {
    /// A [`Maker`], which is the same on every line.
    maker: Cow<'a, RawValue>,
    /// How long the cell had run when the group was done.
    milliseconds: u64,
    samples: Cow<'a, [Sample]>,
}

/// The file of a cell that is not done.
pub struct Partial {
    path: PathBuf,
    /// Who writes it.
    pub maker: Maker,
    /// The same, as it stands on every line.
    written: Box<RawValue>,
    file: BufReader<File>,
    /// Where the lines end that are believed.
    end: u64,
    /// Are they all read?
    is_read: bool,
    /// How long the cell had run before.
    before: Duration,
}

impl Partial {
    /// Of a cell in the folder of its run; made if it is not there.
    ///
    /// # Errors
    ///
    /// When it cannot be opened.
    pub fn open(folder: &Path, maker: Maker) -> Result<Partial, StoreError> {
        let path = partial_file(folder, maker.cell);
        let open = || {
            fs::create_dir_all(super::folder_of(&path)?)?;
            let file = File::options().read(true).write(true).create(true).truncate(false).open(&path)?;
            Ok((BufReader::new(file), to_raw_value(&maker)?))
        };
        let (file, written) = open().map_err(|error| StoreError::Write { path: path.clone(), error })?;
        Ok(Partial { path, maker, written, file, end: 0, is_read: false, before: Duration::ZERO })
    }

    /// The samples of the next group, which are those of these questions, if they are there.
    ///
    /// # Errors
    ///
    /// When what is there is not that. Nothing behind it is there any more.
    pub fn next(&mut self, group: &[Question]) -> Result<Option<Vec<Sample>>, RunError> {
        if self.is_read {
            return Ok(None);
        }
        let line = self.line(group);
        if !matches!(line, Ok(Some(_))) {
            self.is_read = true;
            let cut = self.file.get_mut().set_len(self.end);
            cut.map_err(|error| StoreError::Write { path: self.path.clone(), error })?;
        }
        line.map_err(|problem| RunError::Damaged {
            path: self.path.clone(),
            problem,
            way_out: "the items from there on run again",
        })
    }

    fn line(&mut self, group: &[Question]) -> Result<Option<Vec<Sample>>, String> {
        let Some(line) = line(&mut self.file)? else { return Ok(None) };
        let Group { maker, milliseconds, samples } = unsealed(&line)?;
        if maker.get() != self.written.get() {
            let maker = serde_json::from_str(maker.get());
            let Maker { cell, environment, .. } =
                maker.map_err(|error| format!("it does not read ({error})"))?;
            return Err(match () {
                () if cell != self.maker.cell => format!("it is about {cell}"),
                () if environment != self.maker.environment => {
                    format!("{} made it in another environment", environment.engine)
                }
                () => "it is of another run".to_owned(),
            });
        }
        let asked = group.iter().map(|question| (question.item, &question.tokens));
        if !asked.eq(samples.iter().map(|sample| (sample.item, &sample.prompt))) {
            return Err("its items do not share a call in this cell".to_owned());
        }
        self.end += line.len() as u64;
        self.before = Duration::from_millis(milliseconds);
        Ok(Some(samples.into_owned()))
    }

    /// Adds the samples of a group that is done, so long after the cell began or went on.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub fn add(&mut self, samples: &[Sample], elapsed: Duration) -> Result<(), StoreError> {
        let group = Group {
            maker: Cow::Borrowed(&self.written),
            milliseconds: self.elapsed(elapsed),
            samples: Cow::Borrowed(samples),
        };
        let line = sealed(&group).map_err(io::Error::from);
        let written = line.and_then(|line| {
            let file = self.file.get_mut();
            file.seek(SeekFrom::Start(self.end))?;
            file.write_all(&line)?;
            Ok(line.len() as u64)
        });
        self.end += written.map_err(|error| StoreError::Write { path: self.path.clone(), error })?;
        Ok(())
    }

    /// How many milliseconds the cell has run, so long after it began or went on.
    pub fn elapsed(&self, elapsed: Duration) -> u64 {
        self.before.saturating_add(elapsed).as_millis() as u64
    }
}

/// The next line, if there is one.
fn line(file: &mut BufReader<File>) -> Result<Option<Vec<u8>>, String> {
    let mut line = Vec::new();
    let read = file.read_until(b'\n', &mut line);
    match read.map_err(|error| format!("it cannot be read any further ({error})"))? {
        0 => Ok(None),
        _ if line.last() != Some(&b'\n') => Err(CUT.to_owned()),
        _ => Ok(Some(line)),
    }
}

const CUT: &str = "its last line has no end, as after a kill";

/// The groups that are done of a cell in the folder of a run that is not gone on with.
pub struct Groups {
    path: PathBuf,
    file: BufReader<File>,
}

/// A group that is done.
pub struct Answered {
    /// By whom.
    pub maker: Maker,
    /// How long the cell had run when it was.
    pub milliseconds: u64,
    /// What was answered.
    pub samples: Vec<Sample>,
}

impl Groups {
    /// Of a cell, if anything is done of it.
    ///
    /// # Errors
    ///
    /// When it cannot be opened.
    pub fn open(folder: &Path, cell: Cell) -> Result<Option<Groups>, RunError> {
        let path = partial_file(folder, cell);
        match File::open(&path) {
            Ok(file) => Ok(Some(Groups { path, file: BufReader::new(file) })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(RunError::Read { path, error }),
        }
    }

    /// The next one; none behind the last that is whole.
    ///
    /// # Errors
    ///
    /// When it is not what was written.
    pub fn read(&mut self) -> Result<Option<Answered>, RunError> {
        let mut answered = || {
            let Some(line) = line(&mut self.file)? else { return Ok(None) };
            let Group { maker, milliseconds, samples } = unsealed(&line)?;
            let maker =
                serde_json::from_str(maker.get()).map_err(|error| format!("it does not read ({error})"))?;
            Ok(Some(Answered { maker, milliseconds, samples: samples.into_owned() }))
        };
        match answered() {
            Err(problem) if problem == CUT => Ok(None),
            answered => answered.map_err(|problem: String| RunError::Damaged {
                path: self.path.clone(),
                problem,
                way_out: "the items from there on run again with --resume",
            }),
        }
    }
}
