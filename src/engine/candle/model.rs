//! Candle's models made from our checkpoints, and everything that they would silently do otherwise than the checkpoint asks.

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::VarBuilder;
use candle_transformers::models::{llama, quantized_llama, quantized_qwen2, quantized_qwen3, qwen2, qwen3};

use super::Stock;
use crate::{
    engine::EngineError,
    model::{
        Checkpoint, Config,
        config::Architecture::{Llama, Qwen2, Qwen3},
    },
    numerics::{activation::Activation, rotary::Scaling},
};

/// Candle computes the rotary angles of all positions when it loads a model, so a config may not ask for any number.
pub(super) const MOST_POSITIONS: usize = 1 << 20;

/// The shape of a model that candle has.
pub(super) struct Shape<'a>(&'a Config);

impl<'a> Shape<'a> {
    /// Says what of this config candle does not do, or would not even look at.
    pub(super) fn of(config: &'a Config) -> std::result::Result<Shape<'a>, String> {
        let Config { architecture, width, heads, head_width, kv_heads, positions, .. } = *config;
        let name = match architecture {
            Qwen2 => "Qwen2",
            Qwen3 => "Qwen3",
            Llama => "Llama",
        };
        let scaling = match config.rope_scaling {
            Scaling::None => None,
            Scaling::Llama3 { .. } if architecture == Llama => None,
            Scaling::Llama3 { .. } => Some("llama3"),
            Scaling::Linear { .. } => Some("linear"),
            Scaling::Yarn { .. } => Some("yarn"),
        };
        let window = config.windows.iter().flatten().find(|&&window| window < positions);
        let attention_biases = [config.qkv_bias, config.output_bias];
        let (biases, has_them) = match architecture {
            Qwen2 => ("biases on queries, keys and values alone", attention_biases == [true, false]),
            Qwen3 => ("biases on all of attention or none", attention_biases[0] == attention_biases[1]),
            Llama => ("no biases", attention_biases == [false, false]),
        };
        let obstacle = if let Some(scaling) = scaling {
            format!("ignores {scaling} scaling of positions")
        } else if let Some(window) = window {
            format!("does not keep to a sliding window, here of {window} tokens")
        } else if architecture != Qwen3 && heads * head_width != width {
            format!(
                "divides its width among its heads, here {width} among {heads} that have {head_width} each"
            )
        } else if !has_them || config.mlp_bias {
            format!("has {biases}, unlike this model")
        } else if config.qk_norm != (architecture == Qwen3) {
            "has norms on queries and keys if it is Qwen3 and only then, unlike this model".to_owned()
        } else if architecture == Llama && config.activation != Activation::Silu {
            "knows no activation but silu".to_owned()
        } else if architecture == Llama && kv_heads > positions {
            // It takes the number of heads for the length of the cache.
            format!("cuts its keys where it has more heads ({kv_heads}) than positions ({positions})")
        } else {
            return Ok(Shape(config));
        };
        Err(format!("candle's {name} {obstacle}: use the lab engine"))
    }

    /// For how many positions candle has angles.
    pub(super) fn positions(&self) -> usize {
        self.0.positions.min(MOST_POSITIONS)
    }

    /// The tensors of the config, and no other: candle's Qwen2 prefers an output matrix that it finds to a tied one.
    /// All of them before candle sees any: its Llama panics where one is missing.
    pub(super) fn read(
        &self,
        checkpoint: &Checkpoint,
        (stock, dtype): (Stock, DType),
        device: &Device,
    ) -> std::result::Result<HashMap<String, Tensor>, EngineError> {
        let read = |(name, shape): (String, Vec<usize>)| {
            let mut tensor =
                checkpoint.tensor(&name, &shape).map_err(|error| EngineError::Model(error.to_string()))?;
            // The checkpoint has just found as many in its file.
            let mut values = vec![0.0; shape.iter().product()];
            let width = shape.last().copied().unwrap_or(1);
            for row in values.chunks_exact_mut(width) {
                tensor.next_row(row).map_err(|error| EngineError::Model(error.to_string()))?;
            }
            let tensor = Tensor::from_vec(values, shape, &Device::Cpu)
                .and_then(|tensor| tensor.to_dtype(dtype)?.to_device(device))
                .map_err(|error| super::failed(stock, &error))?;
            Ok((name, tensor))
        };
        self.0.tensors().map(read).collect()
    }

    pub(super) fn load(
        &self,
        tensors: HashMap<String, Tensor>,
        dtype: DType,
        device: &Device,
    ) -> Result<Model> {
        let config = self.0;
        let positions = self.positions();
        let tensors = VarBuilder::from_tensors(tensors, dtype, device);
        Ok(match config.architecture {
            Qwen2 => {
                let config = qwen2::Config {
                    vocab_size: config.vocabulary,
                    hidden_size: config.width,
                    intermediate_size: config.inner_width,
                    num_hidden_layers: config.layers,
                    num_attention_heads: config.heads,
                    num_key_value_heads: config.kv_heads,
                    max_position_embeddings: positions,
                    // It masks by this one whatever the next two say: so wide, it hides nothing.
                    sliding_window: positions,
                    max_window_layers: config.layers,
                    use_sliding_window: false,
                    tie_word_embeddings: config.tied,
                    rope_theta: config.rope_theta,
                    rms_norm_eps: config.epsilon.into(),
                    hidden_act: activation(config.activation),
                };
                Model::Qwen2(qwen2::ModelForCausalLM::new(&config, tensors)?)
            }
            Qwen3 => {
                let config = qwen3::Config {
                    vocab_size: config.vocabulary,
                    hidden_size: config.width,
                    intermediate_size: config.inner_width,
                    num_hidden_layers: config.layers,
                    num_attention_heads: config.heads,
                    head_dim: config.head_width,
                    attention_bias: config.qkv_bias,
                    num_key_value_heads: config.kv_heads,
                    max_position_embeddings: positions,
                    sliding_window: None,
                    max_window_layers: config.layers,
                    use_sliding_window: false,
                    tie_word_embeddings: config.tied,
                    rope_theta: config.rope_theta,
                    rms_norm_eps: config.epsilon.into(),
                    hidden_act: activation(config.activation),
                };
                Model::Qwen3(qwen3::ModelForCausalLM::new(&config, tensors)?)
            }
            Llama => {
                let config = llama::Config {
                    hidden_size: config.width,
                    intermediate_size: config.inner_width,
                    vocab_size: config.vocabulary,
                    num_hidden_layers: config.layers,
                    num_attention_heads: config.heads,
                    num_key_value_heads: config.kv_heads,
                    use_flash_attn: false,
                    rms_norm_eps: config.epsilon.into(),
                    rope_theta: config.rope_theta as f32,
                    bos_token_id: None,
                    eos_token_id: None,
                    rope_scaling: llama3(config.rope_scaling),
                    max_position_embeddings: positions,
                    tie_word_embeddings: config.tied,
                };
                let empty = llama::Cache::new(true, dtype, &config, device)?;
                Model::Llama {
                    model: llama::Llama::load(tensors, &config)?,
                    cache: Box::new(empty.clone()),
                    empty: Box::new(empty),
                }
            }
        })
    }
}

fn activation(activation: Activation) -> candle_nn::Activation {
    match activation {
        Activation::Silu => candle_nn::Activation::Silu,
        Activation::Gelu => candle_nn::Activation::Gelu,
        Activation::GeluTanh => candle_nn::Activation::GeluPytorchTanh,
        Activation::Relu => candle_nn::Activation::Relu,
    }
}

fn llama3(scaling: Scaling) -> Option<llama::Llama3RopeConfig> {
    let Scaling::Llama3 { factor, low_frequency, high_frequency, original_positions } = scaling else {
        return None;
    };
    Some(llama::Llama3RopeConfig {
        factor: factor as f32,
        low_freq_factor: low_frequency as f32,
        high_freq_factor: high_frequency as f32,
        original_max_position_embeddings: original_positions,
        rope_type: llama::Llama3RopeType::Llama3,
    })
}

/// One of candle's models, with its cache.
pub(super) enum Model {
    Qwen2(qwen2::ModelForCausalLM),
    Qwen3(qwen3::ModelForCausalLM),
    Llama { model: llama::Llama, cache: Box<llama::Cache>, empty: Box<llama::Cache> },
    QuantizedQwen2(quantized_qwen2::ModelWeights),
    QuantizedQwen3(quantized_qwen3::ModelWeights),
    QuantizedLlama(quantized_llama::ModelWeights),
}

impl Model {
    /// Empties the cache.
    pub(super) fn forget(&mut self) {
        match self {
            Model::Qwen2(model) => model.clear_kv_cache(),
            Model::Qwen3(model) => model.clear_kv_cache(),
            Model::Llama { cache, empty, .. } => cache.clone_from(empty),
            Model::QuantizedQwen2(model) => model.clear_kv_cache(),
            Model::QuantizedQwen3(model) => model.clear_kv_cache(),
            Model::QuantizedLlama(model) => model.clear_kv_cache(),
        }
    }

    /// The logits after the last token of every sequence, for tokens `[sequences, length]` after `offset` others.
    pub(super) fn forward(&mut self, tokens: &Tensor, offset: usize) -> Result<Tensor> {
        match self {
            Model::Qwen2(model) => model.forward(tokens, offset),
            Model::Qwen3(model) => model.forward(tokens, offset),
            Model::Llama { model, cache, .. } => model.forward(tokens, offset, cache),
            Model::QuantizedQwen2(model) => model.forward(tokens, offset),
            Model::QuantizedQwen3(model) => model.forward(tokens, offset),
            Model::QuantizedLlama(model) => model.forward(tokens, offset),
        }
    }
}
