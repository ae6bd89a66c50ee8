//! What one cell leaves behind: the tokens, and for each of them a digest of the logits it was chosen from.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    digest::Digest,
    numerics::{choice::Candidate, json_float},
};

/// One token, and what it was chosen from.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Step {
    /// The token that followed: chosen, or given where a text is replayed.
    pub token: u32,
    /// The digest of all logits.
    pub digest: Digest,
    /// The best tokens, the best first.
    pub candidates: Vec<Candidate>,
    /// How much higher the best logit is than the second.
    #[serde(with = "json_float")]
    pub margin: f32,
    /// The probability of the best token at temperature 1.
    pub probability: f32,
    /// How many rows the launch had that computed these logits.
    pub rows: usize,
}

/// A [`Step`] as it is kept: without the launch, so that cells whose launches differ may leave the same behind.
#[derive(Clone, PartialEq, Debug)]
pub struct Token {
    /// The token that followed.
    pub token: u32,
    /// The digest of all logits.
    pub digest: Digest,
    /// The best tokens, the best first.
    pub candidates: Vec<Candidate>,
    /// How much higher the best logit is than the second.
    pub margin: f32,
    /// The probability of the best token at temperature 1.
    pub probability: f32,
}

impl From<&Step> for Token {
    fn from(step: &Step) -> Token {
        let Step { token, digest, margin, probability, .. } = *step;
        Token { token, digest, candidates: step.candidates.clone(), margin, probability }
    }
}

/// Why a sample ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Finish {
    /// A stop token or a stop string.
    Stop,
    /// As many tokens as were allowed.
    Length,
    /// The last of the tokens given for replay.
    Replayed,
}

/// What an engine made of one prompt.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Sample {
    /// Which item the prompt belongs to.
    pub item: u64,
    /// The prompt's tokens.
    pub prompt: Vec<u32>,
    /// One for each token that followed, a stop token included.
    pub steps: Vec<Step>,
    /// The text of those tokens, without a stop token and from a stop string on.
    pub text: String,
    /// Why it ended.
    pub finish: Finish,
    /// The launch that really ran.
    pub launch: Launched,
}

impl Sample {
    /// One value for all that was computed: two samples have the same root if and only if their tokens are
    /// the same and the logits that each was chosen from, bit for bit. It says nothing about item, prompt,
    /// text and launch.
    ///
    /// It is a chain that begins at the SHA-256 of `reprocheck sample 1`. Each step makes of the chain so far
    /// the SHA-256 of 68 bytes: the chain, the token as 32 bits, little endian, and the digest of the logits.
    /// The chain after n steps is thus the root of the sample cut off there. Another definition would be
    /// another version, and begin elsewhere.
    pub fn root(&self) -> Digest {
        chain(self.steps.iter().map(|step| (step.token, step.digest)))
    }
}

/// The [root](Sample::root) of tokens, each with the digest of the logits that it was chosen from.
pub fn chain(tokens: impl IntoIterator<Item = (u32, Digest)>) -> Digest {
    tokens.into_iter().fold(Digest::of(b"reprocheck sample 1"), |chain, (token, digest)| {
        let mut link = Sha256::new();
        link.update(chain.0);
        link.update(token.to_le_bytes());
        link.update(digest.0);
        Digest(link.finalize().into())
    })
}

/// The launches behind a sample, as they really were.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Launched {
    /// The rows of every call that read the prompt: all sequences' tokens together.
    pub prefill: Vec<usize>,
    /// The threads that shared the work of at least one call; fewer than asked for where no call was worth
    /// sharing.
    pub threads: usize,
}

/// The launches of all samples of a cell: the evidence that its settings made a difference to what ran.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Launches {
    /// The rows of the largest call that read prompts.
    pub prefill_rows: usize,
    /// The rows of the largest call that came after its prompts were read.
    pub decode_rows: usize,
    /// The most calls that one prompt was read in.
    pub chunks: usize,
    /// The most threads that shared a call.
    pub threads: usize,
    /// One value for which prompts shared their calls, whatever the order in which they came.
    pub groups: Digest,
    /// The digest of the trees by which a long sum of the model was added in the largest calls: an order may have the tree of another,
    /// or follow the threads that were asked for. Nothing where the engine adds in an order of its own.
    pub tree: Option<Digest>,
}

impl Default for Launches {
    fn default() -> Launches {
        Launches {
            prefill_rows: 0,
            decode_rows: 0,
            chunks: 0,
            threads: 0,
            groups: Digest([0; 32]),
            tree: None,
        }
    }
}

impl Launches {
    /// Adds samples that shared their calls.
    pub fn add(&mut self, group: &[Sample]) {
        let mut members: Vec<u64> = group.iter().map(|sample| sample.item).collect();
        members.sort_unstable();
        for sample in group {
            let Launched { prefill, threads } = &sample.launch;
            let most = |rows: &mut dyn Iterator<Item = usize>| rows.max().unwrap_or(0);
            self.prefill_rows = self.prefill_rows.max(most(&mut prefill.iter().copied()));
            let decoded = &mut sample.steps.iter().skip(1).map(|step| step.rows);
            self.decode_rows = self.decode_rows.max(most(decoded));
            self.chunks = self.chunks.max(prefill.len());
            self.threads = self.threads.max(*threads);
        }
        let members: Vec<u8> = members.into_iter().flat_map(u64::to_le_bytes).collect();
        for (all, byte) in self.groups.0.iter_mut().zip(Digest::of(&members).0) {
            *all ^= byte;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The digests below were computed by Python's hashlib and struct.

    fn sample(steps: &[(u32, &[f32])]) -> Sample {
        let step = |&(token, logits): &(u32, &[f32])| Step {
            token,
            digest: Digest::of_logits(logits),
            candidates: vec![Candidate { token, logit: f32::NEG_INFINITY }],
            margin: f32::INFINITY,
            probability: 0.5,
            rows: 1,
        };
        Sample {
            item: 3,
            prompt: vec![1, 2],
            steps: steps.iter().map(step).collect(),
            text: "x".to_owned(),
            finish: Finish::Length,
            launch: Launched { prefill: vec![2], threads: 1 },
        }
    }

    #[test]
    fn a_root_is_the_chain_that_it_is_defined_as() {
        assert_eq!(
            sample(&[]).root().to_string(),
            "e6dd5123d36ed33818f676ca4ef8e1092fabe22d35480cbcb014821fcf85918d"
        );
        assert_eq!(
            sample(&[(7, &[1.0, 2.0]), (0xFFFF_FFFE, &[-0.0])]).root().to_string(),
            "05222e5d7bc0058919a6796cf57d5bd3f9fdbbb5cab8636a5c4697d4b36150f4"
        );
    }

    #[test]
    fn a_root_changes_with_every_token_and_every_digest_and_with_nothing_else() {
        let steps: [(u32, &[f32]); 2] = [(7, &[1.0, 2.0]), (8, &[3.0])];
        let root = sample(&steps).root();
        let others: [&[(u32, &[f32])]; 5] = [
            &[(9, &[1.0, 2.0]), (8, &[3.0])],
            &[(7, &[1.0, 2.0]), (8, &[4.0])],
            &[(8, &[3.0]), (7, &[1.0, 2.0])],
            &[(7, &[1.0, 2.0])],
            &[(7, &[1.0, 2.0]), (8, &[3.0]), (8, &[3.0])],
        ];
        for other in others {
            assert_ne!(sample(other).root(), root, "{other:?}");
        }
        let mut same = sample(&steps);
        (same.item, same.text, same.finish) = (4, "y".to_owned(), Finish::Stop);
        (same.steps[0].rows, same.launch.threads) = (8, 2);
        assert_eq!(same.root(), root);
    }

    #[test]
    fn a_sample_with_infinities_is_read_back_as_it_was() {
        let mut sample = sample(&[(7, &[1.0, 2.0])]);
        sample.steps[0].candidates.push(Candidate { token: 9, logit: f32::INFINITY });
        sample.steps[0].candidates.push(Candidate { token: 1, logit: -0.1 });
        let json = serde_json::to_string(&sample).unwrap();
        assert_eq!(serde_json::from_str::<Sample>(&json).unwrap(), sample, "{json}");
    }
}
