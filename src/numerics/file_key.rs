//! What stands in the name of a cell for a file that is part of its identity.

use std::{fmt, num::NonZeroU64, str::FromStr};

/// How many digits of a SHA-256 name a file.
pub(crate) const DIGITS: usize = 16;

/// The beginning of a file's SHA-256, so that nothing else can be meant.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct FileKey(NonZeroU64);

/// A text that is no such beginning.
#[derive(Clone, Copy, Debug)]
pub struct NoFileKey;

impl FileKey {
    /// That of a file with this SHA-256, in hexadecimal digits.
    pub(crate) fn of(sha256: &str) -> Result<FileKey, NoFileKey> {
        sha256.get(..DIGITS).unwrap_or(sha256).parse()
    }
}

impl fmt::Display for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:0DIGITS$x}", self.0)
    }
}

impl fmt::Debug for FileKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for FileKey {
    type Err = NoFileKey;

    fn from_str(text: &str) -> Result<FileKey, NoFileKey> {
        let is_digit = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        let digits = Some(text).filter(|text| text.len() == DIGITS && text.bytes().all(is_digit));
        let number = digits.and_then(|digits| u64::from_str_radix(digits, 16).ok());
        number.and_then(NonZeroU64::new).map(FileKey).ok_or(NoFileKey)
    }
}
