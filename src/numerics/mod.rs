//! What arithmetic is done, and in which order; knows nothing of models.
//!
//! A [`Precision`] says how terms come about and what rounds, an [`Order`]
//! in which order they are added, a [`Kernel`](kernel::Kernel) does it. [`Numerics`] is everything that may
//! move a bit, as one value.

pub mod activation;
pub mod agreement;
pub mod apart;
pub mod at;
pub mod block;
pub mod choice;
pub mod elementary;
pub mod error;
pub mod exact;
pub mod file_key;
mod flush;
pub mod format;
pub mod functions;
pub mod kernel;
pub mod kv;
pub mod order;
pub mod precision;
pub mod product;
pub mod quantizer;
pub mod random;
pub mod reveal;
pub mod rotary;
pub mod smooth;
pub mod special;
pub mod survey;
pub mod total;
pub mod tree;

use std::{fmt, num::NonZeroUsize, str::FromStr};

use at::{At, Step};
use functions::Functions;
use kv::Kv;
use order::{Launch, Order, OrderError};
use precision::{Precision, PrecisionError, Recipe, Site};

/// The one NaN that a result may be: hardware differs in the sign and payload of those it makes.
pub const NAN: f32 = f32::from_bits(0x7FC0_0000);

/// The value, and [`NAN`] for every NaN.
#[inline(always)]
pub fn canonical(value: f32) -> f32 {
    // On the bits, because the compiler takes all NaNs for one and drops a choice among them.
    let bits = value.to_bits();
    f32::from_bits(if bits & 0x7FFF_FFFF > 0x7F80_0000 { NAN.to_bits() } else { bits })
}

/// Everything that may move a bit. There is no other mode, global or in the environment.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Numerics {
    precision: Precision,
    order: Order,
    threads: NonZeroUsize,
    kv: Kv,
    functions: Functions,
}

/// What is added up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reduction {
    /// The products of a matrix at this site.
    Product(Site),
    /// A row of values: what a norm or a softmax divides by.
    Row,
}

/// More threads than any machine shares a call among.
pub const MOST_THREADS: usize = 1024;

/// Why something cannot be computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Impossible {
    /// Too many threads.
    #[error("no machine has {0} threads for one call: write up to {MOST_THREADS}")]
    Threads(NonZeroUsize),
    /// Attention that keeps its keys and values as it must.
    #[error(
        "attention in {precision} multiplies keys and values in a format of its own, not in {kv}: let them be `{same}`, or leave such \
         cells out", same = Kv::Same
    )]
    Kv {
        /// What forms attention's products.
        precision: Precision,
        /// What was asked for.
        kv: Kv,
    },
}

/// So many threads, if a call can be shared among them.
///
/// # Errors
///
/// When they are too many.
pub fn sharing(threads: NonZeroUsize) -> Result<NonZeroUsize, Impossible> {
    if threads.get() <= MOST_THREADS { Ok(threads) } else { Err(Impossible::Threads(threads)) }
}

impl Numerics {
    /// These three together.
    ///
    /// # Errors
    ///
    /// When that cannot be computed.
    pub fn new(precision: Precision, order: Order, threads: NonZeroUsize) -> Result<Numerics, Impossible> {
        let (kv, functions) = (Kv::Same, Functions::Exact);
        Ok(Numerics { precision, order, threads: sharing(threads)?, kv, functions })
    }

    /// The same with keys and values kept so.
    ///
    /// # Errors
    ///
    /// When its attention multiplies no others than its own.
    pub fn with_kv(self, kv: Kv) -> Result<Numerics, Impossible> {
        let goes = |precision: Precision| kv.goes_with(precision.recipe(At::alone(Site::Attention)));
        match self.precision.in_steps(&[Step::Scores, Step::Context]).into_iter().find(|own| !goes(*own)) {
            Some(precision) => Err(Impossible::Kv { precision, kv }),
            None => Ok(Numerics { kv, ..self }),
        }
    }

    /// The same with other elementary functions.
    #[must_use]
    pub fn with_functions(self, functions: Functions) -> Numerics {
        Numerics { functions, ..self }
    }

    /// The same in another precision.
    ///
    /// # Errors
    ///
    /// When that cannot be computed.
    pub fn in_precision(self, precision: Precision) -> Result<Numerics, Impossible> {
        Numerics { precision, ..self }.with_kv(self.kv)
    }

    /// The same in another order.
    ///
    /// # Errors
    ///
    /// When that cannot be computed.
    pub fn in_order(self, order: Order) -> Result<Numerics, Impossible> {
        Numerics { order, ..self }.in_precision(self.precision)
    }

    /// The same on one thread.
    #[must_use]
    pub fn alone(self) -> Numerics {
        Numerics { threads: NonZeroUsize::MIN, ..self }
    }

    /// How terms come about and what rounds.
    pub fn precision(self) -> Precision {
        self.precision
    }

    /// In which order terms are added.
    pub fn order(self) -> Order {
        self.order
    }

    /// How many threads share a call.
    pub fn threads(self) -> NonZeroUsize {
        self.threads
    }

    /// How keys and values are kept.
    pub fn kv(self) -> Kv {
        self.kv
    }

    /// What the functions are that a model calls.
    pub fn functions(self) -> Functions {
        self.functions
    }

    /// All rounding points of a product at this place.
    pub fn recipe(self, at: At) -> Recipe {
        let recipe = self.precision.recipe(at);
        if at.site() == Site::Attention { self.kv.stored(recipe) } else { recipe }
    }

    /// The same on so many threads, where these move no bit; where they do, as it is.
    #[must_use]
    pub fn on_threads(self, threads: NonZeroUsize) -> Numerics {
        let under = |threads| self.order.under(Launch { rows: 1, threads });
        if under(1) != under(2) {
            return self;
        }
        sharing(threads).map_or(self, |threads| Numerics { threads, ..self })
    }

    /// Does what it makes of a row depend on how many rows the call has, or on what they hold?
    pub fn minds_its_rows(self) -> bool {
        let under = |rows| self.order.under(Launch { rows, threads: self.threads.get() });
        under(1) != under(2) || self.precision.sees_other_rows()
    }

    /// By which order this is added: decided here, and nowhere else.
    pub fn order_of(self, what: Reduction) -> Order {
        match what {
            Reduction::Product(_) | Reduction::Row => self.order,
        }
    }
}

impl fmt::Display for Numerics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/t{}", self.precision, self.order, self.threads)?;
        if self.kv != Kv::Same {
            write!(f, "/{KV}{}", self.kv)?;
        }
        if self.functions == Functions::Exact { Ok(()) } else { write!(f, "/{FUNCTIONS}{}", self.functions) }
    }
}

/// What stands before the format of keys and values.
const KV: &str = "kv:";
/// What stands before other functions than the exact ones.
const FUNCTIONS: &str = "fn:";

/// Why a text does not name a [`Numerics`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NumericsError {
    /// Other parts.
    #[error("`{0}` is not precision/order/threads: write for example `bf16/pairwise/t2`")]
    Shape(String),
    /// The first part.
    #[error(transparent)]
    Precision(#[from] PrecisionError),
    /// The second part.
    #[error(transparent)]
    Order(#[from] OrderError),
    /// A part that is left out where it is as usual.
    #[error("{0}")]
    Unusual(String),
    /// All of them together.
    #[error(transparent)]
    Impossible(#[from] Impossible),
}

impl FromStr for Numerics {
    type Err = NumericsError;

    fn from_str(text: &str) -> Result<Self, NumericsError> {
        let shape = || NumericsError::Shape(text.to_owned());
        let mut parts = text.split('/').peekable();
        let (Some(precision), Some(order), Some(threads)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(shape());
        };
        let kv = parts.peek().and_then(|part| part.strip_prefix(KV)).map(str::parse::<Kv>);
        parts.next_if(|_| kv.is_some());
        let functions =
            parts.peek().and_then(|part| part.strip_prefix(FUNCTIONS)).map(str::parse::<Functions>);
        parts.next_if(|_| functions.is_some());
        if parts.next().is_some() {
            return Err(shape());
        }
        let kv = kv.transpose().map_err(NumericsError::Unusual)?.unwrap_or_default();
        let functions = functions.transpose().map_err(NumericsError::Unusual)?.unwrap_or_default();
        let threads = threads.strip_prefix('t').and_then(|threads| threads.parse().ok()).ok_or_else(shape)?;
        let numerics = Numerics::new(precision.parse()?, order.parse()?, threads)?;
        Ok(numerics.with_functions(functions).with_kv(kv)?)
    }
}

#[cfg(test)]
mod tests {
    use super::{order::ORDERS, precision::PRECISIONS, *};

    #[test]
    fn numerics_parse_back_to_the_same_value() {
        for text in [
            "fp32/exact/t1",
            "lmul:m=4,scope=attention/split-k:rows/t16",
            "cast:e3m2,round=up/lanes:8/t2",
            "bf16/exact/t1/kv:int4:64,k-sort",
            "bf16/exact/t1/fn:poly:5",
            "bf16/exact/t1/kv:int4/fn:program:0123456789abcdef",
        ] {
            assert_eq!(text.parse::<Numerics>().unwrap().to_string(), text);
        }
        for text in [
            "fp32/exact",
            "fp32/exact/2",
            "fp32/exact/t0",
            "fp32/exact/t1/x",
            "fp32/exat/t1",
            "fp32/exact/t1/kv:x",
            "fp32/exact/t1/fn:x",
            "fp32/exact/t1/fn:libm/kv:int4",
        ] {
            assert!(text.parse::<Numerics>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_computed_cannot_be_made() {
        let pairs = PRECISIONS.iter().flat_map(|one| ORDERS.iter().map(|other| (one.example, other.example)));
        let refused = pairs.filter(|&(one, other)| Numerics::new(one, other, NonZeroUsize::MIN).is_err());
        // Tests walk the pairs that can be made, so this number says what they leave out.
        assert_eq!(refused.count(), 0);
        assert!("fp32/exact/t1024".parse::<Numerics>().is_ok());
        assert_eq!(
            "fp32/exact/t1025".parse::<Numerics>().unwrap_err().to_string(),
            "no machine has 1025 threads for one call: write up to 1024"
        );
        let refused = PRECISIONS.iter().filter(|entry| {
            let numerics = Numerics::new(entry.example, Order::SEQUENTIAL, NonZeroUsize::MIN).unwrap();
            numerics.with_kv("int8".parse().unwrap()).is_err()
        });
        let refused: Vec<_> = refused.map(|entry| entry.name).collect();
        assert_eq!(refused, ["tf32", "cast:e4m3", "cast:e5m2", "cast:eXmY", "lmul"]);
        // What a map says of other steps is nothing to the cache.
        assert!("map:bf16;scores=tf32/exact/t1/kv:f16".parse::<Numerics>().is_err());
        assert!("map:tf32;scores,context=fp32/exact/t1/kv:f16".parse::<Numerics>().is_ok());
    }
}
