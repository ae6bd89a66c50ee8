//! The gates of a matrix file: what each compares, and within which limits.

use std::{collections::BTreeSet, ops::Range};

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{Reader, many, tables, text};
use crate::{
    cell::{Axis, Cell},
    compare::Measure,
    plan::{
        Generation,
        gate::{Comparison, Filter, Gate, LIMITS, Limit},
        shape::{self, Form, Key},
    },
};

impl Reader<'_, '_> {
    pub(super) fn gates(
        &mut self,
        has_reference: bool,
        cells: &[Cell],
        generation: &Generation,
    ) -> Vec<Gate> {
        let mut gates: Vec<Gate> = Vec::new();
        for (span, table) in tables(self.table.get("gate")) {
            let before = self.problems.count();
            let gate = self.gate(span.clone(), table, has_reference, cells);
            self.possible_under_replay(table, generation);
            if let Some(other) = gates.iter().find(|other| other.name == gate.name) {
                let sentence = format!(
                    "gate `{}` is already defined in line {}: choose another name",
                    gate.name, other.line
                );
                self.problems.add(table.get("name").map_or(span, Spanned::span), sentence);
            }
            if self.problems.count() == before {
                gates.push(gate);
            }
        }
        gates
    }

    fn gate(&mut self, span: Range<usize>, table: &DeTable<'_>, has_reference: bool, cells: &[Cell]) -> Gate {
        let before = self.problems.count();
        let filter = table.get("where").and_then(|value| value.get_ref().as_table());
        let filter = filter.map(|table| self.filter(table, cells)).unwrap_or_default();
        let comparison = self.comparison(&span, table, has_reference);
        let limits = self.limits(&span, table, &comparison);
        self.drawn_often_enough(table, &filter, cells);
        let named = table.get("name").and_then(text).map(str::to_owned);
        let name = named.unwrap_or_else(|| describe(&comparison, &limits));
        let gate = Gate { name, line: self.problems.line(span.start), filter, comparison, limits };
        if self.problems.count() > before || cells.is_empty() {
            return gate;
        }
        let about: Vec<_> = cells.iter().filter(|cell| gate.filter.matches(cell)).collect();
        let place = table.get("where").map_or(span, Spanned::span);
        if about.is_empty() {
            self.problems.add(place, "no cell has all of these values, so nothing is gated: name others");
            return gate;
        }
        // The reference is the first cell, if there is one.
        if gate.comparison == Comparison::Reference && about.iter().all(|cell| **cell == cells[0]) {
            self.problems
                .add(place, "only the reference has these values, so nothing is compared: name others");
            return gate;
        }
        if let Comparison::Within(vary) = &gate.comparison {
            let place = table.get("vary").map_or(place, Spanned::span);
            for axis in vary {
                let first = about[0].get(*axis);
                if about.iter().all(|cell| cell.get(*axis) == first) {
                    let sentence = format!(
                        "`{axis}` does not vary: all these cells have {first}; give [matrix] another value, or take it out"
                    );
                    self.problems.add(place.clone(), sentence);
                }
            }
            if gate.groups(cells).iter().all(|group| group.len() < 2) {
                self.problems.add(
                    place,
                    "no two of these cells differ on these axes alone, so nothing is compared: vary other axes",
                );
            }
        }
        gate
    }

    /// Whoever reads what the reference wrote has its answers, so nothing can be asked of them.
    fn possible_under_replay(&mut self, table: &DeTable<'_>, generation: &Generation) {
        if !generation.replay {
            return;
        }
        for (_, value, limit) in limits_of(table).filter(|(.., limit)| limit.needs_answers()) {
            let way_out = match limit {
                Limit::Require(_) => "require tokens or bits",
                _ => "take it out, or take `replay` out",
            };
            let sentence = format!(
                "under `replay` every cell has the answers of the reference, so this cannot fail: {way_out}"
            );
            self.problems.add(value.span(), sentence);
        }
    }

    /// What is said of several answers to one item needs as many seeds.
    fn drawn_often_enough(&mut self, table: &DeTable<'_>, filter: &Filter, cells: &[Cell]) {
        let seeds: BTreeSet<_> =
            cells.iter().filter(|cell| filter.matches(cell)).map(|cell| cell.serving.seed).collect();
        let k = table.get(PASS_AT).and_then(|value| Some((value.span(), shape::count(value.get_ref())?)));
        for (key, value, _) in limits_of(table).filter(|(.., limit)| limit.is_of_configurations()) {
            if seeds.len() == 1 {
                let sentence = format!(
                    "`{}` is about answers that are drawn several times: give [matrix] several seeds",
                    key.name
                );
                self.problems.add(value.span(), sentence);
            } else if let Some((place, k)) = k.clone().filter(|(_, k)| *k > seeds.len() as u64) {
                let sentence = format!(
                    "one of {k} answers has to be right, and these cells draw {}: give [matrix] more seeds, or take fewer",
                    seeds.len()
                );
                self.problems.add(place, sentence);
                return;
            }
        }
    }

    fn comparison(&mut self, span: &Range<usize>, table: &DeTable<'_>, has_reference: bool) -> Comparison {
        let against = table.get("against");
        match (table.get("vary"), against.and_then(text)) {
            (Some(_), Some(_)) => {
                let place = against.map_or(span.clone(), Spanned::span);
                let sentence = "a gate compares cells with each other (`vary`) or with something else (`against`): take one \
                                of them out";
                self.problems.add(place, sentence);
                Comparison::Reference
            }
            (Some(vary), None) => {
                let names = many(vary)
                    .into_iter()
                    .filter_map(|value| Some((value.span(), shape::axis(text(value)?, self.declared)?)));
                let mut axes: Vec<Axis> = Vec::new();
                for (place, axis) in names {
                    if axes.contains(&axis) {
                        self.problems.add(place, format!("`{axis}` comes up twice: take one out"));
                    }
                    axes.push(axis);
                }
                Comparison::Within(axes)
            }
            (None, Some("baseline")) => Comparison::Baseline,
            (None, Some(_)) => {
                if !has_reference {
                    let place = against.map_or(span.clone(), Spanned::span);
                    let sentence = "there is no reference: say which cell it is, such as [reference] with precision = \
                                    \"fp32\" and order = \"exact\"";
                    self.problems.add(place, sentence);
                }
                Comparison::Reference
            }
            (None, None) => {
                let sentence = "this gate compares nothing: let it `vary` axes, such as vary = [\"batch\"], or hold it \
                                `against` the reference";
                self.problems.add(span.clone(), sentence);
                Comparison::Reference
            }
        }
    }

    fn limits(&mut self, span: &Range<usize>, table: &DeTable<'_>, comparison: &Comparison) -> Vec<Limit> {
        let place = |name: &str| table.get(name).map_or(span.clone(), Spanned::span);
        let confidence = table.get("confidence").and_then(|value| shape::share(value.get_ref()));
        let pass_at = table.get(PASS_AT).and_then(|value| shape::count(value.get_ref()));
        let exceeding = table.get(EXCEEDING).and_then(|value| shape::share(value.get_ref()));
        let (mut is_used, mut has_passes, mut has_rows) = (false, false, false);
        let mut limits = Vec::new();
        for (entry, value, mut limit) in limits_of(table) {
            if let Limit::PassDrop { k, .. } = &mut limit {
                (*k, has_passes) = (pass_at.unwrap_or(*k), true);
            }
            if let Limit::AccuracyDrop { confidence: of, .. } | Limit::PassDrop { confidence: of, .. } =
                &mut limit
                && let Some(asked) = confidence
            {
                (*of, is_used) = (asked, true);
            }
            if let Limit::Rows { measure, exceeding: share, .. } = &mut limit
                && *measure != Measure::RankFlips
            {
                (*share, has_rows) = (exceeding.unwrap_or(*share), true);
            }
            if matches!(entry.form, Form::Share) && shape::share(value.get_ref()) == Some(1.0) {
                let sentence =
                    format!("`{}` of all items holds whatever happens: set a lower limit", entry.name);
                self.problems.add(value.span(), sentence);
            }
            limits.push(limit);
        }
        if limits.is_empty() {
            let sentence = "this gate asks for nothing: let it `require` bits, tokens or answers, or set a limit such as \
                            max-accuracy-drop = \"1pp\"";
            self.problems.add(span.clone(), sentence);
        }
        if limits.contains(&Limit::Diverges) && limits.len() > 1 {
            let sentence = "a gate that expects cells to diverge sets no limit to that: make it two gates";
            self.problems.add(place("expect"), sentence);
        }
        if confidence.is_some() && !is_used {
            let sentence =
                "`confidence` belongs to `max-accuracy-drop` and `max-pass-drop`: set one, or take this out";
            self.problems.add(place("confidence"), sentence);
        }
        if pass_at.is_some() && !has_passes {
            let sentence = "`pass-at` belongs to `max-pass-drop`: set that, or take this out";
            self.problems.add(place(PASS_AT), sentence);
        }
        if exceeding.is_some() && !has_rows {
            let sentence = "`exceeding` belongs to `max-logit-difference`, `max-ulp` and `max-kl`: set one, or take this out";
            self.problems.add(place(EXCEEDING), sentence);
        }
        if exceeding == Some(1.0) {
            let sentence = "`exceeding` of all rows holds whatever happens: set a lower share";
            self.problems.add(place(EXCEEDING), sentence);
        }
        if *comparison == Comparison::Reference
            && limits.iter().any(|limit| matches!(limit, Limit::PassDeviation(_)))
        {
            let sentence = "`max-pass-std` is about configurations beside each other: let the gate `vary` axes in place of `against`";
            self.problems.add(place("max-pass-std"), sentence);
        }
        if confidence.is_some_and(|confidence| !(0.5..1.0).contains(&confidence)) {
            let sentence = "`confidence` lies from 50% up and below 100%: write for example \"95%\"";
            self.problems.add(place("confidence"), sentence);
        }
        if *comparison == Comparison::Baseline
            && !limits.iter().all(|limit| matches!(limit, Limit::Require(_)))
        {
            let sentence = "a baseline holds digests, so a gate against it can only `require` bits, tokens or answers: take \
                            the other limits out, or hold them against the reference";
            self.problems.add(place("against"), sentence);
        }
        limits
    }
}

/// In which share of the rows a limit may be exceeded.
const EXCEEDING: &str = "exceeding";
/// Of how many answers one has to be right.
const PASS_AT: &str = "pass-at";

/// The limits that a table sets, each with its key and with what sets it.
fn limits_of<'v, 'a>(
    table: &'v DeTable<'a>,
) -> impl Iterator<Item = (&'static Key, &'v Spanned<DeValue<'a>>, Limit)> {
    LIMITS.iter().filter_map(|entry| {
        let value = table.get(entry.key.name)?;
        Some((&entry.key, value, (entry.read)(value.get_ref())?))
    })
}

/// What a gate without a name is called.
fn describe(comparison: &Comparison, limits: &[Limit]) -> String {
    let limits = limits.iter().map(Limit::name).collect::<Vec<_>>().join(", ");
    match comparison {
        Comparison::Within(axes) => {
            format!(
                "{limits} across {}",
                axes.iter().map(ToString::to_string).collect::<Vec<_>>().join(" and ")
            )
        }
        Comparison::Reference => format!("{limits}, beside the reference"),
        Comparison::Baseline => format!("{limits}, as approved"),
    }
}
