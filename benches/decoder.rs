//! Our decoder beside the stock candle model on the same checkpoint, in tokens per second.
//!
//! `cargo bench --bench decoder -- MODEL [precision/order/tN | candle/precision/tN …]` measures a folder in the Hugging
//! Face layout, such as `benches/shapes.py` makes, or a file of GGUF. Prefill reads one prompt of 128 tokens; decode adds
//! tokens to prompts of 8, in batches. Both are the engine's whole work: logits, digests and candidates too. The engines
//! take turns, round after round, and the median is taken, so that a machine whose speed drifts is as kind to one as to
//! the other. Candle runs in a process of its own, as it always does here.

#![allow(missing_docs, reason = "a benchmark has no readers of its items")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::{collections::BTreeMap, error::Error, hint::black_box, path::Path, time::Instant};

use reprocheck::{
    cell::{Asking, Cell},
    digest::Digest,
    engine::{Engine, Engines, Opener as _, Prompt, Request},
    model::{Checkpoint, Subject},
    numerics::{
        choice::{Choice, rank},
        kernel::Isa,
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
    let mut engines: Vec<(String, Box<dyn Engine + '_>)> = Vec::new();
    for cell in cells {
        let begun = Instant::now();
        let named = if cell.starts_with("candle") { cell.clone() } else { format!("lab/{cell}") };
        let engine = opener.open(format!("{named}/b1").parse::<Cell>()?.compute)?;
        println!("{cell}: loaded in {:.2} s", begun.elapsed().as_secs_f64());
        engines.push((cell, engine));
    }

    let mut table = Builder::default();
    let batches = BATCHES.map(|batch| format!("decode, batch {batch}"));
    table.push_record(["tokens/s".to_owned(), format!("prefill {PREFILL}")].into_iter().chain(batches));
    let mut seconds = vec![vec![Vec::new(); 1 + BATCHES.len()]; engines.len()];
    for _ in 0..ROUNDS {
        for (at, batch) in [1].into_iter().chain(BATCHES).enumerate() {
            for ((_, engine), seconds) in engines.iter_mut().zip(&mut seconds) {
                seconds[at].push(if at == 0 {
                    time(engine.as_mut(), 1, PREFILL, 1, &checkpoint)?
                } else {
                    let first = time(engine.as_mut(), batch, 8, 1, &checkpoint)?;
                    time(engine.as_mut(), batch, 8, 1 + DECODE, &checkpoint)? - first
                });
            }
        }
    }
    for ((name, _), seconds) in engines.iter().zip(seconds) {
        let mut record = vec![name.clone()];
        for (at, mut seconds) in seconds.into_iter().enumerate() {
            seconds.sort_by(f64::total_cmp);
            let tokens = if at == 0 { PREFILL } else { BATCHES[at - 1] * DECODE };
            record.push(format!("{:.1}", tokens as f64 / seconds[ROUNDS / 2]));
        }
        table.push_record(record);
    }
    println!("{}", table.build().with(Style::sharp()));

    let logits: Vec<f32> =
        (0..checkpoint.config.vocabulary).map(|token| (token * 7919 % 10_007) as f32 * 1e-3).collect();
    let mut seconds: Vec<f64> = (0..201)
        .map(|_| {
            let begun = Instant::now();
            let _ = black_box((Digest::of_logits(&logits), rank(&logits, CANDIDATES).is_ok()));
            begun.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    println!("digest and ranking of {} logits, on one thread: {:.3} ms", logits.len(), 1e3 * seconds[100]);
    Ok(())
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
