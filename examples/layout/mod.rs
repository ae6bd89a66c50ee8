//! The files around the weights of the models that this project makes: config, tokenizer, and the form of numbers.

use std::collections::BTreeMap;

use safetensors::{Dtype, SafeTensorError, serialize, tensor::TensorView};
use serde_json::{Value, json};

/// The token that ends a text; after it come the characters.
const END: &str = "<|endoftext|>";

/// What models differ in.
#[derive(Clone, Copy)]
pub(crate) struct Shape {
    pub(crate) width: usize,
    pub(crate) inner_width: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head_width: usize,
}

/// Newline and the printable characters of ASCII, in the order of their codes.
pub(crate) fn characters() -> impl Iterator<Item = char> {
    std::iter::once('\n').chain(' '..='~')
}

/// How many tokens there are.
pub(crate) fn vocabulary() -> usize {
    1 + characters().count()
}

pub(crate) fn config(shape: Shape) -> Vec<u8> {
    pretty(&json!({
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": vocabulary(),
        "hidden_size": shape.width,
        "intermediate_size": shape.inner_width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "num_key_value_heads": shape.kv_heads,
        "head_dim": shape.head_width,
        "hidden_act": "silu",
        "max_position_embeddings": 4096,
        "rms_norm_eps": 1e-6,
        "rope_theta": 10000.0,
        "attention_bias": false,
        "tie_word_embeddings": true,
        "bos_token_id": null,
        "eos_token_id": 0,
        "torch_dtype": "bfloat16",
    }))
}

pub(crate) fn generation_config() -> Vec<u8> {
    pretty(&json!({ "eos_token_id": 0, "pad_token_id": 0 }))
}

/// One token a character. A character without one is an error: the token for the unknown is not in the vocabulary.
pub(crate) fn tokenizer() -> Vec<u8> {
    let mut vocabulary = serde_json::Map::from_iter([(END.to_owned(), Value::from(0))]);
    vocabulary.extend(characters().zip(1..).map(|(character, id)| (character.to_string(), Value::from(id))));
    pretty(&json!({
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
    }))
}

/// Tensors by name, as the nearest bfloat16.
pub(crate) fn weights(
    tensors: &BTreeMap<String, (Vec<usize>, Vec<f32>)>,
) -> Result<Vec<u8>, SafeTensorError> {
    let rounded: Vec<Vec<u8>> = tensors
        .values()
        .map(|(_, values)| values.iter().flat_map(|&value| bf16(value).to_le_bytes()).collect())
        .collect();
    let views: Result<Vec<_>, SafeTensorError> = tensors
        .iter()
        .zip(&rounded)
        .map(|((name, (shape, _)), bytes)| Ok((name, TensorView::new(Dtype::BF16, shape.clone(), bytes)?)))
        .collect();
    serialize(views?, None)
}

pub(crate) fn pretty(json: &Value) -> Vec<u8> {
    format!("{json:#}\n").into_bytes()
}

/// The nearest bfloat16, ties to even.
fn bf16(value: f32) -> u16 {
    let bits = value.to_bits();
    ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16) as u16
}
