//! Answers: what the right one is, and whether a text says it.

pub mod closeness;
pub mod digits;
pub mod latex;
pub mod number;
pub mod product;

use serde::{Deserialize, Serialize};

use crate::name::named;
use closeness::Closeness;
use number::Number;

/// What an answer is, and so when another text is the same answer.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// A whole number: `28811`, `28,811`, `+028811` and `28811.0` are one, `2.8811e4` is none.
    Integer,
    /// Digits in their places, in any base: `007` is not `7`. Upper case is lower case, and no comma counts.
    Digits,
    /// The value of a ratio: `6/8` and `0.75` are `3/4`.
    Fraction,
    /// A ratio in lowest terms: `6/8` and `0.75` are not `3/4`.
    Irreducible,
    /// A decimal without exponent: `1.50` is `1.5`, `3/2` is not.
    Decimal,
    /// A decimal with exponent, wherever its point stands: `12.3e3` is `1.23e4`, `12300` is not.
    Scientific,
    /// A word or a few, in any case.
    Label,
    /// Elements between commas, or between spaces if there is no comma. Brackets say nothing.
    List,
    /// What LaTeX says, see [`latex`].
    Latex,
    /// A number in any form, compared by its exact value.
    Number,
    /// An amount in hundredths that may be estimated: whatever is off by a fifth at most is right.
    Estimate,
}

named! {
    Kind, "kind of answer":
    Integer = "integer",
    Digits = "digits",
    Fraction = "fraction",
    Irreducible = "irreducible",
    Decimal = "decimal",
    Scientific = "scientific",
    Label = "label",
    List = "list",
    Latex = "latex",
    Number = "number",
    Estimate = "estimate",
}

/// The right answer to a question.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Answer {
    /// What it is.
    pub kind: Kind,
    /// As it is written.
    pub text: String,
}

/// How it was decided whether two answers are one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum How {
    /// By exact values.
    Exact,
    /// By values to nine digits, because a root or π is none that a ratio can be.
    Numeric,
    /// By what is written, once freed of what does not matter.
    String,
}

/// Whether a text is the answer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Judgment {
    /// Is it?
    pub equal: bool,
    /// How that was decided.
    pub how: How,
}

impl Answer {
    /// What a text says, as an answer of this kind.
    pub fn new(kind: Kind, text: impl ToString) -> Answer {
        Answer { kind, text: text.to_string() }
    }

    /// A whole number.
    pub fn integer(number: impl ToString) -> Answer {
        Answer::new(Kind::Integer, number)
    }

    /// How near a text comes to this answer, if that is one that may be estimated and the text is a number.
    pub fn closeness(&self, given: &str) -> Option<Closeness> {
        (self.kind == Kind::Estimate).then(|| Closeness::of(&self.text, given)).flatten()
    }

    /// Is the given text this answer?
    pub fn is(&self, given: &str) -> Judgment {
        let exact = |equal| Judgment { equal, how: How::Exact };
        let string = |equal| Judgment { equal, how: How::String };
        match self.kind {
            Kind::Latex => latex::judge(&self.text, given),
            Kind::Label => string(label(&self.text) == label(given)),
            Kind::Digits => string(place_digits(&self.text) == place_digits(given)),
            Kind::List => exact(elements(&self.text).eq(elements(given))),
            Kind::Estimate => {
                exact(self.closeness(given).is_some_and(|closeness| closeness <= Closeness::Good))
            }
            kind => exact(match (read(&self.text), read(given)) {
                (Some(gold), Some(given)) => same_number(kind, &gold, &given),
                _ => false,
            }),
        }
    }
}

fn same_number(kind: Kind, gold: &Number, given: &Number) -> bool {
    let plain = given.denominator.is_none() && !given.scientific;
    let written_so = match kind {
        Kind::Integer | Kind::Decimal => plain,
        Kind::Irreducible => gold.is_ratio(given),
        Kind::Scientific => given.scientific && given.denominator.is_none(),
        _ => true,
    };
    written_so && gold.equals(given)
}

fn read(text: &str) -> Option<Number> {
    Number::parse(&latex::plain(text))
}

/// A label as it is compared: in lower case, without what stands around it.
fn label(text: &str) -> String {
    let text = latex::plain(text);
    let words = text.trim_matches(|c: char| !c.is_alphanumeric());
    // A label without a letter, such as `<`, is what stands there.
    let words = if words.is_empty() { &text } else { words };
    words.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

/// A digit string as it is compared: without spaces, commas and the base that a subscript names.
fn place_digits(text: &str) -> String {
    let text = latex::plain(text);
    let digits = number::trimmed(text.split('_').next().unwrap_or_default());
    digits.chars().filter(|c| !c.is_whitespace() && *c != ',').map(|c| c.to_ascii_lowercase()).collect()
}

/// The elements of a list: numbers, and what is none.
fn elements(text: &str) -> impl Iterator<Item = Result<Number, &str>> {
    let text = text.trim_matches(|c: char| c.is_whitespace() || "[](){}\\$*`.".contains(c));
    let commas = text.contains(',');
    let parts = text.split(move |c: char| if commas { c == ',' } else { c.is_whitespace() });
    let parts = parts.map(number::trimmed).filter(move |part| commas || !part.is_empty());
    parts.map(|part| Number::parse(part).ok_or(part))
}

impl Kind {
    /// Is this one of the kinds that are a single number?
    pub fn is_number(self) -> bool {
        !matches!(self, Kind::Label | Kind::List | Kind::Latex)
    }

    /// Can this text be the right answer of a question for such a thing?
    pub fn admits(self, text: &str) -> bool {
        let answer = || Answer { kind: self, text: text.to_owned() };
        match self {
            Kind::Label => !label(text).is_empty(),
            Kind::Digits => !place_digits(text).is_empty(),
            Kind::List | Kind::Latex => !text.trim().is_empty(),
            Kind::Integer => {
                answer().is(text).equal && read(text).is_some_and(|number| number.numerator.is_integer())
            }
            _ => answer().is(text).equal,
        }
    }

    /// What an answer is of which nothing else is known.
    pub fn guess(text: &str) -> Kind {
        if Number::parse(text).is_some() {
            Kind::Number
        } else if text.trim().starts_with('[') && text.trim().ends_with(']') {
            Kind::List
        } else if text.contains(['\\', '$', '^', '{']) {
            Kind::Latex
        } else {
            Kind::Label
        }
    }

    /// Is all of this line an answer, with nothing said around it?
    pub(crate) fn is_all_of(self, line: &str) -> bool {
        match self {
            Kind::Label => {
                line.split_whitespace().count() <= 3
                    && self.in_line(line).is_some_and(|label| label == number::trimmed(line))
            }
            Kind::List => elements(line).next().is_some() && elements(line).all(|element| element.is_ok()),
            Kind::Digits => {
                let digits = number::trimmed(line);
                digits.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b',')
                    && digits.bytes().any(|byte| byte.is_ascii_digit())
            }
            Kind::Latex => {
                let line = line.trim();
                let inner =
                    line.trim_end_matches('.').strip_suffix('$').and_then(|line| line.strip_prefix('$'));
                read(line).is_some()
                    || latex::has_value(line)
                    || inner.is_some_and(|inner| !inner.contains('$'))
            }
            _ => read(line).is_some(),
        }
    }

    /// The answer in a line that is announced as one: all of it where that is a number, or else the first number
    /// after the last `=` that one follows.
    pub(crate) fn in_line(self, line: &str) -> Option<String> {
        let found = match self {
            Kind::Label => first_label(&latex::plain(line)).to_owned(),
            Kind::List => {
                let list = &line[line.find(|c: char| c.is_ascii_digit() || "[-".contains(c))?..];
                let end = list.find(']').filter(|_| list.starts_with('['));
                list[..end.map_or(list.len(), |end| end + 1)].trim().to_owned()
            }
            Kind::Latex => formula(line).to_owned(),
            Kind::Digits => latex::plain(line).rsplit('=').find_map(first_digits)?.to_owned(),
            _ => {
                let line = latex::plain(line);
                let behind = || line.rsplit('=').find_map(|part| number::numbers(part).next());
                let all = Number::parse(&line).map(|_| number::trimmed(&line));
                all.or_else(behind)?.to_owned()
            }
        };
        Some(found).filter(|found| !found.is_empty())
    }

    /// The answer in a box: its only number, or else all of it, because a box holds an answer and nothing else.
    pub(crate) fn in_box(self, content: &str) -> String {
        let content = content.trim();
        if self.is_number() && self != Kind::Digits {
            let plain = latex::plain(content);
            let behind = plain.rsplit('=').next().unwrap_or_default();
            let mut numbers = number::numbers(behind);
            if let (true, Some(only), None) =
                (Number::parse(&plain).is_none(), numbers.next(), numbers.next())
            {
                return only.to_owned();
            }
        }
        content.to_owned()
    }
}

/// The first run of letters and digits that holds a digit, with the commas between them.
fn first_digits(text: &str) -> Option<&str> {
    let runs = text.split(|c: char| !c.is_ascii_alphanumeric() && c != ',').map(|run| run.trim_matches(','));
    runs.into_iter().find(|run| run.bytes().any(|byte| byte.is_ascii_digit()))
}

/// A line up to where its first words end: at punctuation, a bracket or the end of something bold.
fn first_label(line: &str) -> &str {
    let line = line.trim_start_matches(|c: char| !c.is_alphanumeric());
    let ends = |(at, c): (usize, char)| {
        let last = || line[at + c.len_utf8()..].chars().next().is_none_or(char::is_whitespace);
        "*_`\"$()[]{}\n".contains(c) || ".,;:!?".contains(c) && last()
    };
    let end = line.char_indices().find(|&indexed| ends(indexed)).map_or(line.len(), |(end, _)| end);
    line[..end].trim_end()
}

/// The first formula between dollars or `\(` and `\)`; a line without one is a formula itself.
fn formula(line: &str) -> &str {
    for (open, close) in [("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]")] {
        if let Some((_, rest)) = line.split_once(open)
            && let Some((inner, _)) = rest.split_once(close)
            && !inner.trim().is_empty()
        {
            return inner.trim();
        }
    }
    let line = line.trim_matches(|c: char| c.is_whitespace() || "*_`".contains(c));
    line.strip_suffix('.').unwrap_or(line).trim_end_matches('*').trim_end()
}
