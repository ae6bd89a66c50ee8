//! `reprocheck bisect`: which operation makes two cells of a run part, which parts of the model carry their difference, and which
//! order comes nearest to an engine that nobody looks into.

use std::{io::Write, num::NonZeroUsize, path::PathBuf};

use clap::{
    Args,
    builder::{PossibleValuesParser, TypedValueParser as _},
};
use serde::Serialize;
use tabled::builder::Builder;

use super::{
    Ended, Exit, Format, named,
    progress::{Readings, Waiting},
    report::look,
    up_to,
};
use crate::{
    cause::{
        Cause,
        attribution::{Attribution, By},
        likeness::Likeness,
    },
    cell::Cell,
    compare::Divergence,
    model::{Checkpoint, Subject},
    report::{
        attribution, cause, likeness,
        parting::{PARTING, parting},
        text::{Look, aligned, headed},
        words::{grouped, plural, wrapped},
    },
    run::{
        bisect::{self, Bisected, Wanted},
        foreign::{self, Likened},
        panel::{self, Asked, Attributed},
    },
    store::run::Run,
};

/// Which operation makes two cells of a run part? Proved by carrying it out as the other cell does
///
/// What the operations of other engines than the lab give cannot be seen. There it says which declared precision and order
/// gives what the engine showed, or comes nearest to it.
#[derive(Args, Debug)]
pub(super) struct Bisect {
    /// The folder that `reprocheck run` wrote
    folder: PathBuf,
    /// Two cells of it, by their names [default: those that first part in its report]
    #[arg(num_args = 2, value_names = ["CELL", "CELL"], value_parser = named::<Cell>)]
    cells: Vec<Cell>,
    /// An item in which they part, by its name [default: the first]
    #[arg(long, value_name = "ID")]
    item: Option<String>,
    /// The model, if it is no longer where the run found it
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Instead: which parts of the model carry the difference of the two cells? Each is put into the one as the other has it
    #[arg(long, value_name = "PART", value_parser = PossibleValuesParser::new(By::NAMES).map(|name| name.parse::<By>().expect("it is a name")))]
    by: Option<By>,
    /// On how many items, the first whose logits differ
    #[arg(long, default_value_t = 4, value_name = "N", value_parser = up_to(1 << 20), requires = "by", conflicts_with = "item")]
    items: usize,
    /// How many sets of operations may be tried, to find the fewest that make the divergence
    #[arg(long, default_value_t = bisect::USUAL.0, value_name = "N", value_parser = up_to(1 << 20))]
    tries: usize,
    /// How many tokens are read at once here, at most; that moves no bit
    #[arg(long, default_value_t = bisect::USUAL.1, value_name = "N")]
    together: NonZeroUsize,
    /// How many places of an engine other than the lab are held against each precision and order, at most
    #[arg(long, default_value_t = foreign::PLACES, value_name = "N")]
    places: NonZeroUsize,
    /// How to show the result
    #[arg(long, default_value = "text")]
    format: Format,
}

/// What the JSON form says of parts.
#[derive(Serialize)]
struct Parts<'a> {
    version: &'static str,
    cells: [Cell; 2],
    items: &'a [String],
    attribution: &'a Attribution,
}

/// What the JSON form says.
#[derive(Serialize)]
struct Shown<'a> {
    version: &'static str,
    cells: [Cell; 2],
    divergence: &'a Divergence,
    cause: &'a Cause,
}

/// What it says where not both cells are looked into.
#[derive(Serialize)]
struct Alike<'a> {
    version: &'static str,
    cells: [Cell; 2],
    divergence: &'a Option<Divergence>,
    likenesses: Vec<OfCell<'a>>,
}

#[derive(Serialize)]
struct OfCell<'a> {
    cell: Cell,
    #[serde(flatten)]
    likeness: &'a Likeness,
}

impl Bisect {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        let run = Run::open(&self.folder)?;
        let model = self.model.as_deref().unwrap_or(&run.about.model.name);
        let model = super::Model::open(model)?;
        let subject = model.subject()?;
        let checkpoint = model.weights("there are no operations to look into")?;
        let cells = <[Cell; 2]>::try_from(&self.cells[..]).ok();
        if let Some(by) = self.by {
            let item = self.item.as_deref();
            let asked = Asked { cells, item, items: self.items, by, together: self.together };
            let mut readings = Readings::new();
            let found = panel::attribute(&self.folder, checkpoint, &subject, &asked, &mut |done, of| {
                readings.show(done, of)
            })?;
            drop(readings);
            return self.show_parts(&found, out);
        }
        let wanted = Wanted { cells, item: self.item.as_deref(), tries: self.tries, together: self.together };
        let two = bisect::cells(&bisect::opened(&self.folder, &subject)?, wanted.cells)?;
        let wanted = Wanted { cells: Some(two), ..wanted };
        if two.iter().any(foreign::is_foreign) {
            return self.likened(&run, (checkpoint, &subject), &wanted, out);
        }
        let waiting = Waiting::until("still reading again what both cells read");
        let found = bisect::bisect(&self.folder, checkpoint, &subject, &wanted)?;
        drop(waiting);
        match self.format {
            Format::Json => {
                let Bisected { cells, divergence, cause, .. } = &found;
                let shown = Shown { version: env!("CARGO_PKG_VERSION"), cells: *cells, divergence, cause };
                serde_json::to_writer_pretty(&mut *out, &shown).map_err(std::io::Error::from)?;
                writeln!(out)?;
            }
            Format::Text => show(&run, &found, out)?,
        }
        // Of other cells or items no report tells. What was found is said first: the folder may take nothing.
        if cells.is_none() && self.item.is_none() {
            out.flush()?;
            bisect::keep(&self.folder, &found)?;
        }
        Ok(Exit::Held)
    }

    fn show_parts(&self, found: &Attributed, out: &mut impl Write) -> Result<Exit, Ended> {
        let Attributed { cells, items, attribution } = found;
        if self.format == Format::Json {
            let parts = Parts { version: env!("CARGO_PKG_VERSION"), cells: *cells, items, attribution };
            serde_json::to_writer_pretty(&mut *out, &parts).map_err(std::io::Error::from)?;
            writeln!(out)?;
            return Ok(Exit::Held);
        }
        let look = look();
        let lines = |sentences: Vec<String>| -> String {
            sentences.iter().map(|sentence| wrapped(sentence, look.prose()) + "\n").collect()
        };
        let read = format!(
            "Both read what A wrote for {}, each place by itself.",
            plural(items.len() as u64, "item")
        );
        let [a, b] = cells;
        let said = format!("  A  {a}\n  B  {b}\n")
            + &lines([vec![read], attribution::sentences(attribution)].concat());
        writeln!(out, "{}", headed("Which parts of the model carry the difference", &said, look))?;
        let explained = "Put into B as A has it: the share of flips undone and of divergence removed. Put into A as B has it: the \
                         flips made, and the divergence.";
        let parts = wrapped(explained, look.prose()) + "\n\n" + &attribution::units(attribution);
        writeln!(out, "{}", headed("Each part by itself", &parts, look))?;
        let first = attribution::together(attribution);
        write!(out, "{}", headed("The first of them together, put into B as A has them", &first, look))?;
        Ok(Exit::Held)
    }

    fn likened(
        &self,
        run: &Run,
        (checkpoint, subject): (&Checkpoint, &Subject<'_>),
        wanted: &Wanted<'_>,
        out: &mut impl Write,
    ) -> Result<Exit, Ended> {
        let waiting =
            Waiting::until("still reading under every precision and order what the engine has read");
        let found = foreign::likened(&self.folder, checkpoint, subject, wanted, self.places)?;
        drop(waiting);
        let Likened { cells, divergence, likenesses } = &found;
        if let Format::Json = self.format {
            let likenesses =
                likenesses.iter().map(|(cell, likeness)| OfCell { cell: *cell, likeness }).collect();
            let shown = Alike { version: env!("CARGO_PKG_VERSION"), cells: *cells, divergence, likenesses };
            serde_json::to_writer_pretty(&mut *out, &shown).map_err(std::io::Error::from)?;
            writeln!(out)?;
            return Ok(Exit::Held);
        }
        let look = look();
        match divergence {
            Some(divergence) => writeln!(out, "{}", parted(run, cells, divergence, look)?)?,
            None => {
                let [a, b] = cells;
                let sentence = format!("Nowhere is {a} seen to part from {b}.");
                writeln!(out, "{}\n", wrapped(&sentence, look.prose()))?;
            }
        }
        let shown = likenesses.iter().map(|(cell, likeness)| {
            let sentences = likeness::sentences(cell, likeness);
            let mut lines: String =
                sentences.iter().map(|sentence| wrapped(sentence, look.prose()) + "\n").collect();
            if !likeness.tried.is_empty() {
                let (table, sentence) = likeness::table(likeness);
                lines += &format!("\n{table}\n{}\n", wrapped(&sentence, look.prose()));
            }
            headed(&likeness::heading(cell), &lines, look)
        });
        write!(out, "{}", shown.collect::<Vec<_>>().join("\n"))?;
        Ok(Exit::Held)
    }
}

/// Where two cells part, below a heading.
fn parted(run: &Run, cells: &[Cell; 2], divergence: &Divergence, look: Look) -> Result<String, Ended> {
    let vocabulary = run.vocabulary()?;
    let name = |token: u32| vocabulary.get(token as usize).map(|text| format!("{text:?}"));
    let name = |token: u32| name(token).unwrap_or_else(|| token.to_string());
    let lines = parting(&cells.map(|cell| cell.to_string()), &[], divergence, &name, look.prose());
    Ok(headed(PARTING, &lines, look))
}

fn show(
    run: &Run,
    Bisected { cells, divergence, cause, .. }: &Bisected,
    out: &mut impl Write,
) -> Result<(), Ended> {
    let look = look();
    writeln!(out, "{}", parted(run, cells, divergence, look)?)?;

    let sentences: Vec<_> =
        cause::sentences(cause).iter().map(|sentence| wrapped(sentence, look.prose()) + "\n").collect();
    writeln!(out, "{}", headed("Why", &sentences.concat(), look))?;

    let mut table = Builder::default();
    table.push_record(["after", "values", "other bits", "most steps", "of", "relative"]);
    for growth in &cause.growth {
        let apart = &growth.apart;
        table.push_record([
            growth.operation.to_string(),
            grouped(apart.values as u64),
            grouped(apart.moved as u64),
            grouped(apart.steps),
            apart.format.clone(),
            match apart.relative {
                None => "-".to_owned(),
                Some(0.0) => "0".to_owned(),
                Some(relative) => format!("{relative:.1e}"),
            },
        ]);
    }
    let title = format!("How the difference grows, for position {} of {}", cause.tokens - 1, cause.tokens);
    write!(out, "{}", headed(&title, &(aligned(table, [1, 2, 3, 5]) + "\n"), look))?;
    Ok(())
}
