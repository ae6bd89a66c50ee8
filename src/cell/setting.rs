//! The settings of the axes: how each is written, read and shown.

use std::{fmt, num::NonZeroUsize, str::FromStr};

use serde::{Deserialize, Serialize};

use super::{
    axis::Axis,
    engine::{ENGINES, EngineName},
    name::Name,
    server,
};
use crate::numerics::{
    attention::Attention,
    choice::{Temperature, TopK, TopP},
    functions::Functions,
    kv::Kv,
    order::{self, Order, plain_number},
    parallel::Reduce,
    precision::{self, Precision},
    sharing,
};

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
    /// On [`Axis::KvFormat`].
    KvFormat(Kv),
    /// On [`Axis::Attention`].
    Attention(Attention),
    /// On [`Axis::Tp`].
    Tp(NonZeroUsize),
    /// On [`Axis::Reduce`].
    Reduce(Reduce),
    /// On [`Axis::Functions`].
    Functions(Functions),
    /// On [`Axis::Batch`].
    Batch(NonZeroUsize),
    /// On [`Axis::PrefillChunk`]; all of a prompt where there is none.
    PrefillChunk(Option<NonZeroUsize>),
    /// On [`Axis::Grouping`].
    Grouping(Grouping),
    /// On [`Axis::Concurrency`].
    Concurrency(NonZeroUsize),
    /// On [`Axis::Neighbors`].
    Neighbors(Neighbors),
    /// On [`Axis::Arrival`].
    Arrival(Arrival),
    /// On [`Axis::Cache`].
    Cache(Cache),
    /// On [`Axis::Verify`].
    Verify(Verify),
    /// On [`Axis::Rebuild`].
    Rebuild(Rebuild),
    /// On [`Axis::Temperature`]; what `[generate]` says where there is none.
    Temperature(Option<Temperature>),
    /// On [`Axis::TopP`], the same.
    TopP(Option<TopP>),
    /// On [`Axis::TopK`], the same.
    TopK(Option<TopK>),
    /// On [`Axis::Seed`].
    Seed(u64),
    /// On [`Axis::Repeat`].
    Repeat(NonZeroUsize),
    /// On the [`Axis::Server`] of the first name, the word that is the second.
    Server(Name, Name),
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
            Setting::KvFormat(_) => Axis::KvFormat,
            Setting::Attention(_) => Axis::Attention,
            Setting::Tp(_) => Axis::Tp,
            Setting::Reduce(_) => Axis::Reduce,
            Setting::Functions(_) => Axis::Functions,
            Setting::Batch(_) => Axis::Batch,
            Setting::PrefillChunk(_) => Axis::PrefillChunk,
            Setting::Grouping(_) => Axis::Grouping,
            Setting::Concurrency(_) => Axis::Concurrency,
            Setting::Neighbors(_) => Axis::Neighbors,
            Setting::Arrival(_) => Axis::Arrival,
            Setting::Cache(_) => Axis::Cache,
            Setting::Verify(_) => Axis::Verify,
            Setting::Rebuild(_) => Axis::Rebuild,
            Setting::Temperature(_) => Axis::Temperature,
            Setting::TopP(_) => Axis::TopP,
            Setting::TopK(_) => Axis::TopK,
            Setting::Seed(_) => Axis::Seed,
            Setting::Repeat(_) => Axis::Repeat,
            Setting::Server(axis, _) => Axis::Server(axis),
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
            Setting::KvFormat(kv) => kv.fmt(f),
            Setting::Attention(attention) => attention.fmt(f),
            Setting::Reduce(reduce) => reduce.fmt(f),
            Setting::Functions(functions) => functions.fmt(f),
            Setting::Own(_) => f.write_str("its own"),
            Setting::PrefillChunk(None) => f.write_str("all"),
            Setting::Verify(None) => f.write_str("off"),
            Setting::Threads(number)
            | Setting::Tp(number)
            | Setting::Batch(number)
            | Setting::PrefillChunk(Some(number))
            | Setting::Concurrency(number)
            | Setting::Verify(Some(number))
            | Setting::Repeat(number) => number.fmt(f),
            Setting::Grouping(grouping) => grouping.fmt(f),
            Setting::Neighbors(neighbors) => neighbors.fmt(f),
            Setting::Arrival(arrival) => arrival.fmt(f),
            Setting::Cache(cache) => cache.fmt(f),
            Setting::Rebuild(rebuild) => rebuild.fmt(f),
            Setting::Server(_, word) => word.fmt(f),
            Setting::Temperature(Some(temperature)) => temperature.fmt(f),
            Setting::TopP(Some(share)) => share.fmt(f),
            Setting::TopK(Some(most)) => most.fmt(f),
            Setting::Temperature(None) | Setting::TopP(None) | Setting::TopK(None) => {
                f.write_str("that of choice")
            }
            Setting::Seed(seed) => seed.fmt(f),
        }
    }
}

/// Which prompts share a batch.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Grouping {
    /// Those in a row.
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

/// Who is beside a prompt that shares its calls, or is asked of a server beside others.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Neighbors {
    /// Other prompts of its suite.
    #[default]
    Own,
    /// Prompts of random tokens, each as long as it is, by this seed.
    Noise(u64),
    /// Copies of it.
    Copies,
}

impl fmt::Display for Neighbors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Neighbors::Own => f.write_str("own"),
            Neighbors::Noise(seed) => write!(f, "noise:{seed}"),
            Neighbors::Copies => f.write_str("copies"),
        }
    }
}

impl FromStr for Neighbors {
    type Err = String;

    fn from_str(text: &str) -> Result<Neighbors, String> {
        match text {
            "own" => Ok(Neighbors::Own),
            "copies" => Ok(Neighbors::Copies),
            _ => match seed_after("noise", text) {
                Some(seed) => Ok(Neighbors::Noise(seed?)),
                None => Err(format!(
                    "there are no neighbors `{text}`: write own, copies, or noise:7 with any seed"
                )),
            },
        }
    }
}

/// When what a server is asked at the same time arrives there.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Arrival {
    /// All at once.
    #[default]
    Together,
    /// Each but the first a moment later that is drawn by this seed.
    Staggered(u64),
}

impl fmt::Display for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Arrival::Together => f.write_str("together"),
            Arrival::Staggered(seed) => write!(f, "staggered:{seed}"),
        }
    }
}

impl FromStr for Arrival {
    type Err = String;

    fn from_str(text: &str) -> Result<Arrival, String> {
        match text {
            "together" => Ok(Arrival::Together),
            _ => match seed_after("staggered", text) {
                Some(seed) => Ok(Arrival::Staggered(seed?)),
                None => {
                    Err(format!("there is no arrival `{text}`: write together, or staggered:7 with any seed"))
                }
            },
        }
    }
}

/// The seed of a text that is this word and a seed, or what is wrong with it; nothing where it is another word.
fn seed_after(word: &str, text: &str) -> Option<Result<u64, String>> {
    let seed = match text.split_once(':') {
        Some((first, seed)) if first == word => seed,
        None if text == word => "",
        _ => return None,
    };
    let is_number = !seed.is_empty() && seed.bytes().all(|byte| byte.is_ascii_digit());
    let seed = seed.parse().ok().filter(|_| is_number);
    Some(seed.ok_or_else(|| format!("`{text}` has no seed: write {word}:7 with any whole number from 0 up")))
}

/// What of a prompt comes from a prefix cache: by single tokens, or by whole pages of so many. A server has pages of its own, of
/// which it does not matter here how long they are.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cache {
    /// Nothing: every prompt is read anew.
    #[default]
    Off,
    /// What was read since the prompts of its group came, and nothing of before.
    Cold(NonZeroUsize),
    /// All of a prompt, which has just been read.
    Warm(NonZeroUsize),
}

impl Cache {
    /// Settings to show.
    pub const NAMES: [&str; 5] = ["off", "cold", "cold:16", "warm", "warm:16"];

    /// How many tokens a page has, where anything comes from the cache.
    pub fn page(self) -> Option<NonZeroUsize> {
        match self {
            Cache::Off => None,
            Cache::Cold(page) | Cache::Warm(page) => Some(page),
        }
    }
}

impl fmt::Display for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Cache::Off => "off",
            Cache::Cold(_) => "cold",
            Cache::Warm(_) => "warm",
        })?;
        match self.page() {
            Some(page) if page.get() > 1 => write!(f, ":{page}"),
            _ => Ok(()),
        }
    }
}

impl FromStr for Cache {
    type Err = String;

    fn from_str(text: &str) -> Result<Cache, String> {
        let (word, page) = text.split_once(':').map_or((text, None), |(word, page)| (word, Some(page)));
        let page = page.map_or(Some(NonZeroUsize::MIN), plain_number);
        match (word, page) {
            ("off", _) if text == word => Ok(Cache::Off),
            ("cold", Some(page)) => Ok(Cache::Cold(page)),
            ("warm", Some(page)) => Ok(Cache::Warm(page)),
            _ => Err(format!(
                "there is no cache `{text}`: write off, cold or warm, and for the lab cold:16 or warm:16 with any number of tokens \
                 that make a page"
            )),
        }
    }
}

/// How many drafted tokens a call verifies of each answer, behind the one that it would read anyway: none where there is no number.
pub type Verify = Option<NonZeroUsize>;

/// How the keys and values of a sequence are built again, once so many tokens more have followed: as after a server has dropped them.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rebuild {
    /// Never: they stay.
    #[default]
    Off,
    /// From prompt and answer together, as a prompt is read.
    Prefill(NonZeroUsize),
    /// Token by token.
    Decode(NonZeroUsize),
}

impl Rebuild {
    /// Settings to show.
    pub const NAMES: [&str; 3] = ["off", "prefill:8", "decode:8"];

    /// After how many tokens, if ever.
    pub fn after(self) -> Option<NonZeroUsize> {
        match self {
            Rebuild::Off => None,
            Rebuild::Prefill(tokens) | Rebuild::Decode(tokens) => Some(tokens),
        }
    }
}

impl fmt::Display for Rebuild {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rebuild::Off => f.write_str("off"),
            Rebuild::Prefill(tokens) => write!(f, "prefill:{tokens}"),
            Rebuild::Decode(tokens) => write!(f, "decode:{tokens}"),
        }
    }
}

impl FromStr for Rebuild {
    type Err = String;

    fn from_str(text: &str) -> Result<Rebuild, String> {
        let after = |word| text.strip_prefix(word).and_then(plain_number);
        match (text, after("prefill:"), after("decode:")) {
            ("off", ..) => Ok(Rebuild::Off),
            (_, Some(tokens), _) => Ok(Rebuild::Prefill(tokens)),
            (_, _, Some(tokens)) => Ok(Rebuild::Decode(tokens)),
            _ => Err(format!(
                "there is no rebuild `{text}`: write off, or prefill:8 or decode:8 with any number of tokens after which it happens"
            )),
        }
    }
}

impl Axis {
    /// Are its settings whole numbers?
    pub fn is_number(self) -> bool {
        matches!(
            self,
            Axis::Threads
                | Axis::Tp
                | Axis::Batch
                | Axis::PrefillChunk
                | Axis::Concurrency
                | Axis::Verify
                | Axis::TopK
                | Axis::Seed
                | Axis::Repeat
        )
    }

    /// Are they numbers of any kind?
    pub fn is_decimal(self) -> bool {
        matches!(self, Axis::Temperature | Axis::TopP)
    }

    /// Does it say how a token is drawn? Where the best is taken, or read, it says nothing.
    pub fn is_of_draws(self) -> bool {
        matches!(self, Axis::Temperature | Axis::TopP | Axis::TopK | Axis::Seed)
    }

    /// What the text of a setting looks like, for a schema: a regular expression without its ends.
    pub(crate) fn pattern(self) -> String {
        match self {
            Axis::Engine => {
                let patterns: Vec<_> = ENGINES.iter().map(|entry| entry.pattern).collect();
                format!("({})", patterns.join("|"))
            }
            Axis::Precision => precision::pattern(),
            Axis::Order => order::pattern(),
            Axis::KvFormat => Kv::pattern(),
            Axis::Attention => Attention::pattern(),
            Axis::Functions => Functions::pattern(),
            Axis::Reduce => Reduce::pattern(),
            Axis::Threads | Axis::Tp | Axis::Batch | Axis::Concurrency | Axis::Repeat => {
                "[1-9][0-9]*".to_owned()
            }
            Axis::PrefillChunk | Axis::TopK => "(all|[1-9][0-9]*)".to_owned(),
            Axis::Temperature | Axis::TopP => "[0-9]+(\\.[0-9]+)?".to_owned(),
            Axis::Grouping => "(in-order|by-length|shuffled:[0-9]+)".to_owned(),
            Axis::Neighbors => "(own|copies|noise:[0-9]+)".to_owned(),
            Axis::Arrival => "(together|staggered:[0-9]+)".to_owned(),
            Axis::Cache => "(off|cold(:[1-9][0-9]*)?|warm(:[1-9][0-9]*)?)".to_owned(),
            Axis::Verify => "(off|[1-9][0-9]*)".to_owned(),
            Axis::Rebuild => "(off|(prefill|decode):[1-9][0-9]*)".to_owned(),
            Axis::Seed => "[0-9]+".to_owned(),
            Axis::Server(_) => server::WORD.to_owned(),
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
            Axis::KvFormat => Setting::KvFormat(text.parse()?),
            Axis::Attention => Setting::Attention(text.parse()?),
            Axis::Tp => Setting::Tp(count(text)?),
            Axis::Reduce => Setting::Reduce(text.parse()?),
            Axis::Functions => Setting::Functions(text.parse()?),
            Axis::Batch => Setting::Batch(count(text)?),
            Axis::PrefillChunk if text == "all" => Setting::PrefillChunk(None),
            Axis::PrefillChunk => Setting::PrefillChunk(Some(count(text)?)),
            Axis::Grouping => Setting::Grouping(text.parse()?),
            Axis::Temperature => Setting::Temperature(Some(text.parse().map_err(|_| {
                format!(
                    "`{text}` is not a temperature: write a finite number above 0, such as 0.6; the best token is taken with \
                     top-k = 1"
                )
            })?)),
            Axis::TopP => Setting::TopP(Some(text.parse().map_err(|_| {
                format!("`{text}` is not a top-p: write a number above 0 and up to 1, such as 0.95")
            })?)),
            Axis::TopK => Setting::TopK(Some(text.parse().map_err(|_| {
                format!("`{text}` is not a top-k: write a whole number from 1 up, or all")
            })?)),
            Axis::Seed => Setting::Seed(
                text.parse()
                    .map_err(|_| format!("`{text}` is not a seed: write a whole number from 0 up"))?,
            ),
            Axis::Concurrency => Setting::Concurrency(count(text)?),
            Axis::Neighbors => Setting::Neighbors(text.parse()?),
            Axis::Arrival => Setting::Arrival(text.parse()?),
            Axis::Cache => Setting::Cache(text.parse()?),
            Axis::Verify if text == "off" => Setting::Verify(None),
            Axis::Verify => Setting::Verify(Some(count(text)?)),
            Axis::Rebuild => Setting::Rebuild(text.parse()?),
            Axis::Repeat => Setting::Repeat(count(text)?),
            Axis::Server(name) if server::is_word(text) => Setting::Server(name, Name::new(text)),
            Axis::Server(_) => {
                return Err(format!(
                    "`{text}` is not a setting of `{self}`: write a word of letters, digits, `.`, `_` and `-`"
                ));
            }
        })
    }
}
