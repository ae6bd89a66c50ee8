//! What one cell leaves behind: the tokens, and for each of them a digest of the logits it was chosen from.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    json_float,
    numerics::{canonical, choice::Candidate},
};

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    /// Of bytes as they are.
    pub fn of(bytes: &[u8]) -> Digest {
        Digest(Sha256::digest(bytes).into())
    }

    /// Of logits: f32, little endian, every NaN the one there is, minus zero as it is.
    pub fn of_logits(logits: &[f32]) -> Digest {
        let mut hasher = Sha256::new();
        let mut block = [0.0; 1024];
        for logits in logits.chunks(block.len()) {
            // A count, not `any`, which stops early and so keeps the compiler from vectors.
            let nans = logits.iter().map(|logit| u32::from(logit.is_nan())).sum::<u32>();
            if cfg!(target_endian = "little") && nans == 0 {
                hasher.update(bytemuck::cast_slice(logits));
            } else {
                let block = &mut block[..logits.len()];
                for (word, logit) in block.iter_mut().zip(logits) {
                    // In memory as little endian would have it.
                    *word = f32::from_bits(canonical(*logit).to_bits().to_le());
                }
                hasher.update(bytemuck::cast_slice(block));
            }
        }
        Digest(hasher.finalize().into())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Why a text is no digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a SHA-256: write its 64 hexadecimal digits")]
pub struct DigestError(String);

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Digest, DigestError> {
        let error = || DigestError(text.to_owned());
        if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(error());
        }
        let mut digest = [0; 32];
        for (at, byte) in digest.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&text[2 * at..][..2], 16).map_err(|_| error())?;
        }
        Ok(Digest(digest))
    }
}

impl Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Digest {
    fn schema_name() -> Cow<'static, str> {
        "Digest".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "description": "A SHA-256 as hexadecimal digits.",
            "type": "string",
            "pattern": "^[0-9a-f]{64}$",
        })
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

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

/// The Merkle tree that RFC 9162 defines, over SHA-256, with digests as its leaves: its root is one value for many, and
/// two machines that hold such trees find the first leaf in which they differ by comparing a few nodes.
pub struct Tree {
    /// The leaves, hashed, then level by level up to the root. The last node of a level with an odd number of them rises
    /// as it is.
    levels: Vec<Vec<Digest>>,
}

impl Tree {
    /// Over these leaves.
    pub fn over(leaves: Vec<Digest>) -> Tree {
        let hashed = |leaf: &Digest| Digest::of(&[&[0][..], &leaf.0].concat());
        let mut levels = vec![leaves.iter().map(hashed).collect::<Vec<_>>()];
        while let Some(level) = levels.last().filter(|level| level.len() > 1) {
            let node = |pair: &[Digest]| match pair {
                [left, right] => Digest::of(&[&[1][..], &left.0, &right.0].concat()),
                alone => alone[0],
            };
            levels.push(level.chunks(2).map(node).collect());
        }
        Tree { levels }
    }

    /// The one value for all.
    pub fn root(&self) -> Digest {
        let top = self.levels.last().and_then(|level| level.first());
        top.copied().unwrap_or_else(|| Digest::of(b""))
    }

    /// Every node: the leaves, then level by level up to the root.
    pub fn nodes(&self) -> impl Iterator<Item = &Digest> {
        self.levels.iter().flatten()
    }

    /// How many nodes each level has in a tree over so many leaves.
    pub fn levels_over(leaves: u64) -> Vec<u64> {
        let mut levels = vec![leaves];
        while let Some(level) = levels.last().filter(|level| **level > 1) {
            levels.push(level.div_ceil(2));
        }
        levels
    }
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

    #[test]
    fn the_digest_of_logits_is_that_of_their_bytes() {
        let logits = [0.0, -0.0, 1.5, f32::NEG_INFINITY, 1e-45];
        assert_eq!(
            Digest::of_logits(&logits).to_string(),
            "f58e398aa8b72e42e2ef56083a17c94fc6cab03e419741957d87782943e67302"
        );
        assert_eq!(Digest::of_logits(&[]), Digest::of(b""));
        let many: Vec<_> = (0..3000_u16).map(f32::from).collect();
        assert_eq!(
            Digest::of_logits(&many).to_string(),
            "79f08fbaf2064bbef9c63477bc07d002d0ed3ce58a91bc01b6d972f1c4e394b7"
        );
    }

    #[test]
    fn every_nan_is_the_one_there_is() {
        for nan in [0x7FC0_0000, 0xFFC0_0000, 0x7F80_0001, 0xFFFF_FFFF] {
            let nan = f32::from_bits(nan);
            assert_eq!(
                Digest::of_logits(&[0.0, -0.0, 1.5, f32::NEG_INFINITY, 1e-45, nan]).to_string(),
                "e1c503ee367bfe8fea73bf72713e441c84689190b26ce30c947181a788083734"
            );
            // In the middle of three blocks.
            let mut many: Vec<_> = (0..3000_u16).map(f32::from).collect();
            many[1500] = nan;
            assert_eq!(
                Digest::of_logits(&many).to_string(),
                "8dd28532ee5162a5c152e100151bff1068e4eb886f7fe567556f5e8f0b2eab77"
            );
        }
    }

    #[test]
    fn every_bit_of_a_logit_counts() {
        let digest = Digest::of_logits(&[1.0; 2100]);
        for at in [0, 1023, 1024, 2099] {
            let mut logits = [1.0; 2100];
            logits[at] = 1.0_f32.next_up();
            assert_ne!(Digest::of_logits(&logits), digest, "{at}");
        }
        assert_ne!(Digest::of_logits(&[0.0]), Digest::of_logits(&[-0.0]));
        assert_ne!(Digest::of_logits(&[1.0; 2099]), digest);
    }

    #[test]
    fn a_digest_is_written_as_hexadecimal_and_read_back() {
        let digest = Digest::of(b"abc");
        let text = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest.to_string(), text);
        assert_eq!(text.parse(), Ok(digest));
        assert_eq!(text.to_uppercase().parse(), Ok(digest));
        assert_eq!(serde_json::to_string(&digest).unwrap(), format!("\"{text}\""));
        assert_eq!(serde_json::from_str::<Digest>(&format!("\"{text}\"")).unwrap(), digest);
        for text in
            ["", &text[1..], &format!("{text}0"), &text.replace('f', "g"), &text.replacen("ba", "é", 1)]
        {
            assert_eq!(
                text.parse::<Digest>().unwrap_err().to_string(),
                format!("`{text}` is not a SHA-256: write its 64 hexadecimal digits")
            );
        }
    }

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
    fn a_merkle_root_is_that_of_the_standard() {
        let root =
            |leaves: u8| Tree::over((0..leaves).map(|leaf| Digest::of(&[leaf])).collect()).root().to_string();
        for (leaves, expected) in [
            (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (1, "d9de27625445003d8a9739a851e3ff8d41c0683630b4d63a88327a6aaa37c409"),
            (2, "604d540f09268b91672ab011394d5266ccd7d4484d0d109411a55848126a1b2c"),
            (3, "d1f13800048f5909d4043fc0c152f6643280cba608b672715e56ce159a20629f"),
            (5, "6b313b611b40676b9e1dfd70c4503f2379f88f0f1c2740fb7e1cacc32c113465"),
            (7, "bee2275db16667589a4515f63e0d053a2fa602c1d9f9703e98920a5bdad59baf"),
        ] {
            assert_eq!(root(leaves), expected, "{leaves}");
        }
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
