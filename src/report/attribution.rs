//! Which parts of a model carry a difference, in sentences and a table.

use tabled::builder::Builder;

use super::{
    text::aligned,
    words::{grouped, nats, plural, share},
};
use crate::{
    cause::{
        Distance,
        attribution::{Attributed, Attribution, By, Together},
    },
    stats::proportion::Proportion,
};

/// So many parts stand in a table for a person; the others are counted.
const SHOWN: usize = 16;
/// The part of a whole that concentration is told for.
const MOST: f64 = 0.8;

/// How far two cells are from each other, and how few parts carry that.
pub(crate) fn sentences(attribution: &Attribution) -> Vec<String> {
    let Attribution { by, whole, units, idle, together } = attribution;
    let mut sentences = vec![format!("B is apart from A: {}.", distance(whole))];
    let all = units.len() + idle;
    sentences.push(match idle {
        0 => format!("None of {} is idle.", count(by, all)),
        _ => format!(
            "Of {}, {} idle: both cells give the same there from the same inputs.",
            count(by, all),
            if *idle == 1 { "1 is".to_owned() } else { format!("{} are", grouped(*idle as u64)) }
        ),
    });
    // More of them may do less: that many count from which on it stays so.
    let enough = |of: &dyn Fn(&Distance) -> Option<f64>| {
        let stays =
            together.iter().rev().take_while(|some| of(&some.left).is_some_and(|share| share >= MOST));
        stays.last().map(|some| some.units)
    };
    let takes = |units: Option<usize>, does: &str, whole: &str| match units {
        Some(units) => format!(
            "It takes the first {} of {} together to {does} at least {} of the {whole}.",
            grouped(units as u64),
            grouped(all as u64),
            percent(MOST)
        ),
        None => format!("All of them together do not {does} {} of the {whole}.", percent(MOST)),
    };
    if whole.flips > 0 {
        sentences.push(takes(enough(&|left| attribution.undone(left)), "undo", "flips"));
    }
    sentences.push(takes(enough(&|left| attribution.removed(left)), "remove", "divergence"));
    sentences
}

fn count(by: &By, all: usize) -> String {
    let what = match by {
        By::Layer => "layers and operations outside of them",
        By::Head => "heads and other parts",
        By::Site => "operations",
    };
    format!("{} {what}", grouped(all as u64))
}

/// How far a cell is from another.
pub(crate) fn distance(distance: &Distance) -> String {
    let Distance { places, flips, divergence } = *distance;
    let mean = divergence.map_or_else(
        || "a divergence that is not finite".to_owned(),
        |mean| format!("a mean divergence of {} nats", nats(mean)),
    );
    format!(
        "another token first at {} of {} ({}), {mean}",
        grouped(flips),
        plural(places, "place"),
        share(Proportion { hits: flips, of: places })
    )
}

fn percent(share: f64) -> String {
    // No minus stands before a 0.
    format!("{:.0} %", (100.0 * share).round() + 0.0)
}

/// The strongest parts, each by itself.
pub(crate) fn units(attribution: &Attribution) -> String {
    let mut table = Builder::default();
    table.push_record(["part", "undone", "removed", "made", "divergence"]);
    for Attributed { unit, left, made } in attribution.units.iter().take(SHOWN) {
        table.push_record([
            unit.to_string(),
            attribution.undone(left).map_or_else(|| "-".to_owned(), percent),
            attribution.removed(left).map_or_else(|| "-".to_owned(), percent),
            grouped(made.flips),
            made.divergence.map_or_else(|| "-".to_owned(), nats),
        ]);
    }
    let rest = attribution.units.len().saturating_sub(SHOWN);
    let more = if rest > 0 { format!("\nand {} more", grouped(rest as u64)) } else { String::new() };
    aligned(table, 1..5) + &more + "\n"
}

/// What the first few do together.
pub(crate) fn together(attribution: &Attribution) -> String {
    let mut table = Builder::default();
    table.push_record(["first", "of all", "undone", "removed"]);
    let all = attribution.units.len() + attribution.idle;
    for Together { units, left } in &attribution.together {
        table.push_record([
            grouped(*units as u64),
            percent(*units as f64 / all as f64),
            attribution.undone(left).map_or_else(|| "-".to_owned(), percent),
            attribution.removed(left).map_or_else(|| "-".to_owned(), percent),
        ]);
    }
    aligned(table, 0..4) + "\n"
}
