//! `reprocheck list`: the tables, as tables.

use std::io::Write;

use clap::{Args, ValueEnum};
use tabled::{
    builder::Builder,
    settings::{Padding, Style},
};

use super::{Ended, Exit};
use crate::{
    model::{Checkpoint, embedded::MODELS},
    numerics::{order::ORDERS, precision::PRECISIONS},
    plan::axis::AXES,
    report::text::{grouped, trimmed, wrapped},
    suite::{Suite, definition::Sizes},
};

#[derive(Args, Debug)]
pub(super) struct List {
    /// Of what
    #[arg(value_name = "precisions|orders|axes|suites|models")]
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
    /// The families of problems inside this binary
    Suites,
    /// The models inside this binary
    Models,
}

impl List {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        let mut table = Builder::default();
        match self.what {
            What::Precisions => {
                table.push_record(["precision", "parameters", "what it is"]);
                for entry in PRECISIONS {
                    table.push_record([
                        entry.name,
                        &entry.parameters.join("\n"),
                        &wrapped(entry.sentence, SENTENCE),
                    ]);
                }
            }
            What::Orders => {
                table.push_record(["order", "launch?", "how it adds"]);
                for entry in ORDERS {
                    let moves = if entry.example.depends_on_launch() { "depends" } else { "-" };
                    table.push_record([entry.name, moves, &wrapped(entry.sentence, SENTENCE)]);
                }
            }
            What::Axes => {
                table.push_record(["axis", "settings", "what it is"]);
                for entry in AXES {
                    table.push_record([
                        entry.name,
                        &wrapped(entry.example, SETTINGS),
                        &wrapped(entry.sentence, SENTENCE),
                    ]);
                }
            }
            What::Suites => {
                table.push_record(["suite", "styles", "items", "what it is"]);
                for suite in Suite::all() {
                    let styles: Vec<_> = suite.styles().iter().map(ToString::to_string).collect();
                    let Sizes { quick, std, full } = suite.sizes;
                    let sizes = [quick, std, full].map(grouped).join("\n");
                    table.push_record([
                        &suite.name,
                        &styles.join("\n"),
                        &sizes,
                        &wrapped(&suite.title, SENTENCE),
                    ]);
                }
            }
            What::Models => {
                table.push_record(["model", "what it is", "what it is for"]);
                for entry in MODELS {
                    let checkpoint = Checkpoint::embedded(entry).map_err(Ended::failed)?;
                    let digest = checkpoint.digest().map_err(Ended::failed)?.to_string();
                    let about = [
                        checkpoint.config.architecture.to_string(),
                        format!("{} parameters", grouped(checkpoint.parameters())),
                        format!("{} bytes", grouped(entry.size())),
                        digest[..12].to_owned(),
                    ];
                    table.push_record([entry.name, &about.join("\n"), &wrapped(entry.purpose, SENTENCE)]);
                }
            }
        }
        let mut table = table.build();
        table.with(Style::blank()).with(Padding::new(0, 1, 0, 0));
        writeln!(out, "{}", trimmed(&table.to_string()))?;
        let example = match self.what {
            What::Precisions => "reprocheck explain precision lmul:m=4,scope=attention",
            What::Orders => "reprocheck explain order split-k:rows --rows 4",
            What::Axes => "reprocheck plan --matrix FILE.toml",
            What::Suites => "reprocheck explain suite carry_chain",
            What::Models => "reprocheck generate --model qwen --prompt 12+34=",
        };
        writeln!(out, "\nTo see one: {example}")?;
        Ok(Exit::Held)
    }
}

/// The settings of an axis, broken between them.
const SETTINGS: usize = 24;

/// So wide that a table fits a terminal of 80 columns.
const SENTENCE: usize = 38;
