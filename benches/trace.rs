//! What a trace costs: hashing and ranking the logits of every token, writing down each group as soon as it is done, and
//! writing all that is kept, beside the run that it is a trace of.
//!
//! `cargo bench --bench trace` takes the median of several rounds, the parts of each right after one another.

#![expect(clippy::print_stdout, reason = "it prints its table")]

use std::{
    hint::black_box,
    num::NonZeroUsize,
    time::{Duration, Instant},
};

use reprocheck::{
    cell::Asking,
    digest::Digest,
    engine::{Engine as _, Prompt, Request, in_groups, lab::Lab},
    model::{Checkpoint, embedded::MODELS},
    numerics::choice::{Choice, rank},
    store::{
        partial::{Maker, Partial, Traits},
        trace::Writer,
    },
    suite::{Suite, item::Item, style::Style},
    trace::{Finish, Sample, Sight},
};

const ROUNDS: usize = 9;
const ITEMS: usize = 128;

fn main() {
    let checkpoint = Checkpoint::embedded(&MODELS[0]).expect("the model is in the binary");
    let tokenizer = checkpoint.tokenizer.as_ref().expect("it has a tokenizer");
    let suite = Suite::open("carry_chain").expect("the suite is in the binary");
    let items: Vec<Item> = suite.items(0).take(ITEMS).collect();
    let prompt = |item: &Item| {
        let text = item.problem.prompt(Style::Compact).expect("it is asked so");
        Prompt {
            item: item.index,
            tokens: tokenizer.encode(&text, true).expect("it has a token for all"),
            replay: None,
        }
    };
    let prompts: Vec<_> = items.iter().map(prompt).collect();
    let vocabulary = checkpoint.config.vocabulary;
    println!(
        "cell                         run      logits hashed and ranked   groups written down    trace scored and written"
    );
    for (cell, batch) in [
        ("fp32/sequential/t1", 1),
        ("fp32/sequential/t1", 8),
        ("bf16/sequential/t1", 1),
        ("bf16/sequential/t1", 8),
    ] {
        let mut lab = Lab::load(&checkpoint, cell.parse().expect("a name")).expect("a model that loads");
        let batch = NonZeroUsize::new(batch).expect("a batch");
        let request = Request {
            prefill_chunk: None,
            asking: Asking::default(),
            max_new_tokens: suite.limits.of(Style::Compact).expect("it is asked so"),
            stop_tokens: checkpoint.config.stop_tokens.clone(),
            stop_strings: vec!["\n".to_owned()],
            choice: Choice::Greedy,
            candidates: 5,
        };
        let logits: Vec<f32> = (0..vocabulary).map(|token| (token as f32 * 0.7).rem_euclid(5.0)).collect();
        let store = tempfile::tempdir().expect("a folder");
        let mut times = [const { Vec::new() }; 4];
        for _ in 0..ROUNDS {
            let start = Instant::now();
            let mut samples: Vec<Sample> = Vec::new();
            in_groups(&mut lab, batch, &prompts, &request, &mut samples).expect("it runs");
            let generated = start.elapsed();
            let start = Instant::now();
            for _ in samples.iter().flat_map(|sample| &sample.steps) {
                black_box((Digest::of_logits(black_box(&logits)), rank(black_box(&logits), 5)))
                    .1
                    .expect("these are numbers");
            }
            let hashed = start.elapsed();
            let folder = tempfile::tempdir().expect("a folder");
            let maker = Maker {
                cell: format!("lab/{cell}/b{batch}").parse().expect("a name"),
                work: Digest::of(b""),
                replays: None,
                environment: lab.about(),
                sight: Sight::Logits,
                traits: Traits { sums: [1; 4], functions: None, cost: None },
            };
            let start = Instant::now();
            let mut partial = Partial::open(folder.path(), maker).expect("a file");
            for group in samples.chunks(batch.get()) {
                partial.add(group, start.elapsed()).expect("it is written");
            }
            let kept = start.elapsed();
            let start = Instant::now();
            let mut writer = Writer::new(store.path(), Sight::Logits).expect("a store");
            for (item, sample) in items.iter().zip(&samples) {
                let scores = suite.score(item, Style::Compact, &sample.text, sample.finish == Finish::Length);
                writer.add(sample, scores).expect("it is written");
            }
            writer.finish(store.path()).expect("it is written");
            let written = start.elapsed();
            for (times, time) in times.iter_mut().zip([generated + kept + written, hashed, kept, written]) {
                times.push(time);
            }
        }
        let [run, hashed, kept, written] = times.map(median);
        let share = |part: Duration| 100.0 * part.as_secs_f64() / run.as_secs_f64();
        println!(
            "lab/{cell}/b{batch:<2}  {:>8.1} ms  {:>8.1} ms {:>6.2} %      {:>8.1} ms {:>6.2} %      {:>8.1} ms {:>6.2} %",
            1e3 * run.as_secs_f64(),
            1e3 * hashed.as_secs_f64(),
            share(hashed),
            1e3 * kept.as_secs_f64(),
            share(kept),
            1e3 * written.as_secs_f64(),
            share(written)
        );
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
