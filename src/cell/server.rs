//! What a matrix file declares of a server: its settings, each a word on an axis that the file names.

use std::fmt;

use super::name::Name;

/// What the name of a declared axis looks like: a regular expression without its ends.
pub const AXIS: &str = "[a-z][a-z0-9-]*";
/// The same of a setting on it, and of the name of a server.
pub const WORD: &str = "[A-Za-z0-9][A-Za-z0-9._-]*";

/// Can an axis be called so?
pub fn is_axis(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_lowercase())
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

/// Can a setting, or a server, be called so?
pub fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-'))
}

/// The settings of a server on all axes that are declared for it, in the order of their names: `kv=split/parallel=4`.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Settings(Name);

impl Settings {
    /// Those of a server for which nothing is declared.
    pub const NONE: Settings = Settings(Name::known(""));

    /// Each axis with its setting.
    pub fn iter(self) -> impl Iterator<Item = (Name, Name)> {
        let all = self.0.as_str().split('/').filter_map(|part| part.split_once('='));
        all.map(|(axis, word)| (Name::new(axis), Name::new(word)))
    }

    /// The setting on an axis.
    pub fn get(self, axis: Name) -> Option<Name> {
        self.iter().find(|(other, _)| *other == axis).map(|(_, word)| word)
    }

    /// The same with another setting on an axis.
    pub(super) fn with(self, axis: Name, word: Name) -> Settings {
        let mut all: Vec<_> = self.iter().filter(|(other, _)| *other != axis).collect();
        all.push((axis, word));
        all.sort_unstable();
        let all: Vec<_> = all.into_iter().map(|(axis, word)| format!("{axis}={word}")).collect();
        Settings(Name::new(&all.join("/")))
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
