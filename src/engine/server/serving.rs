//! Servers as engines: what is asked of one and what it answers, checked until it can be believed, as samples.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    contact::{Contact, Opening, random},
    dialect::{Answer, Ask, Counts, Identity},
};
use crate::{
    cell::{Cache, Neighbors},
    engine::{
        Engine, EngineError, Observer, Prompt, Request, check,
        company::{self, Member},
        ending::{Decode, Endings},
        environment::Environment,
    },
    model::{Subject, tokenizer::Tokenizer},
    trace::{Finish, History, Launched, Sample, Seen, Sight, Step, Token},
};

/// A server that can be asked.
pub struct Serving<'a> {
    contact: Contact,
    identity: Identity,
    /// What stands for it and its settings, as it said in its first answer.
    fingerprint: Option<String>,
    /// What no other process salts its requests with, and how many were salted so.
    salt: u64,
    salted: AtomicU64,
    tokenizer: &'a Tokenizer,
    /// The tokens that noise is made of, once somebody wants some.
    ordinary: OnceLock<Vec<u32>>,
    vocabulary: usize,
    positions: usize,
}

impl<'a> Serving<'a> {
    /// Starts the server unless somebody has, and waits until it can be asked.
    ///
    /// # Errors
    ///
    /// When it cannot be started or asked, or has another model.
    pub fn open(opening: &Opening<'_>, subject: &'a Subject<'a>) -> Result<Serving<'a>, EngineError> {
        let Some(tokenizer) = subject.tokenizer else {
            return Err(EngineError::Unsupported(format!(
                "servers are given tokens, and {} has no tokenizer here: name the model that it serves",
                subject.name
            )));
        };
        if opening.model.is_none() && opening.server.names_the_path() {
            return Err(EngineError::Unsupported(format!(
                "its declaration names {{model}}, and {} is nowhere on this disk: name one that is",
                subject.name
            )));
        }
        let contact = Contact::open(opening)?;
        let mut serving = Serving {
            identity: contact.identity()?,
            contact,
            fingerprint: None,
            salt: random(),
            salted: AtomicU64::new(0),
            tokenizer,
            ordinary: OnceLock::new(),
            vocabulary: subject.vocabulary,
            positions: subject.positions,
        };
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
        if serving.contact.dialect.greets {
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
        let [answer] = <[_; 1]>::try_from(self.contact.ask(&[(ask, Duration::ZERO)])?).expect("one for each");
        Ok(answer.fingerprint.map(|print| self.contact.readable(&print)))
    }

    /// The tokens that noise is made of.
    fn ordinary(&self) -> &[u32] {
        self.ordinary.get_or_init(|| company::ordinary(Some(self.tokenizer), self.vocabulary))
    }

    /// A word that no other request has.
    fn salt(&self) -> String {
        format!("{:016x}-{}", self.salt, self.salted.fetch_add(1, Ordering::Relaxed))
    }

    /// The tokens as a text, for a server that takes none: one of which our tokenizer makes these tokens. Nothing for others.
    fn text_of(&self, item: u64, tokens: &[u32]) -> Result<String, EngineError> {
        if self.contact.dialect.sight != Sight::Text {
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
    fn tokens_of(&self, answer: &mut Answer) -> Result<Vec<u32>, EngineError> {
        let tokens = std::mem::take(&mut answer.tokens);
        let Some(text) = answer.text.as_deref() else { return Ok(tokens) };
        if self.contact.dialect.sight != Sight::Text {
            let ours = self.tokenizer.decode(&tokens, true);
            let is_same = || {
                let [one, other] = [text, &ours].map(|text| text.chars().filter(|c| !c.is_whitespace()));
                one.eq(other)
            };
            // A character that is not whole is nothing to one, and something to another.
            let is_whole = ![text, &ours].iter().any(|text| text.contains(char::REPLACEMENT_CHARACTER));
            if is_whole && !is_same() {
                return Err(self.contact.strange(&format!(
                    "its text is `{}`, and that of its tokens `{}`",
                    self.contact.readable(text),
                    self.contact.readable(&ours)
                )));
            }
            return Ok(tokens);
        }
        let tokens =
            self.tokenizer.encode(text, false).map_err(|error| EngineError::Model(error.to_string()))?;
        if self.tokenizer.decode(&tokens, false) != text {
            return Err(EngineError::Unsupported(format!(
                "its server answers with texts, and `{}` is one that the model's tokenizer does not keep: ask it in a dialect of \
                 tokens",
                self.contact.readable(text)
            )));
        }
        Ok(tokens)
    }

    /// Refuses what it took from its cache and should not have, or the other way round.
    fn check_cache(&self, cache: Cache, member: &Member<'_>, answer: &Answer) -> Result<(), EngineError> {
        let beside = if member.is_ours { "" } else { "a neighbor of " };
        let item = format!("{beside}item {}", member.item);
        let sentence = match (cache, answer.cached) {
            (Cache::Warm(_), Some(0)) => format!(
                "{item} was read a moment before, and nothing of it was in the cache: give each prompt a slot, and let \
                 prompts be as long as what it caches at once"
            ),
            (Cache::Off | Cache::Cold(_), Some(cached @ 1..)) => {
                let way_out = match cache {
                    Cache::Cold(_) => self.contact.dialect.forgets,
                    _ => "let the server have none, or leave such cells out",
                };
                format!("{cached} tokens of {item} were in a cache that should be {cache}: {way_out}")
            }
            (Cache::Warm(_) | Cache::Cold(_), None) => {
                format!("it does not tell what of {item} was in its cache: leave such cells out")
            }
            _ => return Ok(()),
        };
        Err(EngineError::Answer(sentence))
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
                all[at].has_unlike_copy |= answer.has_unlike_copy;
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
        let ordinary = match request.asking.neighbors {
            Neighbors::Noise(_) => self.ordinary(),
            _ => &[],
        };
        for group in company::groups(prompts, &request.asking, ordinary) {
            let (answers, counted) = self.group(&group, request)?;
            let has_unlike_copy = request.asking.neighbors == Neighbors::Copies
                && answers.iter().any(|answer| answer.is_unlike(&answers[0]));
            let of_ours = group.iter().zip(answers).filter(|(member, _)| member.is_ours);
            all.extend(of_ours.map(|(_, answer)| Answer { has_unlike_copy, ..answer }));
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
            Cache::Cold(_) => self.contact.forget(&self.identity)?,
            Cache::Warm(_) => {
                let first: Vec<_> = asks
                    .iter()
                    .map(|(ask, _)| (Ask { new_tokens: 1, must_show: false, ..*ask }, Duration::ZERO))
                    .collect();
                self.contact.ask(&first)?;
            }
        }
        let before = self.contact.counts();
        let answers = self.contact.ask(&asks)?;
        let done = self.contact.done(before, &answers)?;
        for (member, answer) in group.iter().zip(&answers) {
            self.check_cache(cache, member, answer)?;
            if answer.fingerprint.as_deref().map(|print| self.contact.readable(print)) != self.fingerprint {
                return Err(self
                    .contact
                    .strange("its fingerprint has changed, so its answers do not go with those before"));
            }
        }
        Ok((answers, done))
    }
}

impl Engine for Serving<'_> {
    fn about(&self) -> Environment {
        let Identity { version, facts, vocabulary, parameters, .. } = &self.identity;
        let engine = format!("{} {version}", self.contact.dialect.name).trim_end().to_owned();
        let counted = [("tokens", vocabulary), ("weights in all", parameters)];
        let counted = counted
            .into_iter()
            .filter_map(|(name, count)| Some((name.to_owned(), count.as_ref()?.to_string())));
        let fingerprint = self.fingerprint.iter().map(|print| ("fingerprint".to_owned(), print.clone()));
        let facts = facts.clone().into_iter().chain(counted).chain(fingerprint).collect();
        // Nobody says where another one runs.
        if self.contact.is_here() {
            Environment::here(engine, []).with(facts)
        } else {
            Environment { engine, facts }
        }
    }

    fn sight(&self) -> Sight {
        self.contact.dialect.sight
    }

    fn generate(
        &mut self,
        prompts: &[Prompt],
        request: &Request,
        observer: &mut dyn Observer,
    ) -> Result<(), EngineError> {
        check(prompts, request, self.vocabulary, self.positions)?;
        if !request.choice.takes_the_best() {
            let sentence = "every server draws in a way of its own, so none is asked to: take the best with choice = \"greedy\"";
            return Err(EngineError::Unsupported(sentence.to_owned()));
        }
        if self.contact.dialect.sight == Sight::Text && prompts.iter().any(|prompt| prompt.replay.is_some()) {
            let sentence = "its server takes texts and gives texts, so it cannot be given tokens to read: take `replay` out";
            return Err(EngineError::Unsupported(sentence.to_owned()));
        }
        let is_replay = prompts.iter().any(|prompt| prompt.replay.is_some());
        let answers =
            if is_replay { self.replayed(prompts, request) } else { self.answers(prompts, request) };
        let (mut answers, done) = self.contact.unless_gone(answers)?;
        if self.contact.identity()? != self.identity {
            return Err(self
                .contact
                .strange("it is not the one that it was, so its answers do not go with those before"));
        }
        let rows = done.and_then(rows);
        let decode = |tokens: &[u32]| self.tokenizer.decode(tokens, true);
        let tokens =
            answers.iter_mut().map(|answer| self.tokens_of(answer)).collect::<Result<Vec<_>, _>>()?;
        // The server was told how many may follow, and the tokens of a text may be more than those that it was made of, or fewer:
        // what is left to find are stops.
        let endless = Request { max_new_tokens: usize::MAX, ..request.clone() };
        let endings = Endings::new(&endless, Some(&decode as &Decode<'_>))?;
        for ((prompt, answer), tokens) in prompts.iter().zip(answers).zip(tokens) {
            let mut ending = endings.begin(prompt);
            let mut steps = Vec::new();
            let mut all_shown = answer.shown.into_iter();
            for id in tokens {
                if ending.finish().is_some() {
                    break;
                }
                ending.push(id);
                let seen = match (self.contact.dialect.sight, all_shown.next().flatten()) {
                    (Sight::Text, _) => Seen::Nothing,
                    (_, Some(best)) => Seen::Top(best),
                    (_, None) => Seen::hidden(request.candidates.min(self.vocabulary)),
                };
                steps.push(Step { token: Token { id, seen }, rows });
            }
            let is_cut = answer.is_cut.unwrap_or(steps.len() >= request.max_new_tokens);
            observer.chose(steps.len());
            observer.finished(Sample {
                item: prompt.item,
                prompt: prompt.tokens.clone(),
                steps,
                text: ending.text(),
                finish: ending.finish().unwrap_or(if is_cut { Finish::Length } else { Finish::Stop }),
                launch: answer.read.map(|read| Launched {
                    prefill: vec![read],
                    threads: None,
                    has_unlike_copy: answer.has_unlike_copy,
                    history: History::default(),
                }),
            });
        }
        Ok(())
    }
}

/// About how many rows a call had: the tokens that it chose for each. A server that decodes one by one comes to a little above
/// or below one, because the last part of a prompt gives a token too.
fn rows(done: Counts) -> Option<usize> {
    const ALONE: f64 = 1.2;
    let rows = done.chosen as f64 / done.calls.max(1) as f64;
    Some(if rows > ALONE { (rows.round() as usize).max(2) } else { 1 })
}
