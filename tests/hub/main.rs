//! Checkpoints from the Hub, against a Hub on loopback: what is asked, what is believed, what is left behind.

#![cfg(feature = "hub")]

mod server;

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::{self, Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use reprocheck::{
    model::hub::{Check, HubError, HubSettings, Patience, RepoId, Snapshot, Step, Token, snapshot},
    source::Blame as _,
};
use server::{Answer, Repo, Request, Server, git_blob, is_in_lfs, sha256};

const ID: &str = "maker/model";
const FIRST: &str = "1111111111111111111111111111111111111111";
const SECOND: &str = "2222222222222222222222222222222222222222";

/// A folder that goes when the test does.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Folder {
        static MADE: AtomicUsize = AtomicUsize::new(0);
        let name = format!("reprocheck-hub-{}-{}", process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        let folder = env::temp_dir().join(name);
        fs::create_dir_all(&folder).expect("a temporary folder");
        Folder(folder)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Weights that no part of which looks like another.
fn weights(seed: u8) -> Vec<u8> {
    (0..3_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8 ^ seed).collect()
}

fn text_files(seed: u8) -> BTreeMap<String, Vec<u8>> {
    let files = ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"];
    files.map(|name| (name.to_owned(), format!("{{\"{name}\": {seed}}}").into_bytes())).into()
}

/// One file of weights at the first commit, another at the second, and much that nobody wants.
fn repo() -> Repo {
    let commit = |seed| {
        let mut files = text_files(seed);
        files.insert("model.safetensors".to_owned(), weights(seed));
        for name in [
            "README.md",
            "pytorch_model.bin",
            "modeling_model.py",
            "consolidated.safetensors",
            ".gitattributes",
        ] {
            files.insert(name.to_owned(), name.as_bytes().to_vec());
        }
        files
    };
    Repo {
        id: ID.to_owned(),
        branches: Mutex::new([("main".to_owned(), FIRST.to_owned())].into()),
        commits: [(FIRST.to_owned(), commit(1)), (SECOND.to_owned(), commit(2))].into(),
    }
}

/// The same with its weights in parts.
fn sharded() -> Repo {
    let mut files = text_files(1);
    let index = serde_json::json!({ "metadata": {}, "weight_map": {
        "a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors",
        "c": "model-00002-of-00002.safetensors",
    }});
    files.insert("model.safetensors.index.json".to_owned(), index.to_string().into_bytes());
    files.insert("model-00001-of-00002.safetensors".to_owned(), weights(7));
    files.insert("model-00002-of-00002.safetensors".to_owned(), weights(8));
    Repo { commits: [(FIRST.to_owned(), files)].into(), ..repo() }
}

/// Whether a request is for the Hub itself or for the storage behind it.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Hub,
    Storage,
}

struct Hub {
    repo: Arc<Repo>,
    hub: Server,
    storage: Server,
    cache: Folder,
}

impl Hub {
    fn new(repo: Repo) -> Hub {
        Hub::but(repo, |_, _, _| None)
    }

    /// With answers of its own to some requests.
    fn but(
        repo: Repo,
        other: impl Fn(Place, &Request, &Repo) -> Option<Answer> + Send + Sync + 'static,
    ) -> Hub {
        let (repo, other) = (Arc::new(repo), Arc::new(other));
        let storage = {
            let (repo, other) = (Arc::clone(&repo), Arc::clone(&other));
            Server::start(move |request| {
                other(Place::Storage, request, &repo).unwrap_or_else(|| repo.storage(request))
            })
        };
        let elsewhere = storage.url();
        let hub = {
            let repo = Arc::clone(&repo);
            Server::start(move |request| {
                other(Place::Hub, request, &repo).unwrap_or_else(|| repo.answer(request, &elsewhere))
            })
        };
        Hub { repo, hub, storage, cache: Folder::new() }
    }

    fn settings(&self) -> HubSettings {
        HubSettings {
            endpoint: self.hub.url(),
            cache: self.cache.0.clone(),
            token: None,
            offline: false,
            patience: Patience {
                connect: Duration::from_secs(5),
                silence: Duration::from_secs(5),
                retries: 2,
                pause: Duration::from_millis(1),
            },
        }
    }

    fn open(&self, revision: &str) -> Result<Snapshot, HubError> {
        open(revision, &self.settings())
    }

    fn offline(&self, revision: &str) -> Result<Snapshot, HubError> {
        open(revision, &HubSettings { offline: true, ..self.settings() })
    }

    fn file(&self, commit: &str, name: &str) -> &[u8] {
        &self.repo.commits[commit][name]
    }

    fn in_cache(&self, path: impl AsRef<Path>) -> PathBuf {
        self.cache.0.join("models--maker--model").join(path)
    }

    /// Where bytes of this file grow.
    fn partial(&self, commit: &str, name: &str) -> PathBuf {
        self.in_cache("blobs").join(format!("{}.incomplete", digest(name, self.file(commit, name))))
    }

    fn forget_requests(&self) {
        self.hub.forget();
        self.storage.forget();
    }

    fn requests(&self) -> Vec<String> {
        [self.hub.lines(), self.storage.lines()].concat()
    }

    /// The snapshot holds exactly what the commit does.
    #[track_caller]
    fn assert_holds(&self, snapshot: &Snapshot, commit: &str) {
        assert_eq!(snapshot.commit, commit);
        assert_eq!(snapshot.folder, self.in_cache("snapshots").join(commit));
        for file in &snapshot.files {
            let bytes = self.file(commit, &file.name);
            assert_eq!(fs::read(snapshot.folder.join(&file.name)).expect("a file of the snapshot"), bytes);
            assert_eq!((file.size, &file.sha256), (bytes.len() as u64, &sha256(bytes)));
            let check = if is_in_lfs(&file.name) { Check::Sha256 } else { Check::GitBlob };
            assert_eq!(file.check, check, "{}", file.name);
        }
    }

    /// Only good blobs have a blob's name.
    #[track_caller]
    fn assert_no_bad_blob(&self) {
        let Ok(blobs) = fs::read_dir(self.in_cache("blobs")) else { return };
        for blob in blobs {
            let path = blob.expect("an entry of the cache").path();
            let name = path.file_name().and_then(|name| name.to_str()).expect("an ordinary name");
            if !name.ends_with(".incomplete") {
                let bytes = fs::read(&path).expect("a blob");
                assert!(
                    [sha256(&bytes), git_blob(&bytes)].iter().any(|digest| digest == name),
                    "{name} is bad"
                );
            }
        }
    }
}

fn digest(name: &str, bytes: &[u8]) -> String {
    if is_in_lfs(name) { sha256(bytes) } else { git_blob(bytes) }
}

fn open(revision: &str, settings: &HubSettings) -> Result<Snapshot, HubError> {
    let id: RepoId = format!("{ID}@{revision}").parse().expect("a well-formed name");
    snapshot(&id, settings, &mut |_| {})
}

#[track_caller]
fn assert_says(error: &HubError, words: &[&str]) {
    let text = error.to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
    assert!(!text.contains('\n') && !text.contains("secret") && !text.contains("Signature"), "{text}");
}

/// Answers the first so many requests for a path that ends so in another way.
fn first(
    times: usize,
    end: &'static str,
    answer: Answer,
) -> impl Fn(Place, &Request, &Repo) -> Option<Answer> {
    let seen = AtomicUsize::new(0);
    move |_, request, _| {
        let hit = request.path.ends_with(end) && seen.fetch_add(1, Ordering::SeqCst) < times;
        hit.then(|| answer.clone())
    }
}

/// Answers the first so many requests to the storage, made from what it would have answered.
fn storage(
    times: usize,
    spoil: impl Fn(Answer) -> Answer,
) -> impl Fn(Place, &Request, &Repo) -> Option<Answer> {
    let seen = AtomicUsize::new(0);
    move |place, request, repo| {
        let hit = place == Place::Storage && seen.fetch_add(1, Ordering::SeqCst) < times;
        hit.then(|| spoil(repo.storage(request)))
    }
}

fn always(end: &'static str, answer: Answer) -> impl Fn(Place, &Request, &Repo) -> Option<Answer> {
    first(usize::MAX, end, answer)
}

// What is found.

#[test]
fn the_digests_of_this_test_are_those_of_git_and_sha256sum() {
    assert_eq!(git_blob(b"hello\n"), "ce013625030ba8dba906f756967f9e9ca394464a");
    assert_eq!(sha256(b"hello\n"), "5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03");
}

#[test]
fn a_branch_is_its_commit_even_if_it_moves_meanwhile() {
    let hub = Hub::but(repo(), |_, request, repo| {
        // As soon as the commit is known, the branch moves on.
        if request.method == "HEAD" {
            repo.branches.lock().expect("no thread panics").insert("main".to_owned(), SECOND.to_owned());
        }
        None
    });
    let old = hub.open("main").expect("a snapshot of the branch as it was");
    hub.assert_holds(&old, FIRST);
    assert_eq!((old.repo.as_str(), old.revision.as_str()), (ID, "main"));
    let refs = || fs::read_to_string(hub.in_cache("refs/main")).expect("the commit of the branch");
    assert_eq!(refs(), FIRST);
    let new = hub.open("main").expect("a snapshot of the branch as it is");
    hub.assert_holds(&new, SECOND);
    assert_eq!(refs(), SECOND);
    hub.assert_holds(&hub.offline(FIRST).expect("the old commit is still there"), FIRST);
}

#[test]
fn only_what_a_checkpoint_needs_is_asked_for_and_nothing_else() {
    let hub = Hub::new(repo());
    hub.open("main").expect("a snapshot");
    let resolve = |method: &str, name: &str| format!("{method} /{ID}/resolve/{FIRST}/{name}");
    let moved = |method: &str, name: &str| format!("{method} /api/resolve-cache/models/{ID}/{FIRST}/{name}");
    let mut expected = vec![format!("GET /api/models/{ID}/revision/main")];
    for name in [
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ] {
        expected.extend(["HEAD", "GET"].map(|method| resolve(method, name)));
        if name.starts_with("tokenizer") {
            expected.extend(["HEAD", "GET"].map(|method| moved(method, name)));
        }
    }
    let sorted = |mut lines: Vec<String>| {
        lines.sort();
        lines
    };
    assert_eq!(sorted(hub.hub.lines()), sorted(expected));
    assert_eq!(hub.storage.lines(), [format!("GET /{}", sha256(hub.file(FIRST, "model.safetensors")))]);
}

#[test]
fn of_one_file_of_gguf_nothing_else_is_asked_for() {
    let mut files = text_files(1);
    files.insert("model-Q4_1.gguf".to_owned(), weights(3));
    files.insert("model-Q8_0.gguf".to_owned(), weights(4));
    let hub = Hub::new(Repo { commits: [(FIRST.to_owned(), files)].into(), ..repo() });
    let snapshot = hub.open("main/model-Q4_1.gguf").expect("a snapshot");
    hub.assert_holds(&snapshot, FIRST);
    assert_eq!(snapshot.files.len(), 1);
    let file = format!("/{ID}/resolve/{FIRST}/model-Q4_1.gguf");
    let asked =
        [format!("GET /api/models/{ID}/revision/main"), format!("HEAD {file}"), format!("GET {file}")];
    assert_eq!(hub.hub.lines(), asked);
    hub.forget_requests();
    assert_eq!(hub.offline("main/model-Q4_1.gguf").expect("the same"), snapshot);
    assert_eq!(hub.open(&format!("{FIRST}/model-Q4_1.gguf")).expect("the same").files, snapshot.files);
    assert_eq!(hub.requests(), [""; 0]);
    let error = hub.offline("main/model-Q8_0.gguf").expect_err("it is not here");
    assert_says(&error, &["model-Q8_0.gguf of maker/model is not in", "unset HF_HUB_OFFLINE"]);
    let error = hub.open("main/model-Q2_K.gguf").expect_err("it is nowhere");
    assert_says(&error, &["model-Q2_K.gguf", "maker/model"]);
}

#[test]
fn the_cache_has_the_layout_that_other_libraries_share() {
    let hub = Hub::new(repo());
    let snapshot = hub.open("main").expect("a snapshot");
    for file in &snapshot.files {
        let bytes = hub.file(FIRST, &file.name);
        let blob = digest(&file.name, bytes);
        assert_eq!(fs::read(hub.in_cache("blobs").join(&blob)).expect("the blob"), bytes);
        #[cfg(unix)]
        assert_eq!(
            fs::read_link(snapshot.folder.join(&file.name)).expect("a pointer"),
            Path::new("../../blobs").join(&blob)
        );
    }
    assert!(hub.in_cache(".no_exist").join(FIRST).join("chat_template.jinja").exists());
    let left: Vec<_> = fs::read_dir(hub.in_cache("blobs")).expect("the blobs").flatten().collect();
    assert_eq!(left.len(), snapshot.files.len(), "nothing else is left behind");
}

#[test]
fn parts_of_the_weights_come_by_their_index() {
    let hub = Hub::new(sharded());
    let snapshot = hub.open("main").expect("a snapshot");
    hub.assert_holds(&snapshot, FIRST);
    let names: BTreeSet<_> = snapshot.files.iter().map(|file| file.name.as_str()).collect();
    assert!(names.is_superset(&BTreeSet::from([
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
        "model.safetensors.index.json",
    ])));
    hub.forget_requests();
    assert_eq!(hub.offline("main").expect("the same from the cache"), snapshot);
    fs::remove_file(snapshot.folder.join("model-00002-of-00002.safetensors")).expect("a part");
    assert_says(
        &hub.offline("main").expect_err("a part is gone"),
        &["model-00002-of-00002.safetensors of maker/model"],
    );
    assert_eq!(hub.requests(), [""; 0]);
}

#[test]
fn progress_tells_every_byte_once() {
    let hub = Hub::but(repo(), storage(1, |answer| Answer { cut: Some(1_000_000), ..answer }));
    let (mut planned, mut retried, mut here) = ((0, 0), 0, BTreeMap::new());
    let id: RepoId = ID.parse().expect("a well-formed name");
    let snapshot = snapshot(&id, &hub.settings(), &mut |step| match step {
        Step::Planned { files, bytes } => planned = (files, bytes),
        Step::Retrying { .. } => retried += 1,
        Step::Received { file, bytes, size } => {
            assert!(bytes <= size && here.get(file).is_none_or(|&before| before <= bytes));
            here.insert(file.to_owned(), bytes);
        }
        _ => {}
    });
    let files = snapshot.expect("a snapshot").files;
    let sizes: BTreeMap<_, _> = files.iter().map(|file| (file.name.clone(), file.size)).collect();
    assert_eq!(planned, (files.len(), sizes.values().sum()));
    assert_eq!((retried, here), (1, sizes));
}

// What is in the cache already.

#[test]
fn a_cached_snapshot_costs_one_question_and_a_cached_commit_none() {
    for repo in [repo(), sharded()] {
        let hub = Hub::new(repo);
        let snapshot = hub.open("main").expect("a snapshot");
        hub.forget_requests();
        assert_eq!(hub.open("main").expect("the same"), snapshot);
        assert_eq!(hub.requests(), [format!("GET /api/models/{ID}/revision/main")]);
        hub.forget_requests();
        assert_eq!(hub.open(FIRST).expect("the same").files, snapshot.files);
        assert_eq!(hub.offline("main").expect("the same"), snapshot);
        assert_eq!(hub.offline(FIRST).expect("the same").files, snapshot.files);
        assert_eq!(hub.requests(), [""; 0]);
    }
}

#[test]
fn offline_what_is_not_in_the_cache_is_named() {
    let hub = Hub::new(repo());
    for revision in ["main", SECOND] {
        let error = hub.offline(revision).expect_err("nothing is there");
        assert_says(&error, &["of maker/model is not in", "unset HF_HUB_OFFLINE"]);
        assert!(error.is_environment());
    }
    hub.open("main").expect("a snapshot");
    fs::remove_file(hub.in_cache("snapshots").join(FIRST).join("tokenizer.json")).expect("a pointer");
    assert_says(&hub.offline("main").expect_err("one is gone"), &["tokenizer.json of maker/model"]);
    hub.forget_requests();
    hub.assert_holds(&hub.open(FIRST).expect("what is gone comes back"), FIRST);
    // Its blob was still there.
    assert!(
        hub.requests()
            .iter()
            .all(|line| !line.starts_with("GET /maker") && !line.starts_with("GET /api/resolve"))
    );
}

#[test]
fn a_damaged_file_is_named_removed_and_fetched_anew() {
    for name in ["model.safetensors", "config.json"] {
        let hub = Hub::new(repo());
        let path = hub.open("main").expect("a snapshot").folder.join(name);
        let mut bytes = hub.file(FIRST, name).to_vec();
        bytes[5] ^= 1;
        fs::write(&path, &bytes).expect("through the pointer into the blob");
        let error = hub.offline("main").expect_err("one bit differs");
        let (good, bad) = (digest(name, hub.file(FIRST, name)), digest(name, &bytes));
        assert_says(&error, &[name, &good, &bad, "unset HF_HUB_OFFLINE"]);
        assert!(path.exists(), "offline nothing is removed");
        let error = hub.open(FIRST).expect_err("one bit differs");
        assert_says(&error, &[name, &good, &bad, "it was removed, so try again"]);
        assert!(error.is_environment());
        assert!(!path.exists() && !hub.in_cache("blobs").join(&good).exists());
        hub.assert_holds(&hub.open("main").expect("it comes anew"), FIRST);
    }
}

#[test]
fn files_that_are_no_pointers_are_held_to_the_blobs_beside_them() {
    let hub = Hub::new(repo());
    let snapshot = hub.open("main").expect("a snapshot");
    for file in &snapshot.files {
        let path = snapshot.folder.join(&file.name);
        let bytes = fs::read(&path).expect("a file");
        fs::remove_file(&path).expect("a pointer");
        fs::write(&path, bytes).expect("a copy in its place");
    }
    assert_eq!(hub.offline("main").expect("as good as before"), snapshot);
    fs::remove_dir_all(hub.in_cache("blobs")).expect("the blobs");
    let unknown = hub.offline("main").expect("still there");
    assert!(unknown.files.iter().all(|file| file.check == Check::Nothing), "and nobody vouches for them");
}

// What is not believed.

#[test]
fn bytes_that_are_not_what_the_hub_says_are_dropped() {
    let spoilt = |mut answer: Answer| {
        if let Some(last) = answer.body.last_mut() {
            *last ^= 1;
        }
        answer
    };
    let hub = Hub::but(repo(), storage(1, spoilt));
    let error = hub.open("main").expect_err("the last bit differs");
    assert_says(
        &error,
        &["model.safetensors of maker/model is not what the Hub says", "sha256", "try again"],
    );
    assert_says(&error, &[&sha256(hub.file(FIRST, "model.safetensors"))]);
    assert!(error.is_environment());
    hub.assert_no_bad_blob();
    assert!(!hub.partial(FIRST, "model.safetensors").exists());
    assert_says(&hub.offline("main").expect_err("no half snapshot counts"), &["revision main"]);
    hub.assert_holds(&hub.open("main").expect("it was passing"), FIRST);
}

#[test]
fn small_files_are_held_to_their_git_blob() {
    let hub = Hub::but(repo(), |_, request, repo| {
        let hit = request.method == "GET" && request.path.ends_with("/config.json");
        let size = repo.commits[FIRST]["config.json"].len();
        hit.then(|| Answer::new(200, vec![b' '; size]))
    });
    let error = hub.open("main").expect_err("as long as the other, and all blank");
    assert_says(&error, &["config.json", "git blob", &git_blob(hub.file(FIRST, "config.json"))]);
    hub.assert_no_bad_blob();
}

#[test]
fn an_error_page_does_not_become_a_file() {
    let page = |answer: Answer| Answer::new(503, vec![b'x'; answer.body.len()]);
    let hub = Hub::but(repo(), storage(1, page));
    hub.assert_holds(&hub.open("main").expect("the second attempt"), FIRST);
}

#[test]
fn whoever_sends_without_end_does_not_fill_the_disk() {
    let endless = |mut answer: Answer| {
        answer.body.extend_from_slice(&[0; 5_000_000]);
        answer
    };
    let hub = Hub::but(repo(), storage(usize::MAX, endless));
    let error = hub.open("main").expect_err("too much");
    assert_says(&error, &["model.safetensors", "expected 3000000 bytes, got more"]);
    assert!(!hub.partial(FIRST, "model.safetensors").exists());
    hub.assert_no_bad_blob();
}

#[test]
fn an_etag_that_is_no_digest_is_refused_and_no_path() {
    for tag in ["", "\"abc\"", "\"../../../../escaped\"", "\"DA39A3EE5E6B4B0D3255BFEF95601890AFD80709\""] {
        let answer = Answer::new(200, "{}").with("ETag", tag).with("X-Repo-Commit", FIRST);
        let hub = Hub::but(repo(), always("/config.json", answer));
        let error = hub.open("main").expect_err("nothing could be checked");
        assert_says(&error, &["/config.json does not answer as a Hub does", "not a digest", "HF_ENDPOINT"]);
        assert!(!hub.in_cache("blobs").exists() && error.is_environment());
    }
}

#[test]
fn a_file_of_another_commit_is_refused() {
    let answer = Answer::new(200, "{}").with("ETag", git_blob(b"{}")).with("X-Repo-Commit", SECOND);
    let hub = Hub::but(repo(), always("/config.json", answer));
    assert_says(&hub.open("main").expect_err("another commit"), &["a file of another commit"]);
}

#[test]
fn an_index_leads_nowhere_else() {
    for (index, words) in [
        ("{\"weight_map\": {\"a\": \"../../../secrets.safetensors\"}}", "names \"../../../"),
        ("{\"weight_map\": {\"a\": \"pytorch_model.bin\"}}", "names \"pytorch_model.bin\""),
        ("{\"weight_map\": {\"a\": \"gone.safetensors\"}}", "has no gone.safetensors, which its"),
        ("{\"weight_map\": {}}", "names no weights"),
        ("[1, 2", "not an index of weights"),
    ] {
        let mut repo = sharded();
        let files = repo.commits.get_mut(FIRST).expect("the only commit");
        files.insert("model.safetensors.index.json".to_owned(), index.into());
        let hub = Hub::new(repo);
        let error = hub.open("main").expect_err(index);
        let text = error.to_string();
        assert!(text.contains(words) && text.contains("pass ./folder"), "{text}");
        assert!(!error.is_environment());
    }
}

#[test]
fn a_repository_without_what_a_checkpoint_needs_is_named() {
    for (name, words) in [
        ("config.json", "has no config.json"),
        ("tokenizer.json", "has no tokenizer.json"),
        ("model.safetensors", "has no model.safetensors"),
    ] {
        let mut repo = repo();
        repo.commits.get_mut(FIRST).expect("the first commit").remove(name);
        let error = Hub::new(repo).open("main").expect_err(name);
        assert_says(&error, &[ID, FIRST, words, "pass ./folder"]);
        assert!(!error.is_environment());
    }
}

// Who is told what.

#[test]
fn the_token_goes_to_the_hub_and_to_nobody_else() {
    let hub = Hub::new(repo());
    let token = Some(Token::new("hf_secret", "HF_TOKEN"));
    open("main", &HubSettings { token, ..hub.settings() }).expect("a snapshot");
    let asked = |request: &Request| request.headers.get("authorization").cloned();
    assert!(hub.hub.requests().iter().all(|request| asked(request).as_deref() == Some("Bearer hf_secret")));
    let storage = hub.storage.requests();
    assert!(!storage.is_empty() && storage.iter().all(|request| asked(request).is_none()));
}

#[test]
fn the_api_may_redirect_and_the_token_stays_behind() {
    let elsewhere = Server::start(|_| Answer::new(404, "").with("X-Error-Code", "RevisionNotFound"));
    let away = Answer::new(307, "").with("Location", format!("{}/else", elsewhere.url()));
    let hub = Hub::but(repo(), always("/revision/main", away));
    let token = Some(Token::new("hf_secret", "HF_TOKEN"));
    open("main", &HubSettings { token, ..hub.settings() }).expect_err("it is not there either");
    let seen = elsewhere.requests();
    assert!(!seen.is_empty() && seen.iter().all(|request| !request.headers.contains_key("authorization")));
}

#[test]
fn a_token_that_no_header_can_hold_is_refused_unseen() {
    let hub = Hub::new(repo());
    let token = Some(Token::new("hf_se\ncret", "/home/me/token"));
    let error = open("main", &HubSettings { token, ..hub.settings() }).expect_err("no token");
    assert_says(&error, &["/home/me/token does not hold a token"]);
    assert_eq!(hub.requests(), [""; 0]);
}

#[test]
fn a_refusal_says_which_door_to_knock_at() {
    let token = || Some(Token::new("hf_secret", "/home/me/token"));
    let gated = |status| Answer::new(status, "").with("X-Error-Code", "GatedRepo");
    for (end, answer, token, words) in [
        ("/config.json", gated(401), None, ["is gated: ask for access at", "then set HF_TOKEN"]),
        (
            "/config.json",
            gated(403),
            token(),
            ["the token in /home/me/token may not read it", "ask for access at"],
        ),
        (
            "/revision/main",
            Answer::new(401, ""),
            None,
            ["private or does not exist: check the spelling", "set HF_TOKEN"],
        ),
        (
            "/revision/main",
            Answer::new(401, ""),
            token(),
            ["to the token in /home/me/token", "check the spelling"],
        ),
        ("/revision/main", Answer::new(403, ""), token(), ["to the token in /home/me/token", "may read it"]),
    ] {
        let hub = Hub::but(repo(), always(end, answer));
        let error = open("main", &HubSettings { token, ..hub.settings() }).expect_err("refused");
        assert_says(&error, &words);
        assert!(error.is_environment());
        assert_eq!(hub.requests().iter().filter(|line| line.ends_with(end)).count(), 1, "no second try");
    }
}

#[test]
fn an_unknown_repository_and_an_unknown_revision_are_two_things() {
    let hub = Hub::new(repo());
    let id: RepoId = "maker/mispelt".parse().expect("a well-formed name");
    let error = snapshot(&id, &hub.settings(), &mut |_| {}).expect_err("there is none");
    assert_says(
        &error,
        &[&hub.hub.url(), "has no repository maker/mispelt", "check the spelling", "HF_TOKEN"],
    );
    assert!(!error.is_environment());
    let error = hub.open("feature/x").expect_err("there is none");
    assert_says(&error, &["maker/model has no revision feature/x", "/maker/model/commits"]);
    assert!(!error.is_environment());
    assert!(hub.hub.lines().contains(&format!("GET /api/models/{ID}/revision/feature%2Fx")));
}

// What goes wrong on the way.

#[test]
fn a_passing_trouble_of_the_server_is_outlasted() {
    for end in ["/revision/main", "/config.json", "/model.safetensors"] {
        for status in [429, 500, 502, 503, 504] {
            let hub = Hub::but(repo(), first(2, end, Answer::new(status, "")));
            hub.assert_holds(&hub.open("main").expect("the third attempt"), FIRST);
        }
        let hub = Hub::but(repo(), always(end, Answer::new(503, "")));
        let error = hub.open("main").expect_err("it never ends");
        assert_says(&error, &["answers 503", "try again in a while"]);
        assert!(error.is_environment());
        assert_eq!(hub.hub.lines().iter().filter(|line| line.ends_with(end)).count(), 3);
    }
}

#[test]
fn an_address_that_has_run_out_is_asked_for_again() {
    let hub = Hub::but(repo(), storage(1, |_| Answer::new(403, "Request has expired")));
    hub.assert_holds(&hub.open("main").expect("with a new address"), FIRST);
    assert_eq!(
        hub.hub
            .lines()
            .iter()
            .filter(|line| line.starts_with("GET") && line.ends_with(".safetensors"))
            .count(),
        2
    );
}

#[test]
fn a_storage_that_nobody_vouches_for_is_refused() {
    let away = Answer::new(302, "").with("Location", "http://localhost:1/file").with("ETag", sha256(b""));
    let hub = Hub::but(repo(), always("/model.safetensors", away));
    assert_says(
        &hub.open("main").expect_err("what is there?"),
        &["does not say what is there", "check HF_ENDPOINT"],
    );
}

#[test]
fn a_server_that_asks_for_a_pause_gets_it() {
    let hub = Hub::but(repo(), first(1, "/config.json", Answer::new(429, "").with("Retry-After", 1)));
    let start = Instant::now();
    hub.open("main").expect("the second attempt");
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[test]
fn a_connection_that_breaks_off_is_taken_up_where_it_broke() {
    let hub = Hub::but(repo(), storage(2, |answer| Answer { cut: Some(1_000_000), ..answer }));
    hub.assert_holds(&hub.open("main").expect("the third attempt"), FIRST);
    let ranges: Vec<_> =
        hub.storage.requests().iter().map(|request| request.headers.get("range").cloned()).collect();
    assert_eq!(ranges, [None, Some("bytes=1000000-".to_owned()), Some("bytes=2000000-".to_owned())]);
}

#[test]
fn what_broke_off_for_good_counts_as_nothing_and_is_continued_next_time() {
    let hub = Hub::but(repo(), storage(3, |answer| Answer { cut: Some(1_000), ..answer }));
    let error = hub.open("main").expect_err("patience is at its end");
    assert_says(
        &error,
        &["model.safetensors broke off after 3000 of 3000000 bytes", "try again", "continues"],
    );
    assert!(error.is_environment());
    hub.assert_no_bad_blob();
    assert_eq!(fs::metadata(hub.partial(FIRST, "model.safetensors")).expect("what has come").len(), 3000);
    assert!(!hub.in_cache("refs/main").exists());
    assert!(hub.offline(FIRST).is_err());
    hub.forget_requests();
    hub.assert_holds(&hub.open("main").expect("the next time"), FIRST);
    let storage = hub.storage.requests();
    assert_eq!(storage.len(), 1);
    assert_eq!(storage[0].headers["range"], "bytes=3000-");
}

#[test]
fn leftovers_that_are_spoilt_or_too_long_are_fetched_anew() {
    for leftover in [vec![0; 5_000], vec![0; 3_000_000], vec![0; 4_000_000]] {
        let hub = Hub::new(repo());
        let path = hub.partial(FIRST, "model.safetensors");
        fs::create_dir_all(path.parent().expect("a folder")).expect("the folder of the blobs");
        fs::write(&path, &leftover).expect("a leftover");
        hub.assert_holds(&hub.open("main").expect("from the beginning"), FIRST);
    }
}

#[test]
fn a_server_that_knows_no_ranges_sends_all_again() {
    let hub = Hub::but(repo(), |place, request, repo| {
        let mut whole = request.clone();
        whole.headers.remove("range")?;
        (place == Place::Storage).then(|| repo.storage(&whole))
    });
    let path = hub.partial(FIRST, "model.safetensors");
    fs::create_dir_all(path.parent().expect("a folder")).expect("the folder of the blobs");
    fs::write(&path, &weights(1)[..2_000_000]).expect("a leftover");
    hub.assert_holds(&hub.open("main").expect("from the beginning"), FIRST);
}

#[test]
fn silence_is_not_waited_for_without_end() {
    let patience =
        |hub: &Hub| Patience { silence: Duration::from_millis(200), retries: 1, ..hub.settings().patience };
    let stall = Duration::from_secs(20);
    let silent = move |answer: Answer| Answer { stall, ..answer };
    let hub = Hub::but(repo(), storage(usize::MAX, silent));
    let start = Instant::now();
    let error =
        open("main", &HubSettings { patience: patience(&hub), ..hub.settings() }).expect_err("silence");
    assert_says(&error, &["model.safetensors broke off after", "timed out"]);
    let body = format!("{{\"id\": \"{ID}\"}}");
    let hub = Hub::but(repo(), always("/revision/main", Answer { stall, ..Answer::new(200, body) }));
    let error =
        open("main", &HubSettings { patience: patience(&hub), ..hub.settings() }).expect_err("silence");
    assert_says(&error, &[&hub.hub.url(), "HF_HUB_OFFLINE=1"]);
    assert!(error.is_environment());
    assert!(start.elapsed() < Duration::from_secs(10));
}

#[test]
fn nobody_at_the_other_end_is_a_sentence() {
    let hub = Hub::new(repo());
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let endpoint = format!("http://{}", free.local_addr().expect("its address"));
    drop(free);
    let error =
        open("main", &HubSettings { endpoint: endpoint.clone(), ..hub.settings() }).expect_err("nobody");
    assert_says(&error, &[&endpoint, "cannot be reached", "refused", "HF_ENDPOINT", "HF_HUB_OFFLINE=1"]);
    assert!(error.is_environment());
    for endpoint in ["huggingface.co", "ftp://huggingface.co", "", "https://", "https://x/?y"] {
        let error = open("main", &HubSettings { endpoint: endpoint.to_owned(), ..hub.settings() });
        let error = error.expect_err(endpoint);
        assert_says(&error, &["is not the address of a Hub", "set HF_ENDPOINT"]);
        assert!(!error.is_environment());
    }
}

#[test]
fn whoever_is_no_hub_is_told_from_one() {
    let page = || Answer::new(200, "<html>Please log in to the hotel's network</html>");
    let info = |text: &str| Answer::new(200, text);
    let circle = Answer::new(302, "").with("Location", "config.json");
    for (end, answer, words) in [
        ("/revision/main", page(), "does not answer as a Hub does"),
        ("/revision/main", info("{\"id\": \"maker/model\"}"), "it names no commit"),
        ("/revision/main", info("{\"id\": \"maker/model\", \"sha\": \"../x\"}"), "it names no commit"),
        ("/config.json", page(), "not a digest"),
        ("/config.json", circle, "in circles"),
        ("/config.json", Answer::new(302, ""), "redirects to nowhere"),
        ("/config.json", Answer::new(418, ""), "status 418"),
    ] {
        let error = Hub::but(repo(), always(end, answer)).open("main").expect_err(words);
        assert_says(&error, &[words, "check HF_ENDPOINT"]);
        assert!(error.is_environment());
    }
}

#[test]
fn a_cache_that_cannot_be_written_is_named() {
    let hub = Hub::new(repo());
    let cache = hub.cache.0.join("file");
    fs::write(&cache, "no folder").expect("a file in the way");
    let error = open("main", &HubSettings { cache: cache.clone(), ..hub.settings() }).expect_err("no folder");
    assert_says(&error, &[cache.to_str().expect("an ordinary name"), "cannot be", "HF_HUB_CACHE"]);
    assert!(error.is_environment());
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_named_and_leaves_nothing_that_counts() {
    let hub = Hub::new(repo());
    // Whatever is written to this device meets a disk without room.
    let path = hub.partial(FIRST, "model.safetensors");
    fs::create_dir_all(path.parent().expect("a folder")).expect("the folder of the blobs");
    std::os::unix::fs::symlink("/dev/full", &path).expect("a link in the way");
    let error = hub.open("main").expect_err("no room");
    assert_says(&error, &["No space left on device", "make room", "HF_HUB_CACHE"]);
    hub.assert_no_bad_blob();
}

// Other processes. The tests below run this very program again, as a process that opens a snapshot.

/// What such a process does: not a test of its own.
#[test]
#[ignore = "run by the tests below, in a process of its own"]
fn a_process_that_opens_a_snapshot() {
    let Ok(revision) = env::var("REPROCHECK_TEST_REVISION") else { return };
    let snapshot = open(&revision, &HubSettings::from_environment()).expect("a snapshot");
    assert_eq!(snapshot.commit, FIRST);
}

fn process(hub: &Hub, variables: &[(&str, &str)]) -> Child {
    let mut command = Command::new(env::current_exe().expect("this program"));
    command
        .args(["--ignored", "--exact", "--nocapture", "a_process_that_opens_a_snapshot"])
        .env_clear()
        .envs([("HF_ENDPOINT", hub.hub.url().as_str()), ("REPROCHECK_TEST_REVISION", "main")])
        .env("HF_HUB_CACHE", &hub.cache.0)
        .env("HF_HOME", hub.cache.0.join("home"))
        .envs(variables.iter().copied())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command.spawn().expect("this program runs")
}

fn succeeds(child: Child) -> bool {
    let output = child.wait_with_output().expect("a process that ends");
    output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed")
}

#[test]
fn the_environment_is_heard() {
    let hub = Hub::new(repo());
    let home = hub.cache.0.join("home");
    fs::create_dir_all(&home).expect("a folder");
    fs::write(home.join("token"), "hf_of_file").expect("a token");
    let authorizations = || -> BTreeSet<_> {
        let requests = hub.hub.requests();
        requests
            .iter()
            .map(|request| request.headers.get("authorization").cloned().unwrap_or_default())
            .collect()
    };
    for (variables, authorization) in [
        (vec![], "Bearer hf_of_file"),
        (vec![("HF_TOKEN", "hf_given")], "Bearer hf_given"),
        (vec![("HF_TOKEN", "hf_given"), ("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")], ""),
    ] {
        hub.forget_requests();
        assert!(succeeds(process(&hub, &variables)));
        assert_eq!(authorizations(), BTreeSet::from([authorization.to_owned()]));
    }
    hub.forget_requests();
    assert!(succeeds(process(&hub, &[("HF_HUB_OFFLINE", "1")])));
    assert_eq!(hub.requests(), [""; 0]);
    // Another cache has nothing.
    let cache = Folder::new();
    assert!(!succeeds(process(
        &hub,
        &[("HF_HUB_OFFLINE", "1"), ("HF_HUB_CACHE", cache.0.to_str().expect("an ordinary name"))]
    )));
    assert_eq!(hub.requests(), [""; 0]);
}

/// Whatever such a process sends goes through a proxy, but for what goes to the Hub and its storage.
#[test]
fn nothing_is_sent_to_anybody_else() {
    let hub = Hub::new(repo());
    let trap = Server::start(|_| Answer::new(502, ""));
    let url = trap.url();
    let proxies =
        [("HTTP_PROXY", url.as_str()), ("http_proxy", &url), ("HTTPS_PROXY", &url), ("ALL_PROXY", &url)];
    assert!(succeeds(process(&hub, &[&proxies[..], &[("NO_PROXY", "127.0.0.1")]].concat())));
    assert_eq!(trap.lines(), [""; 0]);
    assert!(hub.hub.lines().iter().all(|line| !line.contains("xet") && !line.starts_with("POST")));
    // The trap does catch what comes its way.
    fs::remove_dir_all(hub.in_cache("")).expect("the cached repository");
    assert!(!succeeds(process(&hub, &proxies)));
    assert!(!trap.lines().is_empty());
}

#[test]
fn two_processes_at_once_fetch_every_blob_once() {
    let slow = |answer: Answer| Answer { stall: Duration::from_millis(700), ..answer };
    let hub = Hub::but(repo(), storage(usize::MAX, slow));
    let both = [process(&hub, &[]), process(&hub, &[])];
    assert!(both.map(succeeds).iter().all(|&well| well));
    assert_eq!(hub.storage.lines().len(), 1);
    hub.assert_holds(&hub.offline("main").expect("what they brought"), FIRST);
}

#[test]
fn a_killed_process_leaves_nothing_that_counts_as_good() {
    let hub = Hub::but(repo(), storage(1, |answer| Answer { stall: Duration::from_secs(30), ..answer }));
    let mut child = process(&hub, &[]);
    let path = hub.partial(FIRST, "model.safetensors");
    let start = Instant::now();
    while fs::metadata(&path).map_or(0, |metadata| metadata.len()) < 1_500_000 {
        assert!(start.elapsed() < Duration::from_secs(20), "the first half never came");
        thread::sleep(Duration::from_millis(5));
    }
    child.kill().expect("a process that is waiting");
    child.wait().expect("a process that was killed");
    hub.assert_no_bad_blob();
    assert!(hub.offline("main").is_err() && hub.offline(FIRST).is_err());
    hub.assert_holds(&hub.open("main").expect("the rest"), FIRST);
    let last = hub.storage.requests().pop().expect("the request for the rest");
    assert_eq!(last.headers["range"], "bytes=1500000-");
}
