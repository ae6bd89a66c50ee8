//! What a folder must be able to do so that several machines may share a run there, tried.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write as _},
    path::Path,
};

use super::{folder_for_others, trace::UNFINISHED};
use crate::digest::Digest;

/// What a folder must be able to do.
pub struct Need {
    /// In a few words.
    pub name: &'static str,
    /// What fails where it cannot.
    pub otherwise: &'static str,
    tried: fn(&Path) -> io::Result<()>,
}

/// All of it.
pub const NEEDS: [Need; 4] = [
    Need {
        name: "gives back what was written",
        otherwise: "a trace is damaged there, and its cell runs again and again",
        tried: reads_back,
    },
    Need {
        name: "locks a file against a second process",
        otherwise: "a part that is started twice is not refused, and both write to one folder: mount it with locks",
        tried: locks,
    },
    Need {
        name: "moves a folder in one step, and onto no other",
        otherwise: "a trace is seen half-written: take a folder on a file system that renames folders",
        tried: renames,
    },
    Need {
        name: "takes names of 255 bytes",
        otherwise: "a cell of a long name cannot be written: take a folder on another file system",
        tried: takes_long_names,
    },
];

impl Need {
    /// Tries it in a folder, which is left as it was.
    ///
    /// # Errors
    ///
    /// When the folder cannot.
    pub fn tried(&self, folder: &Path) -> io::Result<()> {
        let own = folder_for_others().prefix(UNFINISHED).tempdir_in(folder)?;
        (self.tried)(own.path())
    }
}

fn reads_back(own: &Path) -> io::Result<()> {
    let bytes: Vec<u8> = (0..1u32 << 18).flat_map(u32::to_le_bytes).collect();
    let path = own.join("bytes");
    let mut file = File::create(&path)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    let is_same = Digest::of(&fs::read(&path)?) == Digest::of(&bytes);
    if is_same { Ok(()) } else { Err(io::Error::other("it gives back other bytes")) }
}

fn locks(own: &Path) -> io::Result<()> {
    let path = own.join("lock");
    let one = File::create(&path)?;
    one.lock()?;
    match File::create(&path)?.try_lock() {
        Err(TryLockError::WouldBlock) => Ok(()),
        Err(TryLockError::Error(error)) => Err(error),
        Ok(()) => Err(io::Error::other("two lock one file")),
    }
}

fn renames(own: &Path) -> io::Result<()> {
    let [one, other, place] = ["one", "other", "place"].map(|name| own.join(name));
    for folder in [&one, &other] {
        fs::create_dir(folder)?;
        fs::write(folder.join("file"), b"")?;
    }
    fs::rename(&one, &place)?;
    if one.exists() || !place.join("file").exists() {
        return Err(io::Error::other("a folder that was moved is not where it should be"));
    }
    match fs::rename(&other, &place) {
        Err(_) => Ok(()),
        Ok(()) => Err(io::Error::other("a folder is moved onto another one")),
    }
}

fn takes_long_names(own: &Path) -> io::Result<()> {
    File::create(own.join("x".repeat(255))).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_this_machine_can_do_what_is_needed_and_is_left_as_it_was() {
        let folder = tempfile::tempdir().unwrap();
        for need in &NEEDS {
            need.tried(folder.path()).unwrap_or_else(|error| panic!("{}: {error}", need.name));
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
        assert!(NEEDS[0].tried(&folder.path().join("nowhere")).is_err());
    }
}
