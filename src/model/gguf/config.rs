//! The shape of a model out of a GGUF file's keys, checked as every `config.json` is.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{GgufError, metadata::Metadata, names::ROPE_FACTORS};
use crate::{
    model::{
        config::{Architecture, Config, ConfigError},
        weights::{Place, Weights},
    },
    numerics::rotary::{Rotary, Scaling},
};

/// A key behind the architecture's name, and the same in `config.json`.
const KEYS: &[(&str, &str)] = &[
    ("attention.head_count", "num_attention_heads"),
    ("attention.head_count_kv", "num_key_value_heads"),
    ("attention.key_length", "head_dim"),
    ("attention.layer_norm_rms_epsilon", "rms_norm_eps"),
    ("block_count", "num_hidden_layers"),
    ("context_length", "max_position_embeddings"),
    ("embedding_length", "hidden_size"),
    ("feed_forward_length", "intermediate_size"),
    ("rope.freq_base", "rope_theta"),
];

/// Without these of them llama.cpp has a default of its own.
const OPTIONAL: &[&str] = &["attention.head_count_kv", "attention.key_length", "rope.freq_base"];

/// The same of stretched positions.
const SCALING: &[(&str, &str)] = &[
    ("rope.scaling.factor", "factor"),
    ("rope.scaling.original_context_length", "original_max_position_embeddings"),
    ("rope.scaling.yarn_beta_fast", "beta_fast"),
    ("rope.scaling.yarn_beta_slow", "beta_slow"),
];

/// These say nothing that the others do not, or nothing that is computed with.
const SILENT: &[&str] = &["rope.scaling.finetuned", "rope.scaling.type", "tensor_data_layout", "vocab_size"];

/// Reads the keys.
pub(super) fn read(metadata: &Metadata, places: &BTreeMap<String, Place>) -> Result<Config, GgufError> {
    one_file(metadata)?;
    let architecture = architecture(metadata)?;
    let key = |rest: &str| format!("{architecture}.{rest}");
    let mut config = Map::new();
    config.insert("model_type".to_owned(), architecture.name().into());
    let mut scaling = Map::new();
    for (map, keys) in [(&mut config, KEYS), (&mut scaling, SCALING)] {
        for (rest, name) in keys {
            if let Some(number) = metadata.number(&key(rest))? {
                let whole = (number.fract() == 0.0 && number.abs() < 1e15).then_some(number as i64);
                map.insert((*name).to_owned(), whole.map_or_else(|| json!(number), Value::from));
            }
        }
    }
    for (rest, name) in KEYS {
        if !config.contains_key(*name) && !OPTIONAL.contains(rest) {
            return Err(metadata.wrong(&key(rest), "a model must say it", FETCH));
        }
    }
    if let Some(kind) = metadata.text(&key("rope.scaling.type"))?.filter(|kind| *kind != "none") {
        scaling.insert("rope_type".to_owned(), kind.into());
        config.insert("rope_scaling".to_owned(), scaling.into());
    }
    let heads = |name: &str| config.get(name).and_then(Value::as_u64).unwrap_or_default();
    let shared = heads("hidden_size").checked_div(heads("num_attention_heads"));
    config.entry("num_key_value_heads").or_insert(Value::Null);
    config.entry("head_dim").or_insert(shared.into());
    config.insert("tie_word_embeddings".to_owned(), (!places.contains_key("output.weight")).into());
    if let Some([vocabulary, _]) = places.get("token_embd.weight").map(|place| place.shape.as_slice()) {
        config.insert("vocab_size".to_owned(), (*vocabulary).into());
    }

    let json = Value::from(config).to_string();
    let config = Config::read(&metadata.file, json.as_bytes()).map_err(|error| match &error {
        // In the words of the file that it is about.
        ConfigError::Value { key: name, wrong, way_out, .. } => {
            let name = name.strip_prefix("rope_scaling.").unwrap_or(name);
            match KEYS.iter().chain(SCALING).find(|(_, known)| *known == name) {
                Some((rest, _)) => metadata.wrong(&key(rest), wrong.clone(), way_out),
                None if name == "rope_type" => {
                    metadata.wrong(&key("rope.scaling.type"), wrong.clone(), way_out)
                }
                None => error.into(),
            }
        }
        _ => error.into(),
    })?;
    refuse(metadata, &config)?;
    Ok(config)
}

const FETCH: &str = "fetch the file again";
const OTHER: &str = "choose another model";

/// Is all of the model in this file, and nothing but a model?
fn one_file(metadata: &Metadata) -> Result<(), GgufError> {
    const PARTS: &str = "split.count";
    match metadata.whole(PARTS)? {
        None | Some(0 | 1) => Ok(()),
        Some(_) => {
            let wrong = "a model in several files is not read";
            Err(metadata.wrong(PARTS, wrong, "join them with llama-gguf-split --merge"))
        }
    }
}

fn architecture(metadata: &Metadata) -> Result<Architecture, GgufError> {
    const KEY: &str = "general.architecture";
    let name = metadata.text(KEY)?;
    let found = Architecture::ALL.iter().find(|one| name == Some(one.name()));
    found.copied().ok_or_else(|| {
        let names: Vec<_> = Architecture::ALL.iter().map(|one| one.name()).collect();
        let wrong = format!("the architectures that are known here are {}", names.join(", "));
        metadata.wrong(KEY, wrong, "choose one of those")
    })
}

/// Refuses every key of the architecture that would change what is computed, or might.
fn refuse(metadata: &Metadata, config: &Config) -> Result<(), GgufError> {
    let prefix = format!("{}.", config.architecture);
    let keys = metadata.values.keys().filter_map(|key| Some((key, key.strip_prefix(&prefix)?)));
    for (key, rest) in keys {
        let only = match rest {
            // Values are as wide as keys, and all of a head turns.
            "attention.value_length" | "rope.dimension_count" => Some(config.head_width as f64),
            "rope.scaling.attn_factor" => Some(1.0),
            "expert_count" | "expert_used_count" | "attention.sliding_window" => Some(0.0),
            "attention.causal" if metadata.flag(key)? == Some(true) => continue,
            _ if SILENT.contains(&rest) => continue,
            _ if KEYS.iter().chain(SCALING).any(|(known, _)| *known == rest) => continue,
            _ => None,
        };
        match only {
            None => return Err(metadata.wrong(key, "what that changes is not computed here", OTHER)),
            Some(only) if metadata.number(key)? == Some(only) => {}
            Some(only) => {
                return Err(metadata.wrong(key, format!("nothing but {only} is computed here"), OTHER));
            }
        }
    }
    Ok(())
}

/// Llama 3 stretches its positions by factors, which llama.cpp keeps as a tensor: they must be those of its formula.
pub(super) fn stretch(config: &mut Config, metadata: &Metadata, weights: &Weights) -> Result<(), GgufError> {
    if !weights.has(ROPE_FACTORS) {
        return Ok(());
    }
    let pairs = config.head_width / 2;
    let mut factors = vec![0.0; pairs];
    weights.tensor(ROPE_FACTORS, &[pairs])?.next_row(&mut factors)?;
    let factor = factors.iter().copied().fold(1.0, f32::max);
    if factors.iter().all(|&factor| factor == 1.0) {
        return Ok(());
    }
    // What every release of Llama 3 has; the largest factor is that of the longest waves.
    let scaling = Scaling::Llama3 {
        factor: factor.into(),
        low_frequency: 1.0,
        high_frequency: 4.0,
        original_positions: 8_192,
    };
    let plain = Rotary::new(config.head_width, config.rope_theta, Scaling::None);
    let stretched = Rotary::new(config.head_width, config.rope_theta, scaling);
    let expected =
        plain.frequencies().iter().zip(stretched.frequencies()).map(|(plain, other)| plain / other);
    let is_llama = expected.zip(&factors).all(|(expected, found)| (expected / found - 1.0).abs() < 1e-5);
    if config.rope_scaling != Scaling::None || !is_llama {
        return Err(GgufError::Tensor {
            file: metadata.file.clone(),
            tensor: ROPE_FACTORS.to_owned(),
            wrong: "it stretches positions in another way than Llama 3 does".to_owned(),
        });
    }
    config.rope_scaling = scaling;
    Ok(())
}
