//! What arithmetic is done, and in which order; knows nothing of models.
//!
//! A [`Precision`] says how terms come about and what rounds, an [`Order`]
//! in which order they are added, a [`Kernel`](kernel::Kernel) does it. [`Numerics`] is everything that may
//! move a bit, as one value.

pub mod activation;
pub mod choice;
pub mod elementary;
pub mod error;
pub mod exact;
pub mod format;
pub mod kernel;
pub mod order;
pub mod precision;
pub mod product;
pub mod random;
pub mod reveal;
pub mod rotary;
pub mod special;
pub mod total;
pub mod tree;

use std::{fmt, num::NonZeroUsize, str::FromStr};

use order::{Order, OrderError};
use precision::{Precision, PrecisionError};

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
    /// How terms come about and what rounds.
    pub precision: Precision,
    /// In which order terms are added.
    pub order: Order,
    /// How many threads share a call.
    pub threads: NonZeroUsize,
}

impl fmt::Display for Numerics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/t{}", self.precision, self.order, self.threads)
    }
}

/// Why a text does not name a [`Numerics`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NumericsError {
    /// Not three parts.
    #[error("`{0}` is not precision/order/threads: write for example `bf16/pairwise/t2`")]
    Shape(String),
    /// The first part.
    #[error(transparent)]
    Precision(#[from] PrecisionError),
    /// The second part.
    #[error(transparent)]
    Order(#[from] OrderError),
}

impl FromStr for Numerics {
    type Err = NumericsError;

    fn from_str(text: &str) -> Result<Self, NumericsError> {
        let shape = || NumericsError::Shape(text.to_owned());
        let mut parts = text.split('/');
        let (Some(precision), Some(order), Some(threads), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(shape());
        };
        let threads = threads.strip_prefix('t').and_then(|threads| threads.parse().ok()).ok_or_else(shape)?;
        Ok(Numerics { precision: precision.parse()?, order: order.parse()?, threads })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numerics_parse_back_to_the_same_value() {
        for text in ["fp32/exact/t1", "lmul:m=4,scope=attention/split-k:rows/t16", "e3m2:round=up/lanes:8/t2"]
        {
            assert_eq!(text.parse::<Numerics>().unwrap().to_string(), text);
        }
        for text in ["fp32/exact", "fp32/exact/2", "fp32/exact/t0", "fp32/exact/t1/x", "fp32/exat/t1"] {
            assert!(text.parse::<Numerics>().is_err(), "{text}");
        }
    }
}
