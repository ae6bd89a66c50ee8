//! The only writer of results: a result is whole or not there, and what is done of a cell that still runs lies beside.

pub mod faulty;
pub mod lines;
pub mod open;
pub mod partial;
pub mod parts;
pub mod run;
pub mod shared;
pub mod trace;

use std::{
    fs::{self, File},
    io::{self, BufRead as _, BufReader, Write as _},
    path::{Path, PathBuf},
};

use safetensors::{Dtype, SafeTensorError, serialize_to_file, tensor::TensorView};
use sha2::{Digest as _, Sha256};

use crate::digest::Digest;

/// Why a file was not written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file system would not.
    #[error("cannot write {}: {error}; {}", .path.display(), way_out(.error))]
    Write {
        /// The file.
        path: PathBuf,
        /// What it said.
        error: io::Error,
    },
}

/// What to do about it.
fn way_out(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "make room there, or choose another place"
        }
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            "let it be written, or choose another place"
        }
        _ => "choose another place, or free it",
    }
}

/// A file for what another program says, behind what is there of it.
///
/// # Errors
///
/// When it cannot be made.
pub fn log(path: &Path) -> io::Result<File> {
    folder_of(path)?;
    File::options().create(true).append(true).open(path)
}

/// Writes a file, and the folders that it lies in.
///
/// # Errors
///
/// When it cannot be written; what was there before is left alone then.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let written = || {
        let mut file = temporary().tempfile_in(folder_of(path)?)?;
        file.write_all(bytes)?;
        file.persist(path)?;
        Ok(())
    };
    written().map_err(|error| StoreError::Write { path: path.to_owned(), error })
}

/// A folder that goes when it is dropped, for what nobody keeps.
///
/// # Errors
///
/// When it cannot be made.
pub fn temporary_folder() -> Result<tempfile::TempDir, StoreError> {
    tempfile::tempdir().map_err(|error| StoreError::Write { path: std::env::temp_dir(), error })
}

/// The folder that a file is to lie in, which is made if it is not there.
fn folder_of(path: &Path) -> io::Result<&Path> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    Ok(folder)
}

/// A file that others may read as far as the user's mask lets them: a library's temporary files are for nobody else.
fn temporary() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
    builder
}

/// A folder that others may read as far as the user's mask lets them.
fn folder_for_others() -> tempfile::Builder<'static, 'static> {
    let mut builder = tempfile::Builder::new();
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
    builder
}

/// Writes the tokens that a model read and the logits after each of them, as safetensors: `tokens`, `[positions]`, and
/// `logits`, `[positions, vocabulary]`.
///
/// # Errors
///
/// When the file cannot be written; what was there before is left alone then.
pub fn write_logits(path: &Path, tokens: &[u32], logits: &[f32]) -> Result<(), StoreError> {
    let vocabulary = logits.len().checked_div(tokens.len()).unwrap_or(0);
    let bytes = |words: &[[u8; 4]]| words.as_flattened().to_vec();
    let tokens: Vec<_> = tokens.iter().map(|token| token.to_le_bytes()).collect();
    let logits: Vec<_> = logits.iter().map(|logit| logit.to_le_bytes()).collect();
    let (positions, tokens, logits) = (tokens.len(), bytes(&tokens), bytes(&logits));
    let views = [
        ("tokens", TensorView::new(Dtype::U32, vec![positions], &tokens)),
        ("logits", TensorView::new(Dtype::F32, vec![positions, vocabulary], &logits)),
    ];
    let views = views.map(|(name, view)| (name, view.expect("the shapes are those of the bytes")));
    // It writes beside the file and then renames.
    serialize_to_file(views, None, path).map_err(|error| StoreError::Write {
        path: path.to_owned(),
        error: match error {
            SafeTensorError::IoError(error) => error,
            other => io::Error::other(other),
        },
    })
}

/// Of a file, read from end to end.
fn file_digest(path: &Path) -> io::Result<Digest> {
    let mut hasher = Sha256::new();
    let mut file = BufReader::with_capacity(1 << 20, File::open(path)?);
    loop {
        let piece = file.fill_buf()?;
        if piece.is_empty() {
            return Ok(Digest(hasher.finalize().into()));
        }
        hasher.update(piece);
        let read = piece.len();
        file.consume(read);
    }
}
