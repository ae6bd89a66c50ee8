//! Calibrations as files: what was measured of the activations of a model, a line of JSON for each of its products.
//!
//! The first line says of which model, by which questions, and under which numerics. Every other one names a layer and a product, and
//! gives the smallest and the largest value of each channel that the product reads, zero among them; `smooth` is what each channel is
//! divided by, if a transform was asked for.

use std::{collections::BTreeMap, fs, path::Path};

use serde::{Deserialize, Serialize};

use crate::{
    digest::Digest,
    numerics::{
        kernel::{At, Step},
        precision::{Calibration, Channels, file_in},
    },
    source::Problems,
};

/// The form of files that are written now.
pub const FORM: u32 = 1;
/// What to do with a file that is not as it was written.
const AGAIN: &str = "write it anew with `reprocheck calibrate`";

/// What was measured, and how.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// The form of the file.
    #[serde(rename = "calibration")]
    pub form: u32,
    /// The program that wrote it.
    pub program: String,
    /// What the model is called.
    pub model: String,
    /// The digest of all its files.
    pub digest: Digest,
    /// How many layers it has.
    pub layers: usize,
    /// The suites whose questions were asked.
    pub suites: Vec<String>,
    /// How many of each.
    pub items: u64,
    /// The seed that they were drawn by.
    pub seed: u64,
    /// The digest of all questions, a line each.
    pub questions: Digest,
    /// How many tokens were read.
    pub tokens: u64,
    /// The precision and the order that all was computed in.
    pub numerics: String,
    /// What made the divisors, if there are any.
    pub transform: Option<String>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    layer: usize,
    step: String,
    low: Vec<f32>,
    high: Vec<f32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    smooth: Option<Vec<f32>>,
}

/// The text of a file.
///
/// # Errors
///
/// When a number has no place in JSON.
pub fn written<'a>(
    header: &Header,
    places: impl IntoIterator<Item = (usize, Step, &'a Channels)>,
) -> Result<String, serde_json::Error> {
    let mut text = serde_json::to_string(header)? + "\n";
    for (layer, step, channels) in places {
        let Channels { low, high, smooth } = channels.clone();
        text += &serde_json::to_string(&Line { layer, step: step.name().to_owned(), low, high, smooth })?;
        text.push('\n');
    }
    Ok(text)
}

/// Reads a file, which problems call `file`.
///
/// # Errors
///
/// The first thing that is wrong with it.
pub fn read(file: &str, text: &str) -> Result<Calibration, Problems> {
    let wrong = |sentence: String| wrong(file, sentence);
    let unread = |number: usize, error: serde_json::Error| {
        wrong(format!("line {number} is not what a calibration has there ({error}): {AGAIN}"))
    };
    let mut lines = text.lines().zip(1..);
    let (first, _) = lines.next().unwrap_or_default();
    let header: Header = serde_json::from_str(first).map_err(|error| unread(1, error))?;
    if header.form != FORM {
        return Err(wrong(format!(
            "it has form {}, and this program reads form {FORM}: {AGAIN}",
            header.form
        )));
    }
    let mut places: BTreeMap<At, Channels> = BTreeMap::new();
    for (line, number) in lines {
        let Line { layer, step, low, high, smooth } =
            serde_json::from_str(line).map_err(|error| unread(number, error))?;
        let problem = |what: &str| wrong(format!("line {number}, {step} of layer {layer}: {what}: {AGAIN}"));
        let step: Option<Step> = step.parse().ok().filter(|step| Step::PRODUCTS.contains(step));
        let Some(step) = step.filter(|_| layer < header.layers) else {
            return Err(problem("the model that it names has no such product with weights"));
        };
        let ends = |ends: &[f32], side: f32| {
            ends.len() == low.len() && ends.iter().all(|end| end.is_finite() && end * side >= 0.0)
        };
        if low.is_empty() || !ends(&low, -1.0) || !ends(&high, 1.0) {
            return Err(problem("every channel has a smallest value up to 0 and a largest from 0 on"));
        }
        let is_divisor = |by: &f32| by.is_normal() && *by > 0.0;
        if let Some(smooth) = &smooth
            && (smooth.len() != low.len() || !smooth.iter().all(is_divisor))
        {
            return Err(problem("every channel has a divisor above 0"));
        }
        if smooth.is_some() && !Step::BEHIND_NORMS.contains(&step) {
            return Err(problem("no norm comes before it that could take divisors"));
        }
        let at = At::layer(layer, step);
        if places.insert(at, Channels { low, high, smooth }).is_some() {
            return Err(problem("it stands there twice"));
        }
    }
    let mut all = (0..header.layers).flat_map(|layer| Step::PRODUCTS.map(|step| At::layer(layer, step)));
    if let Some(at) = all.find(|at| !places.contains_key(at)) {
        return Err(wrong(format!("it says nothing of {at}: {AGAIN}")));
    }
    let sha256 = Digest::of(text.as_bytes()).to_string();
    Calibration::learned(&sha256, text, &header.digest.to_string(), places)
        .map_err(|error| wrong(error.to_string()))
}

/// A problem of a whole file.
fn wrong(file: &str, sentence: String) -> Problems {
    let mut problems = Problems::new(file, "");
    problems.add(None, sentence);
    problems
}

/// Reads the file of that name in a folder.
///
/// # Errors
///
/// When there is none, or what is wrong with it.
pub fn open(folder: &Path, name: &str) -> Result<Calibration, Problems> {
    let path = folder.join(name);
    let file = path.display().to_string();
    let text = fs::read_to_string(&path).map_err(|error| {
        wrong(
            &file,
            format!(
                "it cannot be read ({error}): put beside the matrix file, or where the program runs, what `reprocheck calibrate` has \
                 written, and write its name without a folder"
            ),
        )
    })?;
    read(&file, &text)
}

/// The name of a precision or of a cell, with what stands for a calibration in the place of every file of one, which lies in this
/// folder.
///
/// # Errors
///
/// What is wrong with one of them.
pub fn in_its_words(text: &str, folder: &Path) -> Result<String, Problems> {
    let mut words = text.to_owned();
    while let Some((start, file)) = file_in(&words) {
        let calibration = open(folder, file)?;
        let end = start + file.len();
        words.replace_range(start..end, &calibration.to_string());
    }
    Ok(words)
}
