//! How servers are spoken to: a row for each dialect, whose functions turn values into texts and texts into values.

mod llama;
mod openai;
mod sglang;
mod vllm;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};

use crate::{numerics::choice::Candidate, trace::Sight};

/// The path that says what a server has done since it was started, and what it says.
type Counting = (&'static str, fn(&str) -> Option<Counts>);

/// One row of [`DIALECTS`].
#[derive(Debug)]
pub struct Dialect {
    /// Its name in a matrix file.
    pub name: &'static str,
    /// How much a server of it shows.
    pub sight: Sight,
    /// The path that answers with 200 once the server can be asked.
    pub ready: &'static str,
    /// The paths that say who the server is.
    pub introductions: &'static [&'static str],
    /// What they say, where the model is one of this name.
    pub identity: fn(&[String], Option<&str>) -> Result<Identity, String>,
    /// Is it asked for a token before all else? Its first answer takes long, and says more of who it is.
    pub greets: bool,
    /// Where it counts; nothing where it does not.
    pub counts: Option<Counting>,
    /// The paths to call so that it forgets what it has read.
    pub forget: fn(&Identity) -> Vec<String>,
    /// Does the answer to such a call say that it has?
    pub forgot: fn(&str) -> bool,
    /// How it is asked to forget, for somebody whose server does not.
    pub forgets: &'static str,
    /// The path of a request, and what it says.
    pub ask: fn(&Ask<'_>) -> (&'static str, Value),
    /// What the answer to it says, or what is wrong with it.
    pub read: fn(&str, &Ask<'_>) -> Result<Answer, String>,
}

impl Dialect {
    /// Does it say what it calls its model, so that nobody has to?
    pub fn names_its_model(&self) -> bool {
        !self.introductions.is_empty()
    }
}

/// Every dialect there is.
pub const DIALECTS: &[Dialect] = &[llama::DIALECT, vllm::DIALECT, sglang::DIALECT, openai::DIALECT];

/// Their names, in the same order.
pub const NAMES: &[&str] = &{
    let mut names = [""; DIALECTS.len()];
    let mut at = 0;
    while at < names.len() {
        names[at] = DIALECTS[at].name;
        at += 1;
    }
    names
};

/// The dialect of a name.
pub fn named(name: &str) -> Option<&'static Dialect> {
    DIALECTS.iter().find(|dialect| dialect.name == name)
}

/// What is asked of a server.
#[derive(Clone, Copy, Debug)]
pub struct Ask<'a> {
    /// What the server calls its model.
    pub model: &'a str,
    /// The prompt.
    pub tokens: &'a [u32],
    /// The prompt as a text, for a server that takes no tokens.
    pub text: &'a str,
    /// How many tokens may follow.
    pub new_tokens: usize,
    /// How many of the best log-probabilities it is to show of each.
    pub top: usize,
    /// Is an answer refused that shows nothing of any token? That of noise need not.
    pub must_show: bool,
    /// May it use its prefix cache?
    pub cache: bool,
    /// A word that no other request has.
    pub salt: &'a str,
    /// How many tokens the model knows.
    pub vocabulary: usize,
}

/// What a server answered.
#[derive(Clone, PartialEq, Default, Debug)]
pub struct Answer {
    /// The tokens that follow.
    pub tokens: Vec<u32>,
    /// For each of them the best ones with their log-probabilities, the best first; nothing where they are not shown.
    pub shown: Vec<Option<Vec<Candidate>>>,
    /// Their text, where it tells.
    pub text: Option<String>,
    /// Were as many as were asked for, where it tells? A text alone does not.
    pub is_cut: Option<bool>,
    /// How many tokens of the prompt it has read, where it tells.
    pub read: Option<usize>,
    /// How many it took from its cache, where it tells.
    pub cached: Option<usize>,
    /// What stands for the server and all its settings, where it tells.
    pub fingerprint: Option<String>,
    /// Was a copy of its prompt, asked beside it, answered otherwise?
    pub has_unlike_copy: bool,
}

impl Answer {
    /// Is it another answer, as far as both show? Of a token of which one shows nothing nobody can tell.
    pub(super) fn is_unlike(&self, other: &Answer) -> bool {
        let mut places = self.shown.iter().zip(&other.shown);
        self.tokens != other.tokens
            || self.text != other.text
            || places.any(|both| matches!(both, (Some(one), Some(other)) if one != other))
    }
}

/// Who a server says that it is.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Identity {
    /// Its version.
    pub version: String,
    /// What it calls its model.
    pub model: String,
    /// What it says of its model, each by its name.
    pub facts: BTreeMap<String, String>,
    /// How many tokens its model knows.
    pub vocabulary: Option<u64>,
    /// How many weights its model has.
    pub parameters: Option<u64>,
    /// How many prompts it can work on at the same time.
    pub slots: usize,
}

/// What a server has done since it was started.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Counts {
    /// How many calls it has made.
    pub calls: u64,
    /// How many tokens it has chosen.
    pub chosen: u64,
    /// How many tokens of prompts it has read.
    pub read: Option<u64>,
}

impl Counts {
    /// Nothing so far.
    pub(super) const NONE: Counts = Counts { calls: 0, chosen: 0, read: Some(0) };

    /// This, and more of it.
    pub(super) fn and(self, more: Counts) -> Counts {
        Counts {
            calls: self.calls + more.calls,
            chosen: self.chosen + more.chosen,
            read: self.read.zip(more.read).map(|(read, more)| read + more),
        }
    }

    /// What it has done since it had done so much; nothing where it was started anew.
    pub(super) fn since(self, before: Counts) -> Option<Counts> {
        Some(Counts {
            calls: self.calls.checked_sub(before.calls)?,
            chosen: self.chosen.checked_sub(before.chosen)?,
            read: match (self.read, before.read) {
                (Some(read), Some(before)) => Some(read.checked_sub(before)?),
                _ => None,
            },
        })
    }
}

/// A log-probability, as a server writes it.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Number {
    /// An f32, to the last bit.
    Exact(f32),
    /// Too small for a number: every server has its own word for that.
    Floor,
    /// One that was rounded on its way.
    Rounded,
}

/// Reads a log-probability from its text: parsed as an f64 and rounded then it might be another f32.
fn number(text: &str) -> Result<Number, String> {
    if text == "null" {
        return Ok(Number::Floor);
    }
    let wrong = |text: &str| format!("`{}` is not a log-probability", clipped(text));
    let (Ok(single), Ok(double)) = (text.parse::<f32>(), text.parse::<f64>()) else {
        return Err(wrong(text));
    };
    if double.is_nan() || double > 0.0 {
        return Err(wrong(text));
    }
    // The least f32 there is, and what others write for nothing at all.
    if double == -9999.0 || single <= f32::MIN {
        return Ok(Number::Floor);
    }
    // An f32 is written as the f64 that it is; in fewer digits it cannot be told from one that was rounded to them.
    let is_exact = f64::from(single) == double;
    Ok(if is_exact { Number::Exact(single) } else { Number::Rounded })
}

/// What a token was chosen from, out of the best ones as a server lists them; nothing where one of them was rounded.
fn shown(chosen: u32, listed: &[(u32, &str)], ask: &Ask<'_>) -> Result<Option<Vec<Candidate>>, String> {
    let expected = ask.top.min(ask.vocabulary);
    if listed.len() != expected {
        return Err(format!(
            "it shows {} log-probabilities of token {chosen}, and was asked for {expected}",
            listed.len()
        ));
    }
    let distinct: BTreeSet<u32> = listed.iter().map(|(token, _)| *token).collect();
    if distinct.len() != listed.len() {
        return Err(format!("it shows one token twice among the best for token {chosen}"));
    }
    let mut best = Vec::with_capacity(listed.len());
    let mut is_rounded = false;
    for (token, text) in listed {
        known(*token, ask)?;
        let logit = match number(text)? {
            Number::Exact(logit) => logit,
            Number::Floor => f32::NEG_INFINITY,
            Number::Rounded => {
                is_rounded = true;
                continue;
            }
        };
        best.push(Candidate { token: *token, logit });
    }
    if is_rounded {
        return Ok(None);
    }
    // Whoever is equal comes in the order of their numbers, whatever order the server has.
    best.sort_by(|a, b| b.logit.total_cmp(&a.logit).then(a.token.cmp(&b.token)));
    let own = best.iter().find(|candidate| candidate.token == chosen).map(|candidate| candidate.logit);
    if own != best.first().map(|candidate| candidate.logit) {
        return Err(format!(
            "it was asked for the best token, and chose {chosen}, which is not the best that it shows"
        ));
    }
    Ok(Some(best))
}

/// Refuses tokens that are more than were asked for, other than so many, or none of the model's.
fn check(tokens: &[u32], said: usize, ask: &Ask<'_>) -> Result<(), String> {
    if tokens.len() > ask.new_tokens || tokens.len() != said {
        return Err(format!(
            "it answers with {} tokens, says that they are {said}, and was asked for {} at most",
            tokens.len(),
            ask.new_tokens
        ));
    }
    tokens.iter().try_for_each(|token| known(*token, ask))
}

/// Refuses a token that the model does not have.
fn known(token: u32, ask: &Ask<'_>) -> Result<(), String> {
    if (token as usize) < ask.vocabulary {
        return Ok(());
    }
    Err(format!("it names token {token}, and the model knows those below {}", ask.vocabulary))
}

/// Of the lines that a server counts in, as Prometheus reads them, the sum of those that have this name and such labels; nothing
/// where there are none.
fn counted(text: &str, name: &str, has: fn(&str) -> bool) -> Option<u64> {
    let of_line = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let (labels, count) = match rest.strip_prefix('{') {
            Some(rest) => rest.rsplit_once("} ")?,
            None => ("", rest.strip_prefix(' ')?),
        };
        // Large ones come as 1.5e+06.
        let count: f64 = count.trim().parse().ok()?;
        ((0.0..9e15).contains(&count) && has(labels)).then_some(count as u64)
    };
    let counts: Vec<_> = text.lines().filter_map(of_line).collect();
    (!counts.is_empty()).then(|| counts.iter().sum())
}

/// What a server says of the tokens of an exchange, where it speaks as OpenAI's do.
#[derive(Deserialize)]
struct Usage {
    prompt_tokens: usize,
    completion_tokens: usize,
    #[serde(default)]
    prompt_tokens_details: Option<OfPrompt>,
}

#[derive(Deserialize)]
struct OfPrompt {
    cached_tokens: Option<usize>,
}

impl Usage {
    /// How many tokens of the prompt it has read, and how many it took from its cache, where it tells.
    fn of_prompt(&self, ask: &Ask<'_>) -> Result<(Option<usize>, Option<usize>), String> {
        let cached = self.prompt_tokens_details.as_ref().and_then(|details| details.cached_tokens);
        of_prompt(self.prompt_tokens, cached, ask)
    }
}

/// How many tokens of a prompt of so many a server has read, and how many it took from its cache, where it tells.
fn of_prompt(
    tokens: usize,
    cached: Option<usize>,
    ask: &Ask<'_>,
) -> Result<(Option<usize>, Option<usize>), String> {
    if tokens != ask.tokens.len() {
        return Err(format!(
            "it read {tokens} tokens of a prompt that has {}, so its tokenizer is another one, or it adds tokens of its own",
            ask.tokens.len()
        ));
    }
    let Some(cached) = cached else { return Ok((None, None)) };
    let read = tokens.checked_sub(cached).ok_or("it took more of the prompt from its cache than there is")?;
    Ok((Some(read), Some(cached)))
}

/// An object whose values are read later, in the order in which it was written, and with what stands there twice.
struct Listed<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Listed<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Listed<'a>, D::Error> {
        struct Entries;
        impl<'de> Visitor<'de> for Entries {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(entries)
            }
        }
        deserializer.deserialize_map(Entries).map(Listed)
    }
}

/// The name of a file or folder: where it lies is a matter of the machine.
fn file_name(path: &str) -> String {
    path.trim_end_matches(['/', '\\']).rsplit(['/', '\\']).next().unwrap_or_default().to_owned()
}

/// A value as one would say it.
fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The beginning of what somebody else wrote, on one line and without what a terminal acts on.
pub(super) fn clipped(text: &str) -> String {
    const MOST: usize = 200;
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let short: String = line.chars().take(MOST).collect();
    let more = if line.chars().nth(MOST).is_some() { "…" } else { "" };
    format!("{}{more}", short.escape_debug())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// For tests of dialects.
    pub(super) const ASK: Ask<'_> = Ask {
        model: "smol",
        tokens: &[],
        text: "",
        new_tokens: 0,
        top: 2,
        must_show: true,
        cache: false,
        salt: "salt",
        vocabulary: 49_152,
    };

    #[test]
    fn a_number_is_the_f32_that_was_written_or_is_known_to_be_none() {
        for value in [-0.258_899_9_f32, -1.0e-7, -4.294_935, -12.5, -1.401e-45, -0.0, -3.0e38] {
            for text in [f64::from(value).to_string(), format!("{:e}", f64::from(value))] {
                assert_eq!(number(&text), Ok(Number::Exact(value)), "{text}");
            }
        }
        for text in ["null", "-9999.0", "-3.4028234663852886e+38", "-1e39"] {
            assert_eq!(number(text), Ok(Number::Floor), "{text}");
        }
        for text in ["-0.2589", "-0.25889989733695", "-2.7408"] {
            assert_eq!(number(text), Ok(Number::Rounded), "{text}");
        }
        for text in ["NaN", "0.1", "1e-9", "\"x\"", "[]", "inf"] {
            assert!(number(text).is_err(), "{text}");
        }
    }
}
