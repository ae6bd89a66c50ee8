//! `reprocheck list`: the tables, as tables.

use std::io::Write;

use clap::{Args, ValueEnum};
use tabled::{
    builder::Builder,
    settings::{Padding, Style},
};

use super::{Ended, Exit};
use crate::numerics::{order::ORDERS, precision::PRECISIONS};

#[derive(Args, Debug)]
pub(super) struct List {
    /// Of what
    #[arg(value_name = "precisions|orders")]
    what: What,
}

#[derive(ValueEnum, Clone, Copy, Debug)]
enum What {
    /// How weights are stored, how products are formed, what rounds
    Precisions,
    /// In which order sums are added
    Orders,
}

impl List {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        let mut table = Builder::default();
        match self.what {
            What::Precisions => {
                table.push_record(["precision", "parameters", "what it is"]);
                for entry in PRECISIONS {
                    table.push_record([entry.name, &entry.parameters.join("\n"), &wrapped(entry.sentence)]);
                }
            }
            What::Orders => {
                table.push_record(["order", "launch?", "how it adds"]);
                for entry in ORDERS {
                    let moves = if entry.example.depends_on_launch() { "depends" } else { "-" };
                    table.push_record([entry.name, moves, &wrapped(entry.sentence)]);
                }
            }
        }
        let mut table = table.build();
        table.with(Style::blank()).with(Padding::new(0, 1, 0, 0));
        writeln!(out, "{}", trimmed(&table.to_string()))?;
        let example = match self.what {
            What::Precisions => "reprocheck explain precision lmul:m=4,scope=attention",
            What::Orders => "reprocheck explain order split-k:rows --rows 4",
        };
        writeln!(out, "\nTo see one: {example}")?;
        Ok(Exit::Held)
    }
}

/// So wide that a table fits a terminal of 80 columns.
const SENTENCE: usize = 38;

/// Broken between words. The library's own wrapping leaves a blank at the beginning of some lines.
fn wrapped(sentence: &str) -> String {
    let mut lines = String::new();
    let mut width = 0;
    for word in sentence.split(' ') {
        if width > 0 {
            let fits = width + 1 + word.len() <= SENTENCE;
            lines.push(if fits { ' ' } else { '\n' });
            width = if fits { width + 1 } else { 0 };
        }
        lines.push_str(word);
        width += word.len();
    }
    lines
}

fn trimmed(table: &str) -> String {
    table.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}
