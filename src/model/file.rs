//! The files of a checkpoint, on disk or inside the binary: read at any place, and never further than they are long.

use std::{
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

use crate::digest::Digest;

/// Why a file of a checkpoint cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// A link in a cache whose file is gone.
    #[error("{0} is a link to nothing: fetch the file again, or remove the link")]
    DanglingLink(String),
    /// A folder, a pipe, a device.
    #[error("{0} is not a file: put the model's file in its place")]
    NotAFile(String),
    /// Something whose whole text must be read, of a size that no such text has.
    #[error(
        "{file} has {size} bytes, and no more than {most} are read: put the model's own file in its place"
    )]
    TooLarge {
        /// Which file.
        file: String,
        /// How large it is.
        size: u64,
        /// How large it may be.
        most: u64,
    },
    /// Something changed it while it was open.
    #[error(
        "{file} ends before byte {end}, which it had when it was opened: leave a model alone while it runs"
    )]
    Shrunk {
        /// Which file.
        file: String,
        /// Up to where it was to be read.
        end: u64,
    },
    /// The system said no.
    #[error("{file} cannot be read ({source}): see that it is there and may be read")]
    System {
        /// Which file.
        file: String,
        /// What the system said.
        source: io::Error,
    },
}

/// A file inside the binary.
#[derive(Clone, Copy, Debug)]
pub struct EmbeddedFile {
    /// Its name in the folder it came from.
    pub name: &'static str,
    /// All of it.
    pub bytes: &'static [u8],
}

/// Where a checkpoint's files are.
#[derive(Clone, Debug)]
pub(super) enum Folder {
    Disk(PathBuf),
    Embedded { model: &'static str, files: &'static [EmbeddedFile] },
}

impl Folder {
    /// What an error calls a file of this folder.
    pub(super) fn label(&self, name: &str) -> String {
        match self {
            Folder::Disk(folder) => folder.join(name).display().to_string(),
            Folder::Embedded { model, .. } => format!("{model}/{name} in this binary"),
        }
    }

    /// The file of that name, if there is one.
    pub(super) fn open(&self, name: &str) -> Result<Option<Source>, FileError> {
        let label = self.label(name);
        match self {
            Folder::Disk(folder) => Source::open(&folder.join(name), label),
            Folder::Embedded { files, .. } => {
                let file = files.iter().find(|file| file.name == name);
                Ok(file.map(|file| Source {
                    label,
                    size: file.bytes.len() as u64,
                    bytes: Bytes::Memory(file.bytes),
                }))
            }
        }
    }
}

/// What identifies a file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FileDigest {
    /// Its name in the model's folder.
    pub name: String,
    /// How many bytes it has.
    pub size: u64,
    /// Of all of them.
    pub sha256: Digest,
}

/// The files of a folder that are read as a whole, and what identifies those that were.
#[derive(Debug)]
pub(super) struct Texts<'a> {
    pub(super) folder: &'a Folder,
    pub(super) read: Vec<FileDigest>,
}

impl Texts<'_> {
    /// All of the file of that name, if there is one.
    pub(super) fn read(&mut self, name: &str, most: u64) -> Result<Option<Vec<u8>>, FileError> {
        let Some(source) = self.folder.open(name)? else { return Ok(None) };
        let bytes = source.read_whole(most)?;
        let (name, size, sha256) = (name.to_owned(), source.size, Digest::of(&bytes));
        self.read.push(FileDigest { name, size, sha256 });
        Ok(Some(bytes))
    }
}

/// An open file.
#[derive(Debug)]
pub(super) struct Source {
    /// What an error calls it.
    pub(super) label: String,
    /// How many bytes it had when it was opened.
    pub(super) size: u64,
    bytes: Bytes,
}

#[derive(Debug)]
enum Bytes {
    File(File),
    Memory(&'static [u8]),
}

impl Source {
    pub(super) fn open(path: &Path, label: String) -> Result<Option<Source>, FileError> {
        let system = |source| FileError::System { file: label.clone(), source };
        // Before it is opened: opening a pipe would wait for whoever writes to it.
        let about = match fs::metadata(path) {
            Ok(about) => about,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return match fs::symlink_metadata(path) {
                    Ok(_) => Err(FileError::DanglingLink(label)),
                    Err(_) => Ok(None),
                };
            }
            Err(error) => return Err(system(error)),
        };
        if !about.is_file() {
            return Err(FileError::NotAFile(label));
        }
        let file = File::open(path).map_err(system)?;
        let size = file.metadata().map_err(system)?.len();
        Ok(Some(Source { label, size, bytes: Bytes::File(file) }))
    }

    /// Fills `out` with the bytes from `offset` on.
    pub(super) fn read(&self, out: &mut [u8], offset: u64) -> Result<(), FileError> {
        let end = offset.saturating_add(out.len() as u64);
        let read = match &self.bytes {
            Bytes::File(file) => read_exact_at(file, out, offset),
            Bytes::Memory(bytes) => usize::try_from(offset)
                .ok()
                .and_then(|begin| bytes.get(begin..)?.get(..out.len()))
                .map(|bytes| out.copy_from_slice(bytes))
                .ok_or_else(|| io::ErrorKind::UnexpectedEof.into()),
        };
        read.map_err(|source| match source.kind() {
            io::ErrorKind::UnexpectedEof => FileError::Shrunk { file: self.label.clone(), end },
            _ => FileError::System { file: self.label.clone(), source },
        })
    }

    /// All of a file that is small by its nature.
    pub(super) fn read_whole(&self, most: u64) -> Result<Vec<u8>, FileError> {
        if self.size > most {
            return Err(FileError::TooLarge { file: self.label.clone(), size: self.size, most });
        }
        let mut bytes = vec![0; self.size as usize];
        self.read(&mut bytes, 0)?;
        Ok(bytes)
    }

    /// Hands over the whole file in pieces.
    pub(super) fn pieces(&self, mut take: impl FnMut(&[u8])) -> Result<(), FileError> {
        let mut buffer = vec![0; self.size.min(PIECE as u64) as usize];
        let mut offset = 0;
        while offset < self.size {
            let length = (self.size - offset).min(PIECE as u64);
            let piece = &mut buffer[..length as usize];
            self.read(piece, offset)?;
            take(piece);
            offset += length;
        }
        Ok(())
    }

    pub(super) fn digest(&self) -> Result<Digest, FileError> {
        let mut hasher = Sha256::new();
        self.pieces(|piece| hasher.update(piece))?;
        Ok(Digest(hasher.finalize().into()))
    }
}

/// How much is read at once: enough to forget the cost of a system call, little enough to stay in a core's cache.
pub(super) const PIECE: usize = 1 << 20;

#[cfg(unix)]
fn read_exact_at(file: &File, out: &mut [u8], offset: u64) -> io::Result<()> {
    std::os::unix::fs::FileExt::read_exact_at(file, out, offset)
}

#[cfg(windows)]
fn read_exact_at(file: &File, mut out: &mut [u8], mut offset: u64) -> io::Result<()> {
    use std::os::windows::fs::FileExt;
    while !out.is_empty() {
        match file.seek_read(out, offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                out = &mut out[read..];
                offset += read as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
