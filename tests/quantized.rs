//! Candle's own quantized models: they read a file of GGUF themselves, and what they would do otherwise is refused.

use std::{
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use reprocheck::{
    cell::{Axis, Cell, Device, Refusal, Stock},
    engine::{
        Engine, EngineError, Prompt,
        candle::{Candle, Pools},
        child::Child,
    },
    model::Checkpoint,
    numerics::{block::BlockFormat, precision::Precision},
};
use tempfile::TempDir;

use crate::support::{Expected, Logits, difference, expected, fixture, gguf::File, request};

/// In as many threads as the pools of this process have.
fn stock() -> Stock {
    let threads = NonZeroUsize::new(Pools::of_this_process().gemm).unwrap();
    Stock { precision: Precision::Gguf, threads, device: Device::Cpu }
}

fn opened(file: &File, folder: &TempDir) -> Checkpoint {
    let path = folder.path().join("model.gguf");
    fs::write(&path, file.bytes()).unwrap();
    Checkpoint::open(&path).unwrap()
}

/// The logits after each token of every prompt, and the greedy tokens that follow it.
type Answers = (Vec<Vec<f32>>, Vec<Vec<u32>>);

/// Prompts of one length, token for token.
fn run(engine: &mut dyn Engine, prompts: &[Vec<u32>], new: usize) -> Result<Answers, EngineError> {
    let prompts = prompts.iter().zip(0..);
    let prompts: Vec<_> =
        prompts.map(|(tokens, item)| Prompt { item, tokens: tokens.clone(), replay: None }).collect();
    let mut seen = Logits { items: vec![Vec::new(); prompts.len()], samples: Vec::new() };
    let mut request = request(new);
    request.prefill_chunk = Some(NonZeroUsize::MIN);
    engine.generate(&prompts, &request, &mut seen)?;
    let answers = seen.samples.iter().map(|sample| sample.steps.iter().map(|step| step.token.id).collect());
    Ok((seen.items, answers.collect()))
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

/// How far its logits are from those of transformers at most, over the prompts of a fixture whose values are in a file.
fn apart(name: &str) -> f32 {
    let temporary = TempDir::new().unwrap();
    let checkpoint = opened(&File::of(&fixture(name)), &temporary);
    let mut engine = Candle::open(&checkpoint, stock()).unwrap_or_else(|error| panic!("{name}: {error}"));
    let of_prompt = |expected: Expected| {
        let (logits, answers) = run(&mut engine, &[expected.prompt], expected.greedy.len()).unwrap();
        assert_eq!(answers[0], expected.greedy, "{name}");
        difference(&logits[0], &expected.logits, checkpoint.config.vocabulary)
    };
    expected(&folder(name)).into_iter().map(of_prompt).fold(0.0, f32::max)
}

#[test]
fn a_file_of_f32_gives_the_logits_and_tokens_of_transformers() {
    // Candle turns neighbors where llama.cpp has moved Llama's rows to suit: both are its own affair.
    for name in ["llama-plain", "qwen2-tied", "qwen2-untied"] {
        assert!(apart(name) < 2e-5, "{name}");
    }
}

#[test]
fn its_qwen3_computes_angles_in_f16() {
    for name in ["qwen3-tied", "qwen3-wide-heads"] {
        let apart = apart(name);
        assert!((1e-4..1e-2).contains(&apart), "{name}: {apart:e}");
    }
}

/// A file one of whose matrices is in blocks of this format, which has 32 values in each.
fn with_blocks(name: &str, format: BlockFormat) -> File {
    let mut file = File::of(&fixture(name));
    let tensor = file.tensor("blk.1.attn_q.weight");
    let values = tensor.lengths.iter().product::<u64>() as usize;
    // The first bytes of a block are its scale: neither NaN nor infinite.
    let byte = |index: usize| if index % format.bytes() < 2 { 0x1A } else { (index * 37 % 251) as u8 };
    tensor.bytes = (0..values / format.values() * format.bytes()).map(byte).collect();
    tensor.kind = (0..64).find(|&kind| BlockFormat::of_ggml_type(kind) == Some(format)).unwrap();
    file
}

#[test]
fn blocks_are_multiplied_by_its_own_kernels_in_a_process_of_its_own() {
    let temporary = TempDir::new().unwrap();
    let checkpoint = opened(&with_blocks("llama-plain", BlockFormat::Q4_0), &temporary);
    let prompt = vec![5, 9, 2, 30, 17];
    let answers = |precision| {
        let stock = Stock { precision, ..stock() };
        let mut here = Candle::open(&checkpoint, stock).unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_reprocheck"));
        let mut child = Child::open(program, &checkpoint.reopen(), stock).unwrap();
        let [here, there] = [&mut here as &mut dyn Engine, &mut child]
            .map(|engine| run(engine, std::slice::from_ref(&prompt), 8).unwrap());
        assert_eq!(here, there);
        here.0.concat()
    };
    // They round activations to 8 bits, which is no small thing.
    let apart =
        difference(&answers(Precision::Gguf), &answers(Precision::Fp32), checkpoint.config.vocabulary);
    assert!((1e-4..0.2).contains(&apart), "{apart:e}");
}

#[test]
fn what_candle_does_not_know_or_would_not_look_at_is_refused() {
    let temporary = TempDir::new().unwrap();
    let refused = |checkpoint: &Checkpoint| {
        let error = Candle::open(checkpoint, stock()).err().expect("it is refused").to_string();
        error.strip_prefix(&format!("{}: ", stock())).unwrap().to_owned()
    };
    let safetensors = refused(&fixture("llama-plain"));
    assert!(
        safetensors.starts_with("candle reads quantized models from files of GGUF alone, and "),
        "{safetensors}"
    );
    assert!(safetensors.ends_with("llama-plain is not one: use fp32, or name such a file"), "{safetensors}");
    let of_file = |file: &File| refused(&opened(file, &temporary));
    assert_eq!(
        of_file(&with_blocks("llama-plain", BlockFormat::Iq4Nl)),
        "candle's quantized llama knows no blocks of IQ4_NL: use the lab engine"
    );
    assert_eq!(
        of_file(&File::of(&fixture("llama-linear"))),
        "candle's quantized llama ignores scaling of positions: use the lab engine"
    );
    let changed = |name: &str, change: &dyn Fn(&mut Checkpoint)| {
        let mut checkpoint = opened(&File::of(&fixture(name)), &temporary);
        change(&mut checkpoint);
        refused(&checkpoint)
    };
    assert_eq!(
        changed("qwen2-tied", &|checkpoint| checkpoint.config.windows[1] = Some(8)),
        "candle's quantized qwen2 does not keep to a sliding window: use the lab engine"
    );
    assert_eq!(
        changed("qwen2-tied", &|checkpoint| checkpoint.config.head_width = 6),
        "candle's quantized qwen2 divides its width among its heads, unlike this model: use the lab engine"
    );
    let biases = "has biases on queries, keys and values if it is Qwen2 and only then, unlike this model: use the lab engine";
    for (name, bias) in [("qwen2-tied", false), ("llama-plain", true), ("qwen3-tied", true)] {
        let sentence = changed(name, &|checkpoint| checkpoint.config.qkv_bias = bias);
        assert!(sentence.ends_with(biases), "{name}: {sentence}");
    }
    assert_eq!(
        changed("llama-plain", &|checkpoint| checkpoint.config.qk_norm = true),
        "candle's quantized llama has norms on queries and keys if it is Qwen3 and only then, unlike this model: \
         use the lab engine"
    );
    assert_eq!(
        changed("qwen2-tied", &|checkpoint| checkpoint.config.positions = 1 << 21),
        "candle's quantized qwen2 computes the angles of all 2097152 positions at once: use the lab engine"
    );
}

#[test]
fn several_prompts_in_a_call_are_refused() {
    let temporary = TempDir::new().unwrap();
    for name in ["llama-plain", "qwen2-tied", "qwen3-tied"] {
        let checkpoint = opened(&File::of(&fixture(name)), &temporary);
        let mut engine = Candle::open(&checkpoint, stock()).unwrap();
        let error = run(&mut engine, &[vec![5, 9, 2], vec![7, 1, 3]], 3).unwrap_err().to_string();
        let sentence = "candle's quantized models take one prompt at a time: use batch 1";
        assert_eq!(error, format!("{}: {sentence}", stock()), "{name}");
    }
    assert_eq!("candle/gguf/t2/b1".parse::<Cell>().unwrap().refusals(), []);
    for cell in ["candle/gguf/t2/b2", "candle/gguf/t2/b2/by-length"] {
        let refusals = cell.parse::<Cell>().unwrap().refusals();
        assert!(matches!(&refusals[..], [Refusal { axis: Axis::Batch, .. }]), "{cell}: {refusals:?}");
    }
}

#[test]
fn its_llama_has_angles_for_4096_positions() {
    let temporary = TempDir::new().unwrap();
    let mut file = File::of(&fixture("llama-plain"));
    file.set("llama.context_length", crate::support::gguf::Value::U32(10_000));
    let checkpoint = opened(&file, &temporary);
    let mut engine = Candle::open(&checkpoint, stock()).unwrap();
    let error = run(&mut engine, &[vec![1; 4090]], 8).unwrap_err().to_string();
    assert!(
        error.contains("needs 4097 positions, 4090 of them for its prompt, and the model has 4096"),
        "{error}"
    );
}
