//! Checkpoints by their name on the Hugging Face Hub: found, fetched, and checked against what the Hub says.
//!
//! ```text
//!   owner/name@revision ── the API: which commit, which files ──► names
//!                                                                  │  each file that the cache lacks
//!                     ┌────────────────────────────────────────────┘
//!                     ▼
//!   HEAD resolve/<commit>/<name>   its digest and size
//!   GET  the same, redirects by hand, the token only for the endpoint itself
//!                     │
//!                     ▼
//!   blobs/<digest>.incomplete ── equal to its name? ──► blobs/<digest> ◄── snapshots/<commit>/<name>
//! ```
//!
//! The cache is the one that all Hugging Face libraries share, so what they have fetched is found, and what is fetched
//! here they find. In it a file's name *is* its digest: SHA-256 for what lies in LFS, the id of the git blob for the
//! rest. Every file is held to that name before it gets it, and again each time a snapshot is opened, from the network
//! or without it: a disk that forgets must not look like a model that changed. That costs one reading of the files at
//! the speed of SHA-256, and the files are then in memory for whoever maps them next.
//!
//! hf-hub knows where the API is asked for a revision, what it answers, and how the cache is laid out. Its own transfers do
//! not look at what they have written, wait without end, and trust other certificates than the system does. Bytes
//! therefore come by plain HTTP, here.

#[cfg(feature = "hub")]
mod cache;
#[cfg(feature = "hub")]
mod endpoint;
mod error;
mod id;
#[cfg(feature = "hub")]
mod open;
mod settings;
#[cfg(feature = "hub")]
mod transfer;

use std::{path::PathBuf, time::Duration};

pub use self::{
    error::HubError,
    id::{RepoId, RepoIdError},
    settings::{HubSettings, Patience, Token},
};

/// A repository at one commit, on this disk.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Snapshot {
    /// The folder that holds it.
    pub folder: PathBuf,
    /// `owner/name`.
    pub repo: String,
    /// What was asked for.
    pub revision: String,
    /// The commit that it stands for; every file is of this one.
    pub commit: String,
    /// Its files, in the order of their names.
    pub files: Vec<SnapshotFile>,
}

/// A file of a snapshot.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SnapshotFile {
    /// Its name in the repository.
    pub name: String,
    /// How many bytes it has.
    pub size: u64,
    /// The SHA-256 of its bytes, in hex.
    pub sha256: String,
    /// What it was held to.
    pub check: Check,
}

/// What a file was held to.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Check {
    /// The SHA-256 that the Hub gives for a file in LFS.
    Sha256,
    /// The id of its git blob, which is SHA-1, that the Hub gives for any other.
    GitBlob,
    /// Nothing: the cache was filled by somebody who left no digest.
    Nothing,
}

/// What is going on, for whoever waits.
#[derive(Debug)]
pub enum Step<'a> {
    /// The revision is this commit.
    Resolved {
        /// In full.
        commit: &'a str,
    },
    /// So much more is to come.
    Planned {
        /// How many files.
        files: usize,
        /// Their bytes together.
        bytes: u64,
    },
    /// So much of a file is here, counted from its beginning.
    Received {
        /// Its name.
        file: &'a str,
        /// The bytes that are here.
        bytes: u64,
        /// All that it has.
        size: u64,
    },
    /// Another process is fetching this file.
    Waiting {
        /// Its name.
        file: &'a str,
    },
    /// Something passing went wrong.
    Retrying {
        /// What it was.
        error: &'a HubError,
    },
    /// Files that were here already are read and compared with their digests.
    Checking {
        /// How many.
        files: usize,
        /// Their bytes together.
        bytes: u64,
    },
}

/// Brings a checkpoint's files to this disk, unless they are there, and checks every one of them.
///
/// A branch or tag is resolved to a commit first; a full commit whose files are all in the cache needs no network. Of
/// the repository only what a checkpoint needs is taken: configuration, tokenizer, and weights in safetensors.
///
/// # Errors
///
/// What is wrong and the way out of it; [`is_environment`](crate::source::Blame::is_environment) tells whether trying again makes sense.
pub fn snapshot(
    id: &RepoId,
    settings: &HubSettings,
    progress: &mut dyn FnMut(Step<'_>),
) -> Result<Snapshot, HubError> {
    #[cfg(feature = "hub")]
    return open::snapshot(id, settings, progress);
    #[cfg(not(feature = "hub"))]
    {
        let _ = (id, settings, progress);
        Err(HubError::NotBuilt)
    }
}

/// What became of the question whether the Hub is there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Ping {
    /// It answers, and accepts the token.
    Known,
    /// It answers; there is no token, or none that it accepts.
    Stranger,
    /// It answers something else: this status.
    Answers(String),
}

/// Asks the Hub who we are, once, and waits no longer than this for a connection and for each part of the answer.
///
/// # Errors
///
/// It cannot be reached, or is not a Hub.
pub fn ping(settings: &HubSettings, patience: Duration) -> Result<Ping, HubError> {
    #[cfg(feature = "hub")]
    return endpoint::ping(settings, patience);
    #[cfg(not(feature = "hub"))]
    {
        let _ = (settings, patience);
        Err(HubError::NotBuilt)
    }
}
