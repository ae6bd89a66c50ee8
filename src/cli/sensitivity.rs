//! `reprocheck sensitivity`: which products of a model bear a lower precision, and the cheapest map within a budget.

use std::{io::Write, path::PathBuf};

use anyhow::anyhow;
use clap::Args;
use serde::Serialize;

use super::{Ended, Exit, Format, named, progress::Readings, report::look, up_to};
use crate::{
    cause::{
        Distance,
        sensitivity::{Budget, Mapped, Sensitivity as Found},
    },
    cell::{Cell, map},
    numerics::precision::Precision,
    report::{sensitivity, text::headed, words::wrapped},
    run::{
        bisect::USUAL,
        panel::{self, Lower},
    },
    stats::Interval,
    store::{self, run::Run},
};

/// Which products bear a lower precision? The cheapest map of precisions within a budget of flips and bytes
#[derive(Args, Debug)]
pub(super) struct Sensitivity {
    /// The folder that `reprocheck run` wrote
    folder: PathBuf,
    /// The cell that is the reference, by its name [default: that of the run]
    #[arg(value_parser = named::<Cell>)]
    cell: Option<Cell>,
    /// The precision that products are lowered to, one by one
    #[arg(long, value_name = "PRECISION", value_parser = named::<Precision>)]
    to: Precision,
    /// The largest share of places where another token may come first
    #[arg(long, default_value = "0.01", value_name = "SHARE", value_parser = share)]
    flips: f64,
    /// The largest share of the bytes of these products' weights that may be left
    #[arg(long, value_name = "SHARE", value_parser = share)]
    bytes: Option<f64>,
    /// How many items are read: every other one to choose by, and the others to tell what the choice costs
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = up_to(1 << 20))]
    items: usize,
    /// The model, if it is no longer where the run found it
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Write the map to this file, which a matrix file names as `precision = "map:FILE"`
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// How to show the result
    #[arg(long, default_value = "text")]
    format: Format,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| "write a share from 0 to 1, such as 0.01".to_owned())
}

/// What the JSON form says.
#[derive(Serialize)]
struct Shown<'a> {
    version: &'static str,
    cell: Cell,
    to: String,
    map: String,
    chosen_by: &'a [String],
    told_by: &'a [String],
    sensitivity: &'a Found,
    elsewhere: Distance,
    expected: Option<Interval>,
}

impl Sensitivity {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        let run = Run::open(&self.folder)?;
        let model = super::Model::open(self.model.as_deref().unwrap_or(&run.about.model.name))?;
        let subject = model.subject()?;
        let checkpoint = model.weights("there are no products to lower")?;
        let cell = self.cell.or(run.about.reference).ok_or_else(|| {
            Ended::usage(anyhow!("the run has no reference: name the cell that the others are measured by"))
        })?;
        let budget = Budget { flips: self.flips, bytes: self.bytes };
        let lower = Lower { cell, to: self.to, budget, items: self.items, together: USUAL.1 };
        let mut readings = Readings::new();
        let found = panel::sensitivity(&self.folder, checkpoint, &subject, &lower, &mut |done, of| {
            readings.show(done, of);
        })?;
        drop(readings);
        // What was found is shown even where it cannot be kept.
        let kept =
            self.out.iter().try_for_each(|file| store::write(file, map::written(found.map).as_bytes()));
        self.show(cell, &found, kept.is_ok(), out)?;
        kept.map_err(Ended::environment)?;
        Ok(Exit::Held)
    }

    fn show(&self, cell: Cell, found: &Mapped, is_kept: bool, out: &mut impl Write) -> Result<(), Ended> {
        let Mapped { items: [chosen_by, told_by], sensitivity: measured, elsewhere, expected, map } = found;
        if self.format == Format::Json {
            let shown = Shown {
                version: env!("CARGO_PKG_VERSION"),
                cell,
                to: self.to.to_string(),
                map: map.to_string(),
                chosen_by,
                told_by,
                sensitivity: measured,
                elsewhere: *elsewhere,
                expected: *expected,
            };
            serde_json::to_writer_pretty(&mut *out, &shown).map_err(std::io::Error::from)?;
            writeln!(out)?;
            return Ok(());
        }
        let look = look();
        let measured_so = format!(
            "Each product with weights of {cell} in {}, all else as it is: the mean divergence in nats, flips in brackets, and * where the \
             map lowers it.",
            self.to
        );
        let products = wrapped(&measured_so, look.prose()) + "\n\n" + &sensitivity::products(measured);
        writeln!(out, "{}", headed("Each product by itself", &products, look))?;
        let mut lines: Vec<String> = sensitivity::sentences(found, self.flips)
            .iter()
            .map(|sentence| wrapped(sentence, look.prose()) + "\n")
            .collect();
        lines.push(match self.out.as_ref().filter(|_| is_kept) {
            Some(file) => {
                format!("{} has it, for precision = \"map:FILE\" in a matrix beside it.\n", file.display())
            }
            None => format!("As a precision: {map}\n"),
        });
        write!(out, "{}", headed("The map", &lines.concat(), look))?;
        Ok(())
    }
}
