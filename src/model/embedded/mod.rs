//! The models inside this binary: their files as they are, and what they are for.

use super::file::EmbeddedFile;

/// One row of [`MODELS`].
#[derive(Clone, Copy, Debug)]
pub struct ModelEntry {
    /// The name, as on the command line.
    pub name: &'static str,
    /// What it is for, in one sentence.
    pub purpose: &'static str,
    /// Its files, as a folder would hold them.
    pub files: &'static [EmbeddedFile],
    /// Of the whole model, as [`Checkpoint::digest`](super::Checkpoint::digest) has it.
    pub digest: &'static str,
}

impl ModelEntry {
    /// How many bytes its files have.
    pub fn size(&self) -> u64 {
        self.files.iter().map(|file| file.bytes.len() as u64).sum()
    }
}

/// Every model in this binary.
pub const MODELS: &[ModelEntry] = &[ModelEntry {
    name: "qwen",
    purpose: "a stand-in of Qwen3's form with random weights, whose text is gibberish: shows what moves bits",
    files: &[
        EmbeddedFile { name: "config.json", bytes: include_bytes!("qwen/config.json") },
        EmbeddedFile { name: "generation_config.json", bytes: include_bytes!("qwen/generation_config.json") },
        EmbeddedFile { name: "model.safetensors", bytes: include_bytes!("qwen/model.safetensors") },
        EmbeddedFile { name: "tokenizer.json", bytes: include_bytes!("qwen/tokenizer.json") },
    ],
    digest: "c85fb8b570123aa9609c353a2d1232e963784893d2d5e149d48363c30440acbd",
}];
