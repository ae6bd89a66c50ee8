//! A checkpoint's tokenizer: text to tokens and back, the same every time.

use std::panic;

use serde::de::IgnoredAny;
use tokenizers::ModelWrapper;

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
        let read = panic::catch_unwind(|| tokenizers::Tokenizer::from_bytes(json));
        let choked = || unreadable("the library that reads it gave up on one of its parts".to_owned());
        let mut inner = read.map_err(|_| choked())?.map_err(|error| unreadable(error.to_string()))?;
        // Both belong to a training run that wrote the file. A prompt is neither cut nor filled up.
        inner.with_truncation(None).map_err(|error| unreadable(error.to_string()))?;
        inner.with_padding(None);
        if let ModelWrapper::BPE(model) = inner.get_model()
            && let Some(dropout) = model.dropout.filter(|&dropout| dropout != 0.0)
        {
            return Err(TokenizerError::Random { file: file.to_owned(), dropout });
        }
        let last = inner.get_vocab(true).into_iter().max_by_key(|(_, id)| *id);
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
        match self.inner.encode_fast(text, add_special) {
            Ok(encoding) => Ok(encoding.get_ids().to_vec()),
            Err(error) => Err(TokenizerError::Text {
                file: self.file.clone(),
                text: shortened(text),
                message: error.to_string(),
            }),
        }
    }

    /// The text of these tokens, bytes that are not UTF-8 as U+FFFD. Tokens that the tokenizer does not know have no
    /// text, and with `skip_special` neither have the special ones.
    ///
    /// The text of a part need not be that part of the text: a character may be cut, and some tokenizers drop a space
    /// at the beginning.
    pub fn decode(&self, tokens: &[u32], skip_special: bool) -> String {
        self.inner.decode(tokens, skip_special).unwrap_or_else(|_| {
            // Only a pattern that gives up on its text fails here; what the tokens are called is still true.
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

/// A text as it fits a sentence.
pub(super) fn shortened(text: &str) -> String {
    const MOST: usize = 40;
    match text.char_indices().nth(MOST) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?} …", &text[..end]),
    }
}
