//! The lab: our own decoder, whose every bit is pinned.

use std::{num::NonZeroUsize, ops::Range, sync::OnceLock};

use super::{
    Engine, EngineError, Observer, Prompt, Request, Row, company,
    ending::{Decode, Ending, Endings},
    environment::Environment,
};
use crate::{
    cell::{Asking, Cache as Warmth, Neighbors, Rebuild},
    model::{
        Checkpoint, Config, Decoder,
        decoder::{Cache, Span, Wanted},
        tokenizer::Tokenizer,
    },
    numerics::{
        Numerics,
        kernel::{Fast, Kernel},
    },
    trace::{History, Launched, Sample, Sight, Step},
};

/// The engine whose numerics are under control.
#[derive(Debug)]
pub struct Lab<'a, K: Kernel = Fast> {
    decoder: Decoder<K>,
    tokenizer: Option<&'a Tokenizer>,
    /// The tokens that noise is made of, once somebody wants some.
    ordinary: OnceLock<Vec<u32>>,
}

impl<'a> Lab<'a> {
    /// Reads a checkpoint's weights, as these numerics store them.
    ///
    /// # Errors
    ///
    /// When a tensor is not as it must be, or the threads cannot be started.
    pub fn load(checkpoint: &'a Checkpoint, numerics: Numerics) -> Result<Lab<'a>, EngineError> {
        let threads = numerics.threads().get();
        let kernel = Fast::new(numerics).map_err(|error| {
            EngineError::Environment(format!("cannot start {threads} threads: {error}; ask for fewer"))
        })?;
        Lab::on(checkpoint, kernel)
    }
}

impl<'a, K: Kernel> Lab<'a, K> {
    /// The same with a kernel of the caller's.
    ///
    /// # Errors
    ///
    /// When a tensor is not as it must be.
    pub fn on(checkpoint: &'a Checkpoint, kernel: K) -> Result<Self, EngineError> {
        let decoder = Decoder::load(kernel, checkpoint)?;
        Ok(Lab { decoder, tokenizer: checkpoint.tokenizer.as_ref(), ordinary: OnceLock::new() })
    }

    /// The model.
    pub fn decoder(&self) -> &Decoder<K> {
        &self.decoder
    }

    /// Continues prompts that share their calls, on whichever thread this is.
    fn answer(
        &self,
        prompts: &[Prompt],
        request: &Request,
        observer: &mut dyn Observer,
    ) -> Result<(), EngineError> {
        let config = self.decoder.config();
        super::check(prompts, request, config.vocabulary, config.positions)?;
        let decode = self.tokenizer.map(|tokenizer| |tokens: &[u32]| tokenizer.decode(tokens, true));
        let endings = Endings::new(request, decode.as_ref().map(|decode| decode as &Decode<'_>))?;
        let mut group: Vec<_> =
            prompts.iter().map(|prompt| self.running(prompt, request, endings.begin(prompt))).collect();
        if let Some(page) = request.asking.cache.page() {
            await_others(&mut group, page.get());
            if let Warmth::Warm(_) = request.asking.cache {
                self.warm(&mut group, request, page.get());
            }
        }
        loop {
            self.take_pages(&mut group);
            group.iter_mut().for_each(|running| self.drop_if_due(running, request.asking.rebuild));
            // Whoever has something to read before a token follows comes first: all prompts are read before any goes on to its second
            // token, as a static batch does it. Whoever has finished leaves; the others go on in a smaller batch.
            let every_position = observer.wants_logits();
            let mut calls: Vec<_> =
                group.iter_mut().filter_map(|running| running.next_chunk(request, every_position)).collect();
            if calls.is_empty() {
                let most = config.positions;
                calls = group.iter_mut().filter_map(|running| running.next_tokens(request, most)).collect();
            }
            if calls.is_empty() {
                break;
            }
            self.advance(&mut calls, request, observer)?;
        }
        let threads = self.decoder.kernel().workers().used();
        for running in group {
            observer.finished(running.sample(threads));
        }
        Ok(())
    }

    /// A sequence of which nothing was read yet, and who is beside it.
    fn running<'p>(
        &self,
        prompt: &'p Prompt,
        request: &Request,
        ending: Ending<'p>,
    ) -> Running<'p, K::Weights> {
        let Asking { cache, verify, rebuild, .. } = request.asking;
        let new = || match (cache.page(), verify, rebuild) {
            (None, None, Rebuild::Off) => self.decoder.cache(),
            _ => self.decoder.divisible_cache(),
        };
        let Config { vocabulary, positions, .. } = *self.decoder.config();
        let ordinary: &[u32] = match request.asking.neighbors {
            Neighbors::Noise(_) => {
                self.ordinary.get_or_init(|| company::ordinary(self.tokenizer, vocabulary))
            }
            _ => &[],
        };
        // As long as a sequence can get.
        let follow = prompt.replay.as_ref().map_or(request.max_new_tokens, Vec::len);
        let length =
            prompt.tokens.len().saturating_add(follow).saturating_add(verify.map_or(0, NonZeroUsize::get));
        let (place, others) = company::beside(prompt.item, length.min(positions), &request.asking, ordinary);
        let beside = others.into_iter().map(|noise| Beside { cache: new(), noise }).collect();
        Running {
            prompt,
            cache: new(),
            beside,
            place,
            waits_for: None,
            prefill: Vec::new(),
            steps: Vec::new(),
            ending,
            since: 0,
            history: History::default(),
            has_unlike_copy: false,
        }
    }

    /// Reads all prompts, and keeps of each the whole pages that end before its last token.
    fn warm(&self, group: &mut [Running<'_, K::Weights>], request: &Request, page: usize) {
        loop {
            self.take_pages(group);
            let mut calls: Vec<_> =
                group.iter_mut().filter_map(|running| running.next_chunk(request, false)).collect();
            if calls.is_empty() {
                break;
            }
            calls.iter_mut().for_each(|call| call.wanted = Wanted::None);
            self.read(&mut calls);
        }
        for running in group {
            running.history.cached = (running.prompt.tokens.len() - 1) / page * page;
            running.cut(running.history.cached, &self.decoder);
        }
    }

    /// Whoever waits for pages takes them, once they are filled.
    fn take_pages(&self, group: &mut [Running<'_, K::Weights>]) {
        for at in 1..group.len() {
            let (before, rest) = group.split_at_mut(at);
            let running = &mut rest[0];
            if let Some((of, tokens)) = running.waits_for
                && before[of].cache.len() >= tokens
            {
                running.cache = self.decoder.beginning(&before[of].cache, tokens);
                running.history.cached = tokens;
                running.waits_for = None;
            }
        }
    }

    /// Forgets the keys and values of a sequence that has grown enough since they were built.
    fn drop_if_due(&self, running: &mut Running<'_, K::Weights>, rebuild: Rebuild) {
        let is_due = rebuild.after().is_some_and(|after| running.since >= after.get());
        if is_due && running.ending.finish().is_none() {
            running.since = 0;
            running.history.rebuilt += running.cache.len();
            running.cut(0, &self.decoder);
        }
    }

    /// One call: what comes next of each sequence, and of those beside it. Returns how many rows it had, all logits, and where those of
    /// each sequence are.
    fn read(&self, calls: &mut [Call<'_, '_, K::Weights>]) -> (usize, Vec<f32>, Vec<Range<usize>>) {
        let vocabulary = self.decoder.config().vocabulary;
        let (mut spans, mut places, mut wanted) = (Vec::new(), Vec::new(), 0);
        for Call { running, tokens, wanted: logits } in &mut *calls {
            let Running { cache, beside, place, .. } = &mut **running;
            let (tokens, logits, start) = (&tokens[..], *logits, cache.len());
            let first = spans.len();
            spans.extend(beside.iter_mut().map(|Beside { cache, noise }| Span {
                cache,
                // A copy reads what ours does.
                tokens: noise.as_ref().map_or(tokens, |noise| &noise[start..start + tokens.len()]),
                logits,
            }));
            spans.insert(first + *place, Span { cache, tokens, logits });
            let own = logits.of(tokens.len()) * vocabulary;
            places.push(wanted + *place * own..wanted + (*place + 1) * own);
            wanted += (spans.len() - first) * own;
        }
        let rows = spans.iter().map(|span| span.tokens.len()).sum();
        let logits = self.decoder.forward(&mut spans);
        for (Call { running, .. }, own) in calls.iter_mut().zip(&places) {
            let Running { beside, place, has_unlike_copy, .. } = &mut **running;
            let bits = |at: usize| {
                let start = own.start - *place * own.len() + at * own.len();
                logits[start..start + own.len()].iter().map(|logit| logit.to_bits())
            };
            // The others stand before ours, and behind it.
            let others = (0..=beside.len()).filter(|at| at != place).zip(beside.iter());
            let mut copies = others.filter(|(_, beside)| beside.noise.is_none());
            *has_unlike_copy |= copies.any(|(at, _)| !bits(at).eq(bits(*place)));
        }
        (rows, logits, places)
    }

    /// One call, and what follows from the logits.
    fn advance(
        &self,
        calls: &mut [Call<'_, '_, K::Weights>],
        request: &Request,
        observer: &mut dyn Observer,
    ) -> Result<(), EngineError> {
        let vocabulary = self.decoder.config().vocabulary;
        let known: Vec<_> = calls.iter().map(|call| call.running.known()).collect();
        let (rows, logits, places) = self.read(calls);
        let mut choosing = Vec::new();
        for ((call, known), place) in calls.iter_mut().zip(&known).zip(places) {
            let running = &mut *call.running;
            if running.steps.is_empty() {
                running.prefill.push(rows);
            }
            let own = logits[place].chunks_exact(vocabulary);
            let end = running.cache.len();
            let mut of_call = Vec::new();
            for (read, logits) in (end - own.len() + 1..).zip(own) {
                // What follows a drafted token counts once that has stayed.
                if read <= *known && observer.wants_logits() {
                    observer.logits(running.prompt.item, read, logits);
                }
                if read >= *known && running.ending.finish().is_none() {
                    of_call.push(logits);
                }
            }
            choosing.push(of_call);
        }
        let kernel = self.decoder.kernel();
        let numerics = kernel.numerics();
        let all: Vec<_> = choosing.iter().flatten().copied().collect();
        let mut seen = Row::of_each(kernel.workers(), &all, request.candidates).into_iter();
        let mut chosen = 0;
        for ((call, known), choosing) in calls.iter_mut().zip(known).zip(choosing) {
            let Call { running, tokens, .. } = call;
            // As many tokens were drafted as there are rows behind the first.
            let drafts = choosing.len().saturating_sub(1);
            let drafted = &tokens[tokens.len() - drafts..];
            let seen: Vec<_> = seen.by_ref().take(choosing.len()).collect();
            let mut stay = 0;
            for (at, (logits, seen)) in choosing.into_iter().zip(seen).enumerate() {
                let place = (running.prompt.item, known + at);
                if at > 0 && observer.wants_logits() {
                    observer.logits(place.0, place.1, logits);
                }
                let given = running.ending.given();
                let step = seen.step(logits, place, given, request, rows, &numerics)?;
                let id = step.token.id;
                running.ending.push(id);
                running.steps.push(step);
                running.since += 1;
                chosen += 1;
                if running.ending.finish().is_some() || drafted.get(at) != Some(&id) {
                    break;
                }
                stay += 1;
            }
            if drafts > 0 {
                running.history.accepted += stay;
                running.history.rejected += drafts - stay;
                running.cut(known + stay, &self.decoder);
            }
        }
        observer.chose(chosen);
        Ok(())
    }
}

impl<K: Kernel> Engine for Lab<'_, K> {
    fn about(&self) -> Environment {
        Environment::here(concat!("reprocheck ", env!("CARGO_PKG_VERSION")).to_owned(), None)
    }

    fn sight(&self) -> Sight {
        Sight::Logits
    }

    fn generate(
        &mut self,
        prompts: &[Prompt],
        request: &Request,
        observer: &mut dyn Observer,
    ) -> Result<(), EngineError> {
        // One that has noise or copies beside it shares its calls with them alone.
        let together = match request.asking.neighbors {
            Neighbors::Own => prompts.len().max(1),
            Neighbors::Noise(_) | Neighbors::Copies => 1,
        };
        self.decoder
            .kernel()
            .workers()
            .within(|| prompts.chunks(together).try_for_each(|group| self.answer(group, request, observer)))
    }
}

/// What one call reads of one sequence.
struct Call<'r, 'p, W> {
    running: &'r mut Running<'p, W>,
    tokens: Vec<u32>,
    wanted: Wanted,
}

/// One sequence of a group.
struct Running<'p, W> {
    prompt: &'p Prompt,
    cache: Cache<W>,
    /// Those that do what it does, and that nobody reads.
    beside: Vec<Beside<W>>,
    /// How many of them stand before it.
    place: usize,
    /// A sequence before it that will have read its first tokens, and how many: until then it reads nothing.
    waits_for: Option<(usize, usize)>,
    prefill: Vec<usize>,
    steps: Vec<Step>,
    ending: Ending<'p>,
    /// How many tokens have followed since its keys and values were built.
    since: usize,
    history: History,
    has_unlike_copy: bool,
}

/// One beside a sequence: it has read as many tokens, in the same calls, of noise or of the sequence itself.
struct Beside<W> {
    cache: Cache<W>,
    noise: Option<Vec<u32>>,
}

impl<'p, W> Running<'p, W> {
    /// How many tokens it has, read or not.
    fn known(&self) -> usize {
        self.prompt.tokens.len() + self.steps.len()
    }

    /// Its tokens from one on.
    fn tokens(&self, from: usize) -> impl Iterator<Item = u32> {
        let followed = self.steps.iter().map(|step| step.token.id);
        self.prompt.tokens.iter().copied().chain(followed).skip(from)
    }

    /// The next part of what is to be read before another token follows, if there is more than the last token.
    fn next_chunk(&mut self, request: &Request, every_position: bool) -> Option<Call<'_, 'p, W>> {
        let left = self.known() - self.cache.len();
        let is_prompt = self.steps.is_empty();
        if self.waits_for.is_some() || left <= usize::from(!is_prompt) {
            return None;
        }
        let most = match request.asking.rebuild {
            Rebuild::Decode(_) if !is_prompt => NonZeroUsize::new(1),
            _ => request.prefill_chunk,
        };
        let chunk = most.map_or(left, |most| most.get().min(left));
        let wanted = match () {
            () if every_position && is_prompt => Wanted::All,
            () if chunk == left => Wanted::Last,
            () => Wanted::None,
        };
        Some(Call { tokens: self.tokens(self.cache.len()).take(chunk).collect(), running: self, wanted })
    }

    /// The last token that followed and those drafted behind it, unless it ended the sample. No model reads more than `most` tokens.
    fn next_tokens(&mut self, request: &Request, most: usize) -> Option<Call<'_, 'p, W>> {
        let token = self.steps.last().filter(|_| self.ending.finish().is_none())?.token.id;
        let drafts =
            request.asking.verify.map_or(0, NonZeroUsize::get).min(most.saturating_sub(self.known()));
        let mut tokens = vec![token];
        tokens.extend(self.drafted(drafts));
        Some(Call { running: self, tokens, wanted: if drafts > 0 { Wanted::All } else { Wanted::Last } })
    }

    /// What may follow: the tokens that are given, and behind them what followed the one before it when that came last, or that one
    /// itself if it came never before.
    fn drafted(&self, count: usize) -> Vec<u32> {
        let given = self.prompt.replay.iter().flatten().skip(self.steps.len()).take(count);
        let mut all: Vec<u32> = self.tokens(0).chain(given.copied()).collect();
        let known = self.known();
        while all.len() < known + count {
            let (last, before) = all.split_last().expect("a prompt has a token");
            let followed = before.iter().rposition(|token| token == last).map(|at| all[at + 1]);
            all.push(followed.unwrap_or(*last));
        }
        all.split_off(known)
    }

    /// Forgets what it has read behind its first tokens, so many; those beside it do the same.
    fn cut<K: Kernel<Weights = W>>(&mut self, tokens: usize, decoder: &Decoder<K>) {
        let caches = self.beside.iter_mut().map(|beside| &mut beside.cache).chain([&mut self.cache]);
        for cache in caches.filter(|cache| cache.len() > tokens) {
            *cache = decoder.beginning(cache, tokens);
        }
    }

    fn sample(self, threads: usize) -> Sample {
        Sample {
            item: self.prompt.item,
            prompt: self.prompt.tokens.clone(),
            text: self.ending.text(),
            finish: self.ending.finish().expect("a group is done when every sequence has ended"),
            steps: self.steps,
            launch: Some(Launched {
                prefill: self.prefill,
                threads: Some(threads),
                has_unlike_copy: self.has_unlike_copy,
                history: self.history,
            }),
        }
    }
}

/// Each that shares whole pages with one before it waits for the first of those with which it shares most. The last token of a prompt
/// is read whatever is shared: a token follows from its logits.
fn await_others<W>(group: &mut [Running<'_, W>], page: usize) {
    for at in 1..group.len() {
        let own = &group[at].prompt.tokens;
        let shared = |other: &Running<'_, W>| {
            let alike = own.iter().zip(&other.prompt.tokens).take_while(|(one, other)| one == other).count();
            alike.min(own.len() - 1) / page * page
        };
        let all = group[..at].iter().map(shared).enumerate();
        let most = all.fold((0, 0), |most, (of, tokens)| if tokens > most.1 { (of, tokens) } else { most });
        group[at].waits_for = Some(most).filter(|(_, tokens)| *tokens > 0);
    }
}
