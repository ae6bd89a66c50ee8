//! `reprocheck list`: the tables, as tables.

use std::io::Write;

use clap::{Args, ValueEnum};
use tabled::builder::Builder;

use super::{Ended, Exit};
use crate::{
    cell::{AXES, ENGINES},
    model::{Checkpoint, embedded::MODELS},
    numerics::{order::ORDERS, precision::PRECISIONS},
    report::{
        text::aligned,
        words::{grouped, wrapped},
    },
    suite::{Suite, definition::Sizes},
};

#[derive(Args, Debug)]
pub(super) struct List {
    /// Of what
    #[arg(value_name = "precisions|orders|axes|engines|suites|models")]
    what: What,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum What {
    /// How weights are stored, how products are formed, what rounds
    Precisions,
    /// In which order sums are added
    Orders,
    /// What a matrix varies
    Axes,
    /// Who computes, and what each engine can be set to
    Engines,
    /// The families of problems inside this binary
    Suites,
    /// The models inside this binary
    Models,
}

impl List {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        let (head, rows) = self.what.table()?;
        let mut table = Builder::default();
        table.push_record(head.iter().copied());
        let columns = head.len() - 1;
        let widest = |at: usize| {
            let fields = rows.iter().map(|(fields, _)| fields[at].as_str()).chain([head[at]]);
            fields.flat_map(str::lines).map(|line| line.chars().count()).max().unwrap_or(0)
        };
        // What the columns before the last one, and the two blanks behind each, leave of a line.
        let room = WIDTH.saturating_sub((0..columns).map(|at| widest(at) + 2).sum());
        for (fields, sentence) in &rows {
            table.push_record(fields.iter().cloned().chain([wrapped(sentence, room)]));
        }
        writeln!(out, "{}", aligned(table, []))?;
        let example = match self.what {
            What::Precisions => "reprocheck explain precision lmul:m=4,scope=attention",
            What::Orders => "reprocheck explain order split-k:rows --rows 4",
            What::Axes => "reprocheck plan --matrix FILE.toml",
            What::Engines => "reprocheck generate --model qwen --engine candle --prompt 12+34=",
            What::Suites => "reprocheck explain suite carry_chain",
            What::Models => "reprocheck generate --model qwen --prompt 12+34=",
        };
        writeln!(out, "\nTo see one: {example}")?;
        Ok(Exit::Held)
    }
}

/// What each column holds, and each row: its fields, and the sentence in its last column.
type Table = (&'static [&'static str], Vec<(Vec<String>, String)>);

impl What {
    fn table(self) -> Result<Table, Ended> {
        Ok(match self {
            What::Precisions => {
                let rows = PRECISIONS.iter().map(|entry| {
                    (vec![entry.name.to_owned(), entry.parameters.join("\n")], entry.sentence.to_owned())
                });
                (&["precision", "parameters", "what it is"], rows.collect())
            }
            What::Orders => {
                let rows = ORDERS.iter().map(|entry| {
                    let moves = if entry.example.depends_on_launch() { "depends" } else { "-" };
                    (vec![entry.name.to_owned(), moves.to_owned()], entry.sentence.to_owned())
                });
                (&["order", "launch?", "how it adds"], rows.collect())
            }
            What::Axes => {
                let rows = AXES.iter().map(|entry| {
                    (vec![entry.name.to_owned(), wrapped(entry.example, SETTINGS)], entry.sentence.to_owned())
                });
                (&["axis", "settings", "what it is"], rows.collect())
            }
            What::Engines => {
                let rows = ENGINES.iter().map(|entry| {
                    let axes: Vec<_> = entry.axes[1..].iter().map(ToString::to_string).collect();
                    let bits = if entry.pinned { "on all machines" } else { "on this one" };
                    let fields =
                        vec![entry.name.to_owned(), bits.to_owned(), wrapped(&axes.join(", "), SETTINGS)];
                    (fields, entry.sentence.to_owned())
                });
                (&["engine", "same bits", "takes", "what it is"], rows.collect())
            }
            What::Suites => {
                let rows = Suite::all().map(|suite| {
                    let styles: Vec<_> = suite.styles().iter().map(ToString::to_string).collect();
                    let Sizes { quick, std, full } = suite.sizes;
                    let sizes = [quick, std, full].map(grouped).join("\n");
                    (vec![suite.name, styles.join("\n"), sizes], suite.title)
                });
                (&["suite", "styles", "items", "what it is"], rows.collect())
            }
            What::Models => {
                let rows = MODELS.iter().map(|entry| {
                    let checkpoint = Checkpoint::embedded(entry).map_err(Ended::failed)?;
                    let digest = checkpoint.digest().map_err(Ended::failed)?.to_string();
                    let about = [
                        checkpoint.config.architecture.to_string(),
                        format!("{} parameters", grouped(checkpoint.parameters())),
                        format!("{} bytes", grouped(entry.size())),
                        digest[..12].to_owned(),
                    ];
                    Ok((vec![entry.name.to_owned(), about.join("\n")], entry.purpose.to_owned()))
                });
                (&["model", "what it is", "what it is for"], rows.collect::<Result<_, Ended>>()?)
            }
        })
    }
}

/// The settings of an axis, broken between them.
const SETTINGS: usize = 24;

/// Of a terminal.
const WIDTH: usize = 80;
