//! A limit with a reason: how far legitimate arithmetic moves the logits of a model, how rarely it exceeds a limit, and what a limit sees.
//!
//! The null is every order, batch and thread count of one precision. One of them is the reference: its answers are what all others read
//! again, and a row is what one setting shows of one token beside the reference. Half of the items, drawn by a seed, say where the limit
//! lies; the other half, which had no part in it, says how often it is exceeded, and how soon faults and other precisions are told.

use std::{collections::BTreeMap, num::NonZeroUsize, thread};

use serde::Serialize;

use super::{RunFailure, groups::Layout, questions, request};
use crate::{
    cell::{Asking, Cell, Compute},
    compare::{Measure, measured},
    digest::Digest,
    engine::{Engine as _, EngineError, Observer, Prompt, Request, lab::Lab},
    model::{Checkpoint, Subject},
    numerics::{
        Numerics,
        at::{At, Site},
        choice::{Ranking, rank},
        format::Format,
        kernel::{Fast, Faulty, Kernel, KernelFault},
        order::{ORDERS, Order, shuffle},
        precision::Precision,
        random::Stream,
        special::log,
    },
    plan::Plan,
    stats::{
        Interval,
        clustered::Sample,
        limit::{self, Limit, beyond},
        proportion::Proportion,
        roc,
    },
    suite::question::Question,
    trace::{self, Seen, Token},
};

/// How sure it is that a limit is not exceeded more often than it says.
pub const CONFIDENCE: f64 = 0.95;
/// How well a mean has to tell a change from the null.
pub const TOLD: f64 = 0.999;
/// The shares of false alarms for which it is said what is detected.
const FALSE_ALARMS: [f64; 5] = [1e-4, 1e-3, 1e-2, 1e-1, 0.5];
/// So many tokens are read in a call, about.
const TOGETHER: usize = 256;

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// The largest share of the rows that may exceed a limit.
    pub rate: f64,
    /// So many settings of the null beside the reference; all where there is none.
    pub part: Option<usize>,
    /// Which of them, which half of the items says where the limit lies, and what is drawn of the rows.
    pub seed: u64,
    /// What is held against the null: faults and precisions by their names, as [`usual`] has them.
    pub against: &'a [String],
}

/// Where the limits lie, how they hold, and what they see.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Tolerance {
    /// The setting that the others are measured from.
    pub reference: Cell,
    /// The settings whose rows count, those that compute alike taken together.
    pub null: Vec<Setting>,
    /// The items that say where a limit lies, and those that it is held against.
    pub items: [u64; 2],
    /// The tokens of either.
    pub tokens: [u64; 2],
    /// How many of these items hang together with no other: what counts as one.
    pub clusters: [u64; 2],
    /// The share of the rows that may exceed a limit: that which was asked for, or a larger one that so few items can tell.
    pub rate: f64,
    /// A limit of each distance.
    pub limits: Vec<Limited>,
    /// How often another token ranks first.
    pub flips: Flips,
    /// What is told apart from the null, and how soon.
    pub powers: Vec<Power>,
    /// What could not be read, and why.
    pub unread: Vec<(String, String)>,
}

/// A setting of the null, and for how many it stands.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Setting {
    /// The first of them.
    pub cell: Cell,
    /// How many settings have its bits: those that differ in nothing that computes, and those that were seen to give the same.
    pub stands_for: u64,
}

/// The limit of a distance.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Limited {
    /// Of which.
    pub measure: Measure,
    /// By the one half of the items.
    #[serde(flatten)]
    pub limit: Limit,
    /// By the other.
    pub held_out: Held,
}

/// How often something happened that was expected so often.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Held {
    /// How many of how many rows.
    pub rows: Proportion,
    /// In which interval 95 % of such shares lie.
    pub expected: Interval,
    /// Is it there?
    pub holds: bool,
}

impl Held {
    fn new(rows: Proportion, expected: Interval) -> Held {
        let rate = rows.rate().unwrap_or_default();
        Held { rows, expected, holds: (expected.lower..=expected.upper).contains(&rate) }
    }
}

/// How often another token ranks first.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Flips {
    /// In the one half of the items.
    pub rows: Proportion,
    /// The upper end of its interval.
    pub limit: f64,
    /// The interval, each end of which is passed over with 5 %.
    pub interval: Interval,
    /// In the other half.
    pub held_out: Held,
}

/// How well something is told from the null.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Power {
    /// A fault, or a precision.
    pub name: String,
    /// In how many rows any bit is another one than in the reference.
    pub moved: Proportion,
    /// The distance that tells most, by the items that say where limits lie.
    pub by: Measure,
    /// The area below the ROC curve of one row; all of this is from the other items.
    pub auc: f64,
    /// Shares of false alarms, and of what is detected.
    pub roc: Vec<[f64; 2]>,
    /// How many rows exceed some limit.
    pub beyond: Proportion,
    /// After how many tokens the mean of the distance tells it from the null; nothing where as many as there are do not.
    pub tokens: Option<u64>,
    /// Where that lies for other items.
    pub interval: [Option<u64>; 2],
    /// Numbers of tokens, and how well their mean tells.
    pub curve: Vec<(u64, f64)>,
}

/// The matrix file of a null, without a gate.
pub fn matrix(
    precision: Precision,
    reference: Order,
    suites: &[String],
    items: u64,
    [batch, threads]: [&[usize]; 2],
    max_new_tokens: Option<usize>,
) -> String {
    let most = max_new_tokens.map_or_else(String::new, |most| format!("max-new-tokens = {most}\n"));
    // A matrix unit is hardware of its own, which cuts off: whoever has it names it in a matrix.
    let rounding = ORDERS.iter().map(|entry| entry.example).filter(|order| !order.is_of_unit());
    let orders: Vec<String> = rounding.map(|order| order.to_string()).collect();
    format!(
        "suites = {suites:?}\nitems  = {items}\n\n[generate]\nreplay = true\n{most}\n[reference]\nprecision = \"{precision}\"\norder     = \
         \"{reference}\"\n\n[matrix]\nprecision = [\"{precision}\"]\norder     = {orders:?}\nbatch     = {batch:?}\nthreads   = \
         {threads:?}\n"
    )
}

impl Tolerance {
    /// The gate that holds cells to it.
    pub fn gate(&self) -> String {
        let name = match self.reference.compute {
            Compute::Lab(numerics) => numerics.precision().to_string(),
            _ => self.reference.to_string(),
        };
        let limits = self.limits.iter().map(|limited| {
            let key = format!("max-{}", limited.measure);
            format!("{key:20} = {}\n", written(limited.limit.limit))
        });
        let limits: String = limits.collect();
        let flips = round_up(self.flips.limit);
        format!(
            "[[gate]]\nname                 = \"within the tolerance of {name}\"\nagainst              = \"reference\"\n{limits}\
             exceeding            = {}\nmax-rank-flips       = {flips}\n",
            round_up(self.rate)
        )
    }
}

/// As it is where that is short.
fn written(limit: f64) -> f64 {
    if limit.to_string().len() <= 8 { limit } else { round_up(limit) }
}

/// With three digits, and not less.
fn round_up(share: f64) -> f64 {
    let rounded = format!("{share:.2e}").parse().unwrap_or(share);
    if rounded >= share { rounded } else { format!("{:.2e}", share * 1.005).parse().unwrap_or(share) }
}

/// What stands in for the arithmetic of the reference.
enum Change {
    Numerics(Numerics),
    Fault(Numerics, KernelFault),
}

/// The faults that are put in everywhere, by the names that the self-test gives them where it has them.
const FAULTS: [(&str, KernelFault); 9] = [
    ("another-order", KernelFault::AddsInAnotherOrder),
    ("dropped-term", KernelFault::DropsLastTerm),
    ("skipped-operation", KernelFault::SkipsOperation),
    ("rounding-toward-zero", KernelFault::RoundsTowardZero),
    ("bf16-for-fp32", KernelFault::ComputesInBf16),
    ("flushed-subnormals", KernelFault::FlushesSubnormals),
    ("flipped-bit", KernelFault::FlipsBit),
    ("lost-update", KernelFault::LosesUpdate),
    ("lost-epsilon", KernelFault::LosesEpsilon),
];
/// The precisions that are held against any other.
const PRECISIONS: [&str; 5] = ["int8", "cast:e4m3", "w8a8", "kv:cast:e4m3", "cast:e2m1"];
/// Stands before a precision that keys, values, and what meets them alone have.
const KV: &str = "kv:";

/// What changes are called that are held against a precision where nobody names others: faults that can differ from it, and precisions.
pub fn usual(precision: Precision) -> Vec<String> {
    let is_bf16 = precision.activations(At::alone(Site::Linear)) == Format::BF16;
    let faults = FAULTS.iter().filter(|(_, fault)| match fault {
        KernelFault::RoundsTowardZero => is_bf16,
        KernelFault::ComputesInBf16 => !is_bf16,
        _ => true,
    });
    let others = PRECISIONS.into_iter().filter(|name| *name != precision.to_string());
    let others = others.filter(|name| !(name.starts_with(KV) && matches!(precision, Precision::Map(_))));
    faults.map(|(name, _)| *name).chain(others).map(str::to_owned).collect()
}

/// The change of a name.
fn change(name: &str, numerics: Numerics) -> Result<Change, RunFailure> {
    if let Some((_, fault)) = FAULTS.iter().find(|(fault, _)| *fault == name) {
        return Ok(Change::Fault(numerics, *fault));
    }
    let whole = name.strip_prefix(KV).map(|kv| format!("map:{};scores,context={kv}", numerics.precision()));
    let precision = whole.as_deref().unwrap_or(name).parse::<Precision>().map_err(|error| {
        let faults: Vec<_> = FAULTS.iter().map(|(name, _)| *name).collect();
        refused(&format!("`{name}` is not a fault ({}), and as a precision: {error}", faults.join(", ")))
    })?;
    Ok(Change::Numerics(numerics.in_precision(precision).map_err(|error| refused(&error.to_string()))?))
}

/// Finds where the limits of a null lie, the cells of a plan, and what they see. `watch` is told how many of how many readings are done.
///
/// # Errors
///
/// When a question cannot be asked, when there are too few, or when the model does not read.
pub fn tolerance(
    checkpoint: &Checkpoint,
    subject: &Subject<'_>,
    plan: &Plan,
    wanted: Wanted<'_>,
    watch: &mut dyn FnMut(usize, usize),
) -> Result<Tolerance, RunFailure> {
    let reference = plan.reference.ok_or_else(|| refused("there is no reference"))?;
    let Compute::Lab(numerics) = reference.compute else {
        return Err(refused("the reference is not a cell of the lab"));
    };
    let asked = questions::asked(plan, subject)?;
    let questions: Vec<Question> =
        questions::questions(plan.made_of(), &asked, &plan.generation, subject).collect::<Result<_, _>>()?;
    let settings = distinct(&plan.cells, reference, wanted);
    let changes = wanted.against.iter().map(|name| Ok((name.clone(), change(name, numerics)?)));
    let changes: Vec<_> = changes.collect::<Result<_, RunFailure>>()?;
    let (mut done, of) = (0, 1 + settings.len() + changes.len());
    let mut watch = || {
        done += 1;
        watch(done, of);
    };
    let mut reader =
        Reader { checkpoint, subject, plan, questions, layout: Layout::default(), answers: Vec::new() };
    reader.questions.iter().for_each(|question| reader.layout.add(question));
    let own = reader.answer(reference)?;
    watch();
    let halves = reader.halves(wanted.seed)?;

    let mut null: Vec<(Setting, Read)> = Vec::new();
    let own_digests: Vec<Digest> = own.iter().flatten().filter_map(Token::digest).collect();
    for (cell, stands_for) in settings {
        let Compute::Lab(numerics) = cell.compute else { continue };
        let read = Read::new(&own, &reader.read(cell, &Change::Numerics(numerics))?);
        watch();
        match null.iter_mut().find(|(_, other)| other.digests == read.digests) {
            Some((same, _)) => same.stands_for += stands_for,
            // Whatever has the bits of the reference is the reference.
            None if read.digests == own_digests => {}
            None => null.push((Setting { cell, stands_for }, read)),
        }
    }
    if null.is_empty() {
        return Err(refused("every setting has the bits of the reference, so the limit is 0: require bits"));
    }
    let (null, reads): (Vec<Setting>, Vec<Read>) = null.into_iter().unzip();
    let all: Vec<&Read> = reads.iter().collect();
    let [calibration, held_out] = halves.each_ref().map(|units| Half { units, null: &all });

    let distances = [Measure::LogitDifference, Measure::Ulp, Measure::Kl];
    let limits: Vec<Limited> = distances
        .into_iter()
        .filter_map(|measure| {
            let limit = limit::limit(&calibration.clusters(measure), wanted.rate, CONFIDENCE)?;
            let rows = held_out.clusters(measure);
            let hits = rows.iter().map(|rows| beyond(rows, limit.limit)).sum();
            let rows = Proportion { hits, of: rows.iter().map(|rows| rows.len() as u64).sum() };
            let held_out = Held::new(rows, limit.expected(rows.of, CONFIDENCE));
            Some(Limited { measure, limit, held_out })
        })
        .collect();
    let rate = limits.iter().map(|limited| limited.limit.rate).fold(wanted.rate, f64::max);
    let flips = flips(&calibration, &held_out).ok_or_else(|| refused(FEW))?;

    let mut stream = Stream::new(wanted.seed, 1);
    let (mut powers, mut unread) = (Vec::new(), Vec::new());
    for (name, change) in changes {
        match reader.read(reference, &change) {
            Ok(tokens) => {
                let read = Read::new(&own, &tokens);
                let moved = Proportion::count(
                    &read.digests.iter().zip(&own_digests).map(|(a, b)| a != b).collect::<Vec<_>>(),
                );
                powers.push(power(name, moved, &read, [&calibration, &held_out], &limits, &mut stream));
            }
            Err(RunFailure::Engine { error: EngineError::Environment(error), .. }) => {
                return Err(RunFailure::Engine {
                    cell: Box::new(reference),
                    error: EngineError::Environment(error),
                });
            }
            Err(error) => unread.push((name, error.to_string())),
        }
        watch();
    }
    let count = |units: &Vec<Vec<usize>>| units.iter().flatten().count() as u64;
    let tokens = |units: &Vec<Vec<usize>>| units.iter().flatten().map(|item| own[*item].len() as u64).sum();
    Ok(Tolerance {
        reference,
        null,
        items: halves.each_ref().map(count),
        tokens: halves.each_ref().map(tokens),
        clusters: halves.each_ref().map(|units| units.len() as u64),
        rate,
        limits,
        flips,
        powers,
        unread,
    })
}

const FEW: &str = "two items or more have to be in either half: ask for more items";

fn refused(sentence: &str) -> RunFailure {
    RunFailure::Question(sentence.to_owned())
}

/// The settings beside the reference of which no two compute alike, each with the number of cells that it stands for: a batch or threads
/// that an order does not follow move no bit, so that they are read once.
fn distinct(cells: &[Cell], reference: Cell, wanted: Wanted<'_>) -> Vec<(Cell, u64)> {
    let computes = |cell: Cell| match cell.compute {
        Compute::Lab(numerics) => {
            let batch = numerics.minds_its_rows().then_some((cell.serving.batch, cell.serving.asking));
            Some((numerics.on_threads(NonZeroUsize::MIN), batch))
        }
        _ => None,
    };
    let mut found: Vec<(Cell, u64)> = vec![(reference, 0)];
    for cell in cells {
        match found.iter_mut().find(|(other, _)| computes(*other) == computes(*cell)) {
            Some((_, stands_for)) => *stands_for += 1,
            None => found.push((*cell, 1)),
        }
    }
    let others = found.split_off(1);
    let part = wanted.part.unwrap_or(others.len());
    let mut chosen: Vec<usize> =
        shuffle((0..others.len()).collect(), wanted.seed).into_iter().take(part).collect();
    chosen.sort_unstable();
    chosen.into_iter().map(|at| others[at]).collect()
}

/// What reads the answers of the reference again.
struct Reader<'a> {
    checkpoint: &'a Checkpoint,
    subject: &'a Subject<'a>,
    plan: &'a Plan,
    questions: Vec<Question>,
    layout: Layout,
    /// Of each item the tokens that the reference wrote.
    answers: Vec<Vec<u32>>,
}

impl Reader<'_> {
    /// Has the reference answer.
    fn answer(&mut self, reference: Cell) -> Result<Vec<Vec<Token>>, RunFailure> {
        let Compute::Lab(numerics) = reference.compute else { return Ok(Vec::new()) };
        let failed = |error| RunFailure::Engine { cell: Box::new(reference), error };
        let mut lab = Lab::load(self.checkpoint, on_all_threads(numerics)).map_err(failed)?;
        let tokens = self.in_groups(&mut lab, reference, numerics.minds_its_rows()).map_err(failed)?;
        self.answers = tokens.iter().map(|tokens| tokens.iter().map(|token| token.id).collect()).collect();
        Ok(tokens)
    }

    /// The items in two halves, each as those that hang together: by chance, so that they are alike.
    fn halves(&self, seed: u64) -> Result<[Vec<Vec<usize>>; 2], RunFailure> {
        let mut units: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (item, question) in self.questions.iter().enumerate() {
            units.entry(question.cluster().unwrap_or_else(|| question.itself())).or_default().push(item);
        }
        let mut units = shuffle(units.into_values().collect(), seed);
        let held_out = units.split_off(units.len() / 2);
        if units.len() < 2 {
            return Err(refused(FEW));
        }
        Ok([units, held_out])
    }

    /// What a change, or another setting, shows after each token that the reference wrote.
    fn read(&self, cell: Cell, change: &Change) -> Result<Vec<Vec<Token>>, RunFailure> {
        let failed = |error| RunFailure::Engine { cell: Box::new(cell), error };
        let read = || match change {
            Change::Numerics(numerics) => {
                let mut lab = Lab::load(self.checkpoint, on_all_threads(*numerics))?;
                if numerics.minds_its_rows() {
                    self.in_groups(&mut lab, cell, true)
                } else {
                    self.at_once(&mut lab, cell)
                }
            }
            Change::Fault(numerics, fault) => {
                let kernel = Faulty::new(on_all_threads(*numerics), *fault, None, Fast::new);
                let kernel = kernel.map_err(|error| EngineError::Environment(error.to_string()))?;
                self.at_once(&mut Lab::on(self.checkpoint, kernel)?, cell)
            }
        };
        read().map_err(failed)
    }

    fn prompt(&self, item: usize) -> Prompt {
        let tokens = self.questions[item].tokens.clone();
        Prompt { item: item as u64, tokens, replay: self.answers.get(item).cloned() }
    }

    /// As a run reads them, token by token, in the batch of a cell; in larger ones where no row minds the others.
    fn in_groups<K: Kernel>(
        &self,
        lab: &mut Lab<'_, K>,
        cell: Cell,
        minds_its_rows: bool,
    ) -> Result<Vec<Vec<Token>>, EngineError> {
        let batch = if minds_its_rows {
            cell.serving.batch
        } else {
            NonZeroUsize::new(16).unwrap_or(NonZeroUsize::MIN)
        };
        let mut samples = Vec::new();
        for group in self.layout.groups(cell.serving.grouping, batch) {
            let prompts: Vec<Prompt> = group.iter().map(|item| self.prompt(*item as usize)).collect();
            lab.generate(&prompts, &self.request(cell, group[0] as usize), &mut samples)?;
        }
        samples.sort_by_key(|sample| sample.item);
        Ok(samples
            .into_iter()
            .map(|sample| sample.steps.into_iter().map(|step| step.token).collect())
            .collect())
    }

    /// Prompt and answer at once, which has the same bits where no row minds the others.
    fn at_once<K: Kernel>(&self, lab: &mut Lab<'_, K>, cell: Cell) -> Result<Vec<Vec<Token>>, EngineError> {
        let asking = Asking::default();
        let request = Request { max_new_tokens: 1, asking, ..self.request(cell, 0) };
        let mut rows = Rows { of: self, candidates: request.candidates, cell, rows: Vec::new(), error: None };
        rows.rows.resize_with(self.questions.len(), Vec::new);
        let (mut group, mut tokens) = (Vec::new(), 0);
        for item in 0..self.questions.len() {
            let Prompt { item: number, tokens: mut all, .. } = self.prompt(item);
            all.extend(self.answers[item].iter().take(self.answers[item].len().saturating_sub(1)));
            tokens += all.len();
            group.push(Prompt { item: number, tokens: all, replay: None });
            if tokens >= TOGETHER || item + 1 == self.questions.len() {
                lab.generate(&group, &request, &mut rows)?;
                (group, tokens) = (Vec::new(), 0);
            }
        }
        rows.error.map_or(Ok(rows.rows), Err)
    }

    fn request(&self, cell: Cell, item: usize) -> Request {
        request(cell, &self.questions[item], &self.plan.generation, self.subject)
    }
}

/// The same by all threads of this machine, where these move no bit.
fn on_all_threads(numerics: Numerics) -> Numerics {
    numerics.on_threads(thread::available_parallelism().unwrap_or(NonZeroUsize::MIN))
}

/// Takes what follows each token of an answer that is read with its prompt.
struct Rows<'r> {
    of: &'r Reader<'r>,
    candidates: usize,
    cell: Cell,
    rows: Vec<Vec<Token>>,
    error: Option<EngineError>,
}

impl Observer for Rows<'_> {
    fn finished(&mut self, _: trace::Sample) {}

    fn wants_logits(&self) -> bool {
        true
    }

    fn logits(&mut self, item: u64, read: usize, logits: &[f32]) {
        let at = item as usize;
        let answer = &self.of.answers[at];
        let place = read.checked_sub(self.of.questions[at].tokens.len());
        let Some(&id) = place.and_then(|place| answer.get(place)) else { return };
        match rank(logits, self.candidates) {
            Ok(Ranking { candidates, margin, probability }) => {
                let seen =
                    Seen::Logits { digest: Digest::of_logits(logits), candidates, margin, probability };
                self.rows[at].push(Token { id, seen });
            }
            Err(error) => {
                let (numerics, problem) = (self.cell.to_string(), error.to_string());
                self.error.get_or_insert(EngineError::NotANumber { item, read, numerics, problem });
            }
        }
    }
}

/// What a setting shows, beside the reference.
struct Read {
    /// Of each item, token by token, how far it is.
    rows: Vec<Vec<[f64; Measure::ALL.len()]>>,
    digests: Vec<Digest>,
}

impl Read {
    fn new(own: &[Vec<Token>], other: &[Vec<Token>]) -> Read {
        let item = |(own, other): (&Vec<Token>, &Vec<Token>)| {
            own.iter().zip(other).filter_map(|(a, b)| measured(a, b)).collect()
        };
        let digests = other.iter().flatten().filter_map(Token::digest).collect();
        Read { rows: own.iter().zip(other).map(item).collect(), digests }
    }

    /// Of items that hang together.
    fn of<'r>(&'r self, unit: &'r [usize], measure: Measure) -> impl Iterator<Item = f64> + 'r {
        unit.iter().flat_map(|item| &self.rows[*item]).map(move |row| row[measure as usize])
    }
}

/// Half of the items, under all settings.
struct Half<'h> {
    units: &'h [Vec<usize>],
    null: &'h [&'h Read],
}

impl Half<'_> {
    /// The rows of the null, by items that hang together.
    fn clusters(&self, measure: Measure) -> Vec<Vec<f64>> {
        let rows = |unit: &Vec<usize>| self.null.iter().flat_map(|read| read.of(unit, measure)).collect();
        self.units.iter().map(rows).collect()
    }

    /// By setting, for means of several.
    fn rows(&self, reads: &[&Read], measure: Measure) -> roc::Rows {
        let mut rows = roc::Rows::default();
        for read in reads {
            let units: Vec<Vec<f64>> = self
                .units
                .iter()
                .map(|unit| read.of(unit, measure).map(|row| weighed(measure, row)).collect())
                .collect();
            rows.add(units.iter().map(Vec::as_slice));
        }
        rows
    }

    fn flips(&self) -> Sample {
        let clusters = self.clusters(Measure::RankFlips);
        Sample::of_hits(clusters.iter().map(|rows| (beyond(rows, 0.0), rows.len() as u64)))
    }
}

/// What is added up: steps by their orders of magnitude, for a mean of theirs would be that of the numbers nearest to 0.
fn weighed(measure: Measure, row: f64) -> f64 {
    if measure == Measure::Ulp { log(1.0 + row) } else { row }
}

fn flips(calibration: &Half<'_>, held_out: &Half<'_>) -> Option<Flips> {
    let sample = calibration.flips();
    let interval = sample.interval(2.0 * CONFIDENCE - 1.0)?;
    let held_out = Held::new(held_out.flips().proportion(), sample.expected(CONFIDENCE)?);
    Some(Flips { rows: sample.proportion(), limit: interval.upper, interval, held_out })
}

fn power(
    name: String,
    moved: Proportion,
    read: &Read,
    [calibration, held_out]: [&Half<'_>; 2],
    limits: &[Limited],
    stream: &mut Stream,
) -> Power {
    let until = |half: &Half<'_>, measure: Measure, stream: &mut Stream| {
        let (null, own) = (half.rows(half.null, measure), half.rows(&[read], measure));
        let all: Vec<usize> = (0..half.units.len()).collect();
        (roc::until(&null, &own, TOLD, &all, stream), null, own, all)
    };
    // The first to tell, and of those the one that tells most by one row.
    let one_row = |half: &Half<'_>, measure: Measure| {
        let of = |reads: &[&Read]| -> Vec<f64> {
            reads.iter().flat_map(|read| half.units.iter().flat_map(|unit| read.of(unit, measure))).collect()
        };
        (of(half.null), of(&[read]))
    };
    let rank = |measure: &Measure, stream: &mut Stream| {
        let (null, own) = one_row(calibration, *measure);
        let auc = roc::auc(&null, &own).unwrap_or(0.5);
        (until(calibration, *measure, stream).0.unwrap_or(u64::MAX), 1.0 - auc)
    };
    let ranked = Measure::ALL.into_iter().map(|measure| (rank(&measure, stream), measure));
    let best = ranked.min_by(|((a, x), _), ((b, y), _)| a.cmp(b).then(x.total_cmp(y)));
    let by = best.map_or(Measure::Kl, |(_, measure)| measure);
    let (null, own) = one_row(held_out, by);
    let (tokens, null_rows, own_rows, all) = until(held_out, by, stream);
    let interval = roc::redrawn_until(&null_rows, &own_rows, TOLD, all.len(), CONFIDENCE, stream);
    let most = tokens.map_or(u64::MAX, |tokens| 2 * tokens).min(own_rows.count());
    let curve = roc::sizes(most)
        .map(|size| (size, roc::auc_of_means(&null_rows, &own_rows, size, &all, stream)))
        .collect();
    let exceeds = |row: &[f64; Measure::ALL.len()]| {
        limits.iter().any(|limited| row[limited.measure as usize] > limited.limit.limit)
    };
    let rows = || held_out.units.iter().flatten().flat_map(|item| &read.rows[*item]);
    Power {
        name,
        moved,
        by,
        auc: roc::auc(&null, &own).unwrap_or(0.5),
        roc: FALSE_ALARMS
            .into_iter()
            .zip(roc::detected(&null, &own, &FALSE_ALARMS))
            .map(|(x, y)| [x, y])
            .collect(),
        beyond: Proportion {
            hits: rows().filter(|row| exceeds(row)).count() as u64,
            of: rows().count() as u64,
        },
        tokens,
        interval,
        curve,
    }
}
