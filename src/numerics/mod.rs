//! What arithmetic is done, and in which order; knows nothing of models.

pub mod exact;
pub mod format;
