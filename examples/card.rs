//! Writes the tables of a model's card: what it can do, how near its decisions are, and what moves them.
//!
//! `cargo run --release --example card -- qwen` asks the model in the binary, `-- ./folder` one in a folder; a number
//! after it takes that many items of each suite in place of 72 for the cells of a precision, and ten times as many for
//! the accuracy.
//! Markdown goes to stdout.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "it prints its tables, and how far it has come"
)]

use std::{collections::HashSet, num::NonZeroUsize, time::Instant};

use reprocheck::{
    cell::Asking,
    engine::{Prompt, Request, in_groups, lab::Lab},
    model::{Checkpoint, hub::HubSettings},
    numerics::{Numerics, choice::Choice},
    stats::{
        paired::{Change, Paired},
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
    ["fp32", "layercast", "fp16", "bf16", "fp16-acc16", "bf16-acc16", "lmul", "int8", "cast:e4m3"];
/// Those of one precision: orders, threads, and how many prompts share a call.
const ORDERS: [&str; 5] = ["sequential", "pairwise", "lanes:16", "split-k:rows", "split-k:threads"];
const THREADS: [usize; 2] = [1, 2];
const BATCHES: [usize; 2] = [1, 8];
/// Where only one cell of a precision runs.
const BATCH: usize = 8;
const MARGINS: [f32; 2] = [0.1, 0.02];
/// Accuracy is asked of so many times the items of a cell: a stratum is a small part of them.
const MORE: usize = 10;

/// A suite's name, and a stratum of it.
type Stratum<'a> = (&'a str, &'a str);

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
    let ask = |count: usize| -> Result<Vec<Asked>, Failure> {
        let suites = Suite::all().filter(|suite| suite.limits.of(Style::Compact).is_some());
        suites.map(|suite| asked(&checkpoint, suite, count)).collect()
    };

    let many = ask(MORE * count)?;
    let reference = run(&checkpoint, &many, REFERENCE, BATCH)?;
    let mastered = strata(&many, &reference);

    println!(
        "\n| precision | other text than {REFERENCE} | of those in strata without a mistake | right | lost | gained | \
         difference, 95 % | p |\n|---|---|---|---|---|---|---|---|"
    );
    for precision in PRECISIONS {
        let cell = run(&checkpoint, &many, &format!("{precision}/{}/t1", ORDERS[0]), BATCH)?;
        println!("{}", against(precision, &reference, &cell, &among(&many, &mastered))?);
    }

    let suites = ask(count)?;
    println!(
        "\n| precision | items whose text is not the same in all {} cells | of those in strata without a mistake | \
         first difference after | Std@Acc | Avg_Std@Output_Length |\n|---|---|---|---|---|---|",
        ORDERS.len() * THREADS.len() * BATCHES.len()
    );
    for precision in PRECISIONS {
        println!("{}", moved(&checkpoint, &suites, precision, &among(&suites, &mastered))?);
    }
    Ok(())
}

fn asked(checkpoint: &Checkpoint, suite: Suite, count: usize) -> Result<Asked, Failure> {
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
            prefill_chunk: None,
            asking: Asking::default(),
            max_new_tokens: suite.limits.of(Style::Compact).unwrap_or_default(),
            stop_tokens: checkpoint.config.stop_tokens.clone(),
            stop_strings: suite.stop(Style::Compact).iter().map(|stop| (*stop).to_owned()).collect(),
            choice: Choice::Greedy,
            candidates: 2,
        };
        let mut made: Vec<Sample> = Vec::new();
        let together = NonZeroUsize::new(batch).ok_or("a batch of nothing")?;
        in_groups(&mut lab, together, prompts, &request, &mut made)?;
        right.extend(items.iter().zip(&made).map(|(item, sample)| {
            let cut = sample.finish == Finish::Length;
            suite.score(item, Style::Compact, &sample.text, cut).strict.outcome == Outcome::Correct
        }));
        samples.extend(made);
    }
    eprintln!("{cell}, {batch} together: {:.1} s", start.elapsed().as_secs_f64());
    Ok(Cell { samples, right })
}

/// Of every stratum how many are right, and how many tokens were nearly others. Those without a mistake come back.
fn strata<'a>(suites: &'a [Asked], reference: &Cell) -> HashSet<Stratum<'a>> {
    let mut mastered = HashSet::new();
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
                let near = sample
                    .steps
                    .iter()
                    .filter(|step| step.token.margin().is_some_and(|margin| margin < most))
                    .count() as u64;
                *share = *share + Proportion { hits: near, of: sample.steps.len() as u64 };
            }
        }
        for (stratum, right, [near, nearer]) in strata {
            if right.misses() == 0 {
                mastered.insert((suite.name.as_str(), stratum));
            }
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
    mastered
}

fn share(of: Proportion) -> String {
    of.rate().map_or("-".to_owned(), |rate| format!("{:.2} %", 100.0 * rate))
}

fn tokens(cell: &Cell) -> Vec<Vec<u32>> {
    cell.samples.iter().map(|sample| sample.steps.iter().map(|step| step.token.id).collect()).collect()
}

/// Which items are of strata without a mistake.
fn among(suites: &[Asked], mastered: &HashSet<Stratum<'_>>) -> Vec<bool> {
    let strata = suites.iter().flat_map(|Asked { suite, items, .. }| {
        items.iter().map(|item| (suite.name.as_str(), item.problem.stratum.as_str()))
    });
    strata.map(|stratum| mastered.contains(&stratum)).collect()
}

/// How many of the items that are mastered have moved.
fn among_mastered(moved: &[bool], mastered: &[bool]) -> Proportion {
    let of_mastered = moved.iter().zip(mastered).filter(|(_, mastered)| **mastered);
    Proportion::count(&of_mastered.map(|(moved, _)| *moved).collect::<Vec<_>>())
}

/// A cell beside the reference.
fn against(precision: &str, reference: &Cell, cell: &Cell, mastered: &[bool]) -> Result<String, Failure> {
    let pair = Paired::count(&reference.right, &cell.right)?;
    let other: Vec<bool> =
        tokens(cell).iter().zip(tokens(reference)).map(|(one, other)| *one != other).collect();
    let of_mastered = among_mastered(&other, mastered);
    let interval = Change::from(pair).interval(0.95).map_or("-".to_owned(), |interval| {
        format!("{:+.2} to {:+.2} pp", 100.0 * interval.lower, 100.0 * interval.upper)
    });
    Ok(format!(
        "| {precision} | {} of {} | {} of {} | {} | {} | {} | {interval} | {:.1e} |",
        Proportion::count(&other).hits,
        pair.items(),
        of_mastered.hits,
        of_mastered.of,
        pair.cell().hits,
        pair.lost,
        pair.gained,
        Change::from(pair).p_value()
    ))
}

/// All cells of a precision beside each other.
fn moved(
    checkpoint: &Checkpoint,
    suites: &[Asked],
    precision: &str,
    mastered: &[bool],
) -> Result<String, Failure> {
    let mut cells = Vec::new();
    for order in ORDERS {
        for threads in THREADS {
            for batch in BATCHES {
                cells.push(run(checkpoint, suites, &format!("{precision}/{order}/t{threads}"), batch)?);
            }
        }
    }
    let outputs: Vec<_> = cells.iter().map(tokens).collect();
    let same = agreement(&outputs)?;
    let of_item = |item: usize| outputs.iter().map(|cell| &cell[item]).collect::<Vec<_>>();
    let prefixes: Vec<_> = (0..outputs[0].len()).map(|item| shared_prefix(&of_item(item))).collect();
    let parted = |item: usize| outputs.iter().any(|cell| cell[item] != outputs[0][item]);
    let parted: Vec<bool> = (0..outputs[0].len()).map(parted).collect();
    let of_mastered = among_mastered(&parted, mastered);
    let right: Vec<_> = cells.iter().map(|cell| &cell.right[..]).collect();
    let lengths: Vec<Vec<u64>> =
        outputs.iter().map(|cell| cell.iter().map(|tokens| tokens.len() as u64).collect()).collect();
    let number =
        |value: Option<f64>, digits: usize| value.map_or("-".to_owned(), |v| format!("{v:.digits$}"));
    Ok(format!(
        "| {precision} | {} of {} ({}) | {} of {} | {} | {} | {} |",
        same.unstable.hits,
        same.unstable.of,
        share(same.unstable),
        of_mastered.hits,
        of_mastered.of,
        number(divergence_index(&prefixes), 0),
        number(Correctness::count(&right)?.deviation().map(|deviation| 100.0 * deviation), 2),
        number(deviation_of_lengths(&lengths)?, 3)
    ))
}
