//! What one cell leaves behind: the tokens, and for each of them a digest of the logits it was chosen from.

use std::{fmt, ops::Not};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::{
    digest::Digest,
    json_float,
    numerics::{canonical, choice::Candidate, elementary, special},
};

/// What an engine shows of what it chose a token from, from the least to the most.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Sight {
    /// Nothing but the text: the tokens are those that the model's tokenizer makes of it, whatever the engine chose.
    Text,
    /// Nothing but the token.
    Tokens,
    /// The log-probabilities of the best tokens, as they came.
    Top,
    /// All logits.
    Logits,
}

impl Sight {
    /// In a word.
    pub fn name(self) -> &'static str {
        match self {
            Sight::Text => "text",
            Sight::Tokens => "tokens",
            Sight::Top => "top",
            Sight::Logits => "logits",
        }
    }
}

impl fmt::Display for Sight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Sight::Text => "text alone",
            Sight::Tokens => "tokens alone",
            Sight::Top => "the best log-probabilities, not all logits",
            Sight::Logits => "all logits",
        })
    }
}

/// What a token was chosen from, as far as its engine shows it.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Seen {
    /// Nothing.
    Nothing,
    /// The best tokens with their log-probabilities, the best first. Equal ones say nothing of what lies below them.
    Top(Vec<Candidate>),
    /// All logits.
    Logits {
        /// The digest of all.
        digest: Digest,
        /// The best tokens, the best first.
        candidates: Vec<Candidate>,
        /// How much higher the best logit is than the second.
        #[serde(with = "json_float")]
        margin: f32,
        /// The probability of the best token at temperature 1.
        probability: f32,
    },
}

impl Seen {
    /// So many of the best tokens of which nothing is shown, where others are shown of other tokens: none of them has a
    /// number.
    pub fn hidden(count: usize) -> Seen {
        Seen::Top(vec![Candidate { token: u32::MAX, logit: f32::NAN }; count])
    }

    /// Is it what an engine of this sight shows?
    pub fn is_of(&self, sight: Sight) -> bool {
        matches!(
            (self, sight),
            (Seen::Nothing, Sight::Text | Sight::Tokens)
                | (Seen::Top(_), Sight::Top)
                | (Seen::Logits { .. }, Sight::Logits)
        )
    }

    /// Is it one that shows nothing?
    pub fn is_hidden(&self) -> bool {
        match self {
            Seen::Nothing => true,
            Seen::Top(best) => best.iter().any(|candidate| candidate.logit.is_nan()),
            Seen::Logits { .. } => false,
        }
    }
}

/// One token, and what it was chosen from: all that is kept, so that cells whose launches differ may leave the same behind.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Token {
    /// The token that followed: chosen, or given where a text is replayed.
    pub id: u32,
    /// What it was chosen from.
    pub seen: Seen,
}

impl Token {
    /// How much is seen of what it was chosen from.
    pub fn sight(&self) -> Sight {
        match self.seen {
            Seen::Nothing => Sight::Tokens,
            Seen::Top(_) => Sight::Top,
            Seen::Logits { .. } => Sight::Logits,
        }
    }

    /// The digest of all logits, where they are seen.
    pub fn digest(&self) -> Option<Digest> {
        match self.seen {
            Seen::Logits { digest, .. } => Some(digest),
            _ => None,
        }
    }

    /// The best tokens, the best first, as far as they are seen: with their logits, or with their log-probabilities.
    pub fn candidates(&self) -> &[Candidate] {
        if self.seen.is_hidden() { &[] } else { self.kept() }
    }

    /// The same as they are kept: where nothing is seen of some tokens alone, all have as many.
    pub fn kept(&self) -> &[Candidate] {
        match &self.seen {
            Seen::Nothing => &[],
            Seen::Top(candidates) | Seen::Logits { candidates, .. } => candidates,
        }
    }

    /// How much higher the best logit is than the second, where both are seen.
    pub fn margin(&self) -> Option<f32> {
        match &self.seen {
            Seen::Logits { margin, .. } => Some(*margin),
            // Log-probabilities are as far apart as their logits.
            Seen::Top(_) => {
                let best = self.candidates();
                Some(best.first()?.logit - best.get(1)?.logit)
            }
            Seen::Nothing => None,
        }
    }

    /// The probability of the best token at temperature 1, where it is seen.
    pub fn probability(&self) -> Option<f32> {
        match &self.seen {
            Seen::Logits { probability, .. } => Some(*probability),
            Seen::Top(_) => Some(elementary::exp(self.candidates().first()?.logit)),
            Seen::Nothing => None,
        }
    }

    /// The logarithm of its own probability at temperature 1, where it is one of the candidates that are seen.
    pub fn log_probability(&self) -> Option<f64> {
        let candidates = self.candidates();
        let (best, own) = (candidates.first()?, candidates.iter().find(|own| own.token == self.id)?);
        let (best, own) = (f64::from(best.logit), f64::from(own.logit));
        match &self.seen {
            Seen::Logits { probability, .. } => Some(special::log(f64::from(*probability)) + (own - best)),
            Seen::Top(_) => Some(own),
            Seen::Nothing => None,
        }
    }
}

/// A [`Token`], and the launch that it came from.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct Step {
    /// What followed.
    #[serde(flatten)]
    pub token: Token,
    /// How many rows the launch had that computed its logits, where the engine tells.
    pub rows: Option<usize>,
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
    /// The launches that ran, where the engine tells.
    pub launch: Option<Launched>,
}

impl Sample {
    /// One value for all that was seen: two samples of one sight have the same root if and only if their tokens are
    /// the same and what each was chosen from, bit for bit. It says nothing about item, prompt, text and launch.
    ///
    /// It is the [`chain`] of its tokens.
    pub fn root(&self, sight: Sight) -> Digest {
        chain(sight, self.steps.iter().map(|step| &step.token))
    }
}

/// One value for tokens, each with what it was chosen from.
///
/// Where all logits are seen it is a chain that begins at the SHA-256 of `reprocheck sample 1`. Each step makes of the
/// chain so far the SHA-256 of 68 bytes: the chain, the token as 32 bits, little endian, and the digest of the logits.
/// The chain after n steps is thus the root of the sample cut off there. Another definition would be another version,
/// and begin elsewhere.
///
/// Where less is seen it begins at the SHA-256 of `reprocheck sample 2 top`, `reprocheck sample 2 tokens` or `reprocheck
/// sample 2 text`, so that no value of one sight is a value of another, and in place of the digest of the logits stand the best tokens, each as 32
/// bits and its log-probability as those of an f32.
pub fn chain<'t>(sight: Sight, tokens: impl IntoIterator<Item = &'t Token>) -> Digest {
    let begin: &[u8] = match sight {
        Sight::Logits => b"reprocheck sample 1",
        Sight::Top => b"reprocheck sample 2 top",
        Sight::Tokens => b"reprocheck sample 2 tokens",
        Sight::Text => b"reprocheck sample 2 text",
    };
    tokens.into_iter().fold(Digest::of(begin), |chain, token| {
        let mut link = Sha256::new();
        link.update(chain.0);
        link.update(token.id.to_le_bytes());
        match &token.seen {
            Seen::Logits { digest, .. } => link.update(digest.0),
            Seen::Top(best) => best.iter().for_each(|Candidate { token, logit }| {
                link.update(token.to_le_bytes());
                link.update(canonical(*logit).to_le_bytes());
            }),
            Seen::Nothing => {}
        }
        Digest(link.finalize().into())
    })
}

/// The launches behind a sample, as they really were.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Launched {
    /// The rows of every call that read the prompt: all sequences' tokens together. Of a server the tokens of this prompt that
    /// it read: it does not tell what came along.
    pub prefill: Vec<usize>,
    /// The threads that shared the work of at least one call; fewer than asked for where no call was worth
    /// sharing. Nothing where the engine does not tell.
    pub threads: Option<usize>,
    /// Was a copy of the prompt, asked beside it, answered otherwise?
    #[serde(default, skip_serializing_if = "Not::not")]
    pub has_unlike_copy: bool,
    /// What became of it beside being read once, token after token.
    #[serde(default, skip_serializing_if = "History::is_none")]
    pub history: History,
}

/// What became of sequences beside being read once, token after token.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// Tokens of prompts whose keys and values came from a prefix cache, so that they were not read.
    pub cached: usize,
    /// Drafted tokens that the model would have chosen as well.
    pub accepted: usize,
    /// Drafted tokens that it would not have chosen: their keys and values were dropped.
    pub rejected: usize,
    /// Tokens that were read again, because their keys and values had been dropped.
    pub rebuilt: usize,
}

impl History {
    /// Was all read once?
    pub fn is_none(&self) -> bool {
        *self == History::default()
    }

    /// Of both.
    #[must_use]
    pub fn and(self, other: History) -> History {
        History {
            cached: self.cached + other.cached,
            accepted: self.accepted + other.accepted,
            rejected: self.rejected + other.rejected,
            rebuilt: self.rebuilt + other.rebuilt,
        }
    }
}

/// The launches of all samples of a cell: the evidence that its settings made a difference to what ran. What an engine
/// does not tell is missing, and not nought.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Launches {
    /// The rows of the largest call that read prompts.
    pub prefill_rows: Option<usize>,
    /// The rows of the largest call that came after its prompts were read.
    pub decode_rows: Option<usize>,
    /// The most calls that one prompt was read in.
    pub chunks: Option<usize>,
    /// The most threads that shared a call.
    pub threads: Option<usize>,
    /// One value for which prompts shared their calls, whatever the order in which they came.
    pub groups: Option<Digest>,
    /// The digest of the trees by which sums of every length that the weights have were added in the largest calls: an order may have the tree of another,
    /// or follow the threads that were asked for. Nothing where the engine adds in an order of its own.
    pub tree: Option<Digest>,
    /// The digest of what the elementary functions are that the model calls: two names may stand for the same. Nothing where all of them
    /// are exact, or the engine's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub functions: Option<Digest>,
    /// What became of all sequences beside being read once; nothing where that is all that happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub history: Option<History>,
}

impl Launches {
    /// Those of the first samples: nothing has run yet.
    pub fn none() -> Launches {
        Launches {
            prefill_rows: Some(0),
            decode_rows: Some(0),
            chunks: Some(0),
            threads: Some(0),
            groups: Some(Digest([0; 32])),
            tree: None,
            functions: None,
            history: None,
        }
    }

    /// Adds samples that shared their calls. What one of them does not tell nobody can tell of all.
    pub fn add(&mut self, group: &[Sample]) {
        let most = |all: Option<usize>, one: Option<usize>| Some(all?.max(one?));
        let mut members: Vec<u64> = group.iter().map(|sample| sample.item).collect();
        members.sort_unstable();
        for sample in group {
            let launch = sample.launch.as_ref();
            let prefill = launch.map(|launch| launch.prefill.iter().copied().max().unwrap_or(0));
            self.prefill_rows = most(self.prefill_rows, prefill);
            self.chunks = most(self.chunks, launch.map(|launch| launch.prefill.len()));
            self.threads = most(self.threads, launch.and_then(|launch| launch.threads));
            for step in sample.steps.iter().skip(1) {
                self.decode_rows = most(self.decode_rows, step.rows);
            }
            self.groups = self.groups.filter(|_| launch.is_some());
            if let Some(history) = launch.map(|launch| launch.history).filter(|history| !history.is_none()) {
                self.history = Some(self.history.unwrap_or_default().and(history));
            }
        }
        let members: Vec<u8> = members.into_iter().flat_map(u64::to_le_bytes).collect();
        if let Some(groups) = &mut self.groups {
            for (all, byte) in groups.0.iter_mut().zip(Digest::of(&members).0) {
                *all ^= byte;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // The digests below were computed by Python's hashlib and struct.

    fn sample(steps: &[(u32, &[f32])]) -> Sample {
        let step = |&(token, logits): &(u32, &[f32])| Step {
            token: Token {
                id: token,
                seen: Seen::Logits {
                    digest: Digest::of_logits(logits),
                    candidates: vec![Candidate { token, logit: f32::NEG_INFINITY }],
                    margin: f32::INFINITY,
                    probability: 0.5,
                },
            },
            rows: Some(1),
        };
        Sample {
            item: 3,
            prompt: vec![1, 2],
            steps: steps.iter().map(step).collect(),
            text: "x".to_owned(),
            finish: Finish::Length,
            launch: Some(Launched {
                prefill: vec![2],
                threads: Some(1),
                has_unlike_copy: false,
                history: History::default(),
            }),
        }
    }

    #[test]
    fn a_root_is_the_chain_that_it_is_defined_as() {
        assert_eq!(
            sample(&[]).root(Sight::Logits).to_string(),
            "e6dd5123d36ed33818f676ca4ef8e1092fabe22d35480cbcb014821fcf85918d"
        );
        assert_eq!(
            sample(&[(7, &[1.0, 2.0]), (0xFFFF_FFFE, &[-0.0])]).root(Sight::Logits).to_string(),
            "05222e5d7bc0058919a6796cf57d5bd3f9fdbbb5cab8636a5c4697d4b36150f4"
        );
    }

    #[test]
    fn a_root_changes_with_every_token_and_every_digest_and_with_nothing_else() {
        let steps: [(u32, &[f32]); 2] = [(7, &[1.0, 2.0]), (8, &[3.0])];
        let root = sample(&steps).root(Sight::Logits);
        let others: [&[(u32, &[f32])]; 5] = [
            &[(9, &[1.0, 2.0]), (8, &[3.0])],
            &[(7, &[1.0, 2.0]), (8, &[4.0])],
            &[(8, &[3.0]), (7, &[1.0, 2.0])],
            &[(7, &[1.0, 2.0])],
            &[(7, &[1.0, 2.0]), (8, &[3.0]), (8, &[3.0])],
        ];
        for other in others {
            assert_ne!(sample(other).root(Sight::Logits), root, "{other:?}");
        }
        let mut same = sample(&steps);
        (same.item, same.text, same.finish) = (4, "y".to_owned(), Finish::Stop);
        (same.steps[0].rows, same.launch) = (Some(8), None);
        assert_eq!(same.root(Sight::Logits), root);
    }

    #[test]
    fn a_sample_with_infinities_is_read_back_as_it_was() {
        let mut sample = sample(&[(7, &[1.0, 2.0])]);
        let best = [(9, f32::INFINITY), (1, -0.1)].map(|(token, logit)| Candidate { token, logit });
        for seen in [Seen::Nothing, Seen::Top(best.to_vec()), Seen::hidden(2)] {
            let token = Token { id: 9, seen };
            sample.steps.push(Step { token, rows: None });
        }
        let json = serde_json::to_string(&sample).unwrap();
        let mut read: Sample = serde_json::from_str(&json).unwrap();
        // What is no number equals nothing.
        let [hidden, ours] = [&mut read, &mut sample].map(|sample| sample.steps.pop().unwrap());
        assert!(
            hidden.token.seen.is_hidden() && hidden.token.kept().len() == ours.token.kept().len(),
            "{json}"
        );
        assert_eq!(read, sample, "{json}");
    }

    #[test]
    fn a_root_of_one_sight_is_none_of_another_and_every_shown_number_counts() {
        let best = |logit: f32| vec![Candidate { token: 7, logit }, Candidate { token: 8, logit: -2.0 }];
        let token = |seen: Seen| Token { id: 7, seen };
        let logits = sample(&[(7, &[1.0, 2.0])]).steps[0].token.clone();
        let roots = [
            chain(Sight::Logits, []),
            chain(Sight::Top, []),
            chain(Sight::Tokens, []),
            chain(Sight::Logits, [&logits]),
            chain(Sight::Top, [&token(Seen::Top(best(-0.5)))]),
            chain(Sight::Top, [&token(Seen::Top(best((-0.5_f32).next_up())))]),
            chain(Sight::Top, [&token(Seen::Top(best(-0.5)[..1].to_vec()))]),
            chain(Sight::Tokens, [&token(Seen::Nothing)]),
        ];
        let distinct: std::collections::BTreeSet<_> = roots.iter().collect();
        assert_eq!(distinct.len(), roots.len());
    }

    #[test]
    fn what_one_engine_does_not_tell_is_missing_and_not_nought() {
        let mut told = Launches::none();
        told.add(&[sample(&[(7, &[1.0]), (8, &[1.0])])]);
        let Launches { prefill_rows, decode_rows, chunks, threads, groups, tree, functions, history } = told;
        assert_eq!((prefill_rows, decode_rows, chunks, threads), (Some(2), Some(1), Some(1), Some(1)));
        assert!(groups.is_some() && tree.is_none() && functions.is_none() && history.is_none());
        let mut silent = sample(&[(7, &[1.0]), (8, &[1.0])]);
        (silent.launch, silent.steps[1].rows) = (None, None);
        let mut launches = told;
        launches.add(&[silent]);
        assert_eq!(launches, Launches::default());
    }
}
