//! `reprocheck sweep`: at which width of a format logits, tokens and texts begin to move.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use clap::Args;
use serde::Serialize;
use tabled::builder::Builder;

use super::{
    Ended, Exit, Format, named,
    progress::Waiting,
    report::look,
    run::{Place, carry_out},
    up_to,
};
use crate::{
    plan::Plan,
    report::{
        figure,
        text::{Look, aligned, headed},
        words::{grouped, nats, plural, scaled, share, told, wrapped},
    },
    run::{
        Options, review,
        sweep::{Along, Asked, Moved, Row, Scope, Sweep as Found, ladder, matrix},
    },
    stats::{Interval, proportion::Proportion},
    store,
};

/// At which width do logits, tokens and texts begin to move? A ladder of formats, each narrower than the one before
///
/// Every step reads what exact sums in f32 have written, so that each token is compared and none follows another one. The run is an
/// ordinary one: `reprocheck report` shows all of it.
#[derive(Args, Debug)]
pub(super) struct Sweep {
    /// The model
    #[arg(long, default_value = "qwen", value_name = "MODEL")]
    model: String,
    /// What becomes narrower: mantissa, exponent, bits, block, or split
    #[arg(long, value_name = "AXIS", value_parser = named::<Along>)]
    axis: Along,
    /// Where: all, linear, attention, or head; everything else is in f32
    #[arg(long, default_value = "all", value_name = "SCOPE", value_parser = named::<Scope>)]
    scope: Scope,
    /// The suites whose questions are read
    #[arg(
        long,
        default_value = "carry_chain,mul_ladder,divmod,exec_trace",
        value_delimiter = ',',
        value_name = "SUITES"
    )]
    suites: Vec<String>,
    /// How many items of each suite
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = up_to(1 << 20))]
    items: usize,
    /// How many tokens of an answer are read at most; as many as a suite says where it is left out
    #[arg(long, value_name = "N", value_parser = up_to(usize::MAX))]
    max_new_tokens: Option<usize>,
    /// How many prompts share a call
    #[arg(long, default_value_t = 8, value_name = "N", value_parser = up_to(1 << 20))]
    batch: usize,
    /// How many of the best tokens are kept at each place; a divergence is told of these, and of all others together
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = up_to(1 << 20))]
    candidates: usize,
    #[command(flatten)]
    place: Place,
    /// Draw how much each step moves to this file
    #[arg(long, value_name = "FILE.svg")]
    figure: Option<PathBuf>,
    /// How to show the result
    #[arg(long, default_value = "text")]
    format: Format,
}

/// What the JSON form says.
#[derive(Serialize)]
struct Shown<'a> {
    version: &'static str,
    model: &'a str,
    sentence: String,
    #[serde(flatten)]
    sweep: &'a Found,
    best_splits: Vec<&'a str>,
}

impl Sweep {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        if !self.axis.holds_at(self.scope) {
            return Err(Ended::usage(anyhow!(
                "the formats of `{}` are of weights in layers, and move nothing at `{}`: leave --scope out, or sweep `mantissa` there",
                self.axis,
                self.scope
            )));
        }
        let name = match self.scope {
            Scope::All => format!("sweep-{}", self.axis),
            scope => format!("sweep-{}-{scope}", self.axis),
        };
        let asked = Asked {
            suites: &self.suites,
            items: self.items as u64,
            max_new_tokens: self.max_new_tokens,
            batch: self.batch,
            candidates: self.candidates,
        };
        let text = matrix(&ladder(self.axis, self.scope), asked);
        let plan = Plan::read(Path::new(&name), &text, None)
            .map_err(|problems| Ended::usage(anyhow!("{problems}")))?;
        let model = super::Model::for_plan(&self.model, &plan)?;
        let folder = self.place.folder(&self.model, &name);
        carry_out(&plan, &model, Options::of_all(folder.clone(), self.place.present(), (name, None)))?;
        let waiting = Waiting::until("still reading the traces again, from which the figures follow");
        let report = review::review(&folder, None)?.report;
        drop(waiting);
        let found = Found::of(&report, self.axis, self.scope);
        match self.format {
            Format::Json => {
                let best = found.best_splits().into_iter().map(|row| &*row.width).collect();
                let (version, sentence) = (env!("CARGO_PKG_VERSION"), sentence(&found));
                let shown = Shown { version, model: &self.model, sentence, sweep: &found, best_splits: best };
                serde_json::to_writer_pretty(&mut *out, &shown).map_err(std::io::Error::from)?;
                writeln!(out)?;
            }
            Format::Text => {
                let items = report.cells.first().map_or(0, |row| row.accuracy.of);
                write!(out, "{}", text_of(&found, (&self.model, items), &folder, look()))?;
            }
        }
        if let Some(file) = &self.figure {
            let steps = found.rows.iter().map(|row| (&*row.width, [row.tokens, row.texts]));
            let figure = figure::sweep(&self.axis.to_string(), &steps.collect::<Vec<_>>(), sentence(&found));
            store::write(file, figure.as_bytes()).map_err(Ended::environment)?;
        }
        Ok(Exit::Held)
    }
}

fn text_of(found: &Found, (model, items): (&str, u64), folder: &Path, look: Look) -> String {
    let said = |sentence: String| wrapped(&sentence, look.prose()) + "\n";
    let mut table = Builder::default();
    table.push_record(["", "weights", "logits", "tokens", "95 %", "texts", "95 %", "mean KL"]);
    for row in &found.rows {
        table.push_record([
            row.width.clone(),
            told(row.weights, |bytes| scaled(bytes, "B")),
            share(row.logits),
            share(row.tokens),
            interval(row.tokens_interval),
            share(row.texts),
            interval(row.texts_interval),
            told(row.divergence, nats),
        ]);
    }
    let lines = aligned(table, 1..8) + "\n";
    let formats = match (found.rows.first(), found.rows.last()) {
        (Some(first), Some(last)) => format!("from {} to {}", first.precision, last.precision),
        _ => "that have not run".to_owned(),
    };
    let sections = [
        said(sentence(found)),
        headed(
            &format!(
                "{model}, {}: {} {formats}",
                plural(items, "item"),
                plural(found.rows.len() as u64, "step")
            ),
            &lines,
            look,
        ),
        said(
            "The share of places with other logits than exact sums in f32, and with another token first; of items in which some token \
             changes, so that their texts would; and the mean divergence in nats, of the tokens that are kept and of all others \
             together. The intervals are Wilson's: of places as if they were independent, which those of one item are not."
                .to_owned(),
        ),
        said(format!("All of it: reprocheck report {}", folder.display())),
    ];
    sections.join("\n")
}

/// In percent, with as many digits as small shares need.
fn interval(interval: Option<Interval>) -> String {
    interval.map_or_else(
        || "-".to_owned(),
        |Interval { lower, upper }| format!("{:.2} to {:.2}", 100.0 * lower + 0.0, 100.0 * upper + 0.0),
    )
}

/// Where things begin to move.
fn sentence(found: &Found) -> String {
    let kinds = [("Logits", Moved::Logits), ("Tokens", Moved::Tokens), ("Texts", Moved::Texts)];
    let mut sentences = kinds.map(|(noun, moved)| match found.first(moved) {
        None => format!("{noun} move at no width{}.", at_most(found.rows.last(), moved)),
        Some((before, row)) => {
            let Proportion { hits, of } = row.of(moved);
            let begin = format!("{noun} move first at {} ({} of {})", row.width, grouped(hits), grouped(of));
            match before {
                None => format!("{begin}, the widest step."),
                Some(before) => {
                    format!("{begin}; at {} none do{}.", before.width, at_most(Some(before), moved))
                }
            }
        }
    });
    let best: Vec<_> = found.best_splits().into_iter().map(|row| &*row.width).collect();
    if !best.is_empty() {
        sentences[2] += &format!(" Of each number of bits, the nearest to f32 is {}.", best.join(", "));
    }
    sentences.join(" ")
}

/// What nothing seen says of all.
fn at_most(row: Option<&Row>, moved: Moved) -> String {
    let upper = row.and_then(|row| row.of(moved).wilson(crate::report::CONFIDENCE)).map(|found| found.upper);
    upper.map_or_else(String::new, |upper| format!(", so at most {:.2} % do", 100.0 * upper))
}
