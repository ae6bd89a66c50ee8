//! The names of orders: printed, parsed, as a pattern, and what is said of a name that is none.

use std::{fmt, num::NonZeroUsize, str::FromStr};

use super::{MMA, ORDERS, Order, OrderEntry, Parts, Rule, Shape, Unmatched};
use crate::{
    name::{NameError, did_you_mean, nearest},
    numerics::unit::Gpu,
};

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let entry = self.entry();
        let of_unit: Option<&dyn fmt::Display> = match &self.rule {
            Rule::Mma(gpu) => Some(gpu),
            Rule::Unit(unit) => Some(unit),
            _ => None,
        };
        if let Some(own) = of_unit {
            if self.shape != Shape::Sequential {
                write!(f, "{}+", Order::plain(self.shape))?;
            }
            return write!(f, "{}:{own}", entry.family());
        }
        match self.shape() {
            Shape::Lanes(n) | Shape::Blocks(n) | Shape::SplitK(Parts::Fixed(n)) => {
                write!(f, "{}:{n}", entry.family())
            }
            Shape::Shuffled(seed) => write!(f, "{}:{seed}", entry.family()),
            _ => f.write_str(entry.name),
        }
    }
}

/// What a name looks like, for a schema: a regular expression without its ends.
pub(crate) fn pattern() -> String {
    let of_entry = |entry: &OrderEntry| match entry.name.split_once(':') {
        _ if entry.name == MMA => {
            let before = "((blocks:[0-9]+|split-k:([0-9]+|threads|rows))\\+)?";
            format!("{before}{}:({})", entry.family(), Gpu::NAMES.join("|"))
        }
        // What is written in capitals stands for a number.
        Some((family, number)) if number.chars().all(char::is_uppercase) => format!("{family}:[0-9]+"),
        _ => entry.name.to_owned(),
    };
    format!("({})", ORDERS.iter().map(of_entry).collect::<Vec<_>>().join("|"))
}

/// Why a text is not the name of an order.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// No such family.
    #[error("unknown order `{name}`: {}see `reprocheck list orders`", did_you_mean(.nearest.as_deref()))]
    Unknown {
        /// What was given.
        name: String,
        /// The nearest name there is.
        nearest: Option<String>,
    },
    /// The family needs a parameter.
    #[error("order `{family}` needs a number: write `{example}`")]
    Missing {
        /// The family.
        family: String,
        /// A valid name.
        example: Order,
    },
    /// The family takes no parameter.
    #[error("order `{family}` takes no parameter: write `{family}` instead of `{family}:{parameter}`")]
    Superfluous {
        /// The family.
        family: String,
        /// What was given.
        parameter: String,
    },
    /// No such GPU.
    #[error(transparent)]
    Gpu(#[from] NameError),
    /// There are no such blocks or parts of that.
    #[error(transparent)]
    Unmatched(#[from] Unmatched),
    /// The parameter does not read.
    #[error("`{parameter}` is not {wanted}: write for example `{example}`")]
    Parameter {
        /// What was given.
        parameter: String,
        /// What would do.
        wanted: &'static str,
        /// A valid name.
        example: Order,
    },
}

impl FromStr for Order {
    type Err = OrderError;

    fn from_str(name: &str) -> Result<Self, OrderError> {
        // A number after it is one with a sign, and said to be none below.
        let composed =
            name.split_once('+').filter(|(_, rule)| !rule.starts_with(|c: char| c.is_ascii_digit()));
        if let Some((shape, rule)) = composed {
            let (shape, rule): (Order, Order) = (shape.parse()?, rule.parse()?);
            // A matrix unit has no shape of its own; whatever else stands here has.
            return match (shape.rule, rule) {
                (Rule::Plain, Order { shape: Shape::Sequential, rule: Rule::Mma(_) })
                    if shape.shape != Shape::Sequential =>
                {
                    Ok(Order::new(shape.shape, rule.rule)?)
                }
                _ => Err(Unmatched { shape, rule }.into()),
            };
        }
        let (family, parameter) = match name.split_once(':') {
            Some((family, parameter)) => (family, Some(parameter)),
            None => (name, None),
        };
        let Some(entry) = ORDERS.iter().find(|entry| entry.family() == family) else {
            let families = ORDERS.iter().map(OrderEntry::family);
            let nearest = nearest(family, families).map(str::to_owned);
            return Err(OrderError::Unknown { name: name.to_owned(), nearest });
        };
        let takes_parameter = entry.name.contains(':');
        let parameter = match (takes_parameter, parameter) {
            (false, None) => return Ok(entry.example),
            (false, Some(parameter)) => {
                return Err(OrderError::Superfluous {
                    family: family.to_owned(),
                    parameter: parameter.to_owned(),
                });
            }
            (true, None) => {
                return Err(OrderError::Missing { family: family.to_owned(), example: entry.example });
            }
            (true, Some(parameter)) => parameter,
        };
        let unreadable = |wanted| OrderError::Parameter {
            parameter: parameter.to_owned(),
            wanted,
            example: entry.example,
        };
        let count = |wanted| plain_number::<NonZeroUsize>(parameter).ok_or_else(|| unreadable(wanted));
        if let Rule::Mma(_) = entry.example.rule {
            return Ok(Order { rule: Rule::Mma(parameter.parse()?), ..entry.example });
        }
        let shape = match entry.example.shape() {
            Shape::Lanes(_) => Shape::Lanes(count("a number of lanes from 1 up")?),
            Shape::Blocks(_) => Shape::Blocks(count("a block length from 1 up")?),
            Shape::SplitK(_) => Shape::SplitK(match parameter {
                "threads" => Parts::Threads,
                "rows" => Parts::Rows,
                _ => Parts::Fixed(count("a number of parts from 1 up, `threads` or `rows`")?),
            }),
            Shape::Shuffled(_) => Shape::Shuffled(
                plain_number(parameter).ok_or_else(|| unreadable("a seed from 0 to 2^64 - 1"))?,
            ),
            other => other,
        };
        Ok(Order { shape, ..entry.example })
    }
}

/// A number without sign or leading zeros, so that one value has one name.
pub(crate) fn plain_number<T: FromStr + fmt::Display>(text: &str) -> Option<T> {
    text.parse::<T>().ok().filter(|value| value.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_parses_back_to_its_value() {
        for entry in ORDERS {
            assert_eq!(entry.example.to_string().parse(), Ok(entry.example));
            assert_eq!(entry.example.entry().name, entry.name);
        }
    }

    #[test]
    fn a_bad_name_says_what_to_write_instead() {
        let error = |name: &str| name.parse::<Order>().unwrap_err().to_string();
        assert_eq!(
            error("pairwize"),
            "unknown order `pairwize`: did you mean `pairwise`? see `reprocheck list orders`"
        );
        assert_eq!(error("lanes"), "order `lanes` needs a number: write `lanes:16`");
        assert_eq!(error("exact:2"), "order `exact` takes no parameter: write `exact` instead of `exact:2`");
        assert_eq!(error("blocks:0"), "`0` is not a block length from 1 up: write for example `blocks:64`");
        assert_eq!(
            error("split-k:+4"),
            "`+4` is not a number of parts from 1 up, `threads` or `rows`: write for example `split-k:4`"
        );
        assert_eq!(
            error("shuffled:x"),
            "`x` is not a seed from 0 to 2^64 - 1: write for example `shuffled:7`"
        );
    }
}
