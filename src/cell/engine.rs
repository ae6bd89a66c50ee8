//! Who computes: the table of engines, what each can be set to, and the part of a cell that decides which one is open.

use std::{fmt, mem::discriminant, num::NonZeroUsize, str::FromStr};

use super::{
    Asking, Cell, Refusal,
    axis::{AXES, Axis},
    name::Name,
    server::{self, Settings},
};
use crate::numerics::{
    Numerics, attention::Attention, functions::Functions, kv::Kv, order::Order, parallel::Parallel,
    precision::Precision,
};

/// Who computes, as a setting of its axis.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum EngineName {
    /// Our decoder.
    Lab,
    /// The model as candle ships it, on a device.
    Candle(Device),
    /// A file that says what is answered.
    Script(Name),
    /// A server that the matrix file names.
    Server(Name),
}

/// What decides every bit of a call whose prompts are given.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Compute {
    /// Our decoder.
    Lab(Numerics),
    /// The model as candle ships it.
    Candle(Stock),
    /// A file that says what is answered, beside the matrix file.
    Script(Name),
    /// A server that the matrix file names.
    Server(Served),
}

/// A server as one that serves: which, and under which of the settings that the matrix file declares.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Served {
    /// Its name in the matrix file.
    pub server: Name,
    /// On every axis that is declared for it.
    pub settings: Settings,
}

/// A stock model: candle adds in an order of its own.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Stock {
    /// What candle computes in.
    pub precision: Precision,
    /// How many threads its pools have.
    pub threads: NonZeroUsize,
    /// Where it computes.
    pub device: Device,
}

/// One row of [`ENGINES`].
#[derive(Debug)]
pub struct EngineEntry {
    /// The name, with its parameter in capitals, as `list` shows it.
    pub name: &'static str,
    /// What it is, in one sentence.
    pub sentence: &'static str,
    /// A value of it.
    pub example: EngineName,
    /// Settings to offer where a matrix file is written.
    pub offered: &'static [&'static str],
    /// What the text of a setting looks like: a regular expression without its ends.
    pub pattern: &'static str,
    /// Reads what stands behind the colon, if there is one.
    parse: fn(Option<&str>) -> Result<EngineName, String>,
    /// Does it have the same bits on every machine? Of others the machine is part of the evidence.
    pub pinned: bool,
    /// Does it read a model's weights from this disk?
    pub weights: bool,
    /// What it can be set to. Everything else is its own affair.
    pub axes: &'static [Axis],
    /// Why it cannot run a cell, as far as that can be told before it is opened.
    pub(super) refuses: fn(&Cell) -> Vec<Refusal>,
}

/// Every engine there is. `list engines`, the schemas, `doctor` and the plan walk this table.
pub const ENGINES: &[EngineEntry] = &[
    EngineEntry {
        name: "lab",
        sentence: "our decoder: any precision, any order of addition",
        example: EngineName::Lab,
        offered: &["lab"],
        pattern: "lab",
        parse: |parameter| match parameter {
            None => Ok(EngineName::Lab),
            Some(_) => Err("the lab computes on the processor alone: write lab".to_owned()),
        },
        pinned: true,
        weights: true,
        axes: &[
            Axis::Engine,
            Axis::Precision,
            Axis::Order,
            Axis::Threads,
            Axis::KvFormat,
            Axis::Attention,
            Axis::Tp,
            Axis::Reduce,
            Axis::Functions,
            Axis::Batch,
            Axis::PrefillChunk,
            Axis::Grouping,
            Axis::Neighbors,
            Axis::Cache,
            Axis::Verify,
            Axis::Rebuild,
            Axis::Temperature,
            Axis::TopP,
            Axis::TopK,
            Axis::Seed,
            Axis::Repeat,
        ],
        refuses: |_| Vec::new(),
    },
    EngineEntry {
        name: "candle[:DEVICE]",
        sentence: "the model as candle ships it, in a process of its own; it adds in an order of its own",
        example: EngineName::Candle(Device::Cpu),
        offered: &["candle"],
        pattern: "candle(:(cuda|metal):[0-9]+)?",
        parse: |parameter| match parameter {
            None => Ok(EngineName::Candle(Device::Cpu)),
            Some(device) => {
                device.parse().map(EngineName::Candle).map_err(|error: DeviceError| error.to_string())
            }
        },
        pinned: false,
        weights: true,
        axes: &[
            Axis::Engine,
            Axis::Precision,
            Axis::Threads,
            Axis::Batch,
            Axis::PrefillChunk,
            Axis::Grouping,
            Axis::Temperature,
            Axis::TopP,
            Axis::TopK,
            Axis::Seed,
            Axis::Repeat,
        ],
        refuses: candle_refuses,
    },
    EngineEntry {
        name: "script:FILE",
        sentence: "a file beside the matrix that says what is answered: for a gate that is tried on paper",
        example: EngineName::Script(Name::known("answers.jsonl")),
        offered: &[],
        pattern: "script:[^/\\\\]+",
        parse: script,
        pinned: true,
        weights: false,
        axes: &[Axis::Engine, Axis::Batch, Axis::Grouping, Axis::Repeat],
        refuses: |_| Vec::new(),
    },
    EngineEntry {
        name: "server:NAME",
        sentence: "a server that others serve with, as [engine.NAME] in the matrix file says; its settings are axes",
        example: EngineName::Server(Name::known("llama")),
        offered: &[],
        pattern: "server:[A-Za-z0-9][A-Za-z0-9._-]*",
        parse: |name| match name {
            Some(name) if server::is_word(name) => Ok(EngineName::Server(Name::new(name))),
            _ => Err("a server is named by the matrix file: write server:NAME, and [engine.NAME]".to_owned()),
        },
        pinned: false,
        weights: false,
        axes: &[
            Axis::Engine,
            Axis::Grouping,
            Axis::Concurrency,
            Axis::Neighbors,
            Axis::Arrival,
            Axis::Cache,
            Axis::Repeat,
        ],
        refuses: server_refuses,
    },
];

fn candle_refuses(cell: &Cell) -> Vec<Refusal> {
    let mut refusals = Vec::new();
    if let Compute::Candle(Stock { precision, .. }) = cell.compute
        && !matches!(precision, Precision::Fp32 | Precision::Fp16 | Precision::Bf16 | Precision::Gguf)
    {
        let sentence = format!(
            "candle computes in fp32, fp16, bf16 or gguf, not in {precision}: leave such cells out with exclude = [{{ \
             engine = \"{}\", precision = \"{precision}\" }}]",
            cell.compute.engine(),
        );
        refusals.push(Refusal { axis: Axis::Precision, sentence });
    }
    let keeps_blocks = matches!(cell.compute, Compute::Candle(Stock { precision: Precision::Gguf, .. }));
    if cell.serving.batch.get() > 1 && keeps_blocks {
        let sentence =
            "candle's quantized models take one prompt at a time: set batch = 1, or leave such cells out";
        refusals.push(Refusal { axis: Axis::Batch, sentence: sentence.to_owned() });
    } else if cell.serving.batch.get() > 1 && !cell.serving.groups_by_length() {
        let sentence = "candle's models know no padding, so prompts of several lengths cannot share a batch: set \
                        grouping = \"by-length\", or leave such cells out";
        refusals.push(Refusal { axis: Axis::Batch, sentence: sentence.to_owned() });
    }
    refusals
}

fn server_refuses(cell: &Cell) -> Vec<Refusal> {
    /// Each is a thread and a connection.
    const MOST: usize = 1024;
    let Asking { concurrency, cache, .. } = cell.serving.asking;
    let mut refusals = Vec::new();
    if concurrency.get() > MOST {
        let sentence = format!(
            "no server is asked more than {MOST} prompts at the same time: set concurrency = {MOST} or less"
        );
        refusals.push(Refusal { axis: Axis::Concurrency, sentence });
    }
    if cache.page().is_some_and(|page| page.get() > 1) {
        let sentence = format!(
            "a server has pages of its own: write cold or warm, and leave `{cache}` to the lab with `exclude`"
        );
        refusals.push(Refusal { axis: Axis::Cache, sentence });
    }
    refusals
}

fn script(file: Option<&str>) -> Result<EngineName, String> {
    match file {
        Some(file) if !file.is_empty() && !file.contains(['/', '\\']) => {
            Ok(EngineName::Script(Name::new(file)))
        }
        _ => {
            Err("a script lies beside the matrix file: write script:FILE, with its name and no folder"
                .to_owned())
        }
    }
}

impl EngineEntry {
    /// Can it be set on this axis?
    pub fn takes(&self, axis: Axis) -> bool {
        self.axes.contains(&axis)
    }

    /// The first word of its name.
    pub fn kind(&self) -> &'static str {
        self.name.split([':', '[']).next().unwrap_or(self.name)
    }
}

impl EngineName {
    /// Its row.
    pub fn entry(self) -> &'static EngineEntry {
        let is_of = |entry: &&EngineEntry| discriminant(&entry.example) == discriminant(&self);
        ENGINES.iter().find(is_of).expect("every engine has a row in ENGINES")
    }
}

impl fmt::Display for EngineName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = self.entry().kind();
        match self {
            EngineName::Lab | EngineName::Candle(Device::Cpu) => f.write_str(kind),
            EngineName::Candle(device) => write!(f, "{kind}:{device}"),
            EngineName::Script(name) | EngineName::Server(name) => write!(f, "{kind}:{name}"),
        }
    }
}

impl FromStr for EngineName {
    type Err = String;

    fn from_str(text: &str) -> Result<EngineName, String> {
        let (kind, parameter) = match text.split_once(':') {
            Some((kind, parameter)) => (kind, Some(parameter)),
            None => (text, None),
        };
        match ENGINES.iter().find(|entry| entry.kind() == kind) {
            Some(entry) => (entry.parse)(parameter),
            None => {
                let names: Vec<_> = ENGINES.iter().map(|entry| entry.name).collect();
                Err(format!("there is no engine `{text}`: write one of {}", names.join(", ")))
            }
        }
    }
}

impl Compute {
    /// In which precision it computes, where it keeps the weights of a model here.
    pub fn precision(&self) -> Option<Precision> {
        match self {
            Compute::Lab(numerics) => Some(numerics.precision()),
            Compute::Candle(stock) => Some(stock.precision),
            Compute::Script(_) | Compute::Server(_) => None,
        }
    }

    /// Numerics that store what it stores, where it keeps the weights of a model here: all ranks together store what one would.
    pub fn stored(&self) -> Option<Numerics> {
        match self {
            Compute::Lab(numerics) => numerics.with_parallel(Parallel::NONE).ok(),
            other => Numerics::new(other.precision()?, Order::SEQUENTIAL, NonZeroUsize::MIN).ok(),
        }
    }

    /// How it keeps keys and values: other engines than the lab as they do.
    pub fn kv(&self) -> Kv {
        if let Compute::Lab(numerics) = self { numerics.kv() } else { Kv::Same }
    }

    /// How it computes attention: other engines than the lab have a way of their own.
    pub fn attention(&self) -> Attention {
        if let Compute::Lab(numerics) = self { numerics.attention() } else { Attention::ThreePass }
    }

    /// How ranks share the model: other engines than the lab have one here.
    pub fn parallel(&self) -> Parallel {
        if let Compute::Lab(numerics) = self { numerics.parallel() } else { Parallel::NONE }
    }

    /// What its elementary functions are: those of other engines than the lab are their own.
    pub fn functions(&self) -> Functions {
        if let Compute::Lab(numerics) = self { numerics.functions() } else { Functions::Exact }
    }

    /// Who computes.
    pub fn engine(self) -> EngineName {
        match self {
            Compute::Lab(_) => EngineName::Lab,
            Compute::Candle(stock) => EngineName::Candle(stock.device),
            Compute::Script(file) => EngineName::Script(file),
            Compute::Server(served) => EngineName::Server(served.server),
        }
    }

    /// Can it be set on this axis?
    pub fn takes(self, axis: Axis) -> bool {
        match (self, axis) {
            (Compute::Server(served), Axis::Server(name)) => served.settings.get(name).is_some(),
            _ => self.entry().takes(axis),
        }
    }

    /// The row of its engine.
    pub fn entry(self) -> &'static EngineEntry {
        self.engine().entry()
    }
}

/// The beginning of a cell's name: `lab/bf16/pairwise/t2`, or `lab/bf16/pairwise/t2/kv:int4/tp4/ring:bf16`.
impl fmt::Display for Compute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.engine())?;
        let cell = Cell { compute: *self, ..Cell::default() };
        for entry in AXES[1..].iter().filter(|entry| entry.computes && self.entry().takes(entry.axis)) {
            let setting = cell.get(entry.axis);
            if entry.always || setting != Cell::default().get(entry.axis) {
                write!(f, "/{}{setting}", entry.tag)?;
            }
        }
        match self {
            Compute::Server(Served { settings, .. }) if *settings != Settings::NONE => {
                write!(f, "/{settings}")
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Stock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Compute::Candle(*self).fmt(f)
    }
}

/// Where candle computes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub enum Device {
    /// On the processor.
    #[default]
    Cpu,
    /// On a GPU, by its number, through CUDA.
    Cuda(usize),
    /// On a GPU, by its number, through Metal.
    Metal(usize),
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Device::Cpu => f.write_str("cpu"),
            Device::Cuda(number) => write!(f, "cuda:{number}"),
            Device::Metal(number) => write!(f, "metal:{number}"),
        }
    }
}

/// Why a text does not name a device.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("unknown device `{0}`: write cpu, cuda:0 or metal:0, with the number of the GPU")]
pub struct DeviceError(String);

impl FromStr for Device {
    type Err = DeviceError;

    fn from_str(name: &str) -> Result<Device, DeviceError> {
        let error = || DeviceError(name.to_owned());
        let (kind, number) = match name.split_once(':') {
            Some((kind, number)) => (kind, number.parse().map_err(|_| error())?),
            None => (name, 0),
        };
        match kind {
            "cpu" if name == kind => Ok(Device::Cpu),
            "cuda" => Ok(Device::Cuda(number)),
            "metal" => Ok(Device::Metal(number)),
            _ => Err(error()),
        }
    }
}
