//! Reads f32 values, quantizes them, and writes what their codes are worth: for holding a quantizer against another's.
//!
//! `cargo run --release --example quantize -- e2m1-e8m0-g32 4096 < values > worth` takes lines of 4096 values, each an output of
//! one matrix. Values are f32, low byte first.

#![allow(missing_docs, reason = "an example has no readers of its items")]

use std::{
    env,
    io::{self, Read, Write},
};

use anyhow::{Context, Result, ensure};
use reprocheck::numerics::quantizer::{Quantizer, Side};

fn main() -> Result<()> {
    let mut arguments = env::args().skip(1);
    let (name, width) = (arguments.next(), arguments.next());
    let quantizer = name.as_deref().and_then(|name| Quantizer::named(name, Side::Weights));
    let quantizer =
        quantizer.context("the first argument names no quantizer: write for example e2m1-e8m0-g32")?;
    let width: usize = width
        .and_then(|width| width.parse().ok())
        .filter(|width| *width > 0)
        .context("the second argument is no number of values: write how many a line has, for example 4096")?;
    let mut bytes = Vec::new();
    io::stdin().read_to_end(&mut bytes)?;
    ensure!(
        bytes.len().is_multiple_of(4 * width),
        "{} bytes are not whole lines of {width} values: give 4 bytes for each",
        bytes.len()
    );
    let values: Vec<f32> =
        bytes.chunks_exact(4).map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap_or_default())).collect();
    let lines: Vec<&[f32]> = values.chunks(width).collect();
    let mut out = io::stdout().lock();
    for line in quantizer.quantize(&lines) {
        let worth: Vec<u8> = line.values(quantizer.group(width)).flat_map(f32::to_le_bytes).collect();
        out.write_all(&worth)?;
    }
    Ok(())
}
