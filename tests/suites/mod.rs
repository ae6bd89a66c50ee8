//! The suites: what they ask, what is right, and what they find in a text.

mod extraction;
mod items;
mod loaders;
mod more;
mod second;
mod words;
