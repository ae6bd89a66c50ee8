//! What a GGUF file says of itself: keys and values, each of which is asked for by its type.

use std::collections::BTreeMap;

use super::GgufError;

/// A value of the file, in as few types as serve.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum Value {
    /// Of any width.
    Integer(i128),
    Float(f64),
    Bool(bool),
    Text(String),
    Integers(Vec<i64>),
    Floats(Vec<f32>),
    Texts(Vec<String>),
    /// What nothing here needs.
    Other(&'static str),
}

impl Value {
    /// As it fits a sentence.
    fn shown(&self) -> String {
        const MOST: usize = 40;
        match self {
            Value::Integer(value) => value.to_string(),
            Value::Float(value) => value.to_string(),
            Value::Bool(value) => value.to_string(),
            Value::Text(text) => match text.char_indices().nth(MOST) {
                None => format!("{text:?}"),
                Some((end, _)) => format!("{:?} …", &text[..end]),
            },
            Value::Integers(list) => format!("a list of {} whole numbers", list.len()),
            Value::Floats(list) => format!("a list of {} numbers", list.len()),
            Value::Texts(list) => format!("a list of {} texts", list.len()),
            Value::Other(what) => (*what).to_owned(),
        }
    }
}

/// All keys of a file.
#[derive(Debug)]
pub(super) struct Metadata {
    /// What errors call the file.
    pub(super) file: String,
    pub(super) values: BTreeMap<String, Value>,
}

impl Metadata {
    /// What is wrong with a key.
    pub(super) fn wrong(&self, key: &str, wrong: impl Into<String>, way_out: &'static str) -> GgufError {
        let value = self.values.get(key).map_or_else(|| "absent".to_owned(), Value::shown);
        GgufError::Key { file: self.file.clone(), key: key.to_owned(), value, wrong: wrong.into(), way_out }
    }

    fn taken<'a, T>(
        &'a self,
        key: &str,
        what: &str,
        take: impl FnOnce(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, GgufError> {
        let Some(value) = self.values.get(key) else { return Ok(None) };
        match take(value) {
            Some(taken) => Ok(Some(taken)),
            None => Err(self.wrong(key, format!("it should be {what}"), "fetch the file again")),
        }
    }

    /// A text, if it is there.
    pub(super) fn text(&self, key: &str) -> Result<Option<&str>, GgufError> {
        self.taken(key, "a text", |value| match value {
            Value::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    /// A list of texts, if it is there.
    pub(super) fn texts(&self, key: &str) -> Result<Option<&[String]>, GgufError> {
        self.taken(key, "a list of texts", |value| match value {
            Value::Texts(texts) => Some(texts.as_slice()),
            _ => None,
        })
    }

    /// A list of whole numbers, if it is there.
    pub(super) fn integers(&self, key: &str) -> Result<Option<&[i64]>, GgufError> {
        self.taken(key, "a list of whole numbers", |value| match value {
            Value::Integers(integers) => Some(integers.as_slice()),
            _ => None,
        })
    }

    /// A list of numbers, if it is there.
    pub(super) fn floats(&self, key: &str) -> Result<Option<&[f32]>, GgufError> {
        self.taken(key, "a list of numbers", |value| match value {
            Value::Floats(floats) => Some(floats.as_slice()),
            _ => None,
        })
    }

    /// A whole number that is not negative, if it is there.
    pub(super) fn whole(&self, key: &str) -> Result<Option<u64>, GgufError> {
        self.taken(key, "a whole number from 0 up", |value| match value {
            Value::Integer(value) => u64::try_from(*value).ok(),
            _ => None,
        })
    }

    /// A finite number, if it is there.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>, GgufError> {
        self.taken(key, "a number", |value| match value {
            Value::Float(value) => Some(*value).filter(|value| value.is_finite()),
            Value::Integer(value) => Some(*value as f64),
            _ => None,
        })
    }

    /// A yes or no, if it is there.
    pub(super) fn flag(&self, key: &str) -> Result<Option<bool>, GgufError> {
        self.taken(key, "true or false", |value| match value {
            Value::Bool(value) => Some(*value),
            _ => None,
        })
    }
}
