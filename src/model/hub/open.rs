//! From a name to a checked snapshot: which commit, which files, what is here, what must come.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::Read,
    path::Path,
};

use rayon::prelude::*;

use super::{
    HubError, HubSettings, RepoId, Snapshot, SnapshotFile, Step,
    cache::{Cache, Verified},
    id::is_commit,
    transfer::Remote,
};

/// Without these there is nothing to run.
const REQUIRED: &[&str] = &["config.json", "tokenizer.json"];

/// These are taken where they are.
const OPTIONAL: &[&str] =
    &["chat_template.jinja", "generation_config.json", "special_tokens_map.json", "tokenizer_config.json"];

/// The weights in one file, which goes before an index where there are both.
const WEIGHTS: &str = "model.safetensors";

/// Which file of many holds which weight.
const INDEX: &str = "model.safetensors.index.json";

/// The largest index known has a tenth of this.
const INDEX_BYTES: u64 = 64 << 20;

pub(super) fn snapshot(
    id: &RepoId,
    settings: &HubSettings,
    progress: &mut dyn FnMut(Step<'_>),
) -> Result<Snapshot, HubError> {
    let cache = Cache::new(settings, id);
    let mut opening = Opening { id, settings, cache, progress };
    let is_pinned = is_commit(id.revision());
    if settings.offline {
        let commit = match is_pinned {
            true => Some(id.revision().to_owned()),
            false => opening.cache.commit_of(id.revision()),
        };
        let commit = commit.ok_or_else(|| opening.not_cached(&format!("revision {}", id.revision())))?;
        return opening.cached(commit);
    }
    // What a commit holds never changes, so there is nothing to ask.
    if is_pinned && opening.is_complete(id.revision()) {
        return opening.cached(id.revision().to_owned());
    }
    opening.online()
}

struct Opening<'a> {
    id: &'a RepoId,
    settings: &'a HubSettings,
    cache: Cache,
    progress: &'a mut dyn FnMut(Step<'_>),
}

impl Opening<'_> {
    fn online(&mut self) -> Result<Snapshot, HubError> {
        let remote = Remote::new(self.settings, self.id)?;
        let (commit, names) = remote.resolve(self.progress)?;
        (self.progress)(Step::Resolved { commit: &commit });
        if let Some(file) = self.id.file() {
            let file = file.to_owned();
            if !names.contains(&file) {
                return Err(HubError::NoFile { repo: self.id.repo().to_owned(), commit, file });
            }
            let files = self.obtain(&remote, &commit, &[file])?;
            self.remember(&commit)?;
            return Ok(self.finished(commit, files));
        }
        let no_file = |file: &str| HubError::NoFile {
            repo: self.id.repo().to_owned(),
            commit: commit.clone(),
            file: file.to_owned(),
        };
        if let Some(missing) = REQUIRED.iter().find(|name| !names.contains(**name)) {
            return Err(no_file(missing));
        }
        let weights = [WEIGHTS, INDEX]
            .into_iter()
            .find(|name| names.contains(*name))
            .ok_or_else(|| no_file(WEIGHTS))?;
        let listed = OPTIONAL.iter().filter(|name| names.contains(**name));
        let first: Vec<_> =
            REQUIRED.iter().chain(listed).copied().chain([weights]).map(str::to_owned).collect();
        let mut files = self.obtain(&remote, &commit, &first)?;
        if weights == INDEX {
            let shards = shards(&self.cache.snapshot(&commit))?;
            if let Some(missing) = shards.iter().find(|name| !names.contains(*name)) {
                return Err(HubError::NoFile {
                    repo: self.id.repo().to_owned(),
                    commit,
                    file: format!("{missing}, which its {INDEX} names"),
                });
            }
            files.extend(self.obtain(&remote, &commit, &shards)?);
        }
        for name in OPTIONAL.iter().copied().chain([WEIGHTS, INDEX]).filter(|name| !names.contains(*name)) {
            self.cache.mark_absent(&commit, name)?;
        }
        self.remember(&commit)?;
        Ok(self.finished(commit, files))
    }

    /// Last, so that whoever finds the revision finds all of it.
    fn remember(&mut self, commit: &str) -> Result<(), HubError> {
        if self.id.revision() == commit { Ok(()) } else { self.cache.remember(self.id.revision(), commit) }
    }

    fn cached(&mut self, commit: String) -> Result<Snapshot, HubError> {
        let has = |name: &str| self.cache.has(&commit, name);
        if let Some(file) = self.id.file() {
            if !has(file) {
                return Err(self.not_cached(file));
            }
            let names = [file.to_owned()];
            (self.progress)(Step::Resolved { commit: &commit });
            let files = self.verify(&commit, &names)?;
            return Ok(self.finished(commit, files));
        }
        if let Some(missing) = REQUIRED.iter().find(|name| !has(name)) {
            return Err(self.not_cached(missing));
        }
        let weights =
            [WEIGHTS, INDEX].into_iter().find(|name| has(name)).ok_or_else(|| self.not_cached(WEIGHTS))?;
        let listed = OPTIONAL.iter().filter(|name| has(name));
        let mut names: Vec<_> =
            REQUIRED.iter().chain(listed).copied().chain([weights]).map(str::to_owned).collect();
        if weights == INDEX {
            let shards = shards(&self.cache.snapshot(&commit))?;
            if let Some(missing) = shards.iter().find(|name| !has(name)) {
                return Err(self.not_cached(missing));
            }
            names.extend(shards);
        }
        (self.progress)(Step::Resolved { commit: &commit });
        let files = self.verify(&commit, &names)?;
        Ok(self.finished(commit, files))
    }

    /// Is everything here that this commit has of what is wanted, as far as one can know without asking?
    fn is_complete(&self, commit: &str) -> bool {
        let has = |name: &str| self.cache.has(commit, name);
        if let Some(file) = self.id.file() {
            return has(file);
        }
        let is_settled = |name: &str| has(name) || self.cache.is_absent(commit, name);
        let weights = has(WEIGHTS)
            || (self.cache.is_absent(commit, WEIGHTS)
                && has(INDEX)
                && shards(&self.cache.snapshot(commit))
                    .is_ok_and(|shards| shards.iter().all(|shard| has(shard))));
        weights && REQUIRED.iter().all(|name| has(name)) && OPTIONAL.iter().all(|name| is_settled(name))
    }

    /// Checks the files that are here, and gets the others.
    fn obtain(
        &mut self,
        remote: &Remote<'_>,
        commit: &str,
        names: &[String],
    ) -> Result<Vec<SnapshotFile>, HubError> {
        let (here, missing): (Vec<_>, Vec<_>) =
            names.iter().cloned().partition(|name| self.cache.has(commit, name));
        let mut files = self.verify(commit, &here)?;
        let mut planned = Vec::new();
        for name in &missing {
            planned.push((name, remote.describe(commit, name, self.progress)?));
        }
        let bytes = planned.iter().fold(0_u64, |bytes, (_, promised)| bytes.saturating_add(promised.size));
        (self.progress)(Step::Planned { files: planned.len(), bytes });
        for (name, promised) in planned {
            files.push(remote.fetch(commit, name, &promised, &self.cache, self.progress)?);
            self.cache.point(commit, name, &promised.digest)?;
        }
        Ok(files)
    }

    fn verify(&mut self, commit: &str, names: &[String]) -> Result<Vec<SnapshotFile>, HubError> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let folder = self.cache.snapshot(commit);
        let sizes =
            names.iter().map(|name| fs::metadata(folder.join(name)).map_or(0, |metadata| metadata.len()));
        let bytes = sizes.fold(0_u64, u64::saturating_add);
        (self.progress)(Step::Checking { files: names.len(), bytes });
        let verified: Vec<_> = names.par_iter().map(|name| self.cache.verify(commit, name)).collect();
        let mut files = Vec::new();
        for (name, verified) in names.iter().zip(verified) {
            match verified? {
                Verified::Good(file) => files.push(file),
                // Without the network a damaged file is at least half of what somebody may need.
                Verified::Bad { expected, found } if self.settings.offline => {
                    let (expected, found) = (expected.to_string(), found.to_string());
                    return Err(HubError::Damaged { path: folder.join(name), expected, found });
                }
                Verified::Bad { expected, found } => {
                    self.cache.forget(commit, name, &expected)?;
                    return Err(HubError::Mismatch {
                        file: name.clone(),
                        repo: self.id.repo().to_owned(),
                        expected: expected.to_string(),
                        found: found.to_string(),
                    });
                }
            }
        }
        Ok(files)
    }

    fn not_cached(&self, what: &str) -> HubError {
        let (repo, cache) = (self.id.repo().to_owned(), self.settings.cache.clone());
        HubError::NotCached { repo, what: what.to_owned(), cache }
    }

    fn finished(&self, commit: String, mut files: Vec<SnapshotFile>) -> Snapshot {
        files.sort_by(|a, b| a.name.cmp(&b.name));
        Snapshot {
            folder: self.cache.snapshot(&commit),
            repo: self.id.repo().to_owned(),
            revision: self.id.revision().to_owned(),
            commit,
            files,
        }
    }
}

/// The files that the index names.
fn shards(folder: &Path) -> Result<Vec<String>, HubError> {
    #[derive(serde::Deserialize)]
    struct Index {
        weight_map: BTreeMap<String, String>,
    }
    let path = folder.join(INDEX);
    let wrong = |what: String| HubError::Index { path: path.clone(), what };
    let file = File::open(&path).map_err(HubError::cache("opened", &path))?;
    let mut text = Vec::new();
    file.take(INDEX_BYTES + 1).read_to_end(&mut text).map_err(HubError::cache("read", &path))?;
    if text.len() as u64 > INDEX_BYTES {
        return Err(wrong(format!("an index has at most {INDEX_BYTES} bytes, and this file has more")));
    }
    let index: Index =
        serde_json::from_slice(&text).map_err(|error| wrong(format!("not an index of weights: {error}")))?;
    let shards: BTreeSet<_> = index.weight_map.into_values().collect();
    if shards.is_empty() {
        return Err(wrong("names no weights".to_owned()));
    }
    match shards.iter().find(|name| !is_shard(name)) {
        // It would become part of a path.
        Some(name) => Err(wrong(format!("names {name:?}, which is not a safetensors file beside it"))),
        None => Ok(shards.into_iter().collect()),
    }
}

fn is_shard(name: &str) -> bool {
    let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    is_plain && !name.starts_with('.') && name.ends_with(".safetensors") && name.len() <= 200
}
