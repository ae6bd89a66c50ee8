//! What a checkpoint's `config.json` says, checked, and in one form for all architectures.
//!
//! A key that is absent has the value that Hugging Face's own class for the architecture gives it. Rotary positions are
//! read in both layouts: `rope_theta` and `rope_scaling` at the top, and `rope_parameters`, which transformers writes
//! since version 5. What would change the arithmetic and is not computed here is refused, never ignored: the keys of
//! `REFUSED`, a `rope_type` other than default, linear, llama3 and yarn, any key beside those that belong to that type, a
//! `layer_types` other than full and sliding attention, windows where the family has none, an unknown `hidden_act`.
//! The type of the weights stands in the files themselves; `dtype` and `torch_dtype` are not looked at.

use std::fmt;

use serde_json::{Map, Value};

use crate::numerics::{
    activation::Activation,
    rotary::{Scaling, yarn_attention},
};

/// The families of models that the decoder knows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Architecture {
    /// Qwen2 and Qwen2.5.
    Qwen2,
    /// Qwen3.
    Qwen3,
    /// Llama 2, 3, and what shares their form.
    Llama,
}

impl Architecture {
    /// Every one of them.
    pub const ALL: &[Self] = &[Self::Qwen2, Self::Qwen3, Self::Llama];

    /// As `model_type` has it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Qwen2 => "qwen2",
            Self::Qwen3 => "qwen3",
            Self::Llama => "llama",
        }
    }

    /// As `architectures` has it.
    pub const fn class(self) -> &'static str {
        match self {
            Self::Qwen2 => "Qwen2ForCausalLM",
            Self::Qwen3 => "Qwen3ForCausalLM",
            Self::Llama => "LlamaForCausalLM",
        }
    }

    const fn defaults(self) -> Defaults {
        let qwen = Defaults {
            vocabulary: 151_936,
            inner_width: 22_016,
            kv_heads: Some(32),
            head_width: None,
            positions: 32_768,
            beginning: None,
            stop: None,
        };
        match self {
            Self::Qwen2 => qwen,
            Self::Qwen3 => Defaults { head_width: Some(128), ..qwen },
            Self::Llama => Defaults {
                vocabulary: 32_000,
                inner_width: 11_008,
                kv_heads: None,
                head_width: None,
                positions: 2_048,
                beginning: Some(1),
                stop: Some(2),
            },
        }
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What Hugging Face's classes assume where the file is silent and the families differ.
struct Defaults {
    vocabulary: usize,
    inner_width: usize,
    /// As many as query heads where there is none.
    kv_heads: Option<usize>,
    /// The width over the heads where there is none.
    head_width: Option<usize>,
    positions: usize,
    beginning: Option<u32>,
    stop: Option<u32>,
}

/// The shape of a model.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// The family.
    pub architecture: Architecture,
    /// How many tokens there are.
    pub vocabulary: usize,
    /// The width of the residual stream.
    pub width: usize,
    /// The width of the feed-forward layers.
    pub inner_width: usize,
    /// How many layers.
    pub layers: usize,
    /// How many query heads.
    pub heads: usize,
    /// How many heads of keys and values.
    pub kv_heads: usize,
    /// The width of a head.
    pub head_width: usize,
    /// What is added to the mean square in a norm.
    pub epsilon: f32,
    /// What the gate passes through.
    pub activation: Activation,
    /// The base of the rotary angles.
    pub rope_theta: f64,
    /// How positions are stretched.
    pub rope_scaling: Scaling,
    /// How many positions the model was made for. Up to 2^31: make nothing of that size.
    pub positions: usize,
    /// For each layer, how many keys a query sees, its own included; all up to its own where there is none.
    pub windows: Vec<Option<usize>>,
    /// Is the embedding also the head?
    pub tied: bool,
    /// Do queries, keys and values have biases?
    pub qkv_bias: bool,
    /// Does attention's output projection have a bias?
    pub output_bias: bool,
    /// Do the feed-forward layers have biases?
    pub mlp_bias: bool,
    /// Is there a norm on every query and key head?
    pub qk_norm: bool,
    /// Tokens that end a text.
    pub stop_tokens: Vec<u32>,
    /// The token that begins a text.
    pub beginning_token: Option<u32>,
    /// The token that fills a place without meaning.
    pub padding_token: Option<u32>,
}

/// Why a config cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not JSON.
    #[error("{file} does not read ({source}): fetch it again")]
    Json {
        /// Which file.
        file: String,
        /// What is wrong, and where.
        source: serde_json::Error,
    },
    /// JSON, but no object.
    #[error("{0} is JSON, but not an object with keys: fetch it again")]
    NotAnObject(String),
    /// A value that cannot be.
    #[error("{file}: `{key}` is {value}, and {wrong}: {way_out}")]
    Value {
        /// Which file.
        file: String,
        /// Which key.
        key: String,
        /// Its value, shortened, or that it is absent.
        value: String,
        /// What is wrong with it.
        wrong: String,
        /// What to do.
        way_out: &'static str,
    },
}

const SAME_SOURCE: &str = "see that the file is the one that belongs to the weights";
const OTHER_MODEL: &str = "choose a model without it";
const REMOVE: &str = "choose another model, or remove the key if it means nothing";

/// Options of other models, which change what is computed: the key, what it asks for, and the number that asks for
/// nothing. `null`, `false` and an empty list ask for nothing either.
const REFUSED: &[(&str, &str, Option<f64>)] = &[
    ("quantization_config", "quantized weights are not read", None),
    ("compression_config", "quantized weights are not read", None),
    ("num_experts", "mixtures of experts are not computed", Some(0.0)),
    ("num_local_experts", "mixtures of experts are not computed", Some(0.0)),
    ("n_routed_experts", "mixtures of experts are not computed", Some(0.0)),
    ("moe_intermediate_size", "mixtures of experts are not computed", Some(0.0)),
    ("partial_rotary_factor", "rotary positions on a part of a head are not computed", Some(1.0)),
    ("rotary_pct", "rotary positions on a part of a head are not computed", Some(1.0)),
    ("rope_interleaved", "interleaved rotary positions are not computed", None),
    ("no_rope_layers", "layers without rotary positions are not computed", None),
    ("alibi", "positions by ALiBi are not computed", None),
    ("attn_logit_softcapping", "capped logits are not computed", None),
    ("final_logit_softcapping", "capped logits are not computed", None),
    ("query_pre_attn_scalar", "another scale of attention is not computed", None),
    ("attention_multiplier", "another scale of attention is not computed", None),
    ("embedding_multiplier", "scaled embeddings are not computed", Some(1.0)),
    ("residual_multiplier", "scaled residuals are not computed", Some(1.0)),
    ("logit_scale", "scaled logits are not computed", Some(1.0)),
    ("logits_scaling", "scaled logits are not computed", Some(1.0)),
    ("clip_qkv", "clipped queries are not computed", None),
    ("use_qk_norm", "Qwen3 has its norm of queries and keys without this key", None),
    ("qk_layernorm", "Qwen3 has its norm of queries and keys without this key", None),
    ("attention_chunk_size", "attention in chunks is not computed", None),
    ("parallel_attn", "attention beside the feed-forward layer is not computed", None),
    ("use_parallel_residual", "attention beside the feed-forward layer is not computed", None),
    ("use_bidirectional_attention", "attention to later tokens is not computed", None),
    ("is_encoder_decoder", "an encoder is not computed", None),
    ("add_cross_attention", "attention to another model is not computed", None),
    ("text_config", "models of more than text are not computed", None),
    ("vision_config", "models of more than text are not computed", None),
];

impl Config {
    /// Reads `config.json`; `file` is what errors call it.
    ///
    /// # Errors
    ///
    /// What is wrong with it, or asks for what is not computed here.
    pub fn read(file: &str, json: &[u8]) -> Result<Config, ConfigError> {
        let map = object(file, json)?;
        let keys = Keys { file, path: "", map: &map };
        let architecture = architecture(&keys)?;
        for (key, wrong, neutral) in REFUSED {
            keys.refuse(key, wrong, *neutral)?;
        }
        if keys.map.get("is_causal") == Some(&Value::Bool(false)) {
            return Err(keys.wrong("is_causal", "attention to later tokens is not computed", OTHER_MODEL));
        }
        // The code beside such a model may compute anything.
        if let Some(code) = keys.map.get("auto_map").filter(|map| map.get("AutoModelForCausalLM").is_some()) {
            let wrong = "code that comes with a model is not run";
            return Err(keys.error("auto_map", shown(Some(code)), wrong, REMOVE));
        }
        let defaults = architecture.defaults();

        let vocabulary = keys.size("vocab_size", 1 << 32, Some(defaults.vocabulary))?;
        let width = keys.size("hidden_size", 1 << 20, Some(4_096))?;
        let inner_width = keys.size("intermediate_size", 1 << 24, Some(defaults.inner_width))?;
        let layers = keys.size("num_hidden_layers", 1 << 14, Some(32))?;
        let heads = keys.size("num_attention_heads", 1 << 14, Some(32))?;
        let kv_heads = match keys.map.get("num_key_value_heads") {
            Some(Value::Null) => heads,
            _ => keys.size("num_key_value_heads", 1 << 14, Some(defaults.kv_heads.unwrap_or(heads)))?,
        };
        if !heads.is_multiple_of(kv_heads) {
            let wrong = format!("{heads} query heads cannot share that many");
            return Err(keys.wrong("num_key_value_heads", wrong, SAME_SOURCE));
        }
        let head_width = match keys.map.get("head_dim") {
            None | Some(Value::Null) if defaults.head_width.is_none() => {
                if !width.is_multiple_of(heads) {
                    let wrong = format!("a width of {width} cannot be shared among that many");
                    return Err(keys.wrong("num_attention_heads", wrong, SAME_SOURCE));
                }
                width / heads
            }
            _ => keys.size("head_dim", 1 << 16, defaults.head_width)?,
        };
        if !head_width.is_multiple_of(2) {
            let wrong =
                format!("rotary positions turn pairs, which a head of width {head_width} is not made of");
            let key = if keys.map.contains_key("head_dim") { "head_dim" } else { "num_attention_heads" };
            return Err(keys.wrong(key, wrong, SAME_SOURCE));
        }
        let positions = keys.size("max_position_embeddings", 1 << 31, Some(defaults.positions))?;
        let epsilon = keys.number("rms_norm_eps", Some(1e-6), 0.0..=1.0)? as f32;
        let (rope_theta, rope_scaling) = rope(&keys, positions)?;
        let attention_bias = match architecture {
            Architecture::Qwen2 => false,
            Architecture::Qwen3 | Architecture::Llama => keys.flag("attention_bias")?,
        };
        let mlp_bias = keys.flag("mlp_bias")?;
        if mlp_bias && architecture != Architecture::Llama {
            let wrong = format!("the feed-forward layers of {architecture} have no biases");
            return Err(keys.wrong("mlp_bias", wrong, SAME_SOURCE));
        }
        let mut config = Config {
            architecture,
            vocabulary,
            width,
            inner_width,
            layers,
            heads,
            kv_heads,
            head_width,
            epsilon,
            activation: activation(&keys)?,
            rope_theta,
            rope_scaling,
            positions,
            windows: windows(&keys, architecture, layers)?,
            tied: keys.flag("tie_word_embeddings")?,
            qkv_bias: attention_bias || architecture == Architecture::Qwen2,
            output_bias: attention_bias,
            mlp_bias,
            qk_norm: architecture == Architecture::Qwen3,
            stop_tokens: defaults.stop.into_iter().collect(),
            beginning_token: defaults.beginning,
            padding_token: None,
        };
        config.take_tokens(&keys)?;
        Ok(config)
    }

    /// Takes the special tokens from `generation_config.json`, which has the last word on them. What else stands there
    /// is how to sample, and that is for a run to say.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn take_generation(&mut self, file: &str, json: &[u8]) -> Result<(), ConfigError> {
        let map = object(file, json)?;
        self.take_tokens(&Keys { file, path: "", map: &map })
    }

    fn take_tokens(&mut self, keys: &Keys<'_>) -> Result<(), ConfigError> {
        let token = |key: &'static str, value: &Value| {
            let id = value.as_u64().and_then(|id| u32::try_from(id).ok());
            id.filter(|&id| (id as usize) < self.vocabulary).ok_or_else(|| {
                let wrong = format!("a token is a number from 0 to {}", self.vocabulary - 1);
                keys.error(key, shown(Some(value)), wrong, SAME_SOURCE)
            })
        };
        let mut stop_tokens = None;
        match keys.map.get("eos_token_id") {
            None | Some(Value::Null) => {}
            Some(Value::Array(tokens)) => {
                let tokens: Result<Vec<_>, _> =
                    tokens.iter().map(|value| token("eos_token_id", value)).collect();
                stop_tokens = Some(tokens?);
            }
            Some(value) => stop_tokens = Some(vec![token("eos_token_id", value)?]),
        }
        let one = |key: &'static str| match keys.map.get(key) {
            None | Some(Value::Null) => Ok(None),
            // Written by old versions of transformers for "there is none".
            Some(Value::Number(none)) if none.as_i64() == Some(-1) => Ok(None),
            Some(value) => token(key, value).map(Some),
        };
        let (beginning, padding) = (one("bos_token_id")?, one("pad_token_id")?);
        self.beginning_token = beginning.or(self.beginning_token);
        self.padding_token = padding.or(self.padding_token);
        if let Some(mut tokens) = stop_tokens {
            tokens.sort_unstable();
            tokens.dedup();
            self.stop_tokens = tokens;
        }
        Ok(())
    }

    /// Every tensor that a model of this shape has, by its name in the files, with its shape.
    pub fn tensors(&self) -> impl Iterator<Item = (String, Vec<usize>)> {
        let embedding = vec![self.vocabulary, self.width];
        let head = (!self.tied).then(|| ("lm_head.weight".to_owned(), embedding.clone()));
        let first = [("model.embed_tokens.weight".to_owned(), embedding)];
        let layers = (0..self.layers).flat_map(|layer| {
            self.layer_tensors()
                .map(move |(name, shape)| (format!("model.layers.{layer}.{name}"), shape))
                .collect::<Vec<_>>()
        });
        let last = [("model.norm.weight".to_owned(), vec![self.width])];
        first.into_iter().chain(layers).chain(last).chain(head)
    }

    fn layer_tensors(&self) -> impl Iterator<Item = (&'static str, Vec<usize>)> {
        let (queries, keys) = (self.heads * self.head_width, self.kv_heads * self.head_width);
        let (width, inner, head) = (self.width, self.inner_width, self.head_width);
        [
            (true, "input_layernorm.weight", vec![width]),
            (true, "self_attn.q_proj.weight", vec![queries, width]),
            (self.qkv_bias, "self_attn.q_proj.bias", vec![queries]),
            (true, "self_attn.k_proj.weight", vec![keys, width]),
            (self.qkv_bias, "self_attn.k_proj.bias", vec![keys]),
            (true, "self_attn.v_proj.weight", vec![keys, width]),
            (self.qkv_bias, "self_attn.v_proj.bias", vec![keys]),
            (true, "self_attn.o_proj.weight", vec![width, queries]),
            (self.output_bias, "self_attn.o_proj.bias", vec![width]),
            (self.qk_norm, "self_attn.q_norm.weight", vec![head]),
            (self.qk_norm, "self_attn.k_norm.weight", vec![head]),
            (true, "post_attention_layernorm.weight", vec![width]),
            (true, "mlp.gate_proj.weight", vec![inner, width]),
            (self.mlp_bias, "mlp.gate_proj.bias", vec![inner]),
            (true, "mlp.up_proj.weight", vec![inner, width]),
            (self.mlp_bias, "mlp.up_proj.bias", vec![inner]),
            (true, "mlp.down_proj.weight", vec![width, inner]),
            (self.mlp_bias, "mlp.down_proj.bias", vec![width]),
        ]
        .into_iter()
        .filter(|(there, ..)| *there)
        .map(|(_, name, shape)| (name, shape))
    }
}

pub(super) fn object(file: &str, json: &[u8]) -> Result<Map<String, Value>, ConfigError> {
    match serde_json::from_slice(json) {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(ConfigError::NotAnObject(file.to_owned())),
        Err(source) => Err(ConfigError::Json { file: file.to_owned(), source }),
    }
}

/// An object of the file, and the words for what is wrong with it.
struct Keys<'a> {
    file: &'a str,
    /// The keys that lead to it, each with its dot.
    path: &'a str,
    map: &'a Map<String, Value>,
}

impl Keys<'_> {
    fn error(
        &self,
        key: &str,
        value: String,
        wrong: impl Into<String>,
        way_out: &'static str,
    ) -> ConfigError {
        let key = format!("{}{key}", self.path);
        ConfigError::Value { file: self.file.to_owned(), key, value, wrong: wrong.into(), way_out }
    }

    fn wrong(&self, key: &str, wrong: impl Into<String>, way_out: &'static str) -> ConfigError {
        self.error(key, shown(self.map.get(key)), wrong, way_out)
    }

    /// A whole number from 1 to `most`.
    fn size(&self, key: &str, most: u64, default: Option<usize>) -> Result<usize, ConfigError> {
        let size = match (self.map.get(key), default) {
            (None, Some(default)) => return Ok(default),
            (value, _) => value.and_then(Value::as_u64),
        };
        size.filter(|size| (1..=most).contains(size)).and_then(|size| usize::try_from(size).ok()).ok_or_else(
            || self.wrong(key, format!("only whole numbers from 1 to {most} make sense"), SAME_SOURCE),
        )
    }

    fn number(
        &self,
        key: &str,
        default: Option<f64>,
        range: std::ops::RangeInclusive<f64>,
    ) -> Result<f64, ConfigError> {
        let number = match (self.map.get(key), default) {
            (None | Some(Value::Null), Some(default)) => return Ok(default),
            (value, _) => value.and_then(Value::as_f64),
        };
        number.filter(|number| range.contains(number)).ok_or_else(|| {
            let wrong = format!("only numbers from {:e} to {:e} make sense", range.start(), range.end());
            self.wrong(key, wrong, SAME_SOURCE)
        })
    }

    /// A flag that is off where nothing is said.
    fn flag(&self, key: &str) -> Result<bool, ConfigError> {
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(false),
            Some(Value::Bool(flag)) => Ok(*flag),
            Some(_) => Err(self.wrong(key, "only true and false make sense", SAME_SOURCE)),
        }
    }

    fn refuse(&self, key: &str, wrong: &str, neutral: Option<f64>) -> Result<(), ConfigError> {
        let asks = match self.map.get(key) {
            None | Some(Value::Null | Value::Bool(false)) => false,
            Some(Value::Array(list)) => !list.is_empty(),
            Some(value) => neutral.is_none() || value.as_f64() != neutral,
        };
        if asks { Err(self.wrong(key, wrong, REMOVE)) } else { Ok(()) }
    }

    /// The object under a key, if it says anything.
    fn inner<'s>(&'s self, key: &str) -> Result<Option<&'s Map<String, Value>>, ConfigError> {
        match self.map.get(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map).filter(|map| !map.is_empty())),
            Some(_) => Err(self.wrong(key, "only an object with keys makes sense", SAME_SOURCE)),
        }
    }
}

/// A value as it stands in the file, as far as it fits a sentence.
fn shown(value: Option<&Value>) -> String {
    const MOST: usize = 60;
    let Some(value) = value else {
        return "absent".to_owned();
    };
    let text = value.to_string();
    match text.char_indices().nth(MOST) {
        None => text,
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

fn architecture(keys: &Keys<'_>) -> Result<Architecture, ConfigError> {
    let known = |name: fn(Architecture) -> &'static str| {
        let names: Vec<_> = Architecture::ALL.iter().map(|&one| name(one)).collect();
        format!("the architectures that are known here are {}", names.join(", "))
    };
    let find = |key: &'static str, name: fn(Architecture) -> &'static str, value: &Value| {
        let found = Architecture::ALL.iter().find(|&&one| value.as_str() == Some(name(one)));
        found.copied().ok_or_else(|| keys.error(key, shown(Some(value)), known(name), "choose one of those"))
    };
    let by_class = match keys.map.get("architectures") {
        None | Some(Value::Null) => None,
        Some(value) => {
            let class = value.as_array().filter(|list| list.len() == 1).map_or(value, |list| &list[0]);
            Some(find("architectures", Architecture::class, class)?)
        }
    };
    let by_type = match keys.map.get("model_type") {
        None | Some(Value::Null) => None,
        Some(value) => Some(find("model_type", Architecture::name, value)?),
    };
    match (by_class, by_type) {
        (Some(class), Some(name)) if class != name => {
            let wrong = format!("`architectures` says {}", class.class());
            Err(keys.wrong("model_type", wrong, SAME_SOURCE))
        }
        (None, None) => Err(keys.wrong("architectures", known(Architecture::class), "choose one of those")),
        (Some(found), _) | (None, Some(found)) => Ok(found),
    }
}

fn activation(keys: &Keys<'_>) -> Result<Activation, ConfigError> {
    let Some(value) = keys.map.get("hidden_act") else {
        return Ok(Activation::Silu);
    };
    match value.as_str() {
        Some("silu" | "swish") => Ok(Activation::Silu),
        Some("gelu" | "gelu_python") => Ok(Activation::Gelu),
        Some("gelu_pytorch_tanh" | "gelu_new") => Ok(Activation::GeluTanh),
        Some("relu") => Ok(Activation::Relu),
        _ => {
            let wrong = "the activations that are computed here are silu, gelu, gelu_pytorch_tanh and relu";
            Err(keys.wrong("hidden_act", wrong, "choose a model with one of those"))
        }
    }
}

/// The window of each layer. Only Qwen has them, only where `use_sliding_window` says so, and then in the layers that
/// `layer_types` names, or from `max_window_layers` on.
fn windows(
    keys: &Keys<'_>,
    architecture: Architecture,
    layers: usize,
) -> Result<Vec<Option<usize>>, ConfigError> {
    let asked = keys.flag("use_sliding_window")?;
    let window = if architecture == Architecture::Llama {
        keys.refuse("use_sliding_window", "llama has no sliding windows", None)?;
        keys.refuse("sliding_window", "llama has no sliding windows", None)?;
        None
    } else if asked && keys.map.get("sliding_window") != Some(&Value::Null) {
        Some(keys.size("sliding_window", 1 << 31, Some(4_096))?)
    } else {
        None
    };
    let types = match keys.map.get("layer_types") {
        None | Some(Value::Null) => {
            let from = match keys.map.get("max_window_layers") {
                // From the first layer on: `size` begins at 1.
                Some(Value::Number(none)) if none.as_u64() == Some(0) => 0,
                _ => keys.size("max_window_layers", 1 << 31, Some(28))?,
            };
            return Ok((0..layers).map(|layer| window.filter(|_| layer >= from)).collect());
        }
        Some(Value::Array(types)) if types.len() == layers => types,
        Some(_) => {
            let wrong = format!("only a list of {layers} types makes sense, one for each layer");
            return Err(keys.wrong("layer_types", wrong, SAME_SOURCE));
        }
    };
    types
        .iter()
        .map(|kind| match (kind.as_str(), window) {
            (Some("full_attention"), _) => Ok(None),
            (Some("sliding_attention"), Some(window)) => Ok(Some(window)),
            (Some("sliding_attention"), None) => {
                let wrong = "no size of a window goes with it, or none is allowed";
                Err(keys.error("layer_types", shown(Some(kind)), wrong, SAME_SOURCE))
            }
            _ => {
                let wrong = "the layers that are computed here are full_attention and sliding_attention";
                Err(keys.error("layer_types", shown(Some(kind)), wrong, OTHER_MODEL))
            }
        })
        .collect()
}

/// The base of the rotary angles, and how positions are stretched.
fn rope(keys: &Keys<'_>, positions: usize) -> Result<(f64, Scaling), ConfigError> {
    let theta = keys.number("rope_theta", Some(10_000.0), THETA)?;
    let (path, map) = match (keys.inner("rope_scaling")?, keys.inner("rope_parameters")?) {
        (None, None) => return Ok((theta, Scaling::None)),
        (Some(map), None) => ("rope_scaling.", map),
        (None, Some(map)) => ("rope_parameters.", map),
        (Some(old), Some(new)) if old == new => ("rope_parameters.", new),
        (Some(_), Some(_)) => {
            return Err(keys.wrong("rope_scaling", "`rope_parameters` says something else", SAME_SOURCE));
        }
    };
    let rope = Keys { file: keys.file, path, map };
    let theta = rope.number("rope_theta", Some(theta), THETA)?;
    let kind = rope.map.get("rope_type").or(rope.map.get("type"));
    let factor = || rope.number("factor", None, FACTOR);
    let original_positions = || {
        let outer = keys.map.get("original_max_position_embeddings").is_some_and(|value| !value.is_null());
        let (keys, default) = if outer { (keys, None) } else { (&rope, Some(positions)) };
        keys.size("original_max_position_embeddings", 1 << 31, default)
    };
    let (scaling, own): (_, &[&str]) = match kind.map_or(Some("default"), Value::as_str) {
        Some("default") => (Scaling::None, &[]),
        Some("linear") => (Scaling::Linear { factor: factor()? }, &["factor"]),
        Some("llama3") => {
            let low_frequency = rope.number("low_freq_factor", None, FACTOR)?;
            let high_frequency = rope.number("high_freq_factor", None, FACTOR)?;
            if high_frequency <= low_frequency {
                let wrong = format!("`low_freq_factor` is {low_frequency}, which must be less");
                return Err(rope.wrong("high_freq_factor", wrong, SAME_SOURCE));
            }
            let original_positions = original_positions()?;
            let scaling =
                Scaling::Llama3 { factor: factor()?, low_frequency, high_frequency, original_positions };
            let own = &["factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"];
            (scaling, own)
        }
        Some("yarn") => (yarn(&rope, theta, factor()?, original_positions()?)?, YARN),
        _ => {
            let value = shown(kind);
            let wrong = "the types that are computed here are default, linear, llama3 and yarn";
            return Err(rope.error("rope_type", value, wrong, "choose a model with one of those"));
        }
    };
    rope.refuse("partial_rotary_factor", "rotary positions on a part of a head are not computed", Some(1.0))?;
    const COMMON: &[&str] = &["rope_theta", "rope_type", "type", "partial_rotary_factor"];
    let foreign = rope.map.iter().find(|(key, value)| {
        !value.is_null() && !COMMON.contains(&key.as_str()) && !own.contains(&key.as_str())
    });
    match foreign {
        None => Ok((theta, scaling)),
        Some((key, _)) => {
            let kind = kind.and_then(Value::as_str).unwrap_or("default");
            Err(rope.wrong(key, format!("rotary positions of the type {kind} have no such key"), REMOVE))
        }
    }
}

const THETA: std::ops::RangeInclusive<f64> = f64::MIN_POSITIVE..=1e30;
const FACTOR: std::ops::RangeInclusive<f64> = 1e-6..=1e9;
const YARN: &[&str] = &[
    "factor",
    "original_max_position_embeddings",
    "attention_factor",
    "beta_fast",
    "beta_slow",
    "mscale",
    "mscale_all_dim",
    "truncate",
];

fn yarn(rope: &Keys<'_>, theta: f64, factor: f64, original_positions: usize) -> Result<Scaling, ConfigError> {
    if theta <= 1.0 {
        return Err(rope.wrong("rope_theta", "yarn divides by its logarithm", SAME_SOURCE));
    }
    // Zero counts as absent, as it does in transformers.
    let turns = |key, default| match rope.number(key, Some(default), 0.0..=1e9)? {
        0.0 => Ok(default),
        turns => Ok(turns),
    };
    let (beta_fast, beta_slow) = (turns("beta_fast", 32.0)?, turns("beta_slow", 1.0)?);
    if beta_fast < beta_slow {
        let wrong = format!("`beta_slow` is {beta_slow}, which must not be more");
        return Err(rope.wrong("beta_fast", wrong, SAME_SOURCE));
    }
    let scale = |key| rope.number(key, Some(0.0), 0.0..=1e9);
    let (mscale, mscale_all_dim) = (scale("mscale")?, scale("mscale_all_dim")?);
    let attention = match rope.map.get("attention_factor") {
        None | Some(Value::Null) => yarn_attention(factor, Some(mscale), Some(mscale_all_dim)),
        Some(_) => rope.number("attention_factor", None, 0.0..=1e9)?,
    };
    let truncate = match rope.map.get("truncate") {
        None | Some(Value::Null) => true,
        Some(_) => rope.flag("truncate")?,
    };
    Ok(Scaling::Yarn { factor, beta_fast, beta_slow, original_positions, attention, truncate })
}
