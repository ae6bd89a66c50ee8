//! Whatever can continue a prompt: prompts in, samples out.

pub mod candle;
pub mod child;
mod company;
pub mod ending;
pub mod environment;
pub mod faulty;
pub mod lab;
pub mod script;
pub mod server;

use std::{collections::BTreeMap, fmt, num::NonZeroUsize, path::Path};

use serde::{Deserialize, Serialize};

use self::{
    child::Child,
    environment::Environment,
    lab::Lab,
    script::{Script, Scripted},
    server::{Opening, Server, Serving},
};
use crate::{
    cell::{Asking, Compute, Name},
    digest::Digest,
    model::{Checkpoint, CheckpointError, Subject, ranks},
    numerics::{
        choice::{Choice, Place, RankError, Ranking, rank},
        kernel::Workers,
        precision::Precision,
    },
    source::Blame,
    trace::{Sample, Seen, Sight, Step, Token},
};

/// One prompt.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Prompt {
    /// The item it belongs to: part of the key of a draw.
    pub item: u64,
    /// Its tokens.
    pub tokens: Vec<u32>,
    /// Tokens to score one after the other, in place of those that would be chosen.
    pub replay: Option<Vec<u32>>,
}

/// How prompts are continued.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Request {
    /// How many tokens of one prompt a call reads at most; all of them where there is none.
    pub prefill_chunk: Option<NonZeroUsize>,
    /// Who is asked beside a prompt, and what comes of what was read before.
    pub asking: Asking,
    /// How many tokens may follow.
    pub max_new_tokens: usize,
    /// Tokens that end a sample.
    pub stop_tokens: Vec<u32>,
    /// Texts that end a sample.
    pub stop_strings: Vec<String>,
    /// How a token is chosen.
    pub choice: Choice,
    /// How many candidates are kept for each token.
    pub candidates: usize,
}

/// Sees what an engine makes, while it makes it.
pub trait Observer: Send {
    /// Sees a sample; those of one group come together, in the order of their prompts.
    fn finished(&mut self, sample: Sample);

    /// Is told after every call how many tokens it has chosen, for all prompts of the group: a sample may take minutes.
    fn chose(&mut self, tokens: usize) {
        let _ = tokens;
    }

    /// Does it want to see logits? Nothing is computed or copied for one that does not.
    fn wants_logits(&self) -> bool {
        false
    }

    /// Sees all logits after the first `read` tokens of an item, the prompt's included, in their order. An engine that
    /// cannot say what follows the middle of a prompt begins at the prompt's end.
    fn logits(&mut self, item: u64, read: usize, logits: &[f32]) {
        let _ = (item, read, logits);
    }
}

/// Only the samples count.
impl Observer for Vec<Sample> {
    fn finished(&mut self, sample: Sample) {
        self.push(sample);
    }
}

/// Anything that can continue prompts.
pub trait Engine {
    /// Who answers, and where.
    fn about(&self) -> Environment;

    /// How much it shows of what every token is chosen from.
    fn sight(&self) -> Sight;

    /// Continues the prompts, which share their calls.
    ///
    /// # Errors
    ///
    /// What the engine cannot do, or what went wrong, in a sentence.
    fn generate(
        &mut self,
        prompts: &[Prompt],
        request: &Request,
        observer: &mut dyn Observer,
    ) -> Result<(), EngineError>;
}

/// Continues prompts in groups of so many, in their order.
///
/// # Errors
///
/// Where the engine fails; what came before is finished.
pub fn in_groups(
    engine: &mut dyn Engine,
    batch: NonZeroUsize,
    prompts: &[Prompt],
    request: &Request,
    observer: &mut dyn Observer,
) -> Result<(), EngineError> {
    prompts.chunks(batch.get()).try_for_each(|group| engine.generate(group, request, observer))
}

/// Opens the engine that a cell asks for.
pub trait Opener {
    /// The engine, ready to be asked.
    ///
    /// # Errors
    ///
    /// When it cannot compute so, or will not start.
    fn open<'s>(&'s self, compute: Compute) -> Result<Box<dyn Engine + 's>, EngineError>;
}

/// The engines of [`ENGINES`](crate::cell::ENGINES), and what they need.
#[derive(Clone, Copy)]
pub struct Engines<'a> {
    /// The weights, for those that read them from this disk.
    pub checkpoint: Option<&'a Checkpoint>,
    /// This program: the stock engine runs in a process of its own.
    pub program: &'a Path,
    /// What scripted engines answer, by the names of their files.
    pub scripts: &'a BTreeMap<Name, Script>,
    /// What the matrix file says of servers, by their names.
    pub servers: &'a BTreeMap<Name, Server>,
    /// Where to put what servers say that are started here.
    pub logs: &'a Path,
    /// The tokens of texts.
    pub subject: &'a Subject<'a>,
}

impl Opener for Engines<'_> {
    fn open<'s>(&'s self, compute: Compute) -> Result<Box<dyn Engine + 's>, EngineError> {
        let weights = || {
            self.checkpoint.ok_or_else(|| {
                EngineError::Unsupported(format!(
                    "{compute} reads a model's weights, and {} has none here: name another model, or take such cells out",
                    self.subject.name
                ))
            })
        };
        goes_with(compute, self.subject)?;
        Ok(match compute {
            Compute::Lab(numerics) => Box::new(Lab::load(weights()?, numerics)?),
            Compute::Candle(stock) => Box::new(Child::open(self.program, &weights()?.reopen(), stock)?),
            Compute::Script(name) => {
                let script = self.scripts.get(&name).ok_or_else(|| {
                    EngineError::Unsupported(format!(
                        "there is no script {name}: put it beside the matrix file"
                    ))
                })?;
                Box::new(Scripted::new(name, script, self.subject)?)
            }
            Compute::Server(served) => {
                let server = self.servers.get(&served.server).ok_or_else(|| {
                    EngineError::Unsupported(format!(
                        "there is no server {0}: say what it is in [engine.{0}] of a matrix file",
                        served.server
                    ))
                })?;
                let model =
                    self.checkpoint.filter(|checkpoint| checkpoint.is_on_disk()).map(Checkpoint::reopen);
                let opening = Opening { served, server, program: self.program, model, logs: self.logs };
                Box::new(Serving::open(&opening, self.subject)?)
            }
        })
    }
}

/// Refuses to compute what a model does not have, before anything runs.
///
/// # Errors
///
/// What the model lacks.
pub fn goes_with(compute: Compute, subject: &Subject<'_>) -> Result<(), EngineError> {
    let Some(precision) = compute.precision() else { return Ok(()) };
    if let (Precision::Map(map), Some(shape)) = (precision, &subject.shape) {
        let (name, layers) = (subject.name, shape.layers);
        if let Some(layer) = map.layer_beyond(layers) {
            let last = layers.saturating_sub(1);
            return Err(EngineError::Unsupported(format!(
                "{compute} names layer {layer}, and {name} has {layers}, the last of them {last}: take layer {layer} out of the map"
            )));
        }
        if let Some(step) = map.singles_out(shape.never) {
            let step = step.name();
            return Err(EngineError::Unsupported(format!(
                "{compute} names {step}, a step that {name} never takes: take {step} out of the map"
            )));
        }
    }
    for calibration in precision.calibrations() {
        let sentence = match calibration.model() {
            None => "whose file was not read here: write calibration=FILE, with what `reprocheck calibrate` has written".to_owned(),
            Some(model) if model == subject.digest.to_string() => continue,
            Some(model) => {
                let name = subject.name;
                format!("which was measured of another model ({model:.12}) than {name}: calibrate {name}")
            }
        };
        return Err(EngineError::Unsupported(format!(
            "{compute} reads calibration={calibration}, {sentence}"
        )));
    }
    if let Some(program) = compute.functions().program().filter(|program| program.text().is_none()) {
        return Err(EngineError::Unsupported(format!(
            "{compute} calls program:{program}, whose file was not read here: write program:FILE, with the file that it was"
        )));
    }
    if precision.parts().contains(&Precision::Gguf) && !subject.is_gguf {
        return Err(EngineError::Unsupported(format!(
            "{compute} keeps weights as a file of GGUF stores them, and {} is not one: use fp32, or name such a file",
            subject.name
        )));
    }
    if let (Compute::Lab(numerics), Some(checkpoint)) = (compute, subject.weights) {
        ranks::fit(checkpoint, numerics).map_err(|error| match error {
            CheckpointError::Ranks { .. } => {
                EngineError::Unsupported(format!("{compute} cannot run: {error}"))
            }
            error => error.into(),
        })?;
    }
    Ok(())
}

/// Why an engine gives no samples.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error, Serialize, Deserialize)]
pub enum EngineError {
    /// Something that this engine does not do.
    #[error("{0}")]
    Unsupported(String),
    /// A prompt of no tokens.
    #[error("the prompt of item {item} has no tokens, and a model continues at least one: give it some text")]
    EmptyPrompt {
        /// Whose.
        item: u64,
    },
    /// A token that the model does not know.
    #[error(
        "item {item} holds token {token}, and the model knows those below {vocabulary}: use its own tokenizer"
    )]
    Token {
        /// Whose.
        item: u64,
        /// Which.
        token: u32,
        /// How many the model knows.
        vocabulary: usize,
    },
    /// More tokens than the model has positions for.
    #[error(
        "item {item} needs {needed} positions, {prompt} of them for its prompt, and the model has {positions}: \
         shorten the prompt, or let fewer tokens follow"
    )]
    TooLong {
        /// Whose.
        item: u64,
        /// The prompt, and all that follows but the last token, which is not read.
        needed: usize,
        /// The prompt.
        prompt: usize,
        /// What the model was made for.
        positions: usize,
    },
    /// Logits among which there is no best.
    #[error("item {item}, after {read} tokens under {numerics}: {problem}")]
    NotANumber {
        /// Whose.
        item: u64,
        /// After how many tokens.
        read: usize,
        /// Under which numerics.
        numerics: String,
        /// Which logit, and the way out.
        problem: String,
    },
    /// A model that cannot be used.
    #[error("{0}")]
    Model(String),
    /// An answer of somebody else that cannot be believed.
    #[error("{0}")]
    Answer(String),
    /// The machine failed.
    #[error("{0}")]
    Environment(String),
}

impl Blame for EngineError {
    fn is_environment(&self) -> bool {
        matches!(self, EngineError::Environment(_))
    }
}

impl From<CheckpointError> for EngineError {
    fn from(error: CheckpointError) -> EngineError {
        let sentence = error.to_string();
        if error.is_environment() { EngineError::Environment(sentence) } else { EngineError::Model(sentence) }
    }
}

/// What is kept of one row of logits.
#[derive(Clone, Debug)]
pub struct Row {
    /// Of all logits.
    pub digest: Digest,
    /// The best of them, if there are any.
    pub ranking: Result<Ranking, RankError>,
}

impl Row {
    fn of(logits: &[f32], candidates: usize) -> Row {
        Row { digest: Digest::of_logits(logits), ranking: rank(logits, candidates) }
    }

    /// Of several rows, by all threads: a large vocabulary takes as long to hash as a layer to compute.
    pub fn of_each(workers: &Workers, rows: &[&[f32]], candidates: usize) -> Vec<Row> {
        let mut seen = vec![None; rows.len()];
        // Two are hashed in turn once every thread has one.
        let together = rows.len().div_ceil(workers.threads()).clamp(1, 2);
        workers.share(rows.chunks(together).zip(seen.chunks_mut(together)).collect(), |(rows, seen)| {
            let digests = match rows {
                [one, other] => Digest::of_rows([one, other]).to_vec(),
                _ => rows.iter().map(|logits| Digest::of_logits(logits)).collect(),
            };
            for ((seen, logits), digest) in seen.iter_mut().zip(rows).zip(digests) {
                *seen = Some(Row { digest, ranking: rank(logits, candidates) });
            }
        });
        seen.into_iter().map(|seen| seen.expect("every row has just been seen")).collect()
    }

    /// The step that these logits lead to: the token given for it, or the one that they and the noise of its place
    /// choose. `cell` is what an error calls the numerics.
    ///
    /// # Errors
    ///
    /// When there is no best among them.
    pub fn step(
        self,
        logits: &[f32],
        (item, read): (u64, usize),
        given: Option<u32>,
        request: &Request,
        rows: usize,
        cell: &dyn fmt::Display,
    ) -> Result<Step, EngineError> {
        let ranking = self.ranking.map_err(|error| EngineError::NotANumber {
            item,
            read,
            numerics: cell.to_string(),
            problem: error.to_string(),
        })?;
        let id = given.unwrap_or_else(|| {
            // Checkpoints have at most 2^31 positions.
            request.choice.choose(logits, &ranking, Place { item, position: read as u32 })
        });
        let Ranking { candidates, margin, probability } = ranking;
        let seen = Seen::Logits { digest: self.digest, candidates, margin, probability };
        Ok(Step { token: Token { id, seen }, rows: Some(rows) })
    }
}

/// Refuses prompts that a model cannot read, before anything runs.
///
/// # Errors
///
/// What is wrong with the first such prompt.
pub fn check(
    prompts: &[Prompt],
    request: &Request,
    vocabulary: usize,
    positions: usize,
) -> Result<(), EngineError> {
    for Prompt { item, tokens, replay } in prompts {
        let item = *item;
        if tokens.is_empty() {
            return Err(EngineError::EmptyPrompt { item });
        }
        let mut given = tokens.iter().chain(replay.iter().flatten());
        if let Some(&token) = given.find(|&&token| token as usize >= vocabulary) {
            return Err(EngineError::Token { item, token, vocabulary });
        }
        let new_tokens = replay.as_ref().map_or(request.max_new_tokens, Vec::len);
        let prompt = tokens.len();
        let needed = prompt.saturating_add(new_tokens.saturating_sub(1));
        if needed > positions {
            return Err(EngineError::TooLong { item, needed, prompt, positions });
        }
    }
    Ok(())
}
