//! `reprocheck generate`: one prompt under one cell, looked at closely.

use std::{
    collections::BTreeMap,
    io::Write,
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use clap::Args;
use serde::Serialize;
use tabled::builder::Builder;

use super::{Ended, Exit, Format, named, up_to};
use crate::{
    cell::{Axis, Cell, Compute, EngineName, Name, Setting},
    digest::Digest,
    engine::{Engines, Observer, Opener as _, Prompt, Request, script::Script},
    model::{Subject, chat::Message, embedded::MODELS},
    numerics::{choice::Choice, order::Order, precision::Precision},
    report::{text::aligned, words::grouped},
    store,
    trace::{Finish, Sample},
};

/// Continue a prompt under one cell, and show what every token was chosen from
#[derive(Args, Debug)]
pub(super) struct Generate {
    /// The model: `qwen`, a folder such as `./checkpoint`, `./file.gguf`, or `owner/name[@revision]` on the Hub
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
    /// Read this text after the prompt, token by token, and show what would have been chosen before each
    #[arg(long, value_name = "TEXT", conflicts_with_all = ["max_new_tokens", "stop"])]
    replay: Option<String>,
    /// The same, as token ids
    #[arg(long, value_name = "1,2,3", value_delimiter = ',', num_args = 1, conflicts_with_all = ["replay", "max_new_tokens", "stop"])]
    replay_ids: Option<Vec<u32>>,
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
    cell: Shorthand,
}

/// Under which cell: by its name, or by what differs from `lab/fp32/sequential/t1/b1`.
#[derive(Args, Debug)]
#[command(next_help_heading = "Cell")]
struct Shorthand {
    /// The cell by its name, such as lab/bf16/pairwise/t2/b4
    #[arg(long, value_name = "CELL", value_parser = named::<Cell>, conflicts_with_all = ["engine", "precision", "order", "threads", "prefill_chunk", "batch"])]
    cell: Option<Cell>,
    /// Who computes, see `reprocheck list engines` [default: lab]
    #[arg(long)]
    engine: Option<EngineName>,
    /// The precision, see `reprocheck list precisions` [default: fp32]
    #[arg(long, value_parser = named::<Precision>)]
    precision: Option<Precision>,
    /// The order of every sum, see `reprocheck list orders` [default: sequential; candle has its own]
    #[arg(long)]
    order: Option<Order>,
    /// How many threads share the work [default: 1]
    #[arg(long, value_name = "N")]
    threads: Option<NonZeroUsize>,
    /// How many tokens of the prompt one call reads at most [default: all]
    #[arg(long, value_name = "N")]
    prefill_chunk: Option<NonZeroUsize>,
    /// How many copies of the prompt run together; the first is shown [default: 1]
    #[arg(long, value_name = "N")]
    batch: Option<NonZeroUsize>,
}

impl Shorthand {
    fn cell(&self) -> Result<Cell, Ended> {
        let Shorthand { cell, engine, precision, order, threads, prefill_chunk, batch } = *self;
        let settings = [
            engine.map(Setting::Engine),
            precision.map(Setting::Precision),
            order.map(Setting::Order),
            threads.map(Setting::Threads),
            prefill_chunk.map(|chunk| Setting::PrefillChunk(Some(chunk))),
            batch.map(Setting::Batch),
        ];
        let settings = || settings.into_iter().flatten();
        let cell = cell
            .unwrap_or_default()
            .with(settings())
            .map_err(|refusal| Ended::usage(anyhow!("{refusal}")))?;
        // One prompt has one group, runs once, and is drawn as --choice says.
        for axis in [Axis::Grouping, Axis::Temperature, Axis::TopP, Axis::TopK, Axis::Seed, Axis::Repeat] {
            if cell.get(axis) != Cell::default().get(axis) && cell.get(axis) != Setting::Own(axis) {
                let sentence =
                    format!("generate runs one prompt once, without {axis}: leave it out of {cell}");
                return Err(Ended::usage(anyhow!(sentence)));
            }
        }
        let engine = cell.compute.entry();
        if let Some(axis) = settings().map(Setting::axis).find(|axis| !engine.takes(*axis)) {
            let sentence =
                format!("{} takes no {axis}: leave --{axis} out, or use the lab engine", engine.kind());
            return Err(Ended::usage(anyhow!(sentence)));
        }
        Ok(cell)
    }
}

/// What the JSON form says: what ran, and what came out.
#[derive(Serialize)]
struct Shown<'a> {
    version: &'static str,
    model: Model<'a>,
    cell: Cell,
    sample: &'a Sample,
}

#[derive(Serialize)]
struct Model<'a> {
    name: &'a str,
    origin: &'a str,
    digest: Digest,
}

impl Generate {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        let cell = self.cell.cell()?;
        let model = super::Model::open(&self.model)?;
        let subject = model.subject()?;
        let prompt = self.tokens(&subject)?;
        let replay = self.replayed(&subject)?;
        let request = self.request(&subject, cell);
        let prompts: Vec<_> = (0..cell.serving.together().get() as u64)
            .map(|item| Prompt { item, tokens: prompt.clone(), replay: replay.clone() })
            .collect();

        let scripts = scripts(cell)?;
        let program = super::program()?;
        let engines = Engines {
            checkpoint: model.checkpoint(),
            program: &program,
            scripts: &scripts,
            servers: &BTreeMap::new(),
            logs: Path::new(""),
            subject: &subject,
        };
        let mut engine = engines.open(cell.compute)?;
        let mut kept =
            Kept { keeps_logits: self.logits.is_some(), logits: Vec::new(), positions: 0, sample: None };
        engine.generate(&prompts, &request, &mut kept)?;
        let sample = kept.sample.expect("an engine that does not fail finishes every prompt");

        if let Some(path) = &self.logits {
            // The last token was chosen, but never read.
            let read = sample.steps.len().saturating_sub(1);
            let answer = sample.steps[..read].iter().map(|step| step.token.id);
            let read: Vec<u32> = sample.prompt.iter().copied().chain(answer).collect();
            if kept.positions != read.len() {
                let way_out = match cell.serving.asking.cache.page() {
                    Some(_) => "name a cell without a cache, which takes tokens as they were read before",
                    None => "add --prefill-chunk 1 for those after every token, and let at least one follow",
                };
                return Err(Ended::usage(anyhow!(
                    "{cell} tells the logits after {} of {} tokens read: {way_out}",
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
                    model: Model { name: subject.name, origin: &subject.origin, digest: subject.digest },
                    cell,
                    sample: &sample,
                };
                serde_json::to_writer_pretty(&mut *out, &shown).map_err(std::io::Error::from)?;
                writeln!(out)?;
            }
            Format::Text => self.show(&subject, cell, &sample, out)?,
        }
        Ok(Exit::Held)
    }

    /// The prompt's tokens.
    fn tokens(&self, subject: &Subject<'_>) -> Result<Vec<u32>, Ended> {
        let Some(text) = &self.prompt else {
            return Ok(self.prompt_ids.clone().unwrap_or_default());
        };
        let tokenizer = subject.tokenizer.ok_or_else(|| {
            let name = subject.name;
            Ended::usage(anyhow!("{name} has no tokenizer.json: give the prompt as --prompt-ids"))
        })?;
        let tokens = if self.chat {
            let template = subject.chat.ok_or_else(|| {
                Ended::usage(anyhow!("{} has no chat template: leave out --chat", subject.name))
            })?;
            let text = template.render(&[Message::new("user", text)], true, &BTreeMap::new());
            tokenizer.encode(&text.map_err(Ended::usage)?, false)
        } else {
            tokenizer.encode(text, true)
        };
        tokens.map_err(Ended::usage)
    }

    /// The tokens that are read after the prompt, if they are given.
    fn replayed(&self, subject: &Subject<'_>) -> Result<Option<Vec<u32>>, Ended> {
        let Some(text) = &self.replay else { return Ok(self.replay_ids.clone()) };
        let tokenizer = subject.tokenizer.ok_or_else(|| {
            let name = subject.name;
            Ended::usage(anyhow!("{name} has no tokenizer.json: give what follows as --replay-ids"))
        })?;
        tokenizer.encode(text, false).map(Some).map_err(Ended::usage)
    }

    fn request(&self, subject: &Subject<'_>, cell: Cell) -> Request {
        Request {
            prefill_chunk: cell.serving.prefill_chunk,
            asking: cell.serving.asking(),
            max_new_tokens: self.max_new_tokens,
            stop_tokens: subject.stop_tokens.to_vec(),
            stop_strings: self.stop.clone(),
            choice: self.choice,
            candidates: self.candidates,
        }
    }

    fn show(
        &self,
        subject: &Subject<'_>,
        cell: Cell,
        sample: &Sample,
        out: &mut impl Write,
    ) -> Result<(), Ended> {
        let ended = match sample.finish {
            Finish::Stop => "ended by itself",
            Finish::Length => "cut off at --max-new-tokens",
            Finish::Replayed => "replayed to the end",
        };
        let is_replay = sample.finish == Finish::Replayed;
        let (read, added) = (sample.prompt.len(), sample.steps.len());
        writeln!(out, "{}", introduce(subject))?;
        let done = if is_replay { "read after them" } else { "added" };
        writeln!(out, "{cell}: {read} tokens read, {added} {done}, {ended}\n",)?;
        if subject.tokenizer.is_some() {
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
            // Of a token that was given it matters which one would have been chosen.
            if is_replay { "best" } else { "second" },
            "digest of the logits",
        ]);
        let text = |token: u32| match subject.tokenizer {
            Some(tokenizer) => format!("{:?}", tokenizer.decode(&[token], false)),
            None => String::new(),
        };
        for (at, step) in sample.steps.iter().enumerate() {
            let token = &step.token;
            let candidates = token.candidates();
            let own = candidates.iter().find(|candidate| candidate.token == token.id);
            let other = candidates.iter().find(|candidate| candidate.token != token.id);
            let other = match (is_replay, candidates.first()) {
                (true, Some(best)) if best.token == token.id => Some("the same".to_owned()),
                (true, best) => {
                    best.map(|best| format!("{} {} {:.4}", best.token, text(best.token), best.logit))
                }
                (false, _) => other.map(|second| format!("{} {}", second.token, text(second.token))),
            };
            table.push_record([
                (read + at).to_string(),
                token.id.to_string(),
                text(token.id),
                own.map_or_else(String::new, |own| format!("{:.4}", own.logit)),
                token.margin().map_or_else(String::new, |margin| format!("{margin:.4}")),
                token.probability().map_or_else(String::new, |probability| format!("{probability:.3}")),
                other.unwrap_or_default(),
                token.digest().map_or_else(String::new, |digest| digest.to_string()[..16].to_owned()),
            ]);
        }
        writeln!(out, "{}", aligned(table, [0, 1, 3, 4, 5]))?;
        Ok(())
    }
}

/// The model, in a line or two.
fn introduce(subject: &Subject<'_>) -> String {
    let Subject { name, origin, architecture, .. } = subject;
    let parameters = grouped(subject.parameters);
    let about = MODELS.iter().find(|entry| subject.is_compact && entry.name == *name);
    let about = about.map_or_else(String::new, |entry| format!("\n{}", entry.purpose));
    // A folder is where it is called.
    let origin = Some(origin).filter(|origin| origin != name);
    let origin = origin.map_or_else(String::new, |origin| format!(", {origin}"));
    format!("{name}: {architecture}, {parameters} parameters{origin}{about}")
}

/// The script of a cell, if it has one: a file in the folder that the program runs in.
fn scripts(cell: Cell) -> Result<BTreeMap<Name, Script>, Ended> {
    let Compute::Script(name) = cell.compute else { return Ok(BTreeMap::new()) };
    let script = Script::open(Path::new(""), name).map_err(|problems| Ended::usage(anyhow!("{problems}")))?;
    Ok([(name, script)].into())
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
