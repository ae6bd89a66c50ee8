//! Names that a person writes: how a text finds its value, and what is said when it finds none.

/// Gives the values of an enum their names: `ALL`, `NAMES`, `Display` and `FromStr`.
macro_rules! named {
    ($kind:ident, $what:literal: $($value:ident = $name:literal),+ $(,)?) => {
        impl $kind {
            /// Every one there is.
            pub const ALL: [$kind; [$($name),+].len()] = [$($kind::$value),+];
            /// Their names, in the same order.
            pub const NAMES: &[&str] = &[$($name),+];
        }

        impl std::fmt::Display for $kind {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(match self {
                    $($kind::$value => $name),+
                })
            }
        }

        impl std::str::FromStr for $kind {
            type Err = $crate::name::NameError;

            fn from_str(text: &str) -> Result<$kind, Self::Err> {
                match text {
                    $($name => Ok($kind::$value),)+
                    _ => Err($crate::name::NameError::new($what, $kind::NAMES, text)),
                }
            }
        }
    };
}
pub(crate) use named;

/// Why a text names nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown {what} `{given}`: write {}one of {}",
    .nearest.map_or(String::new(), |name| format!("`{name}`, or ")),
    .names.join(", ")
)]
pub struct NameError {
    given: String,
    what: &'static str,
    nearest: Option<&'static str>,
    names: &'static [&'static str],
}

impl NameError {
    /// Of a text that is none of these names.
    pub(crate) fn new(what: &'static str, names: &'static [&'static str], given: &str) -> NameError {
        NameError { given: shortened(given), what, nearest: nearest(given, names.iter().copied()), names }
    }
}

/// The name nearest to `given`, if any is near: one that it begins, or one that it misspells.
pub(crate) fn nearest<'a>(given: &str, names: impl Iterator<Item = &'a str> + Clone) -> Option<&'a str> {
    // No name is that long, and the distance costs a product of lengths.
    if given.len() > 64 {
        return None;
    }
    let given = &given.to_lowercase();
    let begun = |name: &&str| given.len() > 2 && name.starts_with(given);
    if let Some(name) = names.clone().find(begun) {
        return Some(name);
    }
    names
        .map(|name| (strsim::damerau_levenshtein(given, name), name))
        .min()
        .filter(|&(distance, name)| distance <= 1 + name.len() / 4)
        .map(|(_, name)| name)
}

/// The question that a near name is put in.
pub(crate) fn did_you_mean(name: Option<&str>) -> String {
    name.map(|name| format!("did you mean `{name}`? ")).unwrap_or_default()
}

/// A text that fits into a message.
pub(crate) fn shortened(text: &str) -> String {
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", text[..end].escape_debug()),
        None => text.escape_debug().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::nearest;

    #[test]
    fn the_nearest_name_is_begun_or_misspelt_and_short() {
        let near = |given: &str| nearest(given, ["pairwise", "split-k", "sequential"].into_iter());
        assert_eq!(near("pairwize"), Some("pairwise"));
        assert_eq!(near("SEQ"), Some("sequential"));
        assert_eq!(near("se"), None);
        assert_eq!(near("wise"), None);
        // As near as any name of its length, and not asked about.
        let long = "x".repeat(65);
        assert_eq!(nearest(&long, [long.as_str()].into_iter()), None);
        assert_eq!(nearest(&long[1..], [&long[1..]].into_iter()), Some(&long[1..]));
    }
}
