//! What a matrix file says of a server: how it is spoken to, where it is, and what its settings stand for.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;

use super::dialect::Dialect;
use crate::{
    cell::{
        Name,
        server::{Settings, is_axis},
    },
    digest::Digest,
};

/// What a matrix file says of a server.
#[derive(Clone, Debug)]
pub struct Server {
    /// How it is spoken to.
    pub dialect: &'static Dialect,
    /// Where it is, or how it is started.
    pub place: Place,
    /// The path that answers with 200 once it can be asked.
    pub ready: String,
    /// Variables of the environment that it is started with, beside our own.
    pub env: BTreeMap<String, String>,
    /// How long an answer, or its start, is waited for.
    pub timeout: Duration,
    /// What it calls the model; what it says itself where there is none.
    pub model: Option<String>,
    /// The variable of the environment that holds its key.
    pub key_env: Option<String>,
    /// The axes that are declared for it, each with its words and with the arguments that they stand for.
    pub axes: BTreeMap<Name, Vec<(Name, Vec<String>)>>,
}

/// Where a server is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub enum Place {
    /// There, started by somebody else.
    Url(String),
    /// Here, started by this command.
    Command(Vec<String>),
}

/// A piece of an argument.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece<'a> {
    /// As it stands.
    Text(&'a str),
    /// What stands in braces.
    Placeholder(&'a str),
}

/// The pieces of an argument: a word in braces is a placeholder, any other brace is a brace.
pub fn pieces(argument: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let (mut rest, mut from) = (argument, 0);
    while let Some(open) = rest[from..].find('{').map(|at| from + at) {
        let end = rest[open..].find('}').map(|at| open + at);
        let word = end.map(|end| &rest[open + 1..end]).filter(|word| is_axis(word));
        let (Some(end), Some(word)) = (end, word) else {
            from = open + 1;
            continue;
        };
        if open > 0 {
            pieces.push(Piece::Text(&rest[..open]));
        }
        pieces.push(Piece::Placeholder(word));
        (rest, from) = (&rest[end + 1..], 0);
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    pieces
}

impl Server {
    /// One value for all that may move a bit of it.
    pub fn digest(&self) -> Digest {
        let axes: Vec<_> = self
            .axes
            .iter()
            .map(|(axis, words)| {
                let words = words.iter().map(|(word, arguments)| (word.as_str(), arguments));
                (axis.as_str(), words.collect::<Vec<_>>())
            })
            .collect();
        let all = (self.dialect.name, &self.place, &self.model, &self.env, axes);
        Digest::of(&serde_json::to_vec(&all).expect("values are JSON"))
    }

    /// Does it say something with the path of the model in it?
    pub(super) fn names_the_path(&self) -> bool {
        let command = match &self.place {
            Place::Url(_) => &[][..],
            Place::Command(command) => command,
        };
        let mut texts = command.iter().chain(&self.model);
        texts.any(|text| pieces(text).contains(&Piece::Placeholder("model")))
    }

    /// What its command comes to under settings, with the path of the model and a port.
    pub(super) fn command(
        &self,
        command: &[String],
        settings: Settings,
        model: &str,
        port: u16,
    ) -> Vec<String> {
        let port = port.to_string();
        let arguments = |placeholder: &str| -> Vec<String> {
            match placeholder {
                "model" => vec![model.to_owned()],
                "port" => vec![port.clone()],
                axis => {
                    let axis = Name::new(axis);
                    let word = settings.get(axis);
                    let words = self.axes.get(&axis).into_iter().flatten();
                    words.filter(|(other, _)| Some(*other) == word).flat_map(|(_, all)| all.clone()).collect()
                }
            }
        };
        let all = command.iter().flat_map(|argument| match pieces(argument)[..] {
            [Piece::Placeholder(placeholder)] => arguments(placeholder),
            ref pieces => {
                let texts = pieces.iter().map(|piece| match piece {
                    Piece::Text(text) => (*text).to_owned(),
                    Piece::Placeholder(placeholder) => arguments(placeholder).concat(),
                });
                vec![texts.collect()]
            }
        });
        all.collect()
    }
}
