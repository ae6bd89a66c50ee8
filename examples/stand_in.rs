//! Writes the files of the model `qwen`, the stand-in until there is a trained one: `cargo run --release --example
//! stand_in` puts them where the binary takes them from, the same bytes every time.

use std::{collections::BTreeMap, fs, path::Path};

use reprocheck::model::Config;
use safetensors::{Dtype, SafeTensorError, serialize, tensor::TensorView};
use serde_json::{Value, json};

/// The token that ends a text; after it come the characters.
const END: &str = "<|endoftext|>";
const SEED: u64 = 0x7265_7072_6f63_6865;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/model/embedded/qwen");
    for (name, bytes) in files()? {
        fs::write(folder.join(name), bytes)?;
    }
    Ok(())
}

/// A file's name and its bytes.
pub(crate) type File = (&'static str, Vec<u8>);

/// Every file, in the order of their names.
pub(crate) fn files() -> Result<Vec<File>, Box<dyn std::error::Error>> {
    let config = pretty(&config());
    let weights = weights(&Config::read("config.json", &config)?)?;
    Ok(vec![
        ("config.json", config),
        ("generation_config.json", pretty(&json!({ "eos_token_id": 0, "pad_token_id": 0 }))),
        ("model.safetensors", weights),
        ("tokenizer.json", pretty(&tokenizer())),
    ])
}

fn pretty(json: &Value) -> Vec<u8> {
    format!("{json:#}\n").into_bytes()
}

/// Newline and the printable characters of ASCII, in the order of their codes.
fn characters() -> impl Iterator<Item = char> {
    std::iter::once('\n').chain(' '..='~')
}

fn config() -> Value {
    json!({
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": 1 + characters().count(),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "hidden_act": "silu",
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "attention_bias": false,
        "tie_word_embeddings": true,
        "bos_token_id": null,
        "eos_token_id": 0,
        "torch_dtype": "bfloat16",
    })
}

/// One token a character. A character without one is an error: the token for the unknown is not in the vocabulary.
fn tokenizer() -> Value {
    let mut vocabulary = serde_json::Map::from_iter([(END.to_owned(), Value::from(0))]);
    vocabulary.extend(characters().zip(1..).map(|(character, id)| (character.to_string(), Value::from(id))));
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [{
            "id": 0, "content": END, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        }],
        "normalizer": null,
        "pre_tokenizer": { "type": "Split", "pattern": { "Regex": "[\\s\\S]" }, "behavior": "Isolated", "invert": false },
        "post_processor": null,
        "decoder": { "type": "Fuse" },
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "<|unknown|>" },
    })
}

/// Norms are 1, the rest is uniform and so wide that a layer keeps the size of what goes through it.
fn weights(config: &Config) -> Result<Vec<u8>, SafeTensorError> {
    let mut random = SplitMix64(SEED);
    let mut tensors = BTreeMap::new();
    for (name, shape) in config.tensors() {
        let count = shape.iter().product();
        let mut bytes = Vec::with_capacity(2 * count);
        // The deviation is half the width over the square root of 3.
        let width = (12.0 / *shape.last().expect("every tensor has a shape") as f32).sqrt();
        for _ in 0..count {
            let weight = if shape.len() == 1 { 1.0 } else { width * (random.next_unit() - 0.5) };
            bytes.extend(bf16(weight).to_le_bytes());
        }
        tensors.insert(name, (shape, bytes));
    }
    let views: Result<Vec<_>, SafeTensorError> = tensors
        .iter()
        .map(|(name, (shape, bytes))| Ok((name, TensorView::new(Dtype::BF16, shape.clone(), bytes)?)))
        .collect();
    serialize(views?, None)
}

/// The nearest bfloat16, ties to even.
fn bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16) as u16
}

/// Steele, Lea and Flood's generator.
struct SplitMix64(u64);

impl SplitMix64 {
    /// From 0 up to 1, a multiple of 2^-24.
    fn next_unit(&mut self) -> f32 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^= z >> 31;
        (z >> 40) as f32 / 16_777_216.0
    }
}
