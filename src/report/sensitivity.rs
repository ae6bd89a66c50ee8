//! How much a model feels its products in a lower precision, in sentences and a table.

use tabled::builder::Builder;

use super::{
    attribution::distance,
    text::aligned,
    words::{grouped, interval, nats, plural},
};
use crate::cause::sensitivity::{Lowered, Mapped, STEPS, Sensitivity};

/// What every product does by itself: a row for a layer, the divergence and in brackets the flips, and a star at those that the
/// map lowers.
pub(crate) fn products(Sensitivity { units, lowered, .. }: &Sensitivity) -> String {
    let mut table = Builder::default();
    let names = STEPS.map(|step| step.name().to_owned());
    table.push_record(["layer".to_owned()].into_iter().chain(names));
    for (layer, of_layer) in units.chunks(STEPS.len()).enumerate() {
        let cell = |Lowered { operation, distance, .. }: &Lowered| {
            let mean = distance.divergence.map_or_else(|| "not finite".to_owned(), nats);
            let flips = if distance.flips > 0 { format!(" ({})", distance.flips) } else { String::new() };
            let mark = if lowered.contains(operation) { " *" } else { "  " };
            format!("{mean}{flips}{mark}")
        };
        table.push_record([layer.to_string()].into_iter().chain(of_layer.iter().map(cell)));
    }
    aligned(table, 0..=STEPS.len()) + "\n"
}

/// Which map was chosen, what it saves and what it costs.
pub(crate) fn sentences(found: &Mapped, flips: f64) -> Vec<String> {
    let Mapped { items: [chose, told], sensitivity, elsewhere, expected, .. } = found;
    let Sensitivity { units, bytes, all, lowered, takes, predicted, chosen, tried } = sensitivity;
    let share = |part: u64| 100.0 * part as f64 / bytes[0].max(1) as f64;
    let mut sentences = vec![
        format!(
            "All {} lowered: {:.0} % of the bytes, {}.",
            plural(units.len() as u64, "product"),
            share(bytes[1]),
            distance(all)
        ),
        format!(
            "The cheapest map found with another token first at no more than {} % of the places lowers {} of {} (*): {} of {} bytes \
             ({:.0} %).",
            100.0 * flips,
            grouped(lowered.len() as u64),
            grouped(units.len() as u64),
            grouped(*takes),
            grouped(bytes[0]),
            share(*takes),
        ),
        format!(
            "On the {} that it was chosen by it has {}; the products by themselves add up to {} nats. {} measured.",
            plural(chose.len() as u64, "item"),
            distance(chosen),
            nats(*predicted),
            if *tried == 1 { "1 map was".to_owned() } else { format!("{tried} maps were") }
        ),
        format!(
            "On {} that had no part in the choice it has {}.",
            plural(told.len() as u64, "item"),
            distance(elsewhere)
        ),
    ];
    if expected.is_some() {
        sentences.push(format!(
            "On as many others another token will come first at {} % of the places, in 95 of 100 cases.",
            interval(*expected)
        ));
    }
    sentences
}
