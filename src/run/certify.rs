//! The certificate of a cell: which of its tokens no other order of addition moves, held against what orders really move.
//!
//! A token was chosen because its logit is the highest. Another order moves all logits a little, so that another token is chosen
//! where one comes nearer by more than the margin between them. How near others come is measured: samples that are drawn are read
//! again in every other way of the family. The bound is the largest margin of which some rival lost a third or more
//! there. Where too few margins were that small to tell, it is higher: as high as the smallest hundred of them, or three times as
//! high as any rival came nearer, if that is less. A token whose margin is above the bound is certified by that margin: a rival would have to come three times as near as any
//! did. All other tokens are read again in every way, so that of them it is known whether they change, in which way, and to
//! what. That is a measurement and no proof; where other cells of the run are done, it is held against them.

use std::{
    collections::{BTreeMap, BTreeSet},
    num::NonZeroUsize,
    path::Path,
    thread,
};

use serde::Serialize;

use super::{
    bisect::{self, BisectError, opened},
    groups::Layout,
    request,
    reread::Batch,
    review,
    verify::drawn_by,
};
use crate::{
    cause::{
        CauseError,
        passage::{Length, Rows},
        transplant::Transplant,
    },
    cell::{Axis, Cell, Compute, Serving, Setting},
    digest::Digest,
    engine::{
        Engine as _, EngineError, Prompt,
        ending::{Decode, Endings},
        lab::Lab,
    },
    model::{Checkpoint, Decoder, Subject},
    numerics::{
        Numerics,
        choice::{Choice, rank},
        kernel::Fast,
        order::{Launch, ORDERS},
    },
    plan::gate::groups,
    record::Record,
    store::{
        lines::Lines,
        run::{Run, RunError},
        trace::Reader,
    },
    suite::{answer::Kind, question::Question, score::Outcome as Answered},
    trace::{Finish, Sample, Token},
    verdict::Outcome,
};

/// What may differ between cells of a family: how sums are added and attention is brought together, and in which calls.
pub const FAMILY: &[Axis] = &[
    Axis::Order,
    Axis::Attention,
    Axis::Threads,
    Axis::Batch,
    Axis::PrefillChunk,
    Axis::Grouping,
    Axis::Repeat,
];

/// A rival that has come nearer by this part of its margin has lost too much of it.
pub const PART: f64 = 1.0 / 3.0;

/// A margin below which fewer were measured than these is not told apart from them.
const SEEN: usize = 100;

/// How many of a hundred samples are read again in every way, where nobody says.
pub const USUAL: f64 = 12.5;

/// What is asked.
#[derive(Clone, Copy)]
pub struct Wanted {
    /// Of which cell; the first of the lab that is done, where there is none.
    pub cell: Option<Cell>,
    /// How many of a hundred samples are read again in every way, to measure how near rivals come; at least one.
    pub percent: f64,
    /// A number that moves the draw.
    pub seed: u64,
    /// Are only the ways of the run's own cells asked? How near rivals come is measured in every order, whatever is asked.
    pub own: bool,
}

impl Default for Wanted {
    fn default() -> Wanted {
        Wanted { cell: None, percent: USUAL, seed: 0, own: false }
    }
}

/// Which tokens of a cell no other way of its family changes.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Certificate {
    /// The cell.
    pub cell: Cell,
    /// The other ways to compute, a cell for each: orders, and where an order follows them, threads and calls.
    pub ways: Vec<Cell>,
    /// How many answers the cell has.
    pub items: u64,
    /// How many tokens they have.
    pub tokens: u64,
    /// How many answers were drawn, to measure how near rivals come.
    pub drawn: u64,
    /// In how many ways that was measured.
    pub measured: u64,
    /// By how much a rival came nearer there, at most.
    pub nearer: f64,
    /// The margin above which no rival lost a third of it there.
    pub bound: f64,
    /// How many tokens are certified because their margin is above the bound.
    pub by_margin: u64,
    /// How many because they were read again in every way, and stayed.
    pub by_reading: u64,
    /// The tokens that change in some way.
    pub changes: Vec<Change>,
    /// How many answers have none of these.
    pub settled: u64,
    /// How many tokens were read again for this, prompts included.
    pub read: u64,
    /// How many there are in all ways together.
    pub of: u64,
    /// What other cells of the run say of it.
    pub scored: Vec<Scored>,
}

/// A token that changes.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Change {
    /// In which item, by its number.
    pub item: u64,
    /// By its name.
    pub id: String,
    /// After how many tokens of the answer.
    pub place: usize,
    /// How much higher its logit is than that of the next one.
    pub margin: f64,
    /// All that was read before it, prompt and answer, where the tokenizer makes the same tokens of that text.
    pub prompt: Option<String>,
    /// Its text.
    pub token: String,
    /// The text that follows it in the cell.
    pub rest: String,
    /// What becomes of the answer in the cell.
    pub outcome: Answered,
    /// What it changes to.
    pub to: Vec<Other>,
}

/// Another token, and how the answer goes on from there.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Other {
    /// The token.
    #[serde(skip)]
    pub id: u32,
    /// Its text.
    pub token: String,
    /// In which ways.
    pub ways: Vec<Cell>,
    /// The text that follows it in the first of them, answered alone.
    pub rest: String,
    /// What becomes of the answer there.
    pub outcome: Answered,
}

/// What a cell that has run says of a certificate.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Scored {
    /// Which.
    pub cell: Cell,
    /// How many answers part from those of the certified cell.
    pub parted: u64,
    /// How many of them part first at the token that the certificate names, and with the token that it names.
    pub foreseen: u64,
    /// How many part at a token that is certified, or in another way than the certificate says.
    pub missed: u64,
    /// How many should have parted and did not.
    pub absent: u64,
    /// How many part after their calls had other rows than in the certified cell, because others had ended earlier or later: of
    /// these nothing was told.
    pub untold: u64,
}

impl Certificate {
    /// Every answer is settled, some may change, or a cell has run that refutes it.
    pub fn verdict(&self) -> Outcome {
        match () {
            () if self.scored.iter().any(|scored| scored.missed + scored.absent > 0) => Outcome::Fail,
            () if self.changes.is_empty() => Outcome::Pass,
            () => Outcome::Unknown,
        }
    }
}

/// How sums are added, and in which calls where that moves them: two cells of one way have the same bits.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Way {
    numerics: Numerics,
    calls: Option<Serving>,
}

impl Way {
    /// That of a cell of the lab.
    fn of(cell: Cell) -> Option<Way> {
        let Compute::Lab(numerics) = cell.compute else { return None };
        let threads = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
        let calls = numerics.minds_its_rows().then_some(Serving { seed: 0, ..cell.serving });
        Some(Way { numerics: numerics.on_threads(threads), calls })
    }
}

/// The other ways of a cell's family, each with a cell: those of the run, of which it is told how many they are, and then every
/// other order of the table.
fn ways(cell: Cell, cells: &[Cell]) -> (Vec<(Cell, Way)>, usize) {
    let family = groups(cells, FAMILY).into_iter().find(|family| family.contains(&cell)).unwrap_or_default();
    // A matrix unit is hardware of its own: its cells are those of the run, if it has any.
    let rounding = ORDERS.iter().filter(|entry| !entry.example.is_of_unit());
    let of_table = rounding.flat_map(|entry| {
        let follows = |threads| entry.example.under(Launch { rows: 1, threads });
        // An order that follows the threads is another one on two of them, and on four.
        let threads: &[usize] = if follows(1) == follows(2) { &[1] } else { &[2, 4] };
        threads.iter().filter_map(move |threads| {
            let threads = NonZeroUsize::new(*threads)?;
            cell.with([Setting::Order(entry.example), Setting::Threads(threads)]).ok()
        })
    });
    let own = Way::of(cell);
    let mut ways: Vec<(Cell, Way)> = Vec::new();
    let mut of_run = 0;
    for (number, other) in family.iter().copied().chain(of_table).enumerate() {
        let Some(way) = Way::of(other) else { continue };
        if Some(way) != own && ways.iter().all(|(_, known)| *known != way) {
            ways.push((other, way));
        }
        if number < family.len() {
            of_run = ways.len();
        }
    }
    (ways, of_run)
}

/// The first cell of every family of the lab: from it the others can be told.
pub fn firsts(cells: &[Cell]) -> Vec<Cell> {
    let of_lab = |cell: &&Cell| matches!(cell.compute, Compute::Lab(_));
    let families = groups(cells.iter().filter(of_lab), FAMILY);
    families.into_iter().filter_map(|family| family.first().copied()).collect()
}

/// Certifies a cell of a run. `watch` is told how many of how many readings are done.
///
/// # Errors
///
/// When the run or the model cannot be read, when another model ran, or when the cell does not choose the best token of its own
/// logits, row by row.
pub fn certify(
    folder: &Path,
    checkpoint: &Checkpoint,
    subject: &Subject<'_>,
    wanted: Wanted,
    watch: &mut dyn FnMut(usize, usize),
) -> Result<Certificate, BisectError> {
    let run = opened(folder, subject)?;
    let cell = wanted.cell.map_or_else(|| first_done(&run), Ok)?;
    certifiable(&run, cell)?;
    let trace = bisect::trace(&run, cell)?;
    let mut certifying = Certifying::new(&run, checkpoint, subject, cell, trace)?;
    let items = certifying.lengths.len() as u64;
    if items == 0 {
        return Err(BisectError::Refused(format!(
            "{} asks nothing: give its matrix some items",
            folder.display()
        )));
    }
    let (all, of_run) = ways(cell, &run.about.cells);
    let ways = if wanted.own { &all[..of_run] } else { &all[..] };
    if ways.is_empty() {
        return Err(BisectError::Refused(format!(
            "{} has no other way to add than {cell}: ask for all orders",
            folder.display()
        )));
    }
    let count = ((items as f64 * wanted.percent / 100.0).ceil() as u64).clamp(1, items);
    let drawn = drawn_by(&format!("reprocheck certify 1\n{trace}\n{}\n{cell}\n", wanted.seed), count, items);
    let mut found = Found::default();
    let mut done = 0;
    let mut next = || {
        done += 1;
        watch(done, all.len() + ways.len());
    };

    // How near rivals come where all is read.
    let whole = |item: &u64| (*item, certifying.lengths[*item as usize].followed);
    let mut wanted: BTreeMap<u64, usize> = drawn.iter().map(whole).collect();
    found.add(&mut certifying, (&all, ways.len()), &wanted, &mut next)?;
    let mut margins = Vec::new();
    certifying.each(&mut |item, tokens| {
        let of_item = tokens.iter().filter(|_| wanted.contains_key(&item)).filter_map(Token::margin);
        margins.extend(of_item.map(f64::from));
    })?;
    margins.sort_by(f64::total_cmp);
    let seen = margins.get(SEEN - 1).or(margins.last()).copied().unwrap_or(0.0);
    let nearer = found.nearer;
    let bound = found.lost.max(seen.min(nearer / PART));
    // What has no margin above that is read in every way, and so is all that comes before it.
    let mut rest = BTreeMap::new();
    certifying.each(&mut |item, tokens| {
        let close = tokens.iter().rposition(|token| f64::from(token.margin().unwrap_or(0.0)) <= bound);
        if let (Some(last), false) = (close, wanted.contains_key(&item)) {
            rest.insert(item, last + 1);
        }
    })?;
    found.add(&mut certifying, (ways, ways.len()), &rest, &mut next)?;
    wanted.append(&mut rest);

    let tokens = certifying.lengths.iter().map(|length| length.followed as u64).sum();
    let looked_at = wanted.values().map(|tokens| *tokens as u64).sum::<u64>();
    let of = certifying.lengths.iter().map(|length| (length.prompt + length.followed) as u64).sum::<u64>();
    let Found { changed, read, .. } = found;
    let unsettled: BTreeSet<u64> = changed.keys().map(|(item, _)| *item).collect();
    let scored = certifying.scored(ways, &changed)?;
    let changes = certifying.changes(ways, &changed)?;
    Ok(Certificate {
        cell,
        ways: ways.iter().map(|(cell, _)| *cell).collect(),
        items,
        tokens,
        drawn: count,
        measured: all.len() as u64,
        nearer,
        bound,
        by_margin: tokens - looked_at,
        by_reading: looked_at - changes.len() as u64,
        changes,
        settled: items - unsettled.len() as u64,
        read,
        of: of * ways.len() as u64,
        scored,
    })
}

/// The first cell of the lab that is done.
fn first_done(run: &Run) -> Result<Cell, BisectError> {
    for (cell, record) in run.records(&run.about.cells) {
        if let (Compute::Lab(_), Some(Record::Done(_))) = (cell.compute, record?) {
            return Ok(cell);
        }
    }
    Err(BisectError::Refused(format!(
        "no cell of the lab is done in {}: run one, or go on with --resume",
        run.folder.display()
    )))
}

/// Refuses a cell whose tokens are not the best of its own logits, row by row.
fn certifiable(run: &Run, cell: Cell) -> Result<(), BisectError> {
    let generation = &run.about.generation;
    let refused = |why: &str| Err(BisectError::Refused(format!("{cell} {why}")));
    let Compute::Lab(numerics) = cell.compute else {
        return refused("is not of the lab, so nothing here adds in its orders: name a cell of the lab");
    };
    if cell.serving.choice(generation.choice) != Choice::Greedy {
        return refused(
            "draws its tokens, and a margin says nothing of a draw: name a cell at temperature 0",
        );
    }
    if generation.replay && run.about.reference != Some(cell) {
        return refused("was given its tokens and chose none: name the reference");
    }
    if cell.serving.has_history() {
        return refused(
            "has other calls than those of its own suite, read once: name the cell without neighbors, cache, verify and rebuild",
        );
    }
    if numerics.precision().sees_other_rows() {
        return refused(
            "minds who shares a batch with a prompt, so no sample can be read alone: run its cells instead",
        );
    }
    Ok(())
}

/// The rivals of a token that are kept: how much higher its logit was than that of each, and by how much that has come nearer.
fn rivals<'t>(token: &'t Token, logits: &'t [f32]) -> impl Iterator<Item = (f64, f64)> + use<'t> {
    let logit = |token: u32| logits.get(token as usize).map_or(f64::NAN, |logit| f64::from(*logit));
    let candidates = token.candidates();
    candidates.iter().skip(1).map(move |rival| {
        let margin = f64::from(candidates[0].logit) - f64::from(rival.logit);
        (margin, margin - (logit(candidates[0].token) - logit(rival.token)))
    })
}

/// What has come of tokens that were read in another way: for each place the other tokens, each with the numbers of its ways.
type Changed = BTreeMap<(u64, usize), BTreeMap<u32, Vec<usize>>>;

/// What has been found by reading.
#[derive(Default)]
struct Found {
    /// The largest margin of which a rival has lost [`PART`].
    lost: f64,
    /// By how much a rival has come nearer, at most.
    nearer: f64,
    changed: Changed,
    /// How many tokens were read, prompts included.
    read: u64,
}

impl Found {
    /// Reads of these items so many tokens of their answers in every way. What changes is kept of the first ways.
    fn add(
        &mut self,
        certifying: &mut Certifying<'_>,
        (ways, asked): (&[(Cell, Way)], usize),
        wanted: &BTreeMap<u64, usize>,
        next: &mut dyn FnMut(),
    ) -> Result<(), BisectError> {
        let Found { lost, nearer, changed, read } = self;
        for (number, (other, way)) in ways.iter().enumerate() {
            *read += certifying.read(*other, *way, wanted, &mut |item, place, token, logits, best| {
                for (margin, by) in rivals(token, logits) {
                    *nearer = nearer.max(by);
                    if by > 0.0 && by >= PART * margin {
                        *lost = lost.max(margin);
                    }
                }
                if best != token.id && number < asked {
                    changed.entry((item, place)).or_default().entry(best).or_default().push(number);
                }
            })?;
            next();
        }
        Ok(())
    }
}

/// Sees a token of an item that is read again: after how many tokens it came, the token, the logits now, and the best of them.
type See<'s> = &'s mut (dyn FnMut(u64, usize, &Token, &[f32], u32) + Send);

struct Certifying<'a> {
    run: &'a Run,
    checkpoint: &'a Checkpoint,
    subject: &'a Subject<'a>,
    cell: Cell,
    trace: Digest,
    questions: Lines<Question>,
    layout: Layout,
    lengths: Vec<Length>,
}

impl<'a> Certifying<'a> {
    fn new(
        run: &'a Run,
        checkpoint: &'a Checkpoint,
        subject: &'a Subject<'a>,
        cell: Cell,
        trace: Digest,
    ) -> Result<Certifying<'a>, BisectError> {
        let mut questions = review::questions(run)?;
        let (mut layout, mut lengths) = (Layout::default(), Vec::new());
        let mut reader = Reader::open(&run.store, trace).map_err(RunError::from)?;
        for item in 0..questions.len() {
            let question = questions.get(item)?;
            let (line, _) = reader.expect(item).map_err(RunError::from)?;
            layout.add(&question);
            lengths.push(Length { prompt: question.tokens.len(), followed: line.tokens.len() });
        }
        Ok(Certifying { run, checkpoint, subject, cell, trace, questions, layout, lengths })
    }

    /// The tokens of every item.
    fn each(&self, see: &mut dyn FnMut(u64, &[Token])) -> Result<(), BisectError> {
        let mut reader = Reader::open(&self.run.store, self.trace).map_err(RunError::from)?;
        for item in 0..self.lengths.len() as u64 {
            let (_, tokens) = reader.expect(item).map_err(RunError::from)?;
            see(item, &tokens);
        }
        Ok(())
    }

    /// Reads of these items so many tokens of their answers in another way. Returns how many tokens were read, prompts included.
    fn read(
        &mut self,
        other: Cell,
        way: Way,
        wanted: &BTreeMap<u64, usize>,
        see: See<'_>,
    ) -> Result<u64, BisectError> {
        if wanted.is_empty() {
            return Ok(0);
        }
        let kernel = Transplant::of([way.numerics; 2], 0)?;
        let decoder = Decoder::load(kernel, self.checkpoint).map_err(CauseError::from)?;
        let mut calls: BTreeMap<u64, Vec<Rows>> = BTreeMap::new();
        if let Some(serving) = way.calls {
            let of_all = self.layout.calls(serving, &self.lengths).flatten();
            calls.extend(of_all.filter(|(item, _)| wanted.contains_key(item)));
        }
        let mut reader = Reader::open(&self.run.store, self.trace).map_err(RunError::from)?;
        let (mut batch, mut read) = (Batch::default(), 0);
        for item in 0..self.lengths.len() as u64 {
            let (_, mut tokens) = reader.expect(item).map_err(RunError::from)?;
            let Some(followed) = wanted.get(&item).copied().filter(|followed| *followed > 0) else {
                continue;
            };
            tokens.truncate(followed);
            let question = self.questions.get(item)?;
            read += (question.tokens.len() + followed) as u64;
            batch.add(question, tokens, calls.remove(&item));
            if batch.is_full() {
                ranked(&std::mem::take(&mut batch), &decoder, other, see)?;
            }
        }
        ranked(&batch, &decoder, other, see)?;
        Ok(read)
    }

    /// What the run's other cells say: a cell has the bits of its way, so that where it parts first follows from what was read.
    fn scored(&mut self, ways: &[(Cell, Way)], changed: &Changed) -> Result<Vec<Scored>, BisectError> {
        let own = Way::of(self.cell);
        let mut all = Vec::new();
        for family in
            groups(&self.run.about.cells, FAMILY).iter().filter(|family| family.contains(&self.cell))
        {
            for (cell, record) in self.run.records(family) {
                let (Some(way), Ok(Some(Record::Done(done)))) = (Way::of(cell), record) else { continue };
                if cell == self.cell {
                    continue;
                }
                let number = ways.iter().position(|(_, known)| *known == way);
                if number.is_none() && Some(way) != own {
                    continue;
                }
                all.push(self.held_against((cell, way), done.trace, number, changed)?);
            }
        }
        Ok(all)
    }

    fn held_against(
        &self,
        (cell, way): (Cell, Way),
        trace: Digest,
        number: Option<usize>,
        changed: &Changed,
    ) -> Result<Scored, BisectError> {
        let mut scored = Scored { cell, parted: 0, foreseen: 0, missed: 0, absent: 0, untold: 0 };
        let alike = self.alike(way, trace)?;
        let [mut one, mut other] = [
            Reader::open(&self.run.store, self.trace).map_err(RunError::from)?,
            Reader::open(&self.run.store, trace).map_err(RunError::from)?,
        ];
        for item in 0..self.lengths.len() as u64 {
            let (line, _) = one.expect(item).map_err(RunError::from)?;
            let (theirs, _) = other.expect(item).map_err(RunError::from)?;
            // Whatever comes later was chosen in other calls.
            let told = alike.get(&item).copied().unwrap_or(usize::MAX);
            let places = 0..line.tokens.len().max(theirs.tokens.len());
            let parts = places.clone().find(|place| line.tokens.get(*place) != theirs.tokens.get(*place));
            let foretold = number.and_then(|number| {
                places.clone().take(told).find_map(|place| {
                    let to = changed.get(&(item, place))?;
                    let (token, _) = to.iter().find(|(_, ways)| ways.contains(&number))?;
                    Some((place, *token))
                })
            });
            let happened = parts.map(|place| (place, theirs.tokens.get(place).copied()));
            scored.parted += u64::from(happened.is_some());
            let late = happened.filter(|(place, _)| *place >= told);
            scored.untold += u64::from(late.is_some() && foretold.is_none());
            match (happened.filter(|_| late.is_none()), foretold.map(|(place, token)| (place, Some(token)))) {
                (Some(happened), Some(foretold)) if happened == foretold => scored.foreseen += 1,
                (Some(_), _) => scored.missed += 1,
                (None, Some(_)) => scored.absent += 1,
                (None, None) => {}
            }
        }
        Ok(scored)
    }

    /// Of how many tokens of each answer the calls had as many rows as in the certified cell, where rows matter.
    fn alike(&self, way: Way, trace: Digest) -> Result<BTreeMap<u64, usize>, BisectError> {
        let Some(serving) = way.calls else { return Ok(BTreeMap::new()) };
        let mut reader = Reader::open(&self.run.store, trace).map_err(RunError::from)?;
        let mut theirs = self.lengths.clone();
        for (item, length) in (0..).zip(&mut theirs) {
            length.followed = reader.expect(item).map_err(RunError::from)?.0.tokens.len();
        }
        let groups = self.layout.calls(serving, &self.lengths).zip(self.layout.calls(serving, &theirs));
        let items = groups.flat_map(|(ours, theirs)| ours.into_iter().zip(theirs));
        Ok(items
            .map(|((item, ours), (_, theirs))| {
                let alike = ours.iter().zip(&theirs).take_while(|(ours, theirs)| ours == theirs).count();
                (item, (alike + 1).saturating_sub(self.lengths[item as usize].prompt))
            })
            .collect())
    }

    /// The changes with their texts, and how each answer goes on.
    fn changes(&mut self, ways: &[(Cell, Way)], changed: &Changed) -> Result<Vec<Change>, BisectError> {
        let mut changes = Vec::new();
        let mut reader = Reader::open(&self.run.store, self.trace).map_err(RunError::from)?;
        // Where to go on, in which way, and for which change.
        let mut onward = BTreeMap::<usize, Vec<_>>::new();
        let places: BTreeSet<u64> = changed.keys().map(|(item, _)| *item).collect();
        for item in 0..places.last().map_or(0, |last| last + 1) {
            let (line, tokens) = reader.expect(item).map_err(RunError::from)?;
            if !places.contains(&item) {
                continue;
            }
            let question = self.questions.get(item)?;
            for (&(_, place), to) in changed.range((item, 0)..=(item, usize::MAX)) {
                let mut others = Vec::new();
                for (token, numbers) in to {
                    let before: Vec<u32> = line.tokens[..place].iter().copied().chain([*token]).collect();
                    onward.entry(numbers[0]).or_default().push((
                        changes.len(),
                        others.len(),
                        question.clone(),
                        before,
                    ));
                    others.push(Other {
                        id: *token,
                        token: self.text(&[*token]),
                        ways: numbers.iter().map(|number| ways[*number].0).collect(),
                        rest: String::new(),
                        outcome: Answered::NoAnswer,
                    });
                }
                changes.push(Change {
                    item,
                    id: question.id.clone(),
                    place,
                    prompt: self.prompt(&question, &line.tokens[..place]),
                    margin: tokens[place].margin().map_or(f64::NAN, f64::from),
                    token: self.text(&line.tokens[place..=place]),
                    rest: self.text(&line.tokens[place + 1..]),
                    outcome: line.scores.flexible.outcome,
                    to: others,
                });
            }
        }
        for (number, all) in onward {
            let Compute::Lab(numerics) = ways[number].0.compute else { continue };
            let mut lab = Lab::load(self.checkpoint, numerics)?;
            for (change, other, question, before) in all {
                let (rest, outcome) = self.continued(&mut lab, ways[number].0, &question, &before)?;
                let to = &mut changes[change].to[other];
                (to.rest, to.outcome) = (rest, outcome);
            }
        }
        Ok(changes)
    }

    /// How an answer that begins so goes on.
    fn continued(
        &self,
        lab: &mut Lab<'_>,
        cell: Cell,
        question: &Question,
        before: &[u32],
    ) -> Result<(String, Answered), BisectError> {
        let request = request(cell, question, &self.run.about.generation, self.subject);
        let decode = self.subject.tokenizer.map(|tokenizer| |tokens: &[u32]| tokenizer.decode(tokens, true));
        let endings = Endings::new(&request, decode.as_ref().map(|decode| decode as &Decode<'_>))?;
        let asked = Prompt { item: question.item, tokens: question.tokens.clone(), replay: None };
        let mut ending = endings.begin(&asked);
        let mut finish = before.iter().fold(None, |_, token| ending.push(*token));
        let mut rest = Vec::new();
        if finish.is_none() {
            let mut onward = request.clone();
            onward.max_new_tokens -= before.len();
            let tokens = [&question.tokens[..], before].concat();
            let prompt = Prompt { item: question.item, tokens, replay: None };
            let mut samples: Vec<Sample> = Vec::new();
            lab.generate(std::slice::from_ref(&prompt), &onward, &mut samples)?;
            for token in samples.iter().flat_map(|sample| &sample.steps).map(|step| step.token.id) {
                rest.push(token);
                finish = ending.push(token);
                if finish.is_some() {
                    break;
                }
            }
        }
        let scores = question.score(&ending.text(), finish == Some(Finish::Length));
        Ok((self.text(&rest), scores.flexible.outcome))
    }

    /// A question and the beginning of its answer as one text, if that reads as these tokens.
    fn prompt(&self, question: &Question, answer: &[u32]) -> Option<String> {
        let tokenizer = self.subject.tokenizer?;
        let prompt = format!("{}{}", question.prompt, self.text(answer));
        let read = [&question.tokens[..], answer].concat();
        (tokenizer.encode(&prompt, true).ok()? == read).then_some(prompt)
    }

    fn text(&self, tokens: &[u32]) -> String {
        self.subject.tokenizer.map_or_else(String::new, |tokenizer| tokenizer.decode(tokens, false))
    }
}

/// A suite of prompts at the border: each ends before a token that changes, so that the first token of its answer tells two ways
/// to add apart. The least margins come first.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Probes {
    /// How many there are.
    pub count: usize,
    /// The suite's own file.
    pub definition: String,
    /// Its questions, one a line, for a file called [`PROBES`].
    pub lines: String,
}

/// What the file of a suite's questions is called.
pub const PROBES: &str = "probes.jsonl";

/// At most so many prompts make a suite.
const MOST: usize = 100;

/// The suite of a certificate.
///
/// # Errors
///
/// When the run's questions cannot be read.
pub fn probes(run: &Run, certificate: &Certificate) -> Result<Probes, BisectError> {
    #[derive(Serialize)]
    struct Probe<'a> {
        id: String,
        prompt: &'a str,
        answer: &'a str,
        kind: Kind,
        stratum: &'a str,
        cluster: &'a str,
    }
    let mut questions = review::questions(run)?;
    // Where rows matter, a prompt by itself is another call.
    let is_alone = |cell: &Cell| matches!(cell.compute, Compute::Lab(numerics) if !numerics.minds_its_rows());
    let tells = |change: &&Change| {
        change.prompt.is_some() && change.to.iter().flat_map(|other| &other.ways).any(is_alone)
    };
    let mut changes: Vec<&Change> = certificate.changes.iter().filter(tells).collect();
    changes.sort_by(|one, other| one.margin.total_cmp(&other.margin));
    changes.truncate(MOST);
    let mut lines = String::new();
    for change in &changes {
        let question = questions.get(change.item)?;
        let probe = Probe {
            id: format!("{}+{}", change.id, change.place),
            prompt: change.prompt.as_deref().unwrap_or_default(),
            answer: &question.answer.text,
            kind: question.answer.kind,
            stratum: &question.suite,
            cluster: &change.id,
        };
        lines += &serde_json::to_string(&probe).expect("it holds nothing but texts");
        lines.push('\n');
    }
    let quoted = |text: String| serde_json::to_string(&text).expect("a text has a form in JSON");
    let (model, cell) = (&run.about.model.name, certificate.cell);
    let title = format!("prompts at which {model} decides most narrowly in {}", cell.get(Axis::Precision));
    let measures = format!(
        "Whether sums are added as in {cell}. Each prompt ends before a token whose rival comes first in another order."
    );
    let definition = format!(
        "version = 1\ntitle = {}\nmeasures = {}\n# The first token of an answer tells.\nlimits = {{ compact = 1, completion = 1 }}\n\
         file = \"{PROBES}\"\nformat = \"jsonl\"\n",
        quoted(title),
        quoted(measures),
    );
    Ok(Probes { count: changes.len(), definition, lines })
}

/// Has samples read, and looks for the best token of each row.
fn ranked(
    batch: &Batch,
    decoder: &Decoder<Transplant<Fast>>,
    cell: Cell,
    see: See<'_>,
) -> Result<(), BisectError> {
    let mut problem = None;
    batch.rows(decoder, |places, logits| {
        for (&(at, place), logits) in places.iter().zip(logits) {
            let (question, recorded) = &batch.samples[at];
            match rank(logits, 1) {
                Ok(ranking) => {
                    see(question.item, place, &recorded[place], logits, ranking.candidates[0].token);
                }
                Err(error) => {
                    let read = question.tokens.len() + place;
                    problem.get_or_insert_with(|| EngineError::NotANumber {
                        item: question.item,
                        read,
                        numerics: cell.to_string(),
                        problem: error.to_string(),
                    });
                }
            }
        }
    });
    problem.map_or(Ok(()), |problem| Err(problem.into()))
}
