//! Which declared precision and order comes nearest to an engine that nobody looks into: what it showed, beside what the lab
//! gives after the same tokens.

use std::{cmp::Ordering, num::NonZeroUsize};

use serde::Serialize;

use super::CauseError;
use crate::{
    digest::Digest,
    model::{
        Checkpoint, Decoder,
        decoder::{Span, Wanted},
    },
    numerics::{
        Numerics,
        agreement::{Agreement, Kind},
        kernel::{Fast, Kernel},
        order::{ORDERS, Order, Parts, Rule, Shape},
        precision::Precision,
        unit::Gpu,
    },
    trace::{Sight, Token},
};

/// What an engine made of one prompt.
#[derive(Clone, PartialEq, Debug)]
pub struct Answered {
    /// The prompt, at least one token.
    pub prompt: Vec<u32>,
    /// The tokens that followed, each with what it was chosen from.
    pub tokens: Vec<Token>,
}

/// How near declared precisions and orders come to what an engine showed.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Likeness {
    /// How much the engine shows.
    pub sight: Sight,
    /// How many items were read.
    pub items: u64,
    /// The places that were compared: those of these items at which the engine shows something.
    pub places: u64,
    /// How many numbers it shows there.
    pub numbers: u64,
    /// Every precision and order that was tried, the nearest first: more places with all logits the same, then more with
    /// all shown numbers the same, then more bits, then a smaller divergence.
    pub tried: Vec<Tried>,
}

/// What a precision and an order come to, and all that have the same bits at every place that was read.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Tried {
    /// Their names.
    #[serde(serialize_with = "names")]
    pub numerics: Vec<Numerics>,
    /// The places at which all logits are the same, by their digest; nothing where the engine does not show that.
    pub whole: Option<u64>,
    /// The places at which all numbers that the engine shows are the same, as [`Kind::is_same`] says.
    pub same: u64,
    /// In how many of 24 bits a number agrees with that of the engine, on average, as [`Kind::bits`] says.
    pub bits: f64,
    /// In how many it agrees with that of the nearest.
    pub bits_of_nearest: f64,
    /// The mean divergence from the engine, in nats, as if there were no tokens but those that it shows; nothing where it is infinite.
    pub divergence: Option<f64>,
}

fn names<S: serde::Serializer>(numerics: &[Numerics], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(numerics.iter().map(ToString::to_string))
}

impl Likeness {
    /// Is there one that gives everything that the engine showed?
    pub fn explains(&self, tried: &Tried) -> bool {
        self.places > 0 && tried.whole.unwrap_or(tried.same) == self.places
    }
}

/// How many lanes, terms of a block, and parts are tried: those that vectors, tiles and splits have.
const LANES: [usize; 4] = [4, 8, 16, 32];
const BLOCKS: [usize; 3] = [32, 64, 128];
const PARTS: [usize; 3] = [2, 4, 8];

/// What is tried: these, and every order that follows neither the launch nor a seed, with a few numbers where it takes one, in
/// fp32, bf16 and fp16. A file of GGUF is read as it stores its weights, which has the bits of fp32; what adds as an instruction
/// for bf16 does is tried in bf16 alone. Threads that move no bit are named as one.
pub fn candidates(own: impl IntoIterator<Item = Numerics>, is_gguf: bool) -> Vec<Numerics> {
    let single = if is_gguf { Precision::Gguf } else { Precision::Fp32 };
    let precisions = [single, Precision::Bf16, Precision::Fp16];
    let orders: Vec<Order> = ORDERS.iter().flat_map(|entry| numbered(entry.example)).collect();
    let declared = precisions.iter().flat_map(|&precision| {
        let fits = move |order: &&Order| order.rule() != Rule::DotBf16 || precision == Precision::Bf16;
        orders.iter().filter(fits).map(move |&order| (precision, order))
    });
    let declared =
        declared.filter_map(|(precision, order)| Numerics::new(precision, order, NonZeroUsize::MIN).ok());
    let mut all: Vec<Numerics> = Vec::new();
    for numerics in own.into_iter().map(|own| own.on_threads(NonZeroUsize::MIN)).chain(declared) {
        if !all.contains(&numerics) {
            all.push(numerics);
        }
    }
    all
}

/// An order of the table with the numbers that are tried; none where it follows the launch or a seed.
fn numbered(order: Order) -> Vec<Order> {
    let with = |numbers: &[usize], shape: fn(NonZeroUsize) -> Shape| {
        let shapes = numbers.iter().filter_map(|&number| NonZeroUsize::new(number)).map(shape);
        shapes.filter_map(|shape| Order::new(shape, order.rule()).ok()).collect()
    };
    match order.shape() {
        _ if order.depends_on_launch() => Vec::new(),
        // Of those that are alike in 16 bits one.
        _ if order.is_of_unit() => {
            let units = [Gpu::V100, Gpu::A100, Gpu::H100].map(Rule::Mma);
            units.into_iter().filter_map(|rule| Order::new(order.shape(), rule).ok()).collect()
        }
        Shape::Shuffled(_) => Vec::new(),
        Shape::Lanes(_) => with(&LANES, Shape::Lanes),
        Shape::Blocks(_) => with(&BLOCKS, Shape::Blocks),
        Shape::SplitK(_) => with(&PARTS, |parts| Shape::SplitK(Parts::Fixed(parts))),
        _ => vec![order],
    }
}

/// Holds what an engine showed against the lab under each of these: the lab reads the same tokens, every prompt by itself, on so
/// many threads, and so many tokens at once; both move no bit. Whatever follows the launch has that of a prompt which is read in
/// one call, and after it token by token.
///
/// # Errors
///
/// When the model does not load, or the machine has no more threads.
pub fn likeness(
    checkpoint: &Checkpoint,
    answers: &[Answered],
    sight: Sight,
    candidates: &[Numerics],
    [threads, together]: [NonZeroUsize; 2],
) -> Result<Likeness, CauseError> {
    let shows = |token: &&Token| !token.candidates().is_empty();
    let places = answers.iter().flat_map(|answer| &answer.tokens).filter(shows).count() as u64;
    let mut likeness = Likeness { sight, items: answers.len() as u64, places, numbers: 0, tried: Vec::new() };
    if places == 0 {
        return Ok(likeness);
    }
    let kind = if sight == Sight::Logits { Kind::Logits } else { Kind::LogProbabilities };
    let mut all: Vec<(Digest, Vec<f32>, Tried)> = Vec::new();
    for &numerics in candidates {
        let computed = numerics.on_threads(threads);
        let kernel = Fast::new(computed)
            .map_err(|error| CauseError::Threads { numerics: Box::new(computed), error })?;
        let decoder = Decoder::load(kernel, checkpoint)?;
        let mut seen = Compared { agreement: Agreement::new(kind), whole: 0, digests: Vec::new() };
        decoder.kernel().workers().within(|| {
            answers.iter().for_each(|answer| seen.read(&decoder, answer, together));
        });
        let Compared { agreement, whole, digests } = seen;
        let digest = Digest::of(&digests);
        if let Some((.., alike)) = all.iter_mut().find(|(other, ..)| *other == digest) {
            alike.numerics.push(numerics);
            continue;
        }
        let tried = Tried {
            numerics: vec![numerics],
            whole: (sight == Sight::Logits).then_some(whole),
            same: agreement.same(),
            bits: agreement.bits(),
            bits_of_nearest: 0.0,
            divergence: agreement.divergence(),
        };
        all.push((digest, agreement.ours().to_vec(), tried));
    }
    all.sort_by(|(.., one), (.., other)| nearer(one, other));
    let nearest = all.first().map_or_else(Vec::new, |(_, ours, _)| ours.clone());
    likeness.numbers = nearest.len() as u64;
    let tried = all.into_iter().map(|(_, ours, tried)| {
        let bits_of_nearest = kind.mean_bits(&nearest, &ours);
        Tried { bits_of_nearest, ..tried }
    });
    likeness.tried = tried.collect();
    Ok(likeness)
}

fn nearer(one: &Tried, other: &Tried) -> Ordering {
    let divergence = |tried: &Tried| tried.divergence.unwrap_or(f64::INFINITY);
    other
        .whole
        .cmp(&one.whole)
        .then(other.same.cmp(&one.same))
        .then(other.bits.total_cmp(&one.bits))
        .then(divergence(one).total_cmp(&divergence(other)))
}

/// What was seen of one candidate.
struct Compared {
    agreement: Agreement,
    whole: u64,
    /// Of the logits of every place.
    digests: Vec<u8>,
}

impl Compared {
    fn read<K: Kernel>(&mut self, decoder: &Decoder<K>, answer: &Answered, together: NonZeroUsize) {
        let vocabulary = decoder.config().vocabulary;
        let numerics = decoder.kernel().numerics();
        let together = if numerics.minds_its_rows() { 1 } else { together.get() };
        // Nothing reads the last token.
        let followed: Vec<u32> = answer.tokens.iter().map(|token| token.id).collect();
        let read = &followed[..followed.len().saturating_sub(1)];
        let mut cache = decoder.cache();
        let mut places = answer.tokens.iter();
        let calls = [(&answer.prompt[..], Wanted::Last)];
        for (tokens, wanted) in calls.into_iter().chain(read.chunks(together).map(|part| (part, Wanted::All)))
        {
            let logits = decoder.forward(&mut [Span { cache: &mut cache, tokens, logits: wanted }]);
            for (logits, token) in logits.chunks_exact(vocabulary).zip(&mut places) {
                self.add(token, logits);
            }
        }
    }

    fn add(&mut self, token: &Token, logits: &[f32]) {
        let digest = Digest::of_logits(logits);
        self.digests.extend(digest.0);
        self.whole += u64::from(token.digest() == Some(digest));
        if !token.candidates().is_empty() {
            self.agreement.add(token.candidates(), logits);
        }
    }
}
