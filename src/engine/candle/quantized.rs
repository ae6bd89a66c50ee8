//! Candle's quantized models, which read a file of GGUF themselves and multiply its blocks as they are.

use std::{fs::File, io::BufReader, path::Path};

use candle_core::{Device, Result, quantized::gguf_file::Content};
use candle_transformers::models::{quantized_llama, quantized_qwen2, quantized_qwen3};

use super::model::{MOST_POSITIONS, Model};
use crate::{
    model::{
        Checkpoint,
        config::Architecture::{Llama, Qwen2, Qwen3},
    },
    numerics::{block::BlockFormat, rotary::Scaling},
};

/// A file that candle has a quantized model for.
pub(super) struct Quantized<'a> {
    checkpoint: &'a Checkpoint,
    path: &'a Path,
}

impl<'a> Quantized<'a> {
    /// Says what of this checkpoint candle does not do, or would not even look at.
    pub(super) fn of(checkpoint: &'a Checkpoint) -> std::result::Result<Quantized<'a>, String> {
        let Some(path) = checkpoint.gguf() else {
            return Err(format!(
                "candle reads quantized models from files of GGUF alone, and {} is not one: use fp32, or name such a file",
                checkpoint.name
            ));
        };
        let config = &checkpoint.config;
        let unknown = BlockFormat::Iq4Nl.name();
        let biases = [config.qkv_bias, config.output_bias, config.mlp_bias];
        let obstacle = if checkpoint.stored().iter().any(|stored| stored == unknown) {
            format!("knows no blocks of {unknown}")
        } else if config.rope_scaling != Scaling::None {
            "ignores scaling of positions".to_owned()
        } else if config.windows.iter().any(Option::is_some) {
            "does not keep to a sliding window".to_owned()
        } else if config.architecture != Qwen3 && config.heads * config.head_width != config.width {
            "divides its width among its heads, unlike this model".to_owned()
        } else if biases != [config.architecture == Qwen2, false, false] {
            "has biases on queries, keys and values if it is Qwen2 and only then, unlike this model"
                .to_owned()
        } else if config.qk_norm != (config.architecture == Qwen3) {
            "has norms on queries and keys if it is Qwen3 and only then, unlike this model".to_owned()
        } else if config.architecture != Llama && config.positions > MOST_POSITIONS {
            format!("computes the angles of all {} positions at once", config.positions)
        } else {
            return Ok(Quantized { checkpoint, path });
        };
        Err(format!("candle's quantized {} {obstacle}: use the lab engine", config.architecture))
    }

    /// For how many positions candle has angles.
    pub(super) fn positions(&self) -> usize {
        let positions = self.checkpoint.config.positions;
        match self.checkpoint.config.architecture {
            Llama => positions.min(quantized_llama::MAX_SEQ_LEN),
            Qwen2 | Qwen3 => positions,
        }
    }

    pub(super) fn load(&self, device: &Device) -> Result<Model> {
        let mut reader = BufReader::new(File::open(self.path)?);
        let content = Content::read(&mut reader)?;
        Ok(match self.checkpoint.config.architecture {
            Llama => {
                Model::QuantizedLlama(quantized_llama::ModelWeights::from_gguf(content, &mut reader, device)?)
            }
            Qwen2 => {
                Model::QuantizedQwen2(quantized_qwen2::ModelWeights::from_gguf(content, &mut reader, device)?)
            }
            Qwen3 => {
                Model::QuantizedQwen3(quantized_qwen3::ModelWeights::from_gguf(content, &mut reader, device)?)
            }
        })
    }
}
