//! What a matrix varies: the axes and their settings.

use std::{borrow::Cow, fmt, num::NonZeroUsize, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::engine::{ENGINES, EngineName};
use crate::numerics::{
    order::{self, Order},
    precision::{self, Precision},
    sharing,
};

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

    /// Are its settings whole numbers?
    pub fn is_number(self) -> bool {
        matches!(self, Axis::Threads | Axis::Batch | Axis::PrefillChunk | Axis::Seed | Axis::Repeat)
    }

    /// What the text of a setting looks like, for a schema: a regular expression without its ends.
    pub(super) fn pattern(self) -> String {
        match self {
            Axis::Engine => {
                let patterns: Vec<_> = ENGINES.iter().map(|entry| entry.pattern).collect();
                format!("({})", patterns.join("|"))
            }
            Axis::Precision => precision::pattern(),
            Axis::Order => order::pattern(),
            Axis::Threads | Axis::Batch | Axis::Repeat => "[1-9][0-9]*".to_owned(),
            Axis::PrefillChunk => "(all|[1-9][0-9]*)".to_owned(),
            Axis::Grouping => "(in-order|by-length|shuffled:[0-9]+)".to_owned(),
            Axis::Seed => "[0-9]+".to_owned(),
        }
    }

    /// The same with its ends.
    pub fn whole_pattern(self) -> String {
        format!("^{}$", self.pattern())
    }

    /// The setting that a text stands for.
    ///
    /// # Errors
    ///
    /// What is wrong with the text, and the way out.
    pub fn parse(self, text: &str) -> Result<Setting, String> {
        let count = |text: &str| {
            let number = text.parse::<NonZeroUsize>().ok();
            number.ok_or_else(|| format!("`{self}` counts from 1 up: write such a number, not `{text}`"))
        };
        Ok(match self {
            Axis::Engine => Setting::Engine(text.parse()?),
            Axis::Precision => Setting::Precision(text.parse().map_err(|error| format!("{error}"))?),
            Axis::Order => Setting::Order(text.parse().map_err(|error| format!("{error}"))?),
            Axis::Threads => Setting::Threads(sharing(count(text)?).map_err(|error| error.to_string())?),
            Axis::Batch => Setting::Batch(count(text)?),
            Axis::PrefillChunk if text == "all" => Setting::PrefillChunk(None),
            Axis::PrefillChunk => Setting::PrefillChunk(Some(count(text)?)),
            Axis::Grouping => Setting::Grouping(text.parse()?),
            Axis::Seed => Setting::Seed(
                text.parse().map_err(|_| format!("`{text}` is no seed: write a whole number from 0 up"))?,
            ),
            Axis::Repeat => Setting::Repeat(count(text)?),
        })
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

/// A value on an axis.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Setting {
    /// On [`Axis::Engine`].
    Engine(EngineName),
    /// On [`Axis::Precision`].
    Precision(Precision),
    /// On [`Axis::Order`].
    Order(Order),
    /// On [`Axis::Threads`].
    Threads(NonZeroUsize),
    /// On [`Axis::Batch`].
    Batch(NonZeroUsize),
    /// On [`Axis::PrefillChunk`]; all of a prompt where there is none.
    PrefillChunk(Option<NonZeroUsize>),
    /// On [`Axis::Grouping`].
    Grouping(Grouping),
    /// On [`Axis::Seed`].
    Seed(u64),
    /// On [`Axis::Repeat`].
    Repeat(NonZeroUsize),
    /// On this axis, which the engine takes no setting of: what it does there is its own affair.
    Own(Axis),
}

impl Setting {
    /// Where it lies.
    pub fn axis(self) -> Axis {
        match self {
            Setting::Engine(_) => Axis::Engine,
            Setting::Precision(_) => Axis::Precision,
            Setting::Order(_) => Axis::Order,
            Setting::Threads(_) => Axis::Threads,
            Setting::Batch(_) => Axis::Batch,
            Setting::PrefillChunk(_) => Axis::PrefillChunk,
            Setting::Grouping(_) => Axis::Grouping,
            Setting::Seed(_) => Axis::Seed,
            Setting::Repeat(_) => Axis::Repeat,
            Setting::Own(axis) => axis,
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Setting::Engine(engine) => engine.fmt(f),
            Setting::Precision(precision) => precision.fmt(f),
            Setting::Order(order) => order.fmt(f),
            Setting::Own(_) => f.write_str("its own"),
            Setting::PrefillChunk(None) => f.write_str("all"),
            Setting::Threads(number)
            | Setting::Batch(number)
            | Setting::PrefillChunk(Some(number))
            | Setting::Repeat(number) => number.fmt(f),
            Setting::Grouping(grouping) => grouping.fmt(f),
            Setting::Seed(seed) => seed.fmt(f),
        }
    }
}

/// Which prompts share a batch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Grouping {
    /// Neighbors.
    InOrder,
    /// Prompts of the same number of tokens, in their order; a group may be smaller for it.
    ByLength,
    /// Whoever comes together when the prompts are shuffled.
    Shuffled(u64),
}

impl fmt::Display for Grouping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Grouping::InOrder => f.write_str("in-order"),
            Grouping::ByLength => f.write_str("by-length"),
            Grouping::Shuffled(seed) => write!(f, "shuffled:{seed}"),
        }
    }
}

impl FromStr for Grouping {
    type Err = String;

    fn from_str(text: &str) -> Result<Grouping, String> {
        let shuffled = |text: &str| text.strip_prefix("shuffled:")?.parse().ok().map(Grouping::Shuffled);
        match text {
            "in-order" => Ok(Grouping::InOrder),
            "by-length" => Ok(Grouping::ByLength),
            _ => shuffled(text).ok_or_else(|| {
                format!(
                    "there is no grouping `{text}`: write in-order, by-length, or shuffled:7 with any seed"
                )
            }),
        }
    }
}
