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
    let names: Vec<_> =
        FORMATS.iter().flat_map(|format| BLOCKS.map(|block| format!("{format}:{block}"))).collect();
    let [plain, sorted] = ["", ",k-sort"].map(|sort| {
        let formats = names.iter().map(|name| format!("{name}{sort}").parse::<Kv>());
        lost(&checkpoint, &texts, formats.collect::<Result<_, _>>()?)
    });
    for ((name, plain), sorted) in names.iter().zip(plain?).zip(sorted?) {
        let [keys, sorted_keys] = [plain.keys, sorted.keys].map(Sum::share);
        let [scores, sorted_scores] = [plain.scores, sorted.scores].map(Sum::share);
        println!("| `{name}` | {keys} | {sorted_keys} | {scores} | {sorted_scores} |");
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

/// Of formats that all sort the channels, or none of which does.
fn lost(checkpoint: &Checkpoint, texts: &[Vec<u32>], formats: Vec<Kv>) -> Result<Vec<Lost>, Failure> {
    let plain = Numerics::new(Precision::Fp32, Order::SEQUENTIAL, NonZeroUsize::MIN)?;
    let told = plain.with_kv(formats[0])?;
    let lost = Mutex::new(vec![Lost::default(); formats.len()]);
    let kernel = Measuring { inner: Fast::new(plain)?, told, formats, lost };
    let decoder = Decoder::load(kernel, checkpoint)?;
    for tokens in texts {
        let mut cache = decoder.cache();
        for token in tokens {
            let tokens = std::slice::from_ref(token);
            decoder.forward(&mut [Span { cache: &mut cache, tokens, logits: Wanted::None }]);
        }
    }
    let lost = decoder.kernel().lost.lock().map_err(|_| "a text was not read to its end")?;
    Ok(lost.clone())
}

/// A kernel that says it keeps keys in the first of some formats, keeps them as they are, and measures what each would lose.
struct Measuring {
    inner: Fast,
    told: Numerics,
    formats: Vec<Kv>,
    lost: Mutex<Vec<Lost>>,
}

/// A matrix, and where it is one of keys each key and what every format would keep of it.
#[derive(Debug)]
struct Kept {
    own: Packed,
    keys: Vec<(Vec<f32>, Vec<Vec<f32>>)>,
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
        if let (End::Column(key), Ok(mut lost)) = (&end, self.lost.lock()) {
            let mut all = Vec::new();
            for (format, lost) in self.formats.iter().zip(lost.iter_mut()) {
                let Kv::Codes { quantizer, .. } = format else { continue };
                let quantized = quantizer.quantize(&[key]).remove(0);
                let kept: Vec<f32> = quantized.values(quantizer.group(key.len())).collect();
                for (&own, &kept) in key.iter().zip(&kept) {
                    lost.keys.add(f64::from(own) - f64::from(kept), own.into());
                }
                all.push(kept);
            }
            weights.keys.push((key.to_vec(), all));
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
                        for (kept, lost) in kept.iter().zip(lost.iter_mut()) {
                            lost.scores.add(own - score(kept), own);
                        }
                    }
                }
            }
        }
        self.inner.apply(at, launch, op.lend(|weights| &weights.own));
    }
}
