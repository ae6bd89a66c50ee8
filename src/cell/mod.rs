//! A cell, one point of a matrix: what computes, how prompts are served to it, and which of several equal ones it is.
//!
//! Two cells share an open engine exactly if their [`Compute`] and their repeat are equal, so an axis belongs either
//! to what computes or to how it is served, and its place decides.

mod axis;
pub mod calibration;
mod engine;
pub mod map;
mod name;
pub mod program;
pub mod server;
mod setting;

use std::{borrow::Cow, fmt, num::NonZeroUsize, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use self::server::Settings;
pub use self::{
    axis::{AXES, Axis, AxisEntry},
    engine::{Compute, Device, DeviceError, ENGINES, EngineEntry, EngineName, Served, Stock},
    name::Name,
    setting::{Arrival, Cache, Grouping, Neighbors, Rebuild, Setting, Verify},
};
use crate::numerics::{
    Impossible, Numerics,
    attention::Attention,
    choice::{Choice, Drawing},
    functions::Functions,
    kv::Kv,
    order::Order,
    parallel::{Parallel, Reduce},
    precision::Precision,
    sharing,
};

/// One point of a matrix: a setting on every axis.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Cell {
    /// What computes, and with which numerics.
    pub compute: Compute,
    /// How prompts are served to it.
    pub serving: Serving,
    /// Which of several equal ones.
    pub repeat: NonZeroUsize,
}

/// How prompts are served to an engine, which stays as it is.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Serving {
    /// How many prompts share a call.
    pub batch: NonZeroUsize,
    /// How many tokens of a prompt a call reads at most; all of them where there is none.
    pub prefill_chunk: Option<NonZeroUsize>,
    /// Which prompts share a batch.
    pub grouping: Grouping,
    /// Who is asked beside a prompt, and what comes of what was read before.
    pub asking: Asking,
    /// What its draws do otherwise than the run says.
    pub drawing: Drawing,
    /// The seed of every draw.
    pub seed: u64,
}

/// Who is asked beside a prompt, and what comes of what was read before.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct Asking {
    /// How many prompts are asked at the same time: of a server, and in a [`Request`](crate::engine::Request) those that share a
    /// batch as well.
    pub concurrency: NonZeroUsize,
    /// Who is asked beside a prompt.
    pub neighbors: Neighbors,
    /// When they arrive.
    pub arrival: Arrival,
    /// What comes from a prefix cache.
    pub cache: Cache,
    /// How many drafted tokens a call verifies.
    pub verify: Verify,
    /// How keys and values are built again.
    pub rebuild: Rebuild,
}

impl Default for Asking {
    fn default() -> Asking {
        Asking {
            concurrency: NonZeroUsize::MIN,
            neighbors: Neighbors::Own,
            arrival: Arrival::Together,
            cache: Cache::Off,
            verify: None,
            rebuild: Rebuild::Off,
        }
    }
}

impl Serving {
    /// How a token is chosen, where a run says how.
    pub fn choice(&self, of_run: Choice) -> Choice {
        of_run.with(self.drawing).with_seed(self.seed)
    }

    /// Do only prompts of one length share a batch?
    pub fn groups_by_length(&self) -> bool {
        self.grouping == Grouping::ByLength
    }

    /// How many prompts share a call, or are asked at the same time: an engine takes one of both, and the other one is 1.
    pub fn company(&self) -> NonZeroUsize {
        self.batch.max(self.asking.concurrency)
    }

    /// How an engine is asked, which is told how many share a call as well.
    pub fn asking(&self) -> Asking {
        Asking { concurrency: self.company(), ..self.asking }
    }

    /// How many prompts an engine is given at once. One that has noise or copies for neighbors is given alone.
    pub fn together(&self) -> NonZeroUsize {
        match self.asking.neighbors {
            Neighbors::Own => self.company(),
            Neighbors::Noise(_) | Neighbors::Copies => NonZeroUsize::MIN,
        }
    }

    /// How many prompts an engine reads and answers for one of ours.
    pub fn answers(&self) -> usize {
        match self.asking.neighbors {
            Neighbors::Own => 1,
            Neighbors::Noise(_) | Neighbors::Copies => self.company().get(),
        }
    }

    /// Is a sequence read in more calls than its own among those of its suite, or in others: so that they do not follow from how long
    /// all are?
    pub fn has_history(&self) -> bool {
        let Asking { neighbors, cache, verify, rebuild, .. } = self.asking;
        (neighbors, cache, verify, rebuild) != (Neighbors::Own, Cache::Off, None, Rebuild::Off)
    }

    /// Whoever is alone has no neighbors, and nobody to arrive with: one setting stands for all.
    fn settled(self) -> Serving {
        if self.company().get() > 1 {
            return self;
        }
        let asking = Asking { neighbors: Neighbors::Own, arrival: Arrival::Together, ..self.asking };
        Serving { asking, ..self }
    }
}

impl Default for Serving {
    fn default() -> Serving {
        Serving {
            batch: NonZeroUsize::MIN,
            prefill_chunk: None,
            grouping: Grouping::InOrder,
            asking: Asking::default(),
            drawing: Drawing::default(),
            seed: 0,
        }
    }
}

impl Default for Cell {
    fn default() -> Cell {
        let usual = Numerics::new(Precision::Fp32, Order::SEQUENTIAL, NonZeroUsize::MIN);
        let compute = Compute::Lab(usual.expect("every engine can be so"));
        Cell { compute, serving: Serving::default(), repeat: NonZeroUsize::MIN }
    }
}

/// Why a cell cannot run, and which axis is to be changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refusal {
    /// The axis whose setting is in the way.
    pub axis: Axis,
    /// What is wrong, and the way out.
    pub sentence: String,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

/// A setting of every axis, whether the engine takes it or not: what a cell is made of and taken apart into.
#[derive(Clone, Copy)]
struct Parts {
    engine: EngineName,
    precision: Precision,
    order: Order,
    threads: NonZeroUsize,
    kv: Kv,
    attention: Attention,
    ranks: NonZeroUsize,
    reduce: Reduce,
    functions: Functions,
    settings: Settings,
    serving: Serving,
    repeat: NonZeroUsize,
}

impl From<Cell> for Parts {
    fn from(cell: Cell) -> Parts {
        let Cell { compute, serving, repeat } = cell;
        let engine = compute.engine();
        let (precision, order, threads) = match compute {
            Compute::Lab(numerics) => (numerics.precision(), numerics.order(), numerics.threads()),
            Compute::Candle(Stock { precision, threads, .. }) => (precision, Order::SEQUENTIAL, threads),
            Compute::Script(_) | Compute::Server(_) => {
                (Precision::Fp32, Order::SEQUENTIAL, NonZeroUsize::MIN)
            }
        };
        let settings = match compute {
            Compute::Server(served) => served.settings,
            _ => Settings::NONE,
        };
        let (kv, attention, functions) = (compute.kv(), compute.attention(), compute.functions());
        let (ranks, reduce) = (compute.parallel().ranks(), compute.parallel().reduce());
        Parts {
            engine,
            precision,
            order,
            threads,
            kv,
            attention,
            ranks,
            reduce,
            functions,
            settings,
            serving,
            repeat,
        }
    }
}

impl Parts {
    fn set(&mut self, setting: Setting) {
        match setting {
            Setting::Engine(engine) => {
                // What is declared for one server is nothing to another.
                if engine != self.engine {
                    self.settings = Settings::NONE;
                }
                self.engine = engine;
            }
            Setting::Precision(precision) => self.precision = precision,
            Setting::Order(order) => self.order = order,
            Setting::Threads(threads) => self.threads = threads,
            Setting::KvFormat(kv) => self.kv = kv,
            Setting::Attention(attention) => self.attention = attention,
            Setting::Tp(ranks) => self.ranks = ranks,
            Setting::Reduce(reduce) => self.reduce = reduce,
            Setting::Functions(functions) => self.functions = functions,
            Setting::Batch(batch) => self.serving.batch = batch,
            Setting::PrefillChunk(chunk) => self.serving.prefill_chunk = chunk,
            Setting::Grouping(grouping) => self.serving.grouping = grouping,
            Setting::Temperature(temperature) => self.serving.drawing.temperature = temperature,
            Setting::TopP(share) => self.serving.drawing.top_p = share,
            Setting::TopK(most) => self.serving.drawing.top_k = most,
            Setting::Seed(seed) => self.serving.seed = seed,
            Setting::Concurrency(concurrency) => self.serving.asking.concurrency = concurrency,
            Setting::Neighbors(neighbors) => self.serving.asking.neighbors = neighbors,
            Setting::Arrival(arrival) => self.serving.asking.arrival = arrival,
            Setting::Cache(cache) => self.serving.asking.cache = cache,
            Setting::Verify(verify) => self.serving.asking.verify = verify,
            Setting::Rebuild(rebuild) => self.serving.asking.rebuild = rebuild,
            Setting::Repeat(repeat) => self.repeat = repeat,
            Setting::Server(axis, word) => self.settings = self.settings.with(axis, word),
            Setting::Own(_) => {}
        }
    }

    fn get(&self, axis: Axis) -> Setting {
        let Parts {
            engine,
            precision,
            order,
            threads,
            kv,
            attention,
            ranks,
            reduce,
            functions,
            settings,
            serving,
            repeat,
        } = *self;
        match axis {
            Axis::Engine => Setting::Engine(engine),
            Axis::Precision => Setting::Precision(precision),
            Axis::Order => Setting::Order(order),
            Axis::Threads => Setting::Threads(threads),
            Axis::KvFormat => Setting::KvFormat(kv),
            Axis::Attention => Setting::Attention(attention),
            Axis::Tp => Setting::Tp(ranks),
            Axis::Reduce => Setting::Reduce(reduce),
            Axis::Functions => Setting::Functions(functions),
            Axis::Batch => Setting::Batch(serving.batch),
            Axis::PrefillChunk => Setting::PrefillChunk(serving.prefill_chunk),
            Axis::Grouping => Setting::Grouping(serving.grouping),
            Axis::Concurrency => Setting::Concurrency(serving.asking.concurrency),
            Axis::Neighbors => Setting::Neighbors(serving.asking.neighbors),
            Axis::Arrival => Setting::Arrival(serving.asking.arrival),
            Axis::Cache => Setting::Cache(serving.asking.cache),
            Axis::Verify => Setting::Verify(serving.asking.verify),
            Axis::Rebuild => Setting::Rebuild(serving.asking.rebuild),
            Axis::Temperature => Setting::Temperature(serving.drawing.temperature),
            Axis::TopP => Setting::TopP(serving.drawing.top_p),
            Axis::TopK => Setting::TopK(serving.drawing.top_k),
            Axis::Seed => Setting::Seed(serving.seed),
            Axis::Repeat => Setting::Repeat(repeat),
            Axis::Server(name) => {
                settings.get(name).map_or(Setting::Own(axis), |word| Setting::Server(name, word))
            }
        }
    }

    /// The cell of these settings. What its engine does not take is forgotten, and so are who should be beside a prompt that
    /// is asked alone, and how one rank should reduce, so that one cell stands for all of them.
    fn cell(mut self) -> Result<Cell, Refusal> {
        let usual = Parts::from(Cell::default());
        for AxisEntry { axis, .. } in AXES {
            if !self.engine.entry().takes(*axis) {
                self.set(usual.get(*axis));
            }
        }
        self.serving = self.serving.settled();
        let Parts {
            engine,
            precision,
            order,
            threads,
            kv,
            attention,
            ranks,
            reduce,
            functions,
            settings,
            serving,
            repeat,
        } = self;
        let impossible = |error: Impossible| match error {
            Impossible::Threads(_) => Refusal { axis: Axis::Threads, sentence: error.to_string() },
            Impossible::Kv { .. } => Refusal { axis: Axis::KvFormat, sentence: error.to_string() },
            Impossible::Unit(_) => Refusal { axis: Axis::Order, sentence: error.to_string() },
            Impossible::Ranks { .. } => Refusal { axis: Axis::Tp, sentence: error.to_string() },
        };
        sharing(threads).map_err(impossible)?;
        let compute = match engine {
            EngineName::Lab => {
                let numerics = Numerics::new(precision, order, threads)
                    .and_then(|numerics| numerics.with_kv(kv))
                    .and_then(|numerics| numerics.with_parallel(Parallel::new(ranks, reduce)));
                Compute::Lab(
                    numerics.map_err(impossible)?.with_attention(attention).with_functions(functions),
                )
            }
            EngineName::Candle(device) => Compute::Candle(Stock { precision, threads, device }),
            EngineName::Script(name) => Compute::Script(name),
            EngineName::Server(server) => Compute::Server(Served { server, settings }),
        };
        Ok(Cell { compute, serving, repeat })
    }
}

/// The axes on which cells can be compared: those of our decoder, and what else one of them takes; of what a run says of its
/// draws, and of what our decoder has read before, what one of them says otherwise.
pub fn axes(cells: &[Cell]) -> Vec<Axis> {
    let is_unusual = |axis: Axis| {
        let usual = Parts::from(Cell::default()).get(axis);
        cells.iter().any(|cell| Parts::from(*cell).get(axis) != usual)
    };
    let of_others = |axis: Axis| {
        let others = cells.iter().filter(|cell| cell.compute.engine() != EngineName::Lab);
        others.into_iter().any(|cell| cell.compute.takes(axis))
    };
    let taken = |axis: Axis| match axis {
        // How other engines attend and what they call is their own affair, and part of another engine as long as nothing is said of it.
        Axis::Temperature | Axis::TopP | Axis::TopK | Axis::Attention | Axis::Functions => is_unusual(axis),
        Axis::Neighbors | Axis::Cache | Axis::Verify | Axis::Rebuild => is_unusual(axis) || of_others(axis),
        _ => Cell::default().compute.takes(axis) || cells.iter().any(|cell| cell.compute.takes(axis)),
    };
    let mut axes: Vec<Axis> = AXES.iter().map(|entry| entry.axis).filter(|axis| taken(*axis)).collect();
    for cell in cells {
        let Compute::Server(served) = cell.compute else { continue };
        for (name, _) in served.settings.iter() {
            if !axes.contains(&Axis::Server(name)) {
                axes.push(Axis::Server(name));
            }
        }
    }
    axes
}

impl Cell {
    /// Where it lies on an axis.
    pub fn get(&self, axis: Axis) -> Setting {
        let is_known = self.compute.takes(axis) || axis.entry().usual_elsewhere;
        if is_known { Parts::from(*self).get(axis) } else { Setting::Own(axis) }
    }

    /// The same cell with other settings, of which its engine may not take every one.
    ///
    /// # Errors
    ///
    /// When nothing can compute so.
    pub fn with(self, settings: impl IntoIterator<Item = Setting>) -> Result<Cell, Refusal> {
        let mut parts = Parts::from(self);
        settings.into_iter().for_each(|setting| parts.set(setting));
        parts.cell()
    }

    /// The same cell under another seed, where its engine takes one.
    #[must_use]
    pub fn under_seed(self, seed: u64) -> Cell {
        // A seed makes nothing impossible.
        self.with([Setting::Seed(seed)]).unwrap_or(self)
    }

    /// The name of its precision, of what it keeps keys and values in where that is another, and of its functions where they are not
    /// exact: `bf16`, `bf16/kv:int4`, `bf16/fn:libm`.
    pub fn precision(&self) -> String {
        let mut name = self.get(Axis::Precision).to_string();
        for axis in [Axis::KvFormat, Axis::Functions] {
            let setting = Parts::from(*self).get(axis);
            if setting != Parts::from(Cell::default()).get(axis) {
                name += &format!("/{}{setting}", axis.entry().tag);
            }
        }
        name
    }

    /// What its name says of how it draws, such as `T0.6/k20`; nothing where it draws as the run says.
    pub fn drawing(&self) -> String {
        let usual = Parts::from(Cell::default());
        let of_draws = [Axis::Temperature, Axis::TopP, Axis::TopK].into_iter();
        let parts = of_draws.filter(|axis| Parts::from(*self).get(*axis) != usual.get(*axis));
        parts.map(|axis| format!("{}{}", axis.entry().tag, self.get(axis))).collect::<Vec<_>>().join("/")
    }

    /// What of it decides which engine must be open: two cells for which this is equal share one. Another repeat is
    /// a fresh start.
    pub fn engine(&self) -> (Compute, NonZeroUsize) {
        (self.compute, self.repeat)
    }

    /// Why its engine cannot run it, as far as that can be told before it is opened.
    pub fn refusals(&self) -> Vec<Refusal> {
        (self.compute.entry().refuses)(self)
    }
}

/// `lab/bf16/pairwise/t2/b8`. Before `b8` stand `kv:int4` where keys and values have a format of their own, `online:64` where attention is
/// not computed in three passes, `tp4/ring:bf16` where ranks share a model, and `fn:libm` where functions are not exact; what is not as
/// usual stands after it: `c16`, `by-length`, `T0.6`, `p0.95`, `k20`, `s7`, `r2`, and of the lab `noise:7`, `warm:16`, `v3`,
/// `re-prefill:8`. Of a server
/// `server:llama/kv=split/n4/copies/staggered:7/warm`.
impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.compute)?;
        let usual = Parts::from(Cell::default());
        for AxisEntry { axis, tag, .. } in AXES.iter().filter(|entry| !entry.computes) {
            let setting = self.get(*axis);
            let is_taken = setting != Setting::Own(*axis);
            if is_taken && (axis.entry().always || setting != usual.get(*axis)) {
                write!(f, "/{tag}{setting}")?;
            }
        }
        Ok(())
    }
}

impl FromStr for Cell {
    type Err = String;

    fn from_str(text: &str) -> Result<Cell, String> {
        let shape = || {
            format!(
                "`{text}` is not a cell: write engine/precision/order/threads/batch, such as lab/bf16/pairwise/t2/b8"
            )
        };
        let mut parts = text.split('/').peekable();
        let engine: EngineName = parts.next().ok_or_else(shape)?.parse()?;
        let mut settings = vec![Setting::Engine(engine)];
        if let EngineName::Server(_) = engine {
            while let Some((axis, word)) = parts.peek().and_then(|part| part.split_once('=')) {
                let axis = Axis::recorded(axis).ok_or_else(shape)?;
                settings.push(axis.parse(word)?);
                parts.next();
            }
        }
        for AxisEntry { axis, tag, always, .. } in &AXES[1..] {
            if !engine.entry().takes(*axis) {
                continue;
            }
            let read = parts.peek().and_then(|part| part.strip_prefix(tag)).map(|text| axis.parse(text));
            match read {
                Some(Ok(setting)) => {
                    settings.push(setting);
                    parts.next();
                }
                // What may be left out is perhaps the next one's.
                _ if !always => {}
                Some(Err(sentence)) => return Err(sentence),
                None => return Err(shape()),
            }
        }
        let cell = Cell::default().with(settings).map_err(|refusal| refusal.sentence)?;
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

impl<'de> Deserialize<'de> for Cell {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Cell, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl JsonSchema for Cell {
    fn schema_name() -> Cow<'static, str> {
        "Cell".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let of_engine = |engine: &EngineEntry| {
            let taken = AXES[1..].iter().filter(|entry| engine.takes(entry.axis));
            let parts = taken.map(|AxisEntry { axis, tag, always, .. }| {
                // What is usual is left out.
                let usual = ["same", "three-pass", "tree", "exact", "in-order", "own", "together", "off"];
                let without = |pattern: String, usual: &str| pattern.replace(&format!("({usual}|"), "(");
                let pattern = usual.into_iter().fold(axis.pattern(), without);
                let part = format!("/{tag}{pattern}");
                if *always { part } else { format!("({part})?") }
            });
            let declared = match engine.example {
                EngineName::Server(_) => format!("(/{}={})*", server::AXIS, server::WORD),
                _ => String::new(),
            };
            format!("{}{declared}{}", engine.pattern, parts.collect::<String>())
        };
        let engines: Vec<_> = ENGINES.iter().map(of_engine).collect();
        json_schema!({
            "description": "A cell, one point of the matrix, by its name: engine/precision/order/threads/batch, such as \
                            lab/bf16/pairwise/t2/b8, without what its engine cannot be told; before the batch what keys and values are kept \
                            in, where that is not what attention multiplies (kv:int4), how attention is computed, where that is not in \
                            three passes (online:64), how many ranks share the model, where that \
                            is more than one (tp4), how they reduce, where that is not the usual tree (ring:bf16), and what \
                            elementary functions are, where they are not exact (fn:libm); after it what is not as \
                            usual: how many tokens of a prompt a call reads (c16), which prompts share a batch \
                            (by-length), who else does (noise:7), what comes from a prefix cache (warm:16), how many drafted \
                            tokens a call verifies (v3), how keys and values are built again (re-prefill:8), at which temperature (T0.6) and from which of the best tokens one is drawn \
                            (p0.95, k20), the seed (s7), which of several equal cells (r2). A server is named with what the \
                            matrix file declares of it and how many prompts it is asked at the same time: \
                            server:llama/kv=split/n4, and after that who is asked beside a prompt (noise:7), when they \
                            arrive (staggered:7), and whether its cache is cold or warm.",
            "type": "string",
            "pattern": format!("^({})$", engines.join("|")),
        })
    }
}
