//! `reprocheck list`: the tables, as tables.

use std::io::Write;

use clap::{Args, ValueEnum};
use tabled::{
    builder::Builder,
    settings::{Modify, Padding, Style, Width, object::Columns},
};

use super::{Ended, Exit};
use crate::numerics::{order::ORDERS, precision::PRECISIONS};

#[derive(Args, Debug)]
pub(super) struct List {
    /// Of what
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
                    table.push_record([entry.name, &entry.parameters.join("\n"), entry.sentence]);
                }
            }
            What::Orders => {
                table.push_record(["order", "launch?", "how it adds"]);
                for entry in ORDERS {
                    let moves = if entry.example.depends_on_launch() { "depends" } else { "-" };
                    table.push_record([entry.name, moves, entry.sentence]);
                }
            }
        }
        let mut table = table.build();
        table.with(Style::blank()).with(Padding::new(0, 1, 0, 0));
        table.with(Modify::new(Columns::one(2)).with(Width::wrap(42).keep_words(true)));
        writeln!(out, "{}", trimmed(&table.to_string()))?;
        let example = match self.what {
            What::Precisions => "reprocheck explain precision lmul:m=4,scope=attention",
            What::Orders => "reprocheck explain order split-k:rows --rows 4",
        };
        writeln!(out, "\nTo see one: {example}")?;
        Ok(Exit::Held)
    }
}

fn trimmed(table: &str) -> String {
    table.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}
