//! A transformer in terms of the kernel: checkpoints, and one decoder for all of them.

pub mod chat;
pub mod checkpoint;
pub mod config;
pub mod cost;
pub mod decoder;
pub mod embedded;
pub mod file;
pub mod gguf;
pub mod hub;
mod products;
pub mod ranks;
pub mod subject;
pub mod tokenizer;
pub mod weights;

pub use checkpoint::{Checkpoint, CheckpointError};
pub use config::Config;
pub use cost::Cost;
pub use decoder::Decoder;
pub use subject::Subject;
