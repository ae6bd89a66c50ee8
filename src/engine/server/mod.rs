//! Servers that others serve with: each is asked over HTTP in its own dialect, and believed as far as it can show.
//!
//! What a server shows is the best log-probabilities of each token. How many prompts shared its calls is what it counts itself:
//! whoever is asked eight things at once may well do one after the other. So a setting of ours that a server does not prove is no
//! setting, and what it says that cannot be true ends its cell.

mod company;
pub mod dialect;
mod exchange;
pub mod process;

use std::{
    collections::{BTreeMap, hash_map::RandomState},
    hash::{BuildHasher as _, Hasher as _},
    net::TcpListener,
    ops::Range,
    path::Path,
    sync::{
        Barrier,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use serde::Serialize;
use serde_json::json;

use self::{
    company::Member,
    dialect::{Answer, Ask, Counts, Dialect, Identity},
    exchange::{Exchange, Key},
    process::{Process, Start},
};
pub use exchange::check_address;

use super::{
    Engine, EngineError, Observer, Prompt, Request,
    ending::{Decode, Endings},
    environment::Environment,
};
use crate::{
    cell::{Cache, Name, Served, server::Settings},
    digest::Digest,
    model::{Subject, tokenizer::Tokenizer},
    trace::{Finish, Launched, Sample, Seen, Sight, Step, Token},
};

/// What a matrix file says of a server.
#[derive(Clone, Debug)]
pub struct Server {
    /// How it is spoken to.
    pub dialect: &'static Dialect,
    /// Where it is, or how it is started.
    pub place: Place,
    /// The path that answers with 200 once it can be asked.
    pub ready: String,
    /// Variables of the environment that it is started with, beside our own.
    pub env: BTreeMap<String, String>,
    /// How long an answer, or its start, is waited for.
    pub timeout: Duration,
    /// What it calls the model; what it says itself where there is none.
    pub model: Option<String>,
    /// The variable of the environment that holds its key.
    pub key_env: Option<String>,
    /// The axes that are declared for it, each with its words and with the arguments that they stand for.
    pub axes: BTreeMap<Name, Vec<(Name, Vec<String>)>>,
}

/// Where a server is.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub enum Place {
    /// There, started by somebody else.
    Url(String),
    /// Here, started by this command.
    Command(Vec<String>),
}

/// A piece of an argument.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Piece<'a> {
    /// As it stands.
    Text(&'a str),
    /// What stands in braces.
    Placeholder(&'a str),
}

/// The pieces of an argument: a word in braces is a placeholder, any other brace is a brace.
pub fn pieces(argument: &str) -> Vec<Piece<'_>> {
    let mut pieces = Vec::new();
    let (mut rest, mut from) = (argument, 0);
    while let Some(open) = rest[from..].find('{').map(|at| from + at) {
        let end = rest[open..].find('}').map(|at| open + at);
        let word = end.map(|end| &rest[open + 1..end]).filter(|word| crate::cell::server::is_axis(word));
        let (Some(end), Some(word)) = (end, word) else {
            from = open + 1;
            continue;
        };
        if open > 0 {
            pieces.push(Piece::Text(&rest[..open]));
        }
        pieces.push(Piece::Placeholder(word));
        (rest, from) = (&rest[end + 1..], 0);
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    pieces
}

impl Server {
    /// One value for all that may move a bit of it.
    pub fn digest(&self) -> Digest {
        let axes: Vec<_> = self
            .axes
            .iter()
            .map(|(axis, words)| {
                let words = words.iter().map(|(word, arguments)| (word.as_str(), arguments));
                (axis.as_str(), words.collect::<Vec<_>>())
            })
            .collect();
        let all = (self.dialect.name, &self.place, &self.model, &self.env, axes);
        Digest::of(&serde_json::to_vec(&all).expect("values are JSON"))
    }

    /// What its command comes to under settings, with the path of the model and a port.
    fn command(&self, command: &[String], settings: Settings, model: &str, port: u16) -> Vec<String> {
        let port = port.to_string();
        let arguments = |placeholder: &str| -> Vec<String> {
            match placeholder {
                "model" => vec![model.to_owned()],
                "port" => vec![port.clone()],
                axis => {
                    let axis = Name::new(axis);
                    let word = settings.get(axis);
                    let words = self.axes.get(&axis).into_iter().flatten();
                    words.filter(|(other, _)| Some(*other) == word).flat_map(|(_, all)| all.clone()).collect()
                }
            }
        };
        let all = command.iter().flat_map(|argument| match pieces(argument)[..] {
            [Piece::Placeholder(placeholder)] => arguments(placeholder),
            ref pieces => {
                let texts = pieces.iter().map(|piece| match piece {
                    Piece::Text(text) => (*text).to_owned(),
                    Piece::Placeholder(placeholder) => arguments(placeholder).concat(),
                });
                vec![texts.collect()]
            }
        });
        all.collect()
    }
}

/// A server that can be asked.
pub struct Serving<'a> {
    dialect: &'static Dialect,
    exchange: Exchange,
    /// What it calls the model, if the matrix file says so.
    model: Option<String>,
    identity: Identity,
    /// What stands for it and its settings, as it said in its first answer.
    fingerprint: Option<String>,
    /// What no other process salts its requests with, and how many were salted so.
    salt: u64,
    salted: AtomicU64,
    /// Where it was started here.
    process: Option<Process>,
    timeout: Duration,
    tokenizer: &'a Tokenizer,
    /// The tokens that noise is made of.
    ordinary: Vec<u32>,
    vocabulary: usize,
    positions: usize,
}

/// What it takes to open one.
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

impl<'a> Serving<'a> {
    /// Starts the server unless somebody has, and waits until it can be asked.
    ///
    /// # Errors
    ///
    /// When it cannot be started or asked, or has another model.
    pub fn open(opening: &Opening<'_>, subject: &'a Subject<'a>) -> Result<Serving<'a>, EngineError> {
        let Opening { served, server, program, model, logs } = opening;
        let Some(tokenizer) = subject.tokenizer else {
            return Err(EngineError::Unsupported(format!(
                "servers are given tokens, and {} has no tokenizer here: name the model that it serves",
                subject.name
            )));
        };
        let key = server.key_env.as_deref().map(key).transpose()?;
        let names_model = |text: &String| pieces(text).contains(&Piece::Placeholder("model"));
        let command = match &server.place {
            Place::Url(_) => &[][..],
            Place::Command(command) => command,
        };
        if model.is_none() && command.iter().chain(&server.model).any(names_model) {
            return Err(EngineError::Unsupported(format!(
                "its declaration names {{model}}, and {} is nowhere on this disk: name one that is",
                subject.name
            )));
        }
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
        let exchange = Exchange::new(&url, key, server.timeout)?;
        let mut ordinary = tokenizer.ordinary();
        if ordinary.is_empty() {
            ordinary = (0..subject.vocabulary as u32).collect();
        }
        let mut serving = Serving {
            dialect: server.dialect,
            exchange,
            model: server.model.as_ref().map(|name| name.replace("{model}", path)),
            identity: Identity::default(),
            fingerprint: None,
            salt: random(),
            salted: AtomicU64::new(0),
            process,
            timeout: server.timeout,
            tokenizer,
            ordinary,
            vocabulary: subject.vocabulary,
            positions: subject.positions,
        };
        serving.wait(&server.ready)?;
        serving.identity = serving.identity()?;
        let Identity { vocabulary, parameters, .. } = serving.identity;
        let differs = |what: &str, its: u64, ours: u64| {
            Err(EngineError::Answer(format!(
                "its server has a model of {its} {what}, and {} has {ours}: let it serve that model, or name the one that it serves",
                subject.name
            )))
        };
        match (vocabulary, parameters) {
            (Some(its), _) if its != subject.vocabulary as u64 => {
                differs("tokens", its, subject.vocabulary as u64)?;
            }
            // Others count tied weights once or twice.
            (_, Some(its)) if subject.is_gguf && its != subject.parameters => {
                differs("weights", its, subject.parameters)?;
            }
            _ => {}
        }
        if server.dialect.greets {
            serving.fingerprint = serving.greet()?;
        }
        Ok(serving)
    }

    /// Asks for a token and throws it away.
    fn greet(&self) -> Result<Option<String>, EngineError> {
        let tokens =
            self.tokenizer.encode("1", true).map_err(|error| EngineError::Model(error.to_string()))?;
        let text = self.text_of(0, &tokens)?;
        let ask = Ask {
            model: &self.identity.model,
            tokens: &tokens,
            text: &text,
            new_tokens: 1,
            top: 2,
            must_show: false,
            cache: false,
            salt: &self.salt(),
            vocabulary: self.vocabulary,
        };
        let [answer] = <[_; 1]>::try_from(self.ask(&[(ask, Duration::ZERO)])?).expect("one for each");
        Ok(answer.fingerprint.map(|print| self.readable(&print)))
    }

    /// What it says, as anybody may read it.
    fn readable(&self, text: &str) -> String {
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
    fn identity(&self) -> Result<Identity, EngineError> {
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

    fn strange(&self, problem: &str) -> EngineError {
        EngineError::Answer(format!(
            "its server is not to be believed: {}; see who answers there, and that it speaks the dialect of {}",
            self.exchange.hide(problem),
            self.dialect.name
        ))
    }

    /// What it has done so far, if it counts.
    fn counts(&self) -> Option<Counts> {
        let (path, read) = self.dialect.counts?;
        read(&self.exchange.get(path, LONG).ok()?)
    }

    /// Asks for all at the same time, or each so much later; the answers are in the order of what was asked.
    fn ask(&self, asks: &[(Ask<'_>, Duration)]) -> Result<Vec<Answer>, EngineError> {
        let barrier = Barrier::new(asks.len());
        let one = |(ask, delay): &(Ask<'_>, Duration)| {
            let (path, value) = (self.dialect.ask)(ask);
            // What a token and its best ones can take, escaped at its worst, and what stands around them.
            let most = LONG + 64 * ask.tokens.len() + ask.new_tokens * (1 + ask.top) * 1024;
            barrier.wait();
            thread::sleep(*delay);
            let text = self.exchange.post(path, &value, most)?;
            (self.dialect.read)(&text, ask).map_err(|problem| self.strange(&problem))
        };
        thread::scope(|scope| {
            let asked: Vec<_> = asks.iter().map(|ask| scope.spawn(|| one(ask))).collect();
            asked.into_iter().map(|asked| asked.join().expect("nothing in there panics")).collect()
        })
    }

    /// What it has done for these answers since it had done so much, once it has counted all of it; nothing where it does
    /// not count.
    fn done(&self, before: Option<Counts>, answers: &[Answer]) -> Result<Option<Counts>, EngineError> {
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
                    "it counts {} tokens and gave us {chosen}, so somebody else uses it too",
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

    /// A word that no other request has.
    fn salt(&self) -> String {
        format!("{:016x}-{}", self.salt, self.salted.fetch_add(1, Ordering::Relaxed))
    }

    /// The tokens as a text, for a server that takes none: one of which our tokenizer makes these tokens. Nothing for others.
    fn text_of(&self, item: u64, tokens: &[u32]) -> Result<String, EngineError> {
        if self.dialect.sight != Sight::Text {
            return Ok(String::new());
        }
        // A token that stands at every beginning is no part of a text.
        let parts = [tokens, tokens.get(1..).unwrap_or_default()];
        let texts = parts.map(|tokens| self.tokenizer.decode(tokens, false));
        let is_it = |text: &String| self.tokenizer.encode(text, true).is_ok_and(|read| read == tokens);
        texts.into_iter().find(is_it).ok_or_else(|| {
            EngineError::Unsupported(format!(
                "its server takes texts, and what is asked for item {item} has tokens that no text has: leave such cells out, or ask \
                 in a dialect of tokens"
            ))
        })
    }

    /// The tokens of an answer that is a text alone; of another one those that it has, where its text is theirs.
    fn tokens_of(&self, answer: &Answer) -> Result<Vec<u32>, EngineError> {
        let Some(text) = answer.text.as_deref() else { return Ok(answer.tokens.clone()) };
        if self.dialect.sight != Sight::Text {
            let ours = self.tokenizer.decode(&answer.tokens, true);
            let letters = |text: &str| text.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            // A character that is not whole is nothing to one, and something to another.
            let is_whole = ![text, &ours].iter().any(|text| text.contains(char::REPLACEMENT_CHARACTER));
            if is_whole && letters(text) != letters(&ours) {
                return Err(self.strange(&format!(
                    "its text is `{}`, and that of its tokens `{}`",
                    self.readable(text),
                    self.readable(&ours)
                )));
            }
            return Ok(answer.tokens.clone());
        }
        let tokens =
            self.tokenizer.encode(text, false).map_err(|error| EngineError::Model(error.to_string()))?;
        if self.tokenizer.decode(&tokens, false) != text {
            return Err(EngineError::Unsupported(format!(
                "its server answers with texts, and `{}` is one that the model's tokenizer does not keep: ask it in a dialect of \
                 tokens",
                self.readable(text)
            )));
        }
        Ok(tokens)
    }

    /// Refuses what it took from its cache and should not have, or the other way round.
    fn check_cache(&self, cache: Cache, member: &Member<'_>, answer: &Answer) -> Result<(), EngineError> {
        let beside = if member.is_ours { "" } else { "a neighbor of " };
        let item = format!("{beside}item {}", member.item);
        let sentence = match (cache, answer.cached) {
            (Cache::Warm, Some(0)) => format!(
                "{item} was read a moment before, and nothing of it was in the cache: give each prompt a slot, and let \
                 prompts be as long as what it caches at once"
            ),
            (Cache::Off | Cache::Cold, Some(cached @ 1..)) => {
                let way_out = match cache {
                    Cache::Cold => self.dialect.forgets,
                    _ => "let the server have none, or leave such cells out",
                };
                format!("{cached} tokens of {item} were in a cache that should be {cache}: {way_out}")
            }
            (Cache::Warm | Cache::Cold, None) => {
                format!("it does not tell what of {item} was in its cache: leave such cells out")
            }
            _ => return Ok(()),
        };
        Err(EngineError::Answer(sentence))
    }
}

/// For a short text.
const SHORT: usize = 1 << 16;
/// For a text of a server's own, such as all it counts.
const LONG: usize = 1 << 22;

/// About how many rows a call had: the tokens that it chose for each. A server that decodes one by one comes to a little above
/// or below one, because the last part of a prompt gives a token too.
fn rows(done: Counts) -> Option<usize> {
    const ALONE: f64 = 1.2;
    let rows = done.chosen as f64 / done.calls.max(1) as f64;
    Some(if rows > ALONE { (rows.round() as usize).max(2) } else { 1 })
}

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
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

impl Engine for Serving<'_> {
    fn about(&self) -> Environment {
        let Identity { version, facts, vocabulary, parameters, .. } = &self.identity;
        let engine = format!("{} {version}", self.dialect.name).trim_end().to_owned();
        let counted = [("tokens", vocabulary), ("weights in all", parameters)];
        let counted = counted
            .into_iter()
            .filter_map(|(name, count)| Some((name.to_owned(), count.as_ref()?.to_string())));
        let fingerprint = self.fingerprint.iter().map(|print| ("fingerprint".to_owned(), print.clone()));
        let facts = facts.clone().into_iter().chain(counted).chain(fingerprint).collect();
        match self.process {
            Some(_) => Environment::here(engine, []).with(facts),
            // Nobody says where another one runs.
            None => Environment { engine, facts },
        }
    }

    fn sight(&self) -> Sight {
        self.dialect.sight
    }

    fn generate(
        &mut self,
        prompts: &[Prompt],
        request: &Request,
        observer: &mut dyn Observer,
    ) -> Result<(), EngineError> {
        super::check(prompts, request, self.vocabulary, self.positions)?;
        if !request.choice.takes_the_best() {
            let sentence = "every server draws in a way of its own, so none is asked to: take the best with choice = \"greedy\"";
            return Err(EngineError::Unsupported(sentence.to_owned()));
        }
        if self.dialect.sight == Sight::Text && prompts.iter().any(|prompt| prompt.replay.is_some()) {
            let sentence = "its server takes texts and gives texts, so it cannot be given tokens to read: take `replay` out";
            return Err(EngineError::Unsupported(sentence.to_owned()));
        }
        let is_replay = prompts.iter().any(|prompt| prompt.replay.is_some());
        let answers =
            if is_replay { self.replayed(prompts, request) } else { self.answers(prompts, request) };
        // Whoever was asked and is gone cannot answer: that is the reason, whatever came of it.
        self.lives()?;
        if let (Err(EngineError::Environment(_)), Some(_)) = (&answers, &self.process) {
            // Its keeper hears of its end a moment later than we do.
            thread::sleep(Duration::from_millis(300));
            self.lives()?;
        }
        let (answers, done) = answers?;
        if self.identity()? != self.identity {
            return Err(self.strange("it is another one than before, so what it says now goes with nothing"));
        }
        let rows = done.and_then(rows);
        let decode = |tokens: &[u32]| self.tokenizer.decode(tokens, true);
        let tokens = answers.iter().map(|answer| self.tokens_of(answer)).collect::<Result<Vec<_>, _>>()?;
        // Tokens that are made of a text may be more than those that it was made of.
        let most = tokens.iter().map(Vec::len).max().unwrap_or(0).max(request.max_new_tokens);
        let request = &Request { max_new_tokens: most, ..request.clone() };
        let endings = Endings::new(request, Some(&decode as &Decode<'_>))?;
        for ((prompt, answer), tokens) in prompts.iter().zip(answers).zip(tokens) {
            let mut ending = endings.begin(prompt);
            let mut steps = Vec::new();
            let mut all_shown = answer.shown.into_iter();
            for id in tokens {
                if ending.finish().is_some() {
                    break;
                }
                ending.push(id);
                let seen = match (self.dialect.sight, all_shown.next().flatten()) {
                    (Sight::Text, _) => Seen::Nothing,
                    (_, Some(best)) => Seen::Top(best),
                    (_, None) => Seen::hidden(request.candidates.min(self.vocabulary)),
                };
                steps.push(Step { token: Token { id, seen }, rows });
            }
            observer.chose(steps.len());
            observer.finished(Sample {
                item: prompt.item,
                prompt: prompt.tokens.clone(),
                steps,
                text: ending.text(),
                finish: ending.finish().unwrap_or(Finish::Stop),
                launch: answer.read.map(|read| Launched { prefill: vec![read], threads: None }),
            });
        }
        Ok(())
    }
}

impl Serving<'_> {
    /// Lets it forget what it has read.
    fn forget(&self) -> Result<(), EngineError> {
        /// For a server that does not forget while it works.
        const LAG: Duration = Duration::from_secs(5);
        let paths = (self.dialect.forget)(&self.identity);
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

    /// What it shows before each of the tokens that are given: it is asked for one token after each beginning, of all prompts
    /// at once.
    fn replayed(
        &self,
        prompts: &[Prompt],
        request: &Request,
    ) -> Result<(Vec<Answer>, Option<Counts>), EngineError> {
        let given = |prompt: &Prompt| prompt.replay.clone().unwrap_or_default();
        let begin = |prompt| Answer { tokens: given(prompt), ..Answer::default() };
        let mut all: Vec<_> = prompts.iter().map(begin).collect();
        let mut done = Some(Counts::NONE);
        let request = Request { max_new_tokens: 1, ..request.clone() };
        for place in 0..all.iter().map(|answer| answer.tokens.len()).max().unwrap_or(0) {
            let longer = |(at, prompt): (usize, &Prompt)| {
                let read = all[at].tokens.get(..=place)?;
                let tokens = [&prompt.tokens, &read[..place]].concat();
                Some((at, Prompt { item: prompt.item, tokens, replay: None }))
            };
            let (places, asked): (Vec<_>, Vec<_>) = prompts.iter().enumerate().filter_map(longer).unzip();
            let (answers, counted) = self.answers(&asked, &request)?;
            for (at, answer) in places.into_iter().zip(answers) {
                all[at].shown.push(answer.shown.into_iter().next().flatten());
                all[at].read = all[at].read.max(answer.read);
            }
            done = done.zip(counted).map(|(done, more)| done.and(more));
        }
        Ok((all, done))
    }

    /// What it answers to these prompts, all at once or each among its neighbors, and what it has done for that.
    fn answers(
        &self,
        prompts: &[Prompt],
        request: &Request,
    ) -> Result<(Vec<Answer>, Option<Counts>), EngineError> {
        let (mut all, mut done) = (Vec::new(), Some(Counts::NONE));
        for group in company::groups(prompts, &request.asking, &self.ordinary) {
            let (answers, counted) = self.group(&group, request)?;
            let of_ours = group.iter().zip(answers).filter(|(member, _)| member.is_ours);
            all.extend(of_ours.map(|(_, answer)| answer));
            done = done.zip(counted).map(|(done, more)| done.and(more));
        }
        Ok((all, done))
    }

    /// What it answers to all members of a group, and what it has done for that.
    fn group(
        &self,
        group: &[Member<'_>],
        request: &Request,
    ) -> Result<(Vec<Answer>, Option<Counts>), EngineError> {
        let cache = request.asking.cache;
        let text_of = |member: &Member<'_>| self.text_of(member.item, &member.tokens);
        let texts = group.iter().map(text_of).collect::<Result<Vec<_>, _>>()?;
        let salts: Vec<_> = group.iter().map(|_| self.salt()).collect();
        let asks: Vec<_> = group
            .iter()
            .zip(texts.iter().zip(&salts))
            .map(|(member, (text, salt))| {
                let ask = Ask {
                    model: &self.identity.model,
                    tokens: &member.tokens,
                    text,
                    new_tokens: request.max_new_tokens,
                    top: request.candidates,
                    must_show: member.is_ours,
                    cache: cache != Cache::Off,
                    salt,
                    vocabulary: self.vocabulary,
                };
                (ask, member.delay)
            })
            .collect();
        match cache {
            Cache::Off => {}
            Cache::Cold => self.forget()?,
            Cache::Warm => {
                let first: Vec<_> = asks
                    .iter()
                    .map(|(ask, _)| (Ask { new_tokens: 1, must_show: false, ..*ask }, Duration::ZERO))
                    .collect();
                self.ask(&first)?;
            }
        }
        let before = self.counts();
        let answers = self.ask(&asks)?;
        let done = self.done(before, &answers)?;
        for (member, answer) in group.iter().zip(&answers) {
            self.check_cache(cache, member, answer)?;
            if answer.fingerprint.as_deref().map(|print| self.readable(print)) != self.fingerprint {
                return Err(self.strange(
                    "it has another fingerprint than before, so what it says now goes with nothing",
                ));
            }
        }
        Ok((answers, done))
    }
}
