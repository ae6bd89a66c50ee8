//! `reprocheck run`, `report`, `merge` and `approve`: from a matrix file to a verdict.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use clap::Args;

use super::{Ended, Exit, in_ci, plan::Matrix, progress};
use crate::{
    report::{self, FORMATS, Format, text::plural},
    run::{self, Event, Options, Partition, Present, merge, review},
    store::{self, run::RunError},
    verdict::{
        Outcome,
        baseline::{Baseline, Change},
    },
};

/// What is written of every run, whatever is asked for.
const ALWAYS: [&str; 2] = ["text", "json"];

/// Run a model under every cell of a matrix file, and judge what must hold
#[derive(Args, Debug)]
pub(super) struct Run {
    /// The model: `qwen`, a folder such as `./checkpoint`, or `owner/name[@revision]` on the Hub; the matrix file's where
    /// it is left out
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    #[command(flatten)]
    matrix: Matrix,
    /// Where results go [default: results/MODEL-MATRIX]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on with the run that is there
    #[arg(long, conflicts_with = "fresh")]
    resume: bool,
    /// Replace the run that is there
    #[arg(long)]
    fresh: bool,
    /// Run a part of the cells, such as slice:1/3 or hash:1/3, and judge nothing: `reprocheck merge` does
    #[arg(long, value_name = "PART")]
    partition: Option<Partition>,
    #[command(flatten)]
    shown: Shown,
}

/// How a report is made, and shown.
#[derive(Args, Debug)]
pub(super) struct Shown {
    /// The digests that gates against the baseline are held to, as `reprocheck approve` wrote them
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    /// How to write the report down; the first of several is shown, and all are written beside the run
    #[arg(long, value_delimiter = ',', default_value = "text", value_name = "FORMAT,…", long_help = formats())]
    format: Vec<Format>,
}

/// Every format with what it is for.
fn formats() -> String {
    let formats =
        FORMATS.iter().map(|format| format!("- {}: {} ({})", format.name, format.sentence, format.file));
    let formats = formats.collect::<Vec<_>>().join("\n");
    format!(
        "How to write the report down; the first of several is shown, and all are written to files:\n\n{formats}"
    )
}

/// Show the report of a run again, every number from its raw traces
#[derive(Args, Debug)]
pub(super) struct Report {
    /// The folder that `reprocheck run` wrote
    folder: PathBuf,
    /// Write every format that is asked for to this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    shown: Shown,
}

/// Join the parts of a run that several machines shared, and judge the whole
#[derive(Args, Debug)]
pub(super) struct Merge {
    /// The folders of the parts
    #[arg(required = true)]
    parts: Vec<PathBuf>,
    /// Where the whole goes
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace the run that is there
    #[arg(long)]
    fresh: bool,
    #[command(flatten)]
    shown: Shown,
}

/// Approve the digests of a run: what a gate against the baseline is held to from now on
#[derive(Args, Debug)]
pub(super) struct Approve {
    /// The folder that `reprocheck run` wrote
    folder: PathBuf,
    /// The file that holds what is approved; in CI it is compared and not written
    #[arg(long, value_name = "FILE", default_value = "baseline.json")]
    baseline: PathBuf,
}

impl Run {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        let plan = self.matrix.plan()?;
        let model = self.model.as_ref().or(plan.model.as_ref()).ok_or_else(|| {
            Ended::usage(anyhow!(
                "no model is named: add --model qwen, or model = \"qwen\" to {}",
                self.matrix.file.display()
            ))
        })?;
        let baseline = self.shown.baseline()?;
        let checkpoint = super::open(model)?;
        let folder = self.out.clone().unwrap_or_else(|| self.default_folder(model));
        let program = std::env::current_exe().map_err(|error| {
            Ended::environment(anyhow!("cannot tell where this program lies ({error}): start it by its path"))
        })?;
        let options = Options {
            out: folder.clone(),
            present: match () {
                () if self.resume => Present::Resume,
                () if self.fresh => Present::Replace,
                () => Present::Refuse,
            },
            partition: self.partition,
            program,
            matrix: (self.matrix.file.display().to_string(), self.matrix.profile.clone()),
        };
        let mut cells = progress::Cells::new();
        run::run(&plan, &checkpoint, &options, &mut |event: Event<'_>| cells.show(event))?;
        drop(cells);
        if let Some(partition) = self.partition {
            writeln!(
                out,
                "{partition} has run: join the parts with `reprocheck merge DIR… --out DIR`; this one is {}",
                folder.display()
            )?;
            return Ok(Exit::Held);
        }
        self.shown.judge(&folder, baseline.as_ref(), out)
    }

    /// `results/qwen-ci`: the model and the matrix, as far as they make a name.
    fn default_folder(&self, model: &str) -> PathBuf {
        let stem = |path: &Path| path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let kept = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_') { c } else { '-' };
        let model: String = model.trim_matches(['.', '/']).chars().map(kept).collect();
        let profile = self.matrix.profile.iter().map(|profile| format!("-{profile}")).collect::<String>();
        Path::new("results").join(format!("{model}-{}{profile}", stem(&self.matrix.file)))
    }
}

impl Report {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        let baseline = self.shown.baseline()?;
        if self.out.is_none() && self.shown.format.len() > 1 {
            return Err(Ended::usage(anyhow!(
                "several formats go to files: say where with --out, or name one format"
            )));
        }
        let report = review::review(&self.folder, baseline.as_ref())?.report;
        if let Some(folder) = &self.out {
            self.shown.write(&report, folder)?;
        }
        self.shown.show(&report, out)?;
        Ok(exit(report.verdict))
    }
}

impl Merge {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        let baseline = self.shown.baseline()?;
        merge::merge(&self.parts, &self.out, self.fresh).map_err(|error| match &error {
            merge::MergeError::Conflict { .. } => Ended::failed(error),
            error_ if error_.is_environment() => Ended::environment(error),
            _ => Ended::usage(error),
        })?;
        self.shown.judge(&self.out, baseline.as_ref(), out)
    }
}

impl Shown {
    fn baseline(&self) -> Result<Option<Baseline>, Ended> {
        self.baseline.as_deref().map(read_baseline).transpose()
    }

    /// Judges a run, and leaves its report beside it.
    fn judge(&self, folder: &Path, baseline: Option<&Baseline>, out: &mut impl Write) -> Result<Exit, Ended> {
        let report = review::review(folder, baseline)?.report;
        for format in FORMATS.iter().filter(|format| ALWAYS.contains(&format.name)) {
            self.write_one(&report, folder, *format)?;
        }
        self.write(&report, folder)?;
        self.show(&report, out)?;
        Ok(exit(report.verdict))
    }

    fn write(&self, report: &report::Report, folder: &Path) -> Result<(), Ended> {
        self.format.iter().try_for_each(|format| self.write_one(report, folder, *format))
    }

    fn write_one(&self, report: &report::Report, folder: &Path, format: Format) -> Result<(), Ended> {
        let text = (format.render)(report);
        store::write(&folder.join(format.file), text.as_bytes()).map_err(Ended::environment)
    }

    fn show(&self, report: &report::Report, out: &mut impl Write) -> Result<(), Ended> {
        let format = self.format.first().expect("there is a default");
        Ok(out.write_all((format.render)(report).as_bytes())?)
    }
}

fn exit(verdict: Outcome) -> Exit {
    match verdict {
        Outcome::Pass => Exit::Held,
        Outcome::Fail => Exit::Failed,
        Outcome::Undecided | Outcome::Unknown => Exit::Undecided,
    }
}

impl From<RunError> for Ended {
    fn from(error: RunError) -> Ended {
        if error.is_environment() { Ended::environment(error) } else { Ended::usage(error) }
    }
}

impl From<run::RunFailure> for Ended {
    fn from(error: run::RunFailure) -> Ended {
        if error.is_environment() { Ended::environment(error) } else { Ended::usage(error) }
    }
}

// ------------------------------------------------------------------------------------------------------- baselines

fn read_baseline(path: &Path) -> Result<Baseline, Ended> {
    let file = path.display();
    let text = fs::read_to_string(path).map_err(|error| {
        Ended::usage(anyhow!(
            "cannot read {file}: {error}; make it with `reprocheck approve DIR --baseline {file}`"
        ))
    })?;
    let wrong = |what: &dyn std::fmt::Display| {
        Ended::usage(anyhow!(
            "{file} is no baseline: {what}; remove it, and make it again with `reprocheck approve`"
        ))
    };
    let baseline: Baseline = serde_json::from_str(&text).map_err(|error| wrong(&error))?;
    match baseline.is_foreign() {
        Some(problem) => Err(wrong(&problem)),
        None => Ok(baseline),
    }
}

impl Approve {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        let reviewed = review::review(&self.folder, None)?;
        if let Some(missing) = reviewed.report.missing.first() {
            return Err(Ended::usage(anyhow!(
                "{} of its cells are missing, such as {}: finish it with --resume before it is approved",
                reviewed.report.missing.len(),
                missing.cell
            )));
        }
        let (file, new) = (self.baseline.display(), reviewed.baseline);
        let old = self.baseline.exists().then(|| read_baseline(&self.baseline)).transpose()?;
        let same_subject = old.as_ref().filter(|old| old.about == new.about);
        if old.is_some() && same_subject.is_none() {
            writeln!(
                out,
                "~ another model, other questions, or continued otherwise: nothing can be compared"
            )?;
        }
        let changes = match same_subject {
            Some(old) => new.changes_from(old),
            None => new.cells.keys().map(|name| Change::New(name.clone())).collect(),
        };
        for change in &changes {
            match change {
                Change::New(cell) => writeln!(out, "+ {cell}: {} right", new.cells[cell].right)?,
                Change::Gone(cell) => writeln!(out, "- {cell}")?,
                Change::Elsewhere(cell) => {
                    writeln!(out, "~ {cell}: another machine or version of its engine")?
                }
                Change::Changed(cell, levels, [before, now]) => {
                    let levels: Vec<_> = levels.iter().map(ToString::to_string).collect();
                    let right =
                        if before == now { String::new() } else { format!("; right {before}, now {now}") };
                    writeln!(out, "~ {cell}: other {}{right}", levels.join(", "))?;
                }
            }
        }
        if changes.is_empty() {
            writeln!(out, "{file} is up to date: {} cells", new.cells.len())?;
            return Ok(Exit::Held);
        }
        if in_ci() {
            writeln!(
                out,
                "{} pending, and CI approves none: run this elsewhere, and commit {file}",
                plural(changes.len() as u64, "change")
            )?;
            return Ok(Exit::Failed);
        }
        let mut json =
            serde_json::to_string_pretty(&new).map_err(|error| Ended::environment(anyhow!(error)))?;
        json.push('\n');
        store::write(&self.baseline, json.as_bytes()).map_err(Ended::environment)?;
        writeln!(out, "{} approved: {file}", plural(changes.len() as u64, "change"))?;
        Ok(Exit::Held)
    }
}
