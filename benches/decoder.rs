//! Our decoder beside the stock candle model on the same checkpoint, in tokens per second.
//!
//! `cargo bench --bench decoder -- MODEL [precision/order/tN | candle/precision/tN …]` measures a folder in the Hugging
//! Face layout, such as `benches/shapes.py` makes, or a file of GGUF. Prefill reads one prompt of 128 tokens; decode adds
//! tokens to prompts of 8, in batches. Both are the engine's whole work: logits, digests and candidates too, and what share
//! of a step these two take is a second table. The engines take turns, round after round, and the median is taken, so that
//! a machine whose speed drifts is as kind to one as to the other. Candle runs in a process of its own, as it always does
//! here.

#![allow(missing_docs, reason = "a benchmark has no readers of its items")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::{collections::BTreeMap, error::Error, hint::black_box, path::Path, time::Instant};

use reprocheck::{
    cell::{Asking, Cell, Compute},
    engine::{Engine, Engines, Opener as _, Prompt, Request, Row},
    model::{Checkpoint, Subject},
    numerics::{
        choice::Choice,
        kernel::{Isa, Workers},
    },
};
use tabled::{builder::Builder, settings::Style};

const BATCHES: [usize; 4] = [1, 4, 8, 16];
const PREFILL: usize = 128;
const DECODE: usize = 16;
const ROUNDS: usize = 3;
const CELLS: [&str; 4] = ["fp32/sequential/t2", "bf16/sequential/t2", "candle/fp32/t2", "candle/bf16/t2"];
const CANDIDATES: usize = 8;

fn main() -> Result<(), Box<dyn Error>> {
    // cargo passes `--bench` to a benchmark.
    let mut words = std::env::args().skip(1).filter(|word| !word.starts_with("--"));
    let Some(model) = words.next() else {
        println!(
            "give a folder or a file of GGUF: cargo bench --bench decoder -- MODEL [precision/order/tN | candle/precision/tN …]"
        );
        return Ok(());
    };
    let mut cells: Vec<String> = words.collect();
    if cells.is_empty() {
        cells = CELLS.map(str::to_owned).to_vec();
    }
    let checkpoint = Checkpoint::open(Path::new(&model))?;
    println!("vectors: {}; median of {ROUNDS} rounds, engines in turn", Isa::best());

    let subject = Subject::of(&checkpoint)?;
    let program = Path::new(env!("CARGO_BIN_EXE_reprocheck"));
    let opener = Engines {
        checkpoint: Some(&checkpoint),
        program,
        scripts: &BTreeMap::new(),
        servers: &BTreeMap::new(),
        logs: Path::new(""),
        subject: &subject,
    };
    let mut engines: Vec<(Cell, String, Box<dyn Engine + '_>)> = Vec::new();
    for cell in cells {
        let begun = Instant::now();
        let named = if cell.starts_with("candle") { cell.clone() } else { format!("lab/{cell}") };
        let parsed: Cell = format!("{named}/b1").parse()?;
        let engine = opener.open(parsed.compute)?;
        println!("{cell}: loaded in {:.2} s", begun.elapsed().as_secs_f64());
        engines.push((parsed, cell, engine));
    }

    let mut table = Builder::default();
    let batches = BATCHES.map(|batch| format!("decode, batch {batch}"));
    table.push_record(["tokens/s".to_owned(), format!("prefill {PREFILL}")].into_iter().chain(batches));
    let mut seconds = vec![vec![Vec::new(); 1 + BATCHES.len()]; engines.len()];
    for _ in 0..ROUNDS {
        for (at, batch) in [1].into_iter().chain(BATCHES).enumerate() {
            for ((.., engine), seconds) in engines.iter_mut().zip(&mut seconds) {
                seconds[at].push(if at == 0 {
                    time(engine.as_mut(), 1, PREFILL, 1, &checkpoint)?
                } else {
                    let first = time(engine.as_mut(), batch, 8, 1, &checkpoint)?;
                    time(engine.as_mut(), batch, 8, 1 + DECODE, &checkpoint)? - first
                });
            }
        }
    }
    let mut shares = Builder::default();
    let vocabulary = checkpoint.config.vocabulary;
    let header = format!("digest and ranking of {vocabulary} logits");
    shares.push_record([header].into_iter().chain(BATCHES.map(|batch| format!("batch {batch}"))));
    for ((cell, name, _), seconds) in engines.iter().zip(seconds) {
        let (mut record, mut share) = (vec![name.clone()], vec![name.clone()]);
        for (at, seconds) in seconds.into_iter().enumerate() {
            let seconds = median(seconds);
            let tokens = if at == 0 { PREFILL } else { BATCHES[at - 1] * DECODE };
            record.push(format!("{:.1}", tokens as f64 / seconds));
            if let (Some(batch), Compute::Lab(numerics)) = (at.checked_sub(1), cell.compute) {
                let seen = seeing(&Workers::new(numerics.threads())?, BATCHES[batch], vocabulary);
                let step = seconds / DECODE as f64;
                share.push(format!(
                    "{:.2} of {:.1} ms: {:.1} %",
                    1e3 * seen,
                    1e3 * step,
                    100.0 * seen / step
                ));
            }
        }
        table.push_record(record);
        if share.len() > 1 {
            shares.push_record(share);
        }
    }
    println!("{}", table.build().with(Style::sharp()));
    println!("{}", shares.build().with(Style::sharp()));
    Ok(())
}

/// The time that digests and rankings of so many rows take.
fn seeing(workers: &Workers, rows: usize, vocabulary: usize) -> f64 {
    let logits: Vec<f32> = (0..rows * vocabulary).map(|at| (at * 7919 % 10_007) as f32 * 1e-3).collect();
    let rows: Vec<&[f32]> = logits.chunks_exact(vocabulary).collect();
    workers.within(|| {
        let time = |_| {
            let begun = Instant::now();
            black_box(Row::of_each(workers, black_box(&rows), CANDIDATES));
            begun.elapsed().as_secs_f64()
        };
        median((0..101).map(time).collect())
    })
}

fn median(mut seconds: Vec<f64>) -> f64 {
    seconds.sort_by(f64::total_cmp);
    seconds[seconds.len() / 2]
}

/// The time that an engine takes to add tokens to so many prompts.
fn time(
    engine: &mut dyn Engine,
    batch: usize,
    length: usize,
    new_tokens: usize,
    checkpoint: &Checkpoint,
) -> Result<f64, Box<dyn Error>> {
    let vocabulary = checkpoint.config.vocabulary as u64;
    let prompts: Vec<_> = (0..batch as u64)
        .map(|item| {
            let tokens = (0..length as u64).map(|at| ((at * 7919 + item * 104_729 + 1) % vocabulary) as u32);
            Prompt { item, tokens: tokens.collect(), replay: None }
        })
        .collect();
    let request = Request {
        prefill_chunk: None,
        asking: Asking::default(),
        max_new_tokens: new_tokens,
        stop_tokens: Vec::new(),
        stop_strings: Vec::new(),
        choice: Choice::Greedy,
        candidates: CANDIDATES,
    };
    let begun = Instant::now();
    engine.generate(&prompts, &request, &mut Vec::new())?;
    Ok(begun.elapsed().as_secs_f64())
}
