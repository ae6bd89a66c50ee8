//! A Hub of our own: an HTTP server on loopback that answers as the real one does, and writes down what it was asked.

use std::{
    collections::BTreeMap,
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use sha1::Sha1;
use sha2::{Digest, Sha256};

#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    /// Without the query.
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
}

impl Request {
    pub(crate) fn line(&self) -> String {
        format!("{} {}", self.method, self.path)
    }
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
    /// Break off after so many bytes of the body.
    pub(crate) cut: Option<usize>,
    /// Wait before the last half of the body.
    pub(crate) stall: Duration,
}

impl Answer {
    pub(crate) fn new(status: u16, body: impl Into<Vec<u8>>) -> Answer {
        Answer { status, body: body.into(), ..Answer::default() }
    }

    pub(crate) fn with(mut self, name: &'static str, value: impl ToString) -> Answer {
        self.headers.push((name, value.to_string()));
        self
    }
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    log: Arc<Mutex<Vec<Request>>>,
}

impl Server {
    pub(crate) fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port on loopback");
        let address = listener.local_addr().expect("the address of a bound listener");
        let log = Arc::new(Mutex::new(Vec::new()));
        let server = Server { address, log: Arc::clone(&log) };
        let answer = Arc::new(answer);
        // It lives as long as the test process: there is nothing to clean up.
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (answer, log) = (Arc::clone(&answer), Arc::clone(&log));
                thread::spawn(move || serve(stream, &log, &*answer));
            }
        });
        server
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn requests(&self) -> Vec<Request> {
        self.log.lock().expect("no server thread panics").clone()
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.requests().iter().map(Request::line).collect()
    }

    pub(crate) fn forget(&self) {
        self.log.lock().expect("no server thread panics").clear();
    }
}

/// One request, one answer. Whoever hangs up early is let go.
fn serve(stream: TcpStream, log: &Mutex<Vec<Request>>, answer: &dyn Fn(&Request) -> Answer) {
    let mut reader = BufReader::new(&stream);
    let mut line = String::new();
    if reader.read_line(&mut line).is_err() {
        return;
    }
    let mut words = line.split_whitespace();
    let (Some(method), Some(target)) = (words.next(), words.next()) else { return };
    let path = target.split('?').next().unwrap_or(target).to_owned();
    let mut request = Request { method: method.to_owned(), path, headers: BTreeMap::new() };
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line).is_err() || line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':') {
            request.headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    let length = request.headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let _ = reader.take(length).read_to_end(&mut Vec::new());
    log.lock().expect("no server thread panics").push(request.clone());
    let answer = answer(&request);
    let mut head = format!("HTTP/1.1 {} Whatever\r\nConnection: close\r\n", answer.status);
    if !answer.headers.iter().any(|(name, _)| *name == "Content-Length") {
        head += &format!("Content-Length: {}\r\n", answer.body.len());
    }
    for (name, value) in &answer.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += "\r\n";
    let mut stream = &stream;
    if stream.write_all(head.as_bytes()).is_err() || request.method == "HEAD" {
        return;
    }
    let body = &answer.body[..answer.cut.unwrap_or(answer.body.len())];
    let (first, last) = body.split_at(if answer.stall.is_zero() { 0 } else { body.len() / 2 });
    let _ = stream.write_all(first);
    thread::sleep(answer.stall);
    let _ = stream.write_all(last);
}

/// A repository as the Hub keeps it. Weights lie in LFS, on a server of their own.
pub(crate) struct Repo {
    pub(crate) id: String,
    pub(crate) branches: Mutex<BTreeMap<String, String>>,
    pub(crate) commits: BTreeMap<String, BTreeMap<String, Vec<u8>>>,
}

impl Repo {
    /// What the Hub answers.
    pub(crate) fn answer(&self, request: &Request, storage: &str) -> Answer {
        let api = format!("/api/models/{}/revision/", self.id);
        let resolve = format!("/{}/resolve/", self.id);
        let moved = format!("/api/resolve-cache/models/{}/", self.id);
        if let Some(revision) = request.path.strip_prefix(&api) {
            return self.info(revision);
        }
        let (rest, has_moved) = match (request.path.strip_prefix(&resolve), request.path.strip_prefix(&moved))
        {
            (Some(rest), _) => (rest, false),
            (_, Some(rest)) => (rest, true),
            _ => return missing("RepoNotFound"),
        };
        let Some((commit, name)) = rest.split_once('/') else { return missing("EntryNotFound") };
        let Some(files) = self.commits.get(commit) else { return missing("RevisionNotFound") };
        let Some(bytes) = files.get(name) else { return missing("EntryNotFound") };
        if is_in_lfs(name) {
            let sha256 = sha256(bytes);
            return Answer::new(302, "elsewhere")
                .with("Location", format!("{storage}/{sha256}?Signature=secret"))
                .with("ETag", "\"of-the-redirect\"")
                .with("X-Linked-ETag", format!("\"{sha256}\""))
                .with("X-Linked-Size", bytes.len())
                .with("X-Repo-Commit", commit)
                // What would lead hf-hub's own downloads to its transfer library.
                .with("X-Xet-Hash", &sha256)
                .with("Link", format!("<{}>; rel=\"xet-auth\"", request.path));
        }
        if name.starts_with("tokenizer") && !has_moved {
            // Sometimes with half of what it leads to.
            let mut answer = Answer::new(307, "moved").with("Location", format!("{moved}{commit}/{name}"));
            if name == "tokenizer_config.json" {
                answer = answer.with("X-Linked-ETag", format!("\"{}\"", git_blob(bytes)));
            }
            return answer;
        }
        ranged(request, bytes)
            .with("ETag", format!("W/\"{}\"", git_blob(bytes)))
            .with("X-Repo-Commit", commit)
    }

    fn info(&self, revision: &str) -> Answer {
        let branches = self.branches.lock().expect("no server thread panics");
        let commit = branches.get(revision).map_or(revision, String::as_str);
        let Some(files) = self.commits.get(commit) else { return missing("RevisionNotFound") };
        let names: Vec<_> = files.keys().map(|name| serde_json::json!({ "rfilename": name })).collect();
        let info = serde_json::json!({
            "_id": "0", "id": self.id, "modelId": self.id, "sha": commit, "gated": false, "private": false,
            "tags": ["safetensors"], "downloads": 7, "siblings": names,
        });
        Answer::new(200, info.to_string()).with("Content-Type", "application/json")
    }

    /// What the storage behind it answers.
    pub(crate) fn storage(&self, request: &Request) -> Answer {
        let wanted = request.path.trim_start_matches('/');
        let files = self.commits.values().flat_map(BTreeMap::values);
        let found = files.into_iter().find(|bytes| sha256(bytes) == wanted);
        found
            .map_or(Answer::new(403, ""), |bytes| ranged(request, bytes).with("ETag", "\"md5-of-something\""))
    }
}

pub(crate) fn is_in_lfs(name: &str) -> bool {
    name.ends_with(".safetensors") || name.ends_with(".gguf")
}

fn missing(code: &str) -> Answer {
    Answer::new(404, format!("{{\"error\":\"{code}\"}}")).with("X-Error-Code", code)
}

fn ranged(request: &Request, bytes: &[u8]) -> Answer {
    let range =
        request.headers.get("range").and_then(|range| range.strip_prefix("bytes=")?.strip_suffix('-'));
    match range.and_then(|from| from.parse::<usize>().ok()) {
        None => Answer::new(200, bytes),
        Some(from) if from >= bytes.len() => Answer::new(416, ""),
        Some(from) => Answer::new(206, &bytes[from..])
            .with("Content-Range", format!("bytes {from}-{}/{}", bytes.len() - 1, bytes.len())),
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

pub(crate) fn git_blob(bytes: &[u8]) -> String {
    hex(&Sha1::new_with_prefix(format!("blob {}\0", bytes.len())).chain_update(bytes).finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
