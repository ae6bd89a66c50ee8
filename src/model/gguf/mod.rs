//! A model in one file of GGUF, as llama.cpp writes them: its shape, its tokenizer and its weights.
//!
//! What such a file says is said once more in the terms of Hugging Face's layout (keys of `config.json`, a
//! `tokenizer.json`, names of tensors), and then goes the way that every checkpoint goes.

mod config;
mod header;
mod metadata;
pub(super) mod names;
mod vocabulary;

use super::{
    chat::ChatTemplate,
    config::{Config, ConfigError},
    file::{FileError, Source},
    tokenizer::{Tokenizer, TokenizerError},
    weights::{Weights, WeightsError},
};

/// What the name of such a file ends with.
pub const SUFFIX: &str = ".gguf";

/// Why a GGUF file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// Something else.
    #[error("{file} does not begin as a GGUF file does: name one, or fetch it again")]
    NoGguf {
        /// Which file.
        file: String,
    },
    /// A version that nobody writes any more, or not yet.
    #[error("{file} is of version {version} of GGUF, and versions 2 and 3 are read: convert the model again")]
    Version {
        /// Which file.
        file: String,
        /// Which version.
        version: u32,
    },
    /// Something in its head that cannot be.
    #[error("{file}: at byte {at}: {wrong}: fetch the file again")]
    Damaged {
        /// Which file.
        file: String,
        /// Where.
        at: u64,
        /// What.
        wrong: String,
    },
    /// A tensor that cannot be.
    #[error(
        "{file}: the tensor `{tensor}`: {wrong}: fetch the file again, or choose another version of the model"
    )]
    Tensor {
        /// Which file.
        file: String,
        /// Which tensor.
        tensor: String,
        /// What is wrong with it.
        wrong: String,
    },
    /// A key that cannot be, or asks for what is not computed here.
    #[error("{file}: `{key}` is {value}, and {wrong}: {way_out}")]
    Key {
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
    /// The file itself.
    #[error(transparent)]
    File(#[from] FileError),
    /// A shape that cannot be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// A tokenizer that cannot be used.
    #[error(transparent)]
    Tokenizer(#[from] TokenizerError),
    /// Weights that cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
}

/// What a file holds.
pub(super) struct Gguf {
    pub(super) config: Config,
    pub(super) tokenizer: Option<Tokenizer>,
    pub(super) chat: Option<ChatTemplate>,
    pub(super) weights: Weights,
}

impl Gguf {
    /// Reads everything but the weights' values; `name` is what the file is called among the model's files.
    pub(super) fn read(name: &str, source: Source) -> Result<Gguf, GgufError> {
        let (metadata, places) = header::read(&source)?;
        let file = source.label.clone();
        let special = vocabulary::Special::of(&metadata)?;
        let mut config = config::read(&metadata, &places)?;
        let places = names::translated(places, &config);
        let weights = Weights::of_one(name.to_owned(), source, places, names::in_file);
        config::stretch(&mut config, &metadata, &weights)?;
        config.beginning_token = special.beginning;
        config.padding_token = special.padding;
        config.stop_tokens = special.stops;
        let tokenizer = vocabulary::tokenizer_json(&metadata)?;
        let tokenizer = tokenizer.map(|json| Tokenizer::read(&file, &json, config.vocabulary)).transpose()?;
        Ok(Gguf { tokenizer, chat: vocabulary::chat_template(&metadata)?, config, weights })
    }
}
