//! `reprocheck diff`: where do two runs, two cells, or two logs of lm-evaluation-harness part?

use std::{io::Write, path::PathBuf};

use anyhow::anyhow;
use clap::Args;

use super::{
    Ended, Exit,
    report::{Formats, exit, look},
};
use crate::{
    compare::Level,
    engine::environment::stated,
    report::{
        CONFIDENCE,
        around::sentence_of_two,
        parting::{PARTING, parting},
        text,
        words::{excerpt, grouped, plural, wrapped},
    },
    run::diff::{self, CellDiff, DiffError, LogDiff, Side},
    stats::paired::Change,
    store::run::Run,
    verdict,
};

const WIDTH: usize = 80;

/// Where do two runs, two cells, or two logs of lm-evaluation-harness part?
#[derive(Args, Debug)]
pub(super) struct Diff {
    /// A run's folder, a file of its cells/, or a samples_*.jsonl of lm-evaluation-harness
    one: PathBuf,
    /// Another of the same kind
    other: PathBuf,
    /// What every cell of two runs must have as it was: bits, tokens or answers [default: bits]
    #[arg(long, value_name = "LEVEL")]
    require: Option<Level>,
    /// Write every format that is asked for to this folder
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    #[command(flatten)]
    formats: Formats,
}

impl Diff {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        let sides = (Side::open(&self.one)?, Side::open(&self.other)?);
        if !matches!(sides, (Side::Run(_), Side::Run(_))) && self.is_about_runs() {
            return Err(Ended::usage(anyhow!(
                "--require, --format, --out and --open are about two runs: name two folders, or leave them out"
            )));
        }
        match sides {
            (Side::Run(_), Side::Run(_)) => self.show_runs(out),
            (Side::Cell(one, a), Side::Cell(other, b)) => {
                let found = diff::cells((&one, *a), (&other, *b))?;
                show_cells(&one, &found, out)?;
                Ok(match found.tally.map_or(Some(true), |tally| tally.agrees(Level::Bits)) {
                    Some(true) => Exit::Held,
                    Some(false) => Exit::Failed,
                    None => Exit::Undecided,
                })
            }
            (Side::Log(one), Side::Log(other)) => show_logs(&diff::logs(&one, &other)?, out),
            _ => Err(DiffError::Kinds.into()),
        }
    }

    fn is_about_runs(&self) -> bool {
        self.require.is_some() || self.out.is_some() || self.formats.are_asked_for()
    }

    fn show_runs(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        if self.out.is_none() {
            self.formats.need_no_folder("--out")?;
            if self.formats.open {
                return Err(Ended::usage(anyhow!("--open writes the page: say where with --out")));
            }
        }
        let report = diff::runs(&self.one, &self.other, self.require.unwrap_or(Level::Bits))?;
        let mut written = Vec::new();
        if let Some(folder) = &self.out {
            written = self.formats.write(&report, None, folder)?;
            self.formats.open(&report, folder)?;
        }
        self.formats.show(&report, &written, out)?;
        Ok(exit(report.verdict))
    }
}

fn show_cells(
    run: &Run,
    CellDiff { cells, around, sights, tally, found }: &CellDiff,
    out: &mut impl Write,
) -> Result<(), Ended> {
    let [a, b] = cells;
    if !around.is_empty() {
        let line = |(what, [one, other]): &(String, [Option<String>; 2])| {
            format!("{what}: {} -> {}", stated(one.as_deref()), stated(other.as_deref()))
        };
        let lines: Vec<_> = around.iter().map(line).collect();
        let sentence = sentence_of_two(*cells, around);
        writeln!(out, "{}", text::around(&sentence, &lines, look()))?;
    }
    let Some(tally) = tally else {
        writeln!(out, "{a} and {b} are the same to the last bit")?;
        return Ok(());
    };
    if let Some(first) = tally.first() {
        let vocabulary = run.vocabulary()?;
        let name = |token: u32| vocabulary.get(token as usize).map(|text| format!("{text:?}"));
        let name = |token: u32| name(token).unwrap_or_else(|| token.to_string());
        let look = look();
        let lines = parting(&[a.to_string(), b.to_string()], &[], first, &name, look.prose());
        write!(out, "{}", text::headed(PARTING, &lines, look))?;
    }
    if let Some((item, nodes)) = found {
        let sentence = format!(
            "The first item that is not the same to the last bit is number {item}, found through {nodes} nodes of each tree."
        );
        writeln!(out, "{}", wrapped(&sentence, WIDTH))?;
    }
    let mut agree = Vec::new();
    let mut untold = String::new();
    for (level, noun) in Level::ALL.into_iter().zip(["bits", "tokens", "answer"]) {
        let have = if agree.is_empty() { "have " } else { "" };
        match tally.agreeing(level) {
            Some(items) => agree.push(format!("{} {have}the same {noun}", grouped(items.hits))),
            None => {
                let (blind, sight) = if sights[0] < sights[1] { (a, sights[0]) } else { (b, sights[1]) };
                let why = verdict::untold(&blind.to_string(), sight, level);
                untold += &format!("Whether {noun} are the same cannot be told: {why}. ");
            }
        }
    }
    let (items, agree) = (grouped(tally.items()), agree.join(", "));
    let sentence = format!("Of {items} items {agree}. {untold}{}", accuracy(&tally.change()));
    writeln!(out, "{}", wrapped(&sentence, WIDTH))?;
    Ok(())
}

/// What became of the accuracy.
fn accuracy(change: &Change) -> String {
    let points = |share: f64| format!("{:+.2}", 100.0 * share);
    let paired = change.counts;
    let (Some(difference), Some(interval)) = (paired.difference(), change.interval(CONFIDENCE)) else {
        return "No answer was judged in both.".to_owned();
    };
    format!(
        "{} lost and {} gained of {}: {} pp (95 %: {} to {}), p = {:.2}.",
        plural(paired.lost, "right answer"),
        grouped(paired.gained),
        grouped(paired.items()),
        points(difference),
        points(interval.lower),
        points(interval.upper),
        change.p_value()
    )
}

fn show_logs(found: &LogDiff, out: &mut impl Write) -> Result<Exit, Ended> {
    let [both, one, other] = found.documents;
    writeln!(
        out,
        "{} in both, of which {} with the same output",
        plural(both, "document"),
        grouped(found.same)
    )?;
    if one + other > 0 {
        writeln!(out, "{} in the first alone, {} in the second", plural(one, "document"), grouped(other))?;
    }
    if let Some((id, [a, b])) = &found.first {
        let shared = a.chars().zip(b.chars()).take_while(|(a, b)| a == b).count();
        writeln!(out, "\nThe first that differs is {id}, after {} characters", grouped(shared as u64))?;
        writeln!(out, "  A  {}\n  B  {}", excerpt(a, shared), excerpt(b, shared))?;
    }
    for (filter, same, paired) in &found.filters {
        let sentence = format!(
            "{filter}: the same answer for {}. {}",
            plural(*same, "document"),
            accuracy(&Change::from(*paired))
        );
        writeln!(out, "\n{}", wrapped(&sentence, WIDTH))?;
    }
    if found.filters.is_empty() {
        writeln!(out, "\nNo filter is in both, so no answers were compared.")?;
    }
    Ok(match () {
        () if found.same < both
            || found.filters.iter().any(|(_, same, paired)| *same < both || paired.flips().hits > 0) =>
        {
            Exit::Failed
        }
        () if both == 0 || one + other > 0 || found.filters.is_empty() => Exit::Undecided,
        () => Exit::Held,
    })
}
