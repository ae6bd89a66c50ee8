//! `reprocheck dot`: one dot product a line, to try any precision and order from any language.

use std::{
    fmt,
    io::{BufRead, Write},
    num::NonZeroUsize,
};

use clap::Args;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Ended, Exit, complain};
use crate::numerics::{
    Numerics,
    kernel::{Fast, Job, Kernel},
    order::{Launch, Order},
    precision::Precision,
};

/// Compute dot products as JSON lines, in any precision and order
///
/// Reads lines such as {"a":[1,2],"b":[3,"0x3f800000"],"c":0} from stdin and answers each with
/// {"bits":"0x…","value":…}.
///
/// Numbers are read as f32; a string is the bit pattern of an f32. Inputs are rounded to the precision first. `c`
/// is what the sum begins at, 0 if left out. The answer is as the precision stores it, as the bit pattern of that
/// value in f32; `value` is null where JSON has no number for it. For a precision whose product is used in some
/// places only, it is the product where it is used.
#[derive(Args, Debug)]
pub(super) struct Dot {
    /// The precision, see `reprocheck list precisions`
    #[arg(long)]
    precision: Precision,
    /// The order of the sum, see `reprocheck list orders`
    #[arg(long)]
    order: Order,
    /// Rows of the call that this would be one row of
    #[arg(long, default_value = "1")]
    rows: NonZeroUsize,
    /// Threads that would share that call
    #[arg(long, default_value = "1")]
    threads: NonZeroUsize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question<'a> {
    #[serde(borrow)]
    a: Vec<&'a RawValue>,
    #[serde(borrow)]
    b: Vec<&'a RawValue>,
    #[serde(borrow, default)]
    c: Option<&'a RawValue>,
}

#[derive(Serialize)]
struct Answer {
    bits: String,
    value: Option<f64>,
}

impl Dot {
    pub(super) fn run(&self, lines: impl BufRead, out: &mut impl Write) -> Result<Exit, Ended> {
        // The launch is what the order sees; one dot product is worth no thread of its own.
        let numerics = Numerics { precision: self.precision, order: self.order, threads: NonZeroUsize::MIN };
        let kernel = Fast::new(numerics).map_err(Ended::environment)?;
        let mut exit = Exit::Held;
        for (number, line) in lines.split(b'\n').enumerate() {
            let line = line?;
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            match self.answer(&kernel, &line) {
                Ok(value) => {
                    let bits = format!("{:#010x}", value.to_bits());
                    let value = value.is_finite().then(|| f64::from(value));
                    serde_json::to_writer(&mut *out, &Answer { bits, value })
                        .map_err(std::io::Error::from)?;
                    writeln!(out)?;
                }
                Err(problem) => {
                    complain(&format_args!("error: line {}: {problem}", number + 1));
                    exit = Exit::Usage;
                }
            }
        }
        Ok(exit)
    }

    fn answer(&self, kernel: &Fast, line: &[u8]) -> Result<f32, Problem> {
        let question: Question<'_> = serde_json::from_slice(line).map_err(Problem::Json)?;
        let all = |name, values: &[&RawValue]| {
            let values = values.iter().enumerate();
            values
                .map(|(index, value)| number(value, Place(name, Some(index))))
                .collect::<Result<Vec<_>, _>>()
        };
        let (a, b) = (all("a", &question.a)?, all("b", &question.b)?);
        let c = question.c.map_or(Ok(0.0), |c| number(c, Place("c", None)))?;
        if a.len() != b.len() {
            return Err(Problem::Lengths(a.len(), b.len()));
        }
        let site = self.precision.own_site();
        let most = self.precision.recipe(site).most_terms();
        if a.len() > most {
            return Err(Problem::TooLong(a.len(), most));
        }
        let weights = kernel.pack(site, 1, a.len(), &mut |_, terms| terms.copy_from_slice(&b));
        let launch = Launch { rows: self.rows.get(), threads: self.threads.get() };
        let mut out = [0.0];
        let job = Job { activations: &a, rows: 1, weights: &weights, start: Some(&[c]), out: &mut out };
        kernel.run(site, launch, vec![job]);
        Ok(out[0])
    }
}

/// Where a number stands: in which list, and at which index.
#[derive(Clone, Copy, Debug)]
struct Place(&'static str, Option<usize>);

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.1 {
            Some(index) => write!(f, "{}[{index}]", self.0),
            None => f.write_str(self.0),
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error(
        "{0}: write {{\"a\":[…],\"b\":[…],\"c\":0}}; NaN and infinity are bit patterns such as \"0x7f800000\""
    )]
    Json(serde_json::Error),
    #[error("`a` has {0} numbers and `b` has {1}: give both the same length")]
    Lengths(usize, usize),
    #[error("{0} terms are more than the {1} whose sum is sure to fit: split the vectors")]
    TooLong(usize, usize),
    #[error("{0} is {1}, neither a number nor a bit pattern: write 1.5 or \"0x3fc00000\"")]
    Neither(Place, String),
    #[error("{0} is {1}, beyond the largest f32: write \"0x7f800000\" if you mean infinity")]
    TooLarge(Place, String),
}

/// A number, read as f32 at once: by way of f64 it could round twice.
fn number(raw: &RawValue, place: Place) -> Result<f32, Problem> {
    let neither = || Problem::Neither(place, raw.get().to_owned());
    if raw.get().starts_with('"') {
        let text: String = serde_json::from_str(raw.get()).map_err(Problem::Json)?;
        let digits = text.strip_prefix("0x").filter(|digits| digits.len() == 8).ok_or_else(neither)?;
        // `from_str_radix` would take a sign.
        let digits = Some(digits).filter(|digits| digits.bytes().all(|digit| digit.is_ascii_hexdigit()));
        return Ok(f32::from_bits(
            u32::from_str_radix(digits.ok_or_else(neither)?, 16).map_err(|_| neither())?,
        ));
    }
    // JSON's other values (null, true, lists) do not parse; its numbers all do.
    if raw.get().starts_with(|first: char| !first.is_ascii_digit() && first != '-') {
        return Err(neither());
    }
    let value: f32 = raw.get().parse().map_err(|_| neither())?;
    if value.is_finite() { Ok(value) } else { Err(Problem::TooLarge(place, raw.get().to_owned())) }
}
