//! A short text that can be copied: what a matrix file calls something of its own.

use std::{collections::BTreeSet, fmt, sync::Mutex};

/// Every name that this process has met, kept for as long as it runs. A matrix names few.
static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());

/// A text as a value that is copied like a number.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(&'static str);

impl Name {
    /// The name that reads like this.
    pub fn new(text: &str) -> Name {
        let mut names = NAMES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Name(names.get(text).copied().unwrap_or_else(|| {
            let kept: &'static str = Box::leak(text.into());
            names.insert(kept);
            kept
        }))
    }

    /// The same, known when the program is built.
    pub const fn known(text: &'static str) -> Name {
        Name(text)
    }

    /// The text.
    pub fn as_str(self) -> &'static str {
        self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}
