//! What several tests share: the fixtures, what they must give, and a request to begin with.

pub(crate) mod gguf;

use std::{
    fs,
    path::{Path, PathBuf},
};

use reprocheck::{
    cell::Asking,
    digest::Digest,
    engine::{Observer, Prompt, Request},
    model::Checkpoint,
    numerics::choice::Choice,
    trace::Sample,
};
use safetensors::SafeTensors;

/// The folder of every fixture.
pub(crate) fn fixtures() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures");
    let entries = fs::read_dir(root).expect("the fixtures are there").map(|entry| entry.unwrap().path());
    let mut fixtures: Vec<_> = entries.filter(|path| path.join("config.json").exists()).collect();
    fixtures.sort();
    assert!(fixtures.len() >= 18, "{} fixtures", fixtures.len());
    fixtures
}

/// One prompt, and what transformers makes of it.
pub(crate) struct Expected {
    /// Its tokens.
    pub(crate) prompt: Vec<u32>,
    /// The tokens that follow.
    pub(crate) greedy: Vec<u32>,
    /// After every token of the prompt and of the answer, but the last.
    pub(crate) logits: Vec<f32>,
}

/// What transformers makes of a fixture's prompts.
pub(crate) fn expected(fixture: &Path) -> Vec<Expected> {
    expected_of(&fs::read(fixture.join("expected.safetensors")).expect("every fixture has it"))
}

/// A prompt in words, and what a model of this binary adds to it.
pub(crate) struct Line {
    pub(crate) prompt: String,
    pub(crate) text: String,
    pub(crate) expected: Expected,
}

/// What transformers makes of a model of this binary.
pub(crate) fn trained(name: &str) -> Vec<Line> {
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/trained/{name}.safetensors"));
    let bytes = fs::read(file).expect("every model has it");
    let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
    let texts = |key: &str| -> Vec<String> {
        serde_json::from_str(&header.metadata().as_ref().unwrap()[key]).unwrap()
    };
    let lines = texts("prompts").into_iter().zip(texts("texts")).zip(expected_of(&bytes));
    lines.map(|((prompt, text), expected)| Line { prompt, text, expected }).collect()
}

fn expected_of(bytes: &[u8]) -> Vec<Expected> {
    let file = SafeTensors::deserialize(bytes).unwrap();
    let words = |name: &str| -> Option<Vec<[u8; 4]>> {
        let data = file.tensor(name).ok()?.data();
        Some(data.as_chunks().0.to_vec())
    };
    let tokens = |name: &str| {
        let words = words(name)?;
        Some(words.into_iter().map(u32::from_le_bytes).collect())
    };
    (0..)
        .map_while(|index| {
            Some(Expected {
                prompt: tokens(&format!("prompt.{index}.tokens"))?,
                greedy: tokens(&format!("prompt.{index}.greedy"))?,
                logits: words(&format!("prompt.{index}.logits"))?
                    .into_iter()
                    .map(f32::from_le_bytes)
                    .collect(),
            })
        })
        .collect()
}

/// Every logit of every item, in the order of their positions.
pub(crate) struct Logits {
    /// By item.
    pub(crate) items: Vec<Vec<f32>>,
    /// As they came.
    pub(crate) samples: Vec<Sample>,
}

impl Observer for Logits {
    fn wants_logits(&self) -> bool {
        true
    }

    fn logits(&mut self, item: u64, _: usize, logits: &[f32]) {
        self.items[item as usize].extend_from_slice(logits);
    }

    fn finished(&mut self, sample: Sample) {
        self.samples.push(sample);
    }
}

/// The largest difference, as a part of the largest logit of its position.
pub(crate) fn difference(logits: &[f32], expected: &[f32], vocabulary: usize) -> f32 {
    assert_eq!(logits.len(), expected.len());
    let rows = logits.chunks(vocabulary).zip(expected.chunks(vocabulary));
    rows.map(|(logits, expected)| {
        let largest = expected.iter().fold(0_f32, |largest, logit| largest.max(logit.abs()));
        let apart = logits.iter().zip(expected).map(|(logit, expected)| (logit - expected).abs());
        apart.fold(0_f32, |apart, one| if one.is_nan() { f32::NAN } else { apart.max(one) }) / largest
    })
    .fold(0.0, f32::max)
}

/// One fixture, by name.
pub(crate) fn fixture(name: &str) -> Checkpoint {
    Checkpoint::open(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)).unwrap()
}

/// Greedy.
pub(crate) fn request(max_new_tokens: usize) -> Request {
    Request {
        prefill_chunk: None,
        asking: Asking::default(),
        max_new_tokens,
        stop_tokens: Vec::new(),
        stop_strings: Vec::new(),
        choice: Choice::Greedy,
        candidates: 2,
    }
}

/// Prompts of different lengths, the same in every run.
pub(crate) fn fixed_prompts(checkpoint: &Checkpoint) -> Vec<Prompt> {
    let vocabulary = checkpoint.config.vocabulary as u32;
    let token = |item: u32, at: u32| (item * 37 + at * at * 11 + at * 5 + 3) % vocabulary;
    let prompt = |(item, length)| Prompt {
        item: u64::from(item),
        tokens: (0..length).map(|at| token(item, at)).collect(),
        replay: None,
    };
    (0..).zip([1, 13, 5, 21]).map(prompt).collect()
}

/// A token, the digest of its logits, the bits of margin and probability, the candidates.
pub(crate) type Fact = (u32, Digest, u32, u32, String);

/// All that must be the same: everything but the launch, by item.
pub(crate) fn facts(mut samples: Vec<Sample>) -> Vec<(u64, Vec<Fact>)> {
    samples.sort_by_key(|sample| sample.item);
    let steps = |sample: Sample| {
        let steps = sample.steps.into_iter().map(|step| {
            let token = step.token;
            let candidates = format!("{:?}", token.candidates());
            let bits = |seen: Option<f32>| seen.expect("the lab shows all").to_bits();
            let digest = token.digest().expect("the lab shows all");
            (token.id, digest, bits(token.margin()), bits(token.probability()), candidates)
        });
        (sample.item, steps.collect())
    };
    samples.into_iter().map(steps).collect()
}
