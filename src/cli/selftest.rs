//! `reprocheck selftest`: would a matrix see a fault? Each is put in, and its observer asked.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use clap::Args;

use super::{Ended, Exit, Format, interrupt::Interrupt, progress::Readings, report::look};
use crate::{
    engine::Engines,
    plan::Plan,
    report::{
        text::headed,
        words::{plural, wrapped},
    },
    run::{
        RunFailure,
        selftest::{self, FAULTS, Fate, SelfTest as Found, SelfTestError},
    },
    store,
};

/// The matrix that sees every fault.
const SHIPPED: (&str, &str) = ("suites/selftest.toml", include_str!("../../suites/selftest.toml"));

/// Would the gates of a matrix see a fault? Each is put in, and the gate that must see it is asked
#[derive(Args, Debug)]
pub(super) struct SelfTest {
    /// The matrix file; one that sees every fault where it is left out
    #[arg(long = "matrix", value_name = "FILE.toml")]
    file: Option<PathBuf>,
    /// One of its profiles
    #[arg(long, value_name = "NAME", requires = "file")]
    profile: Option<String>,
    /// The model; the matrix file's where it is left out
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// How to show the result
    #[arg(long, default_value = "text")]
    format: Format,
}

impl SelfTest {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        let (name, plan) = self.plan()?;
        let model = self.model.as_deref().or(plan.model.as_deref()).ok_or_else(|| {
            Ended::usage(anyhow!("no model is named: add --model qwen, or model = \"qwen\" to {name}"))
        })?;
        let model = super::Model::for_plan(model, &plan)?;
        let found = seeded(&plan, &name, &model)?;
        match self.format {
            Format::Text => show(&name, &found, out)?,
            Format::Json => {
                serde_json::to_writer_pretty(&mut *out, &found).map_err(std::io::Error::from)?;
                writeln!(out)?;
            }
        }
        Ok(if found.killed == found.of { Exit::Held } else { Exit::Undecided })
    }

    /// What the matrix is called, and what it means.
    fn plan(&self) -> Result<(String, Plan), Ended> {
        let (name, text) = match &self.file {
            None => (SHIPPED.0.to_owned(), SHIPPED.1.to_owned()),
            Some(file) => {
                let text = fs::read_to_string(file).map_err(|error| {
                    Ended::usage(anyhow!(
                        "cannot read {}: {error}; name a matrix file with --matrix",
                        file.display()
                    ))
                })?;
                (file.display().to_string(), text)
            }
        };
        let plan = Plan::read(Path::new(&name), &text, self.profile.as_deref());
        let plan = plan.map_err(|problems| Ended::usage(anyhow!("{problems}")))?;
        Ok((name, plan))
    }
}

/// Runs a plan once with each fault.
pub(super) fn seeded(plan: &Plan, name: &str, model: &super::Model) -> Result<Found, Ended> {
    let (subject, program) = (model.subject()?, super::program()?);
    let folder = store::temporary_folder().map_err(Ended::environment)?;
    let logs = store::run::servers(folder.path());
    let engines = Engines {
        checkpoint: model.checkpoint(),
        program: &program,
        scripts: &plan.scripts,
        servers: &plan.servers,
        logs: &logs,
        subject: &subject,
    };
    let interrupt = Interrupt::watch()?;
    let mut readings = Readings::of("fault");
    let mut tried = 0;
    let place = (folder.path(), name);
    let found = selftest::selftest(plan, &subject, engines, place, &interrupt.asked, &mut |_| {
        tried += 1;
        readings.show(tried, FAULTS.len());
    });
    drop(readings);
    match found {
        Err(SelfTestError::Run(RunFailure::Stopped)) => {
            let error = anyhow!(
                "stopped as asked, after {tried} of {} faults: nothing is kept of them",
                FAULTS.len()
            );
            Err(Ended { exit: interrupt.exit(), error })
        }
        found => Ok(found?),
    }
}

/// Every fault in a line, and below them what the matrix lacks.
fn show(name: &str, found: &Found, out: &mut impl Write) -> Result<(), Ended> {
    let look = look();
    let width = |of: &dyn Fn(&selftest::Tried) -> usize| found.faults.iter().map(of).max().unwrap_or(0);
    let (names, observers) = (width(&|tried| tried.name.len()), width(&|tried| tried.observer.len()));
    let lines = found
        .faults
        .iter()
        .map(|tried| format!("{:names$}  {:observers$}  {}\n", tried.name, tried.observer, tried.fate));
    writeln!(
        out,
        "{}",
        headed("Faults, who must see each, and what became of it", &lines.collect::<String>(), look)
    )?;
    let lacks: Vec<_> = found.faults.iter().filter_map(|tried| tried.lacks.as_ref()).collect();
    for sentence in &lacks {
        writeln!(out, "{}", wrapped(sentence, look.prose()))?;
    }
    let seen =
        format!("{name} sees {} of {}, each by its observer", found.killed, plural(found.of as u64, "fault"));
    let wrong = found.faults.iter().filter(|tried| tried.fate == Fate::WrongReason).count() as u64;
    let wrong = if wrong > 0 { format!(", and {wrong} for the wrong reason") } else { String::new() };
    writeln!(out, "{}{}{wrong}", if lacks.is_empty() { "" } else { "\n" }, seen)?;
    Ok(())
}
