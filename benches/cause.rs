//! What looking for a cause costs: reading a passage with a tap that keeps what every operation read and gave, beside the same
//! with one that keeps nothing, and beside the kernel alone.
//!
//! `cargo bench --bench cause -- FILE.gguf` takes that model; the one in the binary where none is named. Each figure is the
//! median of several rounds in turn.

#![allow(missing_docs, reason = "a benchmark has no readers of its items")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::{
    hint::black_box,
    num::NonZeroUsize,
    path::Path,
    time::{Duration, Instant},
};

use reprocheck::{
    cause::{
        passage::{Passage, Rows},
        tap::Tap,
        transplant::Transplant,
    },
    model::{
        Checkpoint, Decoder,
        decoder::{Span, Wanted},
        embedded::MODELS,
    },
    numerics::kernel::{Fast, Kernel},
};

const ROUNDS: usize = 7;
/// How many tokens are the prompt, and how many follow.
const TOKENS: [usize; 2] = [64, 64];

fn main() {
    let file = std::env::args().skip(1).find(|word| !word.starts_with("--"));
    let checkpoint = match &file {
        Some(file) => Checkpoint::open(Path::new(file)),
        None => Checkpoint::embedded(&MODELS[0]),
    };
    let checkpoint = checkpoint.expect("a model that opens");
    let [prompt, followed] = TOKENS;
    let count = prompt + followed;
    let vocabulary = checkpoint.config.vocabulary as u32;
    let tokens: Vec<u32> = (0..count as u32).map(|place| (place * 7919 + 3) % vocabulary).collect();
    println!(
        "{count} tokens, of which {prompt} are a prompt; milliseconds, and how much more than without a tap"
    );
    println!("cell                    token by token   kernel alone   tap, silent       tap, listening");
    for cell in ["fp32/sequential/t1", "bf16/sequential/t1", "bf16/sequential/t2"] {
        let fast = || Fast::new(cell.parse().expect("a name")).expect("threads that start");
        let alone = Decoder::load(fast(), &checkpoint).expect("a model that loads");
        let kernel = Transplant::<Fast>::new(0, fast(), None);
        let tapped = Decoder::load(Tap::new(kernel, &checkpoint.config), &checkpoint).expect("the same");
        let rows = [Rows { layers: 1, head: 1 }; 2];
        let together = NonZeroUsize::new(64).expect("it is not 0");
        let passage = Passage { tokens: tokens.clone(), prompt, calls: vec![rows; count], together };
        let mut times = [const { Vec::new() }; 4];
        for _ in 0..ROUNDS {
            let mut took = |at: usize, work: &mut dyn FnMut()| {
                let start = Instant::now();
                work();
                times[at].push(start.elapsed());
            };
            took(0, &mut || by_token(&alone, &tokens, prompt));
            took(1, &mut || at_once(&alone, &tokens, prompt));
            took(2, &mut || {
                passage.read(&tapped, |_, logits| {
                    black_box(logits);
                })
            });
            took(3, &mut || {
                tapped.kernel().listen(None);
                passage.read(&tapped, |_, logits| {
                    black_box(logits);
                });
                black_box(tapped.kernel().take());
            });
        }
        let [by_token, alone, silent, listening] = times.map(median);
        let ms = |time: Duration| 1e3 * time.as_secs_f64();
        let more = |time: Duration| 100.0 * (time.as_secs_f64() / alone.as_secs_f64() - 1.0);
        println!(
            "{cell:<20}  {:>14.1}  {:>13.1}  {:>7.1} {:>+5.1} %  {:>9.1} {:>+5.1} %",
            ms(by_token),
            ms(alone),
            ms(silent),
            more(silent),
            ms(listening),
            more(listening)
        );
    }
}

/// A prompt at once, and then a token a call, as a run reads them.
fn by_token<K: Kernel>(decoder: &Decoder<K>, tokens: &[u32], prompt: usize) {
    let mut cache = decoder.cache();
    let (prompt, rest) = tokens.split_at(prompt);
    for tokens in [prompt].into_iter().chain(rest.chunks(1)) {
        black_box(decoder.forward(&mut [Span { cache: &mut cache, tokens, logits: Wanted::Last }]));
    }
}

/// The calls that a passage makes.
fn at_once<K: Kernel>(decoder: &Decoder<K>, tokens: &[u32], prompt: usize) {
    let mut cache = decoder.cache();
    for (tokens, logits) in [
        (&tokens[..prompt - 1], Wanted::None),
        (&tokens[prompt - 1..tokens.len() - 1], Wanted::All),
        (&tokens[tokens.len() - 1..], Wanted::All),
    ] {
        black_box(decoder.forward(&mut [Span { cache: &mut cache, tokens, logits }]));
    }
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}
