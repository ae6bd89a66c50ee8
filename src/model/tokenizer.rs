//! A checkpoint's tokenizer: text to tokens and back, the same every time.

use std::{
    collections::BTreeMap,
    panic::{self, AssertUnwindSafe},
};

use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;
use tokenizers::{AddedToken, ModelWrapper, models::bpe::BPE};

/// Turns text into tokens and tokens into text.
#[derive(Debug)]
pub struct Tokenizer {
    file: String,
    inner: tokenizers::Tokenizer,
}

/// Why a tokenizer cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenizerError {
    /// Not what the library reads.
    #[error("{file} does not read ({message}): fetch it again")]
    Unreadable {
        /// Which file.
        file: String,
        /// What the library said.
        message: String,
    },
    /// Tokens beyond the embedding.
    #[error(
        "{file} has the token {token} with the number {id}, but the model has embeddings for {vocabulary} only: \
         see that the tokenizer and config.json are of the same model"
    )]
    TooLarge {
        /// Which file.
        file: String,
        /// The text of the token.
        token: String,
        /// Its number.
        id: u32,
        /// How many tokens the model knows.
        vocabulary: usize,
    },
    /// A tokenizer that rolls dice.
    #[error("{file}: `dropout` is {dropout}, so that a text has other tokens every time: set it to null")]
    Random {
        /// Which file.
        file: String,
        /// How often a merge is left out.
        dropout: f32,
    },
    /// A text that has no tokens.
    #[error("{file} cannot turn {text} into tokens ({message}): write it with other characters")]
    Text {
        /// Which file.
        file: String,
        /// The text, shortened.
        text: String,
        /// What the library said.
        message: String,
    },
}

impl Tokenizer {
    /// Reads `tokenizer.json`, for a model with embeddings for that many tokens; `file` is what errors call it.
    ///
    /// # Errors
    ///
    /// When it does not read, does not fit the model, or is random.
    pub fn read(file: &str, json: &[u8], vocabulary: usize) -> Result<Tokenizer, TokenizerError> {
        let unreadable = |message: String| TokenizerError::Unreadable { file: file.to_owned(), message };
        // The library takes it for granted that a decoder is well-formed, and some parts that they are as it wrote them.
        serde_json::from_slice::<IgnoredAny>(json).map_err(|error| unreadable(error.to_string()))?;
        let read = caught(|| of_merges(json).map_or_else(|| tokenizers::Tokenizer::from_bytes(json), Ok));
        let choked = || unreadable(GAVE_UP.to_owned());
        let mut inner = read.ok_or_else(choked)?.map_err(|error| unreadable(error.to_string()))?;
        // What it puts around a text may have no number, which it only notices when it does so.
        caught(|| inner.encode_fast("", true).is_ok()).ok_or_else(choked)?;
        // Both belong to a training run that wrote the file. A prompt is neither cut nor filled up.
        inner.with_truncation(None).map_err(|error| unreadable(error.to_string()))?;
        inner.with_padding(None);
        if let ModelWrapper::BPE(model) = inner.get_model()
            && let Some(dropout) = model.dropout.filter(|&dropout| dropout != 0.0)
        {
            return Err(TokenizerError::Random { file: file.to_owned(), dropout });
        }
        // Only a tokenizer that has others too is asked for a copy of all of its tokens.
        let fits = |id: &u32| inner.id_to_token(*id).is_some();
        let all_fit = (0..vocabulary as u32).filter(fits).count() == inner.get_vocab_size(true);
        let last = (!all_fit).then(|| inner.get_vocab(true).into_iter().max_by_key(|(_, id)| *id)).flatten();
        if let Some((token, id)) = last.filter(|(_, id)| *id as usize >= vocabulary) {
            let token = shortened(&token);
            return Err(TokenizerError::TooLarge { file: file.to_owned(), token, id, vocabulary });
        }
        Ok(Tokenizer { file: file.to_owned(), inner })
    }

    /// The tokens of a text. With `add_special` they stand between those that the tokenizer puts around every text,
    /// such as one for its beginning. Special tokens that are written out in the text are tokens either way.
    ///
    /// # Errors
    ///
    /// When the tokenizer has no token for a part of it and none for the unknown.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TokenizerError> {
        let wrong =
            |message| TokenizerError::Text { file: self.file.clone(), text: shortened(text), message };
        match caught(|| self.inner.encode_fast(text, add_special)) {
            Some(Ok(encoding)) => Ok(encoding.get_ids().to_vec()),
            Some(Err(error)) => Err(wrong(error.to_string())),
            None => Err(wrong(GAVE_UP.to_owned())),
        }
    }

    /// The text of these tokens, bytes that are not UTF-8 as U+FFFD. Tokens that the tokenizer does not know have no
    /// text, and with `skip_special` neither have the special ones.
    ///
    /// The text of a part need not be that part of the text: a character may be cut, and some tokenizers drop a space
    /// at the beginning.
    pub fn decode(&self, tokens: &[u32], skip_special: bool) -> String {
        let text = caught(|| self.inner.decode(tokens, skip_special));
        text.and_then(Result::ok).unwrap_or_else(|| {
            // Only a part that gives up on its text fails here; what the tokens are called is still true.
            tokens.iter().filter_map(|&token| self.inner.id_to_token(token)).collect()
        })
    }

    /// The number of a token.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// What a token is called in the tokenizer's own alphabet.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The tokens that stand for texts, in the order of their numbers: all that it knows but the special ones.
    pub fn ordinary(&self) -> Vec<u32> {
        let added = self.inner.get_added_tokens_decoder();
        let is_special = |token: &u32| added.get(token).is_some_and(|token| token.special);
        let all = self.inner.get_vocab(true).into_values().filter(|token| !is_special(token));
        let mut ordinary: Vec<_> = all.collect();
        ordinary.sort_unstable();
        ordinary.dedup();
        ordinary
    }

    /// How many tokens it knows.
    pub fn len(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Does it know none?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

const GAVE_UP: &str = "the library that reads it gave up on one of its parts";

/// What the library comes to; nothing where it panics, because a part is not as it would have written it.
fn caught<T>(library: impl FnOnce() -> T) -> Option<T> {
    panic::catch_unwind(AssertUnwindSafe(library)).ok()
}

/// What the library makes of a tokenizer whose model consists of merges; nothing where it has to judge for itself.
///
/// Its own way to a model goes by two copies of all that is written of it: more memory than a small model's weights take,
/// in pieces between which the tokens themselves remain.
fn of_merges(json: &[u8]) -> Option<tokenizers::Tokenizer> {
    #[derive(Deserialize)]
    struct Added {
        #[serde(rename = "id")]
        _id: u32,
        #[serde(flatten)]
        token: AddedToken,
    }
    let mut parts: BTreeMap<&str, &RawValue> = serde_json::from_slice(json).ok()?;
    let nothing = serde_json::from_str(r#"{"type":"BPE","vocab":{},"merges":[]}"#).ok()?;
    let model: BPE = serde_json::from_str(parts.insert("model", nothing)?.get()).ok()?;
    let added = parts.remove("added_tokens").map_or("[]", RawValue::get);
    let added: Vec<Added> = serde_json::from_str(added).ok()?;
    let mut tokenizer = tokenizers::Tokenizer::from_bytes(serde_json::to_vec(&parts).ok()?).ok()?;
    tokenizer.with_model(model);
    tokenizer.add_tokens(added.into_iter().map(|added| added.token)).ok()?;
    Some(tokenizer)
}

/// A text as it fits a sentence.
pub(super) fn shortened(text: &str) -> String {
    const MOST: usize = 40;
    match text.char_indices().nth(MOST) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?} …", &text[..end]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `model` in a file with parts of all kinds.
    fn file(model: &str) -> String {
        format!(
            r#"{{
                "version": "1.0", "truncation": null, "padding": null,
                "added_tokens": [
                    {{"id": 4, "content": "<s>", "single_word": false, "lstrip": false, "rstrip": true,
                      "normalized": false, "special": true}},
                    {{"id": 3, "content": "ab", "single_word": true, "lstrip": true, "rstrip": false,
                      "normalized": true, "special": false}}
                ],
                "normalizer": {{"type": "Lowercase"}},
                "pre_tokenizer": {{"type": "Digits", "individual_digits": true}},
                "post_processor": {{
                    "type": "TemplateProcessing", "pair": [],
                    "single": [{{"SpecialToken": {{"id": "<s>", "type_id": 0}}}}, {{"Sequence": {{"id": "A", "type_id": 0}}}}],
                    "special_tokens": {{"<s>": {{"id": "<s>", "ids": [4], "tokens": ["<s>"]}}}}
                }},
                "decoder": {{"type": "Fuse"}},
                "model": {model}
            }}"#
        )
    }

    #[test]
    fn a_tokenizer_of_merges_is_what_the_library_reads() {
        let vocabulary = r#""vocab": {"a": 0, "b": 1, "\u00e9\"": 2, "ab": 3, "a\u00e9\"": 5}"#;
        let pairs = r#""merges": [["a", "b"], ["a", "\u00e9\""]]"#;
        for model in [
            format!(r#"{{"type": "BPE", {vocabulary}, {pairs}}}"#),
            format!(
                r#"{{"type": "BPE", "unk_token": "b", "fuse_unk": true, "byte_fallback": true, "ignore_merges": true,
                     "merges": ["a b"], "end_of_word_suffix": "", "continuing_subword_prefix": null, {vocabulary}}}"#
            ),
        ] {
            let json = file(&model).into_bytes();
            let [ours, theirs] =
                [of_merges(&json).unwrap(), tokenizers::Tokenizer::from_bytes(&json).unwrap()].map(|read| {
                    let tokens = read.encode_fast("abé\"12<s> ab", true).unwrap().get_ids().to_vec();
                    (read.to_string(true).unwrap(), tokens)
                });
            assert_eq!(ours, theirs);
        }
    }

    #[test]
    fn a_part_that_the_library_gives_up_on_is_an_error_and_no_panic() {
        let json = file(r#"{"type": "BPE", "vocab": {"a": 0, "ab": 3, "<s>": 4}, "merges": []}"#);
        let json = json.replacen(r#"{"id": "<s>", "type_id""#, r#"{"id": "<t>", "type_id""#, 1);
        let error = Tokenizer::read("t.json", json.as_bytes(), 8)
            .and_then(|read| read.encode("a", true))
            .unwrap_err();
        assert!(error.to_string().contains("gave up on one of its parts"), "{error}");
    }

    #[test]
    fn what_is_no_tokenizer_of_merges_is_left_to_the_library() {
        for model in [
            r#"{"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}"#,
            r#"{"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]}"#,
            r#"{"type": "BPE", "vocab": {"a": 0}, "merges": ["a"]}"#,
            r#"{"type": "BPE", "vocab": {"a": -1}, "merges": []}"#,
            r#"{"type": "BPE", "vocab": {"a": 0}}"#,
        ] {
            assert!(of_merges(file(model).as_bytes()).is_none(), "{model}");
        }
        let without_a_number = file(r#"{"type": "BPE", "vocab": {"<s>": 4, "ab": 3}, "merges": []}"#);
        assert!(of_merges(without_a_number.as_bytes()).is_some());
        assert!(of_merges(without_a_number.replace(r#""id": 4, "#, "").as_bytes()).is_none());
        assert!(of_merges(b"[]").is_none());
    }
}
