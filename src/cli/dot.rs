//! `reprocheck dot`: one dot product a line, to try any precision and order from any language.

use std::{
    fmt,
    io::{BufRead, BufReader, Read, Write},
    num::NonZeroUsize,
};

use anyhow::Context;
use clap::Args;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::value::RawValue;

use super::{Ended, Exit, complain, named, up_to};
use crate::numerics::{
    Numerics,
    kernel::{At, Fast, Job, Kernel, Op},
    order::{Launch, Order},
    precision::Precision,
};

/// Compute dot products as JSON lines, in any precision and order
///
/// Reads JSON lines such as {"a":[1,2],"b":[3,"0x3f800000"],"c":0} from stdin and answers each with
/// {"bits":"0x…","value":…}.
///
/// Numbers are read as f32; a string is the bit pattern of an f32. Inputs are rounded to the precision first. `c`
/// is what the sum begins at, 0 if left out. The answer is as the precision stores it, as the bit pattern of that
/// value in f32; `value` is null where JSON has no number for it. For a precision whose product is used in some
/// places only, it is the product where it is used.
#[derive(Args, Debug)]
pub(super) struct Dot {
    /// The precision, see `reprocheck list precisions`
    #[arg(long, value_parser = named::<Precision>)]
    precision: Precision,
    /// The order of the sum, see `reprocheck list orders`
    #[arg(long)]
    order: Order,
    /// Rows of the call that this would be one row of
    #[arg(long, default_value = "1", value_parser = up_to(usize::MAX))]
    rows: usize,
    /// Threads that would share that call
    #[arg(long, default_value = "1", value_parser = up_to(usize::MAX))]
    threads: usize,
    /// Tell the finished sum, too, before it is rounded to what the precision stores
    #[arg(long)]
    sum: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question<'a> {
    #[serde(borrow)]
    a: Vec<&'a RawValue>,
    #[serde(borrow)]
    b: Vec<&'a RawValue>,
    #[serde(borrow, default, deserialize_with = "present")]
    c: Option<&'a RawValue>,
}

/// What is written is there, `null` too: as nothing it would turn a NaN from elsewhere into 0.
fn present<'de, D: Deserializer<'de>>(value: D) -> Result<Option<&'de RawValue>, D::Error> {
    Deserialize::deserialize(value).map(Some)
}

#[derive(Serialize)]
struct Answer {
    bits: String,
    value: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sum: Option<String>,
}

impl Dot {
    pub(super) fn run(&self, mut lines: BufReader<impl Read>, out: &mut impl Write) -> Result<Exit, Ended> {
        // The launch is what the order sees; one dot product is worth no thread of its own.
        let numerics = Numerics::new(self.precision, self.order, NonZeroUsize::MIN).map_err(Ended::usage)?;
        let kernel = Fast::new(numerics).map_err(Ended::environment)?.unrounded();
        let stored = numerics.recipe(At::alone(self.precision.own_site())).result;
        let mut exit = Exit::Held;
        let mut line = Vec::new();
        for number in 1_usize.. {
            line.clear();
            // Whoever asks line by line gets the answer before the next question.
            if lines.buffer().is_empty() {
                out.flush()?;
            }
            let read = lines.read_until(b'\n', &mut line);
            if read.context("cannot read standard input").map_err(Ended::environment)? == 0 {
                break;
            }
            if line.iter().all(u8::is_ascii_whitespace) {
                continue;
            }
            // Its end is no part of it: the reader would count it as a line more.
            match self.answer(&kernel, line.trim_ascii_end()) {
                Ok(sum) => {
                    let value = stored.round(sum);
                    let [bits, sum] = [value, sum].map(|number| format!("{:#010x}", number.to_bits()));
                    let sum = self.sum.then_some(sum);
                    let value = value.is_finite().then(|| f64::from(value));
                    serde_json::to_writer(&mut *out, &Answer { bits, value, sum })
                        .map_err(std::io::Error::from)?;
                    writeln!(out)?;
                }
                Err(problem) => {
                    out.flush()?;
                    complain(&format_args!("error: line {number}: {problem}"));
                    exit = Exit::Usage;
                }
            }
        }
        Ok(exit)
    }

    fn answer(&self, kernel: &Fast, line: &[u8]) -> Result<f32, Problem> {
        // Otherwise a list would do for an object.
        if !line.trim_ascii_start().starts_with(b"{") {
            return Err(Problem::NoObject);
        }
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
        let most = self.precision.recipe(At::alone(site)).most_terms();
        if a.len() > most {
            return Err(Problem::TooMany(a.len(), most));
        }
        let at = At::alone(site);
        let weights =
            kernel.pack(at, 1, a.len(), &mut |_: usize, terms: &mut [f32]| terms.copy_from_slice(&b));
        let launch = Launch { rows: self.rows, threads: self.threads };
        let mut out = [0.0];
        let job = Job { activations: &a, rows: 1, weights: &weights, start: Some(&[c]), out: &mut out };
        kernel.apply(at, launch, Op::Product(vec![job]));
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
    #[error("does not begin with `{{`: write {FORM}")]
    NoObject,
    #[error("{}: write {FORM}", in_line(.0))]
    Json(serde_json::Error),
    #[error("`a` has {0} numbers and `b` has {1}: give both the same length")]
    Lengths(usize, usize),
    #[error("{0} is {1}, neither a number nor a bit pattern: write 1.5 or \"0x3fc00000\"")]
    Neither(Place, String),
    #[error(
        "{0} is {1}, beyond the largest f32: write \"{infinity}\" if you mean infinity",
        infinity = infinity(.1)
    )]
    TooLarge(Place, String),
    #[error(
        "`a` has {0} numbers: products of 8-bit integers are summed in 32 bits, which hold {1} of them for sure"
    )]
    TooMany(usize, usize),
}

const FORM: &str = r#"{"a":[…],"b":[…],"c":0}; NaN and infinity are bit patterns such as "0x7f800000""#;

fn infinity(number: &str) -> &'static str {
    if number.starts_with('-') { "0xff800000" } else { "0x7f800000" }
}

/// The reader's own words, but for the line: it knows of one only, whichever that is.
fn in_line(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.strip_suffix(&format!(" at line {} column {}", error.line(), error.column())) {
        Some(what) => format!("{what} at column {}", error.column()),
        None => text,
    }
}

/// A number, read as f32 at once: by way of f64 it could round twice.
fn number(raw: &RawValue, place: Place) -> Result<f32, Problem> {
    let neither = || Problem::Neither(place, raw.get().to_owned());
    if raw.get().starts_with('"') {
        let text: String = serde_json::from_str(raw.get()).map_err(|_| neither())?;
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
