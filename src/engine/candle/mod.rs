//! The stock engine: the models of candle-transformers, untouched, fed and read by its public interface.

mod model;
mod quantized;

use std::num::NonZeroUsize;

use candle_core::{DType, Tensor, utils};
use model::Model;
use quantized::Quantized;
use serde::{Deserialize, Serialize};

use super::{
    Engine, EngineError, Observer, Prompt, Request, Row,
    ending::{Decode, Ending, Endings},
    environment::{CANDLE, Environment},
};
use crate::{
    cell::{Device, Stock},
    model::Checkpoint,
    numerics::precision::Precision,
    trace::{History, Launched, Sample, Sight, Step},
};

/// In which type candle computes; none where a file's blocks are multiplied as they are.
fn dtype(stock: Stock) -> Result<Option<DType>, EngineError> {
    match stock.precision {
        Precision::Fp32 => Ok(Some(DType::F32)),
        Precision::Fp16 => Ok(Some(DType::F16)),
        Precision::Bf16 => Ok(Some(DType::BF16)),
        Precision::Gguf => Ok(None),
        _ => Err(unsupported(
            stock,
            "candle computes in fp32, fp16, bf16 or gguf: use one of these, or the lab engine",
        )),
    }
}

fn unsupported(stock: Stock, sentence: &str) -> EngineError {
    EngineError::Unsupported(format!("{}: {sentence}", stock))
}

fn failed(stock: Stock, error: &candle_core::Error) -> EngineError {
    // A backtrace, where the environment asks for one, is no part of the sentence.
    let error = error.to_string();
    let sentence = error.lines().next().unwrap_or_default();
    EngineError::Environment(format!(
        "{}: candle failed: {sentence}: try fp32 on the CPU, or the lab engine",
        stock
    ))
}

/// Where candle has a model's weights from.
enum Source<'a> {
    /// The tensors that we read.
    Tensors(model::Shape<'a>, DType),
    /// A file that it reads itself.
    File(Quantized<'a>),
}

/// How many threads each of candle's pools has, as they really are.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Pools {
    /// Those among which a matrix product is split.
    pub gemm: usize,
    /// Those of rayon, which compute the parts of a product, and softmax, norms and rotations.
    pub rayon: usize,
    /// Those of candle's own pool, which computes attention and long elementwise operations.
    pub own: usize,
}

impl Pools {
    /// Of this process: fixed from now on, if they were not before.
    pub fn of_this_process() -> Pools {
        // Gives rayon as many threads as candle counts, unless it has been used before.
        utils::init_global_threadpool();
        Pools {
            gemm: utils::get_num_threads(),
            rayon: rayon::current_num_threads(),
            own: utils::barrier_pool().n_workers() + 1,
        }
    }
}

/// A stock model, loaded.
pub struct Candle<'a> {
    stock: Stock,
    checkpoint: &'a Checkpoint,
    device: candle_core::Device,
    model: Model,
    /// How many positions it can tell apart.
    positions: usize,
    pools: Pools,
}

impl<'a> Candle<'a> {
    /// Loads a checkpoint, for a process whose pools have as many threads as the cell asks for.
    ///
    /// # Errors
    ///
    /// When candle has not what the checkpoint or the cell needs, when a tensor cannot be read, or when the pools of this
    /// process are others: then [`Child`](super::child::Child) starts one that has them.
    pub fn open(checkpoint: &'a Checkpoint, stock: Stock) -> Result<Candle<'a>, EngineError> {
        let dtype = dtype(stock)?;
        let refused = |sentence: String| unsupported(stock, &sentence);
        let source = match dtype {
            Some(dtype) => Source::Tensors(model::Shape::of(&checkpoint.config).map_err(refused)?, dtype),
            None => Source::File(Quantized::of(checkpoint).map_err(refused)?),
        };
        let pools = Pools::of_this_process();
        let Pools { gemm, rayon, own } = pools;
        if stock.device == Device::Cpu && [gemm, rayon, own] != [stock.threads.get(); 3] {
            return Err(unsupported(
                stock,
                &format!(
                    "candle's pools have {gemm} (products), {rayon} (rayon) and {own} (attention) threads in this process, \
                 where they cannot change any more: open it in a process of its own"
                ),
            ));
        }
        let device = device(stock)?;
        let (model, positions) = match source {
            Source::Tensors(shape, dtype) => {
                let tensors = shape.read(checkpoint, (stock, dtype), &device)?;
                (shape.load(tensors, dtype, &device), shape.positions())
            }
            Source::File(quantized) => (quantized.load(&device), quantized.positions()),
        };
        let model = model.map_err(|error| failed(stock, &error))?;
        Ok(Candle { stock, checkpoint, device, model, positions, pools })
    }

    /// How many threads candle really has.
    pub fn pools(&self) -> Pools {
        self.pools
    }

    /// All that is wrong with a request is said before anything runs.
    fn check(&self, prompts: &[Prompt], request: &Request) -> Result<(), EngineError> {
        let Candle { stock, checkpoint, positions, .. } = *self;
        super::check(prompts, request, checkpoint.config.vocabulary, positions)?;
        if prompts.iter().any(|prompt| prompt.tokens.len() != prompts[0].tokens.len()) {
            let items: Vec<_> = prompts
                .iter()
                .map(|Prompt { item, tokens, .. }| format!("item {item} has {} tokens", tokens.len()))
                .collect();
            let sentence = format!(
                "candle's models know no padding, and {}: group prompts of equal length, or use batch 1",
                items.join(", ")
            );
            return Err(unsupported(stock, &sentence));
        }
        // Its Llama and Qwen2 take the last rows of several prompts apart, and multiply only what lies together; its Qwen3
        // asks for a cache that it does not make.
        if prompts.len() > 1 && stock.precision == Precision::Gguf {
            return Err(unsupported(
                stock,
                "candle's quantized models take one prompt at a time: use batch 1",
            ));
        }
        Ok(())
    }

    /// The logits after the last of these tokens of each sequence, one sequence after the other.
    fn forward(&mut self, tokens: &[u32], sequences: usize, offset: usize) -> Result<Vec<f32>, EngineError> {
        let shape = (sequences, tokens.len() / sequences);
        Tensor::from_slice(tokens, shape, &self.device)
            .and_then(|tokens| self.model.forward(&tokens, offset))
            .and_then(|logits| logits.to_dtype(DType::F32)?.flatten_all()?.to_vec1())
            .map_err(|error| failed(self.stock, &error))
    }

    /// Continues prompts of one length.
    fn group(
        &mut self,
        prompts: &[Prompt],
        request: &Request,
        endings: &Endings<'_>,
        observer: &mut dyn Observer,
    ) -> Result<(), EngineError> {
        let mut sequences: Vec<_> = prompts.iter().map(|prompt| Sequence::begin(prompt, endings)).collect();
        let mut prefill = Vec::new();
        let mut next: Vec<Vec<u32>> = chunks(prompts, request.prefill_chunk);
        next.reverse();
        let mut read = 0;
        self.model.forget();
        while !sequences.iter().all(Sequence::is_finished) {
            let (tokens, is_prompt) = match next.pop() {
                Some(chunk) => (chunk, true),
                None => (sequences.iter().map(Sequence::last).collect(), false),
            };
            let rows = tokens.len();
            if is_prompt {
                prefill.push(rows);
            }
            let logits = self.forward(&tokens, prompts.len(), read)?;
            read += rows / prompts.len();
            let mut chosen = 0;
            for (sequence, logits) in
                sequences.iter_mut().zip(logits.chunks_exact(self.checkpoint.config.vocabulary))
            {
                if sequence.is_finished() {
                    continue;
                }
                if observer.wants_logits() {
                    observer.logits(sequence.prompt.item, read, logits);
                }
                if next.is_empty() {
                    sequence.step(logits, request, read, rows, self.stock)?;
                    chosen += 1;
                }
            }
            observer.chose(chosen);
        }
        let threads = Some(self.stock.threads.get());
        let launch = Launched { prefill, threads, has_unlike_copy: false, history: History::default() };
        for sequence in sequences {
            observer.finished(sequence.into_sample(launch.clone()));
        }
        Ok(())
    }
}

/// Who answers where candle does.
pub(super) fn environment(stock: Stock) -> Environment {
    let device = Some(("device", stock.device.to_string())).filter(|_| stock.device != Device::Cpu);
    Environment::here(format!("candle {CANDLE}"), device)
}

impl Engine for Candle<'_> {
    fn about(&self) -> Environment {
        environment(self.stock)
    }

    fn sight(&self) -> Sight {
        Sight::Logits
    }

    fn generate(
        &mut self,
        prompts: &[Prompt],
        request: &Request,
        observer: &mut dyn Observer,
    ) -> Result<(), EngineError> {
        let tokenizer = self.checkpoint.tokenizer.as_ref();
        let decode = tokenizer.map(|tokenizer| |tokens: &[u32]| tokenizer.decode(tokens, true));
        let endings = Endings::new(request, decode.as_ref().map(|decode| decode as &Decode<'_>))?;
        self.check(prompts, request)?;
        if prompts.is_empty() {
            return Ok(());
        }
        self.group(prompts, request, &endings, observer)
    }
}

/// What the calls read that read the prompts: the same part of each of them, one after the other.
fn chunks(prompts: &[Prompt], chunk: Option<NonZeroUsize>) -> Vec<Vec<u32>> {
    let length = prompts[0].tokens.len();
    let chunk = chunk.map_or(length, NonZeroUsize::get);
    let starts = (0..length).step_by(chunk);
    let part = |start| move |prompt: &Prompt| prompt.tokens[start..length.min(start + chunk)].to_vec();
    starts.map(|start| prompts.iter().flat_map(part(start)).collect()).collect()
}

/// A prompt and what has followed it. Once finished it keeps its row, for candle's cache loses none.
struct Sequence<'a> {
    prompt: &'a Prompt,
    ending: Ending<'a>,
    steps: Vec<Step>,
}

impl<'a> Sequence<'a> {
    fn begin(prompt: &'a Prompt, endings: &'a Endings<'_>) -> Sequence<'a> {
        Sequence { prompt, ending: endings.begin(prompt), steps: Vec::new() }
    }

    fn is_finished(&self) -> bool {
        self.ending.finish().is_some()
    }

    /// What is read next: of a finished sequence the same token again and again.
    fn last(&self) -> u32 {
        let last = self.steps.last().map(|step| step.token.id);
        last.or(self.prompt.tokens.last().copied()).unwrap_or_default()
    }

    fn step(
        &mut self,
        logits: &[f32],
        request: &Request,
        read: usize,
        rows: usize,
        stock: Stock,
    ) -> Result<(), EngineError> {
        let seen = Row::of(logits, request.candidates);
        let place = (self.prompt.item, read);
        let step = seen.step(logits, place, self.ending.given(), request, rows, &stock)?;
        self.ending.push(step.token.id);
        self.steps.push(step);
        Ok(())
    }

    fn into_sample(self, launch: Launched) -> Sample {
        Sample {
            item: self.prompt.item,
            prompt: self.prompt.tokens.clone(),
            text: self.ending.text(),
            finish: self.ending.finish().expect("a group is done when every sequence is"),
            steps: self.steps,
            launch: Some(launch),
        }
    }
}

fn device(stock: Stock) -> Result<candle_core::Device, EngineError> {
    match stock.device {
        Device::Cpu => Ok(candle_core::Device::Cpu),
        #[cfg(feature = "cuda")]
        Device::Cuda(number) => candle_core::Device::new_cuda(number).map_err(|error| failed(stock, &error)),
        #[cfg(feature = "metal")]
        Device::Metal(number) => {
            candle_core::Device::new_metal(number).map_err(|error| failed(stock, &error))
        }
        #[allow(unreachable_patterns, reason = "reached unless both features are on")]
        device => {
            let feature = if matches!(device, Device::Cuda(_)) { "cuda" } else { "metal" };
            Err(unsupported(
                stock,
                &format!(
                    "this program was built without {feature}: build it with `--features {feature}`, or use the CPU"
                ),
            ))
        }
    }
}
