//! How long a million items of every suite take, and how many of them have a question that came up before.
//!
//! `cargo bench --bench suites` makes them all; a number after `--` makes that many.

#![allow(missing_docs, reason = "a benchmark has no readers of its items")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::{hint::black_box, time::Instant};

use reprocheck::suite::Suite;

fn main() {
    let count = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(1_000_000);
    println!("{count} items of seed 0, on one thread\n\nsuite             seconds   duplicates");
    for suite in Suite::all() {
        let start = Instant::now();
        let items = suite.items(0).take(count).map(black_box);
        let duplicates = items.filter(|item| item.duplicate).count();
        println!("{:16} {:8.1} {duplicates:12}", suite.name, start.elapsed().as_secs_f64());
    }
}
