//! `reprocheck verify`: is a finished run what its model computes?

use std::{io::Write, path::PathBuf};

use clap::Args;
use serde::Serialize;
use tabled::builder::Builder;

use super::{
    Ended, Exit, Format,
    plan::Matrix,
    progress::Readings,
    report::{exit, look},
};
use crate::{
    report::{
        text::{Look, aligned, headed},
        words::{grouped, plural, wrapped, wrapped_after},
    },
    run::verify::{self, Difference, Mismatch, Unchecked, Verified, Wanted},
    store::run::Run,
    verdict::Outcome,
};

/// Is a finished run what its model computes? Samples that the run's own digest draws are computed again, many tokens at once
///
/// Of every sample of the lab it checks what needs no model: question, text, end, answer, score, launches and digests. Of the samples
/// that are drawn the model computes every token again from what was recorded before it.
#[derive(Args, Debug)]
pub(super) struct Verify {
    /// The folder that `reprocheck run` wrote
    folder: PathBuf,
    /// The model, if it is no longer where the run found it
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// How many of every cell's samples the model computes again, in percent; at least one
    #[arg(long, default_value_t = format!("{}%", verify::USUAL), value_name = "PERCENT", value_parser = percent)]
    sample: String,
    /// A number of your own that moves the draw, too: what it takes cannot be known before you choose one
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// The run's matrix file, where it asks suites that are not in this binary
    #[arg(long, value_name = "FILE.toml")]
    matrix: Option<PathBuf>,
    /// How to show the result
    #[arg(long, default_value = "text")]
    format: Format,
}

pub(super) fn share(text: &str) -> Option<f64> {
    let number = text.strip_suffix('%')?.trim_end().parse().ok();
    number.filter(|percent| *percent > 0.0 && *percent <= 100.0)
}

pub(super) fn percent(text: &str) -> Result<String, String> {
    let read = share(text).map(|_| text.to_owned());
    read.ok_or_else(|| "write a share above 0% and up to 100%, such as 5%".to_owned())
}

/// What the JSON form says.
#[derive(Serialize)]
struct Shown<'a> {
    version: &'static str,
    verdict: Outcome,
    #[serde(flatten)]
    verified: &'a Verified,
}

impl Verify {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        let run = Run::open(&self.folder)?;
        let model = super::Model::open(self.model.as_deref().unwrap_or(&run.about.model.name))?;
        let subject = model.subject()?;
        let checkpoint = model.weights("nothing can be computed again")?;
        let plan = self.matrix.clone().map(|file| Matrix { file, profile: run.about.profile.clone() }.plan());
        let plan = plan.transpose()?;
        let percent = share(&self.sample).unwrap_or(verify::USUAL);
        let wanted = Wanted { percent, seed: self.seed, plan: plan.as_ref() };
        let mut readings = Readings::new();
        let verified = verify::verify(&self.folder, checkpoint, &subject, &wanted, &mut |done, of| {
            readings.show(done, of);
        })?;
        drop(readings);
        let verdict = verified.verdict();
        match self.format {
            Format::Json => {
                let shown = Shown { version: env!("CARGO_PKG_VERSION"), verdict, verified: &verified };
                serde_json::to_writer_pretty(&mut *out, &shown).map_err(std::io::Error::from)?;
                writeln!(out)?;
            }
            Format::Text => write!(out, "{}", text(&run, &verified, look()))?,
        }
        Ok(exit(verdict))
    }
}

fn text(run: &Run, verified: &Verified, look: Look) -> String {
    let said = |sentence: String| wrapped(&sentence, look.prose()) + "\n";
    let (folder, model) = (run.folder.display(), &run.about.model.name);
    let verdict = verified.verdict();
    let sentence = match verdict {
        Outcome::Pass => format!("what was checked of {folder} is what {model} computes"),
        Outcome::Fail => format!(
            "{folder} is not what {model} computes: {} in {}",
            match verified.count {
                1 => "1 mismatch".to_owned(),
                count => format!("{} mismatches", grouped(count)),
            },
            match verified.wrong {
                0 => "what the run says of itself".to_owned(),
                wrong => plural(wrong, "sample"),
            }
        ),
        Outcome::Undecided | Outcome::Unknown => format!("nothing of {folder} could be checked"),
    };
    let word = look.outcome(verdict, &verdict.to_string().to_uppercase());
    let mut sections = vec![format!("{word}: {sentence}\n")];
    if !verified.mismatches.is_empty() {
        let mut lines: String = verified.mismatches.iter().map(|mismatch| shown(mismatch, look)).collect();
        let more = verified.count - verified.mismatches.len() as u64;
        if more > 0 {
            lines += &format!("  and {} more\n", grouped(more));
        }
        sections.push(headed("What does not hold", &lines, look));
    }
    sections.push(headed("What was checked", &checked(verified, &said), look));
    if !verified.power.is_empty() {
        sections.push(headed("What this draw finds", &power(verified, &said), look));
    }
    sections.join("\n")
}

/// A place, and below it what was recorded and what comes of it.
fn shown(Mismatch { cell, item, difference }: &Mismatch, look: Look) -> String {
    let Difference { place, what, recorded, computed } = difference;
    let cell = cell.map_or_else(|| "the run".to_owned(), |cell| cell.to_string());
    let item = item.iter().map(|item| format!(", {item}")).collect::<String>();
    let place = place.map_or_else(String::new, |place| format!(", after {}", plural(place as u64, "token")));
    let line = |begin: &str, value: &str| wrapped_after(begin, value, look.prose()) + "\n";
    line("  ", &format!("{cell}{item}{place}: {what}"))
        + &line("    recorded  ", recorded)
        + &line("    computed  ", computed)
}

/// What was checked, of how much, and what was not.
fn checked(verified: &Verified, said: &dyn Fn(String) -> String) -> String {
    let Verified { cells, items, drawn, samples, tokens, unchecked, digest, seed, .. } = verified;
    let of_lab = cells.len() as u64;
    let mut lines = String::new();
    if of_lab > 0 {
        lines += &said(format!(
            "Without the model, of all {} of {}: the question is the one that its suite makes, the text is that of the tokens, it ends \
             where it should, the answer and its score are those of the text, and launches, roots and digests fit.",
            plural(of_lab.saturating_mul(*items), "sample"),
            plural(of_lab, "cell"),
        ));
        let told = cells.iter().filter(|cell| cell.serving.has_history()).count() as u64;
        if told > 0 {
            lines += &said(format!(
                "Of {} the launches are taken as they were told: in which calls a sequence is read follows there from what was read \
                 before, and not from how long all are.",
                plural(told, "cell"),
            ));
        }
        lines += &said(format!(
            "With the model, of {} (drawn: {} of the {} of every cell): the logits, candidates, margin and probability of each of {}, and, \
             where the cell chose the token, that it follows from the logits and the noise.",
            plural(*samples, "sample"),
            grouped(*drawn),
            grouped(*items),
            plural(*tokens, "token"),
        ));
    }
    for Unchecked { who, cells, why } in unchecked {
        lines += &said(format!("Not checked: {who}, {}: {why}.", plural(*cells, "cell")));
    }
    let seed = if *seed == 0 { String::new() } else { format!(" and by --seed {seed}") };
    lines + &said(format!("The samples are drawn by the digest of the run{seed}: {digest}"))
}

/// How likely changed samples would have been found.
fn power(verified: &Verified, said: &dyn Fn(String) -> String) -> String {
    if verified.drawn == verified.items {
        return said("Every sample was drawn, so it finds whatever was changed.".to_owned());
    }
    let mut table = Builder::default();
    table.push_record(["changed samples", "found with"]);
    for power in &verified.power {
        table.push_record([grouped(power.changed), probability(power.found)]);
    }
    let fewest = verified.found_with_95_percent.map_or_else(
        || "No number of changed samples".to_owned(),
        |fewest| format!("{} or more", plural(fewest, "changed sample")),
    );
    let sentence = "That is how likely at least one of so many changed samples is drawn, however they are spread over the cells that \
                    were checked.";
    aligned(table, [0, 1]) + "\n" + &said(format!("{sentence} With 95 % it finds: {fewest}."))
}

/// In percent: 100 stands for certainty alone.
fn probability(share: f64) -> String {
    match share {
        1.0 => "100 %".to_owned(),
        _ if share > 0.999 => ">99.9 %".to_owned(),
        _ if share < 0.001 => "<0.1 %".to_owned(),
        _ => format!("{:.1} %", 100.0 * share),
    }
}
