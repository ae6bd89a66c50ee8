//! `reprocheck tolerance`: how far legitimate arithmetic moves the logits of a model, and what a limit on that sees.

use std::{
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::anyhow;
use clap::Args;
use serde::Serialize;
use tabled::builder::Builder;

use super::{Ended, Exit, Format, named, progress::Readings, report::look, up_to};
use crate::{
    compare::Measure,
    numerics::{order::Order, precision::Precision},
    plan::Plan,
    report::{
        figure,
        text::{Look, aligned, headed},
        words::{grouped, plural, wrapped},
    },
    run::tolerance::{self, CONFIDENCE, Flips, Held, Limited, Power, TOLD, Tolerance as Found, Wanted},
    stats::proportion::Proportion,
    store,
};

/// How far does legitimate arithmetic move the logits? A limit that it exceeds in 1 of 10,000 rows, what that sees, and a gate
///
/// Every order, batch and thread count of a precision reads again what one of them has written. Half of the items say where the limits
/// lie, and the other half how often they are exceeded, and after how many tokens faults and other precisions are told apart.
#[derive(Args, Debug)]
pub(super) struct Tolerance {
    /// The model
    #[arg(long, default_value = "qwen", value_name = "MODEL")]
    model: String,
    /// The precision whose arithmetic is legitimate
    #[arg(long, value_name = "PRECISION", value_parser = named::<Precision>)]
    precision: Precision,
    /// The order that the others are measured from
    #[arg(long, default_value = "sequential", value_name = "ORDER", value_parser = named::<Order>)]
    reference: Order,
    /// The suites whose questions are read
    #[arg(
        long,
        default_value = "carry_chain,mul_ladder,divmod,exec_trace",
        value_delimiter = ',',
        value_name = "SUITES"
    )]
    suites: Vec<String>,
    /// How many items of each suite
    #[arg(long, default_value_t = 64, value_name = "N", value_parser = up_to(1 << 20))]
    items: usize,
    /// How many tokens of an answer are read at most; as many as a suite says where it is left out
    #[arg(long, value_name = "N", value_parser = up_to(usize::MAX))]
    max_new_tokens: Option<usize>,
    /// The numbers of prompts that share a call, for orders that follow it
    #[arg(long, default_value = "1,8", value_delimiter = ',', value_name = "SIZES", value_parser = up_to(1 << 20))]
    batch: Vec<usize>,
    /// The numbers of threads, for orders that follow them
    #[arg(long, default_value = "1,2", value_delimiter = ',', value_name = "COUNTS", value_parser = up_to(crate::numerics::MOST_THREADS))]
    threads: Vec<usize>,
    /// So many of the settings alone, drawn by the seed
    #[arg(long, value_name = "N", value_parser = up_to(usize::MAX))]
    part: Option<usize>,
    /// Which half of the items says where the limits lie, and what is drawn
    #[arg(long, default_value_t = 0, value_name = "N")]
    seed: u64,
    /// What is held against it: faults and precisions [default: nine faults, int8, cast:e4m3, w8a8, kv:cast:e4m3, cast:e2m1]
    #[arg(long, num_args = 1.., value_name = "NAME")]
    against: Vec<String>,
    /// The share of the rows that may exceed a limit
    #[arg(long, default_value = "0.0001", value_name = "SHARE", value_parser = share)]
    rate: f64,
    /// Write the matrix of the null with its gate to this file, for `reprocheck run`
    #[arg(long, value_name = "FILE.toml")]
    out: Option<PathBuf>,
    /// Draw how soon each change is told to this file
    #[arg(long, value_name = "FILE.svg")]
    figure: Option<PathBuf>,
    /// How to show the result
    #[arg(long, default_value = "text")]
    format: Format,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| *share > 0.0 && *share < 1.0);
    share.ok_or_else(|| "write a share above 0 and below 1, such as 0.0001".to_owned())
}

/// What the JSON form says.
#[derive(Serialize)]
struct Shown<'a> {
    version: &'static str,
    model: &'a str,
    sentence: String,
    gate: String,
    #[serde(flatten)]
    tolerance: &'a Found,
}

impl Tolerance {
    pub(super) fn run(&self, out: &mut impl Write) -> Result<Exit, Ended> {
        let shapes = [&self.batch[..], &self.threads[..]];
        let matrix = tolerance::matrix(
            self.precision,
            self.reference,
            &self.suites,
            self.items as u64,
            shapes,
            self.max_new_tokens,
        );
        let plan = Plan::read(Path::new("tolerance.toml"), &matrix, None)
            .map_err(|problems| Ended::usage(anyhow!("{problems}")))?;
        let model = super::Model::for_plan(&self.model, &plan)?;
        let subject = model.subject()?;
        let checkpoint =
            model.checkpoint().ok_or_else(|| Ended::usage(anyhow!("there is no model: name one")))?;
        let usual = tolerance::usual(self.precision);
        let against = if self.against.is_empty() { &usual } else { &self.against };
        let wanted = Wanted { rate: self.rate, part: self.part, seed: self.seed, against };
        let mut readings = Readings::new();
        let found = tolerance::tolerance(checkpoint, &subject, &plan, wanted, &mut |done, of| {
            readings.show(done, of);
        })?;
        drop(readings);
        match self.format {
            Format::Json => {
                let (version, model) = (env!("CARGO_PKG_VERSION"), subject.name);
                let (sentence, gate) = (sentence(&found, self.precision), found.gate());
                let shown = Shown { version, model, sentence, gate, tolerance: &found };
                serde_json::to_writer_pretty(&mut *out, &shown).map_err(std::io::Error::from)?;
                writeln!(out)?;
            }
            Format::Text => write!(out, "{}", text(&found, self.precision, look()))?,
        }
        if let Some(file) = &self.out {
            store::write(file, format!("{matrix}\n{}", found.gate()).as_bytes())
                .map_err(Ended::environment)?;
        }
        if let Some(file) = &self.figure {
            let curves = found.powers.iter().map(|power| (power.name.clone(), power.curve.clone()));
            let figure = figure::detection(&self.precision.to_string(), TOLD, curves.collect());
            store::write(file, figure.as_bytes()).map_err(Ended::environment)?;
        }
        Ok(Exit::Held)
    }
}

fn text(found: &Found, precision: Precision, look: Look) -> String {
    let said = |sentence: String| wrapped(&sentence, look.prose()) + "\n";
    let mut sections = vec![said(sentence(found, precision))];
    sections.push(headed("Where the limits lie", &limits(found, &said), look));
    sections.push(headed("What they see", &powers(found, &said), look));
    let begin = said(format!("Under `replay`, with {} as the reference:", found.reference));
    sections.push(headed("The gate", &format!("{begin}\n{}", found.gate()), look));
    sections.join("\n")
}

/// All of it, in one sentence.
fn sentence(found: &Found, precision: Precision) -> String {
    let limit = |measure: Measure| {
        found
            .limits
            .iter()
            .find(|limited| limited.measure == measure)
            .map_or(0.0, |limited| limited.limit.limit)
    };
    let names = |of: &dyn Fn(&Power) -> bool| {
        let silent = found.powers.iter().filter(|power| power.tokens.is_none());
        let names: Vec<_> = silent.filter(|power| of(power)).map(|power| &*power.name).collect();
        Some(listed(&names)).filter(|_| !names.is_empty())
    };
    let exceeds = |power: &Power| power.beyond.rate().unwrap_or_default() > found.rate;
    let told: Vec<_> = found
        .powers
        .iter()
        .filter_map(|power| Some(format!("{} after {}", power.name, plural(power.tokens?, "token"))))
        .collect();
    let tokens = grouped(found.tokens[1]);
    let mut sentence = format!(
        "Arithmetic that {precision} leaves free moves a logit by more than {} in at most 1 of {} rows ({:.0} % confidence); AUC {TOLD} is \
         reached for {}",
        limit(Measure::LogitDifference),
        grouped((1.0 / found.rate) as u64),
        100.0 * CONFIDENCE,
        listed(&told),
    );
    if let Some(names) = names(&|power| power.moved.hits > 0 && exceeds(power)) {
        sentence += &format!(
            "; it is not within {tokens} tokens for {names}, with rows beyond a limit more often than that"
        );
    }
    if let Some(names) = names(&|power| power.moved.hits > 0 && !exceeds(power)) {
        sentence += &format!("; within {tokens} tokens no limit tells {names} from it, and only bits do");
    }
    if let Some(names) = names(&|power| power.moved.hits == 0) {
        sentence += &format!("; no bit is moved here by {names}");
    }
    sentence + "."
}

fn listed<T: AsRef<str>>(names: &[T]) -> String {
    match names {
        [] => "nothing".to_owned(),
        names => names.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(", "),
    }
}

fn limits(found: &Found, said: &dyn Fn(String) -> String) -> String {
    let mut table = Builder::default();
    table.push_record(["", "limit", "at least", "held out", "expected", ""]);
    let rows = found.limits.iter().map(|Limited { measure, limit, held_out }| {
        (measure, [limit.limit, limit.interval.lower].map(number), held_out)
    });
    let Flips { limit, interval, held_out, .. } = &found.flips;
    let flips = (&Measure::RankFlips, [*limit, interval.lower].map(percent), held_out);
    for (measure, [limit, lower], Held { rows, expected, holds }) in rows.chain([flips]) {
        let rate = rows.rate().unwrap_or_default();
        let word = if *holds {
            "within"
        } else if rate < expected.lower {
            "below"
        } else {
            "above"
        };
        let lies =
            format!("{} to {}", percent(expected.lower).trim_end_matches(" %"), percent(expected.upper));
        table.push_record([measure.to_string(), limit, lower, percent(rate), lies, word.to_owned()]);
    }
    let stands_for: u64 = found.null.iter().map(|setting| setting.stands_for).sum();
    let [items, held_out] = found.items;
    let mut lines = aligned(table, 1..5) + "\n";
    let rows = found.limits.first().map_or(0, |limited| limited.limit.rows);
    lines += &said(format!(
        "{} beside {}, which stand for {}, on {}: {}. At most a share of {} of all such rows exceeds a limit, with {:.0} % confidence, and \
         with as much a larger share exceeds what stands beside it.",
        plural(found.null.len() as u64, "setting"),
        found.reference,
        grouped(stands_for),
        plural(items, "item"),
        plural(rows, "row"),
        share_of(found.rate),
        100.0 * CONFIDENCE,
    ));
    let worth = found.limits.iter().map(|limited| limited.limit.worth);
    if let (Some(least), Some(most)) = (worth.clone().min(), worth.max()) {
        lines += &said(format!(
            "Rows of one item hang together: these count as {} to {} rows drawn one by one.",
            grouped(least),
            grouped(most)
        ));
    }
    lines += &said(format!(
        "Held out: which share of {} on {} other items exceeds each limit ({}), and where 95 % of such shares lie.",
        plural(found.flips.held_out.rows.of, "row"),
        grouped(held_out),
        listed(&found.limits.iter().map(|limited| grouped(limited.held_out.rows.hits)).collect::<Vec<_>>())
    ));
    lines
}

fn powers(found: &Found, said: &dyn Fn(String) -> String) -> String {
    let mut table = Builder::default();
    table.push_record(["", "other bits", "beyond", "AUC", "by", "tokens", "interval"]);
    let tokens =
        |tokens: Option<u64>| tokens.map_or_else(|| format!(">{}", grouped(found.tokens[1])), grouped);
    for Power { name, moved, by, auc, beyond, tokens: until, interval, .. } in &found.powers {
        let ends = match (until, interval) {
            (None, [None, None]) => String::new(),
            (_, [low, high]) => format!("{} to {}", tokens(*low), tokens(*high)),
        };
        let of = |rows: &Proportion| percent(rows.rate().unwrap_or_default());
        table.push_record([
            name.clone(),
            of(moved),
            of(beyond),
            format!("{auc:.4}"),
            short(*by).to_owned(),
            tokens(*until),
            ends,
        ]);
    }
    let mut lines = aligned(table, [1, 2, 3, 5, 6]) + "\n";
    lines += &said(format!(
        "How many rows of the reference have other bits, and how many are beyond a limit; how well one row tells the change from the null; \
         and after how many tokens the mean of a distance tells it with AUC {TOLD}, with the interval of that for other items."
    ));
    for (name, why) in &found.unread {
        lines += &said(format!("Not read: {name}: {why}."));
    }
    lines
}

/// In a word.
fn short(measure: Measure) -> &'static str {
    match measure {
        Measure::LogitDifference => "logit",
        Measure::Ulp => "ulp",
        Measure::Kl => "kl",
        Measure::RankFlips => "flips",
    }
}

/// A number with three or four digits.
fn number(value: f64) -> String {
    match value {
        value if value == 0.0 || value >= 100.0 => grouped(value as u64),
        value if value >= 0.001 => format!("{}", format!("{value:.3e}").parse().unwrap_or(value)),
        value => format!("{value:.2e}"),
    }
}

fn percent(share: f64) -> String {
    match 100.0 * share {
        0.0 => "0 %".to_owned(),
        percent if percent >= 0.0995 => format!("{percent:.1} %"),
        percent => format!("{percent:.3} %"),
    }
}

fn share_of(rate: f64) -> String {
    format!("1 in {}", grouped((1.0 / rate) as u64))
}
