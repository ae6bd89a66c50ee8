//! What a matrix varies: the table of axes.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{name::Name, server};

/// One of the things that a matrix varies.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub enum Axis {
    /// Who computes.
    Engine,
    /// How terms come about and what rounds.
    Precision,
    /// In which order terms are added.
    Order,
    /// How many threads share a call.
    Threads,
    /// What keys and values are kept in.
    KvFormat,
    /// How attention is computed behind its scores.
    Attention,
    /// How many ranks share a model.
    Tp,
    /// How their partial sums come together.
    Reduce,
    /// What the elementary functions are that a model calls.
    Functions,
    /// How many prompts share a call.
    Batch,
    /// How many tokens of a prompt a call reads.
    PrefillChunk,
    /// Which prompts share a batch.
    Grouping,
    /// How many prompts a server is asked at the same time.
    Concurrency,
    /// Who is beside a prompt.
    Neighbors,
    /// When the prompts of a group arrive.
    Arrival,
    /// What of a prompt comes from a prefix cache.
    Cache,
    /// How many drafted tokens a call verifies.
    Verify,
    /// How what a sequence remembers is built again.
    Rebuild,
    /// What differences of logits are divided by before a draw.
    Temperature,
    /// From which share of the probability a token is drawn.
    TopP,
    /// From how many of the best tokens one is drawn.
    TopK,
    /// The seed of a draw.
    Seed,
    /// The same once more.
    Repeat,
    /// What a matrix file lets vary of the servers that it names, under this name.
    Server(Name),
}

/// One row of [`AXES`].
#[derive(Clone, Copy, Debug)]
pub struct AxisEntry {
    /// Which.
    pub axis: Axis,
    /// Its name in a matrix file.
    pub name: &'static str,
    /// What it is, in one sentence.
    pub sentence: &'static str,
    /// Settings to show.
    pub example: &'static str,
    /// Does it belong to what computes, and not to how prompts are served?
    pub computes: bool,
    /// What stands before a setting in the name of a cell.
    pub tag: &'static str,
    /// Does it stand in every name, and not only where it is unusual?
    pub always: bool,
    /// Is an engine that takes no setting of it as usual, and not in a way of its own?
    pub usual_elsewhere: bool,
}

/// Every axis of this program, in the order in which cells are sorted; a matrix file may declare more for its servers.
pub const AXES: &[AxisEntry] = &[
    AxisEntry {
        axis: Axis::Engine,
        name: "engine",
        sentence: "who computes: our decoder, the model as candle ships it, a server, or a script",
        example: r#"["lab", "candle"]"#,
        computes: true,
        tag: "",
        always: true,
        usual_elsewhere: false,
    },
    AxisEntry {
        axis: Axis::Precision,
        name: "precision",
        sentence: "how weights are stored, how a product is formed and what rounds",
        example: r#"["fp32", "bf16"]"#,
        computes: true,
        tag: "",
        always: true,
        usual_elsewhere: false,
    },
    AxisEntry {
        axis: Axis::Order,
        name: "order",
        sentence: "in which order the terms of every sum are added; other engines than the lab have their own",
        example: r#"["sequential", "split-k:rows"]"#,
        computes: true,
        tag: "",
        always: true,
        usual_elsewhere: false,
    },
    AxisEntry {
        axis: Axis::Threads,
        name: "threads",
        sentence: "how many threads share a call",
        example: "[1, 2]",
        computes: true,
        tag: "t",
        always: true,
        usual_elsewhere: false,
    },
    AxisEntry {
        axis: Axis::KvFormat,
        name: "kv-format",
        sentence: "what keys and values are kept in: what attention multiplies (same), another format, or codes with a scale for \
                   a token and head, or for a block of its channels; other engines than the lab take only the first",
        example: r#"["same", "fp8", "bfp12:32,k-sort"]"#,
        computes: true,
        tag: "kv:",
        always: false,
        usual_elsewhere: true,
    },
    AxisEntry {
        axis: Axis::Attention,
        name: "attention",
        sentence: "how attention is computed behind its scores: a softmax over all keys (three-pass), the same without a pass for the \
                   largest (two-pass), blocks of keys with a running rescaling (online), or parts that are joined, so many, or as many as \
                   the call has rows or threads (split-kv); other engines than the lab have their own",
        example: r#"["three-pass", "online:64", "split-kv:rows"]"#,
        computes: true,
        tag: "",
        always: false,
        usual_elsewhere: false,
    },
    AxisEntry {
        axis: Axis::Tp,
        name: "tp",
        sentence: "how many ranks share the heads and the channels of a model, each with its own part of every sum behind them \
                   (tensor parallelism); other engines than the lab take only one",
        example: "[1, 2, 4]",
        computes: true,
        tag: "tp",
        always: false,
        usual_elsewhere: true,
    },
    AxisEntry {
        axis: Axis::Reduce,
        name: "reduce",
        sentence: "in which order the parts of several ranks are added: in a balanced tree, around a ring, or from the first to \
                   the last (one-shot), each sent as it is, or in what stands behind a colon",
        example: r#"["tree", "ring:bf16"]"#,
        computes: true,
        tag: "",
        always: false,
        usual_elsewhere: true,
    },
    AxisEntry {
        axis: Axis::Functions,
        name: "functions",
        sentence: "what exp, rsqrt, sin, cos and the functions of gates are: exact, a library's, polynomials, bits, or a program; other \
                   engines than the lab have their own",
        example: r#"["exact", "libm", "poly:5"]"#,
        computes: true,
        tag: "fn:",
        always: false,
        usual_elsewhere: false,
    },
    AxisEntry {
        axis: Axis::Batch,
        name: "batch",
        sentence: "how many prompts share a call",
        example: "[1, 8]",
        computes: false,
        tag: "b",
        always: true,
        usual_elsewhere: false,
    },
    AxisEntry {
        axis: Axis::PrefillChunk,
        name: "prefill-chunk",
        sentence: "how many tokens of a prompt a call reads at most",
        example: r#"["all", 16]"#,
        computes: false,
        tag: "c",
        always: false,
        usual_elsewhere: false,
    },
    AxisEntry {
        axis: Axis::Grouping,
        name: "grouping",
        sentence: "which prompts share a batch, or are asked together: those in a row, those of one length, or those that a \
                   shuffle puts together",
        example: r#"["in-order", "by-length", "shuffled:7"]"#,
        computes: false,
        tag: "",
        always: false,
        usual_elsewhere: false,
    },
    AxisEntry {
        axis: Axis::Concurrency,
        name: "concurrency",
        sentence: "how many prompts a server is asked at the same time",
        example: "[1, 8]",
        computes: false,
        tag: "n",
        always: true,
        usual_elsewhere: false,
    },
    AxisEntry {
        axis: Axis::Neighbors,
        name: "neighbors",
        sentence: "who shares a batch with a prompt, or is in flight beside it: others of its suite (own), random tokens \
                   (noise), or copies of it",
        example: r#"["own", "noise:7", "copies"]"#,
        computes: false,
        tag: "",
        always: false,
        usual_elsewhere: false,
    },
    AxisEntry {
        axis: Axis::Arrival,
        name: "arrival",
        sentence: "when what is in flight arrives at a server: together, or each a drawn moment later (staggered)",
        example: r#"["together", "staggered:7"]"#,
        computes: false,
        tag: "",
        always: false,
        usual_elsewhere: false,
    },
    AxisEntry {
        axis: Axis::Cache,
        name: "cache",
        sentence: "what of a prompt comes from a prefix cache: nothing (off), what others of its group have read since they came \
                   (cold), or all but its end, which was just read (warm); the lab's has pages of so many tokens, of one where \
                   there is no number",
        example: r#"["off", "cold", "warm", "warm:16"]"#,
        computes: false,
        tag: "",
        always: false,
        usual_elsewhere: false,
    },
    AxisEntry {
        axis: Axis::Verify,
        name: "verify",
        sentence: "how many drafted tokens each call reads behind the last one of an answer, which stay if the model would have \
                   chosen them (speculative decoding); other engines than the lab take none",
        example: r#"["off", 3]"#,
        computes: false,
        tag: "v",
        always: false,
        usual_elsewhere: true,
    },
    AxisEntry {
        axis: Axis::Rebuild,
        name: "rebuild",
        sentence: "how keys and values are built again after so many tokens of an answer, as if they had been dropped: in one \
                   prefill of prompt and answer, or token by token (decode); other engines than the lab keep them",
        example: r#"["off", "prefill:8", "decode:8"]"#,
        computes: false,
        tag: "re-",
        always: false,
        usual_elsewhere: true,
    },
    AxisEntry {
        axis: Axis::Temperature,
        name: "temperature",
        sentence: "what differences of logits are divided by, where tokens are drawn",
        example: "[0.6, 1.0]",
        computes: false,
        tag: "T",
        always: false,
        usual_elsewhere: false,
    },
    AxisEntry {
        axis: Axis::TopP,
        name: "top-p",
        sentence: "the best tokens that one is drawn from, by the share of the probability that they make up",
        example: "[0.95, 1.0]",
        computes: false,
        tag: "p",
        always: false,
        usual_elsewhere: false,
    },
    AxisEntry {
        axis: Axis::TopK,
        name: "top-k",
        sentence: "the best tokens that one is drawn from, by their number",
        example: r#"[20, "all"]"#,
        computes: false,
        tag: "k",
        always: false,
        usual_elsewhere: false,
    },
    AxisEntry {
        axis: Axis::Seed,
        name: "seed",
        sentence: "the seed of every draw, where tokens are drawn",
        example: "[0, 1, 2]",
        computes: false,
        tag: "s",
        always: false,
        usual_elsewhere: false,
    },
    AxisEntry {
        axis: Axis::Repeat,
        name: "repeat",
        sentence: "the same once more: a number says how often each cell runs",
        example: "3",
        computes: false,
        tag: "r",
        always: false,
        usual_elsewhere: false,
    },
];

/// What holds for whatever a matrix file declares.
static OF_SERVERS: AxisEntry = AxisEntry {
    axis: Axis::Server(Name::known("NAME")),
    name: "NAME",
    sentence: "a setting of a server, which the matrix file declares",
    example: r#"["on", "off"]"#,
    computes: true,
    tag: "",
    always: true,
    usual_elsewhere: false,
};

impl Axis {
    /// Its row.
    pub fn entry(self) -> &'static AxisEntry {
        AXES.iter().find(|entry| entry.axis == self).unwrap_or(&OF_SERVERS)
    }

    /// Its name in a matrix file.
    pub fn name(self) -> &'static str {
        match self {
            Axis::Server(name) => name.as_str(),
            axis => axis.entry().name,
        }
    }

    /// The axis of this program that has a name.
    pub fn named(name: &str) -> Option<Axis> {
        AXES.iter().find(|entry| entry.name == name).map(|entry| entry.axis)
    }

    /// The axis of a name in a file that this program has written: whatever is not one of its own was declared.
    pub fn recorded(name: &str) -> Option<Axis> {
        Axis::named(name).or_else(|| server::is_axis(name).then(|| Axis::Server(Name::new(name))))
    }
}

/// As its name.
impl Serialize for Axis {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Axis {
    fn schema_name() -> Cow<'static, str> {
        "Axis".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<_> = AXES.iter().map(|entry| entry.name).collect();
        json_schema!({
            "description": "One of the things that a matrix varies: an axis of this program, or one that the matrix file \
                            declares for a server.",
            "anyOf": [{ "enum": names }, { "type": "string", "pattern": format!("^{}$", server::AXIS) }],
        })
    }
}

impl<'de> Deserialize<'de> for Axis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Axis, D::Error> {
        let name = String::deserialize(deserializer)?;
        Axis::recorded(&name).ok_or_else(|| de::Error::custom(format!("there is no axis `{name}`")))
    }
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
