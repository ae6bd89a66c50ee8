//! `reprocheck report`, and how every verb that judges shows its report and writes it down.

use std::{
    io::{self, IsTerminal, Write},
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use clap::Args;

use super::{Ended, Exit, approve::read_baseline, progress::Waiting};
use crate::{
    report::{
        self, FORMATS, Format, Written,
        text::{self, Look},
    },
    run::{export, review},
    store,
    verdict::{Outcome, baseline::Baseline},
};

/// What is written of every run, whatever is asked for.
const ALWAYS: [&str; 2] = ["text", "json"];
/// The page that is opened.
const PAGE: &str = "html";

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

/// How a run is judged, and its report shown.
#[derive(Args, Debug)]
pub(super) struct Shown {
    /// The digests that gates against the baseline are held to, as `reprocheck approve` wrote them
    #[arg(long, value_name = "FILE")]
    baseline: Option<PathBuf>,
    #[command(flatten)]
    formats: Formats,
}

/// How a report is written down.
#[derive(Args, Debug)]
pub(super) struct Formats {
    /// How to write the report down; the first of several is shown, and all are written to files
    #[arg(long, value_delimiter = ',', default_value = "text", value_name = "FORMAT,…", long_help = formats())]
    format: Vec<Format>,
    /// Write the page, too, and open it in a browser
    #[arg(long)]
    pub(super) open: bool,
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

impl Report {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        let baseline = self.shown.baseline()?;
        let formats = &self.shown.formats;
        if self.out.is_none() {
            formats.need_no_folder("--out")?;
        }
        let report = review::review(&self.folder, baseline.as_ref())?.report;
        let written = match &self.out {
            Some(folder) => formats.write(&report, Some(&self.folder), folder)?,
            None => Vec::new(),
        };
        formats.show(&report, &written, out)?;
        formats.open(&report, self.out.as_ref().unwrap_or(&self.folder))?;
        Ok(exit(report.verdict))
    }
}

impl Shown {
    pub(super) fn baseline(&self) -> Result<Option<Baseline>, Ended> {
        self.baseline.as_deref().map(read_baseline).transpose()
    }

    /// Judges a run, and leaves its report beside it.
    pub(super) fn judge(
        &self,
        folder: &Path,
        baseline: Option<&Baseline>,
        out: &mut impl Write,
    ) -> Result<Exit, Ended> {
        let waiting = Waiting::until("still reading the traces again, from which the verdict follows");
        let report = review::review(folder, baseline)?.report;
        drop(waiting);
        let asked = |name| self.formats.format.iter().any(|format| format.name == name);
        for format in FORMATS.iter().filter(|format| ALWAYS.contains(&format.name) && !asked(format.name)) {
            write(&report, Some(folder), folder, *format)?;
        }
        let written = self.formats.write(&report, Some(folder), folder)?;
        self.formats.show(&report, &written, out)?;
        self.formats.open(&report, folder)?;
        Ok(exit(report.verdict))
    }
}

impl Formats {
    /// Was something asked for that is not usual?
    pub(super) fn are_asked_for(&self) -> bool {
        self.open || !matches!(&self.format[..], [format] if format.name == "text")
    }

    /// Without a folder there is only what can be shown.
    pub(super) fn need_no_folder(&self, option: &str) -> Result<(), Ended> {
        match &self.format[..] {
            [format] if matches!(format.written, Written::Text(_)) => Ok(()),
            [format] => {
                Err(Ended::usage(anyhow!("{} goes to several files: say where with {option}", format.name)))
            }
            _ => Err(Ended::usage(anyhow!(
                "several formats go to files: say where with {option}, or name one format"
            ))),
        }
    }

    /// Writes every format that is asked for. `run` is the folder of the run, if it is one. Returns the files.
    pub(super) fn write(
        &self,
        report: &report::Report,
        run: Option<&Path>,
        folder: &Path,
    ) -> Result<Vec<Vec<PathBuf>>, Ended> {
        self.format.iter().map(|format| write(report, run, folder, *format)).collect()
    }

    /// Shows the first format, as the terminal takes it, or which files it went to.
    pub(super) fn show(
        &self,
        report: &report::Report,
        written: &[Vec<PathBuf>],
        out: &mut impl Write,
    ) -> Result<(), Ended> {
        let format = self.format.first().expect("there is a default");
        match format.written {
            Written::Text(_) if format.name == "text" => {
                write!(out, "{}", text::shown(report, look()))?;
            }
            Written::Text(render) => out.write_all(render(report).as_bytes())?,
            Written::Files(_) | Written::Samples => {
                for file in written.iter().take(1).flatten() {
                    writeln!(out, "{}", file.display())?;
                }
            }
        }
        Ok(())
    }

    /// Writes the page to a folder, and opens it, if that is asked for.
    pub(super) fn open(&self, report: &report::Report, folder: &Path) -> Result<(), Ended> {
        if !self.open {
            return Ok(());
        }
        let page = FORMATS.iter().find(|format| format.name == PAGE).expect("the page is a format");
        for file in write(report, None, folder, *page)? {
            open::that_detached(&file).map_err(|error| {
                Ended::environment(anyhow!(
                    "cannot open a browser ({error}): the page is {}, open it by hand",
                    file.display()
                ))
            })?;
        }
        Ok(())
    }
}

/// Writes one format to a folder. Returns its files.
fn write(
    report: &report::Report,
    run: Option<&Path>,
    folder: &Path,
    format: Format,
) -> Result<Vec<PathBuf>, Ended> {
    let path = folder.join(format.file);
    match format.written {
        Written::Text(render) => {
            store::write(&path, render(report).as_bytes()).map_err(Ended::environment)?;
            Ok(vec![path])
        }
        Written::Files(render) => {
            let files = render(report).into_iter();
            files
                .map(|(name, text)| {
                    let file = path.join(name);
                    store::write(&file, text.as_bytes()).map_err(Ended::environment)?;
                    Ok(file)
                })
                .collect()
        }
        Written::Samples => {
            let run = run.ok_or_else(|| {
                Ended::usage(anyhow!(
                    "{} has the samples of one run: ask `reprocheck report` for it",
                    format.name
                ))
            })?;
            let exported = export::lm_eval(run, &path)?;
            Ok(exported.written.into_iter().map(|(_, folder)| folder).collect())
        }
    }
}

/// How this terminal shows a report; a pipe gets what a file has.
pub(super) fn look() -> Look {
    let stdout = io::stdout();
    if !stdout.is_terminal() {
        return Look::PLAIN;
    }
    let width = terminal_size::terminal_size().map_or(Look::PLAIN.width, |(width, _)| width.0.into());
    let color = anstream::AutoStream::choice(&stdout) != anstream::ColorChoice::Never;
    Look { width, color }
}

pub(super) fn exit(verdict: Outcome) -> Exit {
    match verdict {
        Outcome::Pass => Exit::Held,
        Outcome::Fail => Exit::Failed,
        Outcome::Undecided | Outcome::Unknown => Exit::Undecided,
    }
}
