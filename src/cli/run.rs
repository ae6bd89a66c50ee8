//! `reprocheck run`: from a matrix file to a verdict.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use clap::Args;

use super::{
    Ended, Exit, complain,
    interrupt::Interrupt,
    plan::Matrix,
    progress::{self, Readings},
    report::{Shown, exit, look},
};
use crate::{
    engine::Engines,
    model::Subject,
    plan::Plan,
    record::{Part, SelfTested},
    run::{
        self, Event, Options, Present, RunFailure, Which,
        bisect::{self, BisectError, Wanted},
        certify,
    },
    source::Blame,
    store::{self, run::Locked},
    verdict::Outcome,
};

/// Run a model under every cell of a matrix file, and judge what must hold
#[derive(Args, Debug)]
pub(super) struct Run {
    /// The model: `qwen`, a folder such as `./checkpoint`, `./file.gguf`, or `owner/name[@revision]` on the Hub; the matrix file's where
    /// it is left out
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    #[command(flatten)]
    matrix: Matrix,
    #[command(flatten)]
    place: Place,
    /// Run one of so many parts that take about as long as each other, such as 1/3, in a folder of its own below that of the run, and
    /// judge nothing: `reprocheck merge` does. `reference` runs what all others read where the matrix file says `replay`
    #[arg(long, value_name = "PART")]
    part: Option<Part>,
    /// An earlier run: what its cells took tells how to divide this one. Every part must be told the same
    #[arg(long, value_name = "DIR", requires = "part")]
    like: Option<PathBuf>,
    /// Take the reference from another run, instead of running it again
    #[arg(long, value_name = "DIR")]
    reference: Option<PathBuf>,
    /// Look for the operation that makes the first two cells part that do, as `reprocheck bisect` does; the same as `bisect = true` in
    /// the matrix file
    #[arg(long, conflicts_with = "part")]
    bisect: bool,
    /// Seed faults afterwards, one at a time, and hold the gates to seeing each, as `reprocheck selftest` does: the matrix runs once for
    /// every fault. The same as `selftest = true` in the matrix file
    #[arg(long, conflicts_with_all = ["part", "certify"])]
    selftest: bool,
    /// Run of every precision of the lab the first cell alone, and certify it: which answers none of the others would change. With
    /// `--resume` and without this the others run as well, and `reprocheck certify` scores the certificate
    #[arg(long, conflicts_with_all = ["part", "bisect"])]
    certify: bool,
    #[command(flatten)]
    shown: Shown,
}

/// Where a run goes, and what becomes of one that is there.
#[derive(Args, Debug)]
pub(super) struct Place {
    /// Where results go [default: results/MODEL-MATRIX]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Go on with the run that is there
    #[arg(long, conflicts_with = "fresh")]
    resume: bool,
    /// Replace the run that is there
    #[arg(long)]
    fresh: bool,
}

impl Place {
    pub(super) fn folder(&self, model: &str, matrix: &str) -> PathBuf {
        folder(self.out.as_deref(), model, matrix)
    }

    pub(super) fn present(&self) -> Present {
        match () {
            () if self.resume => Present::Resume,
            () if self.fresh => Present::Replace,
            () => Present::Refuse,
        }
    }
}

/// The folder of a run; `results/qwen-ci` of the model and the matrix, as far as they make a name, unless one is named.
pub(super) fn folder(named: Option<&Path>, model: &str, matrix: &str) -> PathBuf {
    let kept = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '.' | '_') { c } else { '-' };
    let model: String = model.trim_matches(['.', '/']).chars().map(kept).collect();
    named.map_or_else(|| Path::new("results").join(format!("{model}-{matrix}")), Path::to_owned)
}

/// Runs cells of a plan, and shows how far they are.
pub(super) fn carry_out(plan: &Plan, model: &super::Model, options: Options) -> Result<(), Ended> {
    let (subject, program) = (model.subject()?, super::program()?);
    let logs = store::run::servers(&options.folder());
    let engines = Engines {
        checkpoint: model.checkpoint(),
        program: &program,
        scripts: &plan.scripts,
        servers: &plan.servers,
        logs: &logs,
        subject: &subject,
    };
    let interrupt = Interrupt::watch()?;
    let options = Options { stop: interrupt.asked.clone(), ..options };
    let mut cells = progress::Cells::new(interrupt.asked.clone());
    let ran = run::run(plan, &subject, &engines, &options, &mut |event: Event<'_>| cells.show(event));
    drop(cells);
    match ran {
        Err(stopped @ RunFailure::Stopped) => Err(Ended { exit: interrupt.exit(), error: stopped.into() }),
        ran => Ok(ran.map(|_| ())?),
    }
}

impl Run {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        let plan = self.matrix.plan()?;
        let model = self.matrix.model(self.model.as_deref(), &plan)?;
        let baseline = self.shown.baseline()?;
        let model_files = super::Model::for_plan(model, &plan)?;
        let subject = model_files.subject()?;
        let folder = self.place.folder(model, &self.matrix.name());
        let which = match self.part {
            Some(part) => Which::Part(part),
            None if self.certify => Which::Firsts,
            None => Which::All,
        };
        if self.part == Some(Part::Reference) && plan.reference.is_none() {
            return Err(Ended::usage(anyhow!(
                "{} names no reference, so there is none to run: add [reference], or run a part such as 1/2",
                self.matrix.file.display()
            )));
        }
        let matrix = (self.matrix.file.display().to_string(), self.matrix.profile.clone());
        let options = Options {
            which,
            reference: self.reference.clone(),
            like: self.like.clone(),
            ..Options::of_all(folder.clone(), self.place.present(), matrix)
        };
        carry_out(&plan, &model_files, options)?;
        if let Some(part) = self.part {
            let place = folder.display();
            writeln!(
                out,
                "part {part} has run: `reprocheck merge {place}` joins all parts there, and judges"
            )?;
            let file = self.matrix.file.display();
            if plan.bisect {
                complain(&format!(
                    "`bisect` in {file} is not followed by a part: `reprocheck bisect DIR` does it once the parts are joined"
                ));
            }
            if plan.selftest {
                complain(&format!(
                    "`selftest` in {file} is not followed by a part: `reprocheck selftest --matrix {file}` does it"
                ));
            }
            return Ok(Exit::Held);
        }
        if self.certify {
            return self.certified(&folder, &model_files, &subject, &plan, out);
        }
        if let (true, Some(checkpoint)) = (self.bisect || plan.bisect, model_files.checkpoint()) {
            let _waiting =
                progress::Waiting::until("still looking for the operation that makes two cells part");
            match bisect::bisect(&folder, checkpoint, &subject, &Wanted::default()) {
                Ok(found) => bisect::keep(&folder, &found)?,
                // What was asked first is the verdict.
                Err(error) if !error.is_environment() => complain(&format!("no cause is told: {error}")),
                Err(error) => return Err(error.into()),
            }
        }
        if self.selftest || plan.selftest {
            self.test(&folder, &plan, &model_files)?;
        }
        self.shown.judge(&folder, baseline.as_ref(), out)
    }

    /// Seeds faults under the gates of the run, unless it is known what they see, and keeps what they do.
    fn test(&self, folder: &Path, plan: &Plan, model: &super::Model) -> Result<(), Ended> {
        let run = store::run::Run::open(folder)?;
        let about = run.about.digest();
        if run.tested()?.is_some_and(|tested| tested.about == about) {
            return Ok(());
        }
        match super::selftest::seeded(plan, &self.matrix.file.display().to_string(), model) {
            Ok(found) => {
                let lacks = found.faults.into_iter().filter_map(|tried| tried.lacks).collect();
                let tested = SelfTested { about, of: found.of as u64, lacks };
                Locked::new(folder)?.tested(&tested).map_err(Ended::environment)
            }
            // What was asked first is the verdict.
            Err(Ended { exit: Exit::Usage, error }) => {
                complain(&format!("no fault is seeded: {error}"));
                Ok(())
            }
            Err(ended) => Err(ended),
        }
    }

    /// The certificate of the first cell of every family.
    fn certified(
        &self,
        folder: &Path,
        model: &super::Model,
        subject: &Subject<'_>,
        plan: &Plan,
        out: &mut impl Write,
    ) -> Result<Exit, Ended> {
        let firsts = certify::firsts(&plan.cells);
        let checkpoint = model.checkpoint().filter(|_| !firsts.is_empty()).ok_or_else(|| {
            Ended::usage(anyhow!(
                "{} has no cell of the lab, so nothing can be certified: take --certify out",
                self.matrix.file.display()
            ))
        })?;
        let mut verdicts = Vec::new();
        for (number, cell) in firsts.into_iter().enumerate() {
            let mut readings = Readings::new();
            let wanted = certify::Wanted { cell: Some(cell), ..certify::Wanted::default() };
            let certificate = certify::certify(folder, checkpoint, subject, wanted, &mut |done, of| {
                readings.show(done, of)
            });
            drop(readings);
            if number > 0 {
                writeln!(out)?;
            }
            match certificate {
                Ok(certificate) => {
                    write!(out, "{}", super::certify::text(&certificate, look()))?;
                    verdicts.push(certificate.verdict());
                }
                Err(error @ BisectError::Refused(_)) => {
                    complain(&format!("no certificate: {error}"));
                    verdicts.push(Outcome::Unknown);
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(exit(verdicts.into_iter().max().unwrap_or(Outcome::Unknown)))
    }
}
