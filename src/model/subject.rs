//! What a run needs of a model whose weights may be elsewhere, or nowhere.

use std::sync::LazyLock;

use serde_json::{Map, Value, json};

use super::{Checkpoint, CheckpointError, chat::ChatTemplate, checkpoint::Origin, tokenizer::Tokenizer};
use crate::{
    digest::Digest,
    numerics::{activation::Activation, kernel::Step},
};

/// What a subject without a model is called.
pub const NO_MODEL: &str = "none";

/// Whom questions are put to, as far as it does not matter who computes.
#[derive(Clone, Debug)]
pub struct Subject<'a> {
    /// What the user called it.
    pub name: &'a str,
    /// Where it comes from.
    pub origin: String,
    /// The architecture that its files name.
    pub architecture: String,
    /// How many weights it has.
    pub parameters: u64,
    /// One value for all of its files.
    pub digest: Digest,
    /// Turns texts into tokens, if there is one that is known here.
    pub tokenizer: Option<&'a Tokenizer>,
    /// How it wants conversations written, if it says so.
    pub chat: Option<&'a ChatTemplate>,
    /// Is it one file of GGUF?
    pub is_gguf: bool,
    /// Does it know the compact style, and no other?
    pub is_compact: bool,
    /// How many tokens it knows.
    pub vocabulary: usize,
    /// How many tokens it can read.
    pub positions: usize,
    /// The tokens that end an answer.
    pub stop_tokens: &'a [u32],
    /// How many terms the sums have that its weights are part of.
    pub sums: [usize; 4],
    /// What it is made of, where it is a model.
    pub shape: Option<Shape>,
    /// Its weights, where they are here.
    pub weights: Option<&'a Checkpoint>,
}

/// Which operations a model carries out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Shape {
    /// How many layers it has.
    pub layers: usize,
    /// The steps that none of them takes.
    pub never: &'static [Step],
    /// What its gates pass through.
    pub activation: Activation,
}

impl<'a> Subject<'a> {
    /// A model whose files are here.
    ///
    /// # Errors
    ///
    /// When they cannot be read.
    pub fn of(checkpoint: &'a Checkpoint) -> Result<Subject<'a>, CheckpointError> {
        let config = &checkpoint.config;
        Ok(Subject {
            name: &checkpoint.name,
            origin: match (&checkpoint.origin, checkpoint.is_gguf()) {
                (origin, false) => origin.to_string(),
                // Its name is its path.
                (Origin::File(_), true) => format!("one file of GGUF in {}", listed(&checkpoint.stored())),
                (origin, true) => format!("{origin}, in {}", listed(&checkpoint.stored())),
            },
            architecture: config.architecture.to_string(),
            parameters: checkpoint.parameters(),
            digest: checkpoint.digest()?,
            tokenizer: checkpoint.tokenizer.as_ref(),
            chat: checkpoint.chat.as_ref(),
            is_gguf: checkpoint.is_gguf(),
            is_compact: checkpoint.origin == Origin::Embedded,
            vocabulary: config.vocabulary,
            positions: config.positions,
            stop_tokens: &config.stop_tokens,
            sums: [config.width, config.inner_width, config.heads * config.head_width, config.head_width],
            shape: Some(Shape {
                layers: config.layers,
                never: if config.qk_norm { &[] } else { &[Step::QueryNorm, Step::KeyNorm] },
                activation: config.activation,
            }),
            weights: Some(checkpoint),
        })
    }

    /// No model at all: a text is read byte by byte, and what answers brings its answers along.
    pub fn none() -> Subject<'static> {
        Subject {
            name: NO_MODEL,
            origin: "no model: every byte of a text is a token".to_owned(),
            architecture: "none".to_owned(),
            parameters: 0,
            digest: Digest::of(b"reprocheck bytes 1"),
            tokenizer: Some(&BYTES),
            chat: None,
            is_gguf: false,
            is_compact: false,
            vocabulary: 256,
            positions: 1 << 20,
            stop_tokens: &[],
            sums: [0; 4],
            shape: None,
            weights: None,
        }
    }
}

/// As a sentence lists them.
fn listed(types: &[String]) -> String {
    match types {
        [rest @ .., one, last] => [rest, &[format!("{one} and {last}")]].concat().join(", "),
        _ => types.concat(),
    }
}

/// The tokenizer whose tokens are bytes.
static BYTES: LazyLock<Tokenizer> = LazyLock::new(|| {
    let vocabulary: Map<String, Value> =
        (0..=u8::MAX).map(|byte| (visible(byte).to_string(), byte.into())).collect();
    let bytes =
        json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false });
    let file = json!({
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": bytes,
        "decoder": bytes,
        "model": { "type": "BPE", "vocab": vocabulary, "merges": [] },
    });
    Tokenizer::read(NO_MODEL, file.to_string().as_bytes(), 256).expect("every byte has a token of its own")
});

/// The character that stands for a byte in a byte-level tokenizer: itself where it is printed, or else one of those from
/// U+0100 on, in their order.
fn visible(byte: u8) -> char {
    let is_printed = |byte: u8| matches!(byte, b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF);
    if is_printed(byte) {
        return byte.into();
    }
    let before = (0..byte).filter(|byte| !is_printed(*byte)).count() as u32;
    char::from_u32(0x100 + before).expect("there are 68 such bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_model_tokens_are_the_bytes_of_a_text() {
        let tokenizer = Subject::none().tokenizer.unwrap();
        for text in ["", "12+34=46\n", "  naïve 数 🙂\t\u{7f}\u{ad}", "<|end|> <s>"] {
            let tokens = tokenizer.encode(text, true).unwrap();
            assert_eq!(tokens, text.bytes().map(u32::from).collect::<Vec<_>>(), "{text:?}");
            assert_eq!(tokenizer.decode(&tokens, true), text);
        }
    }
}
