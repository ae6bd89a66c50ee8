//! Parity: what several engines show after the same tokens, and how far apart that is.

pub mod record;

use std::collections::HashMap;

use serde::Serialize;

use crate::{
    cell::Cell,
    engine::{
        EngineError,
        environment::{Differing, Environment},
    },
    numerics::{
        apart::{Apart, apart, estimate, factor},
        total::Mean,
    },
    source::Blame,
    store::{
        StoreError,
        open::{Item, OpenError, OpenTrace, Shown, Shows},
    },
};

/// Why engines cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum ParityError {
    /// A trace that does not read.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A trace that cannot be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Tokens that cannot be given.
    #[error("{0}")]
    Given(String),
    /// An engine that shows nothing but tokens.
    #[error("{0} shows no numbers to compare: take it out, or compare its tokens with `run`")]
    Blind(Box<Cell>),
    /// An engine that does not answer.
    #[error("{cell}: {error}")]
    Engine {
        /// Of which cell.
        cell: Box<Cell>,
        /// What it said.
        error: EngineError,
    },
    /// Two traces of other vocabularies.
    #[error("{one} shows {} numbers of a token, and {other} {}: compare engines of one model", .widths[0], .widths[1])]
    Widths {
        /// The one.
        one: String,
        /// The other.
        other: String,
        /// How many numbers each has in a row.
        widths: [usize; 2],
    },
    /// Two traces that have no item in common.
    #[error("{one} and {other} have read nothing in common: give both the same items with the same prompts")]
    Nothing {
        /// The one.
        one: String,
        /// The other.
        other: String,
    },
}

impl Blame for ParityError {
    fn is_environment(&self) -> bool {
        match self {
            ParityError::Open(error) => error.is_environment(),
            ParityError::Store(_) => true,
            ParityError::Engine { error, .. } => error.is_environment(),
            _ => false,
        }
    }
}

/// One of those that are compared.
pub struct Side {
    /// What it is called: a cell, or a file.
    pub name: String,
    /// The cell, if it is one.
    pub cell: Option<Cell>,
    /// What it showed.
    pub trace: OpenTrace,
}

/// A place in a text.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Place {
    /// The item.
    pub item: String,
    /// How many tokens stand before it, without the prompt.
    pub place: usize,
    /// The token that differs most there.
    pub token: u32,
}

/// The largest of many, and where it is.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Largest<T> {
    /// How large.
    pub value: T,
    /// Where.
    #[serde(flatten)]
    pub at: Place,
}

/// What two sides show after the same tokens.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Parity {
    /// Their names.
    pub sides: [String; 2],
    /// What each shows of a token.
    pub shows: [Shows; 2],
    /// Where their environments differ, and what each says there.
    pub environment: Differing,
    /// Items that both have read.
    pub items: u64,
    /// Items of one alone, or with another prompt.
    pub left_out: u64,
    /// Items whose tokens part: what follows is not compared.
    pub parted: u64,
    /// Places that were compared.
    pub places: u64,
    /// Places before which one of the two shows nothing.
    pub unseen: u64,
    /// Places where all numbers that both show are the same, bit for bit.
    pub same: u64,
    /// The first place where they are not.
    pub first: Option<Place>,
    /// The most steps of f32 between two numbers; nothing where one shows logits and the other log-probabilities.
    pub steps: Option<Largest<u64>>,
    /// The largest difference of log-probabilities, in nats.
    pub difference: Option<Largest<f64>>,
    /// The largest divergence of the second from the first, in nats: that of the best tokens, which is at most that of all,
    /// where not both show all.
    pub divergence: Option<Largest<f64>>,
    /// Its mean over all places.
    pub mean_divergence: Option<f64>,
    /// Places where the two rank other tokens first.
    pub flips: u64,
    /// Places where they do, or might under differences of such a size.
    pub might_flip: u64,
    /// The tokens that were given, of which both show the probability.
    pub given: Option<Ratio>,
}

/// The probabilities of the tokens that were given, as training by reinforcement looks at them.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Ratio {
    /// How many tokens.
    pub tokens: u64,
    /// The mean of e^|d|, where d is the difference of the two log-probabilities: NeMo RL's multiplicative error of
    /// probabilities.
    pub mult_prob_error: f64,
    /// The mean of e^d - 1 - d, where d is the second's less the first's: an estimate of the divergence of the second from
    /// the first where the first has chosen the tokens.
    pub k3: f64,
}

impl Parity {
    /// Is everything seen on which a limit bears? The best tokens alone say what is apart, and never that nothing is.
    pub fn is_whole(&self) -> bool {
        !self.shows.contains(&Shows::Top) && self.is_all()
    }

    /// Was every place of every item compared?
    fn is_all(&self) -> bool {
        self.unseen == 0 && self.left_out == 0 && self.parted == 0
    }

    /// The share of places where the two rank other tokens first.
    pub fn flip_rate(&self) -> f64 {
        self.flips as f64 / self.places.max(1) as f64
    }
}

/// What is counted while places are compared.
#[derive(Default)]
struct Sums {
    divergence: Mean,
    mult: Mean,
    k3: Mean,
    given: u64,
}

/// Compares what two sides show, place by place, as long as both have read the same.
///
/// # Errors
///
/// When a trace cannot be read, or the two have nothing in common.
pub fn compare(one: &mut Side, other: &mut Side) -> Result<Parity, ParityError> {
    let names = [one.name.clone(), other.name.clone()];
    let shows = [one.trace.head.shows, other.trace.head.shows];
    let widths = [one.trace.width, other.trace.width];
    if widths[0] != widths[1] && !shows.contains(&Shows::Top) {
        let [one, other] = names;
        return Err(ParityError::Widths { one, other, widths });
    }
    let mut parity = Parity {
        environment: Environment::differences([&one.trace.head.environment, &other.trace.head.environment]),
        sides: names,
        shows,
        items: 0,
        left_out: 0,
        parted: 0,
        places: 0,
        unseen: 0,
        same: 0,
        first: None,
        steps: None,
        difference: None,
        divergence: None,
        mean_divergence: None,
        flips: 0,
        might_flip: 0,
        given: None,
    };
    let mut sums = Sums::default();
    let items = one.trace.items.clone();
    let others: HashMap<_, _> =
        other.trace.items.iter().map(|item| (item.item.clone(), item.clone())).collect();
    let mut shown = [Shown::default(), Shown::default()];
    for item in &items {
        let Some(its_other) = others.get(&item.item).filter(|other| other.prompt == item.prompt) else {
            parity.left_out += 1;
            continue;
        };
        parity.items += 1;
        parity.parted += u64::from(item.tokens != its_other.tokens);
        for place in places(item, its_other) {
            let (Some(a), Some(b)) = (item.rows[place], its_other.rows[place]) else {
                parity.unseen += 1;
                continue;
            };
            one.trace.read(a, &mut shown[0])?;
            other.trace.read(b, &mut shown[1])?;
            let found = apart(shown[0].row(shows[0]), shown[1].row(shows[1]), item.tokens[place]);
            parity.add(&mut sums, item, place, &found);
        }
    }
    parity.left_out += others.len() as u64 - parity.items;
    if parity.places == 0 {
        let [one, other] = parity.sides;
        return Err(ParityError::Nothing { one, other });
    }
    let largest = parity.divergence.as_ref().map(|largest| largest.value);
    // No mean is kept of what is not finite.
    parity.mean_divergence = largest.filter(|largest| largest.is_infinite()).or(sums.divergence.round());
    if let (Some(mult_prob_error), Some(k3)) = (sums.mult.round(), sums.k3.round()) {
        parity.given = Some(Ratio { tokens: sums.given, mult_prob_error, k3 });
    }
    Ok(parity)
}

/// The places before which both have read the same: up to and with the first other token.
fn places(one: &Item, other: &Item) -> std::ops::Range<usize> {
    let shared = one.tokens.iter().zip(&other.tokens).take_while(|(a, b)| a == b).count();
    0..(shared + 1).min(one.tokens.len()).min(other.tokens.len())
}

impl Parity {
    fn add(&mut self, sums: &mut Sums, item: &Item, place: usize, found: &Apart) {
        let at = |token| Place { item: item.item.clone(), place, token };
        self.places += 1;
        self.same += u64::from(found.same);
        self.flips += u64::from(found.flips());
        self.might_flip += u64::from(found.might_flip());
        if !found.same && self.first.is_none() {
            let token = found
                .steps
                .filter(|steps| steps.value > 0)
                .map_or(found.difference.token, |steps| steps.token);
            self.first = Some(at(token));
        }
        if let Some(steps) = found.steps {
            grow(&mut self.steps, steps.value, || at(steps.token));
        }
        let difference = found.difference;
        grow(&mut self.difference, difference.value, || at(difference.token));
        grow(&mut self.divergence, found.divergence, || at(difference.token));
        sums.divergence.add(found.divergence);
        if let Some(d) = found.given {
            sums.given += 1;
            sums.mult.add(factor(d));
            sums.k3.add(estimate(d));
        }
    }
}

fn grow<T: PartialOrd>(largest: &mut Option<Largest<T>>, value: T, at: impl FnOnce() -> Place) {
    if largest.as_ref().is_none_or(|largest| largest.value < value) {
        *largest = Some(Largest { value, at: at() });
    }
}

/// What a pair must not exceed. Without any limit every bit must be the same.
#[derive(Clone, Copy, PartialEq, Default, Debug)]
pub struct Limits {
    /// The largest divergence of a place, in nats.
    pub divergence: Option<f64>,
    /// The most steps of f32 between two numbers.
    pub steps: Option<u64>,
    /// The largest share of places that rank another token first.
    pub flip_rate: Option<f64>,
}

impl Limits {
    /// Does a pair keep within them? Nothing where it is not seen to exceed them, and not all is seen.
    pub fn hold(&self, parity: &Parity) -> Option<bool> {
        let Limits { divergence, steps, flip_rate } = *self;
        if (divergence, steps, flip_rate) == (None, None, None) {
            return (parity.same < parity.places).then_some(false).or(parity.is_whole().then_some(true));
        }
        let exceeds =
            |limit: Option<f64>, value: Option<f64>| limit.zip(value).map(|(limit, value)| value > limit);
        let largest = parity.divergence.as_ref().map(|largest| largest.value);
        let most = parity.steps.as_ref().map(|most| most.value as f64);
        let found = [
            (divergence.is_some(), exceeds(divergence, largest), parity.is_whole()),
            (steps.is_some(), exceeds(steps.map(|steps| steps as f64), most), parity.is_whole()),
            // Every engine shows which token is best.
            (flip_rate.is_some(), exceeds(flip_rate, Some(parity.flip_rate())), parity.is_all()),
        ];
        let mut holds = Some(true);
        for (_, exceeds, is_seen) in found.into_iter().filter(|(is_asked, ..)| *is_asked) {
            match exceeds {
                Some(true) => return Some(false),
                Some(false) if is_seen => {}
                _ => holds = None,
            }
        }
        holds
    }
}
