//! Texts from outside, such as names, prompts and answers, made harmless before any format adds escapes of its own.

use crate::source::misleads;

/// On one line, with nothing that hides, turns or commands a terminal: such a character stands as its code.
pub(crate) fn visible(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if misleads(character) {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

/// The same, and not longer than so many characters, of which the last then is an ellipsis.
pub(crate) fn clipped(text: &str, most: usize) -> String {
    // A character becomes one or more, so no more of them are needed.
    let begin: String = text.chars().take(most + 1).collect();
    let shown = visible(&begin);
    if shown.chars().count() <= most {
        return shown;
    }
    shown.chars().take(most - 1).chain(['…']).collect()
}

/// A text for HTML and XML, between tags and in attributes. What cannot be seen, or turns what can be seen around, is
/// shown as it is written in Rust.
pub(crate) fn markup(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            '\n' | '\r' | '\t' => out.extend(c.escape_default()),
            c if misleads(c) => out.extend(c.escape_unicode()),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hides_stands_as_its_code() {
        assert_eq!(
            visible("a\nb\u{1b}[31m\0\u{202e}\u{2066}\u{ffff}é👩‍🔬|"),
            "a\\nb\\u{1b}[31m\\u{0}\\u{202e}\\u{2066}\\u{ffff}é👩‍🔬|"
        );
    }

    #[test]
    fn a_text_is_cut_only_where_it_is_too_long() {
        assert_eq!(clipped("abcd", 4), "abcd");
        assert_eq!(clipped("abcde", 4), "abc…");
        assert_eq!(clipped("ab\u{1b}", 4), "ab\\…");
    }

    #[test]
    fn markup_shows_what_cannot_be_seen() {
        assert_eq!(markup("a\u{202e}b\0\x1b\n\u{ffff}é🦀"), "a\\u{202e}b\\u{0}\\u{1b}\\n\\u{ffff}é🦀");
        assert_eq!(markup("<&>\"'"), "&lt;&amp;&gt;&quot;&#39;");
    }
}
