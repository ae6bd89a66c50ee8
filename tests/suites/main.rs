//! The suites: what they ask, what is right, and what they find in a text.

mod extraction;
mod loaders;
mod more;
mod second;
mod words;
