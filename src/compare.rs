//! The ladder of agreement, and where outputs first part: two of one item, two cells on all items, and many cells.

use std::{
    collections::BTreeMap,
    ops::{Add, Index, IndexMut},
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    json_float,
    name::named,
    numerics::{
        apart::{self, Row},
        canonical,
        choice::Candidate,
        special::log,
        total::{Mean, mean},
    },
    stats::{
        Interval,
        clustered::Clustered,
        paired::{Change, Pairs},
        proportion::Proportion,
        redraw::redrawn,
        spread::{
            Agreement, Cochran, Correctness, deviation, deviation_of_lengths, deviation_of_probabilities,
            divergence_index, shared_prefix,
        },
        survival::Survival,
        transitions::Transitions,
    },
    suite::{question::Question, score::Outcome},
    trace::{Seen, Sight, Token},
};

/// How far two cells agree, the strictest first: equal bits have equal tokens, and those have equal answers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Level {
    /// The logits of every token.
    Bits,
    /// Every token.
    Tokens,
    /// Every extracted answer.
    Answers,
}

named! { Level, "level": Bits = "bits", Tokens = "tokens", Answers = "answers" }

/// Something of each level.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ByLevel<T> {
    /// Of the bits of all logits.
    pub bits: T,
    /// Of all tokens.
    pub tokens: T,
    /// Of all answers.
    pub answers: T,
}

impl<T> ByLevel<T> {
    /// What a function makes of each.
    pub fn of(mut each: impl FnMut(Level) -> T) -> ByLevel<T> {
        ByLevel { bits: each(Level::Bits), tokens: each(Level::Tokens), answers: each(Level::Answers) }
    }

    /// What a function makes of what stands for each.
    pub fn map<U>(self, mut each: impl FnMut(T) -> U) -> ByLevel<U> {
        ByLevel { bits: each(self.bits), tokens: each(self.tokens), answers: each(self.answers) }
    }

    /// Each with its level, the strictest first.
    pub fn iter(&self) -> impl Iterator<Item = (Level, &T)> {
        Level::ALL.into_iter().map(|level| (level, &self[level]))
    }

    /// What stands for each, the strictest first.
    pub fn into_values(self) -> [T; 3] {
        [self.bits, self.tokens, self.answers]
    }
}

impl<T> Index<Level> for ByLevel<T> {
    type Output = T;

    fn index(&self, level: Level) -> &T {
        match level {
            Level::Bits => &self.bits,
            Level::Tokens => &self.tokens,
            Level::Answers => &self.answers,
        }
    }
}

impl<T> IndexMut<Level> for ByLevel<T> {
    fn index_mut(&mut self, level: Level) -> &mut T {
        match level {
            Level::Bits => &mut self.bits,
            Level::Tokens => &mut self.tokens,
            Level::Answers => &mut self.answers,
        }
    }
}

/// How many are the same, how many are not, and of how many the evidence does not tell.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Count {
    /// Those that are proven to be the same.
    pub same: u64,
    /// Those that are proven to be others.
    pub other: u64,
    /// Those of which too little is seen.
    pub untold: u64,
}

impl Count {
    fn include(&mut self, is_same: Option<bool>) {
        match is_same {
            Some(true) => self.same += 1,
            Some(false) => self.other += 1,
            None => self.untold += 1,
        }
    }

    /// How many there are.
    pub fn of(self) -> u64 {
        self.same + self.other + self.untold
    }

    /// How many of all are the same; nothing where that is not told of each.
    pub fn told(self) -> Option<Proportion> {
        (self.untold == 0).then_some(Proportion { hits: self.same, of: self.of() })
    }

    /// Are all the same? One that is not settles it, whatever is not told.
    pub fn all(self) -> Option<bool> {
        match self {
            Count { other: 1.., .. } => Some(false),
            Count { untold: 1.., .. } => None,
            _ => Some(true),
        }
    }
}

impl Add for Count {
    type Output = Count;

    fn add(self, more: Count) -> Count {
        Count {
            same: self.same + more.same,
            other: self.other + more.other,
            untold: self.untold + more.untold,
        }
    }
}

/// What a cell made of an item.
#[derive(Clone, Copy, Debug)]
pub struct Output<'a> {
    /// Its tokens, each with what it was chosen from.
    pub tokens: &'a [Token],
    /// How much its engine shows of what they were chosen from.
    pub sight: Sight,
    /// Their text.
    pub text: &'a str,
    /// One value for tokens and logits.
    pub root: Digest,
    /// The answer that was found in the text.
    pub answer: Option<&'a str>,
    /// What became of the question.
    pub outcome: Outcome,
    /// Would it be right if the last number of the text were its answer?
    pub flexible: bool,
    /// Were the tokens given, and not chosen? Then those that would have been chosen are compared.
    pub replayed: bool,
}

impl Output<'_> {
    /// Is its answer the right one?
    pub fn is_correct(&self) -> bool {
        self.outcome == Outcome::Correct
    }

    /// The tokens that it chose; where they were given, those that its logits would choose, as far as that is seen.
    pub(crate) fn chosen(&self) -> impl Iterator<Item = Option<u32>> {
        self.tokens.iter().map(|token| if self.replayed { best(token) } else { Some(token.id) })
    }
}

/// The token that ranks first, where that is seen.
fn best(token: &Token) -> Option<u32> {
    token.candidates().first().map(|candidate| candidate.token)
}

/// Were both chosen from the same logits? Equal log-probabilities of the best say nothing of what lies below them.
fn same_logits(one: &Token, other: &Token) -> Option<bool> {
    match (&one.seen, &other.seen) {
        (Seen::Logits { digest, .. }, Seen::Logits { digest: other, .. }) => Some(digest == other),
        (Seen::Top(_), Seen::Top(_)) => same_top(one, other).filter(|is_same| !is_same),
        _ => None,
    }
}

/// Are the best tokens of both the same, with the same numbers? Nothing where one shows none, or numbers of another kind. Of
/// equally good ones an engine may keep some and leave out others, so that two lists may differ and prove nothing.
fn same_top(one: &Token, other: &Token) -> Option<bool> {
    let bits = |candidate: &Candidate| canonical(candidate.logit).to_bits();
    let (a, b) = (one.candidates(), other.candidates());
    if one.sight() != other.sight() || a.is_empty() || b.is_empty() {
        return None;
    }
    // Equal ones may come in any order, but not those of a rank or of a token be others.
    let ranks = a.iter().zip(b).any(|(a, b)| bits(a) != bits(b));
    let tokens = a.iter().any(|a| b.iter().any(|b| a.token == b.token && bits(a) != bits(b)));
    if ranks || tokens {
        return Some(false);
    }
    let is_listed =
        |list: &[Candidate], candidate: &Candidate| list.iter().any(|other| other.token == candidate.token);
    (a.len() == b.len() && a.iter().all(|candidate| is_listed(b, candidate))).then_some(true)
}

/// Do both rank the same token first?
fn same_best(one: &Token, other: &Token) -> Option<bool> {
    Some(best(one)? == best(other)?)
}

/// Two outputs of one item beside each other.
///
/// Logits are comparable as long as both cells have read the same: up to and with the first place where the tokens part,
/// or everywhere if both have read what a third one wrote.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Compared {
    /// The places that are comparable, by whether the logits are the same.
    pub places: Count,
    /// The first place that is proven to have other logits.
    pub first_bits: Option<usize>,
    /// The first place with another token, or where one output ends and the other goes on; nothing where not all tokens
    /// that would be chosen are seen.
    pub first_token: Option<usize>,
    /// The same places, by whether both rank the same token first.
    pub best: Count,
    /// The largest difference of the logits of a token that both cells kept, before the tokens part; nothing where not
    /// all logits are seen.
    pub drift: Option<f32>,
    /// Do both agree on a level?
    pub agree: ByLevel<Option<bool>>,
    /// Are the tokens the same, and the best ones of every place with their numbers? That is less than all bits.
    pub top: Option<bool>,
    /// Are the texts the same? Nothing where they were given.
    pub text: Option<bool>,
    /// Is the answer right, in the one and in the other?
    pub correct: (bool, bool),
}

/// Compares two outputs of one item.
pub fn compare(one: Output<'_>, other: Output<'_>) -> Compared {
    let shared = one.chosen().zip(other.chosen()).take_while(|(a, b)| a == b && a.is_some()).count();
    // Equal texts may be of other tokens; other texts never are of the same.
    let hides = match [one, other].map(|output| output.sight == Sight::Text) {
        [false, false] => false,
        [true, true] => one.text == other.text,
        _ => true,
    };
    let is_told = !hides && one.chosen().chain(other.chosen()).all(|token| token.is_some());
    let (shortest, longest) =
        (one.tokens.len().min(other.tokens.len()), one.tokens.len().max(other.tokens.len()));
    // The place where they part was still chosen from comparable logits, if both chose.
    let places = if one.replayed && other.replayed { shortest } else { shortest.min(shared + 1) };
    let first_token = (is_told && shared < longest).then_some(shared);
    let sees_logits = [one, other].iter().all(|output| output.sight == Sight::Logits);
    let mut compared = Compared {
        places: Count::default(),
        first_bits: None,
        first_token,
        best: Count::default(),
        drift: sees_logits.then_some(0.0),
        agree: ByLevel {
            bits: None,
            tokens: is_told.then_some(first_token.is_none()),
            answers: Some(one.answer == other.answer),
        },
        top: None,
        text: (!one.replayed && !other.replayed).then(|| one.text == other.text),
        correct: (one.is_correct(), other.is_correct()),
    };
    let mut tops = Count::default();
    for (place, (a, b)) in one.tokens.iter().zip(other.tokens).take(places).enumerate() {
        let is_same = same_logits(a, b);
        compared.places.include(is_same);
        compared.best.include(same_best(a, b));
        tops.include(same_top(a, b));
        if is_same == Some(false) {
            compared.first_bits = compared.first_bits.or(Some(place));
            if place < shared {
                compared.drift = compared.drift.map(|drift| drift.max(apart(a, b)));
            }
        }
    }
    compared.top =
        if first_token.is_some() { Some(false) } else { tops.all().filter(|is_same| is_told || !is_same) };
    // Other tokens are other bits, whatever is seen; equal ones are equal bits only where all is.
    compared.agree.bits = if compared.first_bits.is_some() || first_token.is_some() {
        Some(false)
    } else {
        (sees_logits && is_told && compared.places.untold == 0).then_some(true)
    };
    compared
}

/// The largest difference of the logits of a token that both kept.
pub fn apart(one: &Token, other: &Token) -> f32 {
    let differences = one.candidates().iter().filter_map(|a| {
        let b = other.candidates().iter().find(|b| b.token == a.token)?;
        let difference = (a.logit - b.logit).abs();
        // Two equal infinities are not apart.
        Some(if difference.is_nan() { 0.0 } else { difference })
    });
    differences.fold(0.0, f32::max)
}

/// By what it is told how far two rows of logits are apart.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Measure {
    /// The largest difference of the logits of a token that both kept.
    LogitDifference,
    /// The most steps between these, from one number of single precision to the next.
    Ulp,
    /// The Kullback-Leibler divergence of the other from the one, in nats: of the tokens that both kept, and of all others taken together.
    Kl,
    /// 1 where another token ranks first.
    RankFlips,
}

named! { Measure, "measure": LogitDifference = "logit-difference", Ulp = "ulp", Kl = "kl", RankFlips = "rank-flips" }

/// How far two rows of logits are apart, by each measure, as far as the kept candidates show it; nothing where not all logits are seen.
pub fn measured(one: &Token, other: &Token) -> Option<[f64; Measure::ALL.len()]> {
    if same_logits(one, other)? {
        return Some([0.0; Measure::ALL.len()]);
    }
    let shown = |token: &Token| {
        let best = token.candidates().first()?.logit;
        let shift = log(f64::from(token.probability()?)) - f64::from(best);
        let of = |own: &Candidate| Candidate { logit: (f64::from(own.logit) + shift) as f32, ..*own };
        Some(token.candidates().iter().map(of).collect::<Vec<_>>())
    };
    let (Seen::Logits { candidates, .. }, Seen::Logits { candidates: others, .. }) = (&one.seen, &other.seen)
    else {
        return None;
    };
    let kept = candidates.iter().filter_map(|own| {
        let other = others.iter().find(|other| other.token == own.token)?;
        Some(apart::steps(own.logit, other.logit))
    });
    let (steps, shown) = (kept.max().unwrap_or(0), [shown(one)?, shown(other)?]);
    let found = apart::apart(Row::Top(&shown[0]), Row::Top(&shown[1]), one.id);
    Some([
        f64::from(self::apart(one, other)),
        steps as f64,
        found.divergence,
        f64::from(u8::from(found.flips())),
    ])
}

/// Where two outputs part, and all that a person wants to see of it.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct Divergence {
    /// The number of the item.
    pub item: u64,
    /// The suite of the item.
    pub suite: String,
    /// The name of the item.
    pub id: String,
    /// The step of difficulty of the item.
    pub stratum: String,
    /// What both were asked.
    pub prompt: String,
    /// The right answer.
    pub right: String,
    /// How many tokens they have in common.
    pub place: usize,
    /// What the one did there, and what the other.
    pub sides: [Side; 2],
    /// The largest difference of the logits of a token that both kept, before this place; nothing where not all logits are
    /// seen.
    #[serde(with = "json_float::option")]
    #[schemars(schema_with = "json_float::option::schema")]
    pub drift: Option<f32>,
}

/// What one cell did where another did something else.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct Side {
    /// The number of the token that it chose; nothing where its output had ended.
    pub token: Option<u32>,
    /// How much higher its best logit was than its second; nothing where its output had ended, or where they are not seen.
    #[serde(with = "json_float::option")]
    #[schemars(schema_with = "json_float::option::schema")]
    pub margin: Option<f32>,
    /// The best tokens with their logits, the best first, or with their log-probabilities where no logits are seen.
    pub candidates: Vec<Candidate>,
    /// The text that it wrote.
    pub text: String,
    /// The answer that was found in the text, if one was.
    pub answer: Option<String>,
    /// Is the answer the right one?
    pub correct: bool,
}

impl Divergence {
    fn new(question: &Question, place: usize, outputs: [Output<'_>; 2], drift: Option<f32>) -> Divergence {
        let side = |output: Output<'_>| {
            let token = output.tokens.get(place);
            Side {
                token: output.chosen().nth(place).flatten(),
                margin: token.and_then(Token::margin),
                candidates: token.map_or_else(Vec::new, |token| token.candidates().to_vec()),
                text: output.text.to_owned(),
                answer: output.answer.map(str::to_owned),
                correct: output.is_correct(),
            }
        };
        let Question { item, suite, id, stratum, prompt, answer, .. } = question;
        Divergence {
            item: *item,
            suite: suite.clone(),
            id: id.clone(),
            stratum: stratum.clone(),
            prompt: prompt.clone(),
            right: answer.text.clone(),
            place,
            sides: outputs.map(side),
            drift,
        }
    }
}

/// Between these margins decisions are counted: how near was the second token where another one came to rank first?
pub const MARGINS: [f32; 6] = [0.01, 0.03, 0.1, 0.3, 1.0, 3.0];

/// How far the logits of two cells are apart after so many tokens that both have read.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, JsonSchema)]
pub struct Drift {
    /// How many outputs have not parted by then.
    pub outputs: u64,
    /// How many of these outputs have other logits there; nothing where that is not told of each.
    pub moved: Option<u64>,
    /// The largest difference of a logit; nothing where not all logits are seen.
    #[serde(with = "json_float::option")]
    #[schemars(schema_with = "json_float::option::schema")]
    pub most: Option<f32>,
}

impl Drift {
    /// Of no outputs.
    pub const NONE: Drift = Drift { outputs: 0, moved: Some(0), most: Some(0.0) };

    fn pool(&mut self, other: Drift) {
        self.outputs += other.outputs;
        self.moved = self.moved.zip(other.moved).map(|(a, b)| a + b);
        self.most = self.most.zip(other.most).map(|(a, b)| a.max(b));
    }
}

/// How outputs come apart along their tokens.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Course {
    /// How many items part after so many tokens, or end after so many without having parted, of those whose tokens are
    /// told.
    parts: BTreeMap<(u64, bool), u64>,
    /// At each place.
    pub drift: Vec<Drift>,
    /// For each range of margins, beginning below the first of [`MARGINS`], the places at which another token ranks first,
    /// of those where both are seen.
    pub margins: [Proportion; MARGINS.len() + 1],
}

impl Course {
    fn add(&mut self, compared: &Compared, one: Output<'_>, other: Output<'_>) {
        let end = match compared.first_token {
            Some(place) => Some((place as u64, true)),
            None => (compared.agree.tokens == Some(true)).then_some((one.tokens.len() as u64, false)),
        };
        if let Some(end) = end {
            *self.parts.entry(end).or_default() += 1;
        }
        let places = one.tokens.iter().zip(other.tokens).take(compared.places.of() as usize);
        for (place, (a, b)) in places.enumerate() {
            let sees_logits = a.sight() == Sight::Logits && b.sight() == Sight::Logits;
            self.drift_at(place).pool(Drift {
                outputs: 1,
                moved: same_logits(a, b).map(|is_same| u64::from(!is_same)),
                most: sees_logits.then(|| apart(a, b)),
            });
            let (Some(own), Some(is_same)) = (a.margin(), same_best(a, b)) else { continue };
            let range = MARGINS.iter().take_while(|margin| own >= **margin).count();
            let moved = Proportion { hits: u64::from(!is_same), of: 1 };
            self.margins[range] = self.margins[range] + moved;
        }
    }

    /// At this place, which is at most the next one.
    fn drift_at(&mut self, place: usize) -> &mut Drift {
        if self.drift.len() == place {
            self.drift.push(Drift::NONE);
        }
        &mut self.drift[place]
    }

    /// Adds what other cells did.
    pub fn pool(&mut self, other: &Course) {
        for (end, count) in &other.parts {
            *self.parts.entry(*end).or_default() += count;
        }
        for (place, drift) in other.drift.iter().enumerate() {
            self.drift_at(place).pool(*drift);
        }
        for (pooled, margins) in self.margins.iter_mut().zip(other.margins) {
            *pooled = *pooled + margins;
        }
    }

    /// The fewest tokens that two outputs have in common before they part.
    pub fn first_part(&self) -> Option<u64> {
        self.parts.keys().find(|(_, parted)| *parted).map(|(place, _)| *place)
    }

    /// How long outputs stay equal.
    pub fn survival(&self) -> Survival {
        Survival::of(self.parts.iter().flat_map(|(end, count)| (0..*count).map(|_| *end)))
    }
}

/// On how many items some row is farther apart than that: a count, so that it does not grow with the items.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Beyond {
    measure: Measure,
    most: f64,
    items: u64,
    untold: u64,
}

impl Beyond {
    /// Of no items, by this measure, farther than this.
    pub fn new(measure: Measure, most: f64) -> Beyond {
        Beyond { measure, most, items: 0, untold: 0 }
    }

    /// Adds an item: how far its rows are apart at most, by each measure; nothing where that is not seen.
    fn add(&mut self, farthest: Option<[f64; Measure::ALL.len()]>) {
        match farthest {
            Some(item) => self.items += u64::from(item[self.measure as usize] > self.most),
            None => self.untold += 1,
        }
    }
}

/// All items of two cells beside each other.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Tally {
    /// Items by whether both agree on a level.
    pub levels: ByLevel<Count>,
    /// Items by whether the best tokens of every place are the same, with their numbers.
    pub tops: Count,
    /// Items by whether the texts are the same.
    pub texts: Count,
    /// Items in which at least one of the two has found an answer.
    pub answered: Proportion,
    /// The comparable places, by whether the logits are the same.
    pub places: Count,
    /// The same places, by whether both rank the same token first.
    pub best: Count,
    /// What became of the same question, in the one and in the other.
    pub outcomes: Transitions<Outcome>,
    /// What the answers of the one lost and gained against the other, for each suite.
    pub suites: BTreeMap<String, Pairs>,
    /// How outputs come apart along their tokens.
    pub course: Course,
    /// The largest drift of any item; nothing without items, and where not all logits are seen.
    pub drift: Option<f32>,
    /// The first item that is proven to have other logits, and the first one with other tokens.
    pub first: [Option<Divergence>; 2],
    /// Where that is asked: how many items have a row that is farther apart.
    pub beyond: Vec<Beyond>,
    /// Where that is asked: the mean of [`Measure::Kl`] over the comparable places; not a number where one is not seen.
    pub divergence: Option<Mean>,
}

impl Tally {
    /// Adds an item, and what the two cells made of it. Items come in their order.
    pub fn add(&mut self, question: &Question, one: Output<'_>, other: Output<'_>) {
        let compared = compare(one, other);
        self.drift = match self.items() {
            0 => compared.drift,
            _ => self.drift.zip(compared.drift).map(|(most, drift)| most.max(drift)),
        };
        for (level, is_same) in compared.agree.iter() {
            self.levels[level].include(*is_same);
        }
        self.tops.include(compared.top);
        self.texts.include(compared.text);
        let is_answered = one.answer.or(other.answer).is_some();
        self.answered = self.answered + Proportion { hits: is_answered.into(), of: 1 };
        self.places = self.places + compared.places;
        self.best = self.best + compared.best;
        let pairs = match self.suites.get_mut(&question.suite) {
            Some(pairs) => pairs,
            None => self.suites.entry(question.suite.clone()).or_default(),
        };
        self.outcomes.include(one.outcome, other.outcome);
        pairs.include(question.cluster.as_deref(), compared.correct);
        self.course.add(&compared, one, other);
        let places = one.tokens.iter().zip(other.tokens).take(compared.places.of() as usize);
        let rows = places.map(|(a, b)| measured(a, b));
        if let Some(divergence) = &mut self.divergence {
            rows.clone()
                .for_each(|row| divergence.add(row.map_or(f64::NAN, |row| row[Measure::Kl as usize])));
        }
        if !self.beyond.is_empty() {
            let farthest = rows.into_iter().try_fold([0.0; Measure::ALL.len()], |most, row| {
                let row = row?;
                Some(std::array::from_fn(|at| f64::max(most[at], row[at])))
            });
            self.beyond.iter_mut().for_each(|beyond| beyond.add(farthest));
        }
        let places = [compared.first_bits, compared.first_token];
        for (first, place) in self.first.iter_mut().zip(places) {
            if let (None, Some(place)) = (&first, place) {
                *first = Some(Divergence::new(question, place, [one, other], compared.drift));
            }
        }
    }

    /// How many items there are.
    pub fn items(&self) -> u64 {
        self.answered.of
    }

    /// What the answers of the one lost and gained against the other.
    pub fn change(&self) -> Change {
        self.suites.values().map(Pairs::change).sum()
    }

    /// The items that agree on a level; nothing where an output of the pair does not show enough.
    pub fn agreeing(&self, level: Level) -> Option<Proportion> {
        self.levels[level].told()
    }

    /// Do all items agree on a level? One that does not settles it.
    pub fn agrees(&self, level: Level) -> Option<bool> {
        self.levels[level].all()
    }

    /// The strictest level on which all items are proven to agree, if there is one.
    pub fn level(&self) -> Option<Level> {
        Level::ALL.into_iter().find(|level| self.agrees(*level) == Some(true))
    }

    /// On how many items some row is farther apart than that, and of how many that is not seen; nothing where it was not measured.
    pub fn beyond(&self, measure: Measure, most: f64) -> Option<(u64, u64)> {
        let asked = |beyond: &&Beyond| (beyond.measure, beyond.most) == (measure, most);
        self.beyond.iter().find(asked).map(|beyond| (beyond.items, beyond.untold))
    }

    /// The first item with other tokens, or with other logits if there is none.
    pub fn first(&self) -> Option<&Divergence> {
        let [bits, tokens] = &self.first;
        tokens.as_ref().or(bits.as_ref())
    }
}

/// All items of many cells beside each other: how far apart settings are that should make no difference.
#[derive(Clone, Debug, Default)]
pub struct Spread {
    correctness: Correctness,
    /// How many cells have each item right.
    right: Clustered<String>,
    agreement: ByLevel<Agreement>,
    /// Where an output does not show enough.
    untold: ByLevel<bool>,
    items: Vec<Apart>,
}

/// How far apart many cells are on one item.
#[derive(Clone, Debug)]
struct Apart {
    /// The cluster that it is in, if it is in one.
    cluster: Option<String>,
    /// Which of them are right, where not all are or are not.
    right: Option<Box<[bool]>>,
    /// How many tokens their outputs have in common, and whether they part there, where all of these are seen.
    shared: Option<(u64, bool)>,
    /// The deviation of the lengths.
    length: Option<f64>,
    /// The mean deviation of the best token's probability before outputs part, where that is seen.
    probability: Option<f64>,
}

/// How far apart many cells are on the same items. The names in code are those of the paper "Understanding and Mitigating
/// Numerical Sources of Nondeterminism in LLM Inference" (LayerCast, 2025).
// What a `Spread` amounts to; the definitions are in `stats::spread`.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct Spreads {
    /// The right answers of all cells: its rate is the mean accuracy.
    pub accuracy: Proportion,
    /// Where it lies among all questions that might have been asked, for as many items as one cell answers; nothing without
    /// items, and where all are in one cluster.
    pub interval: Option<Interval>,
    /// How many times as large the variance of the mean accuracy is as that of as many questions without clusters; nothing
    /// where no questions come in clusters, or where all cells have all right or none.
    pub design_effect: Option<f64>,
    /// `Std@Acc`: the deviation of the accuracies; nothing with a single cell.
    pub deviation_of_accuracy: Option<f64>,
    /// The highest accuracy less the lowest; nothing without items.
    pub range_of_accuracy: Option<f64>,
    /// The test whether all cells are right equally often; nothing where no item tells two cells apart.
    pub cochran: Option<Cochran>,
    /// How far cells agree on each level; nothing where a cell does not show enough. The items whose tokens are unstable
    /// are the paper's share of divergent ones.
    pub agreement: ByLevel<Option<Agreement>>,
    /// `Div_Index`: after how many tokens the outputs of an item part, in the mean of the items that do.
    pub divergence_index: Option<f64>,
    /// `Avg_Std@Output_Length`: the deviation of the lengths of an item's outputs, in the mean of the items.
    pub deviation_of_lengths: Option<f64>,
    /// `Avg_Std@top1_prob`: the deviation of the best token's probability before the outputs of an item part, in the mean of
    /// its places and then of the items.
    pub deviation_of_probabilities: Option<f64>,
    /// The same for other items.
    pub redrawn: Redrawn,
}

/// Where 95 % of what other draws of as many items from these give lie: percentiles of the bootstrap. Nothing where all
/// draws give the same, or have no such number.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, JsonSchema)]
pub struct Redrawn {
    /// For `Std@Acc`. Draws in which cells differ by chance make it larger than it is, so that it may lie above the number
    /// itself where that is near 0.
    pub deviation_of_accuracy: Option<Interval>,
    /// For `Div_Index`.
    pub divergence_index: Option<Interval>,
    /// For `Avg_Std@Output_Length`.
    pub deviation_of_lengths: Option<Interval>,
    /// For `Avg_Std@top1_prob`.
    pub deviation_of_probabilities: Option<Interval>,
}

impl Spread {
    /// Adds an item, and the cluster that it is in, if it is in one: what each cell made of it, every time in the same order.
    pub fn add(&mut self, cluster: Option<String>, outputs: &[Output<'_>]) {
        self.correctness.add(cluster.as_deref(), outputs.iter().map(Output::is_correct));
        let hits = outputs.iter().filter(|output| output.is_correct()).count();
        self.right.add(cluster.clone(), hits as i64);
        let chosen: Option<Vec<Vec<u32>>> = outputs.iter().map(|output| output.chosen().collect()).collect();
        let ByLevel { bits, tokens, answers } = &mut self.agreement;
        self.untold.bits |= outputs.iter().any(|output| output.sight < Sight::Logits);
        bits.add(outputs.iter().map(|output| output.root));
        let is_text = outputs.iter().any(|output| output.sight == Sight::Text);
        self.untold.tokens |= chosen.is_none() || is_text;
        tokens.add(chosen.iter().flatten());
        answers.add(outputs.iter().map(|output| output.answer));
        let lengths: Vec<_> = outputs.iter().map(|output| [output.tokens.len() as u64]).collect();
        let shared = chosen.as_deref().map(shared_prefix);
        let seen = |output: &Output<'_>| output.tokens.iter().map(Token::probability).collect();
        let probabilities: Option<Vec<Vec<f32>>> = outputs.iter().map(seen).collect();
        let right = outputs.iter().map(Output::is_correct);
        let is_told = outputs.windows(2).any(|pair| pair[0].is_correct() != pair[1].is_correct());
        self.items.push(Apart {
            cluster,
            right: is_told.then(|| right.collect()),
            shared,
            length: deviation_of_lengths(&lengths).ok().flatten(),
            probability: shared.zip(probabilities).and_then(|((shared, _), probabilities)| {
                deviation_of_probabilities(&[(shared, probabilities)])
            }),
        });
    }

    /// What it amounts to, with intervals of this confidence.
    pub fn read(&self, confidence: f64) -> Spreads {
        let shared: Option<Vec<_>> = self.items.iter().map(|item| item.shared).collect();
        let right = self.right.sample();
        let accuracy: Proportion = self.correctness.accuracies().sum();
        Spreads {
            accuracy,
            interval: right.interval_of(accuracy.of_one(right.items), confidence),
            design_effect: right.effect_of_clusters(),
            deviation_of_accuracy: self.correctness.deviation(),
            range_of_accuracy: self.correctness.range(),
            cochran: self.correctness.cochran(),
            agreement: ByLevel::of(|level| (!self.untold[level]).then_some(self.agreement[level])),
            divergence_index: shared.and_then(|shared| divergence_index(&shared)),
            deviation_of_lengths: mean(self.items.iter().filter_map(|item| item.length)),
            deviation_of_probabilities: mean(self.items.iter().filter_map(|item| item.probability)),
            redrawn: self.redrawn(confidence),
        }
    }

    fn redrawn(&self, confidence: f64) -> Redrawn {
        // In an order of their own, so that none in which they came makes a difference.
        let mut items: Vec<_> = self.items.iter().collect();
        items.sort_by_key(|item| {
            let deviations = [item.length, item.probability].map(|deviation| deviation.map(f64::to_bits));
            (&item.cluster, &item.right, item.shared, deviations)
        });
        let mut clusters: Vec<Vec<usize>> = Vec::new();
        for (at, item) in items.iter().enumerate() {
            match clusters.last_mut() {
                Some(last) if item.cluster.is_some() && items[last[0]].cluster == item.cluster => {
                    last.push(at)
                }
                _ => clusters.push(vec![at]),
            }
        }
        let mut right = vec![0_u64; self.correctness.accuracies().count()];
        let [deviation_of_accuracy, divergence_index, deviation_of_lengths, deviation_of_probabilities] =
            redrawn(&clusters, confidence, |drawn| {
                right.fill(0);
                // Of each the sum, and of how many.
                let [mut parts, mut lengths, mut probabilities] = [(0.0, 0.0); 3];
                let add =
                    |(sum, count): &mut (f64, f64), value: f64| (*sum, *count) = (*sum + value, *count + 1.0);
                for item in drawn.iter().map(|item| items[*item]) {
                    for (cell, is_right) in right.iter_mut().zip(item.right.iter().flatten()) {
                        *cell += u64::from(*is_right);
                    }
                    if let Some((shared, true)) = item.shared {
                        add(&mut parts, shared as f64);
                    }
                    item.length.into_iter().for_each(|length| add(&mut lengths, length));
                    item.probability.into_iter().for_each(|probability| add(&mut probabilities, probability));
                }
                let mean = |(sum, count): (f64, f64)| (count > 0.0).then(|| sum / count);
                [deviation(&right, drawn.len() as u64), mean(parts), mean(lengths), mean(probabilities)]
            });
        Redrawn { deviation_of_accuracy, divergence_index, deviation_of_lengths, deviation_of_probabilities }
    }
}
