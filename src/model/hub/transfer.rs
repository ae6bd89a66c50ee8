//! What goes over the network: one question to the Hub's API, and plain HTTP for every file.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{Read, Write},
    path::PathBuf,
    thread,
    time::Duration,
};

use hf_hub::{Repo, RepoType, api::RepoInfo};

use super::{
    HubError, HubSettings, RepoId, SnapshotFile, Step,
    cache::{Cache, Digest, Hasher, create_parent, remove},
    endpoint::{Endpoint, Response, json},
    id::is_commit,
};
use crate::http::{
    HeaderMap, HeaderValue, Method, StatusCode, Uri, bare,
    header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, LOCATION, RETRY_AFTER},
    join, said,
};

/// A chain of redirects that is longer goes in circles.
const REDIRECTS: usize = 10;

/// An attempt that brought this much was no failure in a row with the one before.
const HEADWAY: u64 = 1 << 20;

/// Nobody waits longer, whatever a server asks for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What the Hub says a file is.
pub(super) struct Promised {
    pub(super) digest: Digest,
    pub(super) size: u64,
}

/// A repository at the Hub.
pub(super) struct Remote<'a> {
    hub: Endpoint<'a>,
    id: &'a RepoId,
}

impl<'a> Remote<'a> {
    pub(super) fn new(settings: &'a HubSettings, id: &'a RepoId) -> Result<Remote<'a>, HubError> {
        Ok(Remote { hub: Endpoint::new(settings)?, id })
    }

    /// The commit that the revision is, and the names of its files.
    pub(super) fn resolve(
        &self,
        progress: &mut dyn FnMut(Step<'_>),
    ) -> Result<(String, BTreeSet<String>), HubError> {
        let (repo, revision) = (self.id.repo().to_owned(), self.id.revision().to_owned());
        let repo = Repo::with_revision(repo, RepoType::Model, revision);
        let url = self.hub.at(&format!("api/{}", repo.api_url()));
        let info: RepoInfo = self.patiently(progress, || {
            let (_, response) = self.get(&url, 0)?;
            // From wherever it came, it is the Hub's own answer.
            json(&url, self.accept(&url, response)?, "it names no commit with its files")
        })?;
        let wrong = |what: &str| HubError::NotAHub { url: bare(&url), what: what.to_owned() };
        if !is_commit(&info.sha) {
            return Err(wrong("it names no commit"));
        }
        if is_commit(self.id.revision()) && info.sha != self.id.revision() {
            return Err(wrong("it names another commit than the one asked for"));
        }
        Ok((info.sha, info.siblings.into_iter().map(|file| file.rfilename).collect()))
    }

    /// What the Hub says of a file, without its bytes.
    pub(super) fn describe(
        &self,
        commit: &str,
        name: &str,
        progress: &mut dyn FnMut(Step<'_>),
    ) -> Result<Promised, HubError> {
        self.patiently(progress, || {
            let url = self.file(commit, name);
            let wrong = |what: &str| HubError::NotAHub { url: bare(&url), what: what.to_owned() };
            let headers = self.head(&url)?;
            let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
            if text("x-repo-commit").is_some_and(|answered| answered != commit) {
                return Err(wrong("it gives a file of another commit"));
            }
            let tag = text("x-linked-etag").or(text(ETAG.as_str())).unwrap_or_default();
            let digest = Digest::parse(tag.trim_start_matches("W/").trim_matches('"'))
                .ok_or_else(|| wrong("its ETag is not a digest, so nothing could be checked"))?;
            let size =
                text("x-linked-size").or(text(CONTENT_LENGTH.as_str())).and_then(|size| size.parse().ok());
            Ok(Promised { digest, size: size.ok_or_else(|| wrong("it does not say how long the file is"))? })
        })
    }

    /// Brings a file into the cache's blobs, unless another process was faster.
    pub(super) fn fetch(
        &self,
        commit: &str,
        name: &str,
        promised: &Promised,
        cache: &Cache,
        progress: &mut dyn FnMut(Step<'_>),
    ) -> Result<SnapshotFile, HubError> {
        let Promised { digest, size } = promised;
        let _lock = cache.lock(digest, || progress(Step::Waiting { file: name }))?;
        if let Some(file) = cache.good_blob(digest, name)? {
            progress(Step::Received { file: name, bytes: file.size, size: *size });
            return Ok(file);
        }
        let mut incoming = Incoming::open(cache, digest, *size)?;
        loop {
            let has_old_bytes = incoming.received > 0;
            self.receive(&self.file(commit, name), name, &mut incoming, progress)?;
            let received = incoming.received;
            match incoming.finish(name, digest)? {
                Ok(file) => {
                    cache.keep(digest)?;
                    return Ok(file);
                }
                // What an earlier process left may have been spoilt since: the network has had no chance yet.
                Err(_) if has_old_bytes => {
                    remove(&cache.partial(digest))?;
                    incoming = Incoming::open(cache, digest, *size)?;
                }
                Err(found) => {
                    remove(&cache.partial(digest))?;
                    return Err(HubError::Mismatch {
                        file: name.to_owned(),
                        repo: self.id.repo().to_owned(),
                        expected: format!("{size} bytes, {digest}"),
                        found: format!("{received} bytes, {found}"),
                    });
                }
            }
        }
    }

    /// Reads what is still to come of a file, in as many requests as it takes.
    fn receive(
        &self,
        url: &Uri,
        name: &str,
        incoming: &mut Incoming,
        progress: &mut dyn FnMut(Step<'_>),
    ) -> Result<(), HubError> {
        let size = incoming.size;
        let mut failures = 0;
        loop {
            let before = incoming.received;
            progress(Step::Received { file: name, bytes: before, size });
            if before == size {
                return Ok(());
            }
            let error = match self.receive_once(url, name, incoming, progress) {
                Ok(()) => return Ok(()),
                Err(error) if error.is_passing() => error,
                Err(error) => return Err(error),
            };
            failures = if incoming.received >= before + HEADWAY { 1 } else { failures + 1 };
            if failures > self.hub.settings.patience.retries {
                return Err(error);
            }
            self.pause(failures, &error, progress);
        }
    }

    fn receive_once(
        &self,
        url: &Uri,
        name: &str,
        incoming: &mut Incoming,
        progress: &mut dyn FnMut(Step<'_>),
    ) -> Result<(), HubError> {
        let size = incoming.size;
        let (from, response) = self.get(url, incoming.received)?;
        let response = self.accept(&from, response)?;
        let continues = response.status() == StatusCode::PARTIAL_CONTENT
            && response
                .headers()
                .get(CONTENT_RANGE)
                .and_then(|range| range.to_str().ok())
                .is_some_and(|range| range.starts_with(&format!("bytes {}-", incoming.received)));
        if !continues && incoming.received > 0 {
            incoming.restart()?;
        }
        let mut bytes = response.into_body().into_reader();
        let mut buffer = vec![0; 1 << 18];
        loop {
            let broke_off = |incoming: &Incoming, why: String| HubError::BrokeOff {
                file: name.to_owned(),
                received: incoming.received,
                size,
                why,
            };
            let count = match bytes.read(&mut buffer) {
                Ok(count) => count,
                Err(error) => return Err(broke_off(incoming, said(&error))),
            };
            if count == 0 && incoming.received < size {
                return Err(broke_off(incoming, "the connection was closed".to_owned()));
            }
            if count == 0 {
                return Ok(());
            }
            // Whoever sends without end must not fill the disk.
            if incoming.received + count as u64 > size {
                remove(&incoming.path)?;
                return Err(HubError::Mismatch {
                    file: name.to_owned(),
                    repo: self.id.repo().to_owned(),
                    expected: format!("{size} bytes"),
                    found: "more".to_owned(),
                });
            }
            incoming.write(&buffer[..count])?;
            progress(Step::Received { file: name, bytes: incoming.received, size });
        }
    }

    fn file(&self, commit: &str, name: &str) -> Uri {
        self.hub.at(&format!("{}/resolve/{commit}/{name}", self.id.repo()))
    }

    /// The headers that describe a file: those of the Hub itself, not of where it sends us for the bytes.
    fn head(&self, url: &Uri) -> Result<HeaderMap, HubError> {
        let mut url = url.clone();
        for _ in 0..REDIRECTS {
            let response = self.hub.send(Method::HEAD, &url, 0)?;
            match redirect(&url, &response)? {
                Some(_) if is_described(response.headers()) => return Ok(response.headers().clone()),
                Some(next) if !self.hub.is_elsewhere(&next) => url = next,
                Some(_) => {
                    let what = "it sends us elsewhere and does not say what is there".to_owned();
                    return Err(HubError::NotAHub { url: bare(&url), what });
                }
                None => return self.accept(&url, response).map(|response| response.headers().clone()),
            }
        }
        Err(circles(&url))
    }

    /// What lies at an address from this byte on, and where it really came from.
    fn get(&self, url: &Uri, from: u64) -> Result<(Uri, Response), HubError> {
        let mut url = url.clone();
        for _ in 0..REDIRECTS {
            let response = self.hub.send(Method::GET, &url, from)?;
            match redirect(&url, &response)? {
                Some(next) => url = next,
                // There is no such rest: the whole, then.
                None if response.status() == StatusCode::RANGE_NOT_SATISFIABLE && from > 0 => {
                    let response = self.hub.send(Method::GET, &url, 0)?;
                    return Ok((url, response));
                }
                None => return Ok((url, response)),
            }
        }
        Err(circles(&url))
    }

    /// Only a success is an answer.
    fn accept(&self, url: &Uri, response: Response) -> Result<Response, HubError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = |name| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let retry_after = text(RETRY_AFTER.as_str()).and_then(|seconds| seconds.parse().ok());
        Err(self.refused(url, status, text("x-error-code"), retry_after.map(Duration::from_secs)))
    }

    fn refused(
        &self,
        url: &Uri,
        status: StatusCode,
        code: Option<&str>,
        retry_after: Option<Duration>,
    ) -> HubError {
        let settings = self.hub.settings;
        let (repo, endpoint) = (self.id.repo().to_owned(), settings.endpoint.clone());
        let is_elsewhere = self.hub.is_elsewhere(url);
        let url = bare(url);
        match status {
            // Where the bytes lie, an address is good for a while: the Hub gives another.
            _ if is_elsewhere => HubError::Server { url, status: status.as_u16(), retry_after },
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => HubError::Refused {
                repo,
                endpoint,
                gated: code == Some("GatedRepo"),
                token: settings.token.as_ref().map(|token| token.origin().to_owned()),
            },
            StatusCode::NOT_FOUND if code == Some("RevisionNotFound") => {
                HubError::NoRevision { repo, revision: self.id.revision().to_owned(), endpoint }
            }
            StatusCode::NOT_FOUND if code == Some("EntryNotFound") => {
                HubError::NotAHub { url, what: "it lists the file, and does not have it".to_owned() }
            }
            StatusCode::NOT_FOUND => HubError::NoRepository { repo, endpoint },
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                HubError::Server { url, status: status.as_u16(), retry_after }
            }
            _ if status.is_server_error() => HubError::Server { url, status: status.as_u16(), retry_after },
            _ => HubError::NotAHub { url, what: format!("status {}", status.as_u16()) },
        }
    }

    /// Tries until it succeeds, fails for good, or patience is at its end.
    fn patiently<T>(
        &self,
        progress: &mut dyn FnMut(Step<'_>),
        mut attempt: impl FnMut() -> Result<T, HubError>,
    ) -> Result<T, HubError> {
        let mut failures = 0;
        loop {
            match attempt() {
                Err(error) if error.is_passing() && failures < self.hub.settings.patience.retries => {
                    failures += 1;
                    self.pause(failures, &error, progress);
                }
                result => return result,
            }
        }
    }

    /// Waits before the next attempt, longer each time, or as long as the server asks.
    fn pause(&self, failures: usize, error: &HubError, progress: &mut dyn FnMut(Step<'_>)) {
        progress(Step::Retrying { error });
        let doubled = self.hub.settings.patience.pause * (1 << (failures - 1).min(10));
        let asked = match error {
            HubError::Server { retry_after: Some(asked), .. } => *asked,
            _ => Duration::ZERO,
        };
        thread::sleep(doubled.max(asked).min(LONGEST_PAUSE));
    }
}

/// A blob on its way in.
struct Incoming {
    path: PathBuf,
    file: File,
    hasher: Hasher,
    digest: Digest,
    received: u64,
    size: u64,
}

impl Incoming {
    /// Takes up what an earlier attempt left.
    fn open(cache: &Cache, digest: &Digest, size: u64) -> Result<Incoming, HubError> {
        let path = cache.partial(digest);
        create_parent(&path)?;
        let mut file = File::options()
            .create(true)
            .read(true)
            .append(true)
            .open(&path)
            .map_err(HubError::cache("opened", &path))?;
        let mut hasher = Hasher::for_digest(size, digest);
        let length = file.metadata().map_err(HubError::cache("read", &path))?.len();
        let received = hasher.read((&mut file).take(length)).map_err(HubError::cache("read", &path))?;
        let mut incoming = Incoming { path, file, hasher, digest: digest.clone(), received, size };
        if received > size {
            incoming.restart()?;
        }
        Ok(incoming)
    }

    /// Drops what is here.
    fn restart(&mut self) -> Result<(), HubError> {
        self.file.set_len(0).map_err(HubError::cache("emptied", &self.path))?;
        self.hasher = Hasher::for_digest(self.size, &self.digest);
        self.received = 0;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), HubError> {
        self.file.write_all(bytes).map_err(HubError::cache("written", &self.path))?;
        self.hasher.update(bytes);
        self.received += bytes.len() as u64;
        Ok(())
    }

    /// All is here: is it what was promised? On the disk it is, before anybody may rely on it.
    fn finish(self, name: &str, digest: &Digest) -> Result<Result<SnapshotFile, Digest>, HubError> {
        self.file.sync_all().map_err(HubError::cache("written", &self.path))?;
        let digests = self.hasher.finish();
        let found = digests.like(digest);
        if found != *digest {
            return Ok(Err(found));
        }
        let check = digest.check();
        Ok(Ok(SnapshotFile { name: name.to_owned(), size: self.received, sha256: digests.sha256, check }))
    }
}

/// Where an answer sends us on to, if it does. From https nobody is sent to where others can read along.
fn redirect(url: &Uri, response: &Response) -> Result<Option<Uri>, HubError> {
    if !response.status().is_redirection() {
        return Ok(None);
    }
    let wrong = |what: &str| HubError::NotAHub { url: bare(url), what: what.to_owned() };
    let location = response.headers().get(LOCATION).and_then(|location| location.to_str().ok());
    let next =
        location.and_then(|location| join(url, location)).ok_or_else(|| wrong("it redirects to nowhere"))?;
    match (url.scheme_str(), next.scheme_str()) {
        (_, Some("https")) | (Some("http"), Some("http")) => Ok(Some(next)),
        _ => Err(wrong("it redirects away from https")),
    }
}

/// Does a redirect say what it leads to? Its own tag and length are those of the redirect.
fn is_described(headers: &HeaderMap) -> bool {
    headers.contains_key("x-linked-etag") && headers.contains_key("x-linked-size")
}

fn circles(url: &Uri) -> HubError {
    HubError::NotAHub { url: bare(url), what: "it redirects in circles".to_owned() }
}
