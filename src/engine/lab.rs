//! The lab: our own decoder, whose every bit is pinned.

use super::{
    Engine, EngineError, Observer, Prompt, Request, Row,
    ending::{Decode, Ending, Endings},
    environment::Environment,
};
use crate::{
    model::{
        Checkpoint, Decoder,
        decoder::{Cache, Span, Wanted},
        tokenizer::Tokenizer,
    },
    numerics::{
        Numerics,
        kernel::{Fast, Kernel},
    },
    trace::{Launched, Sample, Sight, Step},
};

/// The engine whose numerics are under control.
#[derive(Debug)]
pub struct Lab<'a, K: Kernel = Fast> {
    decoder: Decoder<K>,
    tokenizer: Option<&'a Tokenizer>,
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
        Ok(Lab { decoder, tokenizer: checkpoint.tokenizer.as_ref() })
    }

    /// The model.
    pub fn decoder(&self) -> &Decoder<K> {
        &self.decoder
    }

    /// Continues the prompts, on whichever thread this is.
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
        let start = |prompt| Running::new(prompt, self.decoder.cache(), endings.begin(prompt));
        let mut group: Vec<_> = prompts.iter().map(start).collect();
        // All prompts are read before the first token is chosen, as a static batch does it.
        loop {
            let mut calls: Vec<_> = group
                .iter_mut()
                .filter_map(|running| running.next_chunk(request, observer.wants_logits()))
                .collect();
            if calls.is_empty() {
                break;
            }
            let rows = calls.iter().map(|call| call.tokens.len()).sum();
            calls.iter_mut().for_each(|call| call.running.prefill.push(rows));
            self.advance(&mut calls, request, observer)?;
        }
        // Whoever has finished leaves; the others go on in a smaller batch.
        loop {
            let mut calls: Vec<_> = group.iter_mut().filter_map(Running::next_token).collect();
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

    /// One call: the sequences' next tokens, and what follows from the logits.
    fn advance(
        &self,
        calls: &mut [Call<'_, '_, K::Weights>],
        request: &Request,
        observer: &mut dyn Observer,
    ) -> Result<(), EngineError> {
        let vocabulary = self.decoder.config().vocabulary;
        let rows = calls.iter().map(|call| call.tokens.len()).sum();
        let mut spans: Vec<_> = calls
            .iter_mut()
            .map(|call| Span { cache: &mut call.running.cache, tokens: &call.tokens, logits: call.wanted })
            .collect();
        let logits = self.decoder.forward(&mut spans);
        let mut rest = logits.as_slice();

        let mut last = Vec::new();
        for Call { running, tokens, wanted } in calls {
            let wanted = match wanted {
                Wanted::None => 0,
                Wanted::Last => 1,
                Wanted::All => tokens.len(),
            };
            let (own, others) = rest.split_at(wanted * vocabulary);
            rest = others;
            let end = running.cache.len();
            if observer.wants_logits() {
                for (read, logits) in (end - wanted + 1..).zip(own.chunks_exact(vocabulary)) {
                    observer.logits(running.prompt.item, read, logits);
                }
            }
            if end >= running.prompt.tokens.len() && running.ending.finish().is_none() {
                last.push((running, &own[own.len() - vocabulary..]));
            }
        }
        let kernel = self.decoder.kernel();
        let numerics = kernel.numerics();
        let logits: Vec<_> = last.iter().map(|(_, logits)| *logits).collect();
        let seen = Row::of_each(kernel.workers(), &logits, request.candidates);
        let chosen = last.len();
        for ((running, logits), seen) in last.into_iter().zip(seen) {
            let place = (running.prompt.item, running.cache.len());
            let given = running.ending.given();
            let step = seen.step(logits, place, given, request, rows, &numerics)?;
            running.ending.push(step.token.id);
            running.steps.push(step);
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
        self.decoder.kernel().workers().within(|| self.answer(prompts, request, observer))
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
    prefill: Vec<usize>,
    steps: Vec<Step>,
    ending: Ending<'p>,
}

impl<'p, W> Running<'p, W> {
    fn new(prompt: &'p Prompt, cache: Cache<W>, ending: Ending<'p>) -> Self {
        Running { prompt, cache, prefill: Vec::new(), steps: Vec::new(), ending }
    }

    /// The next part of the prompt, if any is left.
    fn next_chunk(&mut self, request: &Request, every_position: bool) -> Option<Call<'_, 'p, W>> {
        let left = &self.prompt.tokens[self.cache.len().min(self.prompt.tokens.len())..];
        let chunk = request.prefill_chunk.map_or(left.len(), |chunk| chunk.get().min(left.len()));
        let wanted = match () {
            () if every_position => Wanted::All,
            () if chunk == left.len() => Wanted::Last,
            () => Wanted::None,
        };
        (chunk > 0).then(|| Call { tokens: left[..chunk].to_vec(), running: self, wanted })
    }

    /// The last token that followed, unless it ended the sample.
    fn next_token(&mut self) -> Option<Call<'_, 'p, W>> {
        let token = self.steps.last().filter(|_| self.ending.finish().is_none())?.token.id;
        Some(Call { running: self, tokens: vec![token], wanted: Wanted::Last })
    }

    fn sample(self, threads: usize) -> Sample {
        Sample {
            item: self.prompt.item,
            prompt: self.prompt.tokens.clone(),
            text: self.ending.text(),
            finish: self.ending.finish().expect("a group is done when every sequence has ended"),
            steps: self.steps,
            launch: Some(Launched { prefill: self.prefill, threads: Some(threads), has_unlike_copy: false }),
        }
    }
}
