//! `reprocheck suite`: the items of a suite, to read and to take elsewhere.

use std::{
    io::{self, Write},
    path::{self, PathBuf},
};

use anyhow::anyhow;
use clap::{Args, Subcommand};

use super::{Ended, Exit};
use crate::{
    store,
    suite::{Suite as Items, SuiteError, export, item::Item, style::Style},
};

#[derive(Subcommand, Debug)]
pub(super) enum Suite {
    /// Show some items: what a model is shown, and what would be right
    Show(Show),
    /// Write items as JSON lines, or as a task of lm-evaluation-harness
    Export(Export),
}

/// Which items of which suite.
#[derive(Args, Debug)]
struct Taken {
    /// The suite, see `reprocheck list suites`, or a path with a slash to your own
    name: String,
    /// The seed: another one puts other numbers in the same places
    #[arg(long, default_value = "0", value_name = "S")]
    seed: u64,
    /// How many solved examples stand before each question; they are of the same kind, and never items themselves
    #[arg(long, default_value = "0", value_name = "K", value_parser = clap::value_parser!(u8).range(..=32))]
    shots: u8,
}

#[derive(Args, Debug)]
pub(super) struct Show {
    #[command(flatten)]
    taken: Taken,
    /// How many items
    #[arg(long, default_value = "5", value_name = "N")]
    n: usize,
    /// How a model is asked: `compact`, `completion` or `chat` [default: the first that the suite has]
    #[arg(long)]
    style: Option<Style>,
}

#[derive(Args, Debug)]
pub(super) struct Export {
    #[command(flatten)]
    taken: Taken,
    /// How many items [default: as many as the suite has for most purposes]
    #[arg(long, value_name = "N")]
    n: Option<usize>,
    /// Only the items that have this style; the style of the prompts for `--lm-eval` [default there: completion]
    #[arg(long)]
    style: Option<Style>,
    /// Write the items and a task for lm-evaluation-harness into this folder
    #[arg(long, value_name = "DIR")]
    lm_eval: Option<PathBuf>,
}

impl From<SuiteError> for Ended {
    fn from(error: SuiteError) -> Ended {
        Ended::usage(error)
    }
}

impl Suite {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        match self {
            Suite::Show(show) => show.run(out),
            Suite::Export(export) => export.run(out),
        }
    }
}
/// The style, if the suite has it.
fn known(suite: &Items, style: Style) -> Result<Style, Ended> {
    let styles = suite.styles();
    if styles.contains(&style) {
        return Ok(style);
    }
    let names: Vec<_> = styles.iter().map(Style::to_string).collect();
    Err(Ended::usage(anyhow!("{} has no {style} style: choose one of {}", suite.name, names.join(", "))))
}

impl Show {
    fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        let Taken { name, seed, shots } = &self.taken;
        let suite = Items::open(name)?;
        let style = match self.style.or_else(|| suite.styles().first().copied()) {
            Some(style) => known(&suite, style)?,
            None => return Err(Ended::usage(anyhow!("{name} has no style: give it a limit for one"))),
        };
        let asked = |item: Item| Some((suite.asked(&item, *seed, style, (*shots).into())?, item));
        for (asked, item) in suite.items(*seed).filter_map(asked).take(self.n) {
            writeln!(out, "{}  {}", item.id, item.problem.stratum)?;
            for (question, answer) in &asked.shots {
                show(out, "  | ", question)?;
                show(out, "  : ", answer.trim_start())?;
            }
            show(out, "  | ", &asked.prompt)?;
            show(out, "  > ", item.problem.shown(style).trim_start())?;
            writeln!(out)?;
        }
        writeln!(out, "`|` is what a {style} prompt says, `>` what would be right: {}", suite.title)?;
        Ok(Exit::Held)
    }
}

/// Every line of a text after a mark.
fn show(out: &mut impl Write, mark: &str, text: &str) -> io::Result<()> {
    text.lines().try_for_each(|line| writeln!(out, "{}", format!("{mark}{line}").trim_end()))
}

impl Export {
    fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        let Taken { name, seed, shots } = &self.taken;
        let suite = Items::open(name)?;
        let style = self.style.map(|style| known(&suite, style)).transpose()?;
        let count = self.n.unwrap_or(suite.sizes.std as usize);
        let shots = (*shots).into();
        let Some(folder) = &self.lm_eval else {
            let wanted = |item: &Item| style.is_none_or(|style| item.problem.prompt(style).is_some());
            for item in suite.items(*seed).filter(wanted).take(count) {
                writeln!(out, "{}", suite.record(&item, *seed, shots))?;
            }
            return Ok(Exit::Held);
        };
        let style = known(&suite, style.unwrap_or(Style::Completion))?;
        let lines =
            suite.items(*seed).filter_map(|item| suite.task_line(&item, *seed, style, shots)).take(count);
        let lines: String = lines.flat_map(|line| [line, "\n".to_owned()]).collect();
        let stem = folder.join(export::task_name(&suite.name, style));
        let (data, task) = (stem.with_extension("jsonl"), stem.with_extension("yaml"));
        // The harness looks for files from wherever it is started.
        let absolute = path::absolute(&data).map_err(Ended::environment)?;
        store::write(&data, lines.as_bytes()).map_err(Ended::environment)?;
        let written = suite.task_file(style, &absolute.to_string_lossy());
        store::write(&task, written.as_bytes()).map_err(Ended::environment)?;
        writeln!(out, "{}\n{}", data.display(), task.display())?;
        Ok(Exit::Held)
    }
}
