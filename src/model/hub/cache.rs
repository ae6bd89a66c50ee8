//! The folder that all Hugging Face libraries share: content-addressed blobs, and snapshots that point at them.

use std::{
    ffi::OsStr,
    fmt,
    fs::{self, File, TryLockError},
    io::{self, Read},
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

use hf_hub::{CacheRepo, Repo};
use sha1::Sha1;
use sha2::{Digest as _, Sha256};

use super::{Check, HubError, HubSettings, RepoId, SnapshotFile, id::is_commit};

/// What a file must be, as the Hub writes it and the cache names it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Digest(String);

impl Digest {
    /// 64 hex digits are a SHA-256, 40 the id of a git blob. Whatever else an ETag may be says nothing of the content,
    /// and must not become part of a path.
    pub(super) fn parse(text: &str) -> Option<Digest> {
        let is_hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        (is_hex && [40, 64].contains(&text.len())).then(|| Digest(text.to_owned()))
    }

    pub(super) fn check(&self) -> Check {
        if self.0.len() == 64 { Check::Sha256 } else { Check::GitBlob }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.check() == Check::Sha256 { "sha256" } else { "git blob" };
        write!(f, "{kind} {}", self.0)
    }
}

/// Bytes on their way into digests.
pub(super) struct Hasher {
    sha256: Sha256,
    git: Sha1,
    /// A git blob is hashed only where it is asked for: weights come in gigabytes.
    with_git: bool,
}

impl Hasher {
    /// The length is part of a git blob's id, and comes first.
    pub(super) fn new(length: u64, with_git: bool) -> Hasher {
        Hasher { sha256: Sha256::new(), git: Sha1::new_with_prefix(format!("blob {length}\0")), with_git }
    }

    pub(super) fn for_digest(length: u64, digest: &Digest) -> Hasher {
        Hasher::new(length, digest.check() == Check::GitBlob)
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.sha256.update(bytes);
        if self.with_git {
            self.git.update(bytes);
        }
    }

    /// Reads everything that is left of a file.
    pub(super) fn read(&mut self, mut file: impl Read) -> io::Result<u64> {
        let mut buffer = vec![0; 1 << 18];
        let mut length = 0;
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok(length),
                count => {
                    self.update(&buffer[..count]);
                    length += count as u64;
                }
            }
        }
    }

    /// The digest of each kind; that of a git blob is empty if it was not asked for.
    pub(super) fn finish(self) -> Digests {
        let git = if self.with_git { hex(&self.git.finalize()) } else { String::new() };
        Digests { sha256: hex(&self.sha256.finalize()), git }
    }
}

pub(super) struct Digests {
    pub(super) sha256: String,
    git: String,
}

impl Digests {
    /// The one of the same kind.
    pub(super) fn like(&self, digest: &Digest) -> Digest {
        Digest(match digest.check() {
            Check::Sha256 => self.sha256.clone(),
            _ => self.git.clone(),
        })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A file that was read and compared.
pub(super) enum Verified {
    Good(SnapshotFile),
    Bad { expected: Digest, found: Digest },
}

/// The part of the cache that belongs to one repository.
pub(super) struct Cache {
    root: PathBuf,
    /// `models--owner--name`.
    folder: String,
    layout: CacheRepo,
}

impl Cache {
    pub(super) fn new(settings: &HubSettings, id: &RepoId) -> Cache {
        let (root, repo) = (settings.cache.clone(), Repo::model(id.repo().to_owned()));
        Cache { folder: repo.folder_name(), layout: hf_hub::Cache::new(root.clone()).repo(repo), root }
    }

    fn repo(&self) -> PathBuf {
        self.root.join(&self.folder)
    }

    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.layout.pointer_path(commit)
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.layout.blob_path(&digest.0)
    }

    /// Where a blob grows; nothing else is ever written to under the name of a blob.
    pub(super) fn partial(&self, digest: &Digest) -> PathBuf {
        self.layout.blob_path(&format!("{}.incomplete", digest.0))
    }

    /// Is it there, and not merely a link to what is gone?
    pub(super) fn has(&self, commit: &str, name: &str) -> bool {
        self.snapshot(commit).join(name).is_file()
    }

    /// The commit that a revision stood for when it was last resolved.
    pub(super) fn commit_of(&self, revision: &str) -> Option<String> {
        let commit = fs::read_to_string(self.repo().join("refs").join(revision)).ok()?;
        Some(commit.trim().to_owned()).filter(|commit| is_commit(commit))
    }

    pub(super) fn remember(&self, revision: &str, commit: &str) -> Result<(), HubError> {
        let path = self.repo().join("refs").join(revision);
        replace(&path, |temporary| fs::write(temporary, commit))
    }

    /// Is it known that this commit has no such file?
    pub(super) fn is_absent(&self, commit: &str, name: &str) -> bool {
        self.repo().join(".no_exist").join(commit).join(name).exists()
    }

    pub(super) fn mark_absent(&self, commit: &str, name: &str) -> Result<(), HubError> {
        let path = self.repo().join(".no_exist").join(commit).join(name);
        if path.exists() { Ok(()) } else { replace(&path, |temporary| fs::write(temporary, "")) }
    }

    /// Holds a blob for this process; it is free again when the file is dropped or the process ends, however it ends.
    pub(super) fn lock(&self, digest: &Digest, waiting: impl FnOnce()) -> Result<File, HubError> {
        let path = self.root.join(".locks").join(&self.folder).join(format!("{}.lock", digest.0));
        create_parent(&path)?;
        let file = File::options()
            .create(true)
            .append(true)
            .open(&path)
            .map_err(HubError::cache("opened", &path))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::WouldBlock) => {
                waiting();
                file.lock().map_err(HubError::cache("locked", &path))?;
                Ok(file)
            }
            Err(TryLockError::Error(error)) => Err(HubError::cache("locked", &path)(error)),
        }
    }

    /// The blob under this name, if it is there and deserves it; one that does not is removed.
    pub(super) fn good_blob(&self, digest: &Digest, name: &str) -> Result<Option<SnapshotFile>, HubError> {
        let path = self.blob(digest);
        if !path.exists() {
            return Ok(None);
        }
        match verify(&path, name, Some(digest.clone()))? {
            Verified::Good(file) => Ok(Some(file)),
            Verified::Bad { .. } => remove(&path).map(|()| None),
        }
    }

    /// What came in full becomes the blob.
    pub(super) fn keep(&self, digest: &Digest) -> Result<(), HubError> {
        let path = self.blob(digest);
        fs::rename(self.partial(digest), &path).map_err(HubError::cache("put in place", &path))
    }

    /// Puts a blob into a snapshot under its own name.
    pub(super) fn point(&self, commit: &str, name: &str, digest: &Digest) -> Result<(), HubError> {
        let path = self.snapshot(commit).join(name);
        replace(&path, |temporary| {
            #[cfg(unix)]
            return std::os::unix::fs::symlink(Path::new("../../blobs").join(&digest.0), temporary);
            // Elsewhere a link needs privileges.
            #[cfg(not(unix))]
            {
                let blob = self.blob(digest);
                fs::hard_link(&blob, temporary).or_else(|_| fs::copy(blob, temporary).map(|_| ()))
            }
        })
    }

    /// Reads a file of a snapshot and holds it to its digest.
    pub(super) fn verify(&self, commit: &str, name: &str) -> Result<Verified, HubError> {
        let path = self.snapshot(commit).join(name);
        // A pointer is named after its blob. Where files are copied instead, the blob beside them bears the name.
        let target = fs::read_link(&path).ok();
        let digest =
            target.as_deref().and_then(Path::file_name).and_then(OsStr::to_str).and_then(Digest::parse);
        match verify(&path, name, digest)? {
            Verified::Good(file) if file.check == Check::Nothing => self.look_up(&path, file),
            verified => Ok(verified),
        }
    }

    /// Holds a file that is no pointer to the blob that bears its digest, if there is one.
    fn look_up(&self, path: &Path, file: SnapshotFile) -> Result<Verified, HubError> {
        let mut hasher = Hasher::new(file.size, true);
        hasher
            .read(File::open(path).map_err(HubError::cache("opened", path))?)
            .map_err(HubError::cache("read", path))?;
        let digests = hasher.finish();
        let check = [digests.sha256, digests.git]
            .into_iter()
            .map(Digest)
            .find(|digest| self.blob(digest).exists())
            .map_or(Check::Nothing, |digest| digest.check());
        Ok(Verified::Good(SnapshotFile { check, ..file }))
    }

    /// Takes a file out of the cache, and the blob behind it: neither may count as good again.
    pub(super) fn forget(&self, commit: &str, name: &str, digest: &Digest) -> Result<(), HubError> {
        remove(&self.snapshot(commit).join(name))?;
        remove(&self.blob(digest))
    }
}

fn verify(path: &Path, name: &str, digest: Option<Digest>) -> Result<Verified, HubError> {
    let file = File::open(path).map_err(HubError::cache("opened", path))?;
    let size = file.metadata().map_err(HubError::cache("read", path))?.len();
    let mut hasher = match &digest {
        Some(digest) => Hasher::for_digest(size, digest),
        None => Hasher::new(size, false),
    };
    let size = hasher.read(file).map_err(HubError::cache("read", path))?;
    let digests = hasher.finish();
    if let Some(expected) = &digest {
        let found = digests.like(expected);
        if found != *expected {
            return Ok(Verified::Bad { expected: expected.clone(), found });
        }
    }
    let check = digest.map_or(Check::Nothing, |digest| digest.check());
    Ok(Verified::Good(SnapshotFile { name: name.to_owned(), size, sha256: digests.sha256, check }))
}

pub(super) fn remove(path: &Path) -> Result<(), HubError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(HubError::cache("removed", path)(error)),
        _ => Ok(()),
    }
}

pub(super) fn create_parent(path: &Path) -> Result<(), HubError> {
    let parent = path.parent().unwrap_or(path);
    fs::create_dir_all(parent).map_err(HubError::cache("created", parent))
}

/// Makes a small file beside its place and moves it there, so that nobody ever sees half of it.
fn replace(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), HubError> {
    static MADE: AtomicU64 = AtomicU64::new(0);
    create_parent(path)?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(format!(".{}-{}.tmp", process::id(), MADE.fetch_add(1, Ordering::Relaxed)));
    let temporary = PathBuf::from(temporary);
    remove(&temporary)?;
    make(&temporary).and_then(|()| fs::rename(&temporary, path)).map_err(HubError::cache("written", path))
}
