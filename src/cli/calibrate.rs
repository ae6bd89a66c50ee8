//! `reprocheck calibrate`: from where to where the values lie that a model's products read, and what smooths them.

use std::{
    io::Write,
    num::NonZeroUsize,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use clap::Args;

use super::{Ended, Exit, named, progress::Readings, up_to};
use crate::{
    cell::calibration,
    numerics::{precision::Precision, smooth::Transform},
    plan::Plan,
    report::words::grouped,
    run::calibrate,
    store,
};

/// From where to where do the values lie that products read? Measured on questions, for quantizers and for what smooths them
///
/// The model answers the questions, and the smallest and the largest value of each channel is written down that a product with weights
/// reads. A matrix file names what was written: precision = "w8a8:a=tensor,calibration=FILE" gives all activations of a product one
/// scale, and where a transform was asked for, "w8a8:calibration=FILE" smooths them alone.
#[derive(Args, Debug)]
pub(super) struct Calibrate {
    /// The model
    #[arg(long, default_value = "qwen", value_name = "MODEL")]
    model: String,
    /// The suites whose questions are answered
    #[arg(long = "suite", required = true, value_delimiter = ',', value_name = "SUITES")]
    suites: Vec<String>,
    /// How many items of each suite
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = up_to(1 << 20))]
    items: usize,
    /// The seed that items are drawn by
    #[arg(long, default_value_t = 0, value_name = "N", value_parser = clap::value_parser!(u64).range(..1 << 53))]
    seed: u64,
    /// The precision that the model computes in meanwhile
    #[arg(long, default_value = "fp32", value_name = "PRECISION", value_parser = named::<Precision>)]
    precision: Precision,
    /// What smooths the inputs of products behind a norm: smooth:0.5, or os+
    #[arg(long, value_name = "TRANSFORM")]
    transform: Option<Transform>,
    /// How many prompts share a call; that moves no bit
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = up_to(1 << 20))]
    batch: usize,
    /// How many threads share the work; that moves no bit
    #[arg(long, default_value = "1", value_name = "N")]
    threads: NonZeroUsize,
    /// Write to this file
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl Calibrate {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        let threads =
            crate::numerics::sharing(self.threads).map_err(|error| Ended::usage(anyhow!("{error}")))?;
        let matrix =
            calibrate::matrix(self.precision, &self.suites, self.items as u64, self.seed, self.batch);
        let plan = Plan::read(Path::new("calibrate.toml"), &matrix, None)
            .map_err(|problems| Ended::usage(anyhow!("{problems}")))?;
        let model = super::Model::for_plan(&self.model, &plan)?;
        let subject = model.subject()?;
        let checkpoint =
            model.checkpoint().ok_or_else(|| Ended::usage(anyhow!("there is no model: name one")))?;
        let mut readings = Readings::new();
        let mut watch = |done, of| readings.show(done, of);
        let text = calibrate::calibrate(checkpoint, &subject, &plan, threads, self.transform, &mut watch)?;
        drop(readings);
        let file = self.out.display().to_string();
        // Whatever was written is read back, so that nothing is said to be there that no cell could use.
        let read = calibration::read(&file, &text).map_err(|problems| Ended::usage(anyhow!("{problems}")))?;
        store::write(&self.out, text.as_bytes()).map_err(Ended::environment)?;
        let (products, bytes) = (text.lines().count() - 1, grouped(text.len() as u64));
        writeln!(
            out,
            "{file}: {products} products of {}, {bytes} bytes; cells call it calibration={read}",
            subject.name
        )?;
        Ok(Exit::Held)
    }
}
