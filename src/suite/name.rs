//! Values that have a name: how a text finds its value, and what is said when it finds none.

use std::fmt::Display;

/// Gives the values of an enum their names: a list of `ALL`, `Display` and `FromStr`.
macro_rules! named {
    ($kind:ident, $what:literal: $($value:ident = $name:literal),+ $(,)?) => {
        impl $kind {
            /// Every one there is.
            pub const ALL: &[$kind] = &[$($kind::$value),+];
        }

        impl std::fmt::Display for $kind {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(match self {
                    $($kind::$value => $name),+
                })
            }
        }

        impl std::str::FromStr for $kind {
            type Err = $crate::suite::name::NameError;

            fn from_str(text: &str) -> Result<$kind, Self::Err> {
                $crate::suite::name::find($what, $kind::ALL, text)
            }
        }
    };
}
pub(crate) use named;

/// Why a text names nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is no {what}: write {}one of {names}", .nearest.as_ref().map_or(String::new(), |name| format!("`{name}`, or ")))]
pub struct NameError {
    given: String,
    what: &'static str,
    nearest: Option<String>,
    names: String,
}

/// The value of this name among all there are.
pub(crate) fn find<T: Copy + Display>(what: &'static str, all: &[T], given: &str) -> Result<T, NameError> {
    if let Some(value) = all.iter().find(|value| value.to_string() == given) {
        return Ok(*value);
    }
    let names: Vec<String> = all.iter().map(T::to_string).collect();
    Err(NameError {
        given: shortened(given),
        what,
        nearest: nearest(given, &names).map(str::to_owned),
        names: names.join(", "),
    })
}

/// The name that a misspelt one most likely stands for.
pub(crate) fn nearest<'a>(given: &str, names: &'a [impl AsRef<str>]) -> Option<&'a str> {
    let near = |name: &&str| strsim::damerau_levenshtein(given, name);
    // No name is that long, and the distance costs a product of lengths.
    let names = names.iter().map(AsRef::as_ref).filter(|_| given.len() <= 64);
    names.min_by_key(near).filter(|name| near(name) <= 1 + name.len() / 4)
}

/// A text that fits into a message.
pub(crate) fn shortened(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", text[..end].escape_debug()),
        None => text.escape_debug().to_string(),
    }
}
