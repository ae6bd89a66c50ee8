//! What arithmetic is done, and in which order; knows nothing of models.
//!
//! A [`Precision`] says how terms come about and what rounds, an [`Order`]
//! in which order they are added, a [`Kernel`](kernel::Kernel) does it. [`Numerics`] is everything that may
//! move a bit, as one value.

pub mod activation;
pub mod agreement;
pub mod apart;
pub mod at;
pub mod attention;
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
pub mod parallel;
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
pub mod unit;

use std::{fmt, iter::Peekable, num::NonZeroUsize, str::FromStr};

use at::{At, Step};
use attention::Attention;
use format::Format;
use functions::Functions;
use kv::Kv;
use order::{Launch, ORDERS, Order, OrderError, Rule};
use parallel::{Parallel, Reduce};
use precision::{PRECISIONS, Precision, PrecisionError, Recipe, Site};
use unit::{Gpu, NoUnit};

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
    attention: Attention,
    parallel: Parallel,
    functions: Functions,
}

/// What is added up.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Reduction {
    /// The products of a matrix at this place.
    Product(At),
    /// A row of values: what a norm or a softmax divides by.
    Row,
}

/// More threads than any machine shares a call among.
pub const MOST_THREADS: usize = 1024;

/// What a GPU's matrix unit does not multiply.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{order}` multiplies {}, and {} by {} for {at} of {precision}: choose among these, or leave such cells out",
    .gpu.multiplies(), .factors[0], .factors[1]
)]
pub struct Unmultiplied {
    /// The GPU.
    pub gpu: Gpu,
    /// The order of its unit.
    pub order: Order,
    /// What was to be multiplied.
    pub precision: Precision,
    /// Where.
    pub at: &'static str,
    /// Its factors there.
    pub factors: [Format; 2],
}

/// Why something cannot be computed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Impossible {
    /// Too many threads.
    #[error("no machine has {0} threads for one call: write up to {MOST_THREADS}")]
    Threads(NonZeroUsize),
    /// Products that a GPU's matrix unit has not.
    #[error(transparent)]
    Unit(Box<Unmultiplied>),
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
    /// A product that is cut along its terms.
    #[error(
        "{precision} scales a whole row of activations and takes outliers out of it, and nothing says what a rank would do with its \
         part: let tp be 1, or leave such cells out"
    )]
    Ranks {
        /// What forms the product.
        precision: Precision,
    },
}

/// Every row of [`PRECISIONS`] in every row of [`ORDERS`] that goes with it.
pub fn pairs() -> Vec<(Precision, Order)> {
    let all = PRECISIONS.iter().flat_map(|one| ORDERS.iter().map(|other| (one.example, other.example)));
    all.filter(|&(precision, order)| Numerics::new(precision, order, NonZeroUsize::MIN).is_ok()).collect()
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
        let (kv, parallel, functions) = (Kv::Same, Parallel::NONE, Functions::Exact);
        let (threads, attention) = (sharing(threads)?, Attention::ThreePass);
        Numerics { precision, order, threads, kv, attention, parallel, functions }.on_its_unit()
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
            None => Numerics { kv, ..self }.on_its_unit(),
        }
    }

    /// These, if the matrix unit of their order multiplies what their products are of.
    fn on_its_unit(self) -> Result<Numerics, Impossible> {
        let Rule::Mma(gpu) = self.order.rule() else { return Ok(self) };
        // What belongs to no forward pass, such as `dot`, has the base of a map.
        let alone = [Site::Linear, Site::Attention, Site::Head].map(At::alone);
        for at in self.products().chain(alone) {
            let recipe = self.recipe(at);
            let (Err(NoUnit), Some(factors)) = (gpu.unit_for(&recipe), recipe.factors()) else {
                continue;
            };
            let (order, precision) = (self.order, self.precision);
            let at = match at.site() {
                Site::Attention => "attention",
                Site::Head => "the logits",
                Site::Linear | Site::Table => "the linear layers",
            };
            return Err(Impossible::Unit(Box::new(Unmultiplied { gpu, order, precision, at, factors })));
        }
        Ok(self)
    }

    /// Where a forward pass multiplies; of layers that are alike the first.
    pub fn products(self) -> impl Iterator<Item = At> {
        let products = [Step::Qkv, Step::Scores, Step::Context, Step::Output, Step::GateUp, Step::Down];
        let layers = 0..=self.precision.alike_from();
        let in_layers = layers.flat_map(move |layer| products.map(|step| At::layer(layer, step)));
        in_layers.chain([At::outside(Step::Head)])
    }

    /// The same on ranks that share a model.
    ///
    /// # Errors
    ///
    /// When one of the products that they share along their terms cannot be cut.
    pub fn with_parallel(self, parallel: Parallel) -> Result<Numerics, Impossible> {
        let is_cut = |own: &Precision| own.recipe(At::alone(Site::Linear)).uncut().is_some();
        let shared = self.precision.in_steps(&Step::BY_TERMS);
        match shared.into_iter().find(|own| parallel != Parallel::NONE && !is_cut(own)) {
            Some(precision) => Err(Impossible::Ranks { precision }),
            None => Ok(Numerics { parallel, ..self }),
        }
    }

    /// The same with attention computed so.
    #[must_use]
    pub fn with_attention(self, attention: Attention) -> Numerics {
        Numerics { attention, ..self }
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
        Numerics { precision, ..self }.with_kv(self.kv)?.with_parallel(self.parallel)
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

    /// How attention is computed.
    pub fn attention(self) -> Attention {
        self.attention
    }

    /// How many ranks share a model, and how they reduce.
    pub fn parallel(self) -> Parallel {
        self.parallel
    }

    /// The ranks that share the product of this place along its terms, if there are several.
    pub fn ranks(self, at: At) -> Option<Parallel> {
        (self.parallel != Parallel::NONE && Step::BY_TERMS.contains(&at.step)).then_some(self.parallel)
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
        let under = |threads| self.under(Launch { rows: 1, threads });
        if under(1) != under(2) {
            return self;
        }
        sharing(threads).map_or(self, |threads| Numerics { threads, ..self })
    }

    /// What follows the launch, as it is under this one.
    fn under(self, launch: Launch) -> (Order, Attention) {
        (self.order.under(launch), self.attention.under(launch))
    }

    /// Does what it makes of a row depend on how many rows the call has, or on what they hold?
    pub fn minds_its_rows(self) -> bool {
        let under = |rows| self.under(Launch { rows, threads: self.threads.get() });
        under(1) != under(2) || self.precision.sees_other_rows()
    }

    /// By which order this is added: decided here, and nowhere else.
    pub fn order_of(self, what: Reduction) -> Order {
        match what {
            // Nothing is multiplied there; a table may be the matrix of the logits.
            Reduction::Product(at) if at.site() == Site::Table => {
                self.order_of(Reduction::Product(At::outside(Step::Head)))
            }
            Reduction::Product(at) => {
                self.order.of(&self.recipe(at)).expect("numerics are made of what goes together")
            }
            Reduction::Row => self.order.of_rows(),
        }
    }
}

impl fmt::Display for Numerics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/t{}", self.precision, self.order, self.threads)?;
        if self.kv != Kv::Same {
            write!(f, "/{KV}{}", self.kv)?;
        }
        if self.attention != Attention::ThreePass {
            write!(f, "/{}", self.attention)?;
        }
        let (ranks, reduce) = (self.parallel.ranks(), self.parallel.reduce());
        if self.parallel != Parallel::NONE {
            write!(f, "/{TP}{ranks}")?;
        }
        if reduce != Reduce::USUAL {
            write!(f, "/{reduce}")?;
        }
        if self.functions == Functions::Exact { Ok(()) } else { write!(f, "/{FUNCTIONS}{}", self.functions) }
    }
}

/// What stands before the format of keys and values.
const KV: &str = "kv:";
/// What stands before the number of ranks.
const TP: &str = "tp";
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
        let kv = tagged(&mut parts, KV);
        let attention = parts.peek().and_then(|part| part.parse().ok());
        if attention.is_some() {
            parts.next();
        }
        let ranks = tagged(&mut parts, TP);
        let reduce = parts.next_if(|part| ranks.is_some() && !part.starts_with(FUNCTIONS));
        let functions = tagged(&mut parts, FUNCTIONS);
        if parts.next().is_some() {
            return Err(shape());
        }
        let count = |text: &str| text.parse::<NonZeroUsize>().map_err(|_| shape());
        let threads = threads.strip_prefix('t').ok_or_else(shape).and_then(count)?;
        let unusual = NumericsError::Unusual;
        let kv = kv.map(str::parse).transpose().map_err(unusual)?.unwrap_or_default();
        let ranks = ranks.map_or(Ok(NonZeroUsize::MIN), count)?;
        let reduce = reduce.map_or(Ok(Reduce::USUAL), str::parse).map_err(unusual)?;
        let functions = functions.map_or(Ok(Functions::Exact), str::parse).map_err(unusual)?;
        let numerics = Numerics::new(precision.parse()?, order.parse()?, threads)?.with_functions(functions);
        let numerics = numerics.with_attention(attention.unwrap_or_default());
        Ok(numerics.with_kv(kv)?.with_parallel(Parallel::new(ranks, reduce))?)
    }
}

/// The next of these parts without its tag, if it has it.
fn tagged<'t>(parts: &mut Peekable<impl Iterator<Item = &'t str>>, tag: &str) -> Option<&'t str> {
    let own = parts.peek()?.strip_prefix(tag)?;
    parts.next();
    Some(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numerics_parse_back_to_the_same_value() {
        for text in [
            "fp32/exact/t1",
            "lmul:m=4,scope=attention/split-k:rows/t16",
            "cast:e3m2,round=up/lanes:8/t2",
            "bf16/exact/t1/kv:int4:64,k-sort",
            "bf16/exact/t1/tp4",
            "bf16/exact/t1/kv:int4/tp8/ring:bf16",
            "bf16/exact/t1/fn:poly:5",
            "bf16/split-k:rows/t2/split-kv:rows",
            "bf16/exact/t1/kv:int8/split-kv:threads+online:16/tp4/ring/fn:libm",
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
            "fp32/exact/t1/tp0",
            "fp32/exact/t1/tp2/rink",
            "fp32/exact/t1/tp2/kv:int4",
            "fp32/exact/t1/ring",
            "fp32/exact/t1/fn:x",
            "fp32/exact/t1/online:0",
            "fp32/exact/t1/online:64/kv:int4",
            "fp32/exact/t1/fn:libm/kv:int4",
        ] {
            assert!(text.parse::<Numerics>().is_err(), "{text}");
        }
    }

    #[test]
    fn what_cannot_be_computed_cannot_be_made() {
        // Tests walk the pairs that can be made, so these names say what they leave out.
        let goes = |order: Order| {
            let own = pairs().into_iter().filter(|pair| pair.1 == order);
            own.map(|(precision, _)| precision.entry().name).collect::<Vec<_>>()
        };
        for entry in ORDERS.iter().filter(|entry| !entry.example.is_of_unit()) {
            assert_eq!(goes(entry.example).len(), PRECISIONS.len(), "{}", entry.name);
        }
        let multiplied = ["bf16", "fp16", "fp16-acc16", "tf32", "cast:e4m3", "cast:e5m2", "fp8"];
        assert_eq!(goes("mma:h100".parse().unwrap()), multiplied);
        let refused = |text: &str| text.parse::<Numerics>().unwrap_err().to_string();
        assert_eq!(
            refused("fp32/split-k:4+mma:a100/t1"),
            "`split-k:4+mma:a100` multiplies fp16, fp16-acc16, bf16 and tf32, and f32 by f32 for the linear layers of fp32: choose among \
             these, or leave such cells out"
        );
        // In its linear layers are whole numbers, and attention is in what it says.
        assert!("w8a8:compute=bf16/mma:a100/t1".parse::<Numerics>().is_ok());
        for text in [
            "w8a8/mma:a100/t1",
            "fp8/mma:a100/t1",
            "bf16:sum=e8m13/mma:h100/t1",
            "bf16/mma:v100/t1",
            "bf16/mma:h100/t1/kv:fp8",
            "bf16/mma:h100/t1/kv:f16",
            "map:bf16;down@3=w4a16/mma:h100/t1",
            "map:fp32;qkv,output,gate-up,down,scores,context,head=bf16/mma:h100/t1",
        ] {
            assert!(text.parse::<Numerics>().is_err(), "{text}");
        }
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
        let refused = PRECISIONS.iter().filter(|entry| {
            let numerics = Numerics::new(entry.example, Order::SEQUENTIAL, NonZeroUsize::MIN).unwrap();
            numerics.with_parallel(Parallel::new(NonZeroUsize::new(2).unwrap(), Reduce::USUAL)).is_err()
        });
        assert_eq!(refused.map(|entry| entry.name).collect::<Vec<_>>(), ["int8"]);
        assert!("map:bf16;down=int8/exact/t1/tp2".parse::<Numerics>().is_err());
        assert!("map:bf16;qkv=int8/exact/t1/tp2".parse::<Numerics>().is_ok());
        // What a map says of other steps is nothing to the cache.
        assert!("map:bf16;scores=tf32/exact/t1/kv:f16".parse::<Numerics>().is_err());
        assert!("map:tf32;scores,context=fp32/exact/t1/kv:f16".parse::<Numerics>().is_ok());
    }
}
