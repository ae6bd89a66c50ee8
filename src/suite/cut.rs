//! How a tokenizer cuts long numbers into pieces, read from the tokens of what a model was asked.

use schemars::JsonSchema;
use serde::Serialize;

/// How the digits of a long number are cut.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Cut {
    /// Each by itself.
    Single,
    /// In pieces of one length from the left, the last one shorter.
    FromLeft,
    /// In pieces of one length from the right, the first one shorter.
    FromRight,
    /// In some other way.
    Other,
}

/// A number of fewer digits may be one piece, and says nothing.
const LONG: usize = 7;

impl Cut {
    /// From the texts of a prompt's tokens, in their order; nothing where no number of them tells.
    pub fn of<'t>(tokens: impl IntoIterator<Item = &'t str>) -> Option<Cut> {
        let mut found = None;
        let mut number: Vec<usize> = Vec::new();
        // What is no digit ends a number, and so does the end.
        for token in tokens.into_iter().chain([""]) {
            let digits = token.trim_start_matches([' ', '\u{2581}', '\u{120}']);
            let begins = digits.len() < token.len();
            let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
            if !is_number || begins {
                found = together(found, Cut::of_number(&number));
                number.clear();
            }
            if is_number {
                number.push(digits.len());
            }
        }
        found
    }

    /// Of one number, by the lengths of its pieces; nothing where it is too short to tell, or where its pieces are equally long.
    fn of_number(pieces: &[usize]) -> Option<Cut> {
        let (Some(first), Some(last)) = (pieces.first(), pieces.last()) else { return None };
        if pieces.iter().sum::<usize>() < LONG {
            return None;
        }
        let most = *pieces.iter().max()?;
        let is_full = |pieces: &[usize]| pieces.iter().all(|piece| *piece == most);
        match (most, pieces.len()) {
            (1, _) => Some(Cut::Single),
            (_, 1) => Some(Cut::Other),
            _ if is_full(pieces) => None,
            _ if is_full(&pieces[..pieces.len() - 1]) && *last < most => Some(Cut::FromLeft),
            _ if is_full(&pieces[1..]) && *first < most => Some(Cut::FromRight),
            _ => Some(Cut::Other),
        }
    }

    /// What that means for sums whose numbers are separated at different places, in a sentence.
    pub fn sentence(self) -> &'static str {
        match self {
            Cut::Single => {
                "The model's tokenizer cuts numbers into single digits, so that tok_chunk is a control: its separators change no piece."
            }
            Cut::FromLeft => {
                "The model's tokenizer cuts numbers from the left, and tok_chunk tells what other places for the cuts would do."
            }
            Cut::FromRight => {
                "The model's tokenizer cuts numbers from the right, and tok_chunk tells what other places for the cuts would do."
            }
            Cut::Other => {
                "The model's tokenizer cuts numbers neither digit by digit nor at equal distances, and tok_chunk tells what other places \
                 for the cuts would do."
            }
        }
    }
}

/// One way, where all that tells agrees.
fn together(one: Option<Cut>, other: Option<Cut>) -> Option<Cut> {
    match (one, other) {
        (Some(one), Some(other)) if one != other => Some(Cut::Other),
        _ => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_tell_how_numbers_are_cut() {
        assert_eq!(Cut::of(["What", " is", " ", "1", "2", "3", "4", "5", "6", "7", "?"]), Some(Cut::Single));
        assert_eq!(Cut::of(["123", "456", "7", "+", "123", "456", "789"]), Some(Cut::FromLeft));
        assert_eq!(Cut::of(["1", "234", "567", "=", "12", "345", "678"]), Some(Cut::FromRight));
        assert_eq!(Cut::of(["1234567"]), Some(Cut::Other));
        assert_eq!(Cut::of(["12", "345", "67"]), Some(Cut::Other));
        assert_eq!(Cut::of(["123", "456", "7", "+", "1", "234", "567"]), Some(Cut::Other));
        // Too short, and without a rest.
        assert_eq!(Cut::of(["123", "4", "+", "123", "456", "789"]), None);
        // A blank begins another number.
        assert_eq!(Cut::of(["123", "456", "7", " 123", "456", "7"]), Some(Cut::FromLeft));
    }
}
