//! The lab computes what Hugging Face transformers computes, for every fixture and prompt.

use std::num::NonZeroUsize;

use crate::support::{Logits, difference, expected, fixtures, request, trained};
use reprocheck::{
    engine::{Engine, Prompt, Request, in_groups, lab::Lab},
    model::{Checkpoint, embedded::MODELS},
};

/// The largest difference allowed, as a part of the largest logit of its position.
const LIMIT: f32 = 2e-5;

#[test]
fn the_lab_agrees_with_transformers_on_every_logit_and_token() {
    for fixture in fixtures() {
        let checkpoint = Checkpoint::open(&fixture).unwrap();
        let expected = expected(&fixture);
        let mut lab = Lab::load(&checkpoint, "fp32/sequential/t1".parse().unwrap()).unwrap();
        let prompts: Vec<_> = (0..)
            .zip(&expected)
            .map(|(item, expected)| Prompt { item, tokens: expected.prompt.clone(), replay: None })
            .collect();
        let request = Request { prefill_chunk: NonZeroUsize::new(11), ..request(expected[0].greedy.len()) };
        let mut seen = Logits { items: vec![Vec::new(); prompts.len()], samples: Vec::new() };
        in_groups(&mut lab, NonZeroUsize::new(3).unwrap(), &prompts, &request, &mut seen).unwrap();
        for ((expected, logits), sample) in expected.iter().zip(&seen.items).zip(&seen.samples) {
            let apart = difference(logits, &expected.logits, checkpoint.config.vocabulary);
            assert!(apart < LIMIT, "{}: {} tokens: {apart:e}", fixture.display(), expected.prompt.len());
            let tokens: Vec<_> = sample.steps.iter().map(|step| step.token.id).collect();
            assert_eq!(tokens, expected.greedy, "{}", fixture.display());
        }
    }
}

#[test]
fn the_lab_agrees_with_transformers_on_the_models_of_the_binary() {
    for entry in MODELS {
        let checkpoint = Checkpoint::embedded(entry).unwrap();
        let tokenizer = checkpoint.tokenizer.as_ref().unwrap();
        let mut lab = Lab::load(&checkpoint, "fp32/sequential/t1".parse().unwrap()).unwrap();
        let request = Request { stop_tokens: checkpoint.config.stop_tokens.clone(), ..request(128) };
        for line in trained(entry.name) {
            let tokens = tokenizer.encode(&line.prompt, true).unwrap();
            assert_eq!(tokens, line.expected.prompt, "{}: {}", entry.name, line.prompt);
            let mut seen = Logits { items: vec![Vec::new()], samples: Vec::new() };
            lab.generate(&[Prompt { item: 0, tokens, replay: None }], &request, &mut seen).unwrap();
            let tokens: Vec<_> = seen.samples[0].steps.iter().map(|step| step.token.id).collect();
            assert_eq!(tokens, line.expected.greedy, "{}: {}", entry.name, line.prompt);
            assert_eq!(tokenizer.decode(&tokens, true), line.text);
            let apart = difference(&seen.items[0], &line.expected.logits, checkpoint.config.vocabulary);
            assert!(apart < LIMIT, "{}: {}: {apart:e}", entry.name, line.prompt);
        }
    }
}
