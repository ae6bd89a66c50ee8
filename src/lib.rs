//! What can change the output of a language model, and by how much.

pub mod cli;
pub mod numerics;
