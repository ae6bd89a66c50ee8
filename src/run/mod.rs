//! The main loop: every cell of a plan, one after the other, and what is done of it written down before more is asked.

pub mod bisect;
pub mod calibrate;
pub mod certify;
pub mod diff;
pub mod division;
pub mod export;
pub mod forecast;
pub mod foreign;
mod gathering;
mod groups;
pub mod merge;
pub mod pace;
pub mod panel;
pub mod passages;
mod questions;
mod reference;
mod reread;
pub mod review;
pub mod selftest;
pub mod sweep;
pub mod tolerance;
pub mod verify;

use std::{
    collections::BTreeMap,
    num::NonZeroUsize,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use self::{
    division::{Stretch, Weights, divide},
    gathering::Gathering,
    groups::Layout,
};
use crate::{
    cell::{Cell, Compute, EngineName},
    digest::Digest,
    engine::{Engine, EngineError, Observer, Opener, Prompt, Request, environment, goes_with},
    model::{Cost, Subject},
    plan::{Generation, Plan},
    record::{About, Asked, Done, Failed, Model, Part, Record, Took},
    source::Blame,
    store::{
        StoreError,
        lines::{Lines, LinesError},
        partial::{Maker, Partial},
        run::{Locked, PartOf, Run, RunError},
        trace::{self, CopyError, Line},
    },
    suite::question::Question,
    trace::Sample,
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
    /// A trace that cannot be copied.
    #[error(transparent)]
    Copy(#[from] CopyError),
    /// The reference cannot be taken from another run.
    #[error("the reference is not taken from {}: {problem}; name a run of the same questions and model that has it", .folder.display())]
    Reference {
        /// The other run.
        folder: PathBuf,
        /// Why not.
        problem: String,
    },
    /// A file of the folder cannot be read.
    #[error(transparent)]
    Lines(#[from] LinesError),
}

impl Blame for RunFailure {
    fn is_environment(&self) -> bool {
        match self {
            RunFailure::Question(_)
            | RunFailure::Cell(_)
            | RunFailure::Stopped
            | RunFailure::Reference { .. } => false,
            RunFailure::Run(error) => error.is_environment(),
            RunFailure::Copy(error) => error.is_environment(),
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
    pub which: Which,
    /// A run that has the reference, which is taken from there.
    pub reference: Option<PathBuf>,
    /// An earlier run, whose times say what a cell of a part will take.
    pub like: Option<PathBuf>,
    /// What the matrix file is called, and the profile.
    pub matrix: (String, Option<String>),
    /// Set by somebody who wants it to end; it does so when the items in flight are done.
    pub stop: Arc<AtomicBool>,
}

impl Options {
    /// All cells of a matrix file, which is called so, and its profile.
    pub fn of_all(out: PathBuf, present: Present, matrix: (String, Option<String>)) -> Options {
        let stop = Arc::default();
        Options { out, present, which: Which::All, reference: None, like: None, matrix, stop }
    }

    /// The folder that is written to: of a part its own.
    pub fn folder(&self) -> PathBuf {
        match self.which {
            Which::Part(part) => self.out.join(part.folder()),
            Which::All | Which::Firsts => self.out.clone(),
        }
    }
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
pub enum Which {
    /// All of them.
    All,
    /// A part of the run, in a folder of its own below that of the run, so that several machines can share it.
    Part(Part),
    /// Of every family of the lab the first, from which [`certify`] tells the others.
    Firsts,
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
    /// A cell begins, or so many items of it.
    Began {
        /// Which.
        cell: Cell,
        /// How many.
        items: u64,
    },
    /// What is to run here of a cell is done, and others have the rest.
    Shared(Cell),
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
    let folder = match options.which {
        Which::Part(part) => Locked::part(&options.out, part)?,
        Which::All | Which::Firsts => Locked::new(&options.out)?,
    };
    let before = folder.part_of()?.filter(|_| options.present == Present::Resume);
    let start = Instant::now();
    let run = open(&folder, plan, suites, subject, options)?;
    if let Some(from) = &options.reference {
        reference::take(&run, &folder, from)?;
    }
    let mut items = 0;
    let ended = carry_out(plan, subject, opener, options, (&run, &folder), &mut |event| {
        if let Event::Continued { items: more, .. } = event {
            items += more as u64;
        }
        watch(event);
    });
    if let Which::Part(part) = options.which {
        let Took { milliseconds, items: done, .. } = before.map(|before| before.took).unwrap_or_default();
        folder.took(PartOf {
            part,
            took: Took {
                milliseconds: milliseconds + start.elapsed().as_millis() as u64,
                items: done + items,
                peak_bytes: environment::peak_memory().max(before.and_then(|before| before.took.peak_bytes)),
            },
        })?;
    }
    ended?;
    Ok(run)
}

/// Runs what is not done of the cells in the folder of a run.
fn carry_out(
    plan: &Plan,
    subject: &Subject<'_>,
    opener: &dyn Opener,
    options: &Options,
    (run, folder): (&Run, &Locked),
    watch: &mut (dyn FnMut(Event<'_>) + Send),
) -> Result<(), RunFailure> {
    let mut work = Work::new(run, subject, opener, &options.stop)?;
    let stretches = stretches(plan, &work.layout, subject, options)?;
    let cells: Vec<_> = stretches.iter().map(|stretch| stretch.cell).collect();
    let mut left = Vec::new();
    for ((cell, record), stretch) in run.records(&cells).into_iter().zip(stretches) {
        match record {
            // Killed in between, a run leaves both.
            Ok(Some(Record::Done(_))) => folder.forget_partial(cell)?,
            Ok(_) => left.push(stretch),
            Err(problem) => {
                watch(Event::Distrusted { cell, problem: &problem });
                left.push(stretch);
            }
        }
    }
    let (items, (_, most_tokens)) = (run.about.questions, plan.cost());
    let to_run: Vec<_> = left.iter().map(|stretch| stretch.cell).collect();
    watch(Event::Planned { cells: cells.len(), left: &to_run, items, most_tokens });
    for stretch in left {
        let cell = stretch.cell;
        watch(Event::Began { cell, items: stretch.items(&work.layout) });
        let record = match work.stretch(&stretch, watch) {
            Ok(Some(done)) => Record::Done(Box::new(done)),
            Ok(None) => {
                watch(Event::Shared(cell));
                continue;
            }
            Err(RunFailure::Engine { cell, error }) if !error.is_environment() => {
                Record::Failed(Failed { cell: *cell, sentence: error.to_string() }.into())
            }
            Err(failure) => return Err(failure),
        };
        folder.record(&record)?;
        watch(Event::Ended(&record));
    }
    Ok(())
}

/// What of which cells is to run.
fn stretches(
    plan: &Plan,
    layout: &Layout,
    subject: &Subject<'_>,
    options: &Options,
) -> Result<Vec<Stretch>, RunFailure> {
    let cells = match options.which {
        Which::All => plan.cells.clone(),
        Which::Firsts => certify::firsts(&plan.cells),
        Which::Part(Part::Reference) => plan.reference.into_iter().collect(),
        Which::Part(Part::Of(part, of)) => {
            let weights = Weights::new(subject, &plan.cells, options.like.as_deref())?;
            let divided = divide(plan, layout, &weights, of);
            // Whoever replays the reference needs it.
            let read_by_all = plan.reference.filter(|_| plan.generation.replay).map(Stretch::whole);
            return Ok(read_by_all.into_iter().chain(divided[part - 1].iter().cloned()).collect());
        }
    };
    let read_by_all = plan.reference.filter(|reference| plan.generation.replay && !cells.contains(reference));
    Ok(read_by_all.into_iter().chain(cells).map(Stretch::whole).collect())
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
        let layout = Layout::of(&mut questions)?;
        Ok(Work { run, subject, opener, stop, questions, layout, engine: None, replayed: None })
    }

    /// Runs a stretch of a cell. Of a whole cell it leaves the trace in the store; what it does of another lies beside, for whoever
    /// joins the parts.
    fn stretch(
        &mut self,
        stretch: &Stretch,
        watch: &mut (dyn FnMut(Event<'_>) + Send),
    ) -> Result<Option<Done>, RunFailure> {
        let cell = stretch.cell;
        let failed = |error| RunFailure::Engine { cell: Box::new(cell), error };
        let start = Instant::now();
        self.engine(cell).map_err(failed)?;
        let traits = gathering::traits(self.subject, cell)?;
        let is_replayed = self.run.about.generation.replay && self.run.about.reference != Some(cell);
        if is_replayed {
            self.find_replay(cell)?;
        }
        let sight = self.open().sight();
        let maker = Maker {
            cell,
            work: self.run.about.work(),
            replays: self.replayed.as_ref().filter(|_| is_replayed).map(|(trace, _)| *trace),
            environment: self.open().about(),
            sight,
            traits,
        };
        let mut partial = Partial::open(&self.run.folder, maker)?;
        let (mut is_resumed, mut there) = (false, 0);
        let gathering = || Gathering::new(&self.run.folder, sight);
        let mut gathering = stretch.is_whole().then(gathering).transpose()?;
        for group in stretch.of(self.layout.groups(cell.serving.grouping, cell.serving.together())) {
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
            if let Some(gathering) = &mut gathering {
                gathering.add(&group, &samples)?;
            }
        }
        if !is_resumed {
            watch(Event::Resumed { items: there, problem: None });
        }
        let milliseconds = partial.elapsed(start.elapsed());
        let done = gathering.map(|gathering| gathering.finish(&self.run.store, partial.maker, milliseconds));
        Ok(done.transpose()?)
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
        self.replayed = Some((done.trace, trace::lines(&self.run.store, done.trace)?));
        Ok(())
    }
}

/// What the precision of a cell costs, where its engine keeps weights that are here.
fn cost(subject: &Subject<'_>, cell: Cell) -> Result<Option<Cost>, EngineError> {
    let kept = cell.compute.stored().zip(subject.weights);
    let cost = kept.map(|(numerics, weights)| Cost::of(weights, numerics, cell.serving.batch));
    Ok(cost.transpose()?)
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
