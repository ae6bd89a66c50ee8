//! The command line: words only, one file per verb.

mod approve;
mod attest;
mod bisect;
mod calibrate;
mod certify;
mod diff;
mod doctor;
mod dot;
mod explain;
mod generate;
mod init;
mod interrupt;
mod keeper;
mod list;
mod manual;
mod merge;
mod parity;
mod plan;
mod progress;
mod report;
mod run;
mod selftest;
mod sensitivity;
mod submit;
mod suite;
mod sweep;
mod tolerance;
mod verify;
mod worker;

use std::{
    fmt,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
    str::FromStr,
};

use clap::{Parser, Subcommand, ValueEnum};

use crate::{
    cell::{Cell, map},
    engine::{child, server::process},
    model::{Checkpoint, Subject, hub::HubSettings, subject::NO_MODEL},
    plan::Plan,
    source::Blame,
};

/// What can change the output of a language model, and by how much, bit by bit.
#[derive(Parser, Debug)]
#[command(version, propagate_version = true, arg_required_else_help = true, after_help = BEGIN)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

/// Where a newcomer begins, and what every verb ends with.
const BEGIN: &str = "\
Begin with
  reprocheck init                                 a commented matrix file to begin with
  reprocheck run --matrix ci.toml                 a verdict
  reprocheck explain order split-k:rows --rows 2  one reason why a batch moves bits

Exit codes
  0           it holds, or nothing differs
  1           a gate failed, or something differs
  2           the usage or a file is wrong
  3           inconclusive: evidence is missing or there are too few items
  4           environment error (file, network, memory); a retry may help
  130 or 143  stopped by Ctrl-C or SIGTERM; `run --resume` goes on";

/// How a verb shows what it found, where it writes no report.
#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum Format {
    Text,
    Json,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Run a model under every cell of a matrix file, and judge what must hold
    Run(run::Run),
    /// Show the cells of a matrix file and what they will cost, and run nothing
    Plan(plan::Plan),
    /// Show the report of a run again, every number from its raw traces
    Report(report::Report),
    /// Where do two runs, two cells, or two logs of lm-evaluation-harness part?
    Diff(diff::Diff),
    /// Which operation makes two cells of a run part? Proved by carrying it out as the other cell does
    Bisect(bisect::Bisect),
    /// Which products bear a lower precision? The cheapest map of precisions within a budget of flips and bytes
    Sensitivity(sensitivity::Sensitivity),
    /// Would the gates of a matrix see a fault? Each is put in, and the gate that must see it is asked
    #[command(name = "selftest")]
    SelfTest(selftest::SelfTest),
    /// How far does legitimate arithmetic move the logits? A limit that it exceeds in 1 of 10,000 rows, what that sees, and a gate
    Tolerance(tolerance::Tolerance),
    /// From where to where do the values lie that products read? Measured on questions, for quantizers and for what smooths them
    Calibrate(calibrate::Calibrate),
    /// At which width do logits, tokens and texts begin to move? A ladder of formats, each narrower than the one before
    Sweep(sweep::Sweep),
    /// What do several engines show after the same tokens, and how far apart is that?
    Parity(parity::Parity),
    /// Is a finished run what its model computes? Samples that the run's own digest draws are computed again, many tokens at once
    Verify(verify::Verify),
    /// Which answers of a cell can no other order of addition change? Measured on samples, held against every margin, and scored by
    /// the cells that ran
    Certify(certify::Certify),
    /// Write the jobs of a run in parts for Slurm, Kubernetes or Snakemake, or submit them
    Submit(Box<submit::Submit>),
    /// Join the parts of a run that several machines shared, and judge the whole
    Merge(merge::Merge),
    /// Approve the digests of a run: what a gate against the baseline is held to
    Approve(approve::Approve),
    /// Write a commented matrix file to begin with, its schema, and a workflow that gates by it
    Init(init::Init),
    /// List what there is: precisions, orders, axes, suites, models
    List(list::List),
    /// Explain an order, a precision, a suite, or the gates of a matrix file
    #[command(subcommand, subcommand_value_name = "order|precision|suite|gate")]
    Explain(explain::Explain),
    /// Show or export the items of a suite
    #[command(subcommand, subcommand_value_name = "show|export")]
    Suite(suite::Suite),
    /// Continue a prompt under one cell, and show what every token was chosen from
    Generate(Box<generate::Generate>),
    // No sentence for these: it would hide the longer help of the arguments themselves.
    Attest(attest::Attest),
    Dot(dot::Dot),
    /// The JSON Schema of a matrix file, or of a report
    Schema(plan::Schema),
    /// Look at this machine: processor, kernel, memory, cache, Hub
    Doctor(doctor::Doctor),
    /// The completions of a shell: bash, elvish, fish, powershell or zsh
    Completions(manual::Completions),
    /// The manual: a page for the program, or one for every verb in a folder
    Man(manual::Man),
    /// The stock engine, for another process of this program
    #[command(name = child::ARGUMENT, hide = true)]
    EngineWorker(worker::Worker),
    /// Keeps a server, for another process of this program
    #[command(name = process::ARGUMENT, hide = true)]
    ServerKeeper(keeper::Keeper),
}

/// Why the program ends, as its exit code.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Exit {
    /// All is as it should be.
    Held = 0,
    /// Something does not hold.
    Failed = 1,
    /// The usage or the input is wrong.
    Usage = 2,
    /// Inconclusive: cells or evidence are missing, or there are too few items.
    Undecided = 3,
    /// An error of the environment: a file, the network, memory.
    Environment = 4,
    /// Ctrl-C has ended it.
    Interrupted = 130,
    /// SIGTERM has ended it.
    Terminated = 143,
}

/// An error with the exit code that belongs to it.
#[derive(Debug)]
struct Ended {
    exit: Exit,
    error: anyhow::Error,
}

impl Ended {
    fn failed(error: impl Into<anyhow::Error>) -> Ended {
        Ended { exit: Exit::Failed, error: error.into() }
    }

    fn usage(error: impl Into<anyhow::Error>) -> Ended {
        Ended { exit: Exit::Usage, error: error.into() }
    }

    fn environment(error: impl Into<anyhow::Error>) -> Ended {
        Ended { exit: Exit::Environment, error: error.into() }
    }
}

/// Of a write: what is read says so itself.
impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Ended {
        Ended::environment(anyhow::Error::new(error).context("cannot write to standard output"))
    }
}

impl<E: Blame + std::error::Error + Send + Sync + 'static> From<E> for Ended {
    fn from(error: E) -> Ended {
        if error.is_environment() { Ended::environment(error) } else { Ended::usage(error) }
    }
}

/// Opens the model that a text stands for, with a bar on the terminal while it comes from the Hub.
fn open(model: &str) -> Result<Checkpoint, Ended> {
    let mut download = progress::Download::on_terminal();
    Ok(Checkpoint::resolve(model, &HubSettings::from_environment(), &mut |step| download.show(step))?)
}

/// Whom questions are put to: a model whose files are here, or none.
struct Model(Option<Checkpoint>);

impl Model {
    fn open(model: &str) -> Result<Model, Ended> {
        Ok(Model(if model == NO_MODEL { None } else { Some(open(model)?) }))
    }

    /// With the weights that cells of a plan read.
    fn for_plan(model: &str, plan: &Plan) -> Result<Model, Ended> {
        let opened = Model::open(model)?;
        let weights = |cell: &&Cell| cell.compute.entry().weights;
        match plan.cells.iter().find(weights).filter(|_| opened.checkpoint().is_none()) {
            Some(cell) => Err(Ended::usage(anyhow::anyhow!(
                "{cell} reads a model's weights, and `{model}` has none: name another model with --model, or take such \
                 cells out"
            ))),
            None => Ok(opened),
        }
    }

    fn checkpoint(&self) -> Option<&Checkpoint> {
        self.0.as_ref()
    }

    /// The weights of a run's model; where it has none, a sentence says what that makes impossible.
    fn weights(&self, lacks: &str) -> Result<&Checkpoint, Ended> {
        self.checkpoint().ok_or_else(|| {
            Ended::usage(anyhow::anyhow!("the run has no model, so {lacks}: name a run that has one"))
        })
    }

    fn subject(&self) -> Result<Subject<'_>, Ended> {
        Ok(match &self.0 {
            Some(checkpoint) => {
                let _waiting =
                    progress::Waiting::until("still reading the model's files, whose digest names it");
                Subject::of(checkpoint)?
            }
            None => Subject::none(),
        })
    }
}

/// This program: the stock engine runs in a process of its own.
fn program() -> Result<PathBuf, Ended> {
    std::env::current_exe().map_err(|error| {
        Ended::environment(anyhow::anyhow!(
            "cannot tell where this program lies ({error}): start it by its path"
        ))
    })
}

/// Reads the arguments, runs the verb, and says how it went.
#[must_use]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = io::BufWriter::new(io::stdout());
    let ended = match cli.verb {
        Verb::List(list) => list.run(&mut out),
        Verb::Explain(explain) => explain.run(&mut out),
        Verb::Suite(suite) => suite.run(&mut out),
        Verb::Dot(dot) => dot.run(io::BufReader::new(io::stdin()), &mut out),
        Verb::Generate(generate) => generate.run(&mut out),
        Verb::Plan(plan) => plan.run(&mut out),
        Verb::Run(run) => run.run(&mut out),
        Verb::Report(report) => report.run(&mut out),
        Verb::Submit(submit) => submit.run(&mut out),
        Verb::Merge(merge) => merge.run(&mut out),
        Verb::Approve(approve) => approve.run(&mut out),
        Verb::Attest(attest) => attest.run(&mut out),
        Verb::Diff(diff) => diff.run(&mut out),
        Verb::Bisect(bisect) => bisect.run(&mut out),
        Verb::Sensitivity(sensitivity) => sensitivity.run(&mut out),
        Verb::SelfTest(selftest) => selftest.run(&mut out),
        Verb::Tolerance(tolerance) => tolerance.run(&mut out),
        Verb::Calibrate(calibrate) => calibrate.run(&mut out),
        Verb::Sweep(sweep) => sweep.run(&mut out),
        Verb::Parity(parity) => parity.run(&mut out),
        Verb::Verify(verify) => verify.run(&mut out),
        Verb::Certify(certify) => certify.run(&mut out),
        Verb::Schema(schema) => schema.run(&mut out),
        Verb::Init(init) => init.run(&mut out),
        Verb::Completions(completions) => completions.run(&mut out),
        Verb::Man(man) => man.run(&mut out),
        Verb::Doctor(doctor) => doctor.run(&mut out),
        Verb::ServerKeeper(keeper) => keeper.run(io::BufReader::new(io::stdin()), &mut out),
        Verb::EngineWorker(worker) => worker.run(io::BufReader::new(io::stdin()), &mut out),
    };
    let ended = ended.and_then(|exit| Ok(out.flush().map(|()| exit)?));
    ExitCode::from(match ended {
        Ok(exit) => exit as u8,
        // Whoever reads our output has read enough.
        Err(ended) if is_broken_pipe(&ended.error) => Exit::Held as u8,
        Err(ended) => {
            complain(&format!("error: {:#}", ended.error));
            ended.exit as u8
        }
    })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
}

/// A precision or a cell by its name, in which the file of a map may stand that lies where the program runs.
fn named<T: FromStr<Err: fmt::Display>>(text: &str) -> Result<T, String> {
    let name = map::in_its_words(text, Path::new("")).map_err(|problems| problems.to_string())?;
    name.parse().map_err(|error: T::Err| error.to_string())
}

/// A number of rows, threads or terms.
fn up_to(most: usize) -> impl Fn(&str) -> Result<usize, String> + Clone {
    move |text| {
        let number = text.parse().ok().filter(|number| (1..=most).contains(number));
        number.ok_or_else(|| match most {
            usize::MAX => "write a number from 1 up".to_owned(),
            _ => format!("write a number from 1 to {most}"),
        })
    }
}

/// A line on stderr; if even that fails there is no other way to tell.
fn complain(line: &dyn fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{line}");
}

/// Is this a job of a CI, without a person who watches or approves?
#[expect(clippy::disallowed_methods, reason = "it moves no bit")]
fn in_ci() -> bool {
    std::env::var_os("CI").is_some_and(|ci| !ci.is_empty() && ci != "false" && ci != "0")
}

/// Is this a terminal that cannot move its cursor?
#[expect(clippy::disallowed_methods, reason = "it moves no bit")]
fn is_dumb() -> bool {
    std::env::var_os("TERM").is_some_and(|term| term == "dumb")
}
