//! What comes nearest to an engine that nobody looks into, in sentences and a table.

use tabled::builder::Builder;

use super::{
    text::aligned,
    words::{grouped, plural},
};
use crate::{
    cause::likeness::{Likeness, Tried},
    cell::Cell,
    numerics::{Numerics, agreement::BITS, total::mean},
    trace::Sight,
};

/// So many rows are shown, and names of those that are alike; more are counted.
const ROWS: usize = 10;
const NAMED: usize = 4;
/// It takes more bits than this to be farther from orders than they are from one another.
const APART: f64 = 1.0;

/// What stands above it.
pub(crate) fn heading(cell: &Cell) -> String {
    format!("What comes nearest to {cell}")
}

/// What a person reads of it.
pub(crate) fn sentences(cell: &Cell, likeness: &Likeness) -> Vec<String> {
    let Likeness { sight, items, places, numbers, tried } = likeness;
    let Some(best) = tried.first() else {
        return vec![format!(
            "What its operations give cannot be seen, and {cell} shows nothing of what its tokens were chosen from, so there \
             is nothing to hold an order against: let it show log-probabilities."
        )];
    };
    let shown = match sight {
        Sight::Logits => "a digest of all logits, and the best of them",
        _ => "the best log-probabilities",
    };
    let count = tried.iter().map(|tried| tried.numerics.len() as u64).sum();
    let mut sentences = vec![format!(
        "What its operations give cannot be seen, but it shows {shown}: {} at {} of {}. The lab has read the same tokens in \
         {} of precision and order.",
        plural(*numbers, "number"),
        plural(*places, "place"),
        plural(*items, "item"),
        plural(count, "declared pair")
    )];
    sentences.push(if likeness.explains(best) { explained(likeness, best) } else { nearest(likeness, best) });
    if !likeness.explains(best) {
        sentences.extend(apart(tried, best));
    }
    sentences
}

/// One has everything that was shown.
fn explained(likeness: &Likeness, best: &Tried) -> String {
    let places = grouped(likeness.places);
    let has = match best.whole {
        Some(_) => format!("all logits of all {places} places, bit for bit"),
        None => format!("every number that it shows at all {places} places, to less than a step of f32"),
    };
    let Some((first, alike)) = best.numerics.split_first() else { return String::new() };
    // Where less than all is shown, others may have that much.
    let others = likeness.tried[1..].iter().filter(|tried| likeness.explains(tried));
    let others: Vec<Numerics> =
        alike.iter().chain(others.flat_map(|tried| &tried.numerics)).copied().collect();
    let told = match others.len() {
        0 => "No other that was tried has.".to_owned(),
        1 => format!(
            "So has {}: what was read does not tell them apart, and more places may.",
            listed(&others)
        ),
        _ => format!(
            "So have {}: what was read does not tell them apart, and more places may.",
            listed(&others)
        ),
    };
    format!("{first} explains it: it has {has}. {told}")
}

/// None has, and this one comes nearest.
fn nearest(likeness: &Likeness, best: &Tried) -> String {
    let Tried { numerics, whole, same, bits, .. } = best;
    let named = listed(numerics);
    let agree = if numerics.len() == 1 { "agrees" } else { "agree" };
    let bits = format!("{} of {BITS:.0} bits on average", decimal(*bits));
    let places = grouped(likeness.places);
    match whole
        .filter(|whole| *whole > 0)
        .map(|whole| (whole, "all logits"))
        .or(Some((*same, "all numbers shown")))
    {
        Some((count @ 1.., what)) => format!(
            "None has its bits everywhere. The nearest, {named}, {agree} in {what} at {} of {places} places, and in {bits}.",
            grouped(count)
        ),
        _ => format!("None has its bits at any place. The nearest, {named}, {agree} in {bits}."),
    }
}

/// Whether it is farther from the orders of that precision than they are from one another, and how far off others are.
fn apart(tried: &[Tried], best: &Tried) -> Vec<String> {
    let Some(first) = best.numerics.first() else { return Vec::new() };
    let own = first.precision();
    // Each order of it, with the bits in which it agrees with the engine, and with the nearest.
    let of_own = tried.iter().flat_map(|tried| {
        let own = tried.numerics.iter().filter(move |numerics| numerics.precision() == own);
        own.map(|numerics| (*numerics, tried.bits, tried.bits_of_nearest))
    });
    let others: Vec<_> = of_own.filter(|(numerics, ..)| numerics != first).collect();
    let mut sentences = Vec::new();
    if let Some(among) = mean(others.iter().map(|(.., bits)| *bits)) {
        let bits = others.iter().map(|(_, bits, _)| *bits);
        let (least, most) = (bits.clone().fold(BITS, f64::min), bits.fold(0.0, f64::max));
        let range = format!(
            "The other {} of {own} agree with it in {} to {} bits, and with the nearest in {} on average",
            plural(others.len() as u64, "order"),
            decimal(least),
            decimal(most),
            decimal(among)
        );
        sentences.push(match among - best.bits > APART {
            true => format!("{range}: it is farther from them than they are from one another, so more than its order sets it apart."),
            false => format!("{range}: it is no farther from them than they are from one another, so its order may be all \
                              that sets it apart, and is not one of these."),
        });
    }
    let is_other = |tried: &&Tried| tried.numerics.iter().all(|numerics| numerics.precision() != own);
    sentences.extend(tried.iter().find(is_other).map(|other| {
        format!(
            "Of other precisions, the nearest is {}, with {} bits.",
            listed(&other.numerics),
            decimal(other.bits)
        )
    }));
    sentences
}

fn listed(numerics: &[Numerics]) -> String {
    let mut named: Vec<String> = numerics.iter().take(NAMED).map(ToString::to_string).collect();
    let more = numerics.len().saturating_sub(NAMED);
    if more > 0 {
        named.push(format!("{} more", grouped(more as u64)));
    }
    match named.split_last() {
        Some((last, before @ [_, ..])) => format!("{} and {last}", before.join(", ")),
        _ => named.concat(),
    }
}

/// Bits; those that are not all are not rounded up to all, but for what a formula may move of a log-probability.
fn decimal(bits: f64) -> String {
    let shown = if bits < BITS - 1e-3 { bits.min(BITS - 0.1) } else { bits };
    format!("{shown:.1}")
}

/// The nearest in rows, and how they are read.
pub(crate) fn table(likeness: &Likeness) -> (String, String) {
    let Likeness { places, tried, .. } = likeness;
    let sees_all = likeness.sight == Sight::Logits;
    let mut table = Builder::default();
    let head = ["nearest", "alike", "all logits", "shown", "bits", "mean KL"];
    let columns = |row: [String; 6]| {
        let shown = |(at, field): (usize, String)| (sees_all || at != 2).then_some(field);
        row.into_iter().enumerate().filter_map(shown).collect::<Vec<_>>()
    };
    table.push_record(columns(head.map(str::to_owned)));
    for Tried { numerics, whole, same, bits, divergence, .. } in tried.iter().take(ROWS) {
        table.push_record(columns([
            numerics.first().map_or_else(String::new, ToString::to_string),
            numerics.len().to_string(),
            whole.map_or_else(String::new, grouped),
            grouped(*same),
            decimal(*bits),
            match divergence {
                None => "infinite".to_owned(),
                Some(0.0) => "0".to_owned(),
                Some(divergence) => format!("{divergence:.1e}"),
            },
        ]));
    }
    let numbers = if sees_all { 1..6 } else { 1..5 };
    let more = tried.len().saturating_sub(ROWS);
    let more = if more > 0 { format!(" {more} more are in the JSON form.") } else { String::new() };
    let all = if sees_all { "all logits, and all numbers shown, are" } else { "all numbers shown are" };
    let sentence = format!(
        "Of {}: those at which {all} the same; in how many of {BITS:.0} bits the numbers agree; the divergence from the \
         engine, in nats, as if there were no other tokens.{more}",
        plural(*places, "place")
    );
    (aligned(table, numbers), sentence)
}
