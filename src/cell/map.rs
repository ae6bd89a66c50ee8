//! Precision maps as files: line by line, which steps of which layers have which precision.
//!
//! ```text
//! all: cast:e4m3                 # first, so that every place has one
//! layers 0-3, down: bf16        # a step of some layers
//! layers 7 12-, gate-up down: bf16
//! head: fp32                    # a step without layers: in all of them, or outside
//! ```
//!
//! A later line holds where two meet.

use std::{borrow::Cow, fs, ops::Range, path::Path};

use super::{calibration, program};
use crate::{
    numerics::{
        functions::program::file_of as program_of,
        kernel::Step,
        precision::{Layers, Map, MapError, Precision, Rule, Where, file_in, file_of, plain},
    },
    source::Problems,
};

/// The word that begins a map.
const ALL: &str = "all";
/// The word before layers.
const LAYERS: &str = "layers";
/// What begins a comment.
const COMMENT: char = '#';

/// Reads a map; `file` is what problems call it. One that gives every place the same precision is that precision.
///
/// # Errors
///
/// Everything that is wrong with its lines.
pub fn read(file: &str, text: &str) -> Result<Precision, Problems> {
    let mut problems = Problems::new(file, text);
    let mut base = None;
    let mut rules: Vec<Rule> = Vec::new();
    let mut end = 0;
    for line in text.split_inclusive('\n') {
        let start = end;
        end += line.len();
        let said = line.split(COMMENT).next().unwrap_or_default();
        let span = |part: &str| -> Range<usize> {
            // It is a part of the line, so it has a place there.
            let from = start + (part.as_ptr() as usize - line.as_ptr() as usize);
            from..from + part.len()
        };
        let said = said.trim();
        if said.is_empty() {
            continue;
        }
        let Some((places, precision)) = said.split_once(':') else {
            problems.add(span(said), "this gives no place a precision: write for example down: bf16");
            continue;
        };
        let (places, precision) = (places.trim(), precision.trim());
        let precision =
            plain(precision).map_err(|error| problems.add(span(precision), error.to_string())).ok();
        if places == ALL {
            if base.is_some() {
                problems.add(
                    span(places),
                    "`all` overrides whatever is said before it: keep one such line, the first",
                );
            } else if !rules.is_empty() {
                problems.add(span(places), "`all` comes first: a later line holds where two meet");
            }
            // What is wrong with its precision has been told.
            base = base.or(Some(precision.unwrap_or(Precision::Fp32)));
            continue;
        }
        match where_of(places) {
            Ok(places) => rules.push(Rule { places, precision: precision.unwrap_or(Precision::Fp32) }),
            Err((part, sentence)) => problems.add(span(part), sentence),
        }
    }
    if base.is_none() {
        let sentence = match rules.is_empty() {
            true => "it says nothing: begin with what all places have, such as all: bf16",
            false => "it does not say what all other places have: begin with a line such as all: bf16",
        };
        problems.add(None, sentence);
    }
    problems.none()?;
    let rules = rules.into_iter().map(|Rule { places, precision }| (places, precision));
    Ok(Map::new(base.unwrap_or(Precision::Fp32), rules))
}

/// The places of a line, or the part of it that names none and why not.
fn where_of(text: &str) -> Result<Where, (&str, String)> {
    let (first, rest) = text.split_once(',').unwrap_or((text, ""));
    let mut words = first.split_whitespace();
    let is_of_layers = words.clone().next() == Some(LAYERS);
    let mut layers: Vec<Layers> = Vec::new();
    if is_of_layers {
        words.next();
        for word in words.by_ref() {
            let read: Result<Layers, MapError> = word.parse();
            layers.push(read.map_err(|error| match (error, word.parse::<Step>()) {
                (MapError::Layer(_), Ok(_)) => {
                    (word, format!("steps come behind a comma: write layers …, {word}"))
                }
                (error, _) => (word, error.to_string()),
            })?);
        }
        if layers.is_empty() {
            return Err((text, "these layers have no numbers: write for example layers 0-3".to_owned()));
        }
    }
    let named = words.chain(rest.split([',', ' ', '\t']).filter(|word| !word.is_empty()));
    let mut steps = Vec::new();
    for word in named {
        steps.push(match word {
            "layer" => return Err((word, "write `layers`, before one of them too".to_owned())),
            LAYERS => {
                return Err((
                    text,
                    "layers come before steps: write for example layers 0-3, down".to_owned(),
                ));
            }
            _ => word.parse().map_err(|error| (word, format!("{error}")))?,
        });
    }
    if steps.is_empty() && (!is_of_layers || text.contains(',')) {
        return Err((text, "this names no step: write some, such as down or gate-up".to_owned()));
    }
    Where::new(layers, steps).map_err(|error| (text, error.to_string()))
}

/// Reads the map of a file's name in a folder.
///
/// # Errors
///
/// When there is none, or everything that is wrong with its lines.
pub fn open(folder: &Path, name: &str) -> Result<Precision, Problems> {
    let path = folder.join(name);
    let file = path.display().to_string();
    let nothing = |sentence: String| {
        let mut problems = Problems::new(&file, "");
        problems.add(None, sentence);
        problems
    };
    if name.is_empty() || name.contains(['/', '\\']) {
        return Err(nothing(
            "a map lies beside the matrix file, or where the program runs: write map:FILE, with its name and no folder".to_owned(),
        ));
    }
    let text = fs::read_to_string(&path).map_err(|error| {
        nothing(format!(
            "it cannot be read ({error}): put the map there, or write its words in place of the file, with a `;`, such as \
             map:bf16;head=fp32"
        ))
    })?;
    read(&file, &calibration::in_its_words(&text, folder)?)
}

/// What a person wrote for a precision, or for a cell, with what its map says in the place of the map's file, and what stands for a
/// calibration in the place of its file. They lie in this folder.
///
/// # Errors
///
/// What is wrong with such a file.
pub fn in_its_words<'a>(text: &'a str, folder: &Path) -> Result<Cow<'a, str>, Problems> {
    if file_in(text).is_some() {
        let words = calibration::in_its_words(text, folder)?;
        return Ok(Cow::Owned(in_its_words(&words, folder)?.into_owned()));
    }
    let words = |part: &'a str| {
        if let Some(words) = program::in_its_words(part, folder)? {
            return Ok(Cow::Owned(words));
        }
        Ok(match (file_of(part), part.parse::<Precision>()) {
            (Some(name), _) => Cow::Owned(open(folder, name)?.to_string()),
            // One map has many texts and one name.
            (None, Ok(map @ Precision::Map(_))) => Cow::Owned(map.to_string()),
            _ => Cow::Borrowed(part),
        })
    };
    // The name of a cell begins with its engine.
    if text.starts_with("map:") || program_of(text).is_some() {
        return words(text);
    }
    let parts = text.split('/').map(words).collect::<Result<Vec<_>, Problems>>()?;
    Ok(parts.join("/").into())
}

/// The text of a file that says which precision holds where: read again, it is the same precision.
pub fn written(precision: Precision) -> String {
    let Precision::Map(map) = precision else { return format!("{ALL}: {precision}\n") };
    let mut text = format!("{ALL}: {}\n", map.base());
    for Rule { places, precision } in map.rules() {
        let layers: Vec<_> = places.layers().iter().map(Layers::to_string).collect();
        let steps: Vec<_> = places.steps().iter().map(|step| step.name()).collect();
        let layers = Some(format!("{LAYERS} {}", layers.join(" "))).filter(|_| !layers.is_empty());
        let steps = Some(steps.join(" ")).filter(|steps| !steps.is_empty());
        let places: Vec<_> = layers.into_iter().chain(steps).collect();
        text.push_str(&format!("{}: {precision}\n", places.join(", ")));
    }
    text
}
