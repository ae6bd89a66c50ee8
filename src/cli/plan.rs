//! `reprocheck plan` and `schema`: what a matrix file means before anything runs, and what may stand in one.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::anyhow;
use clap::{ArgGroup, Args, ValueEnum};
use serde_json::{Value, json};
use tabled::builder::Builder;

use super::{Ended, Exit, up_to};
use crate::{
    engine::Engines,
    plan::{self, keys},
    report::{
        Report,
        text::aligned,
        words::{grouped, plural},
    },
    run::{
        division::{self, Stretch},
        forecast,
        pace::in_words,
    },
};

/// Show the cells of a matrix file and what they will cost, and run nothing
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("of a model").multiple(true).args(["time", "parts"]))]
pub(super) struct Plan {
    #[command(flatten)]
    matrix: Matrix,
    /// Measure how long a run will take here: it loads the model, and has it read the longest prompt and choose a few tokens
    /// under every cell that computes differently
    #[arg(long)]
    time: bool,
    /// The model to measure, or to divide by; the matrix file's where it is left out
    #[arg(long, value_name = "MODEL", requires = "of a model")]
    model: Option<String>,
    /// Divide the cells into so many parts that take about as long as each other, as `reprocheck run --part 1/N` does
    #[arg(long, value_name = "N", value_parser = up_to(MOST_PARTS))]
    parts: Option<usize>,
    /// An earlier run: what its cells took tells how to divide this one
    #[arg(long, value_name = "DIR", requires = "parts")]
    like: Option<PathBuf>,
    /// How to show it
    #[arg(long, default_value = "text")]
    format: Shown,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Shown {
    /// For a person
    Text,
    /// For a program
    Json,
    /// The outputs of a job of GitHub: `parts`, for a matrix of jobs, `cells` and `samples`
    Github,
}

/// No job array and no matrix of jobs has more.
pub(super) const MOST_PARTS: usize = 10_000;

/// Which matrix.
#[derive(Args, Debug)]
pub(super) struct Matrix {
    /// The matrix file
    #[arg(long = "matrix", value_name = "FILE.toml")]
    pub(super) file: PathBuf,
    /// One of its profiles
    #[arg(long, value_name = "NAME")]
    pub(super) profile: Option<String>,
}

impl Matrix {
    /// The plan that the file means.
    pub(super) fn plan(&self) -> Result<plan::Plan, Ended> {
        let file = self.file.display();
        let text = fs::read_to_string(&self.file).map_err(|error| {
            Ended::usage(anyhow!("cannot read {file}: {error}; name a matrix file with --matrix"))
        })?;
        plan::Plan::read(Path::new(&self.file), &text, self.profile.as_deref()).map_err(|problems| {
            Ended::usage(match problems.count() {
                1 => anyhow!("{problems}"),
                count => anyhow!("{count} problems in {file}\n{problems}"),
            })
        })
    }

    /// What the file and the profile are called, as a part of a folder's name.
    pub(super) fn name(&self) -> String {
        let stem = self.file.file_stem().unwrap_or_default().to_string_lossy();
        let profile = self.profile.iter().map(|profile| format!("-{profile}")).collect::<String>();
        format!("{stem}{profile}")
    }

    /// The model of the command line, or that of the file.
    pub(super) fn model<'m>(&self, named: Option<&'m str>, plan: &'m plan::Plan) -> Result<&'m str, Ended> {
        named.or(plan.model.as_deref()).ok_or_else(|| {
            Ended::usage(anyhow!(
                "no model is named: add --model qwen, or model = \"qwen\" to {}",
                self.file.display()
            ))
        })
    }
}

impl Plan {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        let plan = self.matrix.plan()?;
        let time = if self.time { Some(self.measure(&plan)?) } else { None };
        let parts = match self.parts {
            // Their names alone follow from their number.
            Some(_) if self.format == Shown::Github => Vec::new(),
            Some(parts) => {
                let model = super::Model::for_plan(self.matrix.model(self.model.as_deref(), &plan)?, &plan)?;
                division::parts(&plan, &model.subject()?, self.like.as_deref(), parts)?
            }
            None => Vec::new(),
        };
        match self.format {
            Shown::Text => {
                text(&plan, out)?;
                divided(&parts, out)?;
                if let Some((time, refused)) = time {
                    writeln!(
                        out,
                        "about {} here, if every prompt is as long as its suite's longest and every answer as long as it may be",
                        in_words(time)
                    )?;
                    if refused > 0 {
                        writeln!(out, "{} of these cells cannot run here", grouped(refused as u64))?;
                    }
                }
            }
            Shown::Json => {
                let mut json = as_json(&plan);
                if let Some((time, _)) = time {
                    json["seconds"] = json!(time.as_secs());
                }
                if !parts.is_empty() {
                    json["parts"] = parts_as_json(&parts);
                }
                writeln!(out, "{json:#}")?;
            }
            Shown::Github => write!(out, "{}", outputs(&plan, self.parts.unwrap_or(1)))?,
        }
        Ok(Exit::Held)
    }

    /// How long it takes, and how many cells cannot run.
    fn measure(&self, plan: &plan::Plan) -> Result<(Duration, usize), Ended> {
        let model = super::Model::for_plan(self.matrix.model(self.model.as_deref(), plan)?, plan)?;
        let (subject, program) = (model.subject()?, super::program()?);
        let logs = std::env::temp_dir();
        let engines = Engines {
            checkpoint: model.checkpoint(),
            program: &program,
            scripts: &plan.scripts,
            servers: &plan.servers,
            logs: &logs,
            subject: &subject,
        };
        Ok(forecast::at_most(plan, &subject, &engines)?)
    }
}

/// The JSON Schema of a matrix file, for the completion of an editor, or of a JSON report, for a program that reads one
#[derive(Args, Debug)]
pub(super) struct Schema {
    /// Of what
    #[arg(default_value = "matrix")]
    what: Described,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Described {
    /// What may stand in a matrix file
    Matrix,
    /// What `--format json` writes
    Report,
}

impl Schema {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        let schema = match self.what {
            Described::Matrix => keys::schema(),
            Described::Report => Report::schema(),
        };
        writeln!(out, "{schema:#}")?;
        Ok(Exit::Held)
    }
}

/// A line for each output of a job.
fn outputs(plan: &plan::Plan, of: usize) -> String {
    let (cells, (items, _)) = (plan.cells.len(), plan.cost());
    let parts: Vec<_> = (1..=of).map(|part| format!("{part}/{of}")).collect();
    let samples = (cells as u64).saturating_mul(items);
    format!("parts={}\ncells={cells}\nsamples={samples}\n", json!(parts))
}

/// The parts, each with its stretches and how many items these have.
type Parts = [Vec<(Stretch, u64)>];

fn divided(parts: &Parts, out: &mut impl Write) -> Result<(), Ended> {
    for (part, number) in parts.iter().zip(1..) {
        let samples = part.iter().map(|(_, items)| items).sum();
        writeln!(out, "\npart {number}/{}: {} samples", parts.len(), grouped(samples))?;
        for (stretch, items) in part {
            let of = if stretch.is_whole() {
                String::new()
            } else {
                format!("  {} of its items", grouped(*items))
            };
            writeln!(out, "  {}{of}", stretch.cell)?;
        }
    }
    Ok(())
}

fn parts_as_json(parts: &Parts) -> Value {
    let of_stretch = |(stretch, items): &(Stretch, u64)| {
        let cell = stretch.cell.to_string();
        json!({ "cell": cell, "items": items, "whole": stretch.is_whole() })
    };
    let part = |(part, number): (&Vec<(Stretch, u64)>, usize)| {
        let cells: Vec<_> = part.iter().map(of_stretch).collect();
        json!({ "part": format!("{number}/{}", parts.len()), "cells": cells })
    };
    parts.iter().zip(1..).map(part).collect()
}

fn text(plan: &plan::Plan, out: &mut impl Write) -> Result<(), Ended> {
    let mut table = Builder::default();
    table.push_record(["suite", "items", "style", "tokens each, at most"]);
    for asked in &plan.suites {
        table.push_record([
            asked.suite.name.clone(),
            grouped(asked.items),
            asked.style.map_or_else(|| "as suits the model".to_owned(), |style| style.to_string()),
            grouped(plan.most_tokens(asked)),
        ]);
    }
    writeln!(out, "{}\n", aligned(table, [1, 3]))?;
    let references = plan.references();
    for cell in &plan.cells {
        let note = if references.has(*cell) { "  the reference" } else { "" };
        writeln!(out, "{cell}{note}")?;
    }
    for (number, gate) in plan.gates.iter().enumerate() {
        let space = if number == 0 { "\n" } else { "" };
        let count = plural(plan.comparisons(gate) as u64, "comparison");
        writeln!(out, "{space}gate: {} ({count})", gate.name)?;
    }
    let (items, _) = plan.cost();
    let cells = plan.cells.len() as u64;
    writeln!(
        out,
        "\n{} cells x {} items = {} samples, at most {} new tokens",
        grouped(cells),
        grouped(items),
        grouped(cells.saturating_mul(items)),
        grouped(plan.most_tokens_of_all()),
    )?;
    Ok(())
}

fn as_json(plan: &plan::Plan) -> Value {
    let (items, _) = plan.cost();
    let suites = plan.suites.iter().map(|asked| {
        json!({
            "name": asked.suite.name,
            "items": asked.items,
            "style": asked.style.map(|style| style.to_string()),
            "max-new-tokens": plan.most_tokens(asked),
        })
    });
    let gates = plan
        .gates
        .iter()
        .map(|gate| json!({ "name": gate.name, "line": gate.line, "comparisons": plan.comparisons(gate) }));
    json!({
        "model": plan.model,
        "suites": suites.collect::<Vec<_>>(),
        "reference": plan.reference.map(|cell| cell.to_string()),
        "cells": plan.cells.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "gates": gates.collect::<Vec<_>>(),
        "samples": (plan.cells.len() as u64).saturating_mul(items),
        "max-new-tokens": plan.most_tokens_of_all(),
    })
}
