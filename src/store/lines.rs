//! A file of JSON lines of which any can be read: one in memory, and the places of all.

use std::{
    fs::File,
    io::{self, BufRead as _, BufReader, Seek as _},
    marker::PhantomData,
    path::{Path, PathBuf},
};

use serde::de::DeserializeOwned;

/// The lines, each a `T`.
pub struct Lines<T> {
    path: PathBuf,
    file: BufReader<File>,
    /// Where each line begins, and where the last one ends.
    places: Vec<u64>,
    of: PhantomData<T>,
}

/// Why a line cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {error}; see that nothing has changed it", .path.display())]
pub struct LinesError {
    path: PathBuf,
    error: io::Error,
}

impl<T: DeserializeOwned> Lines<T> {
    /// Of a file.
    ///
    /// # Errors
    ///
    /// When it cannot be read.
    pub fn open(path: &Path) -> Result<Lines<T>, LinesError> {
        let wrong = |error| LinesError { path: path.to_owned(), error };
        let mut file = BufReader::new(File::open(path).map_err(wrong)?);
        let (mut places, mut end, mut line) = (vec![0], 0, Vec::new());
        loop {
            line.clear();
            match file.read_until(b'\n', &mut line).map_err(wrong)? {
                0 => break,
                length => end += length as u64,
            }
            places.push(end);
        }
        file.rewind().map_err(wrong)?;
        Ok(Lines { path: path.to_owned(), file, places, of: PhantomData })
    }

    /// How many there are.
    pub fn len(&self) -> u64 {
        self.places.len() as u64 - 1
    }

    /// Are there none?
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The line of this number, counted from 0.
    ///
    /// # Errors
    ///
    /// When it is not there, or cannot be read.
    pub fn get(&mut self, number: u64) -> Result<T, LinesError> {
        let read = self.read(number);
        read.map_err(|error| LinesError { path: self.path.clone(), error })
    }

    fn read(&mut self, number: u64) -> io::Result<T> {
        let place = *self.places.get(number as usize).ok_or(io::ErrorKind::UnexpectedEof)?;
        // What lies in the buffer is used where lines are read in their order.
        let here = self.file.stream_position()?;
        self.file.seek_relative(place as i64 - here as i64)?;
        let mut line = String::new();
        self.file.read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }
}
