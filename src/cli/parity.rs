//! `reprocheck parity`: what do several engines show after the same tokens, and how far apart is that?

use std::{
    collections::BTreeMap,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use clap::Args;
use tabled::builder::Builder;

use super::{Ended, Exit, Format, named, program, up_to};
use crate::{
    cell::{Cell, Compute, Name, Served, axes},
    engine::{Engines, Opener as _, environment::stated, server::Server},
    model::Subject,
    parity::{
        Largest, Limits, Parity as Found, Side, compare,
        record::{Given, record},
    },
    report::{
        text::aligned,
        words::{grouped, plural, wrapped},
    },
    store::{
        open::{OpenTrace, Shows},
        run::cell_name,
    },
};

const WIDTH: usize = 80;

/// What do several engines show after the same tokens, and how far apart is that?
///
/// A side is a cell, such as lab/fp32/sequential/t1/b1, or an open trace NAME.jsonl with NAME.safetensors beside it, which any
/// engine can write: docs/traces has writers for several. Every cell reads the same tokens: those of the first trace, or of
/// --tokens. Where none are given the first cell chooses them. Without a limit every bit must be the same.
#[derive(Args, Debug)]
pub(super) struct Parity {
    /// A cell, or an open trace
    #[arg(value_name = "SIDE", required = true, num_args = 1..)]
    sides: Vec<String>,
    /// The model of cells: `qwen`, a folder such as `./checkpoint`, `./file.gguf`, or `owner/name[@revision]` on the Hub
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Lines such as {"prompt": [1, 2], "tokens": [3]}: what every cell reads; a `text` may stand for a prompt
    #[arg(long, value_name = "FILE.jsonl")]
    tokens: Option<PathBuf>,
    /// How many tokens the first cell may choose where none are given
    #[arg(long, value_name = "N", default_value = "64")]
    max_new_tokens: usize,
    /// How many of the best tokens a server is to show; its numbers may depend on it
    #[arg(long, value_name = "K", default_value = "20", value_parser = up_to(1 << 20))]
    top: usize,
    /// The matrix file that says what the servers and scripts of cells are
    #[arg(long, value_name = "FILE.toml")]
    matrix: Option<PathBuf>,
    /// Keep the traces of cells in this folder
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,
    /// No place may have a larger divergence of the second from the first, in nats
    #[arg(long, value_name = "NATS", value_parser = limit)]
    max_kl: Option<f64>,
    /// No number may be more steps of f32 away from its counterpart
    #[arg(long, value_name = "STEPS")]
    max_ulp: Option<u64>,
    /// No larger share of places may rank another token first
    #[arg(long, value_name = "SHARE", value_parser = limit)]
    max_flip_rate: Option<f64>,
    /// How to show the result
    #[arg(long, default_value = "text")]
    format: Format,
}

fn limit(text: &str) -> Result<f64, String> {
    let number = text.parse().ok().filter(|number: &f64| *number >= 0.0);
    number.ok_or_else(|| "write a number from 0 up, such as 1e-6".to_owned())
}

impl Parity {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        if self.sides.len() == 1 && self.keep.is_none() {
            return Err(Ended::usage(anyhow!(
                "one side is compared with nothing: name another, or keep its trace with --keep DIR"
            )));
        }
        let mut sides = self.open()?;
        let mut found = Vec::new();
        for number in 1..sides.len() {
            let (before, from) = sides.split_at_mut(number);
            for one in before {
                found.push(compare(one, &mut from[0])?);
            }
        }
        let limits = Limits { divergence: self.max_kl, steps: self.max_ulp, flip_rate: self.max_flip_rate };
        let held: Vec<_> = found.iter().map(|found| limits.hold(found)).collect();
        match self.format {
            Format::Json => {
                serde_json::to_writer_pretty(&mut *out, &found).map_err(std::io::Error::from)?;
                writeln!(out)?;
            }
            Format::Text => show(&sides, &found, &held, out)?,
        }
        Ok(match () {
            () if held.contains(&Some(false)) => Exit::Failed,
            () if held.contains(&None) => Exit::Undecided,
            () => Exit::Held,
        })
    }

    /// Opens every trace, and makes those of cells.
    fn open(&self) -> Result<Vec<Side>, Ended> {
        let mut traces = BTreeMap::new();
        let mut cells = Vec::new();
        for (at, side) in self.sides.iter().enumerate() {
            if Path::new(side).extension().is_some_and(|extension| extension == "jsonl") {
                traces.insert(at, OpenTrace::open(Path::new(side))?);
            } else {
                let cell: Cell = named(side).map_err(|error| {
                    Ended::usage(anyhow!("{side} is neither a cell nor a trace NAME.jsonl: {error}"))
                })?;
                cells.push((at, cell));
            }
        }
        if !cells.is_empty() {
            self.record(&cells, &mut traces)?;
        } else if self.model.is_some()
            || [&self.matrix, &self.tokens, &self.keep].iter().any(|option| option.is_some())
        {
            return Err(Ended::usage(anyhow!(
                "--model, --matrix, --tokens and --keep are about cells, and every side is a trace: leave them out"
            )));
        }
        let cell_at = |at: usize| cells.iter().find(|(place, _)| *place == at).map(|(_, cell)| *cell);
        let sides = traces.into_iter().zip(&self.sides);
        let side = |((at, trace), name): ((usize, OpenTrace), &String)| {
            let cell = cell_at(at);
            Side { name: cell.map_or_else(|| name.clone(), |cell| cell.to_string()), cell, trace }
        };
        Ok(sides.map(side).collect())
    }

    /// Lets every cell read the tokens, and adds its trace.
    fn record(&self, cells: &[(usize, Cell)], traces: &mut BTreeMap<usize, OpenTrace>) -> Result<(), Ended> {
        let (_, first) = cells[0];
        let Some(model) = &self.model else {
            return Err(Ended::usage(anyhow!("{first} needs a model: name it with --model")));
        };
        let model = super::Model::open(model)?;
        let (subject, program) = (model.subject()?, program()?);
        let mut given = self.given(&subject, traces, first)?;
        let plan = self.matrix.clone().map(|file| super::plan::Matrix { file, profile: None }.plan());
        let plan = plan.transpose()?;
        let (scripts, servers) = plan.map(|plan| (plan.scripts, plan.servers)).unwrap_or_default();
        for (_, cell) in cells {
            is_settled(*cell, &servers)?;
        }
        let unkept = tempfile::tempdir()?;
        let folder = self.keep.as_deref().unwrap_or(unkept.path());
        let engines = Engines {
            checkpoint: model.checkpoint(),
            program: &program,
            scripts: &scripts,
            servers: &servers,
            logs: folder,
            subject: &subject,
        };
        for (number, (at, cell)) in cells.iter().enumerate() {
            // A cell may be named twice, to see whether it repeats.
            let again = cells[..number].iter().filter(|(_, before)| before == cell).count();
            let again = if again == 0 { String::new() } else { format!(".{}", again + 1) };
            let path = folder.join(format!("{}{again}.jsonl", cell_name(*cell)));
            let mut engine = engines.open(cell.compute)?;
            let sizes = (self.max_new_tokens, self.top);
            record(engine.as_mut(), cell, &mut given, sizes, &subject, path.clone())?;
            traces.insert(*at, OpenTrace::open(&path)?);
        }
        Ok(())
    }

    /// What every cell reads.
    fn given(
        &self,
        subject: &Subject<'_>,
        traces: &BTreeMap<usize, OpenTrace>,
        first: Cell,
    ) -> Result<Vec<Given>, Ended> {
        match (&self.tokens, traces.values().next()) {
            (Some(file), _) => Ok(Given::read(file, subject)?),
            (None, Some(trace)) => Ok(Given::of(trace)),
            (None, None) => Err(Ended::usage(anyhow!(
                "nothing says what {first} is to read: name a file with --tokens, or a trace as a side"
            ))),
        }
    }
}

/// Refuses a cell of a server that is declared nowhere, or that leaves a setting of it open.
fn is_settled(cell: Cell, servers: &BTreeMap<Name, Server>) -> Result<(), Ended> {
    let Compute::Server(Served { server, settings }) = cell.compute else { return Ok(()) };
    let Some(declared) = servers.get(&server) else {
        return Err(Ended::usage(anyhow!(
            "{cell} is a server that is not declared: name the matrix file with [engine.{server}] by --matrix"
        )));
    };
    for (axis, words) in &declared.axes {
        let word = settings.get(*axis);
        if words.iter().all(|(other, _)| Some(*other) != word) {
            let words: Vec<_> = words.iter().map(|(word, _)| format!("{axis}={word}")).collect();
            return Err(Ended::usage(anyhow!(
                "{cell} does not say what {axis} is: write one of {} behind server:{server}/",
                words.join(", ")
            )));
        }
    }
    Ok(())
}

fn show(sides: &[Side], found: &[Found], held: &[Option<bool>], out: &mut impl Write) -> Result<(), Ended> {
    let letter = |at: usize| char::from(b'A' + (at % 26) as u8);
    for (at, side) in sides.iter().enumerate() {
        let shows = match side.trace.head.shows {
            Shows::Logits => "all logits".to_owned(),
            Shows::LogProbabilities => "all log-probabilities".to_owned(),
            Shows::Top => format!("the best {} log-probabilities", side.trace.width),
        };
        let head = &side.trace.head.environment;
        writeln!(out, "{}  {}: {}, {shows}", letter(at), side.name, head.engine)?;
    }
    if found.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    let mut table = Builder::default();
    table.push_record([
        "pair", "places", "same", "steps", "d log p", "mean KL", "most KL", "flips", "might", "p off by",
    ]);
    let pairs: Vec<_> = (1..sides.len()).flat_map(|b| (0..b).map(move |a| (a, b))).collect();
    for ((a, b), found) in pairs.iter().zip(found) {
        let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), small);
        table.push_record([
            format!("{} {}", letter(*a), letter(*b)),
            grouped(found.places),
            grouped(found.same),
            found.steps.as_ref().map_or_else(|| "-".to_owned(), |most| grouped(most.value)),
            number(found.difference.as_ref().map(|largest| largest.value)),
            number(found.mean_divergence),
            number(found.divergence.as_ref().map(|largest| largest.value)),
            grouped(found.flips),
            grouped(found.might_flip),
            number(found.given.map(|given| given.mult_prob_error - 1.0)),
        ]);
    }
    writeln!(out, "{}", aligned(table, 1..10))?;
    for (((a, b), found), held) in pairs.iter().zip(found).zip(held) {
        let outcome = match held {
            Some(true) => "holds",
            Some(false) => "DIFFERS",
            None => "UNKNOWN",
        };
        writeln!(out, "\n{outcome}: {} and {}", letter(*a), letter(*b))?;
        for sentence in sentences(found, [sides[*a].cell, sides[*b].cell]) {
            writeln!(out, "{}", wrapped(&sentence, WIDTH))?;
        }
    }
    Ok(())
}

/// What else is to be said of a pair.
fn sentences(found: &Found, cells: [Option<Cell>; 2]) -> Vec<String> {
    let mut all = Vec::new();
    if let [Some(one), Some(other)] = cells {
        let differ = axes(&[one, other]).into_iter().filter(|axis| one.get(*axis) != other.get(*axis));
        let differ: Vec<_> =
            differ.map(|axis| format!("{axis} {} and {}", one.get(axis), other.get(axis))).collect();
        all.push(if differ.is_empty() {
            "one cell, twice".to_owned()
        } else {
            format!("set apart by {}", differ.join(", "))
        });
    }
    for (name, [one, other]) in &found.environment {
        all.push(format!("{name}: {} | {}", stated(one.as_deref()), stated(other.as_deref())));
    }
    if let Some(first) = &found.first {
        all.push(format!(
            "the first other number: item {}, after {}, token {}",
            first.item,
            plural(first.place as u64, "token"),
            first.token
        ));
    }
    let mut largest = |name: &str, value: String, Largest { at, .. }: &Largest<f64>| {
        all.push(format!(
            "the largest {name}: {value}, item {}, after {}, token {}",
            at.item,
            plural(at.place as u64, "token"),
            at.token
        ));
    };
    if let Some(difference) = found.difference.as_ref().filter(|_| found.same < found.places) {
        largest("difference of log-probabilities", small(difference.value), difference);
    }
    if let Some(steps) = found.steps.as_ref().filter(|steps| steps.value > 0) {
        let Largest { value, at } = steps;
        all.push(format!(
            "the most steps of f32: {}, item {}, after {}, token {}",
            grouped(*value),
            at.item,
            plural(at.place as u64, "token"),
            at.token
        ));
    }
    if let Some(given) = found.given.filter(|_| found.same < found.places) {
        all.push(format!(
            "of the {} given tokens: probabilities are off by a factor of 1 + {}, the estimate k3 of the divergence is {}",
            grouped(given.tokens),
            small(given.mult_prob_error - 1.0),
            small(given.k3)
        ));
    }
    let mut unseen = |count: u64, what: &str| {
        if count > 0 {
            all.push(format!("{} {what}", grouped(count)));
        }
    };
    unseen(found.parted, "of the items part: what follows is not compared, so let both read the same tokens");
    unseen(found.unseen, "of the places are shown by one of them alone");
    unseen(found.left_out, "of the items are of one of them alone");
    if found.shows.contains(&Shows::Top) {
        all.push(
            "the best tokens alone are compared: they say what differs, and never that nothing does; KL is at least what \
             stands here"
                .to_owned(),
        );
    }
    all
}

/// A number of any size, with the digits that say something.
fn small(value: f64) -> String {
    match value {
        0.0 => "0".to_owned(),
        _ if value.is_infinite() => "infinite".to_owned(),
        _ if value.abs() >= 1e-3 && value.abs() < 1e4 => format!("{value:.4}"),
        _ => format!("{value:.1e}"),
    }
}
