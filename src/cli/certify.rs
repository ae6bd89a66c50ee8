//! `reprocheck certify`: which answers of a cell no other order of addition changes, and how the others would go on.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use clap::Args;
use serde::Serialize;
use tabled::builder::Builder;

use super::{
    Ended, Exit, Format, complain, named,
    progress::Readings,
    report::{exit, look},
    verify::{percent, share},
};
use crate::{
    cell::Cell,
    report::{
        text::{Look, aligned, headed},
        words::{grouped, plural, wrapped, wrapped_after},
    },
    run::certify::{self, Certificate, Change, Other, PROBES, Probes, Scored, Wanted},
    store::{self, run::Run},
    verdict::Outcome,
};

/// Which answers of a cell can no other order of addition change? Measured on samples, held against every margin, and scored by
/// the cells that ran
///
/// It needs one cell of a run. Those of the same precision that differ in order, threads, batch or chunks are told from it.
#[derive(Args, Debug)]
pub(super) struct Certify {
    /// The folder that `reprocheck run` wrote
    folder: PathBuf,
    /// A cell of it, by its name [default: the first of the lab that is done]
    #[arg(value_name = "CELL", value_parser = named::<Cell>)]
    cell: Option<Cell>,
    /// The model, if it is no longer where the run found it
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// How many samples are read in every other order, to measure how near rivals come, in percent; at least one
    #[arg(long, default_value_t = format!("{}%", certify::USUAL), value_name = "PERCENT", value_parser = percent)]
    sample: String,
    /// A number that moves the draw of these samples
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// Ask the ways of the run's own cells alone, and no other order; how near rivals come is measured in all of them
    #[arg(long)]
    own: bool,
    /// Write a suite of the prompts that end before a token that changes, the most sensitive there are, to this folder
    #[arg(long, value_name = "DIR")]
    probes: Option<PathBuf>,
    /// How to show the result
    #[arg(long, default_value = "text")]
    format: Format,
}

/// What the JSON form says.
#[derive(Serialize)]
struct Shown<'a> {
    version: &'static str,
    verdict: Outcome,
    #[serde(flatten)]
    certificate: &'a Certificate,
}

/// So many tokens that change are shown; all are counted, and in JSON.
const SHOWN: usize = 12;

impl Certify {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        let run = Run::open(&self.folder)?;
        let model = super::Model::open(self.model.as_deref().unwrap_or(&run.about.model.name))?;
        let subject = model.subject()?;
        let checkpoint = model.weights("nothing can be added in another order")?;
        let percent = share(&self.sample).unwrap_or(certify::USUAL);
        let wanted = Wanted { cell: self.cell, percent, seed: self.seed, own: self.own };
        let mut readings = Readings::new();
        let certificate = certify::certify(&self.folder, checkpoint, &subject, wanted, &mut |done, of| {
            readings.show(done, of);
        })?;
        drop(readings);
        if let Some(folder) = &self.probes {
            self.write(folder, &run, &certificate)?;
        }
        match self.format {
            Format::Json => {
                let (version, verdict) = (env!("CARGO_PKG_VERSION"), certificate.verdict());
                let shown = Shown { version, verdict, certificate: &certificate };
                serde_json::to_writer_pretty(&mut *out, &shown).map_err(std::io::Error::from)?;
                writeln!(out)?;
            }
            Format::Text => write!(out, "{}", text(&certificate, look()))?,
        }
        Ok(exit(certificate.verdict()))
    }
}

impl Certify {
    /// Writes the suite of prompts at the border.
    fn write(&self, folder: &Path, run: &Run, certificate: &Certificate) -> Result<(), Ended> {
        let Probes { count, definition, lines } = certify::probes(run, certificate)?;
        if count == 0 {
            complain(&format!(
                "no prompt of {} lies at the border, so {} is not written: certify a cell of a lower precision",
                certificate.cell,
                folder.display()
            ));
            return Ok(());
        }
        for (name, text) in [("suite.toml", &definition), (PROBES, &lines)] {
            store::write(&folder.join(name), text.as_bytes()).map_err(Ended::environment)?;
        }
        complain(&format!("{} at the border: {}", plural(count as u64, "prompt"), folder.display()));
        Ok(())
    }
}

/// The certificate in words.
pub(super) fn text(certificate: &Certificate, look: Look) -> String {
    let said = |sentence: String| wrapped(&sentence, look.prose()) + "\n";
    let Certificate { cell, items, settled, changes, ways, .. } = certificate;
    let verdict = certificate.verdict();
    let word = look.outcome(verdict, &verdict.to_string().to_uppercase());
    let others = plural(ways.len() as u64, "other way");
    let headline = match verdict {
        Outcome::Fail => "a cell that ran refutes what is told here".to_owned(),
        Outcome::Pass => format!("none of {} changes in any of {others} to add", plural(*items, "answer")),
        Outcome::Undecided | Outcome::Unknown => format!(
            "{} of {} change in none of {others} to add; {} can",
            grouped(*settled),
            plural(*items, "answer"),
            plural(changes.len() as u64, "token"),
        ),
    };
    let mut sections = vec![said(format!("{word}: {cell}: {headline}"))];
    if !changes.is_empty() {
        let mut lines: String =
            changes.iter().take(SHOWN).map(|change| changed(change, ways, look)).collect();
        if changes.len() > SHOWN {
            lines += &format!(
                "  and {} more: --format json has them all\n",
                grouped((changes.len() - SHOWN) as u64)
            );
        }
        sections.push(headed("Tokens that change", &lines, look));
    }
    sections.push(headed("What it rests on", &rests(certificate, &said), look));
    sections.push(headed("Held against cells that ran", &scored(certificate, &said), look));
    sections.join("\n")
}

/// A token that changes, and below it how the answer goes on with it and with each other one.
fn changed(change: &Change, ways: &[Cell], look: Look) -> String {
    let Change { id, place, margin, token, rest, outcome, to, .. } = change;
    let line = |begin: &str, value: &str| wrapped_after(begin, value, look.prose()) + "\n";
    let quoted = |token: &str, rest: &str| {
        let text: String = rest.chars().take(48).collect();
        let more = if text.len() < rest.len() { "…" } else { "" };
        format!("{token:?} then {text:?}{more}")
    };
    let mut lines =
        line("  ", &format!("{id}, after {}, margin {}", plural(*place as u64, "token"), number(*margin)));
    lines += &line("    here  ", &format!("{}: {outcome}", quoted(token, rest)));
    for Other { token, ways: there, rest, outcome, .. } in to {
        let names = match there.len() {
            all if all == ways.len() => "all others".to_owned(),
            1 => there[0].to_string(),
            more => format!("{} and {} more", there[0], more - 1),
        };
        lines += &line("    else  ", &format!("{}: {outcome} ({names})", quoted(token, rest)));
    }
    lines
}

/// What was measured, and what that certifies.
fn rests(certificate: &Certificate, said: &dyn Fn(String) -> String) -> String {
    let Certificate {
        tokens, drawn, measured, nearer, bound, by_margin, by_reading, changes, read, of, ..
    } = certificate;
    let percent = |part: u64, of: u64| format!("{:.1} %", 100.0 * part as f64 / of.max(1) as f64);
    said(format!(
        "Measured: {}, read again in {} to add. No rival came nearer by more than {}, and none of a margin above {} by a third of it.",
        plural(*drawn, "answer"),
        plural(*measured, "other way"),
        number(*nearer),
        number(*bound),
    )) + &said(format!(
        "Of {}, {} were read again in every way and stayed, and {} changed. The other {} come after the last narrower one of their \
         answer and rest on their margin ({}).",
        plural(*tokens, "token"),
        grouped(*by_reading),
        grouped(changes.len() as u64),
        grouped(*by_margin),
        percent(*by_margin, *tokens),
    )) + &said(format!(
        "It took the reading of {}, {} of all in all ways. It is a measurement of these orders and no proof for others.",
        plural(*read, "token"),
        percent(*read, *of),
    ))
}

fn scored(certificate: &Certificate, said: &dyn Fn(String) -> String) -> String {
    if certificate.scored.is_empty() {
        return said(
            "No other cell of its family has run. Once some have, the same command holds the certificate against them."
                .to_owned(),
        );
    }
    let mut table = Builder::default();
    table.push_record(["cell", "answers that part", "as foretold", "missed", "in vain", "in other calls"]);
    for scored in &certificate.scored {
        let Scored { cell, parted, foreseen, missed, absent, untold } = scored;
        let counts = [parted, foreseen, missed, absent, untold].map(|count| grouped(*count));
        table.push_record([vec![cell.to_string()], counts.to_vec()].concat());
    }
    aligned(table, [1, 2, 3, 4, 5]) + "\n"
}

/// A margin, with as many digits as tell it apart.
fn number(margin: f64) -> String {
    match margin {
        0.0 => "0".to_owned(),
        small if small.abs() < 1e-3 => format!("{small:.1e}"),
        margin => format!("{margin:.3}"),
    }
}
