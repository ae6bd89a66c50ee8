//! Servers of others, by a stub over loopback: what one answers is believed as far as it proves it, and nothing that it does
//! hangs, hides or escapes.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use reprocheck::model::{Checkpoint, Subject, hub::HubSettings};
use serde_json::{Value, json};
use tempfile::TempDir;

/// With letters that texts write in more than one way.
pub(crate) const KEY: &str = "sk/a\"key\\that+nobody=may-see";

/// What a stub does that an honest server does not.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mood {
    Honest,
    /// Whatever it is asked at once, it does one by one.
    OneByOne,
    /// It counts nothing.
    Silent,
    /// Company moves its numbers.
    Moved,
    /// Company moves the numbers of whoever came first.
    MovesOne,
    /// It has nothing in its cache, whatever it was told.
    NeverCaches,
    /// It has a cache that was switched off.
    AlwaysCaches,
    /// It leaves out the row of a token.
    LeavesOut,
    /// It rounds its numbers.
    Rounds,
    /// It draws, whatever it was asked for.
    Draws,
    Hangs,
    ClosesMidway,
    Trickles,
    Fails,
    IsBusy,
    IsAPage,
    UnknownToken,
    AboveZero,
    NotANumber,
    AnotherModel,
    Huge,
    Elsewhere,
    /// It is another one after the first answers.
    Changes,
    /// Somebody else uses it.
    Shared,
    /// It says the key that it was told.
    Repeats,
    RepeatsInErrors,
    RepeatsInAnswers,
    /// It answers at once, whoever else asks.
    Quick,
}

#[derive(Default)]
pub(crate) struct Counts {
    pub(crate) calls: u64,
    chosen: u64,
    read: u64,
    pub(crate) answers: u64,
    pub(crate) key: Option<String>,
    seen: Vec<Vec<u64>>,
    /// When each came.
    came: Vec<Instant>,
    gathering: Gathering,
    /// How many it is at.
    pub(crate) busy: usize,
    /// It is the next version of itself, and has its weights in another form.
    pub(crate) is_newer: bool,
}

/// Those that are answered together.
#[derive(Default)]
pub(crate) struct Gathering {
    /// How many wait for the one that came first, and how many groups have gone.
    waiting: usize,
    gone: u64,
    /// How many the last group had.
    pub(crate) together: usize,
}

/// Waits as a server gathers what it decodes together: the first one for others, and they for it. Is it the first?
pub(crate) fn gathered<'s, S>(
    (state, changed): &'s (Mutex<S>, Condvar),
    of: fn(&mut S) -> &mut Gathering,
) -> (MutexGuard<'s, S>, bool) {
    let mut held = state.lock().unwrap();
    let Gathering { waiting, gone: group, .. } = of(&mut held);
    *waiting += 1;
    let (group, is_first) = (*group, *waiting == 1);
    if is_first {
        drop(held);
        thread::sleep(Duration::from_millis(150));
        held = state.lock().unwrap();
        let together = of(&mut held).waiting;
        *of(&mut held) = Gathering { waiting: 0, gone: group + 1, together };
        changed.notify_all();
    } else {
        held = changed.wait_while(held, |state| of(state).gone == group).unwrap();
    }
    (held, is_first)
}

pub(crate) struct Stub {
    port: u16,
    pub(crate) counts: Arc<(Mutex<Counts>, Condvar)>,
    is_closed: Arc<AtomicBool>,
}

impl Stub {
    /// A server of the model in the binary, for as long as the test runs.
    pub(crate) fn new(mood: Mood) -> Stub {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let counts: Arc<(Mutex<Counts>, Condvar)> = Arc::default();
        let shared = counts.clone();
        let is_closed: Arc<AtomicBool> = Arc::default();
        let closed = is_closed.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                if closed.load(Ordering::Relaxed) {
                    return;
                }
                let counts = shared.clone();
                // Whoever asks may have gone.
                thread::spawn(move || drop(answer(stream, mood, &counts)));
            }
        });
        Stub { port, counts, is_closed }
    }

    /// The prompts that it has seen, in groups of so many, each group in an order of its own.
    fn seen(&self, of: usize) -> Vec<Vec<Vec<u64>>> {
        let seen = self.counts.0.lock().unwrap().seen.clone();
        let groups = seen.chunks(of).map(|group| {
            let mut group = group.to_vec();
            group.sort_unstable();
            group
        });
        groups.collect()
    }

    /// Nobody answers there any more.
    pub(crate) fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        wait_until("nobody listens", || TcpStream::connect(("127.0.0.1", self.port)).is_err());
    }

    pub(crate) fn url(&self) -> String {
        format!("url = \"http://127.0.0.1:{}\"\ntimeout = 3", self.port)
    }
}

/// How many tokens the model has, and how many weights.
pub(crate) fn vocabulary() -> (u64, u64) {
    static SIZES: OnceLock<(u64, u64)> = OnceLock::new();
    *SIZES.get_or_init(|| {
        let checkpoint = Checkpoint::resolve("qwen", &HubSettings::from_environment(), &mut |_| {}).unwrap();
        let subject = Subject::of(&checkpoint).unwrap();
        (subject.vocabulary as u64, subject.parameters)
    })
}

/// Reads a request, and answers it as its mood is.
fn answer(mut stream: TcpStream, mood: Mood, shared: &(Mutex<Counts>, Condvar)) -> std::io::Result<()> {
    let mut head = Vec::new();
    let mut reader = BufReader::new(stream.try_clone()?);
    while !head.ends_with(b"\r\n\r\n") {
        if reader.read_until(b'\n', &mut head)? == 0 {
            return Ok(());
        }
    }
    let head = String::from_utf8(head).unwrap();
    let header = |name: &str| {
        let line = head.lines().find(|line| line.to_ascii_lowercase().starts_with(name));
        line.map(|line| line[name.len()..].trim().to_owned())
    };
    let mut body = vec![0; header("content-length:").map_or(0, |length| length.parse().unwrap())];
    reader.read_exact(&mut body)?;
    let path = head.split(' ').nth(1).unwrap();
    let (vocabulary, parameters) = vocabulary();
    let key = header("authorization:");
    let repeated = match (mood, &key) {
        (Mood::Repeats | Mood::RepeatsInErrors | Mood::RepeatsInAnswers, Some(key)) => {
            format!("X-Key: {key}\r\n")
        }
        _ => String::new(),
    };
    let mut say = |status: &str, extra: &str, text: &str| {
        let length = text.len();
        let whole = format!(
            "HTTP/1.1 {status}\r\nConnection: close\r\n{repeated}{extra}Content-Length: {length}\r\n\r\n{text}"
        );
        stream.write_all(whole.as_bytes())
    };
    let mut counts = shared.0.lock().unwrap();
    counts.key.clone_from(&key);
    match path {
        "/health" => say("200 OK", "", "{}"),
        "/props" => {
            let changes = mood == Mood::Changes && counts.answers > 0;
            let version = if changes || counts.is_newer { "b2" } else { "b1" };
            let version = if mood == Mood::Repeats { key.clone().unwrap() } else { version.to_owned() };
            let weights = if counts.is_newer { "Q8_0" } else { "Q4_1" };
            let props = json!({
                "build_info": version, "model_path": "/m/x.gguf", "model_ftype": weights, "total_slots": 4
            });
            say("200 OK", "", &props.to_string())
        }
        "/v1/models" => {
            let tokens = if mood == Mood::AnotherModel { vocabulary + 1 } else { vocabulary };
            let model = json!({ "data": [{ "meta": { "n_vocab": tokens, "n_params": parameters } }] });
            say("200 OK", "", &model.to_string())
        }
        "/metrics" if mood != Mood::Silent => {
            let Counts { calls, chosen, read, .. } = *counts;
            let chosen = if mood == Mood::Shared && chosen > 0 { chosen + 7 } else { chosen };
            let text = format!(
                "llamacpp:prompt_tokens_total {read}\nllamacpp:tokens_predicted_total {chosen}\nllamacpp:n_decode_total {calls}\n"
            );
            say("200 OK", "", &text)
        }
        "/completion" => {
            let request: Value = serde_json::from_slice(&body).unwrap();
            let new = request["n_predict"].as_u64().unwrap();
            let prompt: Vec<u64> =
                request["prompt"].as_array().unwrap().iter().map(|token| token.as_u64().unwrap()).collect();
            counts.came.push(Instant::now());
            counts.busy += 1;
            let mut is_first = true;
            if mood != Mood::Quick {
                drop(counts);
                (counts, is_first) = gathered(shared, |counts| &mut counts.gathering);
            }
            if is_first || mood == Mood::OneByOne {
                counts.calls += new;
            }
            let together = counts.gathering.together;
            let is_warm = request["cache_prompt"] == true && counts.seen.contains(&prompt);
            let is_cached = match mood {
                Mood::NeverCaches => false,
                Mood::AlwaysCaches => true,
                _ => is_warm,
            };
            let cached = if is_cached { prompt.len() as u64 - 1 } else { 0 };
            // What is asked ten thousand times is not to grow.
            if mood != Mood::Quick {
                counts.seen.push(prompt.clone());
            }
            counts.chosen += new;
            counts.read += prompt.len() as u64 - cached;
            counts.answers += 1;
            counts.busy -= 1;
            let moves = u64::from(counts.is_newer);
            drop(counts);
            let is_moved = mood == Mood::Moved || mood == Mood::MovesOne && is_first;
            let moved = if is_moved && together > 1 { -0.5 } else { -0.25 };
            let top = request["n_probs"].as_u64().unwrap();
            // The same one after a text, whoever wrote it.
            let tokens = continuation(&prompt, moves, new, vocabulary - top);
            let second = match mood {
                Mood::AboveZero => "0.5".to_owned(),
                Mood::NotANumber => "NaN".to_owned(),
                Mood::Rounds => "-1.2346".to_owned(),
                _ => "-1.5".to_owned(),
            };
            let row = |token: &u64| {
                let best = (0..top).map(|rank| match rank {
                    0 => format!("{{\"id\":{token},\"logprob\":{moved}}}"),
                    1 => format!("{{\"id\":{},\"logprob\":{second}}}", token + 1),
                    _ => format!("{{\"id\":{},\"logprob\":-{}.0}}", token + rank, rank + 1),
                });
                format!("{{\"id\":{token},\"top_logprobs\":[{}]}}", best.collect::<Vec<_>>().join(","))
            };
            let kept = if mood == Mood::LeavesOut { &tokens[1..] } else { &tokens[..] };
            let rows: Vec<_> = kept.iter().map(row).collect();
            let mut tokens = tokens.clone();
            if mood == Mood::UnknownToken {
                tokens[0] = vocabulary;
            }
            let temperature = if mood == Mood::Draws { 0.8 } else { 0.0 };
            let text = format!(
                "{{\"generation_settings\":{{\"temperature\":{temperature:?},\"n_probs\":{top}}},\"tokens\":{tokens:?},\"tokens_predicted\":{new},\"truncated\":false,\"timings\":{{\"cache_n\":{cached},\
                 \"prompt_n\":{}}},\"completion_probabilities\":[{}]}}",
                prompt.len() as u64 - cached,
                rows.join(",")
            );
            match mood {
                Mood::Hangs => {
                    thread::sleep(Duration::from_secs(30));
                    Ok(())
                }
                Mood::ClosesMidway => {
                    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", text.len(), &text[..20])
                }
                Mood::Trickles => {
                    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", text.len())?;
                    for byte in text.bytes() {
                        stream.write_all(&[byte])?;
                        thread::sleep(Duration::from_millis(200));
                    }
                    Ok(())
                }
                Mood::Huge => {
                    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1_u64 << 30)?;
                    let piece = vec![b' '; 1 << 20];
                    (0..1 << 10).try_for_each(|_| stream.write_all(&piece))
                }
                Mood::Fails => say("500 Internal Server Error", "", "{\"error\":\"out of memory\"}"),
                Mood::RepeatsInErrors => {
                    say("500 Internal Server Error", "", &json!({ "error": key }).to_string())
                }
                Mood::RepeatsInAnswers => say("200 OK", "", &json!({ "tokens": key }).to_string()),
                Mood::IsBusy => say("429 Too Many Requests", "Retry-After: 1\r\n", "later"),
                Mood::IsAPage => {
                    say("200 OK", "Content-Type: text/html\r\n", "<html><body>Hello</body></html>")
                }
                Mood::Elsewhere => {
                    let (there, _) = ELSEWHERE.get_or_init(elsewhere);
                    say("302 Found", &format!("Location: http://127.0.0.1:{there}/completion\r\n"), "")
                }
                _ => say("200 OK", "", &text),
            }
        }
        _ => say("501 Not Implemented", "", "{\"error\":\"not here\"}"),
    }
}

/// What a stub writes after a prompt, which is another one where it has moved.
pub(crate) fn continuation(prompt: &[u64], moves: u64, new: u64, tokens: u64) -> Vec<u64> {
    let mut sum = prompt.iter().sum::<u64>() + moves;
    let next = |_| {
        let token = sum % tokens;
        sum += token;
        token
    };
    (0..new).map(next).collect()
}

/// A host that nobody should come to: its port, and how many have.
static ELSEWHERE: std::sync::OnceLock<(u16, Arc<AtomicUsize>)> = std::sync::OnceLock::new();

fn elsewhere() -> (u16, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let came: Arc<AtomicUsize> = Arc::default();
    let counted = came.clone();
    thread::spawn(move || {
        for _ in listener.incoming() {
            counted.fetch_add(1, Ordering::Relaxed);
        }
    });
    (port, came)
}

/// A folder with a matrix of one server.
pub(crate) struct Place(TempDir);

impl Place {
    pub(crate) fn new(server: &str, matrix: &str, gate: &str) -> Place {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "model = \"qwen\"\nsuites = [\"carry_chain\"]\nitems = 4\n\n[generate]\nmax-new-tokens = 3\n\n[engine.stub]\n\
             dialect = \"llama.cpp\"\n{server}\n\n[matrix]\nengine = \"server:stub\"\n{matrix}\n\n[[gate]]\nname = \"tried\"\n{gate}\n"
        );
        fs::write(folder.path().join("ci.toml"), text).unwrap();
        Place(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reprocheck"));
        command
            .args(["run", "--matrix", "ci.toml", "--out", "out"])
            .current_dir(self.path())
            .env("STUB_KEY", KEY);
        command
    }

    pub(crate) fn run(&self) -> (i32, String) {
        let output = self.command().output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        let all = text(output.stdout) + &text(output.stderr);
        // As one line, wherever it was broken for a terminal.
        (output.status.code().unwrap(), all.split_whitespace().collect::<Vec<_>>().join(" "))
    }
}

pub(crate) const COMPANY: &str = "concurrency = [1, 4]";

/// Runs a stub alone and in company, under a gate.
fn in_company(mood: Mood, gate: &str) -> (i32, String) {
    let stub = Stub::new(mood);
    Place::new(&stub.url(), COMPANY, &format!("vary = \"concurrency\"\n{gate}")).run()
}

#[test]
fn a_gate_on_what_a_server_shows_passes_fails_and_never_speaks_of_bits() {
    let (code, out) = in_company(Mood::Honest, "require = \"top\"");
    assert_eq!(code, 0, "{out}");
    let (code, out) = in_company(Mood::Honest, "require = \"tokens\"");
    assert_eq!(code, 0, "{out}");
    let (code, out) = in_company(Mood::Honest, "require = \"bits\"");
    assert_eq!(code, 3, "{out}");
    assert!(out.contains("shows the best log-probabilities, not all logits: require"), "{out}");
    let (code, out) = in_company(Mood::Moved, "require = \"top\"");
    assert_eq!(code, 1, "{out}");
    assert!(
        out.contains(
            "server:stub/n4 has other tokens or other numbers of the best than server:stub/n1 on 4 of 4 items"
        ),
        "{out}"
    );
    let (code, out) = in_company(Mood::Moved, "expect = \"diverges\"");
    assert_eq!(code, 0, "{out}");
    let (code, out) = in_company(Mood::Honest, "expect = \"diverges\"");
    assert_eq!(code, 3, "{out}");
}

#[test]
fn company_that_the_server_does_not_prove_is_no_company() {
    let (code, out) = in_company(Mood::OneByOne, "require = \"top\"");
    assert_eq!(code, 3, "{out}");
    assert!(
        out.contains("`concurrency` was not exercised: the server decoded as many rows at a time"),
        "{out}"
    );
    let (code, out) = in_company(Mood::Silent, "require = \"top\"");
    assert_eq!(code, 3, "{out}");
    assert!(out.contains("whether `concurrency` made a difference cannot be told"), "{out}");
}

#[test]
fn what_is_not_shown_of_a_token_or_was_rounded_is_never_equal() {
    for mood in [Mood::LeavesOut, Mood::Rounds] {
        let (code, out) = in_company(mood, "require = \"top\"");
        assert_eq!(code, 3, "{mood:?}: {out}");
    }
    let (code, out) = in_company(Mood::LeavesOut, "require = \"tokens\"");
    assert_eq!(code, 0, "{out}");
}

#[test]
fn a_warm_cache_is_one_that_had_the_prompt_and_one_that_is_off_had_nothing() {
    let caches = |mood: Mood, matrix: &str| {
        let stub = Stub::new(mood);
        Place::new(&stub.url(), matrix, "vary = \"cache\"\nrequire = \"top\"").run()
    };
    let (code, out) = caches(Mood::Honest, "cache = [\"off\", \"warm\"]");
    assert_eq!(code, 0, "{out}");
    let (code, out) = caches(Mood::NeverCaches, "cache = [\"off\", \"warm\"]");
    assert_eq!(code, 3, "{out}");
    assert!(out.contains("nothing of it was in the cache"), "{out}");
    let (code, out) = caches(Mood::AlwaysCaches, "cache = [\"off\", \"warm\"]");
    assert_eq!(code, 3, "{out}");
    assert!(out.contains("were in a cache that should be off"), "{out}");
    let (code, out) = caches(Mood::Honest, "cache = [\"off\", \"cold\"]");
    assert_eq!(code, 3, "{out}");
    assert!(out.contains("so that its cache can be cold, start it with --slot-save-path"), "{out}");
}

/// Runs a stub with neighbors or arrivals, under a gate.
fn asked(stub: &Stub, matrix: &str, gate: &str) -> (i32, String) {
    Place::new(&stub.url(), matrix, gate).run()
}

#[test]
fn noise_and_copies_are_company_that_a_gate_passes_fails_or_cannot_tell() {
    for neighbors in ["noise:7", "copies"] {
        let tried = |mood, matrix: &str, vary: &str| {
            asked(&Stub::new(mood), matrix, &format!("vary = {vary}\nrequire = \"top\""))
        };
        // Beside nobody.
        let matrix = format!("concurrency = [1, 4]\nneighbors = \"{neighbors}\"");
        let vary = "[\"concurrency\", \"neighbors\"]";
        let (code, out) = tried(Mood::Honest, &matrix, vary);
        assert_eq!(code, 0, "{out}");
        let (code, out) = tried(Mood::Moved, &matrix, vary);
        assert_eq!(code, 1, "{out}");
        let said = format!(
            "server:stub/n4/{neighbors} has other tokens or other numbers of the best than server:stub/n1 on 4 of 4 items"
        );
        assert!(out.contains(&said), "{out}");
        let (code, out) = tried(Mood::OneByOne, &matrix, vary);
        assert_eq!(code, 3, "{out}");
        assert!(
            out.contains("`neighbors` was not exercised: under one setting or more the server decoded one row at a time"),
            "{out}"
        );
        let (code, out) = tried(Mood::Silent, &matrix, vary);
        assert_eq!(code, 3, "{out}");
        assert!(out.contains("whether `neighbors` made a difference cannot be told"), "{out}");
        // Beside others of its suite, so that what is kept is what the prompt has, and not what is beside it.
        let matrix = format!("concurrency = 4\nneighbors = [\"own\", \"{neighbors}\"]");
        for (mood, code) in [(Mood::Honest, 0), (Mood::Moved, 0), (Mood::OneByOne, 3), (Mood::Silent, 3)] {
            let (found, out) = tried(mood, &matrix, "\"neighbors\"");
            assert_eq!(found, code, "{mood:?}: {out}");
        }
    }
}

#[test]
fn copies_that_differ_fail_a_gate_whichever_is_kept() {
    let matrix = "concurrency = [1, 4]\nneighbors = \"copies\"";
    let gate = "vary = [\"concurrency\", \"neighbors\"]\nrequire = \"top\"";
    let unlike = |mood| {
        let stub = Stub::new(mood);
        let place = Place::new(&stub.url(), matrix, gate);
        let (code, out) = place.run();
        let record = fs::read(place.path().join("out/cells/server~stub_n4_copies.json")).unwrap();
        let record: Value = serde_json::from_slice(&record).unwrap();
        (code, record["content"]["done"]["unlike_copies"].as_u64(), out)
    };
    let (code, count, out) = unlike(Mood::MovesOne);
    assert_eq!((code, count), (1, Some(4)), "{out}");
    let (code, count, out) = unlike(Mood::Honest);
    assert_eq!((code, count), (0, None), "{out}");
    let (_, count, out) = unlike(Mood::Moved);
    assert_eq!(count, None, "{out}");
}

#[test]
fn a_prompt_is_asked_among_noise_of_its_length_that_one_seed_makes_again() {
    let gate = "vary = [\"concurrency\", \"neighbors\"]\nrequire = \"top\"";
    let seen = |neighbors: &str| {
        let stub = Stub::new(Mood::Honest);
        let (code, out) = asked(&stub, &format!("concurrency = [1, 4]\nneighbors = \"{neighbors}\""), gate);
        assert_eq!(code, 0, "{out}");
        let alone = stub.seen(1)[..4].concat();
        let groups = stub.seen(4)[1..].to_vec();
        assert_eq!((alone.len(), groups.len()), (4, 4));
        for (prompt, group) in alone.iter().zip(&groups) {
            assert!(group.contains(prompt));
            assert!(group.len() == 4 && group.iter().all(|one| one.len() == prompt.len()), "{group:?}");
        }
        (alone, groups)
    };
    let (alone, noise) = seen("noise:7");
    assert!(noise.iter().flatten().filter(|prompt| !alone.contains(prompt)).count() == 12, "{noise:?}");
    assert_eq!(seen("noise:7"), (alone, noise.clone()));
    assert_ne!(seen("noise:8").1, noise);
    let (alone, copies) = seen("copies");
    for (prompt, group) in alone.iter().zip(copies) {
        assert!(group.iter().all(|copy| copy == prompt), "{group:?}");
    }
}

#[test]
fn whoever_is_staggered_comes_later_and_still_has_company() {
    let tried = |mood, gate: &str| {
        let stub = Stub::new(mood);
        let (code, out) = asked(&stub, "concurrency = 4\narrival = [\"together\", \"staggered:0\"]", gate);
        let came = stub.counts.0.lock().unwrap().came.clone();
        (code, out, came)
    };
    let (code, out, came) = tried(Mood::Honest, "vary = \"arrival\"\nrequire = \"top\"");
    assert_eq!(code, 0, "{out}");
    let spread = |group: &[Instant]| group[3].duration_since(group[0]);
    assert_eq!(came.len(), 8);
    let (together, staggered) = (spread(&came[..4]), spread(&came[4..]));
    assert!(staggered >= Duration::from_millis(100) && staggered > together, "{together:?} {staggered:?}");
    let (code, out, _) = tried(Mood::OneByOne, "vary = \"arrival\"\nrequire = \"top\"");
    assert_eq!(code, 3, "{out}");
    assert!(out.contains("`arrival` was not exercised: under one setting or more"), "{out}");
    let (code, out, _) = tried(Mood::Silent, "vary = \"arrival\"\nrequire = \"top\"");
    assert_eq!(code, 3, "{out}");
    assert!(out.contains("whether `arrival` made a difference cannot be told"), "{out}");
}

#[test]
fn prompts_come_in_another_order_and_only_a_server_that_keeps_them_together_minds() {
    let tried = |mood| {
        let stub = Stub::new(mood);
        let matrix = "concurrency = 2\ngrouping = [\"in-order\", \"shuffled:0\"]";
        let (code, out) = asked(&stub, matrix, "vary = \"grouping\"\nrequire = \"top\"");
        let seen = stub.seen(2);
        (code, out, seen)
    };
    let (code, out, seen) = tried(Mood::Honest);
    assert_eq!(code, 0, "{out}");
    assert_eq!(seen.len(), 4);
    assert!(seen[2..].iter().all(|group| !seen[..2].contains(group)), "{seen:?}");
    let (code, out, _) = tried(Mood::OneByOne);
    assert_eq!(code, 3, "{out}");
    assert!(out.contains("`grouping` was not exercised: the same prompts shared their calls"), "{out}");
    let (code, out, _) = tried(Mood::Silent);
    assert_eq!(code, 3, "{out}");
    assert!(out.contains("whether `grouping` made a difference cannot be told"), "{out}");
}

#[test]
fn a_cell_among_noise_is_made_again_and_leaves_the_same_trace() {
    let stub = Stub::new(Mood::Honest);
    let matrix = "concurrency = 4\nneighbors = [\"own\", \"noise:7\"]\narrival = \"staggered:1\"";
    let place = Place::new(&stub.url(), matrix, "vary = \"neighbors\"\nrequire = \"top\"");
    let (code, out) = place.run();
    assert_eq!(code, 0, "{out}");
    let answers = || stub.counts.0.lock().unwrap().answers;
    assert_eq!(answers(), 4 + 16);
    let resume = || {
        let resumed = place.command().arg("--resume").output().unwrap();
        assert_eq!(resumed.status.code(), Some(0));
    };
    let file = place.path().join("out/cells/server~stub_n4_noise~7_staggered~1.json");
    let record = || {
        let record: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
        ["trace", "root", "launches"].map(|key| record["content"]["done"][key].clone())
    };
    let before = record();
    assert!(before.iter().all(|value| !value.is_null()), "{before:?}");
    resume();
    assert_eq!(answers(), 4 + 16);
    fs::remove_file(&file).unwrap();
    resume();
    assert_eq!(answers(), 4 + 16 + 16);
    assert_eq!(record(), before);
}

#[test]
fn a_server_reads_what_another_cell_wrote_and_shows_what_it_makes_of_it() {
    let beside = |mood: Mood, other: &str, more: &[&str]| {
        let stub = Stub::new(mood);
        let place = Place::new(&stub.url(), COMPANY, "vary = \"concurrency\"\nrequire = \"top\"");
        let prompts = "{\"text\": \"12+34=\"}\n{\"text\": \"7+8=\"}\n";
        fs::write(place.path().join("tokens.jsonl"), prompts).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_reprocheck"));
        command.args(["parity", "server:stub/n1", &format!("server:stub/{other}"), "--model", "qwen"]);
        command.args(["--tokens", "tokens.jsonl", "--max-new-tokens", "3"]).args(more);
        let output = command.current_dir(place.path()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code().unwrap(), text(output.stdout) + &text(output.stderr))
    };
    let parity = |mood: Mood, more: &[&str]| beside(mood, "n2", more);
    let all = ["--matrix", "ci.toml", "--top", "4"];
    let (code, out) = parity(Mood::Honest, &all);
    assert_eq!(code, 3, "{out}");
    assert!(out.contains("the best 4 log-probabilities") && out.contains("A B        6     6"), "{out}");
    let (code, out) = parity(Mood::Honest, &[&all[..], &["--max-flip-rate", "0"]].concat());
    assert_eq!(code, 0, "{out}");
    let (code, out) = parity(Mood::Moved, &all);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("set apart by concurrency 1 and 2"), "{out}");
    let (code, out) = beside(Mood::Moved, "n4/noise:3", &all);
    assert_eq!(code, 1, "{out}");
    let (code, out) =
        beside(Mood::Honest, "n4/copies/staggered:3", &[&all[..], &["--max-flip-rate", "0"]].concat());
    assert_eq!(code, 0, "{out}");
    let (code, out) = parity(Mood::Honest, &[]);
    assert!(code == 2 && out.contains("a server that is not declared"), "{out}");

    // A run whose cells read what the reference wrote.
    let stub = Stub::new(Mood::Honest);
    let place = Place::new(&stub.url(), COMPANY, "vary = \"concurrency\"\nrequire = \"top\"");
    let matrix = fs::read_to_string(place.path().join("ci.toml")).unwrap();
    let matrix = matrix.replace("max-new-tokens = 3", "max-new-tokens = 3\nreplay = true");
    let reference = "[reference]\nengine = \"server:stub\"\nconcurrency = 1\n\n[matrix]";
    fs::write(place.path().join("ci.toml"), matrix.replace("[matrix]", reference)).unwrap();
    let (code, out) = place.run();
    assert_eq!(code, 0, "{out}");
    // Four items of three tokens: chosen in one call, and read in three.
    assert_eq!(stub.counts.0.lock().unwrap().answers, 4 + 4 * 3);
}

#[test]
fn whatever_a_server_does_is_a_sentence_and_takes_no_longer_than_it_may() {
    for (mood, code, sentence) in [
        (Mood::Hangs, 4, "/completion of its server does not answer (timed out)"),
        (Mood::Trickles, 4, "/completion of its server does not answer (timed out)"),
        (Mood::ClosesMidway, 4, "/completion of its server does not answer"),
        (
            Mood::Fails,
            4,
            "answers with 500 Internal Server Error, saying `{\\\"error\\\":\\\"out of memory\\\"}`",
        ),
        (Mood::IsBusy, 4, "answers with 429 Too Many Requests, saying `later`"),
        (Mood::IsAPage, 3, "it does not answer as llama-server does"),
        (Mood::UnknownToken, 3, "and the model knows those below"),
        (Mood::Draws, 3, "it was asked for temperature 0, and says that it took 0.8"),
        (Mood::AboveZero, 3, "`0.5` is not a log-probability"),
        (Mood::NotANumber, 3, "it does not answer as llama-server does"),
        (Mood::AnotherModel, 3, "and qwen has"),
        (Mood::Huge, 3, "answers with more than"),
        (Mood::Elsewhere, 3, "no redirect is followed"),
        (Mood::Changes, 3, "it is not the one that it was"),
        (Mood::Shared, 3, "so it serves others, too"),
    ] {
        let stub = Stub::new(mood);
        let begun = Instant::now();
        let (found, out) =
            Place::new(&stub.url(), COMPANY, "vary = \"concurrency\"\nrequire = \"top\"").run();
        assert_eq!(found, code, "{mood:?}: {out}");
        assert!(out.contains(sentence), "{mood:?}: {out}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{mood:?}");
        // Nothing is asked twice.
        let answers = stub.counts.0.lock().unwrap().answers;
        assert!(answers <= 5, "{mood:?}: {answers}");
    }
    let (_, came) = ELSEWHERE.get_or_init(elsewhere);
    assert_eq!(came.load(Ordering::Relaxed), 0);
}

/// Every file below a folder.
pub(crate) fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

/// What a verb of the program says in a folder, and its exit code.
pub(crate) fn said(folder: &Path, arguments: &[&str]) -> (i32, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_reprocheck")).args(arguments).current_dir(folder).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code().unwrap(), text)
}

#[test]
fn what_differs_around_servers_is_said_before_anything_else() {
    let stub = Stub::new(Mood::Honest);
    let place = Place::new(&stub.url(), COMPANY, "vary = \"concurrency\"\nrequire = \"top\"");
    let run = |out: &str, more: &[&str]| {
        let arguments = [&["run", "--matrix", "ci.toml", "--out", out], more].concat();
        said(place.path(), &arguments)
    };
    let renew = |is_newer: bool| stub.counts.0.lock().unwrap().is_newer = is_newer;
    assert_eq!(run("before", &[]).0, 0);
    renew(true);
    assert_eq!(run("after", &[]).0, 0);

    // Two runs.
    let (code, out) = said(place.path(), &["diff", "before", "after", "--require", "tokens"]);
    assert_eq!(code, 1, "{out}");
    let around = "The surroundings of the cells of server:stub have changed, and any other\ndifference may come from that:\n  \
                  engine: llama.cpp b1 -> llama.cpp b2\n  weights: Q4_1 -> Q8_0\n\nFAIL: ";
    assert!(out.starts_with(around), "{out}");
    let (_, out) = said(place.path(), &["diff", "before", "after", "--format", "markdown"]);
    let row = "\n| `server:stub` | `weights` | `Q4_1` | `Q8_0` | 2 |\n";
    assert!(out.find(row).unwrap() < out.find("## FAIL").unwrap(), "{out}");
    let (_, out) = said(place.path(), &["diff", "before", "after", "--format", "json"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    let [engine, weights] = &report["before"]["surroundings"].as_array().unwrap()[..] else {
        panic!("{out}")
    };
    let expected = json!({ "engine": "server:stub", "what": "engine", "before": "llama.cpp b1", "after": "llama.cpp b2",
        "cells": 2 });
    assert_eq!((engine, &weights["after"]), (&expected, &json!("Q8_0")));
    for format in ["github", "junit", "sarif"] {
        let (_, out) = said(place.path(), &["diff", "before", "after", "--format", format]);
        assert!(out.contains("weights: Q4_1 -"), "{format}: {out}");
    }

    // Two cells.
    let cells = ["before/cells/server~stub_n1.json", "after/cells/server~stub_n4.json"];
    let (code, out) = said(place.path(), &["diff", cells[0], cells[1]]);
    assert_eq!(code, 1, "{out}");
    assert!(
        out.starts_with(
            "The surroundings of the two differ, and any other difference may come from that:\n  \
             engine: llama.cpp b1 -> llama.cpp b2\n  weights: Q4_1 -> Q8_0\n\nWhere two cells first part\n"
        ),
        "{out}"
    );

    // A server of the same version that was declared otherwise.
    let matrix = fs::read_to_string(place.path().join("ci.toml")).unwrap();
    let declared = matrix.replace("127.0.0.1", "localhost");
    fs::write(place.path().join("ci.toml"), declared).unwrap();
    assert_eq!(run("elsewhere", &[]).0, 0);
    let (code, out) = said(place.path(), &["diff", "after", "elsewhere", "--require", "tokens"]);
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("\n  what is declared of it: ") && !out.contains("weights: "), "{out}");
    fs::write(place.path().join("ci.toml"), matrix).unwrap();

    // Two cells of one run.
    assert_eq!(run("both", &["--part", "1/2"]).0, 0);
    renew(false);
    assert_eq!(run("both", &["--part", "2/2"]).0, 0);
    let (code, out) = said(place.path(), &["merge", "both"]);
    assert_eq!(code, 3, "{out}");
    let paragraph = "\n\nNot all cells of server:stub have the same surroundings, and what sets them\napart may come from that:\n  \
                     engine: llama.cpp b2 (server:stub/n1), llama.cpp b1 (server:stub/n4)\n  weights: Q8_0 (server:stub/n1), \
                     Q4_1 (server:stub/n4)\n\nunknown ";
    assert!(out.contains(paragraph), "{out}");
    let flat = out.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(
        flat.contains("did not run in the same surroundings (engine: llama.cpp b2 and llama.cpp b1; weights: Q8_0 and Q4_1)"),
        "{out}"
    );
    let (_, out) = said(place.path(), &["report", "both", "--format", "json"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        report["surroundings"][1]["values"][1],
        json!({ "value": "Q4_1", "cells": ["server:stub/n4"] })
    );
    let (_, out) = said(place.path(), &["report", "both", "--format", "markdown"]);
    let row = "\n| `server:stub` | `weights` | `Q4_1` | `server:stub/n4` |\n";
    assert!(out.find(row).unwrap() < out.find("| **unknown** |").unwrap(), "{out}");
}

/// A command that is a shell's.
#[cfg(unix)]
pub(crate) fn shell(script: &str) -> String {
    format!("command = [\"sh\", \"-c\", {script:?}, \"{{port}}\"]\ntimeout = 2")
}

#[cfg(unix)]
#[test]
fn a_command_that_ends_or_is_never_ready_says_what_it_said_last() {
    let gate = "vary = \"concurrency\"\nrequire = \"top\"";
    let (code, out) = Place::new(&shell("echo starting; echo no memory >&2; exit 7"), COMPANY, gate).run();
    assert_eq!(code, 4, "{out}");
    assert!(out.contains("its server has ended (exit status: 7), saying `starting / no memory` at the end of out/servers/stub.log"), "{out}");
    let (code, out) = Place::new(&shell("echo loading; sleep 600"), COMPANY, gate).run();
    assert_eq!(code, 4, "{out}");
    assert!(out.contains("its server could not be asked after 2 seconds, saying `loading`"), "{out}");
    let missing = "command = [\"/no/such/server\", \"{port}\"]";
    let (code, out) = Place::new(missing, COMPANY, gate).run();
    assert_eq!(code, 4, "{out}");
    assert!(out.contains("cannot start `/no/such/server`"), "{out}");
}

/// Is there such a process?
#[cfg(unix)]
fn lives(process: &str) -> bool {
    let status = Command::new("kill").args(["-0", process]).stderr(Stdio::null()).status();
    status.unwrap().success()
}

pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(30);
    while !is_so() {
        assert!(Instant::now() < end, "{what}");
        thread::sleep(Duration::from_millis(50));
    }
}

#[cfg(unix)]
#[test]
fn a_server_ends_with_its_children_however_the_run_ends() {
    // Its child does not care to be asked.
    let server = shell("(trap '' TERM; echo child; sleep 600) & echo $! $$; wait")
        .replace("timeout = 2", "timeout = 60");
    for signal in ["-KILL", "-INT"] {
        let place = Place::new(&server, COMPANY, "vary = \"concurrency\"\nrequire = \"top\"");
        let mut run = place.command().stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let log = place.path().join("out/servers/stub.log");
        let processes = || -> Vec<String> {
            let text = fs::read_to_string(&log).unwrap_or_default();
            let line = text
                .lines()
                .find(|line| line.starts_with(|c: char| c.is_ascii_digit()))
                .unwrap_or_default()
                .to_owned();
            line.split_whitespace().map(str::to_owned).collect()
        };
        wait_until("it starts", || processes().len() == 2);
        let processes = processes();
        assert!(processes.iter().all(|process| lives(process)));
        // The second one of a polite signal ends a run at once.
        for _ in 0..2 {
            let _ = Command::new("kill").args([signal, &run.id().to_string()]).stderr(Stdio::null()).status();
            thread::sleep(Duration::from_millis(300));
        }
        run.wait().unwrap();
        wait_until("all end", || processes.iter().all(|process| !lives(process)));
    }
}

/// The matrix that is shipped, of a genuine server; `.ci/server` fetches it, and `.ci/model` the model.
#[cfg(unix)]
struct Real(TempDir);

#[cfg(unix)]
impl Real {
    fn new(change: impl Fn(String) -> String) -> Real {
        let variable =
            |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("{name} is what `.ci/run` sets"));
        let (python, model) = (variable("REPROCHECK_LLAMA_SERVER"), variable("REPROCHECK_REAL_MODEL"));
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let script = root.join("tests/real/llama_server.py");
        let text = fs::read_to_string(root.join("suites/serve-llama.toml")).unwrap();
        let text = text.replace("\"llama-server\"", &format!("{python:?}, {script:?}"));
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("serve.toml"), format!("model = {model:?}\n{}", change(text))).unwrap();
        Real(folder)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reprocheck"));
        command.args(["run", "--matrix", "serve.toml", "--out", "out"]).current_dir(self.0.path());
        command
    }

    fn run(&self) -> (i32, String) {
        let output = self.command().output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        (output.status.code().unwrap(), text)
    }

    /// The most rows that a server decoded at a time, as the record of a cell has it.
    fn rows(&self, cell: &str) -> u64 {
        let file = format!("out/cells/{}.json", cell.replace('/', "_").replace(':', "~"));
        let record: Value = serde_json::from_slice(&fs::read(self.0.path().join(file)).unwrap()).unwrap();
        record["content"]["done"]["launches"]["decode_rows"].as_u64().unwrap()
    }
}

#[cfg(unix)]
#[test]
#[ignore = "needs the real model and server: `.ci/run` fetches both"]
fn a_real_server_keeps_its_numbers_in_company_and_from_a_warm_cache_or_not_by_one_flag() {
    let real = Real::new(|text| text);
    let (code, out) = real.run();
    assert_eq!(code, 0, "{out}");
    assert_eq!(real.rows("server:llama/kv=split/n1"), 1);
    assert!(real.rows("server:llama/kv=split/n4") >= 2, "{out}");
    assert!(real.rows("server:llama/kv=split/n32") >= 8, "{out}");
    assert!(real.rows("server:llama/kv=unified/n4") >= 2, "{out}");
}

#[cfg(unix)]
#[test]
#[ignore = "needs the real model and server: `.ci/run` fetches both"]
fn a_real_server_with_one_slot_has_no_company() {
    let real = Real::new(|text| {
        let text = text.replace(
            "split = [\"-np\", \"32\"], unified = [\"-np\", \"32\", \"-kvu\"]",
            "split = [\"-np\", \"1\"]",
        );
        let text: String = text
            .lines()
            .filter(|line| !line.starts_with("exclude"))
            .map(|line| format!("{line}\n"))
            .collect();
        let text = text.replace("[1, 4, 32]", "[1, 8]").replace("[\"off\", \"warm\"]", "\"off\"");
        let end = text.find("[[gate]]\nname    = \"nor").unwrap();
        text[..end].to_owned()
    });
    let (code, out) = real.run();
    assert_eq!(code, 3, "{out}");
    assert!(out.contains("`concurrency` was not exercised"), "{out}");
    assert_eq!(real.rows("server:llama/kv=split/n8"), 1);
}

#[cfg(unix)]
#[test]
#[ignore = "needs the real model and server: `.ci/run` fetches both"]
fn a_real_server_that_is_killed_midway_ends_the_run_and_leaves_no_orphan() {
    let real = Real::new(|text| text.replace("max-new-tokens = 12", "max-new-tokens = 64"));
    let run = real.command().stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let folder = real.0.path().to_owned();
    // Once a group is done.
    wait_until("a group is done", || {
        let cells = fs::read_dir(folder.join("out/cells")).into_iter().flatten().flatten();
        cells.into_iter().any(|cell| cell.metadata().is_ok_and(|about| about.len() > 0))
    });
    let script = format!("{}/tests/real/llama_server.py", env!("CARGO_MANIFEST_DIR"));
    let ours = || -> Vec<String> {
        let children = |parent: &str| {
            let output = Command::new("ps").args(["-o", "pid=,args=", "--ppid", parent]).output().unwrap();
            let lines = String::from_utf8(output.stdout).unwrap();
            lines.lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>()
        };
        let keepers = children(&run.id().to_string());
        let servers = keepers.iter().flat_map(|keeper| children(keeper.split(' ').next().unwrap()));
        servers
            .filter(|line| line.contains(&script))
            .map(|line| line.split(' ').next().unwrap().to_owned())
            .collect()
    };
    let servers = ours();
    assert_eq!(servers.len(), 1);
    Command::new("kill").args(["-KILL", &servers[0]]).status().unwrap();
    let output = run.wait_with_output().unwrap();
    let err = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(4), "{err}");
    assert!(err.contains("its server has ended (signal: 9"), "{err}");
    assert!(!lives(&servers[0]));
}
