//! `reprocheck run`: from a matrix file to a verdict.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use clap::Args;

use super::{Ended, Exit, plan::Matrix, progress, report::Shown};
use crate::{
    cell::Cell,
    engine::Engines,
    run::{self, Event, Options, Partition, Present},
};

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
        let model_files = super::Model::open(model)?;
        let subject = model_files.subject()?;
        let weights = |cell: &&Cell| cell.compute.entry().weights;
        if let Some(cell) = plan.cells.iter().find(weights).filter(|_| model_files.checkpoint().is_none()) {
            return Err(Ended::usage(anyhow!(
                "{cell} reads a model's weights, and `{model}` has none: name another model with --model, or take such \
                 cells out"
            )));
        }
        let folder = self.out.clone().unwrap_or_else(|| self.default_folder(model));
        let program = super::program()?;
        let engines = Engines {
            checkpoint: model_files.checkpoint(),
            program: &program,
            scripts: &plan.scripts,
            subject: &subject,
        };
        let options = Options {
            out: folder.clone(),
            present: match () {
                () if self.resume => Present::Resume,
                () if self.fresh => Present::Replace,
                () => Present::Refuse,
            },
            partition: self.partition,
            matrix: (self.matrix.file.display().to_string(), self.matrix.profile.clone()),
        };
        let mut cells = progress::Cells::new();
        run::run(&plan, &subject, &engines, &options, &mut |event: Event<'_>| cells.show(event))?;
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
