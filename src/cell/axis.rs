//! What a matrix varies: the table of axes.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

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
    /// How many prompts share a call.
    Batch,
    /// How many tokens of a prompt a call reads.
    PrefillChunk,
    /// Which prompts share a batch.
    Grouping,
    /// The seed of a draw.
    Seed,
    /// The same once more.
    Repeat,
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
}

/// Every axis, in the order in which cells are sorted.
pub const AXES: &[AxisEntry] = &[
    AxisEntry {
        axis: Axis::Engine,
        name: "engine",
        sentence: "who computes: our decoder, the model as candle ships it, or a script",
        example: r#"["lab", "candle"]"#,
        computes: true,
        tag: "",
        always: true,
    },
    AxisEntry {
        axis: Axis::Precision,
        name: "precision",
        sentence: "how weights are stored, how a product is formed and what rounds",
        example: r#"["fp32", "bf16"]"#,
        computes: true,
        tag: "",
        always: true,
    },
    AxisEntry {
        axis: Axis::Order,
        name: "order",
        sentence: "in which order the terms of every sum are added; candle has its own",
        example: r#"["sequential", "split-k:rows"]"#,
        computes: true,
        tag: "",
        always: true,
    },
    AxisEntry {
        axis: Axis::Threads,
        name: "threads",
        sentence: "how many threads share a call",
        example: "[1, 2]",
        computes: true,
        tag: "t",
        always: true,
    },
    AxisEntry {
        axis: Axis::Batch,
        name: "batch",
        sentence: "how many prompts share a call",
        example: "[1, 8]",
        computes: false,
        tag: "b",
        always: true,
    },
    AxisEntry {
        axis: Axis::PrefillChunk,
        name: "prefill-chunk",
        sentence: "how many tokens of a prompt a call reads at most",
        example: r#"["all", 16]"#,
        computes: false,
        tag: "c",
        always: false,
    },
    AxisEntry {
        axis: Axis::Grouping,
        name: "grouping",
        sentence: "which prompts share a batch: neighbors, those of one length, or whoever the shuffle brings",
        example: r#"["in-order", "by-length", "shuffled:7"]"#,
        computes: false,
        tag: "",
        always: false,
    },
    AxisEntry {
        axis: Axis::Seed,
        name: "seed",
        sentence: "the seed of every draw, where tokens are drawn",
        example: "[0, 1, 2]",
        computes: false,
        tag: "s",
        always: false,
    },
    AxisEntry {
        axis: Axis::Repeat,
        name: "repeat",
        sentence: "the same once more: a number says how often each cell runs",
        example: "3",
        computes: false,
        tag: "r",
        always: false,
    },
];

impl Axis {
    /// Its row.
    pub fn entry(self) -> &'static AxisEntry {
        AXES.iter().find(|entry| entry.axis == self).expect("every axis has a row")
    }

    /// The axis of a name.
    pub fn named(name: &str) -> Option<Axis> {
        AXES.iter().find(|entry| entry.name == name).map(|entry| entry.axis)
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
        json_schema!({ "description": "One of the things that a matrix varies.", "enum": names })
    }
}

impl<'de> Deserialize<'de> for Axis {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Axis, D::Error> {
        let name = String::deserialize(deserializer)?;
        Axis::named(&name).ok_or_else(|| de::Error::custom(format!("there is no axis `{name}`")))
    }
}

impl fmt::Display for Axis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.entry().name)
    }
}
