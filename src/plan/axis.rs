//! What a matrix varies: the axes, their settings, and the cell that one choice of each makes.

use std::{borrow::Cow, fmt, num::NonZeroUsize, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::{
    engine::candle::{Device, Stock},
    numerics::{
        Impossible, Numerics,
        order::{self, Order},
        precision::{self, Precision},
        sharing,
    },
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
}

/// Every axis, in the order in which cells are sorted.
pub const AXES: &[AxisEntry] = &[
    AxisEntry {
        axis: Axis::Engine,
        name: "engine",
        sentence: "who computes: our decoder, or the model as candle ships it",
        example: r#"["lab", "candle"]"#,
    },
    AxisEntry {
        axis: Axis::Precision,
        name: "precision",
        sentence: "how weights are stored, how a product is formed and what rounds",
        example: r#"["fp32", "bf16"]"#,
    },
    AxisEntry {
        axis: Axis::Order,
        name: "order",
        sentence: "in which order the terms of every sum are added; candle has its own",
        example: r#"["sequential", "split-k:rows"]"#,
    },
    AxisEntry {
        axis: Axis::Threads,
        name: "threads",
        sentence: "how many threads share a call",
        example: "[1, 2]",
    },
    AxisEntry {
        axis: Axis::Batch,
        name: "batch",
        sentence: "how many prompts share a call",
        example: "[1, 8]",
    },
    AxisEntry {
        axis: Axis::PrefillChunk,
        name: "prefill-chunk",
        sentence: "how many tokens of a prompt a call reads at most",
        example: r#"["all", 16]"#,
    },
    AxisEntry {
        axis: Axis::Grouping,
        name: "grouping",
        sentence: "which prompts share a batch: neighbors, those of one length, or whoever the shuffle brings",
        example: r#"["in-order", "by-length", "shuffled:7"]"#,
    },
    AxisEntry {
        axis: Axis::Seed,
        name: "seed",
        sentence: "the seed of every draw, where tokens are drawn",
        example: "[0, 1, 2]",
    },
    AxisEntry {
        axis: Axis::Repeat,
        name: "repeat",
        sentence: "the same once more: a number says how often each cell runs",
        example: "3",
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
    fn pattern(self) -> String {
        match self {
            Axis::Engine => "(lab|candle(:(cuda|metal):[0-9]+)?)".to_owned(),
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
            Axis::Order => Setting::Order(Some(text.parse().map_err(|error| format!("{error}"))?)),
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
    /// On [`Axis::Order`]; an engine that has an order of its own has none of ours.
    Order(Option<Order>),
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
        }
    }
}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Setting::Engine(engine) => engine.fmt(f),
            Setting::Precision(precision) => precision.fmt(f),
            Setting::Order(Some(order)) => order.fmt(f),
            Setting::Order(None) => f.write_str("its own"),
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

/// Who computes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EngineName {
    /// Our decoder.
    Lab,
    /// The model as candle ships it, on a device.
    Candle(Device),
}

impl fmt::Display for EngineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EngineName::Lab => f.write_str("lab"),
            EngineName::Candle(Device::Cpu) => f.write_str("candle"),
            EngineName::Candle(device) => write!(f, "candle:{device}"),
        }
    }
}

impl FromStr for EngineName {
    type Err = String;

    fn from_str(text: &str) -> Result<EngineName, String> {
        match text.split_once(':') {
            None if text == "lab" => Ok(EngineName::Lab),
            None if text == "candle" => Ok(EngineName::Candle(Device::Cpu)),
            Some(("candle", device)) => {
                Ok(EngineName::Candle(device.parse().map_err(|error| format!("{error}"))?))
            }
            _ => Err(format!("there is no engine `{text}`: write lab, candle, or candle:cuda:0")),
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

/// One point of a matrix: a setting on every axis.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Cell {
    /// Who computes.
    pub engine: EngineName,
    /// In which precision.
    pub precision: Precision,
    /// In which order, if it is ours.
    pub order: Option<Order>,
    /// How many threads share a call.
    pub threads: NonZeroUsize,
    /// How many prompts share a call.
    pub batch: NonZeroUsize,
    /// How many tokens of a prompt a call reads at most.
    pub prefill_chunk: Option<NonZeroUsize>,
    /// Which prompts share a batch.
    pub grouping: Grouping,
    /// The seed of every draw.
    pub seed: u64,
    /// Which of several equal ones.
    pub repeat: NonZeroUsize,
}

impl Default for Cell {
    fn default() -> Cell {
        Cell {
            engine: EngineName::Lab,
            precision: Precision::Fp32,
            order: Some(Order::SEQUENTIAL),
            threads: NonZeroUsize::MIN,
            batch: NonZeroUsize::MIN,
            prefill_chunk: None,
            grouping: Grouping::InOrder,
            seed: 0,
            repeat: NonZeroUsize::MIN,
        }
    }
}

impl Cell {
    /// Where it lies on an axis.
    pub fn get(&self, axis: Axis) -> Setting {
        match axis {
            Axis::Engine => Setting::Engine(self.engine),
            Axis::Precision => Setting::Precision(self.precision),
            Axis::Order => Setting::Order(self.order),
            Axis::Threads => Setting::Threads(self.threads),
            Axis::Batch => Setting::Batch(self.batch),
            Axis::PrefillChunk => Setting::PrefillChunk(self.prefill_chunk),
            Axis::Grouping => Setting::Grouping(self.grouping),
            Axis::Seed => Setting::Seed(self.seed),
            Axis::Repeat => Setting::Repeat(self.repeat),
        }
    }

    /// The same cell with another setting.
    #[must_use]
    pub fn with(mut self, setting: Setting) -> Cell {
        match setting {
            Setting::Engine(engine) => self.engine = engine,
            Setting::Precision(precision) => self.precision = precision,
            Setting::Order(order) => self.order = order,
            Setting::Threads(threads) => self.threads = threads,
            Setting::Batch(batch) => self.batch = batch,
            Setting::PrefillChunk(chunk) => self.prefill_chunk = chunk,
            Setting::Grouping(grouping) => self.grouping = grouping,
            Setting::Seed(seed) => self.seed = seed,
            Setting::Repeat(repeat) => self.repeat = repeat,
        }
        // An engine with an order of its own takes none of ours, and ours needs one.
        self.order = match self.engine {
            EngineName::Lab => self.order.or(Some(Order::SEQUENTIAL)),
            EngineName::Candle(_) => None,
        };
        self
    }

    /// What the lab needs to know of it, if it is the lab's.
    ///
    /// # Errors
    ///
    /// When that cannot be computed.
    pub fn numerics(&self) -> Option<Result<Numerics, Impossible>> {
        self.order.map(|order| Numerics::new(self.precision, order, self.threads))
    }

    /// What candle needs to know of it, if it is candle's.
    ///
    /// # Errors
    ///
    /// When candle cannot compute so.
    pub fn stock(&self) -> Option<Result<Stock, crate::engine::EngineError>> {
        match self.engine {
            EngineName::Lab => None,
            EngineName::Candle(device) => Some(Stock::new(self.precision, None, self.threads, device)),
        }
    }
}

/// `lab/bf16/pairwise/t2/b8`, and what is not as usual after it: `c16`, `by-length`, `s7`, `r2`.
impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.engine, self.precision)?;
        if let Some(order) = self.order {
            write!(f, "/{order}")?;
        }
        write!(f, "/t{}/b{}", self.threads, self.batch)?;
        if let Some(chunk) = self.prefill_chunk {
            write!(f, "/c{chunk}")?;
        }
        if self.grouping != Grouping::InOrder {
            write!(f, "/{}", self.grouping)?;
        }
        if self.seed != 0 {
            write!(f, "/s{}", self.seed)?;
        }
        if self.repeat != NonZeroUsize::MIN {
            write!(f, "/r{}", self.repeat)?;
        }
        Ok(())
    }
}

impl FromStr for Cell {
    type Err = String;

    fn from_str(text: &str) -> Result<Cell, String> {
        let shape = || {
            format!(
                "`{text}` is no cell: write engine/precision/order/threads/batch, such as lab/bf16/pairwise/t2/b8"
            )
        };
        let mut parts = text.split('/');
        let mut cell = Cell::default().with(Axis::Engine.parse(parts.next().ok_or_else(shape)?)?);
        cell = cell.with(Axis::Precision.parse(parts.next().ok_or_else(shape)?)?);
        if cell.order.is_some() {
            cell = cell.with(Axis::Order.parse(parts.next().ok_or_else(shape)?)?);
        }
        for part in parts {
            let numbered = part.split_at_checked(1).filter(|(_, number)| number.parse::<u64>().is_ok());
            let (axis, text) = match numbered {
                Some(("t", threads)) => (Axis::Threads, threads),
                Some(("b", batch)) => (Axis::Batch, batch),
                Some(("c", chunk)) => (Axis::PrefillChunk, chunk),
                Some(("s", seed)) => (Axis::Seed, seed),
                Some(("r", repeat)) => (Axis::Repeat, repeat),
                _ => (Axis::Grouping, part),
            };
            cell = cell.with(axis.parse(text)?);
        }
        // A cell has one name.
        if cell.to_string() == text { Ok(cell) } else { Err(shape()) }
    }
}

/// As its name.
impl Serialize for Cell {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl JsonSchema for Cell {
    fn schema_name() -> Cow<'static, str> {
        "Cell".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let [precision, order] = [Axis::Precision, Axis::Order].map(Axis::pattern);
        let begin = format!("(lab/{precision}/{order}|candle(:(cuda|metal):[0-9]+)?/{precision})");
        let count = "[1-9][0-9]*";
        let unusual = format!("(/c{count})?(/(by-length|shuffled:[0-9]+))?(/s{count})?(/r{count})?");
        json_schema!({
            "description": "A cell, one point of the matrix, by its name: engine/precision/order/threads/batch, such as \
                            lab/bf16/pairwise/t2/b8, without an order where the engine has its own; after that what is \
                            not as usual: how many tokens of a prompt a call reads (c16), which prompts share a batch \
                            (by-length), the seed (s7), which of several equal cells (r2).",
            "type": "string",
            "pattern": format!("^{begin}/t{count}/b{count}{unusual}$"),
        })
    }
}

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Cell, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}
