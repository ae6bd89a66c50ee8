//! What is drawn under several seeds: coverage and votes of every configuration, and how far the draw and the settings move
//! their means.

use super::{
    Report,
    table::{Column, Table},
    words::{points, share},
};
use crate::stats::Interval;

/// A row for every precision that is drawn.
pub(super) fn moves(report: &Report) -> Table {
    let families = report.families();
    let rows: Vec<_> = families
        .iter()
        .filter_map(|family| {
            let draws = family.row.draws.as_ref()?;
            let of_all = draws.configurations.iter().map(|row| row.right).sum();
            let deviations = [draws.deviation, draws.deviation_of_draws, draws.deviation_of_flips];
            let [deviation, floor, flips] = deviations.map(|deviation| points(deviation, 3));
            let counts = [draws.configurations.len() as u64, draws.seeds].map(|count| count.to_string());
            Some(
                [vec![family.name.clone()], counts.to_vec(), vec![share(of_all), floor, deviation, flips]]
                    .concat(),
            )
        })
        .collect();
    let deviations = families.iter().filter_map(|family| {
        let draws = family.row.draws.as_ref()?;
        Some((draws.deviation?, draws.deviation_of_draws?, draws.seeds))
    });
    let told = deviations.max_by(|one, other| one.0.total_cmp(&other.0)).map_or_else(String::new, |(settings, floor, seeds)| {
        format!(
            " Over {seeds} seeds the draw moves pass@1 by {} pp, settings that should make no difference by {} pp at most.",
            points(Some(floor), 3),
            points(Some(settings), 3)
        )
    });
    Table {
        title: "What the draw moves, and what settings move".to_owned(),
        columns: [
            &[Column::word("precision")][..],
            &["configurations", "seeds", "pass@1", "draw", "Std@Pass@1", "flips"].map(Column::number),
        ]
        .concat(),
        rows,
        sentence: format!(
            "The mean over items and seeds, and three deviations of it in percentage points: under other seeds (the floor of the \
             draw), from configuration to configuration under the same ones, and what that would be if flips were coin tosses.{told}"
        ),
        noun: "precision",
        alike: None,
    }
}

/// A row for every configuration that is drawn, the worst first.
pub(super) fn configurations(report: &Report) -> Table {
    let mut all: Vec<_> = report
        .precisions
        .iter()
        .filter_map(|row| row.draws.as_ref())
        .flat_map(|draws| &draws.configurations)
        .collect();
    all.sort_by_key(|row| row.right.hits);
    let most = all.iter().filter_map(|row| row.sizes.keys().last()).max().copied();
    let rows = all.into_iter().map(|row| {
        let size = |k: Option<u64>| row.sizes.get(&k?);
        let percent = |share: Option<f64>| {
            share.map_or_else(|| "-".to_owned(), |share| format!("{:.1} %", 100.0 * share))
        };
        let pass = |k| percent(size(k).and_then(|size| size.pass));
        let interval = size(most).and_then(|size| size.interval);
        let interval = interval.map_or_else(String::new, |Interval { lower, upper }| {
            format!("{:.1} to {:.1} %", 100.0 * lower, 100.0 * upper)
        });
        let majority = percent(size(most).and_then(|size| size.majority));
        let best = percent(size(most).and_then(|size| size.best));
        let first = |voters| size(most).and_then(|size| size.shortest.get(&voters));
        let (one, three) = (first(1), first(3));
        let tokens = three.map_or_else(|| "-".to_owned(), |first| format!("{:.0}", first.tokens));
        let [one, three] = [one, three].map(|first| percent(first.map(|first| first.right)));
        vec![
            row.cell.to_string(),
            share(row.right),
            pass(Some(2)),
            pass(Some(4)),
            pass(most),
            interval,
            majority,
            best,
            one,
            three,
            tokens,
        ]
    });
    Table {
        title: "Configurations that draw, the worst first".to_owned(),
        rows: rows.collect(),
        columns: [
            &[Column::word("configuration")][..],
            &["pass@1", "pass@2", "pass@4", "pass@n"].map(Column::number),
            &[Column::extra("95 % interval")],
            &[Column::number("maj@n"), Column::extra("best of n")],
            &["short-1@n", "short-3@n", "its tokens"].map(Column::of_page),
        ]
        .concat(),
        sentence: format!(
            "Of n = {} answers under as many seeds, in the mean of the items: how often one of k is right (pass@k), how often the one \
             that most of all give is (maj@n), how often the one with the likeliest tokens is (best of n), and how often the vote of \
             those that end first is (short-m@n, with the tokens that all n have written by then).{}",
            most.unwrap_or_default(),
            left_out(report)
        ),
        noun: "configuration",
        alike: None,
    }
}

/// Which configurations are not told of, in a sentence.
fn left_out(report: &Report) -> String {
    let left_out =
        report.precisions.iter().filter_map(|row| row.draws.as_ref()).map(|draws| draws.left_out).sum();
    match left_out {
        0 => String::new(),
        1 => " 1 configuration did not run under every seed and is left out.".to_owned(),
        more => format!(" {more} configurations did not run under every seed and are left out."),
    }
}
