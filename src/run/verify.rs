//! A finished run, checked by another machine: of every sample what needs no model, and of those that are drawn what the model
//! computes. What was recorded is read again and not written again, many tokens in a call.
//!
//! Which samples are drawn follows from the run. Its digest is the SHA-256 of these lines: `reprocheck verify 1`; the SHA-256 of what
//! `run.json` says, two blanks and `run.json`; and for every cell that is done, in the order of the run, the digest of its trace,
//! the root of its tree, and its name, with a blank between them. The samples of a cell are drawn by the SHA-256 of three lines, each
//! with its end: that digest, the number that whoever verifies may add, and the name of the cell. The first 8 bytes, little endian,
//! are the seed of [`Stream`] 0, and [`drawn`] takes as many as are wanted from it.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt,
    num::{NonZeroU64, NonZeroUsize},
    path::Path,
    thread,
};

use serde::Serialize;
use serde_json::Value;

use super::{
    bisect::{BisectError, opened},
    gathering::{functions, tree},
    groups::Layout,
    questions, request,
    reread::{Batch, Computed},
    vocabulary,
};
use crate::{
    cause::{
        CauseError,
        passage::{Length, Rows},
        transplant::Transplant,
    },
    cell::{Cell, Compute},
    digest::{Digest, MerkleTree},
    engine::{
        self, Engine as _, Prompt, Request,
        ending::{Decode, Ending, Endings},
        lab::Lab,
    },
    model::{Checkpoint, Decoder, Subject},
    numerics::{
        Numerics,
        choice::{Candidate, Choice},
        kernel::Fast,
        random::Stream,
    },
    plan::Plan,
    record::{About, Done, Record},
    source::Blame as _,
    stats::detection::Draw,
    store::{
        lines::Lines,
        run::{Run, RunError},
        trace::{self, Line, Reader, TraceError},
    },
    suite::{Suite, question::Question},
    trace::{Finish, History, Launched, Launches, Sample, Seen, Sight, Step, Token, chain},
    verdict::Outcome,
};

/// What is asked.
#[derive(Clone, Copy, Default)]
pub struct Wanted<'a> {
    /// Of how many in a hundred samples of a cell the model computes everything again; of at least one.
    pub percent: f64,
    /// A number of whoever verifies, so that not even whoever made the run can tell what is drawn.
    pub seed: u64,
    /// What the run's matrix file means; it is needed where questions do not come from a suite of this binary.
    pub plan: Option<&'a Plan>,
}

/// Of so many in a hundred, where nobody says: a twentieth of the cost, for which a cell that was computed in another way is
/// found for certain, because all of its samples are others, and 59 changed samples in as many cells with 95 %.
pub const USUAL: f64 = 5.0;

/// So many mismatches are kept; all are counted.
const KEPT: usize = 10;

/// The numbers of changed samples for which it is said how likely they are found.
const CHANGED: [u64; 6] = [1, 2, 5, 10, 20, 50];

/// What was checked, and what does not hold.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Verified {
    /// The digest of the run, which the draw follows from.
    pub digest: Digest,
    /// The number that was added to it.
    pub seed: u64,
    /// The cells that were checked: each has a sample of every item.
    pub cells: Vec<Cell>,
    /// How many items there are.
    pub items: u64,
    /// How many samples of every cell were drawn.
    pub drawn: u64,
    /// How many samples, the drawn ones and those that had to be computed with them, the model has computed again.
    pub samples: u64,
    /// How many tokens they have.
    pub tokens: u64,
    /// What was not checked.
    pub unchecked: Vec<Unchecked>,
    /// How likely changed samples are found, wherever they lie in the cells that were checked.
    pub power: Vec<Power>,
    /// The fewest changed samples that are found with 95 %; nothing where not even all of them are.
    pub found_with_95_percent: Option<u64>,
    /// How many samples do not hold.
    pub wrong: u64,
    /// How many mismatches there are.
    pub count: u64,
    /// The first of them.
    pub mismatches: Vec<Mismatch>,
}

impl Verified {
    /// Everything that was checked holds, something does not, or nothing could be checked.
    pub fn verdict(&self) -> Outcome {
        match (self.count, self.samples) {
            (1.., _) => Outcome::Fail,
            (0, 0) => Outcome::Unknown,
            (0, _) => Outcome::Pass,
        }
    }
}

/// Cells that were not checked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Unchecked {
    /// Their engine; of cells that are not done, the cell.
    pub who: String,
    /// How many.
    pub cells: u64,
    /// Why.
    pub why: String,
}

/// How likely so many changed samples are found.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Power {
    /// How many samples were changed.
    pub changed: u64,
    /// The probability that at least one of them is drawn, however they are spread over the cells.
    pub found: f64,
}

/// Something that was recorded and is not what comes of it here.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Mismatch {
    /// In which cell; nothing where it is about the run.
    pub cell: Option<Cell>,
    /// Of which item, by its name; nothing where it is about all of them.
    pub item: Option<String>,
    /// What it is.
    #[serde(flatten)]
    pub difference: Difference,
}

/// What differs.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Difference {
    /// How many tokens of the answer come before; nothing where it is not about one token.
    pub place: Option<usize>,
    /// Of what.
    pub what: &'static str,
    /// What was recorded.
    pub recorded: String,
    /// What comes of it here.
    pub computed: String,
}

impl Difference {
    fn new(what: &'static str, recorded: impl fmt::Display, computed: impl fmt::Display) -> Difference {
        Difference { place: None, what, recorded: recorded.to_string(), computed: computed.to_string() }
    }

    /// The first part in which two values differ, if they do.
    fn between<T: Serialize>(what: &'static str, recorded: &T, computed: &T) -> Option<Difference> {
        let json = |value: &T| serde_json::to_value(value).unwrap_or_default();
        let (recorded, computed) = (json(recorded), json(computed));
        let parts =
            [&recorded, &computed].into_iter().filter_map(Value::as_object).flat_map(|all| all.keys());
        let shown = |all: &Value, key: &String| format!("{key} {}", all.get(key).unwrap_or(&Value::Null));
        let differs = |key: &&String| recorded.get(*key) != computed.get(*key);
        (recorded != computed).then(|| match parts.clone().find(differs) {
            Some(key) => Difference::new(what, shown(&recorded, key), shown(&computed, key)),
            None => Difference::new(what, &recorded, &computed),
        })
    }
}

/// So many of the numbers below `of`, every set of them as likely as any other (Floyd's algorithm).
pub fn drawn(stream: &mut Stream, count: u64, of: u64) -> BTreeSet<u64> {
    let mut drawn = BTreeSet::new();
    for bound in (of.saturating_sub(count)..of).filter_map(|last| NonZeroU64::new(last + 1)) {
        let number = stream.below(bound);
        drawn.insert(if drawn.contains(&number) { bound.get() - 1 } else { number });
    }
    drawn
}

/// The same by the SHA-256 of these words: its first 8 bytes, little endian, are the seed of [`Stream`] 0.
pub(super) fn drawn_by(words: &str, count: u64, of: u64) -> BTreeSet<u64> {
    let seed = Digest::of(words.as_bytes());
    let (first, _) = seed.0.split_first_chunk().expect("a digest has 32 bytes");
    drawn(&mut Stream::new(u64::from_le_bytes(*first), 0), count, of)
}

/// Checks a run. `watch` is told how many of how many samples that the model computes are done.
///
/// # Errors
///
/// When the run or the model cannot be read, when another model ran, or when its questions cannot be made here.
pub fn verify(
    folder: &Path,
    checkpoint: &Checkpoint,
    subject: &Subject<'_>,
    wanted: &Wanted<'_>,
    watch: &mut dyn FnMut(usize, usize),
) -> Result<Verified, BisectError> {
    let run = opened(folder, subject)?;
    let mut found = Found::default();
    let (questions, layout) = asked(&run, subject, wanted.plan, &mut found)?;
    let mut unchecked = Vec::new();
    let done = done(&run, &mut found, &mut unchecked)?;
    let digest = digest(&run.about, &done);

    let about = &run.about;
    let reference = about.reference.filter(|_| about.generation.replay);
    let traced = |cell: Cell| done.iter().find(|(known, _)| *known == cell).map(|(_, done)| done.trace);
    let replayed = match reference.map(traced) {
        None => None,
        Some(None) => {
            return Err(BisectError::Refused(format!(
                "its cells read what the reference wrote, and that is not in {}: run it with --resume",
                folder.display()
            )));
        }
        Some(Some(trace)) => Some(trace::lines(&run.store, trace)?),
    };
    let mut of_lab = Vec::new();
    for (cell, done) in &done {
        match cell.compute {
            Compute::Lab(numerics) => of_lab.push((*cell, numerics, done)),
            _ => note(&mut unchecked, cell.compute.engine().to_string(), ELSEWHERE.to_owned()),
        }
    }
    let items = questions.len();
    let share = (items as f64 * wanted.percent / 100.0).ceil() as u64;
    let draw =
        Draw { groups: of_lab.len() as u64, of: items, drawn: share.clamp(1, items.max(1)).min(items) };
    let mut check = Check {
        run: &run,
        subject,
        questions,
        layout,
        reference,
        replayed,
        found,
        done: (0, 0, draw.groups.saturating_mul(draw.drawn)),
        watch,
    };
    for (cell, done) in done.iter().filter(|(cell, _)| !matches!(cell.compute, Compute::Lab(_))) {
        check.recorded(*cell, done)?;
    }
    // Threads that move no bit are those of this machine, and whatever computes alike is loaded once.
    let threads = thread::available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let mut left: Vec<_> =
        of_lab.iter().map(|(cell, numerics, done)| (*cell, numerics.on_threads(threads), *done)).collect();
    while let Some((first, numerics, _)) = left.first().copied() {
        let history = first.serving.has_history();
        let is_alike = |cell: Cell, other| other == numerics && cell.serving.has_history() == history;
        let alike: Vec<_> = left.extract_if(.., |(cell, other, _)| is_alike(*cell, *other)).collect();
        let mut reading = Reading::open(checkpoint, numerics, history)?;
        for (cell, _, done) in alike {
            let Some(lengths) = check.recorded(cell, done)? else { continue };
            let drawn = drawn_by(&format!("{digest}\n{}\n{cell}\n", wanted.seed), draw.drawn, items);
            check.computed(cell, done, &drawn, &lengths, &mut reading)?;
        }
    }
    let Check { found, done: (samples, tokens, _), .. } = check;
    let changed = CHANGED.into_iter().filter(|changed| *changed <= draw.all());
    Ok(Verified {
        digest,
        seed: wanted.seed,
        cells: of_lab.into_iter().map(|(cell, ..)| cell).collect(),
        items,
        drawn: draw.drawn,
        samples,
        tokens,
        unchecked,
        power: changed.map(|changed| Power { changed, found: draw.found(changed) }).collect(),
        found_with_95_percent: draw.fewest_found(95),
        wrong: found.wrong.len() as u64,
        count: found.count,
        mismatches: found.first,
    })
}

/// The digest of a run, as the head of this file says.
fn digest(about: &About, done: &[(Cell, Box<Done>)]) -> Digest {
    let about = about.digest();
    let cells = done.iter().map(|(cell, done)| format!("{} {} {cell}\n", done.trace, done.root));
    Digest::of(format!("reprocheck verify 1\n{about}  run.json\n{}", cells.collect::<String>()).as_bytes())
}

/// The cells that are done; others are noted, and those that are not what was written do not hold.
fn done(
    run: &Run,
    found: &mut Found,
    unchecked: &mut Vec<Unchecked>,
) -> Result<Vec<(Cell, Box<Done>)>, BisectError> {
    let mut all = Vec::new();
    for (cell, record) in run.records(&run.about.cells) {
        match record {
            Ok(Some(Record::Done(done))) => all.push((cell, done)),
            Ok(Some(Record::Failed(failed))) => note(unchecked, cell.to_string(), failed.sentence),
            Ok(None) => note(unchecked, cell.to_string(), "it has not run".to_owned()),
            Err(error @ (RunError::Damaged { .. } | RunError::Trace(_))) => {
                found.add(Some(cell), None, [Difference::new("record", error, "what was written")]);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(all)
}

/// Why nothing here computes what another engine gave.
const ELSEWHERE: &str = "its arithmetic is not that of the lab, so nothing here gives its bits again";

fn note(unchecked: &mut Vec<Unchecked>, who: String, why: String) {
    match unchecked.iter_mut().find(|known| known.who == who && known.why == why) {
        Some(known) => known.cells += 1,
        None => unchecked.push(Unchecked { who, cells: 1, why }),
    }
}

/// The questions of a run, held against those that its suites make, and how they are grouped.
fn asked(
    run: &Run,
    subject: &Subject<'_>,
    plan: Option<&Plan>,
    found: &mut Found,
) -> Result<(Lines<Question>, Layout), BisectError> {
    let about = &run.about;
    let refused = |error: &dyn fmt::Display| BisectError::Refused(error.to_string());
    if let Some(plan) = plan {
        let of_plan = About {
            suites: questions::asked(plan, subject).map_err(|error| refused(&error))?,
            generation: plan.generation.clone(),
            reference: plan.reference,
            cells: plan.cells.clone(),
            beside: plan.beside.clone(),
            scripts: super::scripts(plan),
            ..about.clone()
        };
        if let Some(difference) = about.difference(&of_plan) {
            return Err(BisectError::Refused(format!(
                "{} is not a run of this matrix: {difference}; name the matrix file and the profile that it ran with",
                run.folder.display()
            )));
        }
    }
    let opened = |asked: &crate::record::Asked| {
        Suite::open(&asked.name).map_err(|_| {
            BisectError::Refused(format!(
                "the suite {} is not in this binary, so its questions cannot be made again: name the run's matrix file with --matrix",
                asked.name
            ))
        })
    };
    let suites: Vec<Suite> =
        about.suites.iter().filter(|_| plan.is_none()).map(opened).collect::<Result<_, _>>()?;
    let suites: Vec<&Suite> = plan.map_or_else(|| suites.iter().collect(), |plan| plan.made_of().collect());
    let words = vocabulary(subject).map(|words| Digest::of(&words));
    found.add(None, None, Difference::between("texts of tokens", &about.vocabulary, &words));

    let mut recorded = run.questions()?;
    let mut layout = Layout::default();
    let mut made = questions::questions(suites, &about.suites, &about.generation, subject);
    for item in 0..recorded.len() {
        let question = recorded.get(item)?;
        layout.add(&question);
        let made = made.next().transpose().map_err(|error| refused(&error))?;
        found.add(None, Some(&question), Difference::between("question", &Some(&question), &made.as_ref()));
    }
    if about.questions != recorded.len() || made.next().is_some() {
        let computed = format!("{} and more", recorded.len());
        found.add(None, None, [Difference::new("number of questions", about.questions, computed)]);
    }
    Ok((recorded, layout))
}

/// What does not hold.
#[derive(Default)]
struct Found {
    count: u64,
    first: Vec<Mismatch>,
    wrong: HashSet<(Cell, u64)>,
}

impl Found {
    fn add(
        &mut self,
        cell: Option<Cell>,
        question: Option<&Question>,
        differences: impl IntoIterator<Item = Difference>,
    ) {
        for difference in differences {
            self.count += 1;
            if let (Some(cell), Some(question)) = (cell, question) {
                self.wrong.insert((cell, question.item));
            }
            if self.first.len() < KEPT {
                let item = question.map(|question| question.id.clone());
                self.first.push(Mismatch { cell, item, difference });
            }
        }
    }
}

/// A trace, how its tokens were chosen, and whether they were given.
type ReadAs = (Digest, Choice, bool);

/// What reads again what the cells of some numerics read.
enum Reading<'a> {
    /// One sample by itself, or several that share calls as it happens: no row minds the others. What of a trace was read
    /// is kept, because other cells may have the same.
    Alone(Decoder<Transplant<Fast>>, HashMap<(ReadAs, u64), (u64, Vec<Difference>)>),
    /// One sample by itself, each operation in the launch that it had in the run.
    InLaunches(Decoder<Transplant<Fast>>),
    /// All that shared a call in the run.
    Groups(Lab<'a>),
}

impl<'a> Reading<'a> {
    /// `history` says whether calls follow from more than how long all sequences are.
    fn open(
        checkpoint: &'a Checkpoint,
        numerics: Numerics,
        history: bool,
    ) -> Result<Reading<'a>, BisectError> {
        if numerics.precision().sees_other_rows() || (history && numerics.minds_its_rows()) {
            return Ok(Reading::Groups(Lab::load(checkpoint, numerics)?));
        }
        let decoder =
            Decoder::load(Transplant::of([numerics; 2], 0)?, checkpoint).map_err(CauseError::from)?;
        Ok(match numerics.minds_its_rows() {
            true => Reading::InLaunches(decoder),
            false => Reading::Alone(decoder, HashMap::new()),
        })
    }
}

/// What checks the cells of a run, one after the other.
struct Check<'a> {
    run: &'a Run,
    subject: &'a Subject<'a>,
    questions: Lines<Question>,
    layout: Layout,
    /// The cell whose tokens the others read, if they do, and what it wrote.
    reference: Option<Cell>,
    replayed: Option<Lines<Line>>,
    found: Found,
    /// Samples and tokens that the model has computed, and how many samples are drawn.
    done: (u64, u64, u64),
    watch: &'a mut dyn FnMut(usize, usize),
}

impl Check<'_> {
    /// The tokens that a cell was given for an item, if it was.
    fn given(&mut self, cell: Cell, item: u64) -> Result<Option<Vec<u32>>, BisectError> {
        match &mut self.replayed {
            Some(lines) if self.reference != Some(cell) => Ok(Some(lines.get(item)?.tokens)),
            _ => Ok(None),
        }
    }

    fn is_given(&self, cell: Cell) -> bool {
        self.replayed.is_some() && self.reference != Some(cell)
    }

    fn request(&self, cell: Cell, question: &Question) -> Request {
        request(cell, question, &self.run.about.generation, self.subject)
    }

    /// Checks of every sample of a cell what needs no model, and the launches. Returns how long each is, if they can be read.
    fn recorded(&mut self, cell: Cell, done: &Done) -> Result<Option<Vec<Length>>, BisectError> {
        match self.lines(cell, done) {
            Err(BisectError::Run(RunError::Trace(error @ TraceError::Wrong { .. }))) => {
                self.found.add(Some(cell), None, [Difference::new("trace", error, "one line an item")]);
                Ok(None)
            }
            lengths => lengths,
        }
    }

    fn lines(&mut self, cell: Cell, done: &Done) -> Result<Option<Vec<Length>>, BisectError> {
        let mut reader = Reader::open(&self.run.store, done.trace).map_err(RunError::from)?;
        let sight = reader.sight();
        let (mut lengths, mut roots) = (Vec::new(), Vec::new());
        for item in 0..self.questions.len() {
            let (line, tokens) = reader.expect(item).map_err(RunError::from)?;
            let question = self.questions.get(item)?;
            lengths.push(Length { prompt: question.tokens.len(), followed: line.tokens.len() });
            roots.push(line.root);
            let scores = question.score(&line.text, line.finish == Finish::Length);
            let mut differences = Vec::from_iter(Difference::between("scores", &line.scores, &scores));
            differences.extend(Difference::between("root", &line.root, &chain(sight, &tokens)));
            if let Compute::Lab(_) = cell.compute {
                let prompt = Prompt { item, tokens: Vec::new(), replay: self.given(cell, item)? };
                let decode =
                    self.subject.tokenizer.map(|tokenizer| |tokens: &[u32]| tokenizer.decode(tokens, true));
                let request = self.request(cell, &question);
                let endings = Endings::new(&request, decode.as_ref().map(|decode| decode as &Decode<'_>))?;
                differences.extend(ending(endings.begin(&prompt), &line));
            }
            self.found.add(Some(cell), Some(&question), differences);
        }
        reader.end().map_err(RunError::from)?;
        let root = MerkleTree::over(roots).root();
        self.found.add(Some(cell), None, Difference::between("root of all samples", &done.root, &root));
        let Compute::Lab(numerics) = cell.compute else { return Ok(None) };
        if sight != Sight::Logits && !lengths.is_empty() {
            self.found.add(Some(cell), None, [Difference::new("what is seen", sight, Sight::Logits)]);
            return Ok(None);
        }
        // Which calls there were does not follow from lengths where something was read before.
        let launches = match cell.serving.has_history() {
            true => done.launches.clone(),
            false => self.launches(cell, numerics, &lengths, &done.launches),
        };
        self.found.add(Some(cell), None, Difference::between("launches", &done.launches, &launches));
        Ok(Some(lengths))
    }

    /// The launches of a cell. How many threads shared a call depends on which operations were worth it, so what was recorded
    /// is only held to be one of those that are possible.
    fn launches(&self, cell: Cell, numerics: Numerics, lengths: &[Length], told: &Launches) -> Launches {
        let threads = told.threads.map(|threads| threads.clamp(1, numerics.threads().get()));
        let mut launches = Launches::none();
        for group in self.layout.calls(cell.serving, lengths) {
            let sample = |(item, calls): (u64, Vec<Rows>)| {
                let Length { prompt, followed } = lengths[item as usize];
                let chunk = cell.serving.prefill_chunk.map_or(prompt, NonZeroUsize::get).max(1);
                let step = |rows: &Rows| Step {
                    token: Token { id: 0, seen: Seen::Nothing },
                    rows: Some(rows.layers),
                };
                Sample {
                    item,
                    prompt: Vec::new(),
                    steps: calls.iter().skip(prompt.saturating_sub(1)).take(followed).map(step).collect(),
                    text: String::new(),
                    finish: Finish::Stop,
                    launch: Some(Launched {
                        prefill: calls[..prompt].chunks(chunk).map(|call| call[0].layers).collect(),
                        threads,
                        has_unlike_copy: false,
                        history: History::default(),
                    }),
                }
            };
            launches.add(&group.into_iter().map(sample).collect::<Vec<_>>());
        }
        launches.tree = Some(tree(self.subject.sums, numerics, &launches));
        launches.functions = functions(self.subject, numerics);
        launches
    }

    /// Has the model compute samples of a cell, and holds what was recorded against it.
    fn computed(
        &mut self,
        cell: Cell,
        done: &Done,
        drawn: &BTreeSet<u64>,
        lengths: &[Length],
        reading: &mut Reading<'_>,
    ) -> Result<(), BisectError> {
        let (mut in_groups, mut in_launches) = (HashMap::new(), HashMap::new());
        match reading {
            Reading::Groups(lab) => in_groups = self.groups(cell, drawn, lab)?,
            Reading::InLaunches(_) => {
                let calls = self.layout.calls(cell.serving, lengths).flatten();
                in_launches.extend(calls.filter(|(item, _)| drawn.contains(item)));
            }
            Reading::Alone(..) => {}
        }
        let read_as =
            (done.trace, cell.serving.choice(self.run.about.generation.choice), self.is_given(cell));
        let mut reader = Reader::open(&self.run.store, done.trace).map_err(RunError::from)?;
        let mut batch = Batch::default();
        let end = drawn.iter().chain(in_groups.keys()).max().map_or(0, |last| last + 1);
        for item in 0..end {
            let (line, tokens) = reader.expect(item).map_err(RunError::from)?;
            let question = self.questions.get(item)?;
            if let Some(computed) = in_groups.remove(&item) {
                let differences = differences(&tokens, &computed, self.subject);
                self.take(cell, &question, tokens.len() as u64, differences);
                continue;
            }
            if !drawn.contains(&item) {
                continue;
            }
            if let Reading::Alone(_, read) = reading
                && let Some((tokens, differences)) = read.get(&(read_as, item))
            {
                self.take(cell, &question, *tokens, differences.clone());
                continue;
            }
            let prompt = Prompt { item, tokens: question.tokens.clone(), replay: Some(line.tokens) };
            let request = self.request(cell, &question);
            let Subject { vocabulary, positions, .. } = *self.subject;
            if let Err(error) = engine::check(std::slice::from_ref(&prompt), &request, vocabulary, positions)
            {
                let difference = Difference::new("tokens", "what no model reads", error);
                self.take(cell, &question, tokens.len() as u64, vec![difference]);
                continue;
            }
            batch.add(question, tokens, in_launches.remove(&item));
            if batch.is_full() {
                self.flush(cell, &request, std::mem::take(&mut batch), reading, read_as)?;
            }
        }
        if let Some((question, _)) = batch.samples.first() {
            let request = self.request(cell, question);
            self.flush(cell, &request, batch, reading, read_as)?;
        }
        Ok(())
    }

    /// Takes note of what was computed of a sample.
    fn take(&mut self, cell: Cell, question: &Question, tokens: u64, differences: Vec<Difference>) {
        self.found.add(Some(cell), Some(question), differences);
        let (samples, all, of) = &mut self.done;
        (*samples, *all) = (*samples + 1, *all + tokens);
        (self.watch)((*samples).min(*of) as usize, *of as usize);
    }

    /// Reads samples that wait for it.
    fn flush(
        &mut self,
        cell: Cell,
        request: &Request,
        batch: Batch,
        reading: &mut Reading<'_>,
        read_as: ReadAs,
    ) -> Result<(), BisectError> {
        let (Reading::Alone(decoder, _) | Reading::InLaunches(decoder)) = &*reading else { return Ok(()) };
        let computed = batch.read(decoder, request, self.is_given(cell), &cell);
        for ((question, tokens), computed) in batch.samples.into_iter().zip(computed) {
            let differences = differences(&tokens, &computed, self.subject);
            if let Reading::Alone(_, read) = reading {
                read.insert((read_as, question.item), (tokens.len() as u64, differences.clone()));
            }
            self.take(cell, &question, tokens.len() as u64, differences);
        }
        Ok(())
    }

    /// Answers again all questions that share a group with one that is drawn.
    fn groups(
        &mut self,
        cell: Cell,
        drawn: &BTreeSet<u64>,
        lab: &mut Lab<'_>,
    ) -> Result<HashMap<u64, Vec<Computed>>, BisectError> {
        let mut all = HashMap::new();
        for group in self.layout.groups(cell.serving.grouping, cell.serving.together()) {
            if !group.iter().any(|item| drawn.contains(item)) {
                continue;
            }
            let (mut prompts, mut asked) = (Vec::new(), None);
            for &item in &group {
                let question = self.questions.get(item)?;
                prompts.push(Prompt {
                    item,
                    replay: self.given(cell, item)?,
                    tokens: question.tokens.clone(),
                });
                asked.get_or_insert(question);
            }
            let Some(first) = asked else { continue };
            let mut samples = Vec::new();
            match lab.generate(&prompts, &self.request(cell, &first), &mut samples) {
                Ok(()) => all.extend(
                    samples
                        .into_iter()
                        .map(|sample| (sample.item, sample.steps.into_iter().map(Ok).collect())),
                ),
                Err(error) if error.is_environment() => return Err(error.into()),
                Err(error) => all.extend(group.into_iter().map(|item| (item, vec![Err(error.clone())]))),
            }
        }
        Ok(all)
    }
}

/// Where an answer ends, and its text, beside what was recorded.
fn ending(mut ending: Ending<'_>, line: &Line) -> Vec<Difference> {
    for (place, &token) in line.tokens.iter().enumerate() {
        let at = |difference: Difference| vec![Difference { place: Some(place), ..difference }];
        if let Some(finish) = ending.finish() {
            return at(Difference::new("finish", "it goes on", format!("{finish:?} before this token")));
        }
        if let Some(given) = ending.given().filter(|given| *given != token) {
            return at(Difference::new("given token", token, given));
        }
        ending.push(token);
    }
    let finish = Difference::between("finish", &Some(line.finish), &ending.finish());
    finish.into_iter().chain(Difference::between("text", &line.text, &ending.text())).collect()
}

/// All that differs at the first token that does.
fn differences(recorded: &[Token], computed: &[Computed], subject: &Subject<'_>) -> Vec<Difference> {
    let name = |id: u32| match subject.tokenizer.filter(|_| (id as usize) < subject.vocabulary) {
        Some(tokenizer) => format!("{id} {:?}", tokenizer.decode(&[id], false)),
        None => id.to_string(),
    };
    let named =
        |token: Option<&Token>| token.map_or_else(|| "it has ended".to_owned(), |token| name(token.id));
    for place in 0..recorded.len().max(computed.len()) {
        let found = match (recorded.get(place), computed.get(place)) {
            (Some(recorded), Some(Ok(step))) => of_token(recorded, &step.token, &name),
            (recorded, Some(Err(error))) => vec![Difference::new("token", named(recorded), error)],
            (recorded, step) => {
                let step = step.and_then(|step| step.as_ref().ok()).map(|step| &step.token);
                vec![Difference::new("token", named(recorded), named(step))]
            }
        };
        if !found.is_empty() {
            return found
                .into_iter()
                .map(|difference| Difference { place: Some(place), ..difference })
                .collect();
        }
    }
    Vec::new()
}

/// What differs of a token, to the last bit.
fn of_token(recorded: &Token, computed: &Token, name: &dyn Fn(u32) -> String) -> Vec<Difference> {
    let mut found = Vec::new();
    if recorded.id != computed.id {
        found.push(Difference::new("token", name(recorded.id), name(computed.id)));
    }
    found.extend(Difference::between("digest of the logits", &recorded.digest(), &computed.digest()));
    let best = |token: &Token| {
        let one = |Candidate { token, logit }: &Candidate| format!("{token} {logit:?}");
        token.candidates().iter().map(one).collect::<Vec<_>>().join(", ")
    };
    let bits = |token: &Token| -> Vec<(u32, u32)> {
        token.candidates().iter().map(|candidate| (candidate.token, candidate.logit.to_bits())).collect()
    };
    if bits(recorded) != bits(computed) {
        found.push(Difference::new("candidates", best(recorded), best(computed)));
    }
    let numbers = [
        ("margin", recorded.margin(), computed.margin()),
        ("probability", recorded.probability(), computed.probability()),
    ];
    for (what, recorded, computed) in numbers {
        if recorded.map(f32::to_bits) != computed.map(f32::to_bits) {
            let shown = |number: Option<f32>| format!("{:?}", number.unwrap_or(f32::NAN));
            found.push(Difference::new(what, shown(recorded), shown(computed)));
        }
    }
    found
}
