//! How much of its keys a model loses in each format of its cache, with the channels of a head sorted and as they come.
//!
//! `cargo run --release --example k_sort -- qwen` asks the model in the binary, `-- ./folder` or `-- ./file.gguf` one on the disk. It
//! reads questions of the program's own suites. What is read goes on in fp32, so that every format meets the same keys and queries.

#![expect(clippy::print_stdout, reason = "it prints its table")]

use std::{num::NonZeroUsize, sync::Mutex};

use reprocheck::{
    model::{
        Checkpoint, Decoder,
        decoder::{Span, Wanted},
        hub::HubSettings,
    },
    numerics::{
        Numerics,
        kernel::{At, End, Fast, Kernel, Op, Packed, Source, Step, Workers},
        kv::Kv,
        order::{Launch, Order},
        precision::Precision,
    },
    suite::{Suite, style::Style},
};

type Failure = Box<dyn std::error::Error>;

const FORMATS: [&str; 2] = ["bfp12", "int4"];
const BLOCKS: [usize; 5] = [128, 64, 32, 16, 8];
/// Tokens of each text.
const TOKENS: usize = 96;

fn main() -> Result<(), Failure> {
    let model = std::env::args().nth(1).ok_or("name a model: qwen, or a path with a slash")?;
    let checkpoint = Checkpoint::resolve(&model, &HubSettings::from_environment(), &mut |_| ())?;
    let texts = texts(&checkpoint)?;
    let tokens: usize = texts.iter().map(Vec::len).sum();
    println!("{tokens} tokens, heads of {} channels\n", checkpoint.config.head_width);
    println!("| format | keys | keys, sorted | scores | scores, sorted |\n|---|---|---|---|---|");
    for format in FORMATS {
        for block in BLOCKS {
            let name = format!("{format}:{block}");
            let [plain, sorted] = ["", ",k-sort"].map(|sort| format!("{name}{sort}").parse::<Kv>());
            let [plain, sorted] = [lost(&checkpoint, &texts, plain?)?, lost(&checkpoint, &texts, sorted?)?];
            let [keys, sorted_keys] = [plain.keys, sorted.keys].map(Sum::share);
            let [scores, sorted_scores] = [plain.scores, sorted.scores].map(Sum::share);
            println!("| `{name}` | {keys} | {sorted_keys} | {scores} | {sorted_scores} |");
        }
    }
    Ok(())
}

/// Questions of all suites, some of each after one another.
fn texts(checkpoint: &Checkpoint) -> Result<Vec<Vec<u32>>, Failure> {
    let tokenizer = checkpoint.tokenizer.as_ref().ok_or("the model has no tokenizer.json: add it")?;
    let text = |suite: Suite| {
        let asked = suite.items(0).take(16).filter_map(|item| item.problem.prompt(Style::Compact));
        asked.collect::<Vec<_>>().join("\n")
    };
    let texts = Suite::all().map(text).filter(|text| !text.is_empty());
    let tokens = texts.map(|text| {
        let mut tokens = tokenizer.encode(&text, true)?;
        tokens.truncate(TOKENS);
        Ok(tokens)
    });
    tokens.collect()
}

/// What is lost of something, and what there was, as sums of squares.
#[derive(Clone, Copy, Default)]
struct Sum {
    lost: f64,
    all: f64,
}

impl Sum {
    fn add(&mut self, lost: f64, all: f64) {
        (self.lost, self.all) = (self.lost + lost * lost, self.all + all * all);
    }

    /// The root of what is lost over what there was.
    fn share(self) -> String {
        format!("{:.2} %", 100.0 * (self.lost / self.all).sqrt())
    }
}

/// What a format loses.
#[derive(Clone, Copy, Default)]
struct Lost {
    keys: Sum,
    scores: Sum,
}

fn lost(checkpoint: &Checkpoint, texts: &[Vec<u32>], kv: Kv) -> Result<Lost, Failure> {
    let plain = Numerics::new(Precision::Fp32, Order::SEQUENTIAL, NonZeroUsize::MIN)?;
    let kernel = Measuring { inner: Fast::new(plain)?, told: plain.with_kv(kv)?, lost: Mutex::default() };
    let decoder = Decoder::load(kernel, checkpoint)?;
    for tokens in texts {
        let mut cache = decoder.cache();
        for token in tokens {
            let tokens = std::slice::from_ref(token);
            decoder.forward(&mut [Span { cache: &mut cache, tokens, logits: Wanted::None }]);
        }
    }
    let lost = *decoder.kernel().lost.lock().map_err(|_| "a text was not read to its end")?;
    Ok(lost)
}

/// A kernel that says it keeps keys in a format, keeps them as they are, and measures what the format would lose.
struct Measuring {
    inner: Fast,
    told: Numerics,
    lost: Mutex<Lost>,
}

/// A matrix, and where it is one of keys each key and what would be kept of it.
#[derive(Debug)]
struct Kept {
    own: Packed,
    keys: Vec<(Vec<f32>, Vec<f32>)>,
}

impl Kernel for Measuring {
    type Weights = Kept;

    fn numerics(&self) -> Numerics {
        self.told
    }

    fn workers(&self) -> &Workers {
        self.inner.workers()
    }

    fn pack(&self, at: At, columns: usize, depth: usize, source: &mut dyn Source) -> Kept {
        Kept { own: self.inner.pack(at, columns, depth, source), keys: Vec::new() }
    }

    fn push(&self, weights: &mut Kept, end: End<'_>) {
        if let (End::Column(key), Kv::Codes { quantizer, .. }) = (&end, self.told.kv()) {
            let quantized = quantizer.quantize(&[key]).remove(0);
            let kept: Vec<f32> = quantized.values(quantizer.group(key.len())).collect();
            if let Ok(mut lost) = self.lost.lock() {
                for (&own, &kept) in key.iter().zip(&kept) {
                    lost.keys.add(f64::from(own) - f64::from(kept), own.into());
                }
            }
            weights.keys.push((key.to_vec(), kept));
        }
        self.inner.push(&mut weights.own, end);
    }

    fn apply(&self, at: At, launch: Launch, mut op: Op<'_, Kept>) {
        if let (Op::Product(jobs), Step::Scores, Ok(mut lost)) = (&op, at.step, self.lost.lock()) {
            for job in jobs {
                for query in job.activations.chunks_exact(job.activations.len() / job.rows) {
                    for (key, kept) in &job.weights.keys {
                        let score = |key: &[f32]| -> f64 {
                            query.iter().zip(key).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum()
                        };
                        let own = score(key);
                        lost.scores.add(own - score(kept), own);
                    }
                }
            }
        }
        self.inner.apply(at, launch, op.lend(|weights| &weights.own));
    }
}
