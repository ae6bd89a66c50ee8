//! What was measured beforehand of the activations that a model's products read, and the one name of that.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
    str::FromStr,
    sync::{LazyLock, PoisonError, RwLock},
};

use crate::{
    name::shortened,
    numerics::{
        at::At,
        file_key::{DIGITS, FileKey},
        quantizer::Limits,
    },
};

/// What a file says that `reprocheck calibrate` has written, by the file's key; where the file was read in this process, it is known
/// what it says.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Calibration(FileKey);

/// What a file says.
struct Known {
    /// The file, for whoever keeps it.
    text: String,
    /// The digest of the model that it is of.
    model: String,
    places: BTreeMap<At, Place>,
}

struct Place {
    limits: Limits,
    depth: usize,
    smooth: Option<Vec<f32>>,
}

/// The channels that a product reads.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Channels {
    /// The smallest value of each, zero among them.
    pub low: Vec<f32>,
    /// The largest of each.
    pub high: Vec<f32>,
    /// What each is divided by before the product, whose weights it multiplies.
    pub smooth: Option<Vec<f32>>,
}

impl Channels {
    /// The limits of all of them, as the product reads them.
    pub fn limits(&self) -> Limits {
        let by = |channel: usize| self.smooth.as_ref().map_or(1.0, |smooth| smooth[channel]);
        let ends = self.low.iter().zip(&self.high).enumerate();
        let ends = ends.map(|(channel, (low, high))| (low / by(channel), high / by(channel)));
        let (low, high) =
            ends.fold((0.0_f32, 0.0_f32), |(low, high), (one, other)| (low.min(one), high.max(other)));
        Limits::new(low, high)
    }
}

/// What every file says that this process has read, kept for as long as it runs. A matrix has few.
static KNOWN: LazyLock<RwLock<HashMap<Calibration, &'static Known>>> = LazyLock::new(RwLock::default);

/// How a parameter begins that names one.
pub(crate) const CALIBRATION: &str = "calibration=";

/// Why a text names none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`calibration={}` names a file, and here none is read: write the {DIGITS} hexadecimal digits that stand for it in the names of cells",
    shortened(.0)
)]
pub struct CalibrationError(String);

impl Calibration {
    /// The one of a file with this SHA-256, in hexadecimal digits, whose text says this of each place of a model with that digest.
    ///
    /// # Errors
    ///
    /// When these are no such digits.
    pub fn learned(
        sha256: &str,
        text: &str,
        model: &str,
        places: impl IntoIterator<Item = (At, Channels)>,
    ) -> Result<Calibration, CalibrationError> {
        let key = FileKey::of(sha256).map_err(|_| CalibrationError(sha256.to_owned()))?;
        let calibration = Calibration(key);
        KNOWN.write().unwrap_or_else(PoisonError::into_inner).entry(calibration).or_insert_with(|| {
            let places = places.into_iter().map(|(at, channels)| {
                let (limits, depth) = (channels.limits(), channels.low.len());
                (at, Place { limits, depth, smooth: channels.smooth })
            });
            let known = Known { text: text.to_owned(), model: model.to_owned(), places: places.collect() };
            Box::leak(Box::new(known))
        });
        Ok(calibration)
    }

    fn known(self) -> Option<&'static Known> {
        KNOWN.read().unwrap_or_else(PoisonError::into_inner).get(&self).copied()
    }

    /// The text of its file, if that was read.
    pub fn text(self) -> Option<&'static str> {
        Some(&self.known()?.text)
    }

    /// The digest of the model that it is of, if its file was read.
    pub fn model(self) -> Option<&'static str> {
        Some(&self.known()?.model)
    }

    fn place(self, at: At) -> Option<&'static Place> {
        self.known()?.places.get(&at)
    }

    /// The limits of what a place reads; where nothing is known of it, [`Limits::NONE`].
    pub fn limits(self, at: At) -> Limits {
        self.place(at).map_or(Limits::NONE, |place| place.limits)
    }

    /// How many channels a place reads, if anything is known of it.
    pub fn depth(self, at: At) -> Option<usize> {
        self.place(at).map(|place| place.depth)
    }

    /// What each channel of a place is divided by, if anything.
    pub fn smooth(self, at: At) -> Option<&'static [f32]> {
        self.place(at)?.smooth.as_deref()
    }
}

impl fmt::Display for Calibration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for Calibration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Calibration {
    type Err = CalibrationError;

    fn from_str(text: &str) -> Result<Calibration, CalibrationError> {
        text.parse().map(Calibration).map_err(|_| CalibrationError(text.to_owned()))
    }
}

/// The first file in the name of a precision or a cell, or in a map, that stands where a calibration does, and how long what comes before it is.
pub fn file_in(name: &str) -> Option<(usize, &str)> {
    let starts = name.match_indices(CALIBRATION).filter(|(start, _)| name[..*start].ends_with([':', ',']));
    let files = starts.map(|(start, begin)| {
        let start = start + begin.len();
        let rest = &name[start..];
        let ends = |character: char| matches!(character, '/' | ',' | ';' | '#') || character.is_whitespace();
        (start, &rest[..rest.find(ends).unwrap_or(rest.len())])
    });
    files.into_iter().find(|(_, file)| file.parse::<FileKey>().is_err())
}
