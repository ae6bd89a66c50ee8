//! A server that can be asked: who it is, what it has done so far, and what follows prompts, all at the same time.

use std::{
    cell::RefCell,
    collections::hash_map::RandomState,
    hash::{BuildHasher as _, Hasher as _},
    net::TcpListener,
    ops::Range,
    path::Path,
    sync::{
        Arc, Barrier,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    declaration::{Place, Server},
    dialect::{self, Answer, Ask, Counts, Dialect, Identity},
    exchange::{Exchange, Key},
    process::{Process, Start},
};
use crate::{cell::Served, engine::EngineError};

/// What it takes to open a server.
pub struct Opening<'a> {
    /// Which, under which settings.
    pub served: Served,
    /// What the matrix file says of it.
    pub server: &'a Server,
    /// This program.
    pub program: &'a Path,
    /// Where the model's files are, if they are on this disk.
    pub model: Option<String>,
    /// Where to put what servers say.
    pub logs: &'a Path,
}

/// A server, and its process where it was started here.
pub(super) struct Contact {
    pub(super) dialect: &'static Dialect,
    exchange: Arc<Exchange>,
    /// As many as have been needed at once.
    askers: RefCell<Vec<Asker>>,
    /// What it calls the model, if the matrix file says so.
    model: Option<String>,
    process: Option<Process>,
    timeout: Duration,
}

/// A thread that asks one thing after the other: starting one for each request was a good part of what asking cost.
struct Asker {
    requests: Sender<Request>,
    /// Of the answers, one for each.
    bodies: Receiver<Result<String, EngineError>>,
}

/// What is sent so long after all that go together are there.
struct Request {
    path: &'static str,
    value: Value,
    /// How many bytes an answer may have.
    most: usize,
    together: Arc<Barrier>,
    delay: Duration,
}

impl Asker {
    fn new(exchange: Arc<Exchange>) -> Asker {
        let (requests, asked) = channel();
        let (answered, bodies) = channel();
        thread::spawn(move || {
            for Request { path, value, most, together, delay } in asked {
                together.wait();
                thread::sleep(delay);
                if answered.send(exchange.post(path, &value, most)).is_err() {
                    return;
                }
            }
        });
        Asker { requests, bodies }
    }
}

impl Contact {
    /// Starts the server unless somebody has, and waits until it can be asked.
    pub(super) fn open(opening: &Opening<'_>) -> Result<Contact, EngineError> {
        let Opening { served, server, program, model, logs } = opening;
        let key = server.key_env.as_deref().map(key).transpose()?;
        let path = model.as_deref().unwrap_or_default();
        let (process, url) = match &server.place {
            Place::Url(url) => (None, url.clone()),
            Place::Command(command) => {
                let port = free_port()?;
                let name = format!("{}/{}", served.server, served.settings);
                let log = logs.join(format!("{}.log", name.trim_end_matches('/').replace('/', "_")));
                let command = server.command(command, served.settings, path, port);
                let start = Start { command, env: server.env.clone(), log };
                (Some(Process::start(program, &start)?), format!("http://127.0.0.1:{port}"))
            }
        };
        let contact = Contact {
            dialect: server.dialect,
            exchange: Arc::new(Exchange::new(&url, key, server.timeout)?),
            askers: RefCell::default(),
            model: server.model.as_ref().map(|name| name.replace("{model}", path)),
            process,
            timeout: server.timeout,
        };
        contact.wait(&server.ready)?;
        Ok(contact)
    }

    /// Was it started here?
    pub(super) fn is_here(&self) -> bool {
        self.process.is_some()
    }

    /// What it says, as anybody may read it.
    pub(super) fn readable(&self, text: &str) -> String {
        dialect::clipped(&self.exchange.hide(text))
    }

    /// Waits until it can be asked.
    fn wait(&self, ready: &str) -> Result<(), EngineError> {
        const PACE: Duration = Duration::from_millis(50);
        let end = Instant::now() + self.timeout;
        while !self.exchange.is_ready(ready) {
            if let Some(process) = &self.process {
                self.lives()?;
                if Instant::now() > end {
                    return Err(EngineError::Environment(format!(
                        "its server could not be asked after {} seconds{}: see that {ready} answers with 200, or set a longer \
                         `timeout`",
                        self.timeout.as_secs(),
                        process.last_words(&|text| self.exchange.hide(text))
                    )));
                }
            } else if Instant::now() > end {
                // What stands in the way is what it says when it is asked.
                self.exchange.get(ready, SHORT)?;
                return Ok(());
            }
            thread::sleep(PACE);
        }
        // Somebody else may have answered on its port.
        self.lives()
    }

    /// Is the process there that was started?
    fn lives(&self) -> Result<(), EngineError> {
        match self.process.as_ref().and_then(|process| process.ended(&|text| self.exchange.hide(text))) {
            Some(ended) => {
                Err(EngineError::Environment(format!("its server has {ended}: see why, and try again")))
            }
            None => Ok(()),
        }
    }

    /// Who it says it is.
    pub(super) fn identity(&self) -> Result<Identity, EngineError> {
        let paths = self.dialect.introductions.iter();
        let texts = paths.map(|path| self.exchange.get(path, LONG)).collect::<Result<Vec<_>, _>>()?;
        let mut identity = (self.dialect.identity)(&texts, self.model.as_deref())
            .map_err(|problem| self.strange(&problem))?;
        identity.version = self.readable(&identity.version);
        for fact in identity.facts.values_mut() {
            *fact = self.readable(fact);
        }
        Ok(identity)
    }

    pub(super) fn strange(&self, problem: &str) -> EngineError {
        EngineError::Answer(format!(
            "its server cannot be trusted: {}; see who answers there, and that it speaks the dialect of {}",
            self.exchange.hide(problem),
            self.dialect.name
        ))
    }

    /// What came of asking it, or why it is gone: whoever is gone cannot answer, and that is the reason then.
    pub(super) fn unless_gone<T>(&self, came: Result<T, EngineError>) -> Result<T, EngineError> {
        self.lives()?;
        if let (Err(EngineError::Environment(_)), Some(_)) = (&came, &self.process) {
            // Its keeper hears of its end a moment later than we do.
            thread::sleep(Duration::from_millis(300));
            self.lives()?;
        }
        came
    }

    /// What it has done so far, if it counts.
    pub(super) fn counts(&self) -> Option<Counts> {
        let (path, read) = self.dialect.counts?;
        read(&self.exchange.get(path, LONG).ok()?)
    }

    /// Asks for all at the same time, or each so much later; the answers are in the order of what was asked.
    pub(super) fn ask(&self, asks: &[(Ask<'_>, Duration)]) -> Result<Vec<Answer>, EngineError> {
        let mut askers = self.askers.borrow_mut();
        while askers.len() < asks.len() {
            askers.push(Asker::new(self.exchange.clone()));
        }
        let together = Arc::new(Barrier::new(asks.len()));
        for (asker, (ask, delay)) in askers.iter().zip(asks) {
            let (path, value) = (self.dialect.ask)(ask);
            // What a token and its best ones can take, escaped at its worst, and what stands around them.
            let most = LONG + 64 * ask.tokens.len() + ask.new_tokens * (1 + ask.top) * 1024;
            let request = Request { path, value, most, together: together.clone(), delay: *delay };
            asker.requests.send(request).expect("it waits for requests");
        }
        // All of them before any is read: what an asker still has would be the next answer.
        let bodies = askers.iter().zip(asks).map(|(asker, _)| asker.bodies.recv().expect("it answers all"));
        let bodies: Vec<_> = bodies.collect();
        let read = |(body, (ask, _)): (Result<String, _>, &(Ask<'_>, Duration))| {
            (self.dialect.read)(&body?, ask).map_err(|problem| self.strange(&problem))
        };
        bodies.into_iter().zip(asks).map(read).collect()
    }

    /// What it has done for these answers since it had done so much, once it has counted all of it; nothing where it does
    /// not count.
    pub(super) fn done(
        &self,
        before: Option<Counts>,
        answers: &[Answer],
    ) -> Result<Option<Counts>, EngineError> {
        /// For a server whose counters come from another process.
        const LAG: Duration = Duration::from_secs(3);
        let Some(before) = before else { return Ok(None) };
        let chosen: u64 = answers.iter().map(|answer| answer.tokens.len() as u64).sum();
        let read: Option<u64> = answers.iter().map(|answer| answer.read.map(|read| read as u64)).sum();
        let end = Instant::now() + LAG;
        loop {
            let Some(done) = self.counts() else { return Ok(None) };
            let Some(done) = done.since(before) else {
                return Err(self.strange("it counts less than before, so it was started anew in between"));
            };
            let (of_prompts, is_all) = match (done.read, read) {
                (Some(done), Some(read)) => (done > read, done == read),
                _ => (false, true),
            };
            if done.chosen > chosen || of_prompts {
                return Err(self.strange(&format!(
                    "it counts {} tokens and gave us {chosen}, so it serves others, too",
                    done.chosen
                )));
            }
            if done.chosen == chosen && is_all {
                return Ok(Some(done));
            }
            if Instant::now() > end {
                return Err(self.strange(&format!("it gave us {chosen} tokens, and counts {}", done.chosen)));
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Lets it forget what it has read.
    pub(super) fn forget(&self, identity: &Identity) -> Result<(), EngineError> {
        /// For a server that does not forget while it works.
        const LAG: Duration = Duration::from_secs(5);
        let paths = (self.dialect.forget)(identity);
        let so_that = |sentence: &str| {
            EngineError::Answer(format!(
                "{sentence}; so that its cache can be cold, {}",
                self.dialect.forgets
            ))
        };
        if paths.is_empty() {
            return Err(so_that("its server cannot be asked to forget"));
        }
        for path in paths {
            let end = Instant::now() + LAG;
            loop {
                let text = self.exchange.post(&path, &json!({}), SHORT).map_err(|error| match error {
                    EngineError::Answer(sentence) => so_that(&sentence),
                    error => error,
                })?;
                if (self.dialect.forgot)(&text) {
                    break;
                }
                if Instant::now() > end {
                    return Err(so_that(&format!(
                        "its server does not forget, and says `{}`",
                        self.readable(&text)
                    )));
                }
                thread::sleep(Duration::from_millis(100));
            }
        }
        Ok(())
    }
}

/// For a short text.
const SHORT: usize = 1 << 16;
/// For a text of a server's own, such as all it counts.
const LONG: usize = 1 << 22;

#[expect(clippy::disallowed_methods, reason = "a key opens a door and moves no bit of what comes through it")]
fn key(variable: &str) -> Result<Key, EngineError> {
    std::env::var(variable).map(Key).map_err(|_| {
        EngineError::Unsupported(format!(
            "its key should be in {variable}, which is not set: set it, or take `key-env` out"
        ))
    })
}

/// A port that nobody listens at. A server may take minutes until it does, so it is none of those that systems give to whoever
/// asks for any: in that time somebody would.
fn free_port() -> Result<u16, EngineError> {
    const PORTS: Range<u16> = 20_000..32_000;
    const TRIES: usize = 1000;
    let any = || PORTS.start + (random() % PORTS.len() as u64) as u16;
    let mut free = (0..TRIES).map(|_| any()).filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.next().ok_or_else(|| {
        let sentence = "there is no free port for a server between 20000 and 32000: see what uses them all";
        EngineError::Environment(sentence.to_owned())
    })
}

/// A number that no other process has: it moves no bit.
pub(super) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
