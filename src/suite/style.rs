//! The three ways in which a question is put.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::name::named;

/// How a question is put, and so in what form its answer comes.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Style {
    /// An expression and `=`; the model writes `scratchpad>answer` and a newline.
    Compact,
    /// `Question: …` and `Answer:`; the model goes on with the answer and a newline.
    Completion,
    /// A request, for a model that thinks aloud and then writes `Answer: …` or `\boxed{…}`.
    Chat,
}

/// One row of the table of styles.
#[derive(Debug)]
pub struct StyleEntry {
    /// The style.
    pub style: Style,
    /// For which models it is, in a sentence.
    pub sentence: &'static str,
}

/// Every style there is.
pub const STYLES: &[StyleEntry] = &[
    StyleEntry {
        style: Style::Compact,
        sentence: "for small models trained on the scratchpad, such as the shipped one",
    },
    StyleEntry { style: Style::Completion, sentence: "for base models, which go on with a text" },
    StyleEntry {
        style: Style::Chat,
        sentence: "for models that follow instructions, with or without thinking",
    },
];

named! { Style, "style": Compact = "compact", Completion = "completion", Chat = "chat" }

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_style_is_found_by_its_name_and_has_a_row() {
        for (style, entry) in Style::ALL.iter().zip(STYLES) {
            assert_eq!(style.to_string().parse(), Ok(*style));
            assert_eq!(serde_json::to_string(style).unwrap(), format!("\"{style}\""));
            assert_eq!(entry.style, *style);
        }
        assert_eq!(Style::ALL.len(), STYLES.len());
    }

    #[test]
    fn an_unknown_name_is_told_what_was_meant() {
        let sentence = |text: &str| text.parse::<Style>().unwrap_err().to_string();
        assert_eq!(
            sentence("caht"),
            "unknown style `caht`: write `chat`, or one of compact, completion, chat"
        );
        assert_eq!(sentence("poem"), "unknown style `poem`: write one of compact, completion, chat");
        assert_eq!(
            sentence(&"é".repeat(1_000_000)).len(),
            2 * 60 + "unknown style `…`: write one of compact, completion, chat".len()
        );
    }
}
