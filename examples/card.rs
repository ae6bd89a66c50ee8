//! Writes the tables of a model's card: what it can do, how near its decisions are, and what moves them.
//!
//! `cargo run --release --example card -- qwen` asks the model in the binary, `-- ./folder` one in a folder; a number
//! after it takes that many items of each suite in place of 72. Markdown goes to stdout.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it prints its tables, and how far it has come"
)]

use std::{num::NonZeroUsize, time::Instant};

use reprocheck::{
    engine::{Engine as _, Prompt, Request, lab::Lab},
    model::{Checkpoint, hub::HubSettings},
    numerics::{Numerics, choice::Choice},
    stats::{
        paired::Paired,
        proportion::Proportion,
        spread::{Correctness, agreement, deviation_of_lengths, divergence_index, shared_prefix},
    },
    suite::{Suite, item::Item, score::Outcome, style::Style},
    trace::{Finish, Sample},
};

type Failure = Box<dyn std::error::Error>;

/// What all others are held against.
const REFERENCE: &str = "fp32/exact/t1";
const PRECISIONS: [&str; 9] =
    ["fp32", "layercast", "fp16", "bf16", "fp16-acc16", "bf16-acc16", "lmul", "int8", "fp8-e4m3"];
/// Those of one precision: orders, threads, and how many prompts share a call.
const ORDERS: [&str; 5] = ["sequential", "pairwise", "lanes:16", "split-k:rows", "split-k:threads"];
const THREADS: [usize; 2] = [1, 2];
const BATCHES: [usize; 2] = [1, 8];
const MARGINS: [f32; 2] = [0.1, 0.02];

/// Some items of one suite, and how they are asked.
struct Asked {
    suite: Suite,
    items: Vec<Item>,
    prompts: Vec<Prompt>,
}

/// What a cell made of all items.
struct Cell {
    samples: Vec<Sample>,
    right: Vec<bool>,
}

fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let model = arguments.next().ok_or("name a model: qwen, or a path with a slash")?;
    let count = arguments.next().map_or(Ok(72), |count| count.parse())?;
    let checkpoint = Checkpoint::resolve(&model, &HubSettings::from_environment(), &mut |_| ())?;
    let suites = Suite::all().filter(|suite| suite.limits.of(Style::Compact).is_some());
    let suites = suites.map(|suite| ask(&checkpoint, suite, count)).collect::<Result<Vec<_>, _>>()?;
    let reference = run(&checkpoint, &suites, REFERENCE, 8)?;
    strata(&suites, &reference);
    println!(
        "\n| precision | items whose text is not the same in all {} cells | first difference after | Std@Acc | \
         Avg_Std@Output_Length | other text than {REFERENCE} | right | lost | gained | difference, 95 % | p |\n\
         |---|---|---|---|---|---|---|---|---|---|---|",
        ORDERS.len() * THREADS.len() * BATCHES.len()
    );
    for precision in PRECISIONS {
        println!("{}", moved(&checkpoint, &suites, precision, &reference)?);
    }
    Ok(())
}

fn ask(checkpoint: &Checkpoint, suite: Suite, count: usize) -> Result<Asked, Failure> {
    let tokenizer = checkpoint.tokenizer.as_ref().ok_or("the model has no tokenizer.json: add it")?;
    let items = suite.items(0).filter(|item| item.problem.compact.is_some());
    let items: Vec<_> = items.take(count).collect();
    let prompt = |item: &Item| {
        let text = item.problem.prompt(Style::Compact).unwrap_or_default();
        Ok(Prompt { item: item.index, tokens: tokenizer.encode(&text, true)?, replay: None })
    };
    let prompts = items.iter().map(prompt).collect::<Result<_, Failure>>()?;
    Ok(Asked { suite, items, prompts })
}

fn run(checkpoint: &Checkpoint, suites: &[Asked], cell: &str, batch: usize) -> Result<Cell, Failure> {
    let start = Instant::now();
    let mut lab = Lab::load(checkpoint, cell.parse::<Numerics>()?)?;
    let (mut samples, mut right) = (Vec::new(), Vec::new());
    for Asked { suite, items, prompts } in suites {
        let request = Request {
            batch: NonZeroUsize::new(batch).ok_or("a batch of nothing")?,
            prefill_chunk: None,
            max_new_tokens: suite.limits.of(Style::Compact).unwrap_or_default(),
            stop_tokens: checkpoint.config.stop_tokens.clone(),
            stop_strings: suite.stop(Style::Compact).iter().map(|stop| (*stop).to_owned()).collect(),
            choice: Choice::Greedy,
            candidates: 2,
        };
        let mut made: Vec<Sample> = Vec::new();
        lab.generate(prompts, &request, &mut made)?;
        right.extend(items.iter().zip(&made).map(|(item, sample)| {
            let cut = sample.finish == Finish::Length;
            suite.score(item, Style::Compact, &sample.text, cut).strict.outcome == Outcome::Correct
        }));
        samples.extend(made);
    }
    eprintln!("{cell}, {batch} together: {:.1} s", start.elapsed().as_secs_f64());
    Ok(Cell { samples, right })
}

/// Of every stratum how many are right, and how many tokens were nearly others.
fn strata(suites: &[Asked], reference: &Cell) {
    println!(
        "| suite | stratum | right | tokens | margin below 0.1 | below 0.02 |\n|---|---|---|---|---|---|"
    );
    let mut results = reference.samples.iter().zip(&reference.right);
    for Asked { suite, items, .. } in suites {
        let mut strata: Vec<(&str, Proportion, [Proportion; 2])> = Vec::new();
        for (item, (sample, right)) in items.iter().zip(&mut results) {
            let stratum = item.problem.stratum.as_str();
            let at = strata.iter().position(|(name, ..)| *name == stratum).unwrap_or_else(|| {
                strata.push((stratum, Proportion::default(), Default::default()));
                strata.len() - 1
            });
            strata[at].1 = strata[at].1 + Proportion { hits: (*right).into(), of: 1 };
            for (share, most) in strata[at].2.iter_mut().zip(MARGINS) {
                let near = sample.steps.iter().filter(|step| step.margin < most).count() as u64;
                *share = *share + Proportion { hits: near, of: sample.steps.len() as u64 };
            }
        }
        for (stratum, right, [near, nearer]) in strata {
            println!(
                "| {} | {stratum} | {} of {} | {} | {} | {} |",
                suite.name,
                right.hits,
                right.of,
                near.of,
                share(near),
                share(nearer)
            );
        }
    }
}

fn share(of: Proportion) -> String {
    of.rate().map_or("-".to_owned(), |rate| format!("{:.2} %", 100.0 * rate))
}

/// All cells of a precision beside each other, and the first of them beside the reference.
fn moved(
    checkpoint: &Checkpoint,
    suites: &[Asked],
    precision: &str,
    reference: &Cell,
) -> Result<String, Failure> {
    let mut cells = Vec::new();
    for order in ORDERS {
        for threads in THREADS {
            for batch in BATCHES {
                cells.push(run(checkpoint, suites, &format!("{precision}/{order}/t{threads}"), batch)?);
            }
        }
    }
    let tokens = |cell: &Cell| -> Vec<Vec<u32>> {
        cell.samples.iter().map(|sample| sample.steps.iter().map(|step| step.token).collect()).collect()
    };
    let outputs: Vec<_> = cells.iter().map(tokens).collect();
    let same = agreement(&outputs)?;
    let of_item = |item: usize| outputs.iter().map(|cell| &cell[item]).collect::<Vec<_>>();
    let prefixes: Vec<_> = (0..reference.right.len()).map(|item| shared_prefix(&of_item(item))).collect();
    let right: Vec<_> = cells.iter().map(|cell| &cell.right[..]).collect();
    let lengths: Vec<Vec<u64>> =
        outputs.iter().map(|cell| cell.iter().map(|tokens| tokens.len() as u64).collect()).collect();
    let pair = Paired::count(&reference.right, &cells[0].right)?;
    let other = outputs[0].iter().zip(tokens(reference)).filter(|(one, other)| **one != *other).count();
    let number =
        |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |v| format!("{v:.digits$}"));
    let interval = pair.interval(0.95).map_or("-".to_owned(), |interval| {
        format!("{:+.1} to {:+.1} pp", 100.0 * interval.lower, 100.0 * interval.upper)
    });
    Ok(format!(
        "| {precision} | {} of {} ({}) | {} | {} | {} | {other} | {} | {} | {} | {interval} | {:.2} |",
        same.unstable.hits,
        same.unstable.of,
        share(same.unstable),
        number(divergence_index(&prefixes), 0),
        number(Correctness::count(&right)?.deviation().map(|deviation| 100.0 * deviation), 2),
        number(deviation_of_lengths(&lengths)?, 3),
        pair.cell().hits,
        pair.lost,
        pair.gained,
        pair.p_value()
    ))
}
