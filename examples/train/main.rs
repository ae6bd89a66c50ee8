//! Trains the models that ship with reprocheck: `cargo run --release --example train -- qwen --out DIR`.
//!
//! The same recipe gives the same bytes for any number of threads, on machines with the same vectors: candle's matrix
//! products add in an order that depends on the instruction set, and nothing else does.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "it tells how the training goes")]

mod attention;
mod data;
mod evaluate;
mod files;
mod layout;
mod network;
mod ops;
mod optimizer;
mod recipe;
#[cfg(test)]
mod tests;

use std::{
    env,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::{Command, ExitCode},
    thread,
    time::Instant,
};

use clap::Parser;
use data::{Line, Mixture};
use network::{Network, Parameter};
use optimizer::State;
use rayon::prelude::*;
use recipe::Recipe;

/// What went wrong, in a sentence.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Trains a model of this project, from nothing but a recipe.
#[derive(Parser)]
struct Options {
    /// The recipe: qwen or qwen-full.
    recipe: String,
    /// The folder for the model, which is whole at every checkpoint, and for what a training goes on from.
    #[arg(long)]
    out: PathBuf,
    /// Goes on from the checkpoint in the folder.
    #[arg(long)]
    resume: bool,
    /// Stops after this step, with a checkpoint.
    #[arg(long)]
    steps: Option<u64>,
    /// How many threads compute; as many as there are cores where none is given.
    #[arg(long)]
    threads: Option<NonZeroUsize>,
    /// Steps from one checkpoint, and one look at the accuracy, to the next.
    #[arg(long, default_value = "2000")]
    every: NonZeroUsize,
    /// Items of each suite in a look at the accuracy; none where it is 0.
    #[arg(long, default_value = "72")]
    sample: usize,
}

/// What candle and the allocator read when they start: a product is computed by one thread, for the parts of a batch run
/// beside each other, and memory that was given back is kept for the next step.
const SURROUNDINGS: [(&str, &str); 3] = [
    ("RAYON_NUM_THREADS", "1"),
    ("MALLOC_MMAP_THRESHOLD_", "1073741824"),
    ("MALLOC_TRIM_THRESHOLD_", "4294967296"),
];

fn main() -> ExitCode {
    let options = Options::parse();
    let set = |(name, value): &(&str, &str)| env::var(name).is_ok_and(|present| present == *value);
    let result = if SURROUNDINGS.iter().all(set) { train(&options) } else { again() };
    result.unwrap_or_else(|error| {
        eprintln!("error: {error}");
        ExitCode::FAILURE
    })
}

/// Runs this program again in its surroundings: a program cannot change its own in safety.
fn again() -> Result<ExitCode, Failure> {
    let status =
        Command::new(env::current_exe()?).args(env::args_os().skip(1)).envs(SURROUNDINGS).status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn train(options: &Options) -> Result<ExitCode, Failure> {
    let recipe = Recipe::of(&options.recipe)
        .ok_or_else(|| format!("there is no recipe `{}`: take qwen or qwen-full", options.recipe))?;
    let parameters = network::parameters(&recipe);
    let mut state = if options.resume {
        files::load(&options.out, &recipe)?
    } else {
        files::refuse_to_overwrite(&options.out)?;
        State::new(network::initial(&parameters, recipe.weight_seed))
    };
    let count: usize = parameters.iter().map(Parameter::count).sum();
    eprintln!("{}: {count} parameters, step {} of {}", recipe.name, state.step, recipe.steps);
    let trainer = Trainer::new(&recipe, parameters, &state, options.threads)?;
    let end = options.steps.map_or(recipe.steps, |steps| steps.min(recipe.steps));
    let mut pace = Pace::new(end);
    while state.step < end {
        let (cost, length, tokens) = trainer.step(&mut state)?;
        pace.step(state.step, cost, length, tokens);
        if state.step.is_multiple_of(options.every.get() as u64) || state.step == end {
            files::save(&options.out, &recipe, &state)?;
            files::export(&options.out, &recipe, &trainer.parameters, &state.values)?;
            trainer.look(&options.out, options.sample)?;
        }
    }
    println!("state after step {}: {}", state.step, files::digest(&state));
    for (name, digest) in files::export(&options.out, &recipe, &trainer.parameters, &state.values)? {
        println!("{digest}  {name}");
    }
    println!("took {:.0} s", pace.start.elapsed().as_secs_f64());
    Ok(ExitCode::SUCCESS)
}

/// What stays the same from step to step.
struct Trainer<'a> {
    recipe: &'a Recipe,
    parameters: Vec<Parameter>,
    mixture: Mixture,
    network: Network,
    threads: NonZeroUsize,
    pool: rayon::ThreadPool,
}

impl Trainer<'_> {
    fn new<'a>(
        recipe: &'a Recipe,
        parameters: Vec<Parameter>,
        state: &State,
        threads: Option<NonZeroUsize>,
    ) -> Result<Trainer<'a>, Failure> {
        let threads = threads.map_or_else(thread::available_parallelism, Ok)?;
        let network = Network::new(recipe, &parameters, &state.values)?;
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads.get()).build()?;
        Ok(Trainer { recipe, mixture: Mixture::new(recipe)?, network, threads, pool, parameters })
    }

    /// Makes a step; gives the mean cost of a learned token, the gradient's length, and the number of tokens.
    fn step(&self, state: &mut State) -> Result<(f64, f64, usize), Failure> {
        let Recipe { batch, shards, .. } = *self.recipe;
        let first = state.step * batch;
        let mut lines: Vec<Line> = (first..first + batch).map(|number| self.mixture.line(number)).collect();
        let tokens = lines.iter().map(|line| line.tokens.len()).sum();
        let learned =
            network::learned(&lines).ok_or("there is nothing to learn from: take a larger batch")?;
        // The longest first, each to the part that has the least so far.
        lines.sort_by_key(|line| std::cmp::Reverse(line.tokens.len()));
        let mut parts: Vec<(usize, Vec<&Line>)> = vec![(0, Vec::new()); shards];
        for line in &lines {
            let lightest = parts.iter_mut().min_by_key(|(tokens, _)| *tokens);
            let (tokens, part) = lightest.ok_or("a recipe has at least one shard: give it one")?;
            *tokens += line.tokens.len();
            part.push(line);
        }
        parts.retain(|(_, part)| !part.is_empty());
        let weight = 1.0 / learned.get() as f32;
        let of_part = |(_, part): &(usize, Vec<&Line>)| self.network.gradients(part, weight);
        let found: Result<Vec<_>, _> = self.pool.install(|| parts.par_iter().map(of_part).collect());
        let mut found = found?.into_iter();
        let (mut cost, mut sum) = found.next().ok_or("a batch has at least one line: give it one")?;
        for (part_cost, gradients) in found {
            cost += part_cost;
            for (to, from) in sum.iter_mut().zip(gradients) {
                to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
            }
        }
        let length = state.advance(self.recipe, &self.parameters, &sum);
        self.network.set(&state.values)?;
        Ok((cost.into(), length, tokens))
    }

    /// Says how good the model in this folder is.
    fn look(&self, folder: &Path, sample: usize) -> Result<(), Failure> {
        if sample == 0 {
            return Ok(());
        }
        for (suite, strata) in evaluate::accuracy(folder, self.recipe, self.threads, sample)? {
            let sums =
                strata.iter().fold((0, 0), |(right, all), stratum| (right + stratum.1, all + stratum.2));
            let strata: Vec<_> =
                strata.iter().map(|(name, right, all)| format!("{name} {right}/{all}")).collect();
            eprintln!("  {:5.1} % {suite}: {}", 100.0 * sums.0 as f64 / sums.1 as f64, strata.join(", "));
        }
        Ok(())
    }
}

/// Says how a training goes, every now and then.
struct Pace {
    start: Instant,
    end: u64,
    steps: u64,
    tokens: usize,
    /// Since the last line: when it was, steps, cost.
    last: (Instant, u64, f64, usize),
}

impl Pace {
    const LINE: u64 = 50;

    fn new(end: u64) -> Pace {
        let start = Instant::now();
        Pace { start, end, steps: 0, tokens: 0, last: (start, 0, 0.0, 0) }
    }

    fn step(&mut self, step: u64, cost: f64, length: f64, tokens: usize) {
        self.steps += 1;
        self.tokens += tokens;
        let (since, steps, sum, counted) = self.last;
        self.last = (since, steps + 1, sum + cost, counted + tokens);
        if step.is_multiple_of(Pace::LINE) || step == self.end {
            let (since, steps, sum, counted) = self.last;
            let speed = counted as f64 / since.elapsed().as_secs_f64();
            let left = self.start.elapsed().as_secs_f64() / self.steps as f64 * (self.end - step) as f64;
            eprintln!(
                "step {step}: loss {:.4}, gradient {length:.2}, {speed:.0} tokens/s, {:.1} M tokens, {:.0} min left",
                sum / steps as f64,
                self.tokens as f64 / 1e6,
                left / 60.0
            );
            self.last = (Instant::now(), 0, 0.0, 0);
        }
    }
}
