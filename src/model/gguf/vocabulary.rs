//! The tokenizer of a GGUF file: its lists of tokens as the `tokenizer.json` that they stand for, its special tokens, and
//! its chat template.
//!
//! What the keys mean is what llama.cpp, whose format this is, makes of them:
//!
//! | `tokenizer.ggml.` | what it holds |
//! |---|---|
//! | `model` | `gpt2` (pairs of bytes are merged in the order of `merges`) or `llama` (pairs of characters, in the order of `scores`) |
//! | `pre` | the name of the rules by which `gpt2` cuts a text into words, of [`PRE_TOKENIZERS`] |
//! | `tokens`, `token_type` | what the tokens are called, and what kind each is |
//! | `merges`, `scores` | which of two merges comes first |
//! | `add_space_prefix` | does `llama` put a space before a text? |
//! | `add_bos_token`, `add_eos_token` | does a text begin, or end, with a token of its own? |
//! | `bos_token_id` and its like | which tokens these are |
//!
//! No key tells how a text is normalized, so it is not: what is not in Unicode's NFC has other tokens than with the
//! `tokenizer.json` of, for one, Qwen2.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
};

use serde::Serialize;
use serde_json::{Value, json};

use super::{
    super::{chat::ChatTemplate, tokenizer::shortened},
    GgufError,
    metadata::Metadata,
};

const MODEL: &str = "tokenizer.ggml.model";
const PRE: &str = "tokenizer.ggml.pre";
const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const MERGES: &str = "tokenizer.ggml.merges";
const SCORES: &str = "tokenizer.ggml.scores";
const ADD_SPACE: &str = "tokenizer.ggml.add_space_prefix";
const ADD_BEGINNING: &str = "tokenizer.ggml.add_bos_token";
const ADD_END: &str = "tokenizer.ggml.add_eos_token";
const BEGINNING: &str = "tokenizer.ggml.bos_token_id";
const END: &str = "tokenizer.ggml.eos_token_id";
const END_OF_TURN: &str = "tokenizer.ggml.eot_token_id";
const END_OF_MESSAGE: &str = "tokenizer.ggml.eom_token_id";
const UNKNOWN: &str = "tokenizer.ggml.unknown_token_id";
const PADDING: &str = "tokenizer.ggml.padding_token_id";
const TEMPLATE: &str = "tokenizer.chat_template";

const FETCH: &str = "fetch the file again";
const TAKE_ANOTHER: &str = "take the model in the layout of Hugging Face, which brings its tokenizer along";

/// The names that chat templates have for special tokens, and the keys of these. One key is misspelt in the format.
const NAMES: [(&str, &str); 7] = [
    ("bos_token", BEGINNING),
    ("eos_token", END),
    ("unk_token", UNKNOWN),
    ("pad_token", PADDING),
    ("sep_token", "tokenizer.ggml.seperator_token_id"),
    ("cls_token", "tokenizer.ggml.cls_token_id"),
    ("mask_token", "tokenizer.ggml.mask_token_id"),
];

/// Control tokens that end an answer whatever the keys say, as files often name one end of several.
///
/// llama.cpp goes by names too. Of its list these are not here: separators of completed code (`<|fim_pad|>`,
/// `<|repo_name|>`, `<|file_sep|>` and their like), and tokens of families that are not read here (`<|return|>`,
/// `<|call|>`, `<|flush|>`, `<|calls|>`, `<eos>`, `<turn|>`, `<|tool_response>`, `[e~[`). It also takes these names for
/// control tokens where the file says otherwise; here the file is believed.
const ENDS: [&str; 14] = [
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<end_of_utterance>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<｜end▁of▁sentence｜>",
    "</s>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "[EOS]",
];

/// How a text is cut into words, each of which is merged on its own.
struct PreTokenizer {
    names: &'static [&'static str],
    /// One after the other, each within the words of the one before.
    cuts: &'static [Cut],
    /// Is a word that is a token as a whole that token, whatever the merges make of it?
    whole_words: bool,
    /// Does a text begin with a token of its own, unless the file says otherwise?
    begins: bool,
}

enum Cut {
    /// Every match is a word, and so is what lies between two.
    Pattern(&'static str),
    /// Every digit is a word.
    Digits,
}

/// GPT-2's own.
const GPT_2: Cut =
    Cut::Pattern(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+");
const LLAMA_3: Cut = Cut::Pattern(concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
));
const QWEN_2: Cut = Cut::Pattern(concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
));
/// Marks belong to the letters that they stand on.
const QWEN_3_5: Cut = Cut::Pattern(concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}",
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
));
/// Small letters end a word before large ones.
const TEKKEN: Cut = Cut::Pattern(concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
));

/// The names that are known, with llama.cpp's rules; where it has rewritten a model's own pattern for its engine, the
/// model's own. It knows many more, some of them only roughly: a name gets its row once its rules are certain.
const PRE_TOKENIZERS: [PreTokenizer; 9] = [
    PreTokenizer {
        names: &["default"],
        cuts: &[
            Cut::Pattern(r"[\p{P}$+<=>^~|]+"),
            GPT_2,
            Cut::Pattern(r"\p{N}+"),
            Cut::Pattern("[0-9][0-9][0-9]"),
        ],
        whole_words: false,
        begins: false,
    },
    PreTokenizer {
        names: &["gpt-2", "phi-2", "mpt", "olmo"],
        cuts: &[GPT_2],
        whole_words: false,
        begins: false,
    },
    PreTokenizer {
        names: &["smollm", "starcoder", "refact", "command-r"],
        cuts: &[Cut::Digits, GPT_2],
        whole_words: false,
        begins: false,
    },
    PreTokenizer {
        names: &["llama-bpe", "llama-v3", "llama3"],
        cuts: &[LLAMA_3],
        whole_words: true,
        begins: true,
    },
    PreTokenizer { names: &["dbrx", "smaug-bpe"], cuts: &[LLAMA_3], whole_words: false, begins: false },
    PreTokenizer {
        names: &["qwen2", "deepseek-r1-qwen"],
        cuts: &[QWEN_2],
        whole_words: false,
        begins: false,
    },
    PreTokenizer { names: &["qwen35"], cuts: &[QWEN_3_5], whole_words: false, begins: false },
    PreTokenizer { names: &["tekken"], cuts: &[TEKKEN], whole_words: true, begins: true },
    PreTokenizer {
        names: &["deepseek-coder"],
        cuts: &[
            Cut::Pattern(r"[\r\n]"),
            Cut::Pattern(r"\s?\p{L}+"),
            Cut::Pattern(r"\s?\p{P}+"),
            Cut::Pattern("[一-龥ࠀ-一가-퟿]+"),
            Cut::Digits,
        ],
        whole_words: false,
        begins: false,
    },
];

/// What merges may take in all: more than the largest known vocabulary needs, and less than memory has.
const MOST_TEXT: usize = 100 << 20;
/// In bytes. The longest that a vocabulary with scores is known to have has 48.
const LONGEST_SCORED: usize = 1000;

/// The text of the `tokenizer.json` that the file stands for, if it has a tokenizer.
pub(super) fn tokenizer_json(metadata: &Metadata) -> Result<Option<Vec<u8>>, GgufError> {
    let Some(vocabulary) = Vocabulary::read(metadata)? else { return Ok(None) };
    let file = match vocabulary.kind {
        Kind::Bytes => vocabulary.of_bytes()?,
        Kind::Scored => vocabulary.of_scored()?,
    };
    Ok(Some(serde_json::to_vec(&file).expect("texts and numbers are JSON")))
}

/// The tokens that mean something to whoever generates.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Special {
    /// Stands at the beginning of a text.
    pub(super) beginning: Option<u32>,
    /// End an answer, the one that the file names first.
    pub(super) stops: Vec<u32>,
    /// Stands where nothing does.
    pub(super) padding: Option<u32>,
}

impl Special {
    /// None where the file has no tokenizer.
    pub(super) fn of(metadata: &Metadata) -> Result<Special, GgufError> {
        let Some(vocabulary) = Vocabulary::read(metadata)? else { return Ok(Special::default()) };
        let mut stops = Vec::new();
        for key in [END, END_OF_TURN, END_OF_MESSAGE] {
            stops.extend(vocabulary.id(key)?);
        }
        let mut named: Vec<u32> = ENDS.iter().filter_map(|name| vocabulary.ids.get(name).copied()).collect();
        named.retain(|&id| vocabulary.types[id as usize] == Type::Control);
        named.sort_unstable();
        stops.extend(named);
        let mut seen = HashSet::new();
        stops.retain(|&id| seen.insert(id));
        Ok(Special { beginning: vocabulary.id(BEGINNING)?, stops, padding: vocabulary.id(PADDING)? })
    }
}

/// How the model wants a conversation written, if the file says so.
pub(super) fn chat_template(metadata: &Metadata) -> Result<Option<ChatTemplate>, GgufError> {
    let Some(template) = metadata.text(TEMPLATE)? else { return Ok(None) };
    let mut special_tokens = BTreeMap::new();
    if let Some(vocabulary) = Vocabulary::read(metadata)? {
        for (name, key) in NAMES {
            if let Some(id) = vocabulary.id(key)? {
                special_tokens.insert(name.to_owned(), vocabulary.tokens[id as usize].clone());
            }
        }
    }
    Ok(Some(ChatTemplate::new(&metadata.file, template, special_tokens)))
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    Bytes,
    Scored,
}

/// What a token is, in the order of the numbers that stand for it, from 1 on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Type {
    Normal,
    Unknown,
    Control,
    UserDefined,
    Unused,
    Byte,
}

impl Type {
    fn of(number: i64) -> Option<Type> {
        Some(match number {
            1 => Type::Normal,
            2 => Type::Unknown,
            3 => Type::Control,
            4 => Type::UserDefined,
            5 => Type::Unused,
            6 => Type::Byte,
            _ => return None,
        })
    }
}

/// The tokens of a file: no two have the same name, and each has a type.
struct Vocabulary<'a> {
    metadata: &'a Metadata,
    kind: Kind,
    tokens: &'a [String],
    types: Vec<Type>,
    ids: HashMap<&'a str, u32>,
}

impl<'a> Vocabulary<'a> {
    fn read(metadata: &'a Metadata) -> Result<Option<Vocabulary<'a>>, GgufError> {
        let kind = match metadata.text(MODEL)? {
            None | Some("none" | "no_vocab") => return Ok(None),
            Some("gpt2") => Kind::Bytes,
            Some("llama") => Kind::Scored,
            Some(_) => {
                return Err(metadata.wrong(
                    MODEL,
                    "the kinds known here are `gpt2` and `llama`",
                    TAKE_ANOTHER,
                ));
            }
        };
        let tokens = metadata.texts(TOKENS)?.unwrap_or_default();
        if tokens.is_empty() {
            return Err(metadata.wrong(TOKENS, "a tokenizer has at least one token", FETCH));
        }
        let mut ids = HashMap::with_capacity(tokens.len());
        for (id, token) in (0_u32..).zip(tokens) {
            if let Some(before) = ids.insert(token.as_str(), id) {
                let token = shortened(token);
                return Err(metadata.wrong(
                    TOKENS,
                    format!("{token} is both token {before} and {id}"),
                    FETCH,
                ));
            }
        }
        let types = match metadata.integers(TYPES)? {
            None => vec![Type::Normal; tokens.len()],
            Some(numbers) => {
                same_length(metadata, TYPES, numbers.len(), tokens.len())?;
                let read = |(id, &number): (usize, &i64)| {
                    let wrong = || format!("token {id} has the type {number}, where there are 1 to 6");
                    Type::of(number).ok_or_else(|| metadata.wrong(TYPES, wrong(), FETCH))
                };
                numbers.iter().enumerate().map(read).collect::<Result<_, _>>()?
            }
        };
        Ok(Some(Vocabulary { metadata, kind, tokens, types, ids }))
    }

    /// The token that a key names.
    fn id(&self, key: &str) -> Result<Option<u32>, GgufError> {
        let Some(id) = self.metadata.whole(key)? else { return Ok(None) };
        match u32::try_from(id) {
            Ok(id) if (id as usize) < self.tokens.len() => Ok(Some(id)),
            _ => {
                let wrong = format!("there are {} tokens, from 0 on", self.tokens.len());
                Err(self.metadata.wrong(key, wrong, FETCH))
            }
        }
    }

    /// Byte-level: every byte of a text is written as a character, and words of these are merged.
    fn of_bytes(&self) -> Result<File<'a>, GgufError> {
        let rules = self.pre_tokenizer()?;
        let bytes = json!({
            "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false,
        });
        let mut cuts: Vec<Value> = rules.cuts.iter().map(Cut::to_json).collect();
        cuts.push(bytes.clone());
        Ok(File {
            version: "1.0",
            added_tokens: self.added_tokens()?,
            normalizer: None,
            pre_tokenizer: Some(json!({ "type": "Sequence", "pretokenizers": cuts })),
            post_processor: self.around(rules.begins)?,
            decoder: bytes,
            model: Model {
                r#type: "BPE",
                // A byte without a token vanishes, as it does elsewhere: the models have never seen it.
                unk_token: None,
                fuse_unk: false,
                byte_fallback: false,
                ignore_merges: rules.whole_words,
                vocab: self.ids.iter().map(|(&token, &id)| (token, id)).collect(),
                merges: self.listed_merges()?,
            },
        })
    }

    fn pre_tokenizer(&self) -> Result<&'static PreTokenizer, GgufError> {
        let refuse = |what: &str| {
            let names: Vec<&str> = PRE_TOKENIZERS.iter().flat_map(|rules| rules.names).copied().collect();
            let wrong = format!("{what}; known here are {}", names.join(", "));
            Err(self.metadata.wrong(PRE, wrong, TAKE_ANOTHER))
        };
        match self.metadata.text(PRE)? {
            None => refuse("without it the way a text is cut is not known"),
            Some(name) => match PRE_TOKENIZERS.iter().find(|rules| rules.names.contains(&name)) {
                Some(rules) => Ok(rules),
                None => refuse("how that cuts a text is not known"),
            },
        }
    }

    /// Two tokens with a space between them, which no token of bytes holds.
    fn listed_merges(&self) -> Result<Vec<(&'a str, &'a str)>, GgufError> {
        let Some(merges) = self.metadata.texts(MERGES)? else {
            return Err(self.metadata.wrong(MERGES, "a tokenizer of this kind has some", FETCH));
        };
        let mut seen = HashSet::with_capacity(merges.len());
        let read = |merge: &'a String| {
            let refuse = |what: &str| {
                let merge = shortened(merge);
                Err(self.metadata.wrong(MERGES, format!("the merge {merge} {what}"), FETCH))
            };
            let Some((left, right)) = merge.split_once(' ') else { return refuse("is not two tokens") };
            let is_token = |text: &str| self.ids.contains_key(text);
            if !is_token(left) || !is_token(right) {
                return refuse("is not of two tokens");
            }
            if !is_token(&[left, right].concat()) {
                return refuse("does not make a token");
            }
            if !seen.insert((left, right)) {
                return refuse("stands there twice");
            }
            Ok((left, right))
        };
        merges.iter().map(read).collect()
    }

    /// SentencePiece: characters are merged, those first that make the token with the best score, over the whole text;
    /// what is no token then is written in bytes.
    fn of_scored(&self) -> Result<File<'a>, GgufError> {
        let adds_space = self.metadata.flag(ADD_SPACE)?.unwrap_or(true);
        let mut normalizers =
            vec![json!({ "type": "Replace", "pattern": { "String": " " }, "content": "▁" })];
        let mut decoders = vec![
            json!({ "type": "Replace", "pattern": { "String": "▁" }, "content": " " }),
            json!({ "type": "ByteFallback" }),
            json!({ "type": "Fuse" }),
        ];
        if adds_space {
            normalizers.insert(0, json!({ "type": "Prepend", "prepend": "▁" }));
            decoders.push(json!({ "type": "Strip", "content": " ", "start": 1, "stop": 0 }));
        }
        Ok(File {
            version: "1.0",
            added_tokens: self.added_tokens()?,
            normalizer: Some(json!({ "type": "Sequence", "normalizers": normalizers })),
            pre_tokenizer: None,
            post_processor: self.around(true)?,
            decoder: json!({ "type": "Sequence", "decoders": decoders }),
            model: Model {
                r#type: "BPE",
                unk_token: self.unknown()?,
                fuse_unk: true,
                byte_fallback: true,
                ignore_merges: false,
                vocab: self.ids.iter().map(|(&token, &id)| (token, id)).collect(),
                merges: self.scored_merges()?,
            },
        })
    }

    /// The token for what has none; there need not be one if every byte has its own.
    fn unknown(&self) -> Result<Option<&'a str>, GgufError> {
        let id = match self.id(UNKNOWN)? {
            Some(id) => Some(id as usize),
            None => self.types.iter().position(|&of| of == Type::Unknown),
        };
        let has_byte = |byte: u8| self.ids.contains_key(format!("<0x{byte:02X}>").as_str());
        if id.is_none() && !(0..=u8::MAX).all(has_byte) {
            let wrong = "some bytes have no token of their own either";
            return Err(self.metadata.wrong(UNKNOWN, wrong, FETCH));
        }
        Ok(id.map(|id| self.tokens[id].as_str()))
    }

    /// Every way to make a token of two, the best scores first. Only normal tokens come about like this: all others are
    /// found in a text as they are, or not at all.
    fn scored_merges(&self) -> Result<Vec<(&'a str, &'a str)>, GgufError> {
        let Some(scores) = self.metadata.floats(SCORES)? else {
            return Err(self.metadata.wrong(SCORES, "a tokenizer of this kind has some", FETCH));
        };
        same_length(self.metadata, SCORES, scores.len(), self.tokens.len())?;
        let is_normal = |text: &str| self.ids.get(text).is_some_and(|&id| self.is_normal(id as usize));
        let mut merges = Vec::new();
        let mut size = 0;
        for (id, (token, &score)) in self.tokens.iter().zip(scores).enumerate() {
            if score.is_nan() {
                return Err(self.metadata.wrong(
                    SCORES,
                    format!("that of token {id} is not a number"),
                    FETCH,
                ));
            }
            if !self.is_normal(id) {
                continue;
            }
            if token.len() > LONGEST_SCORED {
                let wrong = format!("{} has more than {LONGEST_SCORED} bytes", shortened(token));
                return Err(self.metadata.wrong(TOKENS, wrong, FETCH));
            }
            let length = token.chars().count();
            for (before, (at, _)) in token.char_indices().enumerate().skip(1) {
                let (left, right) = token.split_at(at);
                if is_normal(left) && is_normal(right) {
                    size += token.len();
                    merges.push((score, before, length - before, left, right));
                }
            }
            if size > MOST_TEXT {
                let wrong = format!("the merges to make them would take more than {} MB", MOST_TEXT >> 20);
                return Err(self.metadata.wrong(TOKENS, wrong, FETCH));
            }
        }
        // Among equals the leftmost pair of a text is merged first, so that a run of spaces grows from its beginning: the
        // one with the longer left half. Zero is zero, with either sign.
        merges.sort_by(|a, b| {
            (b.0 + 0.0)
                .total_cmp(&(a.0 + 0.0))
                .then_with(|| (Reverse(a.1), Reverse(a.2)).cmp(&(Reverse(b.1), Reverse(b.2))))
        });
        Ok(merges.into_iter().map(|(.., left, right)| (left, right)).collect())
    }

    fn is_normal(&self, id: usize) -> bool {
        self.types[id] == Type::Normal
    }

    /// The tokens that are found in a text as they are, before anything is cut or merged: by their type, and those that
    /// keys name as a beginning or an end, as some files call these normal.
    fn added_tokens(&self) -> Result<Vec<AddedToken<'a>>, GgufError> {
        let mut around = Vec::new();
        for key in [BEGINNING, END, END_OF_TURN, END_OF_MESSAGE] {
            around.extend(self.id(key)?);
        }
        let tokens = (0_u32..).zip(self.tokens).zip(&self.types);
        let added = tokens.filter_map(|((id, content), of)| {
            let special = match of {
                _ if around.contains(&id) => true,
                Type::Unknown | Type::Control => true,
                Type::UserDefined => false,
                Type::Normal | Type::Unused | Type::Byte => return None,
            };
            Some(AddedToken {
                id,
                content,
                single_word: false,
                lstrip: false,
                rstrip: false,
                normalized: false,
                special,
            })
        });
        Ok(added.collect())
    }

    /// What stands around every text.
    fn around(&self, begins: bool) -> Result<Option<Value>, GgufError> {
        let begins = self.metadata.flag(ADD_BEGINNING)?.unwrap_or(begins);
        let ends = self.metadata.flag(ADD_END)?.unwrap_or(false);
        if !begins && !ends {
            return Ok(None);
        }
        let mut known = serde_json::Map::new();
        let mut token = |is_there: bool, key: &str, wrong: &str| {
            if !is_there {
                return Ok(None);
            }
            let Some(id) = self.id(key)? else { return Err(self.metadata.wrong(key, wrong, FETCH)) };
            let name = &self.tokens[id as usize];
            known.insert(name.clone(), json!({ "id": name, "ids": [id], "tokens": [name] }));
            Ok(Some(json!({ "SpecialToken": { "id": name, "type_id": 0 } })))
        };
        let before = token(begins, BEGINNING, "every text should begin with that token")?;
        let after = token(ends, END, "every text should end with that token")?;
        let text = |name: &str| json!({ "Sequence": { "id": name, "type_id": 0 } });
        let with = |texts: Vec<Value>| -> Vec<Value> {
            before.iter().cloned().chain(texts).chain(after.iter().cloned()).collect()
        };
        Ok(Some(json!({
            "type": "TemplateProcessing",
            "single": with(vec![text("A")]),
            "pair": with(vec![text("A"), text("B")]),
            "special_tokens": known,
        })))
    }
}

fn same_length(metadata: &Metadata, key: &str, length: usize, tokens: usize) -> Result<(), GgufError> {
    if length == tokens {
        return Ok(());
    }
    Err(metadata.wrong(key, format!("there are {tokens} tokens"), FETCH))
}

impl Cut {
    fn to_json(&self) -> Value {
        match self {
            Cut::Digits => json!({ "type": "Digits", "individual_digits": true }),
            Cut::Pattern(pattern) => json!({
                "type": "Split", "pattern": { "Regex": pattern }, "behavior": "Isolated", "invert": false,
            }),
        }
    }
}

/// A `tokenizer.json`.
#[derive(Serialize)]
struct File<'a> {
    version: &'static str,
    added_tokens: Vec<AddedToken<'a>>,
    normalizer: Option<Value>,
    pre_tokenizer: Option<Value>,
    post_processor: Option<Value>,
    decoder: Value,
    model: Model<'a>,
}

#[derive(Serialize)]
struct AddedToken<'a> {
    id: u32,
    content: &'a str,
    single_word: bool,
    lstrip: bool,
    rstrip: bool,
    normalized: bool,
    special: bool,
}

#[derive(Serialize)]
struct Model<'a> {
    r#type: &'static str,
    unk_token: Option<&'a str>,
    fuse_unk: bool,
    byte_fallback: bool,
    ignore_merges: bool,
    vocab: BTreeMap<&'a str, u32>,
    merges: Vec<(&'a str, &'a str)>,
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use serde::Deserialize;

    use super::{
        super::{super::tokenizer::Tokenizer, metadata},
        *,
    };

    fn texts(list: &[&str]) -> metadata::Value {
        metadata::Value::Texts(list.iter().map(|&text| text.to_owned()).collect())
    }

    fn text(text: &str) -> metadata::Value {
        metadata::Value::Text(text.to_owned())
    }

    fn metadata<const N: usize>(values: [(&str, metadata::Value); N]) -> Metadata {
        let values = values.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
        Metadata { file: "m.gguf".to_owned(), values }
    }

    /// Letters in bytes: three of them, a merge, a token that users define, two special ones.
    fn bytes() -> Metadata {
        metadata([
            (MODEL, text("gpt2")),
            (PRE, text("gpt-2")),
            (TOKENS, texts(&["a", "b", "Ġ", "ab", "<tool>", "<|im_end|>", "<s>"])),
            (TYPES, metadata::Value::Integers(vec![1, 1, 1, 1, 4, 3, 3])),
            (MERGES, texts(&["a b"])),
        ])
    }

    /// Characters with scores: `ab` is worse than `bc`.
    fn scored() -> Metadata {
        let tokens = ["<unk>", "<s>", "</s>", "▁", "a", "b", "c", "ab", "bc", "▁a", "<0x64>", "x y"];
        let scores = vec![0.0, 0.0, 0.0, -9.0, -9.0, -9.0, -9.0, -3.0, -2.0, -4.0, 0.0, 0.0];
        metadata([
            (MODEL, text("llama")),
            (TOKENS, texts(&tokens)),
            (TYPES, metadata::Value::Integers(vec![2, 3, 3, 1, 1, 1, 1, 1, 1, 1, 6, 4])),
            (SCORES, metadata::Value::Floats(scores)),
            (BEGINNING, metadata::Value::Integer(1)),
            (END, metadata::Value::Integer(2)),
        ])
    }

    fn with(mut metadata: Metadata, key: &str, value: metadata::Value) -> Metadata {
        metadata.values.insert(key.to_owned(), value);
        metadata
    }

    fn without(mut metadata: Metadata, key: &str) -> Metadata {
        metadata.values.remove(key);
        metadata
    }

    fn tokenizer(metadata: &Metadata) -> Tokenizer {
        let json = tokenizer_json(metadata).unwrap().unwrap();
        Tokenizer::read("m.gguf", &json, metadata.texts(TOKENS).unwrap().unwrap().len()).unwrap()
    }

    fn refused(metadata: &Metadata) -> String {
        tokenizer_json(metadata).unwrap_err().to_string()
    }

    #[derive(Deserialize)]
    struct Expected {
        strings: Vec<String>,
        cases: Vec<Case>,
    }

    #[derive(Deserialize)]
    struct Case {
        pre: Option<String>,
        ids: Vec<Vec<u32>>,
    }

    #[derive(Deserialize)]
    struct Small {
        tokens: Vec<String>,
        token_type: Vec<i64>,
        merges: Option<Vec<String>>,
        scores: Option<Vec<f32>>,
    }

    fn fixture<T: for<'a> Deserialize<'a>>(name: &str) -> T {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/gguf");
        serde_json::from_slice(&fs::read(folder.join(name)).unwrap()).unwrap()
    }

    #[test]
    fn every_kind_of_tokenizer_gives_the_tokens_of_the_rules_that_it_names() {
        let expected: Expected = fixture("expected.json");
        let mut seen = HashSet::new();
        for case in &expected.cases {
            let small: Small = fixture(if case.pre.is_some() { "bytes.json" } else { "scored.json" });
            let mut small_metadata = metadata([
                (MODEL, text(if case.pre.is_some() { "gpt2" } else { "llama" })),
                (TOKENS, metadata::Value::Texts(small.tokens)),
                (TYPES, metadata::Value::Integers(small.token_type)),
                (ADD_BEGINNING, metadata::Value::Bool(false)),
            ]);
            for (key, value) in [
                (PRE, case.pre.clone().map(metadata::Value::Text)),
                (MERGES, small.merges.map(metadata::Value::Texts)),
                (SCORES, small.scores.map(metadata::Value::Floats)),
            ] {
                small_metadata.values.extend(value.map(|value| (key.to_owned(), value)));
            }
            let tokenizer = tokenizer(&small_metadata);
            for (text, ids) in expected.strings.iter().zip(&case.ids) {
                assert_eq!(tokenizer.encode(text, true).unwrap(), *ids, "{:?}: {text:?}", case.pre);
                // Every byte has a token in both vocabularies, but one of them writes a space as a character of its own.
                let read = if case.pre.is_some() { text.clone() } else { text.replace('▁', " ") };
                assert_eq!(tokenizer.decode(ids, false), read, "{:?}", case.pre);
            }
            seen.insert(case.pre.clone().unwrap_or_default());
        }
        for rules in &PRE_TOKENIZERS {
            assert!(rules.names.iter().any(|&name| seen.contains(name)), "{:?} has no case", rules.names);
        }
        assert!(seen.contains(""));
    }

    #[test]
    fn no_name_has_two_rules() {
        let mut seen = HashSet::new();
        assert!(PRE_TOKENIZERS.iter().flat_map(|rules| rules.names).all(|name| seen.insert(name)));
    }

    #[test]
    fn special_tokens_are_found_in_a_text_and_those_of_users_are_not_special() {
        let tokenizer = tokenizer(&bytes());
        let ids = tokenizer.encode("ab<tool>a <s>b<|im_end|>", true).unwrap();
        assert_eq!(ids, [3, 4, 0, 2, 6, 1, 5]);
        assert_eq!(tokenizer.decode(&ids, false), "ab<tool>a <s>b<|im_end|>");
        assert_eq!(tokenizer.decode(&ids, true), "ab<tool>a b");
    }

    #[test]
    fn a_token_that_a_key_names_as_the_end_is_special_whatever_its_type() {
        let normal = with(bytes(), TYPES, metadata::Value::Integers(vec![1; 7]));
        assert_eq!(tokenizer(&normal).encode("ab<s>", true).unwrap(), [3]);
        let named = with(normal, END, metadata::Value::Integer(6));
        assert_eq!(tokenizer(&named).encode("ab<s>", true).unwrap(), [3, 6]);
    }

    #[test]
    fn without_types_all_tokens_are_normal() {
        let tokenizer = tokenizer(&without(bytes(), TYPES));
        assert_eq!(tokenizer.encode("ab<tool>", true).unwrap(), [3]);
    }

    #[test]
    fn a_text_begins_and_ends_as_the_file_says_or_as_its_kind_does() {
        let begins = |metadata: Metadata| {
            let named = with(metadata, BEGINNING, metadata::Value::Integer(6));
            let named = with(named, END, metadata::Value::Integer(5));
            let tokenizer = tokenizer(&named);
            assert_eq!(tokenizer.encode("ab", false).unwrap(), [3]);
            tokenizer.encode("ab", true).unwrap()
        };
        assert_eq!(begins(bytes()), [3]);
        assert_eq!(begins(with(bytes(), ADD_BEGINNING, metadata::Value::Bool(true))), [6, 3]);
        assert_eq!(begins(with(bytes(), ADD_END, metadata::Value::Bool(true))), [3, 5]);
        let llama_3 = || with(bytes(), PRE, text("llama-bpe"));
        assert_eq!(begins(llama_3()), [6, 3]);
        assert_eq!(begins(with(llama_3(), ADD_END, metadata::Value::Bool(true))), [6, 3, 5]);
        assert_eq!(begins(with(llama_3(), ADD_BEGINNING, metadata::Value::Bool(false))), [3]);
        assert_eq!(tokenizer(&scored()).encode("bc", true).unwrap(), [1, 3, 8]);
    }

    #[test]
    fn a_word_that_is_a_token_needs_no_merges_where_the_rules_say_so() {
        let unmerged = |pre| {
            let silent = with(bytes(), ADD_BEGINNING, metadata::Value::Bool(false));
            with(with(silent, PRE, text(pre)), MERGES, texts(&[]))
        };
        assert_eq!(tokenizer(&unmerged("qwen2")).encode("ab", true).unwrap(), [0, 1]);
        assert_eq!(tokenizer(&unmerged("tekken")).encode("ab", true).unwrap(), [3]);
    }

    #[test]
    fn better_scores_merge_first_and_bytes_stand_for_the_rest() {
        let tokenizer = tokenizer(&scored());
        let encode = |text| tokenizer.encode(text, false).unwrap();
        // A space before the text, and one after every special token.
        assert_eq!(encode("abc"), [9, 8]);
        assert_eq!(encode("ab"), [3, 7]);
        assert_eq!(encode(" a<s>a"), [3, 9, 1, 9]);
        assert_eq!(encode("d"), [3, 10]);
        assert_eq!(encode("éé"), [3, 0]);
        // As it is written, not with the mark that stands for a space.
        assert_eq!(encode("x y"), [11]);
        assert!(encode("").is_empty());
        assert_eq!(tokenizer.decode(&[9, 8, 10, 3, 11, 2], false), "abcd x y</s>");
    }

    #[test]
    fn a_file_may_say_that_no_space_is_put_before_a_text() {
        let tokenizer = tokenizer(&with(scored(), ADD_SPACE, metadata::Value::Bool(false)));
        assert_eq!(tokenizer.encode("abc a", false).unwrap(), [4, 8, 9]);
        assert_eq!(tokenizer.decode(&[9, 8], false), " abc");
    }

    #[test]
    fn among_equal_scores_a_run_grows_from_its_beginning() {
        let tokens = ["<unk>", "a", "aa", "aaa", "aaaa"];
        let run = metadata([
            (MODEL, text("llama")),
            (TOKENS, texts(&tokens)),
            (SCORES, metadata::Value::Floats(vec![0.0, -1.0, 0.0, -0.0, 0.0])),
            (UNKNOWN, metadata::Value::Integer(0)),
            (ADD_SPACE, metadata::Value::Bool(false)),
            (ADD_BEGINNING, metadata::Value::Bool(false)),
        ]);
        let tokenizer = tokenizer(&run);
        for length in 1..12 {
            let mut expected = vec![4; length / 4];
            expected.extend((length % 4 > 0).then_some((length % 4) as u32));
            assert_eq!(tokenizer.encode(&"a".repeat(length), true).unwrap(), expected);
        }
    }

    #[test]
    fn tokens_that_are_not_normal_come_about_by_no_merge() {
        let types = |of| with(bytes_scored(), TYPES, metadata::Value::Integers(vec![2, 1, 1, of]));
        let encode = |of| tokenizer(&types(of)).encode("ab", true).unwrap();
        assert_eq!(encode(1), [3]);
        assert_eq!(encode(5), [1, 2]);
        assert_eq!(encode(6), [1, 2]);
        // Found as it is.
        assert_eq!(encode(4), [3]);
    }

    fn bytes_scored() -> Metadata {
        metadata([
            (MODEL, text("llama")),
            (TOKENS, texts(&["<unk>", "a", "b", "ab"])),
            (SCORES, metadata::Value::Floats(vec![0.0; 4])),
            (ADD_SPACE, metadata::Value::Bool(false)),
            (ADD_BEGINNING, metadata::Value::Bool(false)),
        ])
    }

    #[test]
    fn a_file_without_a_tokenizer_has_none() {
        for none in [metadata([]), metadata([(MODEL, text("none"))]), metadata([(MODEL, text("no_vocab"))])] {
            assert!(tokenizer_json(&none).unwrap().is_none());
            assert_eq!(Special::of(&none).unwrap(), Special::default());
            assert!(chat_template(&none).unwrap().is_none());
        }
    }

    #[test]
    fn an_answer_ends_with_what_keys_name_and_with_the_known_control_tokens() {
        assert_eq!(
            Special::of(&bytes()).unwrap(),
            Special { beginning: None, stops: vec![5], padding: None }
        );
        let named = with(bytes(), END, metadata::Value::Integer(6));
        let named = with(named, END_OF_TURN, metadata::Value::Integer(5));
        let named = with(named, END_OF_MESSAGE, metadata::Value::Integer(4));
        let named = with(named, BEGINNING, metadata::Value::Integer(3));
        let named = with(named, PADDING, metadata::Value::Integer(0));
        let special = Special { beginning: Some(3), stops: vec![6, 5, 4], padding: Some(0) };
        assert_eq!(Special::of(&named).unwrap(), special);
        let normal = with(bytes(), TYPES, metadata::Value::Integers(vec![1; 7]));
        assert_eq!(Special::of(&normal).unwrap(), Special::default());
        let error =
            Special::of(&with(bytes(), PADDING, metadata::Value::Integer(7))).unwrap_err().to_string();
        assert_eq!(
            error,
            "m.gguf: `tokenizer.ggml.padding_token_id` is 7, and there are 7 tokens, from 0 on: fetch the file again"
        );
    }

    #[test]
    fn a_chat_template_knows_the_special_tokens_by_name() {
        let template = "{{ bos_token }}{{ messages[0].content }}{{ eos_token }}{{ pad_token }}";
        let named = with(bytes(), TEMPLATE, text(template));
        let named = with(named, BEGINNING, metadata::Value::Integer(6));
        let named = with(named, END, metadata::Value::Integer(5));
        let chat = chat_template(&named).unwrap().unwrap();
        let messages = [super::super::super::chat::Message::new("user", "ab")];
        assert_eq!(chat.render(&messages, true, &BTreeMap::new()).unwrap(), "<s>ab<|im_end|>");
        let alone = metadata([(TEMPLATE, text("{{ messages[0].content }}"))]);
        let chat = chat_template(&alone).unwrap().unwrap();
        assert_eq!(chat.render(&messages, true, &BTreeMap::new()).unwrap(), "ab");
        let beyond = with(named, BEGINNING, metadata::Value::Integer(9));
        assert!(chat_template(&beyond).is_err());
    }

    #[test]
    fn what_does_not_fit_is_refused_in_a_sentence() {
        use metadata::Value::{Bool, Floats, Integer, Integers};
        let nothing = f32::NAN;
        let long = "a".repeat(LONGEST_SCORED + 1);
        let cases = [
            (
                with(bytes(), MODEL, text("bert")),
                "is \"bert\", and the kinds known here are `gpt2` and `llama`",
            ),
            (
                with(bytes(), PRE, text("kimi-k2")),
                "is \"kimi-k2\", and how that cuts a text is not known; known",
            ),
            (
                without(bytes(), PRE),
                "is absent, and without it the way a text is cut is not known; known here are default",
            ),
            (without(bytes(), TOKENS), "is absent, and a tokenizer has at least one token"),
            (
                with(bytes(), TOKENS, texts(&[])),
                "is a list of 0 texts, and a tokenizer has at least one token",
            ),
            (with(bytes(), TOKENS, text("a")), "it should be a list of texts"),
            (with(bytes(), TOKENS, texts(&["a", "b", "a"])), "and \"a\" is both token 0 and 2"),
            (
                with(bytes(), TYPES, Integers(vec![1, 1])),
                "is a list of 2 whole numbers, and there are 7 tokens",
            ),
            (
                with(bytes(), TYPES, Integers(vec![1, 1, 1, 1, 4, 3, 7])),
                "token 6 has the type 7, where there are 1 to 6",
            ),
            (with(bytes(), TYPES, Integers(vec![0; 7])), "token 0 has the type 0"),
            (without(bytes(), MERGES), "is absent, and a tokenizer of this kind has some"),
            (with(bytes(), MERGES, texts(&["ab"])), "the merge \"ab\" is not two tokens"),
            (with(bytes(), MERGES, texts(&["a b a"])), "the merge \"a b a\" is not of two tokens"),
            (with(bytes(), MERGES, texts(&["a x"])), "the merge \"a x\" is not of two tokens"),
            (with(bytes(), MERGES, texts(&["b a"])), "the merge \"b a\" does not make a token"),
            (with(bytes(), MERGES, texts(&["a b", "a b"])), "the merge \"a b\" stands there twice"),
            (
                with(bytes(), ADD_BEGINNING, Bool(true)),
                "is absent, and every text should begin with that token",
            ),
            (with(bytes(), ADD_END, Bool(true)), "is absent, and every text should end with that token"),
            (with(bytes(), ADD_END, Integer(1)), "it should be true or false"),
            (with(bytes(), END, Integer(7)), "is 7, and there are 7 tokens, from 0 on"),
            (with(bytes(), END, Integer(1 << 40)), "is 1099511627776, and there are 7 tokens"),
            (with(bytes(), END, Integer(-1)), "is -1, and it should be a whole number from 0 up"),
            (without(scored(), SCORES), "is absent, and a tokenizer of this kind has some"),
            (with(scored(), SCORES, Floats(vec![0.0])), "is a list of 1 numbers, and there are 12 tokens"),
            (with(scored(), SCORES, Floats(vec![nothing; 12])), "that of token 0 is not a number"),
            (with(scored(), UNKNOWN, Integer(12)), "is 12, and there are 12 tokens"),
            (
                with(bytes_scored(), TYPES, Integers(vec![1; 4])),
                "is absent, and some bytes have no token of their own",
            ),
            (with(bytes_scored(), TOKENS, texts(&["a", "b", "ab", &long])), "has more than 1000 bytes"),
        ];
        for (metadata, sentence) in cases {
            let metadata = if sentence.contains("1000") {
                with(metadata, TYPES, Integers(vec![2, 1, 1, 1]))
            } else {
                metadata
            };
            let error = refused(&metadata);
            assert!(error.contains(sentence), "{error}\nis not\n{sentence}");
            assert!(error.starts_with("m.gguf: `tokenizer.ggml."), "{error}");
        }
    }

    #[test]
    fn merges_that_would_fill_the_memory_are_refused() {
        let tokens: Vec<String> = (1..=LONGEST_SCORED).map(|length| "a".repeat(length)).collect();
        let scores = metadata::Value::Floats(vec![0.0; tokens.len()]);
        let many = metadata([
            (MODEL, text("llama")),
            (TOKENS, metadata::Value::Texts(tokens)),
            (SCORES, scores),
            (UNKNOWN, metadata::Value::Integer(0)),
            (BEGINNING, metadata::Value::Integer(0)),
        ]);
        assert!(refused(&many).contains("the merges to make them would take more than 100 MB"));
    }
}
