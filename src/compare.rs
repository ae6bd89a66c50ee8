//! The ladder of agreement, and where outputs first part: two of one item, two cells on all items, and many cells.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    json_float,
    name::named,
    numerics::{choice::Candidate, total::mean},
    stats::{
        Interval,
        paired::Paired,
        proportion::Proportion,
        redraw::redrawn,
        spread::{
            Agreement, Cochran, Correctness, deviation, deviation_of_lengths, deviation_of_probabilities,
            divergence_index, shared_prefix,
        },
        survival::Survival,
    },
    suite::question::Question,
    trace::{Sight, Token},
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
    /// Is that the right one?
    pub correct: bool,
    /// Were the tokens given, and not chosen? Then those that would have been chosen are compared.
    pub replayed: bool,
}

impl Output<'_> {
    /// The tokens that its logits would choose.
    fn chosen(&self) -> impl Iterator<Item = u32> {
        self.tokens.iter().map(|token| if self.replayed { best(token) } else { token.id })
    }
}

/// The token that ranks first.
fn best(token: &Token) -> u32 {
    token.candidates().first().map_or(token.id, |candidate| candidate.token)
}

/// Two outputs of one item beside each other.
///
/// Logits are comparable as long as both cells have read the same: up to and with the first place where the tokens part,
/// or everywhere if both have read what a third one wrote.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Compared {
    /// How many places are comparable.
    pub places: usize,
    /// At how many of them the logits are the same.
    pub equal_places: usize,
    /// The first place with other logits.
    pub first_bits: Option<usize>,
    /// The first place with another token, or where one output ends and the other goes on.
    pub first_token: Option<usize>,
    /// At how many places both rank the same token first.
    pub same_best: usize,
    /// The largest difference of the logits of a token that both cells kept, before the tokens part.
    pub drift: f32,
    /// The least margin of the first output, over the comparable places.
    pub margin: f32,
    /// Is the answer the same, or missing in both?
    pub same_answer: bool,
    /// Is the answer right, in the one and in the other?
    pub correct: (bool, bool),
}

/// Compares two outputs of one item.
pub fn compare(one: Output<'_>, other: Output<'_>) -> Compared {
    let pairs = || one.tokens.iter().zip(other.tokens);
    let shared = one.chosen().zip(other.chosen()).take_while(|(a, b)| a == b).count();
    let (shortest, longest) =
        (one.tokens.len().min(other.tokens.len()), one.tokens.len().max(other.tokens.len()));
    // The place where they part was still chosen from comparable logits, if both chose.
    let places = if one.replayed && other.replayed { shortest } else { shortest.min(shared + 1) };
    let mut compared = Compared {
        places,
        equal_places: 0,
        first_bits: None,
        first_token: (shared < longest).then_some(shared),
        same_best: 0,
        drift: 0.0,
        margin: f32::INFINITY,
        same_answer: one.answer == other.answer,
        correct: (one.correct, other.correct),
    };
    for (place, (a, b)) in pairs().take(places).enumerate() {
        compared.margin = compared.margin.min(a.margin().unwrap_or(f32::INFINITY));
        compared.same_best += usize::from(best(a) == best(b));
        if a.digest() == b.digest() {
            compared.equal_places += 1;
        } else {
            compared.first_bits = compared.first_bits.or(Some(place));
            if place < shared {
                compared.drift = compared.drift.max(apart(a, b));
            }
        }
    }
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

impl Compared {
    /// Do both agree on this level?
    pub fn agree(&self, level: Level) -> bool {
        match level {
            Level::Bits => self.first_bits.is_none() && self.first_token.is_none(),
            Level::Tokens => self.first_token.is_none(),
            Level::Answers => self.same_answer,
        }
    }
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
    /// The largest difference of the logits of a token that both kept, before this place.
    #[serde(with = "json_float")]
    #[schemars(schema_with = "json_float::schema")]
    pub drift: f32,
}

/// What one cell did where another did something else.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct Side {
    /// The number of the token that it chose; nothing where its output had ended.
    pub token: Option<u32>,
    /// How much higher its best logit was than its second; nothing where its output had ended.
    #[serde(with = "json_float::option")]
    #[schemars(schema_with = "json_float::option::schema")]
    pub margin: Option<f32>,
    /// The best tokens with their logits, the best first.
    pub candidates: Vec<Candidate>,
    /// The text that it wrote.
    pub text: String,
    /// The answer that was found in the text, if one was.
    pub answer: Option<String>,
    /// Is the answer the right one?
    pub correct: bool,
}

impl Divergence {
    fn new(question: &Question, place: usize, outputs: [Output<'_>; 2], drift: f32) -> Divergence {
        let side = |output: Output<'_>| {
            let token = output.tokens.get(place);
            Side {
                token: output.chosen().nth(place),
                margin: token.and_then(Token::margin),
                candidates: token.map_or_else(Vec::new, |token| token.candidates().to_vec()),
                text: output.text.to_owned(),
                answer: output.answer.map(str::to_owned),
                correct: output.correct,
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
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, JsonSchema)]
pub struct Drift {
    /// How many outputs have not parted by then.
    pub outputs: u64,
    /// How many of these outputs have other logits there.
    pub moved: u64,
    /// The largest difference of a logit.
    #[serde(with = "json_float")]
    #[schemars(schema_with = "json_float::schema")]
    pub most: f32,
}

/// How outputs come apart along their tokens.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Course {
    /// How many items part after so many tokens, or end after so many without having parted.
    parts: BTreeMap<(u64, bool), u64>,
    /// At each place.
    pub drift: Vec<Drift>,
    /// For each range of margins, beginning below the first of [`MARGINS`], the places at which another token ranks first.
    pub margins: [Proportion; MARGINS.len() + 1],
}

impl Course {
    fn add(&mut self, compared: &Compared, one: Output<'_>, other: Output<'_>) {
        let end = match compared.first_token {
            Some(place) => (place as u64, true),
            None => (one.tokens.len() as u64, false),
        };
        *self.parts.entry(end).or_default() += 1;
        for (place, (a, b)) in one.tokens.iter().zip(other.tokens).take(compared.places).enumerate() {
            if self.drift.len() == place {
                self.drift.push(Drift::default());
            }
            let drift = &mut self.drift[place];
            drift.outputs += 1;
            drift.moved += u64::from(a.digest() != b.digest());
            drift.most = drift.most.max(apart(a, b));
            let range =
                MARGINS.iter().take_while(|margin| a.margin().is_some_and(|own| own >= **margin)).count();
            let moved = Proportion { hits: u64::from(best(a) != best(b)), of: 1 };
            self.margins[range] = self.margins[range] + moved;
        }
    }

    /// Adds what other cells did.
    pub fn pool(&mut self, other: &Course) {
        for (end, count) in &other.parts {
            *self.parts.entry(*end).or_default() += count;
        }
        for (place, drift) in other.drift.iter().enumerate() {
            if self.drift.len() == place {
                self.drift.push(Drift::default());
            }
            let pooled = &mut self.drift[place];
            pooled.outputs += drift.outputs;
            pooled.moved += drift.moved;
            pooled.most = pooled.most.max(drift.most);
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

/// All items of two cells beside each other.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Tally {
    /// Items whose logits are all the same.
    pub bits: Proportion,
    /// Items with the same tokens.
    pub tokens: Proportion,
    /// Items with the same answer.
    pub answers: Proportion,
    /// Items in which at least one of the two has found an answer.
    pub answered: Proportion,
    /// Places with the same logits, among the comparable ones.
    pub places: Proportion,
    /// Places at which both rank the same token first.
    pub best: Proportion,
    /// What the answers of the one lost and gained against the other.
    pub paired: Paired,
    /// The same for each suite.
    pub suites: BTreeMap<String, Paired>,
    /// How outputs come apart along their tokens.
    pub course: Course,
    /// The largest drift of any item.
    pub drift: f32,
    /// The first item with other logits, and the first one with other tokens.
    pub first: [Option<Divergence>; 2],
}

impl Tally {
    /// Adds an item, and what the two cells made of it. Items come in their order.
    pub fn add(&mut self, question: &Question, one: Output<'_>, other: Output<'_>) {
        let compared = compare(one, other);
        let item = |yes: bool| Proportion { hits: yes.into(), of: 1 };
        self.bits = self.bits + item(compared.agree(Level::Bits));
        self.tokens = self.tokens + item(compared.agree(Level::Tokens));
        self.answers = self.answers + item(compared.agree(Level::Answers));
        self.answered = self.answered + item(one.answer.or(other.answer).is_some());
        let places = |hits: usize| Proportion { hits: hits as u64, of: compared.places as u64 };
        self.places = self.places + places(compared.equal_places);
        self.best = self.best + places(compared.same_best);
        self.paired.include(compared.correct);
        match self.suites.get_mut(&question.suite) {
            Some(paired) => paired.include(compared.correct),
            None => self.suites.entry(question.suite.clone()).or_default().include(compared.correct),
        }
        self.course.add(&compared, one, other);
        self.drift = self.drift.max(compared.drift);
        let places = [compared.first_bits, compared.first_token];
        for (first, place) in self.first.iter_mut().zip(places) {
            if let (None, Some(place)) = (&first, place) {
                *first = Some(Divergence::new(question, place, [one, other], compared.drift));
            }
        }
    }

    /// The items that agree on a level.
    pub fn agreeing(&self, level: Level) -> Proportion {
        match level {
            Level::Bits => self.bits,
            Level::Tokens => self.tokens,
            Level::Answers => self.answers,
        }
    }

    /// The strictest level on which all items agree, if there is one.
    pub fn level(&self) -> Option<Level> {
        Level::ALL.into_iter().find(|level| self.agreeing(*level).misses() == 0)
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
    agreement: [Agreement; 3],
    items: Vec<Apart>,
}

/// How far apart many cells are on one item.
#[derive(Clone, Debug)]
struct Apart {
    /// Which of them are right, where not all are or are not.
    right: Option<Box<[bool]>>,
    /// How many tokens their outputs have in common, and whether they part there.
    shared: (u64, bool),
    /// The deviation of the lengths.
    length: Option<f64>,
    /// The mean deviation of the best token's probability before outputs part.
    probability: Option<f64>,
}

/// How far apart many cells are on the same items. The names in code are those of the paper "Understanding and Mitigating
/// Numerical Sources of Nondeterminism in LLM Inference" (LayerCast, 2025).
// What a `Spread` amounts to; the definitions are in `stats::spread`.
#[derive(Clone, PartialEq, Debug, Serialize, JsonSchema)]
pub struct Spreads {
    /// The right answers of all cells: its rate is the mean accuracy.
    pub accuracy: Proportion,
    /// `Std@Acc`: the deviation of the accuracies; nothing with a single cell.
    pub deviation_of_accuracy: Option<f64>,
    /// The highest accuracy less the lowest; nothing without items.
    pub range_of_accuracy: Option<f64>,
    /// The test whether all cells are right equally often; nothing where no item tells two cells apart.
    pub cochran: Option<Cochran>,
    /// How far cells agree on the bits of all logits.
    pub bits: Agreement,
    /// How far cells agree on tokens: the unstable items are the paper's share of divergent ones.
    pub tokens: Agreement,
    /// How far cells agree on answers.
    pub answers: Agreement,
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
    /// Adds an item: what each cell made of it, every time in the same order.
    pub fn add(&mut self, outputs: &[Output<'_>]) {
        self.correctness.add(outputs.iter().map(|output| output.correct));
        let chosen: Vec<Vec<u32>> = outputs.iter().map(|output| output.chosen().collect()).collect();
        let [bits, tokens, answers] = &mut self.agreement;
        bits.add(outputs.iter().map(|output| output.root));
        tokens.add(&chosen);
        answers.add(outputs.iter().map(|output| output.answer));
        let lengths: Vec<_> = chosen.iter().map(|tokens| [tokens.len() as u64]).collect();
        let shared = shared_prefix(&chosen);
        let probability = |output: &Output<'_>| {
            output.tokens.iter().map(|token| token.probability().unwrap_or(0.0)).collect()
        };
        let probabilities: Vec<Vec<f32>> = outputs.iter().map(probability).collect();
        let right = outputs.iter().map(|output| output.correct);
        let is_told = outputs.windows(2).any(|pair| pair[0].correct != pair[1].correct);
        self.items.push(Apart {
            right: is_told.then(|| right.collect()),
            shared,
            length: deviation_of_lengths(&lengths).ok().flatten(),
            probability: deviation_of_probabilities(&[(shared.0, probabilities)]),
        });
    }

    /// What it amounts to, with intervals of this confidence.
    pub fn read(&self, confidence: f64) -> Spreads {
        let [bits, tokens, answers] = self.agreement;
        let shared: Vec<_> = self.items.iter().map(|item| item.shared).collect();
        Spreads {
            accuracy: self.correctness.accuracies().sum(),
            deviation_of_accuracy: self.correctness.deviation(),
            range_of_accuracy: self.correctness.range(),
            cochran: self.correctness.cochran(),
            bits,
            tokens,
            answers,
            divergence_index: divergence_index(&shared),
            deviation_of_lengths: mean(self.items.iter().filter_map(|item| item.length)),
            deviation_of_probabilities: mean(self.items.iter().filter_map(|item| item.probability)),
            redrawn: self.redrawn(confidence),
        }
    }

    fn redrawn(&self, confidence: f64) -> Redrawn {
        // In an order of their own, so that none in which they came makes a difference.
        let mut items: Vec<_> = self.items.iter().collect();
        items.sort_by_key(|item| {
            (&item.right, item.shared, item.length.map(f64::to_bits), item.probability.map(f64::to_bits))
        });
        let mut right = vec![0_u64; self.correctness.accuracies().count()];
        let count = items.len() as u64;
        let [deviation_of_accuracy, divergence_index, deviation_of_lengths, deviation_of_probabilities] =
            redrawn(items.len(), confidence, |drawn| {
                right.fill(0);
                // Of each the sum, and of how many.
                let [mut parts, mut lengths, mut probabilities] = [(0.0, 0.0); 3];
                let add =
                    |(sum, count): &mut (f64, f64), value: f64| (*sum, *count) = (*sum + value, *count + 1.0);
                for item in drawn.iter().map(|item| items[*item]) {
                    for (cell, is_right) in right.iter_mut().zip(item.right.iter().flatten()) {
                        *cell += u64::from(*is_right);
                    }
                    if let (shared, true) = item.shared {
                        add(&mut parts, shared as f64);
                    }
                    item.length.into_iter().for_each(|length| add(&mut lengths, length));
                    item.probability.into_iter().for_each(|probability| add(&mut probabilities, probability));
                }
                let mean = |(sum, count): (f64, f64)| (count > 0.0).then(|| sum / count);
                [deviation(&right, count), mean(parts), mean(lengths), mean(probabilities)]
            });
        Redrawn { deviation_of_accuracy, divergence_index, deviation_of_lengths, deviation_of_probabilities }
    }
}
