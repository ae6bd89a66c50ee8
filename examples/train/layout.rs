//! The files around the weights of a trained model: config, tokenizer, and the form of numbers.

use std::collections::BTreeMap;

use safetensors::{Dtype, SafeTensorError, serialize, tensor::TensorView};
use serde_json::{Value, json};

use crate::{attention::HEAD, recipe::Recipe};

/// The token that ends a text; after it come the characters.
const END: &str = "<|endoftext|>";

/// Newline and the printable characters of ASCII, in the order of their codes.
pub(crate) fn characters() -> impl Iterator<Item = char> {
    std::iter::once('\n').chain(' '..='~')
}

/// How many tokens there are.
pub(crate) fn vocabulary() -> usize {
    1 + characters().count()
}

pub(crate) fn config(recipe: &Recipe) -> Vec<u8> {
    pretty(&json!({
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": vocabulary(),
        "hidden_size": recipe.width,
        "intermediate_size": recipe.inner_width,
        "num_hidden_layers": recipe.layers,
        "num_attention_heads": recipe.heads,
        "num_key_value_heads": recipe.kv_heads,
        "head_dim": HEAD,
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

/// A line that was learned ends with a newline, and so does a continuation.
pub(crate) fn generation_config() -> Vec<u8> {
    pretty(&json!({ "eos_token_id": [1, 0], "pad_token_id": 0 }))
}

/// Without it, transformers takes the class of Qwen's own tokenizer, which has no token for a space.
pub(crate) fn tokenizer_config() -> Vec<u8> {
    pretty(&json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": false,
        "model_max_length": 4096,
        "eos_token": END,
        "pad_token": END,
    }))
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
