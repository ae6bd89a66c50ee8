//! Finds the answer in what a model wrote, and says by which rule.
//!
//! What stands before the last `</think>` is not looked at; where the prompt itself opens the thinking, put its
//! `<think>` before the text. Then, in turn, the first rule that finds something wins:
//!
//! * compact: what follows the last `>` of the first line;
//! * completion: the first line that is not empty, if all of it is an answer, because the prompt ends in
//!   `Answer:`; box, answer line, `####`; that first line, if the question is not for a number;
//! * chat: box, answer line, `####`;
//! * and for every style, under the flexible filter, the last number, if the question is for a number or LaTeX.
//!
//! So flexible finds whatever strict finds. If what is right under one filter and not under the other moves, then
//! the form of the answers moved, not the arithmetic.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use super::{
    answer::{Kind, number},
    style::Style,
};
use crate::{name::named, source::hides};

/// By which rule an answer was found.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rule {
    /// What follows the last `>` of a compact line.
    Scratchpad,
    /// The last `\boxed{…}` or `\fbox{…}` whose braces are balanced, or `\boxed 5`.
    Boxed,
    /// The last line with `answer is …` or `answer: …`, from its first such words on.
    AnswerLine,
    /// The first number behind `####`.
    Hashes,
    /// The last number of all.
    LastNumber,
    /// The first line that is not empty, since the prompt ended in `Answer:`.
    Whole,
}

named! {
    Rule, "rule":
    Scratchpad = "scratchpad",
    Boxed = "boxed",
    AnswerLine = "answer-line",
    Hashes = "hashes",
    LastNumber = "last-number",
    Whole = "whole",
}

/// How much is taken for an answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub enum Filter {
    /// Only what is marked as one.
    #[serde(rename = "strict-match")]
    Strict,
    /// The last number too.
    #[serde(rename = "flexible-extract")]
    Flexible,
}

named! { Filter, "filter": Strict = "strict-match", Flexible = "flexible-extract" }

/// An answer that was found.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Extracted {
    /// By which rule.
    pub rule: Rule,
    /// What it says, with a plain `-` for every minus.
    pub text: String,
    /// Could it not go on, had the text not ended? It is a balanced box, or its line has ended.
    pub closed: bool,
}

/// What was found.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Found {
    /// An answer.
    Answer(Extracted),
    /// None.
    Nothing,
    /// A `<think>` that no `</think>` follows.
    Unclosed,
}

/// Finds the answer of this kind in a text.
pub fn extract(text: &str, style: Style, filter: Filter, kind: Kind) -> Found {
    let text = cleaned(text);
    let text = match (style, spoken(&text)) {
        (Style::Compact, _) => &*text,
        (_, Some(spoken)) => spoken,
        (_, None) => return Found::Unclosed,
    };
    let marked = || boxed(text, kind).or_else(|| answer_line(text, kind)).or_else(|| hashes(text, kind));
    let last = || last_number(text, kind).filter(|_| filter == Filter::Flexible);
    let found = match style {
        Style::Compact => scratchpad(text).or_else(last),
        Style::Completion => {
            let line = first_line(text);
            let alone = line.clone().filter(|line| kind.is_all_of(&line.text));
            alone.or_else(marked).or_else(|| line.filter(|_| !kind.is_number())).or_else(last)
        }
        Style::Chat => marked().or_else(last),
    };
    found.map_or(Found::Nothing, Found::Answer)
}

/// A text without what hides in it: no controls but newline and tab, nothing without a width, one kind of space, one minus,
/// one end of line.
fn cleaned(text: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| matches!(byte, b' '..=b'~' | b'\n' | b'\t');
    if text.bytes().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut cleaned = String::with_capacity(text.len());
    let mut characters = text.chars().peekable();
    while let Some(c) = characters.next() {
        match c {
            '\r' => cleaned.extend(characters.peek().is_none_or(|&next| next != '\n').then_some('\n')),
            '\n' | '\t' => cleaned.push(c),
            '\u{2212}' => cleaned.push('-'),
            c if c.is_control() || c.is_whitespace() => cleaned.push(' '),
            c if hides(c) => {}
            c => cleaned.push(c),
        }
    }
    Cow::Owned(cleaned)
}

/// What is said once thinking is over; nothing if it never is.
fn spoken(text: &str) -> Option<&str> {
    // The tags that models write.
    let closing =
        ["</think>", "</thinking>"].iter().filter_map(|tag| last(text, tag).map(|at| at + tag.len()));
    let rest = &text[closing.max().unwrap_or(0)..];
    ["<think>", "<thinking>"].iter().all(|tag| last(rest, tag).is_none()).then_some(rest)
}

/// Where a text in ASCII stands first, in either case.
fn first(text: &str, wanted: &str) -> Option<usize> {
    text.as_bytes().windows(wanted.len()).position(|window| window.eq_ignore_ascii_case(wanted.as_bytes()))
}

/// Where it stands last.
fn last(text: &str, wanted: &str) -> Option<usize> {
    text.as_bytes().windows(wanted.len()).rposition(|window| window.eq_ignore_ascii_case(wanted.as_bytes()))
}

/// A text up to the end of its line, and whether that is there.
fn line(text: &str) -> (&str, bool) {
    text.split_once('\n').map_or((text, false), |(line, _)| (line, true))
}

fn scratchpad(text: &str) -> Option<Extracted> {
    let (line, closed) = line(text);
    let (_, answer) = line.rsplit_once('>')?;
    let text = answer.trim().to_owned();
    (!text.is_empty()).then_some(Extracted { rule: Rule::Scratchpad, text, closed })
}

fn first_line(text: &str) -> Option<Extracted> {
    let (line, closed) = line(text.trim_start());
    let text = line.trim().to_owned();
    (!text.is_empty()).then_some(Extracted { rule: Rule::Whole, text, closed })
}

fn boxed(text: &str, kind: Kind) -> Option<Extracted> {
    let bytes = text.as_bytes();
    // For every open brace, where what it holds begins, and whether it is a box.
    let mut open: Vec<(usize, bool)> = Vec::new();
    let mut found: Option<(usize, usize, bool)> = None;
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => {
                let name = ["\\boxed", "\\fbox"].into_iter().find(|name| text[at..].starts_with(name));
                let Some(name) = name else {
                    // Not a brace: it is escaped.
                    at += 2;
                    continue;
                };
                at += name.len();
                let spaces = bytes[at..].iter().take_while(|&&byte| byte == b' ').count();
                if bytes.get(at + spaces) == Some(&b'{') {
                    at += spaces + 1;
                    open.push((at, true));
                } else {
                    let word = bytes[at + spaces..]
                        .iter()
                        .take_while(|byte| !matches!(byte, b' ' | b'\n' | b'$' | b'\\'))
                        .count();
                    let word = at + spaces..at + spaces + word;
                    if bytes.get(word.start).is_some_and(|byte| byte.is_ascii_digit() || *byte == b'-') {
                        found = Some((word.start, word.end, word.end < bytes.len()));
                    }
                    at = word.start;
                }
            }
            b'{' => {
                open.push((at + 1, false));
                at += 1;
            }
            b'}' => {
                if let Some((start, true)) = open.pop()
                    && !text[start..at].trim().is_empty()
                    && found.is_none_or(|(latest, ..)| latest < start)
                {
                    found = Some((start, at, true));
                }
                at += 1;
            }
            _ => at += 1,
        }
    }
    let (start, end, closed) = found?;
    Some(Extracted { rule: Rule::Boxed, text: kind.in_box(&text[start..end]), closed })
}

fn answer_line(text: &str, kind: Kind) -> Option<Extracted> {
    let emphasis = |c: char| c.is_whitespace() || "*_`".contains(c);
    let mut found = None;
    let mut rest = text;
    while let Some(at) = first(rest, "answer") {
        rest = &rest[at + "answer".len()..];
        let behind = rest.trim_start_matches(emphasis);
        let is = behind.get(..2).filter(|is| is.eq_ignore_ascii_case("is"));
        let is =
            is.filter(|_| !behind[2..].starts_with(|c: char| c.is_alphanumeric() || c == '\'' || c == '’'));
        let Some(said) = is.map(|_| &behind[2..]).or_else(|| behind.strip_prefix(':')) else { continue };
        let mut said = said.trim_start_matches(|c| emphasis(c) || c == ':');
        // A formula that stands on lines of its own.
        for open in ["$$\n", "\\[\n"] {
            said = said.strip_prefix(open).unwrap_or(said).trim_start();
        }
        let (line, closed) = line(said);
        let answer = kind.in_line(line).map(|text| Extracted { rule: Rule::AnswerLine, text, closed });
        found = answer.or(found);
        rest = &said[line.len()..];
    }
    found
}

fn hashes(text: &str, kind: Kind) -> Option<Extracted> {
    if matches!(kind, Kind::Label | Kind::List) {
        return None;
    }
    text.match_indices("####").find_map(|(at, hashes)| {
        let behind = text[at + hashes.len()..].trim_start_matches([' ', '$']);
        // What is a heading, and no answer, begins with a word.
        let digits = behind.trim_start_matches(['-', '$', '.']);
        let number = digits.starts_with(|c: char| c.is_ascii_digit()).then(|| number::numbers(behind).next());
        let text = number.flatten()?.to_owned();
        Some(Extracted { rule: Rule::Hashes, text, closed: behind.contains('\n') })
    })
}

fn last_number(text: &str, kind: Kind) -> Option<Extracted> {
    if matches!(kind, Kind::Label | Kind::List) {
        return None;
    }
    let text = number::numbers(text).last()?.to_owned();
    Some(Extracted { rule: Rule::LastNumber, text, closed: false })
}
