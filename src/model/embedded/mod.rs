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

/// The files in the folder of a model beside this one.
macro_rules! files {
    ($model:literal: $($name:literal),+) => {
        &[$(EmbeddedFile { name: $name, bytes: include_bytes!(concat!($model, "/", $name)) }),+]
    };
    ($model:literal) => {
        files!(
            $model: "config.json", "generation_config.json", "model.safetensors", "tokenizer.json",
            "tokenizer_config.json"
        )
    };
}

/// Every model in this binary. `examples/train` makes them, and the README beside each says what it can do.
pub const MODELS: &[ModelEntry] = &[
    ModelEntry {
        name: "qwen",
        purpose: "the model to audit: trained by this project on arithmetic, and stopped at the edge of its ability, \
                  where it takes little to move an answer",
        files: files!("qwen"),
        digest: "2ba6432c0eb7ac388a7647f42a97237e7a7f3570e26a38f4a8477326ce63f8f0",
    },
    ModelEntry {
        name: "qwen-full",
        purpose: "the control: trained longer on less; where it makes no mistake, half precision must not move a word",
        files: files!("qwen-full"),
        digest: "6784db84ee79f9cd7a1f0d62573d783c9e4ddb16bf792fe420015f580818eb23",
    },
];

/// The names of all, as a sentence has them.
pub fn names() -> String {
    MODELS.iter().map(|entry| format!("`{}`", entry.name)).collect::<Vec<_>>().join(" or ")
}
