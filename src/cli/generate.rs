//! `reprocheck generate`: one prompt under one cell, looked at closely.

use std::{collections::BTreeMap, io::Write, num::NonZeroUsize, path::PathBuf};

use anyhow::anyhow;
use clap::{Args, ValueEnum};
use serde::Serialize;
use tabled::{
    builder::Builder,
    settings::{Alignment, Padding, Style, object::Columns},
};

use super::{Ended, Exit, up_to};
use crate::{
    engine::{
        Engine, Observer, Prompt, Request,
        candle::{Device, Stock},
        child::Child,
        lab::Lab,
    },
    model::{Checkpoint, chat::Message, checkpoint::Origin, embedded::MODELS},
    numerics::{Numerics, choice::Choice, order::Order, precision::Precision},
    report::words::{grouped, trimmed},
    store,
    trace::{Digest, Finish, Sample},
};

/// Continue a prompt under one cell, and show what every token was chosen from
#[derive(Args, Debug)]
pub(super) struct Generate {
    /// The model: `qwen`, a folder such as `./checkpoint`, or `owner/name[@revision]` on the Hub
    #[arg(long, value_name = "MODEL")]
    model: String,
    /// The prompt, as text
    #[arg(long, value_name = "TEXT", required_unless_present = "prompt_ids", conflicts_with = "prompt_ids")]
    prompt: Option<String>,
    /// The prompt, as token ids
    #[arg(long, value_name = "1,2,3", value_delimiter = ',', num_args = 1)]
    prompt_ids: Option<Vec<u32>>,
    /// Put the prompt into the model's chat template, as a user's message
    #[arg(long, requires = "prompt")]
    chat: bool,
    /// How many tokens may follow
    #[arg(long, default_value = "16", value_name = "N")]
    max_new_tokens: usize,
    /// End at this text; may be given several times
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// How a token is chosen: the best one, or a draw such as `sampled:seed=7,temperature=0.8,top-k=50,top-p=0.95`
    #[arg(long, default_value = "greedy")]
    choice: Choice,
    /// How many of the best tokens to keep for each position
    #[arg(long, default_value = "4", value_name = "K", value_parser = up_to(1 << 20))]
    candidates: usize,
    /// How to show the result
    #[arg(long, default_value = "text")]
    format: Format,
    /// Write the tokens read and the logits after each of them to this file, as safetensors
    #[arg(long, value_name = "FILE.safetensors")]
    logits: Option<PathBuf>,
    // Last, because what follows would stand under its heading.
    #[command(flatten)]
    cell: Cell,
}

/// Under which numerics, and by whom.
#[derive(Args, Debug)]
#[command(next_help_heading = "Cell")]
struct Cell {
    /// Who computes: our decoder, or the model as candle ships it
    #[arg(long, default_value = "lab")]
    engine: EngineName,
    /// The precision, see `reprocheck list precisions`
    #[arg(long, default_value = "fp32")]
    precision: Precision,
    /// The order of every sum, see `reprocheck list orders` [default: sequential; candle has its own]
    #[arg(long)]
    order: Option<Order>,
    /// How many threads share the work
    #[arg(long, default_value = "1", value_name = "N")]
    threads: NonZeroUsize,
    /// Where candle computes: `cpu`, `cuda:0`, `metal:0`
    #[arg(long, default_value = "cpu")]
    device: Device,
    /// How many tokens of the prompt one call reads at most [default: all]
    #[arg(long, value_name = "N")]
    prefill_chunk: Option<NonZeroUsize>,
    /// How many copies of the prompt run together; the first is shown
    #[arg(long, default_value = "1", value_name = "N")]
    batch: NonZeroUsize,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum EngineName {
    /// Our decoder: any precision, any order
    Lab,
    /// The model as candle-transformers ships it
    Candle,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Format {
    Text,
    Json,
}

/// What the JSON form says: what ran, and what came out.
#[derive(Serialize)]
struct Shown<'a> {
    version: &'static str,
    model: Model<'a>,
    cell: Ran<'a>,
    sample: &'a Sample,
}

#[derive(Serialize)]
struct Model<'a> {
    name: &'a str,
    origin: String,
    digest: Digest,
}

#[derive(Serialize)]
struct Ran<'a> {
    name: &'a str,
    prefill_chunk: Option<NonZeroUsize>,
    batch: NonZeroUsize,
}

impl Generate {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        let checkpoint = super::open(&self.model)?;
        let prompt = self.tokens(&checkpoint)?;
        let request = self.request(&checkpoint);
        let prompts: Vec<_> = (0..self.cell.batch.get() as u64)
            .map(|item| Prompt { item, tokens: prompt.clone(), replay: None })
            .collect();

        let (mut engine, cell) = self.engine(&checkpoint)?;
        let mut kept =
            Kept { keeps_logits: self.logits.is_some(), logits: Vec::new(), positions: 0, sample: None };
        engine.generate(&prompts, &request, &mut kept)?;
        let sample = kept.sample.expect("an engine that does not fail finishes every prompt");

        if let Some(path) = &self.logits {
            // The last token was chosen, but never read.
            let read = sample.steps.len().saturating_sub(1);
            let answer = sample.steps[..read].iter().map(|step| step.token);
            let read: Vec<u32> = sample.prompt.iter().copied().chain(answer).collect();
            if kept.positions != read.len() {
                return Err(Ended::usage(anyhow!(
                    "{cell} tells the logits after {} of {} tokens read: add --prefill-chunk 1 for those after every token, \
                     and let at least one follow",
                    kept.positions,
                    read.len(),
                )));
            }
            store::write_logits(path, &read, &kept.logits).map_err(Ended::environment)?;
        }
        match self.format {
            Format::Json => {
                let shown = Shown {
                    version: env!("CARGO_PKG_VERSION"),
                    model: Model {
                        name: &checkpoint.name,
                        origin: checkpoint.origin.to_string(),
                        digest: checkpoint.digest()?,
                    },
                    cell: Ran { name: &cell, prefill_chunk: self.cell.prefill_chunk, batch: self.cell.batch },
                    sample: &sample,
                };
                serde_json::to_writer_pretty(&mut *out, &shown).map_err(std::io::Error::from)?;
                writeln!(out)?;
            }
            Format::Text => self.show(&checkpoint, &cell, &sample, out)?,
        }
        Ok(Exit::Held)
    }

    /// The prompt's tokens.
    fn tokens(&self, checkpoint: &Checkpoint) -> Result<Vec<u32>, Ended> {
        let Some(text) = &self.prompt else {
            return Ok(self.prompt_ids.clone().unwrap_or_default());
        };
        let tokenizer = checkpoint.tokenizer.as_ref().ok_or_else(|| {
            let name = &checkpoint.name;
            Ended::usage(anyhow!("{name} has no tokenizer.json: give the prompt as --prompt-ids"))
        })?;
        let tokens = if self.chat {
            let template = checkpoint.chat.as_ref().ok_or_else(|| {
                Ended::usage(anyhow!("{} has no chat template: leave out --chat", checkpoint.name))
            })?;
            let text = template.render(&[Message::new("user", text)], true, &BTreeMap::new());
            tokenizer.encode(&text.map_err(Ended::usage)?, false)
        } else {
            tokenizer.encode(text, true)
        };
        tokens.map_err(Ended::usage)
    }

    fn request(&self, checkpoint: &Checkpoint) -> Request {
        Request {
            batch: self.cell.batch,
            prefill_chunk: self.cell.prefill_chunk,
            max_new_tokens: self.max_new_tokens,
            stop_tokens: checkpoint.config.stop_tokens.clone(),
            stop_strings: self.stop.clone(),
            choice: self.choice,
            candidates: self.candidates,
        }
    }

    /// The engine, and what the cell is called.
    fn engine<'c>(&self, checkpoint: &'c Checkpoint) -> Result<(Box<dyn Engine + 'c>, String), Ended> {
        let Cell { precision, order, threads, .. } = self.cell;
        match self.cell.engine {
            EngineName::Lab => {
                let numerics = Numerics { precision, order: order.unwrap_or(Order::Sequential), threads };
                Ok((Box::new(Lab::load(checkpoint, numerics)?), format!("lab/{numerics}")))
            }
            EngineName::Candle => {
                let stock = Stock::new(precision, order, threads, self.cell.device)?;
                let program = std::env::current_exe().map_err(|error| {
                    Ended::environment(anyhow!(
                        "cannot tell where this program lies ({error}): use the lab engine"
                    ))
                })?;
                Ok((Box::new(Child::open(&program, &checkpoint.reopen(), stock)?), stock.to_string()))
            }
        }
    }

    fn show(
        &self,
        checkpoint: &Checkpoint,
        cell: &str,
        sample: &Sample,
        out: &mut impl Write,
    ) -> Result<(), Ended> {
        let ended = match sample.finish {
            Finish::Stop => "ended by itself",
            Finish::Length => "cut off at --max-new-tokens",
            Finish::Replayed => "replayed to the end",
        };
        let (read, added) = (sample.prompt.len(), sample.steps.len());
        writeln!(out, "{}", introduce(checkpoint))?;
        writeln!(out, "{cell}: {read} tokens read, {added} added, {ended}\n",)?;
        if checkpoint.tokenizer.is_some() {
            writeln!(out, "{}\n", sample.text)?;
        }
        let mut table = Builder::default();
        table.push_record([
            "position",
            "token",
            "text",
            "logit",
            "margin",
            "top-1",
            "second",
            "digest of the logits",
        ]);
        let text = |token: u32| match &checkpoint.tokenizer {
            Some(tokenizer) => format!("{:?}", tokenizer.decode(&[token], false)),
            None => String::new(),
        };
        for (at, step) in sample.steps.iter().enumerate() {
            let logit = |rank: usize| step.candidates.get(rank);
            let second = logit(1).map(|second| format!("{} {}", second.token, text(second.token)));
            table.push_record([
                (read + at).to_string(),
                step.token.to_string(),
                text(step.token),
                logit(0).map_or_else(String::new, |best| format!("{:.4}", best.logit)),
                format!("{:.4}", step.margin),
                format!("{:.3}", step.probability),
                second.unwrap_or_default(),
                step.digest.to_string()[..16].to_owned(),
            ]);
        }
        let mut table = table.build();
        table.with(Style::blank()).with(Padding::new(0, 1, 0, 0));
        for column in [0, 1, 3, 4, 5] {
            table.modify(Columns::one(column), Alignment::right());
        }
        writeln!(out, "{}", trimmed(&table.to_string()))?;
        Ok(())
    }
}

/// The model, in a line or two.
fn introduce(checkpoint: &Checkpoint) -> String {
    let Checkpoint { name, origin, config, .. } = checkpoint;
    let parameters = grouped(checkpoint.parameters());
    let about = MODELS.iter().find(|entry| *origin == Origin::Embedded && entry.name == name);
    let about = about.map_or_else(String::new, |entry| format!("\n{}", entry.purpose));
    // A folder is where it is called.
    let origin = Some(origin.to_string()).filter(|origin| origin != name);
    let origin = origin.map_or_else(String::new, |origin| format!(", {origin}"));
    format!("{name}: {}, {parameters} parameters{origin}{about}", config.architecture)
}

/// What is kept of the run: the first sample, and its logits if they are asked for.
struct Kept {
    keeps_logits: bool,
    logits: Vec<f32>,
    positions: usize,
    sample: Option<Sample>,
}

impl Observer for Kept {
    fn finished(&mut self, sample: Sample) {
        if sample.item == 0 {
            self.sample = Some(sample);
        }
    }

    fn wants_logits(&self) -> bool {
        self.keeps_logits
    }

    fn logits(&mut self, item: u64, _: usize, logits: &[f32]) {
        if item == 0 {
            self.logits.extend_from_slice(logits);
            self.positions += 1;
        }
    }
}
