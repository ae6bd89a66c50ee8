//! A file whose parts grow side by side and lie there one after the other: none of them is in memory.

use std::{
    fs::File,
    io::{self, BufWriter, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use super::StoreError;

/// A file to be, which is not there before it is whole.
pub struct Parts {
    path: PathBuf,
    first: BufWriter<NamedTempFile>,
    /// Nameless files, of which nothing is left behind, whatever happens.
    others: Vec<BufWriter<File>>,
}

impl Parts {
    /// Of a first part and so many others, all empty; the folders that the file lies in are made.
    ///
    /// # Errors
    ///
    /// When they cannot be written.
    pub fn new(path: &Path, others: usize) -> Result<Parts, StoreError> {
        let open = || {
            let folder = super::folder_of(path)?;
            let others = (0..others).map(|_| tempfile::tempfile_in(folder).map(BufWriter::new));
            let others = others.collect::<io::Result<_>>()?;
            Ok((BufWriter::new(super::temporary().tempfile_in(folder)?), others))
        };
        let (first, others) = open().map_err(|error| StoreError::Write { path: path.to_owned(), error })?;
        Ok(Parts { path: path.to_owned(), first, others })
    }

    /// Adds to the end of a part; the first has the number 0.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub fn write(&mut self, part: usize, bytes: &[u8]) -> Result<(), StoreError> {
        let written = match part.checked_sub(1) {
            None => self.first.write_all(bytes),
            Some(other) => self.others[other].write_all(bytes),
        };
        written.map_err(|error| StoreError::Write { path: self.path.clone(), error })
    }

    /// Joins the parts, in their order, in place of what was there before.
    ///
    /// # Errors
    ///
    /// When they cannot be joined; what was there before is left alone then.
    pub fn finish(self) -> Result<(), StoreError> {
        let Parts { path, mut first, others } = self;
        let join = || {
            for other in others {
                let mut file = other.into_inner().map_err(io::IntoInnerError::into_error)?;
                file.rewind()?;
                io::copy(&mut file, &mut first)?;
            }
            let file = first.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.persist(&path)?;
            Ok(())
        };
        join().map_err(|error| StoreError::Write { path: path.clone(), error })
    }
}
