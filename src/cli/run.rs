//! `reprocheck run`: from a matrix file to a verdict.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use clap::Args;

use super::{Ended, Exit, complain, interrupt::Interrupt, plan::Matrix, progress, report::Shown};
use crate::{
    engine::Engines,
    run::{
        self, Event, Options, Partition, Present, RunFailure,
        bisect::{self, Wanted},
    },
    source::Blame,
    store,
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
    /// Look for the operation that makes the first two cells part that do, as `reprocheck bisect` does; the same as `bisect = true` in
    /// the matrix file
    #[arg(long, conflicts_with = "partition")]
    bisect: bool,
    #[command(flatten)]
    shown: Shown,
}

impl Run {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        let plan = self.matrix.plan()?;
        let model = self.matrix.model(self.model.as_deref(), &plan)?;
        let baseline = self.shown.baseline()?;
        let model_files = super::Model::for_plan(model, &plan)?;
        let subject = model_files.subject()?;
        let folder = self.out.clone().unwrap_or_else(|| self.default_folder(model));
        let program = super::program()?;
        let logs = store::run::servers(&folder);
        let engines = Engines {
            checkpoint: model_files.checkpoint(),
            program: &program,
            scripts: &plan.scripts,
            servers: &plan.servers,
            logs: &logs,
            subject: &subject,
        };
        let interrupt = Interrupt::watch()?;
        let options = Options {
            out: folder.clone(),
            present: match () {
                () if self.resume => Present::Resume,
                () if self.fresh => Present::Replace,
                () => Present::Refuse,
            },
            partition: self.partition,
            matrix: (self.matrix.file.display().to_string(), self.matrix.profile.clone()),
            stop: interrupt.asked.clone(),
        };
        let mut cells = progress::Cells::new(interrupt.asked.clone());
        let ran = run::run(&plan, &subject, &engines, &options, &mut |event: Event<'_>| cells.show(event));
        drop(cells);
        match ran {
            Err(stopped @ RunFailure::Stopped) => {
                return Err(Ended { exit: interrupt.exit(), error: stopped.into() });
            }
            ran => ran?,
        };
        drop(interrupt);
        if let Some(partition) = self.partition {
            writeln!(
                out,
                "{partition} has run: join the parts with `reprocheck merge DIR… --out DIR`; this one is {}",
                folder.display()
            )?;
            if plan.bisect {
                complain(&format!(
                    "`bisect` in {} is not followed by a part: `reprocheck bisect DIR` does it once the parts are joined",
                    self.matrix.file.display()
                ));
            }
            return Ok(Exit::Held);
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
