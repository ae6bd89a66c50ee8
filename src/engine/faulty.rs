//! The lab with a defect, in its kernel or in how it serves, for showing that an audit sees it.

use std::{
    num::NonZeroUsize,
    sync::atomic::{AtomicU64, Ordering},
};

use super::{
    Engine, EngineError, Engines, Observer, Opener, Prompt, Request, environment::Environment, lab::Lab,
};
use crate::{
    cell::Compute,
    numerics::{
        Numerics,
        choice::Choice,
        kernel::{Fast, Faulty, KernelFault},
    },
    trace::{Finish, Sample, Seen, Sight},
};

/// What is wrong with an engine.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EngineFault {
    /// Its kernel.
    Kernel(KernelFault),
    /// The first two samples of a group go to one another's prompts.
    SwapsSamples,
    /// It draws by the seed 0, whatever is asked.
    IgnoresSeed,
    /// The noise of a draw follows the place in the batch, and not the item.
    DrawsByPlace,
    /// It takes the best token, whatever is asked.
    IgnoresTemperature,
    /// It reads and decodes every prompt alone, however many it is given.
    IgnoresBatch,
    /// It computes on one thread, however many are asked for.
    IgnoresThreads,
    /// It goes on after a token or a text that should end a sample.
    IgnoresStop,
    /// A token comes twice, as after a cache that was thrown out and read again.
    RepeatsToken,
    /// A token is filed with the digest of the one before it.
    FilesLateDigest,
    /// A second start computes otherwise than the first.
    RemembersStart,
    /// Pages of the prefix cache are found by their place: every prompt that is as long gets those of the first one, whatever it begins
    /// with.
    KeepsPages,
}

/// When a fault shows.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum When {
    /// Always.
    Always,
    /// Where prompts share a call.
    InCompany,
    /// Where threads share the work.
    OnThreads,
    /// Where a prompt is read in parts.
    InParts,
    /// Where a prompt begins with pages of a prefix cache.
    FromPages,
}

impl When {
    fn holds(self, prompts: &[Prompt], request: &Request, numerics: Numerics) -> bool {
        match self {
            When::Always => true,
            When::InCompany => prompts.len() > 1,
            When::OnThreads => numerics.threads().get() > 1,
            When::InParts => request.prefill_chunk.is_some(),
            When::FromPages => request.asking.cache.page().is_some(),
        }
    }
}

/// What tells that a fault was there to be seen.
#[derive(Debug, Default)]
pub struct Witness {
    ran: AtomicU64,
    changed: AtomicU64,
    starts: AtomicU64,
}

impl Witness {
    /// How often the code of the fault ran.
    pub fn ran(&self) -> u64 {
        self.ran.load(Ordering::Relaxed)
    }

    /// How many samples are others because of it.
    pub fn changed(&self) -> u64 {
        self.changed.load(Ordering::Relaxed)
    }
}

/// Opens the lab with a fault, and all other engines as they are.
pub struct FaultyEngines<'a> {
    /// The engines.
    pub engines: Engines<'a>,
    /// What is wrong.
    pub fault: EngineFault,
    /// When it shows.
    pub when: When,
    /// Where it is told.
    pub witness: Witness,
}

impl Opener for FaultyEngines<'_> {
    fn open<'s>(&'s self, compute: Compute) -> Result<Box<dyn Engine + 's>, EngineError> {
        let (Compute::Lab(numerics), Some(checkpoint)) = (compute, self.engines.checkpoint) else {
            return self.engines.open(compute);
        };
        let is_first = self.witness.starts.fetch_add(1, Ordering::Relaxed) == 0;
        let kernel = match self.fault {
            EngineFault::Kernel(fault) => Some(fault),
            EngineFault::RemembersStart if !is_first => Some(KernelFault::FlipsBit),
            _ => None,
        };
        let broken = |fault| {
            let kernel = Faulty::new(numerics, fault, None, Fast::new);
            let kernel = kernel.map_err(|error| EngineError::Environment(error.to_string()))?;
            Lab::on(checkpoint, kernel)
        };
        Ok(Box::new(FaultyLab {
            sound: Lab::load(checkpoint, numerics)?,
            broken: kernel.map(broken).transpose()?,
            single: match self.fault {
                EngineFault::IgnoresThreads => Some(Lab::load(checkpoint, numerics.alone())?),
                _ => None,
            },
            numerics,
            strikes: 0,
            first: None,
            of: self,
        }))
    }
}

/// The lab beside what is wrong with it.
struct FaultyLab<'a> {
    sound: Lab<'a>,
    broken: Option<Lab<'a, Faulty<Fast>>>,
    single: Option<Lab<'a>>,
    numerics: Numerics,
    /// How often the kernel's fault had been carried out when that was told last; packing comes before the first call.
    strikes: u64,
    /// The first prompt whose pages were filled.
    first: Option<Vec<u32>>,
    of: &'a FaultyEngines<'a>,
}

impl Engine for FaultyLab<'_> {
    /// What is wrong is said: no run with a fault looks like one without.
    fn about(&self) -> Environment {
        let fact = ("fault".to_owned(), format!("{:?}", self.of.fault));
        self.sound.about().with([fact].into_iter().collect())
    }

    fn sight(&self) -> Sight {
        self.sound.sight()
    }

    fn generate(
        &mut self,
        prompts: &[Prompt],
        request: &Request,
        observer: &mut dyn Observer,
    ) -> Result<(), EngineError> {
        let mut sound = Vec::new();
        self.sound.generate(prompts, request, &mut sound)?;
        let samples = if self.of.when.holds(prompts, request, self.numerics) {
            let (samples, ran) = self.spoiled(prompts, request, sound.clone())?;
            let changed = samples.iter().zip(&sound).filter(|(one, other)| one != other).count();
            self.of.witness.ran.fetch_add(ran, Ordering::Relaxed);
            self.of.witness.changed.fetch_add(changed as u64, Ordering::Relaxed);
            samples
        } else {
            sound
        };
        samples.into_iter().for_each(|sample| observer.finished(sample));
        Ok(())
    }
}

impl FaultyLab<'_> {
    /// What the fault makes of the samples, and how often it was carried out.
    fn spoiled(
        &mut self,
        prompts: &[Prompt],
        request: &Request,
        mut samples: Vec<Sample>,
    ) -> Result<(Vec<Sample>, u64), EngineError> {
        let again = |lab: &mut Lab<'_>, prompts: &[Prompt], request: &Request| {
            let mut samples = Vec::new();
            lab.generate(prompts, request, &mut samples).map(|()| samples)
        };
        let choosing = |choice: Choice| Request { choice, ..request.clone() };
        let mut ran = 1;
        match self.of.fault {
            EngineFault::Kernel(_) | EngineFault::RemembersStart => {
                let Some(lab) = &mut self.broken else { return Ok((samples, 0)) };
                samples.clear();
                lab.generate(prompts, request, &mut samples)?;
                let strikes = lab.decoder().kernel().strikes();
                ran = strikes - std::mem::replace(&mut self.strikes, strikes);
            }
            EngineFault::SwapsSamples => match &mut samples[..] {
                [one, other, ..] => {
                    std::mem::swap(one, other);
                    std::mem::swap(&mut one.item, &mut other.item);
                    std::mem::swap(&mut one.prompt, &mut other.prompt);
                }
                _ => ran = 0,
            },
            EngineFault::IgnoresSeed => {
                samples = again(&mut self.sound, prompts, &choosing(request.choice.with_seed(0)))?;
            }
            EngineFault::IgnoresTemperature => {
                samples = again(&mut self.sound, prompts, &choosing(Choice::Greedy))?;
            }
            EngineFault::DrawsByPlace => {
                let placed = prompts.iter().enumerate();
                let placed: Vec<_> =
                    placed.map(|(at, prompt)| Prompt { item: at as u64, ..prompt.clone() }).collect();
                samples = again(&mut self.sound, &placed, request)?;
                for (sample, prompt) in samples.iter_mut().zip(prompts) {
                    sample.item = prompt.item;
                }
            }
            EngineFault::IgnoresBatch => {
                samples.clear();
                for prompt in prompts {
                    samples.extend(again(&mut self.sound, std::slice::from_ref(prompt), request)?);
                }
            }
            EngineFault::IgnoresThreads => match &mut self.single {
                Some(lab) => samples = again(lab, prompts, request)?,
                None => ran = 0,
            },
            EngineFault::IgnoresStop => {
                let request =
                    Request { stop_tokens: Vec::new(), stop_strings: Vec::new(), ..request.clone() };
                samples = again(&mut self.sound, prompts, &request)?;
            }
            EngineFault::RepeatsToken => {
                for sample in &mut samples {
                    let twice = sample.steps.first().cloned();
                    sample.steps.splice(0..0, twice);
                    if sample.finish == Finish::Length {
                        sample.steps.pop();
                    }
                }
            }
            // What follows pages of another prompt is what follows its tokens.
            EngineFault::KeepsPages => {
                let page = request.asking.cache.page().map_or(1, NonZeroUsize::get);
                let first = self.first.get_or_insert_with(|| prompts[0].tokens.clone());
                let stale = |prompt: &Prompt| {
                    let kept = first.len().min(prompt.tokens.len() - 1) / page * page;
                    let tokens = [&first[..kept], &prompt.tokens[kept..]].concat();
                    Prompt { tokens, ..prompt.clone() }
                };
                let stale: Vec<_> = prompts.iter().map(stale).collect();
                samples = again(&mut self.sound, &stale, request)?;
                for (sample, prompt) in samples.iter_mut().zip(prompts) {
                    sample.prompt.clone_from(&prompt.tokens);
                }
            }
            EngineFault::FilesLateDigest => {
                for sample in &mut samples {
                    let digests: Vec<_> = sample.steps.iter().map(|step| step.token.digest()).collect();
                    for (step, before) in sample.steps.iter_mut().skip(1).zip(digests) {
                        if let (Seen::Logits { digest, .. }, Some(before)) = (&mut step.token.seen, before) {
                            *digest = before;
                        }
                    }
                }
            }
        }
        Ok((samples, ran))
    }
}
