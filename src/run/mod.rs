//! The main loop: every cell of a plan, one after the other, and what is done of it written down before more is asked.

pub mod bisect;
pub mod calibrate;
pub mod certify;
pub mod diff;
pub mod export;
pub mod forecast;
pub mod foreign;
mod groups;
pub mod merge;
pub mod pace;
pub mod panel;
pub mod passages;
mod questions;
mod reread;
pub mod review;
pub mod selftest;
pub mod sweep;
pub mod tolerance;
pub mod verify;

use std::{
    collections::BTreeMap,
    fmt,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use self::groups::Layout;
use crate::{
    cell::{Cell, Compute, EngineName},
    digest::Digest,
    engine::{Engine, EngineError, Observer, Opener, Prompt, Request, goes_with},
    model::{Cost, Subject},
    numerics::{
        Numerics, Reduction,
        at::{At, Site},
        functions::Called,
        order::Launch,
    },
    plan::{Generation, Plan},
    record::{About, Asked, Done, Elapsed, Failed, Model, Record},
    source::Blame,
    store::{
        StoreError,
        lines::{Lines, LinesError},
        partial::{Maker, Partial},
        run::{Locked, Run, RunError},
        trace::{self, Line, Writer},
    },
    suite::question::Question,
    trace::{Finish, Launches, Sample},
};

/// Why a run ends before its end.
#[derive(Debug, thiserror::Error)]
pub enum RunFailure {
    /// A question that cannot be asked.
    #[error("{0}")]
    Question(String),
    /// The machine failed under a cell.
    #[error("{cell}: {error}")]
    Engine {
        /// Which.
        cell: Box<Cell>,
        /// What the engine said.
        error: EngineError,
    },
    /// Somebody has asked it to end.
    #[error("stopped as asked: what is done is safe, and --resume goes on with it")]
    Stopped,
    /// A cell asks for what the model does not have.
    #[error(transparent)]
    Cell(EngineError),
    /// The folder cannot be used.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The folder cannot be written any further.
    #[error("{0}; what is done is safe, and --resume goes on with it")]
    Write(#[from] StoreError),
    /// A file of the folder cannot be read.
    #[error(transparent)]
    Lines(#[from] LinesError),
}

impl Blame for RunFailure {
    fn is_environment(&self) -> bool {
        match self {
            RunFailure::Question(_) | RunFailure::Cell(_) | RunFailure::Stopped => false,
            RunFailure::Run(error) => error.is_environment(),
            RunFailure::Engine { .. } | RunFailure::Write(_) | RunFailure::Lines(_) => true,
        }
    }
}

/// How to run.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where results go.
    pub out: PathBuf,
    /// What to do with a run that is there.
    pub present: Present,
    /// Which of the cells.
    pub part: Part,
    /// What the matrix file is called, and the profile.
    pub matrix: (String, Option<String>),
    /// Set by somebody who wants it to end; it does so when the items in flight are done.
    pub stop: Arc<AtomicBool>,
}

/// What to do with a run that is there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Present {
    /// Leave it alone, and run nothing.
    Refuse,
    /// Go on with it.
    Resume,
    /// Replace it.
    Replace,
}

/// Which cells run.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Part {
    /// All of them.
    All,
    /// A part of them, so that several machines can share them.
    Of(Partition),
    /// Of every family of the lab the first, from which [`certify`] tells the others.
    Firsts,
}

/// A part of all cells, so that several machines can share them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Partition {
    by: By,
    part: usize,
    of: usize,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum By {
    Slice,
    Hash,
}

impl Partition {
    /// Is the cell of this number in this part?
    fn has(self, number: usize, cell: Cell) -> bool {
        let place = match self.by {
            By::Slice => number % self.of,
            // By its name, so that a cell stays where it is when others come or go.
            By::Hash => {
                let digest = Digest::of(cell.to_string().as_bytes());
                let (first, _) = digest.0.split_first_chunk().expect("a digest has 32 bytes");
                (u64::from_be_bytes(*first) % self.of as u64) as usize
            }
        };
        place + 1 == self.part
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "part {} of {}", self.part, self.of)
    }
}

impl FromStr for Partition {
    type Err = String;

    fn from_str(text: &str) -> Result<Partition, String> {
        let read = || {
            let (by, part) = text.split_once(':')?;
            let (part, of) = part.split_once('/')?;
            let by = match by {
                "slice" => By::Slice,
                "hash" => By::Hash,
                _ => return None,
            };
            let (part, of) = (part.parse().ok()?, of.parse().ok()?);
            (1..=of).contains(&part).then_some(Partition { by, part, of })
        };
        read().ok_or_else(|| {
            format!(
                "`{text}` is not a part: write slice:1/3 for every third cell from the first, or hash:1/3"
            )
        })
    }
}

/// What happens while a plan runs.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// So many cells are to run, each with so many items; some are done already.
    Planned {
        /// All of this part.
        cells: usize,
        /// Those that are not done.
        left: &'a [Cell],
        /// Questions of each.
        items: u64,
        /// How many tokens may follow them all.
        most_tokens: u64,
    },
    /// What was there of a cell cannot be trusted, so it runs again.
    Distrusted {
        /// Which.
        cell: Cell,
        /// Why.
        problem: &'a RunError,
    },
    /// A cell begins.
    Began(Cell),
    /// So many items of it were there already, up to something that is not what was written, if there is a problem.
    Resumed {
        /// How many.
        items: usize,
        /// Why no more.
        problem: Option<&'a RunError>,
    },
    /// It has come further.
    Continued {
        /// How many items are done now that were not.
        items: usize,
        /// How many tokens have been chosen, for these or for others.
        tokens: usize,
    },
    /// A cell has come to its end.
    Ended(&'a Record),
}

/// Runs a plan with a model, and tells what happens.
///
/// # Errors
///
/// When the model, the machine or the folder will not. What is done by then is safe.
pub fn run(
    plan: &Plan,
    subject: &Subject<'_>,
    opener: &dyn Opener,
    options: &Options,
    watch: &mut (dyn FnMut(Event<'_>) + Send),
) -> Result<Run, RunFailure> {
    let suites = questions::asked(plan, subject)?;
    plan.cells.iter().try_for_each(|cell| goes_with(cell.compute, subject)).map_err(RunFailure::Cell)?;
    let folder = Locked::new(&options.out)?;
    let run = open(&folder, plan, suites, subject, options)?;
    let cells = cells(plan, options.part);
    let mut left = Vec::new();
    for (cell, record) in run.records(&cells) {
        match record {
            // Killed in between, a run leaves both.
            Ok(Some(Record::Done(_))) => folder.forget_partial(cell)?,
            Ok(_) => left.push(cell),
            Err(problem) => {
                watch(Event::Distrusted { cell, problem: &problem });
                left.push(cell);
            }
        }
    }
    let (items, (_, most_tokens)) = (run.about.questions, plan.cost());
    watch(Event::Planned { cells: cells.len(), left: &left, items, most_tokens });
    let mut work = Work::new(&run, subject, opener, &options.stop)?;
    for cell in left {
        watch(Event::Began(cell));
        let record = match work.cell(cell, watch) {
            Ok(done) => Record::Done(Box::new(done)),
            Err(RunFailure::Engine { cell, error }) if !error.is_environment() => {
                Record::Failed(Failed { cell: *cell, sentence: error.to_string() }.into())
            }
            Err(failure) => return Err(failure),
        };
        folder.record(&record)?;
        watch(Event::Ended(&record));
    }
    drop(work);
    Ok(run)
}

/// The cells of a part; whoever replays the reference needs it.
fn cells(plan: &Plan, part: Part) -> Vec<Cell> {
    let firsts = if part == Part::Firsts { certify::firsts(&plan.cells) } else { Vec::new() };
    let is_in = |(number, cell): (usize, Cell)| {
        let is_read_by_all = plan.generation.replay && Some(cell) == plan.reference;
        let is_in = match part {
            Part::All => true,
            Part::Of(partition) => partition.has(number, cell),
            Part::Firsts => firsts.contains(&cell),
        };
        (is_in || is_read_by_all).then_some(cell)
    };
    plan.cells.iter().copied().enumerate().filter_map(is_in).collect()
}

/// The run in the folder: the one that is there, or a new one.
fn open(
    folder: &Locked,
    plan: &Plan,
    suites: Vec<Asked>,
    subject: &Subject<'_>,
    options: &Options,
) -> Result<Run, RunFailure> {
    let is_there = folder.holds_a_run();
    if is_there && options.present == Present::Refuse {
        return Err(RunError::Exists(options.out.clone()).into());
    }
    let draft = folder.draft(questions::questions(plan.made_of(), &suites, &plan.generation, subject))?;
    let vocabulary = vocabulary(subject);
    let about = About {
        matrix: options.matrix.0.clone(),
        profile: options.matrix.1.clone(),
        model: Model {
            name: subject.name.to_owned(),
            origin: subject.origin.clone(),
            architecture: subject.architecture.clone(),
            parameters: subject.parameters,
            digest: subject.digest,
        },
        suites,
        questions: draft.questions,
        items: draft.items,
        vocabulary: vocabulary.as_deref().map(Digest::of),
        generation: plan.generation.clone(),
        reference: plan.reference,
        cells: plan.cells.clone(),
        beside: plan.beside.clone(),
        gates: plan.gates.clone(),
        scripts: scripts(plan),
    };
    Ok(if is_there && options.present == Present::Resume {
        folder.resume(about)?
    } else {
        folder.begin(about, draft, vocabulary.as_deref())?
    })
}

/// The digests of what stands beside the cells of a plan and may move their bits.
fn scripts(plan: &Plan) -> BTreeMap<String, Digest> {
    let scripts = plan.scripts.iter().map(|(name, script)| (name.to_string(), script.digest));
    let servers =
        plan.servers.iter().map(|(name, server)| (EngineName::Server(*name).to_string(), server.digest()));
    scripts.chain(servers).collect()
}

/// The text of every token, as a file.
fn vocabulary(subject: &Subject<'_>) -> Option<Vec<u8>> {
    let tokenizer = subject.tokenizer?;
    let tokens = 0..subject.vocabulary as u32;
    let texts: Vec<_> = tokens.map(|token| tokenizer.decode(&[token], false)).collect();
    Some(serde_json::to_vec(&texts).expect("texts are JSON"))
}

/// What all cells need: one question and one group of samples in memory, and one engine.
struct Work<'a> {
    folder: &'a Path,
    run: &'a Run,
    subject: &'a Subject<'a>,
    opener: &'a dyn Opener,
    stop: &'a AtomicBool,
    questions: Lines<Question>,
    layout: Layout,
    /// The open engine, and for which cells it is.
    engine: Option<((Compute, NonZeroUsize), Box<dyn Engine + 'a>)>,
    /// What the reference wrote, where cells read that, and which trace that is.
    replayed: Option<(Digest, Lines<Line>)>,
}

impl<'a> Work<'a> {
    fn new(
        run: &'a Run,
        subject: &'a Subject<'a>,
        opener: &'a dyn Opener,
        stop: &'a AtomicBool,
    ) -> Result<Work<'a>, RunFailure> {
        let mut questions = run.questions()?;
        let mut layout = Layout::default();
        for item in 0..questions.len() {
            layout.add(&questions.get(item)?);
        }
        Ok(Work {
            folder: &run.folder,
            run,
            subject,
            opener,
            stop,
            questions,
            layout,
            engine: None,
            replayed: None,
        })
    }

    /// Runs one cell, and leaves its trace in the store.
    fn cell(&mut self, cell: Cell, watch: &mut (dyn FnMut(Event<'_>) + Send)) -> Result<Done, RunFailure> {
        let failed = |error| RunFailure::Engine { cell: Box::new(cell), error };
        let start = Instant::now();
        self.engine(cell).map_err(failed)?;
        let cost = self.cost(cell).map_err(failed)?;
        let is_replayed = self.run.about.generation.replay && self.run.about.reference != Some(cell);
        if is_replayed {
            self.find_replay(cell)?;
        }
        let maker = Maker {
            cell,
            work: self.run.about.work(),
            replays: self.replayed.as_ref().filter(|_| is_replayed).map(|(trace, _)| *trace),
            environment: self.open().about(),
        };
        let mut partial = Partial::open(self.folder, maker)?;
        let (mut is_resumed, mut there) = (false, 0);
        let mut writer = Writer::new(self.folder, self.open().sight())?;
        let (mut launches, mut unlike_copies, mut tokens) = (Launches::none(), 0, 0);
        for group in self.layout.groups(cell.serving.grouping, cell.serving.together()) {
            if self.stop.load(Ordering::Relaxed) {
                return Err(RunFailure::Stopped);
            }
            let group =
                group.into_iter().map(|item| self.questions.get(item)).collect::<Result<Vec<_>, _>>()?;
            let samples = match partial.next(&group) {
                Ok(Some(samples)) => {
                    there += samples.len();
                    samples
                }
                stored => {
                    if !std::mem::replace(&mut is_resumed, true) {
                        watch(Event::Resumed { items: there, problem: stored.as_ref().err() });
                    }
                    let samples = self.answer(cell, &group, is_replayed, watch)?;
                    partial.add(&samples, start.elapsed())?;
                    samples
                }
            };
            launches.add(&samples);
            let launched = samples.iter().filter_map(|sample| sample.launch.as_ref());
            unlike_copies += launched.filter(|launch| launch.has_unlike_copy).count() as u64;
            for (question, sample) in group.iter().zip(&samples) {
                let scores = question.score(&sample.text, sample.finish == Finish::Length);
                writer.add(sample, scores)?;
            }
            tokens += samples.iter().map(|sample| sample.steps.len() as u64).sum::<u64>();
        }
        if !is_resumed {
            watch(Event::Resumed { items: there, problem: None });
        }
        if let Compute::Lab(numerics) = cell.compute {
            launches.tree = Some(tree(self.subject, numerics, &launches));
            launches.functions = functions(self.subject, numerics);
        }
        let written = writer.finish()?;
        Ok(Done {
            cell,
            trace: written.digest,
            root: written.root,
            launches,
            unlike_copies,
            environment: self.open().about(),
            cost,
            elapsed: Elapsed { milliseconds: partial.elapsed(start.elapsed()), tokens },
        })
    }

    /// What the precision of a cell costs, where its engine keeps weights that are here.
    fn cost(&self, cell: Cell) -> Result<Option<Cost>, EngineError> {
        let kept = cell.compute.stored().zip(self.subject.weights);
        let cost = kept.map(|(numerics, weights)| Cost::of(weights, numerics, cell.serving.batch));
        Ok(cost.transpose()?)
    }

    /// The samples of questions that share their calls.
    fn answer(
        &mut self,
        cell: Cell,
        group: &[Question],
        is_replayed: bool,
        watch: &mut (dyn FnMut(Event<'_>) + Send),
    ) -> Result<Vec<Sample>, RunFailure> {
        let mut prompts = Vec::new();
        for question in group {
            let replay = match &mut self.replayed {
                Some((_, lines)) if is_replayed => Some(lines.get(question.item)?.tokens),
                _ => None,
            };
            prompts.push(Prompt { item: question.item, tokens: question.tokens.clone(), replay });
        }
        let Some((first, generation)) = group.first().map(|first| (first, &self.run.about.generation)) else {
            return Ok(Vec::new());
        };
        let request = request(cell, first, generation, self.subject);
        let mut watched = Watched { samples: Vec::new(), told: 0, watch };
        self.open()
            .generate(&prompts, &request, &mut watched)
            .map_err(|error| RunFailure::Engine { cell: Box::new(cell), error })?;
        let Watched { samples, told, watch } = watched;
        // An engine may have kept to itself what it was doing.
        let chosen: usize = samples.iter().map(|sample| sample.steps.len()).sum();
        watch(Event::Continued { items: samples.len(), tokens: chosen.saturating_sub(told) });
        Ok(samples)
    }

    /// The open engine.
    fn open(&mut self) -> &mut (dyn Engine + 'a) {
        let (_, engine) = self.engine.as_mut().expect("a cell opens its engine first");
        engine.as_mut()
    }

    /// The engine of a cell: that of the cell before, if both compute alike. Another repeat is a fresh start.
    fn engine(&mut self, cell: Cell) -> Result<(), EngineError> {
        let wanted = cell.engine();
        if self.engine.as_ref().is_some_and(|(open, _)| *open == wanted) {
            return Ok(());
        }
        // The old one first: two large models may not fit.
        self.engine = None;
        self.engine = Some((wanted, self.opener.open(cell.compute)?));
        Ok(())
    }

    /// What the reference wrote, once it has.
    fn find_replay(&mut self, cell: Cell) -> Result<(), RunFailure> {
        if self.replayed.is_some() {
            return Ok(());
        }
        let reference = self.run.about.reference.as_slice();
        let record = self.run.records(reference).into_iter().next();
        let Some((_, Ok(Some(Record::Done(done))))) = record else {
            let sentence = "it reads what the reference wrote, and that has not run to its end: see why, or take `replay` out";
            let error = EngineError::Unsupported(sentence.to_owned());
            return Err(RunFailure::Engine { cell: Box::new(cell), error });
        };
        self.replayed = Some((done.trace, trace::lines(self.folder, done.trace)?));
        Ok(())
    }
}

/// By which trees the sums of every length that the weights have are added in the largest of these launches.
fn tree(subject: &Subject<'_>, numerics: Numerics, launches: &Launches) -> Digest {
    let threads = numerics.threads().get();
    let launch = |rows: Option<usize>| Launch { rows: rows.unwrap_or(1).max(1), threads };
    let largest = [launches.prefill_rows, launches.decode_rows].map(launch);
    // A matrix unit adds by the format of what it multiplies, and that may differ from place to place.
    let places = if numerics.order().is_of_unit() {
        numerics.products().collect()
    } else {
        vec![At::alone(Site::Linear)]
    };
    // The widths behind attention and behind the gate are those that ranks share.
    let [width, inner, heads, head] = subject.sums;
    let ranks = numerics.parallel().ranks();
    let sums = [width, inner / ranks, heads / ranks, head];
    let orders = places.into_iter().map(|at| numerics.order_of(Reduction::Product(at)));
    let prints = orders.map(|order| sums.map(|terms| largest.map(|launch| order.fingerprint(terms, launch))));
    Digest::of(prints.collect::<Vec<_>>().as_flattened().as_flattened().as_flattened())
}

/// What the elementary functions are that the model calls; nothing where all of them are exact.
fn functions(subject: &Subject<'_>, numerics: Numerics) -> Option<Digest> {
    let of_gates = subject.shape.and_then(|shape| shape.activation.called());
    let called = Called::BY_ALL.into_iter().chain(of_gates);
    let meanings: Vec<_> = called.map(|called| numerics.functions().meaning(called)).collect();
    let is_exact = meanings.iter().all(Option::is_none);
    (!is_exact).then(|| Digest::of(&serde_json::to_vec(&meanings).expect("texts are JSON")))
}

/// How a cell is asked questions that share their calls, of which this is the first: the others end as it does.
fn request(cell: Cell, first: &Question, generation: &Generation, subject: &Subject<'_>) -> Request {
    Request {
        prefill_chunk: cell.serving.prefill_chunk,
        asking: cell.serving.asking(),
        max_new_tokens: first.max_new_tokens,
        stop_tokens: subject.stop_tokens.to_vec(),
        stop_strings: first.stop.clone(),
        choice: cell.serving.choice(generation.choice),
        candidates: generation.candidates,
    }
}

/// The samples of a group, and somebody who is told of every token that one of them gets.
struct Watched<'w> {
    samples: Vec<Sample>,
    /// Of how many tokens.
    told: usize,
    watch: &'w mut (dyn FnMut(Event<'_>) + Send),
}

impl Observer for Watched<'_> {
    fn finished(&mut self, sample: Sample) {
        self.samples.push(sample);
    }

    fn chose(&mut self, tokens: usize) {
        self.told += tokens;
        (self.watch)(Event::Continued { items: 0, tokens });
    }
}
